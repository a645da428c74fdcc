//! Reading `HTTPRoute` documents and giving them back.

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::http_route::{
    BACKEND_REFS_MAX, HEADER_VALUE_BYTES_MAX, HEADERS_MAX, MATCHES_MAX, PARENT_REFS_MAX,
    PATH_BYTES_MAX, REGEX_COMPILED_BYTES_MAX, RULES_MAX, WEIGHT_MAX,
};
use super::{
    BackendKind, BackendRef, HeaderMatch, HeaderValueMatch, HttpRoute, HttpRouteMatch,
    HttpRouteRule, HttpRouteSpec, Metadata, ParentRef, PathMatch, names,
};

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<HttpRoute> {
    let mut fields = document.require("spec")?.mapping()?;
    fields.refuse(&["hostnames", "useDefaultGateways"]);
    let namespace = metadata.namespace.clone();
    let parents = fields.take("parentRefs");
    let parent_refs = parents
        .map(|field| field.sequence(PARENT_REFS_MAX))
        .unwrap_or_default()
        .iter()
        .filter_map(|item| parent_ref(item, &namespace))
        .collect();
    let rules = match fields.take("rules") {
        Some(field) => rules(&field, &namespace),
        // Gateway API's default: everything, to no backend.
        None => vec![HttpRouteRule {
            name: None,
            matches: vec![HttpRouteMatch::any()],
            backend_refs: Vec::new(),
        }],
    };
    fields.finish();
    Some(HttpRoute {
        metadata,
        spec: HttpRouteSpec { parent_refs, rules },
    })
}

impl HttpRouteMatch {
    /// The match that a rule without one has.
    fn any() -> Self {
        Self {
            path: PathMatch::Prefix("/".to_owned()),
            method: None,
            headers: Vec::new(),
        }
    }
}

fn parent_ref(item: &Field<'_>, namespace: &str) -> Option<ParentRef> {
    let mut fields = item.mapping()?;
    let text = |field: Option<Field<'_>>, default: &str| match field {
        Some(field) => field.string(),
        None => Some(default.to_owned()),
    };
    let group = text(fields.take("group"), GATEWAY_GROUP);
    let kind = text(fields.take("kind"), "Gateway");
    let name = fields
        .require("name")
        .and_then(|field| field.checked(names::subdomain));
    let namespace = reference_namespace(&mut fields, namespace);
    let section_name = fields
        .take("sectionName")
        .and_then(|field| field.checked(names::subdomain));
    let port = fields.take("port").map(|field| field.port());
    fields.finish();
    if (group?.as_str(), kind?.as_str()) != ("", "Service") {
        item.notice("only a Service (group \"\", kind Service) is a parent in the mesh; this one is left alone");
        return None;
    }
    Some(ParentRef {
        namespace: namespace?,
        name: name?,
        port: match port {
            Some(port) => Some(port?),
            None => None,
        },
        section_name,
    })
}

fn reference_namespace(fields: &mut Fields<'_>, default: &str) -> Option<String> {
    match fields.take("namespace") {
        Some(field) => field.checked(|name| names::label(name, false)),
        None => Some(default.to_owned()),
    }
}

fn rules(field: &Field<'_>, namespace: &str) -> Vec<HttpRouteRule> {
    let items = field.sequence(RULES_MAX);
    let mut rules: Vec<HttpRouteRule> = Vec::new();
    for item in &items {
        let Some(rule) = rule(item, namespace) else {
            continue;
        };
        if let Some(name) = &rule.name
            && rules.iter().any(|other| other.name.as_ref() == Some(name))
        {
            item.problem(format!("the name {name:?} is there twice"));
        }
        rules.push(rule);
    }
    if matches!(&field.node.value, super::tree::Value::Sequence(nodes) if nodes.is_empty()) {
        field.problem("at least one rule is needed");
    }
    rules
}

fn rule(item: &Field<'_>, namespace: &str) -> Option<HttpRouteRule> {
    let mut fields = item.mapping()?;
    fields.refuse(&["filters", "timeouts", "retry", "sessionPersistence"]);
    let name = fields
        .take("name")
        .and_then(|field| field.checked(names::subdomain));
    let mut matches: Vec<HttpRouteMatch> = fields
        .take("matches")
        .map(|field| field.sequence(MATCHES_MAX))
        .unwrap_or_default()
        .iter()
        .filter_map(route_match)
        .collect();
    if matches.is_empty() {
        matches.push(HttpRouteMatch::any());
    }
    let backend_refs = fields
        .take("backendRefs")
        .map(|field| field.sequence(BACKEND_REFS_MAX))
        .unwrap_or_default()
        .iter()
        .filter_map(|item| backend_ref(item, namespace))
        .collect();
    fields.finish();
    Some(HttpRouteRule {
        name,
        matches,
        backend_refs,
    })
}

