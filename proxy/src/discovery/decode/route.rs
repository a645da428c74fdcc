//! Routes: their rules, matches, filters and backends.

use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use weft_proto::fields::is_proxy_field;
use weft_proto::v1alpha1 as wire;

use super::{
    Result, each, from_text, optional, policy, port, protocol, regex, reject, required, same_name,
    shorten, text, visible, within,
};
use crate::model::{
    Cors, FieldValue, Filter, HeaderMatch, HeaderModifier, HostMatch, Mirror, Name, OriginMatch,
    PathMatch, PathModifier, QueryMatch, Redirect, Retry, Rewrite, Route, RouteMatch, Rule,
    SessionCarrier, SessionPersistence, TcpRule, Text, TextMatch, TlsRule, WeightedCluster,
};

/// Longest time that a route may give a request; a longer one is rejected. Gateway API's durations end
/// before it.
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 100);

/// What redirects may answer with (Gateway API, HTTPRequestRedirectFilter).
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];

pub(super) fn decode(expected: &Name, message: wire::Route) -> Result<Route> {
    let name: crate::model::ServicePort = from_text("name", &message.name)?;
    same_name("name", expected, &Name::Route(name.clone()))?;
    let tcp = match message.tcp {
        Some(rule) => Some(within("tcp", tcp_rule(rule))?),
        None => None,
    };
    Ok(Route {
        name,
        protocol: protocol("protocol", message.protocol)?,
        rules: each("rules", message.rules, rule)?.into(),
        default_cluster: from_text("default_cluster", &message.default_cluster)?,
        tls_rules: each("tls_rules", message.tls_rules, tls_rule)?,
        tcp,
    })
}

fn tcp_rule(message: wire::TcpRule) -> Result<TcpRule> {
    Ok(TcpRule {
        route: required("route", message.route)?.into(),
        backends: each("backends", message.backends, backend)?,
    })
}

fn tls_rule(message: wire::TlsRule) -> Result<TlsRule> {
    Ok(TlsRule {
        route: required("route", message.route)?.into(),
        hostname: host_match("hostname", message.hostname)?,
        backends: each("backends", message.backends, backend)?,
    })
}

fn rule(message: wire::Rule) -> Result<Rule> {
    let matches = message.r#match.unwrap_or_default();
    let route = required("route", message.route)?;
    Ok(Rule {
        hop_route: visible("route", &route)?,
        route: route.into(),
        rule: message.rule,
        rule_name: optional("rule_name", message.rule_name)?,
        match_index: message.match_index,
        matches: within("match", route_match(matches))?,
        filters: each("filters", message.filters, filter)?,
        request_timeout: timeout(
            "request_timeout_milliseconds",
            message.request_timeout_milliseconds,
        )?,
        backend_request_timeout: timeout(
            "backend_request_timeout_milliseconds",
            message.backend_request_timeout_milliseconds,
        )?,
        retry: match message.retry {
            None => None,
            Some(message) => Some(within("retry", retry(message))?),
        },
        session: match message.session_persistence {
            None => None,
            Some(message) => Some(within("session_persistence", session(message))?),
        },
        faults: policy::faults(message.fault_injection_policy, message.fault_injections)?,
        backends: each("backends", message.backends, backend)?,
    })
}

pub(super) fn session(message: wire::SessionPersistence) -> Result<SessionPersistence> {
    let name = required("name", message.name)?;
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if !name.bytes().all(is_token) {
        return Err(reject("name", "is no name of a cookie or a header"));
    }
    let carrier = match message.by_header {
        true => SessionCarrier::Header(from_text::<HeaderName>("name", &name)?),
        false => SessionCarrier::Cookie,
    };
    let time = |field, milliseconds: Option<u64>| timeout(field, milliseconds.unwrap_or_default());
    Ok(SessionPersistence {
        name,
        carrier,
        absolute_timeout: time(
            "absolute_timeout_milliseconds",
            message.absolute_timeout_milliseconds,
        )?,
        idle_timeout: time(
            "idle_timeout_milliseconds",
            message.idle_timeout_milliseconds,
        )?,
        permanent: message.permanent,
    })
}

/// Attempts after the first that a document may ask for and are made; more are taken for as many.
const RETRIES_MAX: u32 = 10;
/// Further attempts where a document doesn't say how many.
const RETRIES: u32 = 2;
/// The first pause where a document doesn't say how long.
const BACKOFF: Duration = Duration::from_millis(25);

