//! Routes to protobuf messages.

use std::time::Duration;

use weft_proto::v1alpha1 as wire;

use super::encode::protocol;
use super::policies;
use crate::compile::{Filter, Mirror, Route, Rule, RuleMatch, WeightedCluster};
use crate::resource::{
    Cors, HeaderModifier, PathMatch, PathModifier, RequestRedirect, SessionPersistence, TextMatch,
    UrlRewrite, ValueMatch,
};

pub(super) fn route(route: &Route) -> wire::Route {
    let tls_rules = route.tls_rules.iter().map(|rule| wire::TlsRule {
        route: rule.route.clone(),
        hostname: rule.hostname.clone(),
        backends: backends(&rule.backends),
    });
    wire::Route {
        name: route.name.to_string(),
        protocol: protocol(route.protocol),
        rules: route.rules.iter().map(rule).collect(),
        default_cluster: route.default_cluster.to_string(),
        tls_rules: tls_rules.collect(),
        tcp: route.tcp.as_ref().map(|rule| wire::TcpRule {
            route: rule.route.clone(),
            backends: backends(&rule.backends),
        }),
    }
}

fn rule(rule: &Rule) -> wire::Rule {
    let faults = rule.faults.as_deref();
    wire::Rule {
        route: rule.route.clone(),
        rule: rule.rule,
        rule_name: rule.rule_name.clone().unwrap_or_default(),
        match_index: rule.match_index,
        r#match: Some(matches(&rule.matches)),
        backends: backends(&rule.backends),
        filters: rule.filters.iter().map(filter).collect(),
        request_timeout_milliseconds: milliseconds(rule.timeouts.request),
        backend_request_timeout_milliseconds: milliseconds(rule.timeouts.backend_request),
        session_persistence: rule.session.as_ref().map(session),
        fault_injections: faults.map(policies::faults).unwrap_or_default(),
        fault_injection_policy: faults.map(policies::faults_name).unwrap_or_default(),
        retry: rule.retry.as_ref().map(|retry| wire::Retry {
            codes: retry.codes.iter().map(|code| u32::from(*code)).collect(),
            attempts: retry.attempts,
            backoff_milliseconds: retry.backoff.map(|backoff| milliseconds(Some(backoff))),
        }),
    }
}

pub(super) fn session((name, session): &(String, SessionPersistence)) -> wire::SessionPersistence {
    let limit = |time: Option<Duration>| time.map(|time| milliseconds(Some(time)));
    wire::SessionPersistence {
        name: name.clone(),
        by_header: session.by_header,
        absolute_timeout_milliseconds: limit(session.absolute_timeout),
        idle_timeout_milliseconds: limit(session.idle_timeout),
        permanent: session.permanent,
    }
}

pub(super) fn milliseconds(timeout: Option<Duration>) -> u64 {
    let milliseconds = timeout.map(|timeout| timeout.as_millis());
    u64::try_from(milliseconds.unwrap_or_default()).unwrap_or(u64::MAX)
}

fn backends(backends: &[WeightedCluster]) -> Vec<wire::WeightedCluster> {
    let backends = backends.iter().map(|backend| wire::WeightedCluster {
        cluster: backend.cluster.to_string(),
        weight: backend.weight,
        invalid: backend.invalid.clone().unwrap_or_default(),
        filters: backend.filters.iter().map(filter).collect(),
    });
    backends.collect()
}

pub(super) fn matches(matches: &RuleMatch) -> wire::Match {
    use wire::r#match::Path;
    let path = matches.path.as_ref().map(|path| match path {
        PathMatch::Exact(path) => Path::PathExact(path.clone()),
        PathMatch::Prefix(path) => Path::PathPrefix(path.clone()),
        PathMatch::Regex(path) => Path::PathRegex(path.clone()),
    });
    wire::Match {
        path,
        method: matches.method.clone().unwrap_or_default(),
        headers: matches.headers.iter().map(header).collect(),
        query: matches.query.iter().map(query).collect(),
        hostname: matches.hostname.clone(),
    }
}

fn header(header: &ValueMatch) -> wire::HeaderMatch {
    use wire::header_match::Value;
    wire::HeaderMatch {
        name: header.name.clone(),
        value: Some(match &header.value {
            TextMatch::Exact(value) => Value::Exact(value.clone()),
            TextMatch::Regex(value) => Value::Regex(value.clone()),
        }),
    }
}

fn query(query: &ValueMatch) -> wire::QueryMatch {
    use wire::query_match::Value;
    wire::QueryMatch {
        name: query.name.clone(),
        value: Some(match &query.value {
            TextMatch::Exact(value) => Value::Exact(value.clone()),
            TextMatch::Regex(value) => Value::Regex(value.clone()),
        }),
    }
}

fn filter(filter: &Filter) -> wire::Filter {
    use wire::filter::Filter as Kind;
    let kind = match filter {
        Filter::RequestHeaders(modifier) => Kind::RequestHeaderModifier(header_modifier(modifier)),
        Filter::ResponseHeaders(modifier) => {
            Kind::ResponseHeaderModifier(header_modifier(modifier))
        }
        Filter::Redirect(redirect) => Kind::RequestRedirect(self::redirect(redirect)),
        Filter::Rewrite(rewrite) => Kind::UrlRewrite(self::rewrite(rewrite)),
        Filter::Mirror(mirror) => Kind::RequestMirror(self::mirror(mirror)),
        Filter::Cors(cors) => Kind::Cors(self::cors(cors)),
    };
    wire::Filter { filter: Some(kind) }
}

fn header_modifier(modifier: &HeaderModifier) -> wire::HeaderModifier {
    let line = |(name, value): &(String, String)| wire::Header {
        name: name.clone(),
        value: value.clone(),
    };
    wire::HeaderModifier {
        set: modifier.set.iter().map(line).collect(),
        add: modifier.add.iter().map(line).collect(),
        remove: modifier.remove.clone(),
    }
}

fn redirect(redirect: &RequestRedirect) -> wire::RequestRedirect {
    wire::RequestRedirect {
        scheme: redirect.scheme.clone().unwrap_or_default(),
        hostname: redirect.hostname.clone().unwrap_or_default(),
        path: redirect.path.as_ref().map(path_modifier),
        port: redirect.port.map(u32::from).unwrap_or_default(),
        status_code: redirect.status_code.into(),
    }
}

fn rewrite(rewrite: &UrlRewrite) -> wire::UrlRewrite {
    wire::UrlRewrite {
        hostname: rewrite.hostname.clone().unwrap_or_default(),
        path: rewrite.path.as_ref().map(path_modifier),
    }
}

fn path_modifier(modifier: &PathModifier) -> wire::PathModifier {
    use wire::path_modifier::Path;
    wire::PathModifier {
        path: Some(match modifier {
            PathModifier::Full(path) => Path::Full(path.clone()),
            PathModifier::Prefix(path) => Path::Prefix(path.clone()),
        }),
    }
}

fn mirror(mirror: &Mirror) -> wire::RequestMirror {
    wire::RequestMirror {
        cluster: mirror.cluster.to_string(),
        invalid: mirror.invalid.clone().unwrap_or_default(),
        numerator: mirror.numerator,
        denominator: mirror.denominator,
    }
}

fn cors(cors: &Cors) -> wire::Cors {
    wire::Cors {
        allow_origins: cors.allow_origins.clone(),
        allow_credentials: cors.allow_credentials,
        allow_methods: cors.allow_methods.clone(),
        allow_headers: cors.allow_headers.clone(),
        expose_headers: cors.expose_headers.clone(),
        max_age_seconds: cors.max_age_seconds,
    }
}