fn route_match(item: &Field<'_>) -> Option<HttpRouteMatch> {
    let mut fields = item.mapping()?;
    fields.refuse(&["queryParams"]);
    let path = match fields.take("path") {
        Some(field) => path_match(&field),
        None => Some(PathMatch::Prefix("/".to_owned())),
    };
    let method = fields.take("method").and_then(|field| {
        field.checked(|method| {
            METHODS
                .contains(&method)
                .then_some(())
                .ok_or_else(|| format!("{method:?} is none of {}", METHODS.join(", ")))
        })
    });
    let listed = fields.take("headers");
    let headers = listed.map(|field| headers(&field)).unwrap_or_default();
    fields.finish();
    Some(HttpRouteMatch {
        path: path?,
        method,
        headers,
    })
}

fn path_match(field: &Field<'_>) -> Option<PathMatch> {
    let mut fields = field.mapping()?;
    let kind = match fields.take("type") {
        Some(kind) => kind.checked(one_of(&["Exact", "PathPrefix", "RegularExpression"])),
        None => Some("PathPrefix".to_owned()),
    };
    let value = fields.take("value");
    fields.finish();
    let kind = kind?;
    let text = match value {
        Some(value) if kind == "RegularExpression" => {
            value.checked(|text| regex(text, PATH_BYTES_MAX))?
        }
        Some(value) => value.checked(plain_path)?,
        None => "/".to_owned(),
    };
    Some(match kind.as_str() {
        "Exact" => PathMatch::Exact(text),
        "PathPrefix" => PathMatch::Prefix(text),
        _ => PathMatch::Regex(text),
    })
}

fn one_of(names: &[&str]) -> impl Fn(&str) -> Result<(), String> {
    move |name| {
        names
            .contains(&name)
            .then_some(())
            .ok_or_else(|| format!("{name:?} is none of {}", names.join(", ")))
    }
}

/// Gateway API's rules for HTTPPathMatch: a path that could mean another one is refused.
fn plain_path(path: &str) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("longer than {PATH_BYTES_MAX} bytes"));
    }
    if !path.starts_with('/') {
        return Err(format!("{path:?} must begin with '/'"));
    }
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if path.contains(part) {
            return Err(format!("{path:?} must not hold {part:?}"));
        }
    }
    if path.ends_with("/..") || path.ends_with("/.") {
        return Err(format!("{path:?} must not end with a dot segment"));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    match path.bytes().find(|b| !allowed(*b)) {
        Some(b) => Err(format!(
            "{path:?} holds {:?}, which must be percent-encoded in a path",
            char::from(b)
        )),
        None => Ok(()),
    }
}

fn regex(text: &str, bytes_max: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(format!("must have 1 to {bytes_max} bytes"));
    }
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(REGEX_COMPILED_BYTES_MAX)
        .build()
        .map(drop)
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the expression takes more than {REGEX_COMPILED_BYTES_MAX} bytes compiled")
            }
            // The library draws the place over several lines; the last one says what is wrong.
            other => {
                let drawn = other.to_string();
                let what = drawn.lines().last().unwrap_or_default();
                format!(
                    "no regular expression: {}",
                    what.trim_start_matches("error: ")
                )
            }
        })
}

fn headers(field: &Field<'_>) -> Vec<HeaderMatch> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for item in field.sequence(HEADERS_MAX) {
        let Some(header) = header(&item) else {
            continue;
        };
        // Gateway API: of names equal but for case only the first counts.
        if !headers.iter().any(|other| other.name == header.name) {
            headers.push(header);
        }
    }
    headers
}

fn header(item: &Field<'_>) -> Option<HeaderMatch> {
    let mut fields = item.mapping()?;
    let kind = match fields.take("type") {
        Some(kind) => kind.checked(one_of(&["Exact", "RegularExpression"])),
        None => Some("Exact".to_owned()),
    };
    let name = fields.require("name").and_then(|field| {
        field.checked(|name| match http::HeaderName::from_bytes(name.as_bytes()) {
            Ok(_) if name.len() <= 256 => Ok(()),
            _ => Err(format!("{name:?} is no header name")),
        })
    });
    let value = fields.require("value");
    fields.finish();
    let (kind, value) = (kind?, value?);
    let value = if kind == "Exact" {
        HeaderValueMatch::Exact(value.checked(header_value)?)
    } else {
        HeaderValueMatch::Regex(value.checked(|text| regex(text, HEADER_VALUE_BYTES_MAX))?)
    };
    Some(HeaderMatch {
        name: name?.to_ascii_lowercase(),
        value,
    })
}

