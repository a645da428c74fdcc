//! Giving routes back as documents.

use serde_json::{Value, json};

use super::super::duration::format;
use super::{
    BackendKind, BackendRef, Cors, Filter, GrpcMethodMatch, HeaderModifier, MatchKind, ParentRef,
    PathMatch, PathModifier, RequestMirror, Retry, Route, RouteKind, RouteMatch, RouteRule,
    SessionPersistence, TextMatch, Timeouts, ValueMatch,
};

impl Route {
    /// `spec` of its document.
    pub(in super::super) fn to_json(&self) -> Value {
        let mut out = json!({
            "parentRefs": list(&self.parent_refs, ParentRef::to_json),
            "rules": list(&self.rules, |rule| rule.to_json(self.kind)),
        });
        put_list(&mut out, "hostnames", &self.hostnames, |name| json!(name));
        out
    }
}

fn list<T>(items: &[T], to_json: impl Fn(&T) -> Value) -> Value {
    items.iter().map(to_json).collect()
}

/// Sets a field to a list, where there is something in it.
fn put_list<T>(out: &mut Value, field: &str, items: &[T], to_json: impl Fn(&T) -> Value) {
    if !items.is_empty() {
        out[field] = list(items, to_json);
    }
}

/// Sets a field, where there is something to set it to.
fn put(out: &mut Value, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        out[field] = value.into();
    }
}

impl ParentRef {
    fn to_json(&self) -> Value {
        let mut out = json!({
            "group": "", "kind": "Service", "namespace": self.namespace, "name": self.name,
        });
        put(&mut out, "port", self.port);
        put(&mut out, "sectionName", self.section_name.as_deref());
        out
    }
}

impl RouteRule {
    fn to_json(&self, kind: RouteKind) -> Value {
        let mut out = json!({"backendRefs": list(&self.backend_refs, BackendRef::to_json)});
        put(&mut out, "name", self.name.as_deref());
        if kind.is_http() {
            out["matches"] = list(&self.matches, RouteMatch::to_json);
        }
        put_list(&mut out, "filters", &self.filters, Filter::to_json);
        put(&mut out, "timeouts", self.timeouts.to_json());
        put(&mut out, "retry", self.retry.as_ref().map(Retry::to_json));
        let session = self.session_persistence.as_ref();
        put(
            &mut out,
            "sessionPersistence",
            session.map(SessionPersistence::to_json),
        );
        out
    }
}

impl RouteMatch {
    pub(in super::super) fn to_json(&self) -> Value {
        let mut out = match &self.kind {
            MatchKind::Http {
                path,
                method,
                query,
            } => {
                let (kind, value) = match path {
                    PathMatch::Exact(value) => ("Exact", value),
                    PathMatch::Prefix(value) => ("PathPrefix", value),
                    PathMatch::Regex(value) => ("RegularExpression", value),
                };
                let mut out = json!({"path": {"type": kind, "value": value}});
                put(&mut out, "method", method.as_deref());
                put_list(&mut out, "queryParams", query, ValueMatch::to_json);
                out
            }
            MatchKind::Grpc(method) => method.to_json(),
            MatchKind::Bytes => json!({}),
        };
        put_list(&mut out, "headers", &self.headers, ValueMatch::to_json);
        out
    }
}

impl GrpcMethodMatch {
    fn to_json(&self) -> Value {
        if self.service.is_none() && self.method.is_none() {
            return json!({});
        }
        let kind = if self.is_regex {
            "RegularExpression"
        } else {
            "Exact"
        };
        let mut method = json!({"type": kind});
        put(&mut method, "service", self.service.as_deref());
        put(&mut method, "method", self.method.as_deref());
        json!({"method": method})
    }
}

impl ValueMatch {
    fn to_json(&self) -> Value {
        let (kind, value) = match &self.value {
            TextMatch::Exact(value) => ("Exact", value),
            TextMatch::Regex(value) => ("RegularExpression", value),
        };
        json!({"type": kind, "name": self.name, "value": value})
    }
}

