//! Routes: what is attached to a port of a service, in Gateway API's order of precedence.

use std::cmp::Reverse;
use std::time::SystemTime;

use super::attachment::{effective, takes_any_port};
use super::backend_tls::spoken;
use super::policies::age;
use super::status::backend_problem;
use super::{
    Filter, Mesh, Mirror, Route, Rule, RuleMatch, ServiceName, ServicePort, TcpRule, TlsRule,
    WeightedCluster,
};
use crate::resource::{
    self, BackendRef, GrpcMethodMatch, MatchKind, Metadata, PathMatch, RequestMirror, RouteKind,
    RouteMatch, RouteRule, SessionPersistence,
};

/// What clients of a namespace have to know of a port.
pub(super) fn compile(mesh: &Mesh, name: &ServicePort, client: &str) -> Option<Route> {
    let service = mesh.catalog.service(&name.service)?;
    let port = service.spec.port(name.port);
    if port.is_none() && !takes_any_port(service) {
        return None;
    }
    let mut compiled = Route {
        name: name.clone(),
        protocol: port.and_then(|port| spoken(&mesh.catalog, service, port)),
        rules: Vec::new(),
        default_cluster: name.clone(),
        tls_rules: Vec::new(),
        tcp: None,
    };
    let routes = effective(&mesh.catalog, service, name.port, client);
    match routes.first().map(|route| route.kind) {
        None => {}
        Some(RouteKind::Http | RouteKind::Grpc) => {
            let rules = routes.iter().flat_map(|route| http_rules(mesh, route));
            compiled.rules = in_order(rules);
        }
        Some(RouteKind::Tls) => {
            let rules = routes.iter().flat_map(|route| tls_rules(mesh, route));
            compiled.tls_rules = in_order(rules);
        }
        Some(RouteKind::Tcp) => {
            let rules = routes.iter().flat_map(|route| {
                let backends = route.rules.iter();
                backends.map(|rule| TcpRule {
                    route: shown(route),
                    backends: backends_of(mesh, route, rule),
                })
            });
            compiled.tcp = rules.collect::<Vec<_>>().pop();
        }
    }
    Some(compiled)
}