fn header_value(text: &str) -> Result<(), String> {
    let fine = (1..=HEADER_VALUE_BYTES_MAX).contains(&text.len())
        && http::HeaderValue::from_str(text).is_ok();
    fine.then_some(())
        .ok_or_else(|| format!("must have 1 to {HEADER_VALUE_BYTES_MAX} visible characters"))
}

fn backend_ref(item: &Field<'_>, namespace: &str) -> Option<BackendRef> {
    let mut fields = item.mapping()?;
    fields.refuse(&["filters"]);
    let group = match fields.take("group") {
        Some(field) => field.string(),
        None => Some(String::new()),
    };
    let kind = match fields.take("kind") {
        Some(field) => field.string(),
        None => Some("Service".to_owned()),
    };
    let name = fields
        .require("name")
        .and_then(|field| field.checked(names::subdomain));
    let namespace = reference_namespace(&mut fields, namespace);
    let weight = match fields.take("weight") {
        Some(field) => field.integer(0..=WEIGHT_MAX),
        None => Some(1),
    };
    let kind = match (group?.as_str(), kind?.as_str()) {
        ("", "Service") => BackendKind::Service,
        (group, kind) => BackendKind::Other(format!("{group}/{kind}")),
    };
    let port = if kind == BackendKind::Service {
        fields.require("port").and_then(|field| field.port())
    } else {
        fields.take("port").map_or(Some(0), |field| field.port())
    };
    fields.finish();
    Some(BackendRef {
        kind,
        namespace: namespace?,
        name: name?,
        port: port?,
        weight: weight.and_then(|weight| u32::try_from(weight).ok())?,
    })
}

impl HttpRouteSpec {
    pub(super) fn to_json(&self) -> Value {
        let parents: Vec<Value> = self
            .parent_refs
            .iter()
            .map(|parent| {
                let mut out = json!({
                    "group": "", "kind": "Service",
                    "namespace": parent.namespace, "name": parent.name,
                });
                if let Some(port) = parent.port {
                    out["port"] = port.into();
                }
                if let Some(section) = &parent.section_name {
                    out["sectionName"] = section.as_str().into();
                }
                out
            })
            .collect();
        let rules: Vec<Value> = self.rules.iter().map(HttpRouteRule::to_json).collect();
        json!({"parentRefs": parents, "rules": rules})
    }
}

impl HttpRouteRule {
    fn to_json(&self) -> Value {
        let matches: Vec<Value> = self.matches.iter().map(HttpRouteMatch::to_json).collect();
        let backends: Vec<Value> = self.backend_refs.iter().map(BackendRef::to_json).collect();
        let mut out = json!({"matches": matches, "backendRefs": backends});
        if let Some(name) = &self.name {
            out["name"] = name.as_str().into();
        }
        out
    }
}

impl HttpRouteMatch {
    fn to_json(&self) -> Value {
        let (kind, value) = match &self.path {
            PathMatch::Exact(value) => ("Exact", value),
            PathMatch::Prefix(value) => ("PathPrefix", value),
            PathMatch::Regex(value) => ("RegularExpression", value),
        };
        let mut out = json!({"path": {"type": kind, "value": value}});
        if let Some(method) = &self.method {
            out["method"] = method.as_str().into();
        }
        if !self.headers.is_empty() {
            out["headers"] = self
                .headers
                .iter()
                .map(|header| {
                    let (kind, value) = match &header.value {
                        HeaderValueMatch::Exact(value) => ("Exact", value),
                        HeaderValueMatch::Regex(value) => ("RegularExpression", value),
                    };
                    json!({"type": kind, "name": header.name, "value": value})
                })
                .collect();
        }
        out
    }
}

impl BackendRef {
    fn to_json(&self) -> Value {
        let (group, kind) = match &self.kind {
            BackendKind::Service => ("", "Service"),
            BackendKind::Other(other) => other.split_once('/').unwrap_or(("", other)),
        };
        let mut out = json!({
            "group": group, "kind": kind, "namespace": self.namespace, "name": self.name,
            "weight": self.weight,
        });
        if self.port != 0 {
            out["port"] = self.port.into();
        }
        out
    }
}