impl Filter {
    fn to_json(&self) -> Value {
        let (field, value) = match self {
            Self::RequestHeaderModifier(modifier) => ("requestHeaderModifier", modifier.to_json()),
            Self::ResponseHeaderModifier(modifier) => {
                ("responseHeaderModifier", modifier.to_json())
            }
            Self::RequestRedirect(redirect) => {
                let mut out = json!({"statusCode": redirect.status_code});
                put(&mut out, "scheme", redirect.scheme.as_deref());
                put(&mut out, "hostname", redirect.hostname.as_deref());
                put(
                    &mut out,
                    "path",
                    redirect.path.as_ref().map(PathModifier::to_json),
                );
                put(&mut out, "port", redirect.port);
                ("requestRedirect", out)
            }
            Self::UrlRewrite(rewrite) => {
                let mut out = json!({});
                put(&mut out, "hostname", rewrite.hostname.as_deref());
                put(
                    &mut out,
                    "path",
                    rewrite.path.as_ref().map(PathModifier::to_json),
                );
                ("urlRewrite", out)
            }
            Self::RequestMirror(mirror) => ("requestMirror", mirror.to_json()),
            Self::Cors(cors) => ("cors", cors.to_json()),
        };
        json!({"type": self.type_name(), field: value})
    }
}

impl HeaderModifier {
    fn to_json(&self) -> Value {
        let line = |(name, value): &(String, String)| json!({"name": name, "value": value});
        let mut out = json!({});
        put_list(&mut out, "set", &self.set, line);
        put_list(&mut out, "add", &self.add, line);
        put_list(&mut out, "remove", &self.remove, |name| json!(name));
        out
    }
}

impl PathModifier {
    fn to_json(&self) -> Value {
        match self {
            Self::Full(path) => json!({"type": "ReplaceFullPath", "replaceFullPath": path}),
            Self::Prefix(path) => json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": path}),
        }
    }
}

impl RequestMirror {
    fn to_json(&self) -> Value {
        json!({
            "backendRef": self.backend.reference(),
            "fraction": {"numerator": self.numerator, "denominator": self.denominator},
        })
    }
}

impl Cors {
    fn to_json(&self) -> Value {
        let mut out = json!({"maxAge": self.max_age_seconds});
        if self.allow_credentials {
            out["allowCredentials"] = json!(true);
        }
        let text = |value: &String| json!(value);
        put_list(&mut out, "allowOrigins", &self.allow_origins, text);
        put_list(&mut out, "allowMethods", &self.allow_methods, text);
        put_list(&mut out, "allowHeaders", &self.allow_headers, text);
        put_list(&mut out, "exposeHeaders", &self.expose_headers, text);
        out
    }
}

impl BackendRef {
    fn to_json(&self) -> Value {
        let mut out = self.reference();
        out["weight"] = self.weight.into();
        put_list(&mut out, "filters", &self.filters, Filter::to_json);
        out
    }

    fn reference(&self) -> Value {
        let (group, kind) = match &self.kind {
            BackendKind::Service => ("", "Service"),
            BackendKind::Other(other) => other.split_once('/').unwrap_or(("", other)),
        };
        let mut out = json!({
            "group": group, "kind": kind, "namespace": self.namespace, "name": self.name,
        });
        if self.port != 0 {
            out["port"] = self.port.into();
        }
        out
    }
}

impl Timeouts {
    fn to_json(self) -> Option<Value> {
        let mut out = json!({});
        put(&mut out, "request", self.request.map(format));
        put(&mut out, "backendRequest", self.backend_request.map(format));
        (self != Self::default()).then_some(out)
    }
}

impl Retry {
    fn to_json(&self) -> Value {
        let mut out = json!({});
        put_list(&mut out, "codes", &self.codes, |code| json!(code));
        put(&mut out, "attempts", self.attempts);
        put(&mut out, "backoff", self.backoff.map(format));
        out
    }
}

impl SessionPersistence {
    pub(in super::super) fn to_json(&self) -> Value {
        let kind = if self.by_header { "Header" } else { "Cookie" };
        let mut out = json!({"type": kind});
        put(&mut out, "sessionName", self.session_name.as_deref());
        put(
            &mut out,
            "absoluteTimeout",
            self.absolute_timeout.map(format),
        );
        put(&mut out, "idleTimeout", self.idle_timeout.map(format));
        if self.permanent {
            out["cookieConfig"] = json!({"lifetimeType": "Permanent"});
        }
        out
    }
}