fn in_order<T>(rules: impl Iterator<Item = (Precedence, T)>) -> Vec<T> {
    let mut rules: Vec<(Precedence, T)> = rules.collect();
    rules.sort_by(|(a, _), (b, _)| a.cmp(b));
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// The order in which matches are tried, least first (Gateway API, HTTPRouteRule and GRPCRouteRule): the
/// host name, then what the kind counts, more before less; then the oldest route, by name, by rule, by
/// match.
type Precedence = (
    Reverse<[usize; 2]>,
    Reverse<[usize; 5]>,
    Option<SystemTime>,
    String,
    u32,
    u32,
);

/// Most characters of a name without a star first, then most characters.
fn host_rank(hostname: &str) -> [usize; 2] {
    let characters = hostname.chars().count();
    let whole = if hostname.starts_with('*') {
        0
    } else {
        characters
    };
    [whole, characters]
}

/// What makes a match more specific than another of its kind. A regular expression stands between an
/// exact path and a prefix: Gateway API leaves its place open, and it says more than a prefix does.
fn match_rank(matches: &RouteMatch) -> [usize; 5] {
    let headers = matches.headers.len();
    let characters = |text: &Option<String>| text.as_ref().map_or(0, |text| text.chars().count());
    match &matches.kind {
        MatchKind::Http {
            path,
            method,
            query,
        } => {
            let (kind, length) = match path {
                PathMatch::Exact(path) => (2, path.chars().count()),
                PathMatch::Regex(path) => (1, path.chars().count()),
                PathMatch::Prefix(path) => (0, path.chars().count()),
            };
            let method = usize::from(method.is_some());
            [kind, length, method, headers, query.len()]
        }
        MatchKind::Grpc(grpc) => {
            let (service, method) = (characters(&grpc.service), characters(&grpc.method));
            [service, method, headers, 0, 0]
        }
        MatchKind::Bytes => [0; 5],
    }
}

/// Each of the route's host names; none stands for any.
fn hostnames(route: &resource::Route) -> Vec<String> {
    match route.hostnames.as_slice() {
        [] => vec![String::new()],
        hostnames => hostnames.to_vec(),
    }
}

fn shown(route: &resource::Route) -> String {
    let metadata = &route.metadata;
    let kind = route.kind.object_kind();
    format!("{kind}/{}/{}", metadata.namespace, metadata.name)
}

fn http_rules(mesh: &Mesh, route: &resource::Route) -> Vec<(Precedence, Rule)> {
    let (created, name) = age(&route.metadata);
    let mut rules = Vec::new();
    for (rule_index, rule) in (0..).zip(&route.rules) {
        let filters = filters(mesh, route, &rule.filters);
        let backends = backends_of(mesh, route, rule);
        let faults = mesh.catalog.faults_of_rule(route, rule.name.as_deref());
        for (match_index, matches) in (0..).zip(&rule.matches) {
            for hostname in hostnames(route) {
                let precedence = (
                    Reverse(host_rank(&hostname)),
                    Reverse(match_rank(matches)),
                    created,
                    name.clone(),
                    rule_index,
                    match_index,
                );
                let rule = Rule {
                    route: shown(route),
                    rule: rule_index,
                    rule_name: rule.name.clone(),
                    match_index,
                    matches: rule_match(hostname, matches),
                    filters: filters.clone(),
                    timeouts: rule.timeouts,
                    retry: rule.retry.clone(),
                    session: session(route, rule_index, rule),
                    faults: faults.clone(),
                    backends: backends.clone(),
                };
                rules.push((precedence, rule));
            }
        }
    }
    rules
}

/// A session without a name of its own has the rule's, so that no two of one host are mixed up.
fn session(
    route: &resource::Route,
    index: u32,
    rule: &RouteRule,
) -> Option<(String, SessionPersistence)> {
    let Metadata {
        namespace, name, ..
    } = &route.metadata;
    let session = rule.session_persistence.as_ref()?;
    Some(session.named(|| format!("weft-{namespace}-{name}-{index}")))
}

/// A match of a route for one of its host names; empty: for any.
pub fn rule_match(hostname: String, matches: &RouteMatch) -> RuleMatch {
    let (path, method, query) = match &matches.kind {
        MatchKind::Http {
            path,
            method,
            query,
        } => (Some(path.clone()), method.clone(), query.clone()),
        MatchKind::Grpc(grpc) => (grpc_path(grpc), None, Vec::new()),
        MatchKind::Bytes => (None, None, Vec::new()),
    };
    RuleMatch {
        hostname,
        path,
        method,
        headers: matches.headers.clone(),
        query,
    }
}

/// A gRPC call is a request for `/SERVICE/METHOD`.
fn grpc_path(grpc: &GrpcMethodMatch) -> Option<PathMatch> {
    let escaped = |text: &String| match grpc.is_regex {
        true => format!("(?:{text})"),
        false => regex::escape(text),
    };
    Some(match (&grpc.service, &grpc.method) {
        (None, None) => return None,
        (Some(service), None) if !grpc.is_regex => PathMatch::Prefix(format!("/{service}")),
        (Some(service), Some(method)) if !grpc.is_regex => {
            PathMatch::Exact(format!("/{service}/{method}"))
        }
        (service, method) => {
            let part = |text: &Option<String>| match text {
                Some(text) => escaped(text),
                None => "[^/]+".to_owned(),
            };
            PathMatch::Regex(format!("/{}/{}", part(service), part(method)))
        }
    })
}

fn tls_rules(mesh: &Mesh, route: &resource::Route) -> Vec<(Precedence, TlsRule)> {
    let (created, name) = age(&route.metadata);
    let mut rules = Vec::new();
    for rule in &route.rules {
        let backends = backends_of(mesh, route, rule);
        for hostname in hostnames(route) {
            let rank = Reverse(host_rank(&hostname));
            let precedence = (rank, Reverse([0; 5]), created, name.clone(), 0, 0);
            let rule = TlsRule {
                route: shown(route),
                hostname,
                backends: backends.clone(),
            };
            rules.push((precedence, rule));
        }
    }
    rules
}

fn backends_of(mesh: &Mesh, route: &resource::Route, rule: &RouteRule) -> Vec<WeightedCluster> {
    let backends = rule.backend_refs.iter().map(|backend| WeightedCluster {
        cluster: cluster(backend),
        weight: backend.weight,
        invalid: invalid(mesh, route, backend),
        filters: filters(mesh, route, &backend.filters),
    });
    backends.collect()
}

/// The cluster that a reference names. One to another kind than Service may name no port; it leads nowhere,
/// so any port stands for that.
fn cluster(backend: &BackendRef) -> ServicePort {
    ServiceName::new(&backend.namespace, &backend.name).port(backend.port.max(1))
}

fn invalid(mesh: &Mesh, route: &resource::Route, backend: &BackendRef) -> Option<String> {
    let problem = backend_problem(&mesh.catalog, route, backend)?;
    Some(problem.reason.to_owned())
}

fn filters(mesh: &Mesh, route: &resource::Route, filters: &[resource::Filter]) -> Vec<Filter> {
    let filters = filters.iter().map(|filter| match filter {
        resource::Filter::RequestHeaderModifier(modifier) => {
            Filter::RequestHeaders(modifier.clone())
        }
        resource::Filter::ResponseHeaderModifier(modifier) => {
            Filter::ResponseHeaders(modifier.clone())
        }
        resource::Filter::RequestRedirect(redirect) => Filter::Redirect(redirect.clone()),
        resource::Filter::UrlRewrite(rewrite) => Filter::Rewrite(rewrite.clone()),
        resource::Filter::RequestMirror(mirror) => {
            Filter::Mirror(self::mirror(mesh, route, mirror))
        }
        resource::Filter::Cors(cors) => Filter::Cors(cors.clone()),
    });
    filters.collect()
}

fn mirror(mesh: &Mesh, route: &resource::Route, mirror: &RequestMirror) -> Mirror {
    Mirror {
        cluster: cluster(&mirror.backend),
        invalid: invalid(mesh, route, &mirror.backend),
        numerator: mirror.numerator,
        denominator: mirror.denominator,
    }
}