fn retry(message: wire::Retry) -> Result<Retry> {
    let codes = each("codes", message.codes, |code| match u16::try_from(code) {
        Ok(code @ 400..=599) => Ok(code),
        _ => Err(reject("", format!("{code} is no status of a failure"))),
    })?;
    let backoff = message.backoff_milliseconds.map(Duration::from_millis);
    Ok(Retry {
        codes,
        attempts: message.attempts.unwrap_or(RETRIES).min(RETRIES_MAX),
        backoff: backoff.unwrap_or(BACKOFF).min(TIMEOUT_MAX),
    })
}

fn timeout(field: &str, milliseconds: u64) -> Result<Option<Duration>> {
    match Duration::from_millis(milliseconds) {
        Duration::ZERO => Ok(None),
        timeout if timeout <= TIMEOUT_MAX => Ok(Some(timeout)),
        timeout => Err(reject(
            field,
            format!("{timeout:?} is longer than {TIMEOUT_MAX:?}"),
        )),
    }
}

fn backend(message: wire::WeightedCluster) -> Result<WeightedCluster> {
    Ok(WeightedCluster {
        cluster: from_text("cluster", &message.cluster)?,
        weight: message.weight,
        invalid: optional("invalid", message.invalid)?,
        filters: each("filters", message.filters, filter)?,
    })
}

pub(super) fn route_match(message: wire::Match) -> Result<RouteMatch> {
    use wire::r#match::Path;
    let path = match message.path {
        None => None,
        Some(Path::PathExact(path)) => Some(PathMatch::Exact(absolute("path_exact", path)?)),
        Some(Path::PathPrefix(path)) => Some(PathMatch::Prefix(absolute("path_prefix", path)?)),
        Some(Path::PathRegex(path)) => Some(PathMatch::Regex(regex("path_regex", &path)?)),
    };
    let method = match message.method.as_str() {
        "" => None,
        method => Some(from_text::<Method>("method", method)?),
    };
    Ok(RouteMatch {
        hostname: host_match("hostname", message.hostname)?,
        path,
        method,
        headers: each("headers", message.headers, header)?,
        query: each("query", message.query, query)?,
    })
}

fn host_match(field: &str, name: String) -> Result<Option<HostMatch>> {
    let name = text(field, name)?.to_ascii_lowercase();
    Ok(match name.strip_prefix('*') {
        _ if name.is_empty() => None,
        None => Some(HostMatch::Exact(name)),
        Some(suffix) if suffix.len() > 1 && suffix.starts_with('.') => {
            Some(HostMatch::Below(suffix.to_owned()))
        }
        Some(_) => {
            let reason = format!("`{}` has a star that is no whole label", shorten(&name));
            return Err(reject(field, reason));
        }
    })
}

fn absolute(field: &str, path: String) -> Result<String> {
    if path.starts_with('/') {
        text(field, path)
    } else {
        Err(reject(
            field,
            format!("`{}` does not begin with /", shorten(&path)),
        ))
    }
}

fn header(message: wire::HeaderMatch) -> Result<HeaderMatch> {
    use wire::header_match::Value;
    let value = match message.value {
        None => return Err(reject("value", "is not set")),
        Some(Value::Exact(value)) => TextMatch::Exact(text("exact", value)?),
        Some(Value::Regex(value)) => TextMatch::Regex(regex("regex", &value)?),
    };
    Ok(HeaderMatch {
        name: from_text::<HeaderName>("name", &message.name)?,
        value,
    })
}

fn query(message: wire::QueryMatch) -> Result<QueryMatch> {
    use wire::query_match::Value;
    let value = match message.value {
        None => return Err(reject("value", "is not set")),
        Some(Value::Exact(value)) => TextMatch::Exact(text("exact", value)?),
        Some(Value::Regex(value)) => TextMatch::Regex(regex("regex", &value)?),
    };
    Ok(QueryMatch {
        name: required("name", message.name)?,
        value,
    })
}

fn filter(message: wire::Filter) -> Result<Filter> {
    use wire::filter::Filter as Kind;
    Ok(match message.filter {
        // A filter that this proxy doesn't know must not be left out in silence.
        None => return Err(reject("filter", "is none that this proxy knows")),
        Some(Kind::RequestHeaderModifier(message)) => {
            Filter::RequestHeaders(within("request_header_modifier", header_modifier(message))?)
        }
        Some(Kind::ResponseHeaderModifier(message)) => Filter::ResponseHeaders(within(
            "response_header_modifier",
            header_modifier(message),
        )?),
        Some(Kind::RequestRedirect(message)) => {
            Filter::Redirect(Box::new(within("request_redirect", redirect(message))?))
        }
        Some(Kind::UrlRewrite(message)) => {
            Filter::Rewrite(within("url_rewrite", rewrite(message))?)
        }
        Some(Kind::RequestMirror(message)) => {
            Filter::Mirror(within("request_mirror", mirror(message))?)
        }
        Some(Kind::Cors(message)) => Filter::Cors(Box::new(within("cors", cors(message))?)),
    })
}

fn header_modifier(message: wire::HeaderModifier) -> Result<HeaderModifier> {
    let line = |message: wire::Header| {
        let value = FieldValue::from_text(&message.value)
            .map_err(|_| reject("value", "holds what no header field can"))?;
        Ok((modifiable("name", &message.name)?, value))
    };
    Ok(HeaderModifier {
        set: each("set", message.set, line)?,
        add: each("add", message.add, line)?,
        remove: each("remove", message.remove, |name| modifiable("", &name))?,
    })
}

/// A field that frames the message or belongs to the hop is the proxy's alone: a route that could
/// change it could split one request into two.
fn modifiable(field: &str, name: &str) -> Result<HeaderName> {
    let name = from_text::<HeaderName>(field, name)?;
    if is_proxy_field(name.as_str()) {
        return Err(reject(field, format!("`{name}` is the proxy's own")));
    }
    Ok(name)
}

fn redirect(message: wire::RequestRedirect) -> Result<Redirect> {
    let status = u16::try_from(message.status_code)
        .ok()
        .filter(|code| REDIRECTS.contains(&u32::from(*code)))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| {
            let reason = format!("{} is no redirect's", message.status_code);
            reject("status_code", reason)
        })?;
    Ok(Redirect {
        scheme: word("scheme", &message.scheme)?,
        hostname: word("hostname", &message.hostname)?,
        path: path_modifier(message.path)?,
        port: match message.port {
            0 => None,
            number => Some(port("port", number)?),
        },
        status,
    })
}

fn rewrite(message: wire::UrlRewrite) -> Result<Rewrite> {
    Ok(Rewrite {
        hostname: word("hostname", &message.hostname)?,
        path: path_modifier(message.path)?,
    })
}

fn word(field: &str, value: &str) -> Result<Option<Text>> {
    match value {
        "" => Ok(None),
        value => Ok(Some(visible(field, value)?)),
    }
}

fn path_modifier(message: Option<wire::PathModifier>) -> Result<Option<PathModifier>> {
    use wire::path_modifier::Path;
    Ok(match message.and_then(|message| message.path) {
        None => None,
        Some(Path::Full(path)) => Some(PathModifier::Full(replacement("path.full", &path)?)),
        Some(Path::Prefix(path)) => Some(PathModifier::Prefix(replacement("path.prefix", &path)?)),
    })
}

fn replacement(field: &str, path: &str) -> Result<Text> {
    let path = visible(field, path)?;
    if path.contains(['?', '#']) || !(path.is_empty() || path.starts_with('/')) {
        let reason = format!("`{}` is no path", shorten(&path));
        return Err(reject(field, reason));
    }
    Ok(path)
}

fn mirror(message: wire::RequestMirror) -> Result<Mirror> {
    if message.denominator == 0 || message.numerator > message.denominator {
        let (part, whole) = (message.numerator, message.denominator);
        return Err(reject(
            "denominator",
            format!("{part} of {whole} is no share"),
        ));
    }
    Ok(Mirror {
        cluster: from_text("cluster", &message.cluster)?,
        invalid: optional("invalid", message.invalid)?,
        numerator: message.numerator,
        denominator: message.denominator,
    })
}

fn cors(message: wire::Cors) -> Result<Cors> {
    let list = |field: &str, list| {
        each(field, list, |value: String| {
            visible("", &value)?;
            Ok(value)
        })
    };
    Ok(Cors {
        allow_origins: each("allow_origins", message.allow_origins, |text| origin(&text))?,
        allow_credentials: message.allow_credentials,
        allow_methods: list("allow_methods", message.allow_methods)?,
        allow_headers: list("allow_headers", message.allow_headers)?,
        expose_headers: list("expose_headers", message.expose_headers)?,
        max_age_seconds: message.max_age_seconds,
    })
}

fn origin(origin: &str) -> Result<OriginMatch> {
    visible("", origin)?;
    let origin = origin.to_ascii_lowercase();
    if origin == "*" {
        return Ok(OriginMatch::Any);
    }
    let Some((scheme, host)) = origin.split_once("://") else {
        let reason = format!("`{}` is no SCHEME://HOST", shorten(&origin));
        return Err(reject("", reason));
    };
    Ok(match host.strip_prefix('*') {
        Some(suffix) => OriginMatch::Below {
            scheme: format!("{scheme}://"),
            suffix: suffix.to_owned(),
        },
        None => OriginMatch::Exact(origin),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> wire::Header {
        wire::Header {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn filters() {
        use wire::filter::Filter as Kind;
        let check = |kind: Option<Kind>, expect: &str| {
            let seen = filter(wire::Filter {
                filter: kind.clone(),
            });
            let field = seen.map_or_else(|rejection| rejection.field, |_| String::new());
            assert_eq!(field, expect, "{kind:?}");
        };
        check(None, "filter");
        let set = |name: &str, value: &str| {
            Some(Kind::RequestHeaderModifier(wire::HeaderModifier {
                set: vec![header("x-fine", ""), header(name, value)],
                ..wire::HeaderModifier::default()
            }))
        };
        check(set("x-a", "a b"), "");
        check(set("x a", "1"), "request_header_modifier.set[1].name");
        check(
            set("x-a", "1\r\nx: 2"),
            "request_header_modifier.set[1].value",
        );
        for name in [
            "Content-Length",
            "transfer-encoding",
            "Host",
            "weft-hop-port",
            "weft-fault",
        ] {
            check(set(name, "1"), "request_header_modifier.set[1].name");
            let remove = Kind::ResponseHeaderModifier(wire::HeaderModifier {
                remove: vec![name.to_owned()],
                ..wire::HeaderModifier::default()
            });
            check(Some(remove), "response_header_modifier.remove[0]");
        }
        let redirect = |status_code, port, hostname: &str| {
            Some(Kind::RequestRedirect(wire::RequestRedirect {
                status_code,
                port,
                hostname: hostname.to_owned(),
                ..wire::RequestRedirect::default()
            }))
        };
        check(redirect(308, 0, ""), "");
        check(redirect(301, 8443, "a.test"), "");
        check(redirect(300, 0, ""), "request_redirect.status_code");
        check(redirect(70_000, 0, ""), "request_redirect.status_code");
        check(redirect(302, 70_000, ""), "request_redirect.port");
        check(redirect(302, 0, "a\r\nb"), "request_redirect.hostname");
        let rewrite = |path: wire::path_modifier::Path| {
            Some(Kind::UrlRewrite(wire::UrlRewrite {
                hostname: String::new(),
                path: Some(wire::PathModifier { path: Some(path) }),
            }))
        };
        check(
            rewrite(wire::path_modifier::Path::Prefix(String::new())),
            "",
        );
        check(
            rewrite(wire::path_modifier::Path::Full("/a?b".into())),
            "url_rewrite.path.full",
        );
        check(
            rewrite(wire::path_modifier::Path::Prefix("a".into())),
            "url_rewrite.path.prefix",
        );
        let mirror = |numerator, denominator| {
            Some(Kind::RequestMirror(wire::RequestMirror {
                cluster: "shop/shadow:80".to_owned(),
                invalid: String::new(),
                numerator,
                denominator,
            }))
        };
        check(mirror(0, 1), "");
        check(mirror(100, 100), "");
        check(mirror(0, 0), "request_mirror.denominator");
        check(mirror(2, 1), "request_mirror.denominator");
        let cors = |origin: &str| {
            Some(Kind::Cors(wire::Cors {
                allow_origins: vec!["*".to_owned(), origin.to_owned()],
                ..wire::Cors::default()
            }))
        };
        check(cors("https://*.a.test"), "");
        check(cors("a.test"), "cors.allow_origins[1]");
        check(cors("https://a test"), "cors.allow_origins[1]");
    }

    #[test]
    fn hosts() {
        let check = |name: &str, expect: Option<&str>| {
            let seen = host_match("hostname", name.to_owned()).ok();
            let seen = seen.map(|host| host.map_or(String::new(), |host| host.to_string()));
            assert_eq!(seen.as_deref(), expect, "{name}");
        };
        check("", Some(""));
        check("Orders.shop", Some("orders.shop"));
        check("*.example.com", Some("*.example.com"));
        check("*", None);
        check("*.", None);
        check("*example.com", None);
    }

    #[test]
    fn times() {
        assert_eq!(timeout("t", 0), Ok(None));
        assert_eq!(timeout("t", 1500), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(timeout("t", u64::MAX).unwrap_err().field, "t");
    }
}
