//! The configuration in force as JSON, for the admin port and the control plane's questions.

mod policy;

use std::time::Duration;

use serde_json::{Value, json};

use self::policy::policy;
use crate::model::{
    Address, BackendTls, Cluster, Configuration, Endpoint, Filter, Inbound, PathMatch, Protocol,
    Retry, Route, RouteMatch, Rule, Service, SubjectAltName, TextMatch, TlsRule, WeightedCluster,
};

/// Every resource by type and name; null stands for the knowledge that there is none.
pub(super) fn configuration(configuration: &Configuration) -> Value {
    let services = configuration.services.iter();
    let services = services.map(|(name, e)| (name.to_string(), e.peek().map(|v| service(v))));
    let addresses = configuration.addresses.iter();
    let addresses = addresses.map(|(name, e)| (name.to_string(), e.peek().map(|v| address(v))));
    let routes = configuration.routes.iter();
    let routes = routes.map(|(name, e)| (name.to_string(), e.peek().map(|v| route(v))));
    let clusters = configuration.clusters.iter();
    let clusters = clusters.map(|(name, e)| (name.to_string(), e.peek().map(|v| cluster(v))));
    json!({
        "services": object(services),
        "addresses": object(addresses),
        "routes": object(routes),
        "clusters": object(clusters),
        "inbound": configuration.inbound.as_deref().map(inbound),
    })
}

fn object(entries: impl Iterator<Item = (String, Option<Value>)>) -> Value {
    entries
        .map(|(name, value)| (name, value.unwrap_or_default()))
        .collect()
}

fn protocol(protocol: Option<Protocol>) -> Option<&'static str> {
    protocol.map(Protocol::as_str)
}

fn service(service: &Service) -> Value {
    let ports = service.ports.iter().map(
        |port| json!({ "port": port.port, "name": port.name, "protocol": protocol(port.protocol) }),
    );
    json!({
        "virtual_ips": service.virtual_ips,
        "ports": ports.collect::<Vec<_>>(),
        "headless": service.headless,
        "external_name": service.external_name,
        "endpoint_addresses": service.endpoint_addresses,
    })
}

fn address(address: &Address) -> Value {
    match address {
        Address::Service(name) => json!({ "service": name.to_string() }),
        Address::Endpoint(endpoint) => json!({ "endpoint": self::endpoint(endpoint) }),
    }
}

fn cluster(cluster: &Cluster) -> Value {
    let endpoints: Vec<Value> = cluster.endpoints.iter().map(|e| endpoint(e)).collect();
    json!({
        "protocol": protocol(cluster.protocol),
        "endpoints": endpoints,
        "tls": cluster.tls.as_deref().map(backend_tls),
        "policy": policy(&cluster.policy),
    })
}

fn retry(retry: &Retry) -> Value {
    json!({
        "codes": retry.codes,
        "attempts": retry.attempts,
        "backoff_milliseconds": retry.backoff.as_millis(),
    })
}

fn backend_tls(tls: &BackendTls) -> Value {
    let names = tls.subject_alt_names.iter().map(|name| match name {
        SubjectAltName::Hostname(name) => json!({ "hostname": name }),
        SubjectAltName::Uri(uri) => json!({ "uri": uri }),
    });
    json!({
        "policy": tls.policy,
        "hostname": tls.hostname.to_str(),
        "roots": tls.roots.len(),
        "subject_alt_names": names.collect::<Vec<_>>(),
        "invalid": tls.invalid,
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let sidecar = endpoint.sidecar.as_ref().map(|sidecar| {
        json!({
            "spiffe_id": sidecar.spiffe_id.to_string(),
            "instance": &*sidecar.instance,
            "address": sidecar.address,
        })
    });
    json!({
        "id": &*endpoint.id,
        "address": endpoint.address,
        "weight": endpoint.weight,
        "zone": &*endpoint.zone,
        "workload": &*endpoint.workload,
        "namespace": &*endpoint.namespace,
        "sidecar": sidecar,
    })
}

fn route(route: &Route) -> Value {
    json!({
        "protocol": protocol(route.protocol),
        "rules": route.rules.iter().map(rule).collect::<Vec<_>>(),
        "default_cluster": route.default_cluster.to_string(),
        "tls_rules": route.tls_rules.iter().map(tls_rule).collect::<Vec<_>>(),
        "tcp": route.tcp.as_ref().map(|rule| {
            json!({ "route": &*rule.route, "backends": backends(&rule.backends) })
        }),
    })
}

fn tls_rule(rule: &TlsRule) -> Value {
    json!({
        "route": &*rule.route,
        "hostname": rule.hostname.as_ref().map(ToString::to_string),
        "backends": backends(&rule.backends),
    })
}

fn backends(backends: &[WeightedCluster]) -> Vec<Value> {
    let backends = backends.iter().map(|backend| {
        json!({
            "cluster": backend.cluster.to_string(),
            "weight": backend.weight,
            "invalid": backend.invalid,
            "filters": filters(&backend.filters),
        })
    });
    backends.collect()
}

fn filters(filters: &[Filter]) -> Vec<String> {
    filters.iter().flat_map(Filter::describe).collect()
}

fn milliseconds(duration: Option<Duration>) -> Option<u128> {
    duration.map(|duration| duration.as_millis())
}

fn rule(rule: &Rule) -> Value {
    json!({
        "route": &*rule.route,
        "rule": rule.rule,
        "rule_name": rule.rule_name,
        "match_index": rule.match_index,
        "match": matches(&rule.matches),
        "filters": filters(&rule.filters),
        "request_timeout_milliseconds": milliseconds(rule.request_timeout),
        "backend_request_timeout_milliseconds": milliseconds(rule.backend_request_timeout),
        "retry": rule.retry.as_ref().map(retry),
        "session": rule.session.as_ref().map(|session| &session.name),
        "backends": backends(&rule.backends),
    })
}

fn matches(matches: &RouteMatch) -> Value {
    let path = match &matches.path {
        None => Value::Null,
        Some(PathMatch::Exact(path)) => json!({ "exact": path }),
        Some(PathMatch::Prefix(path)) => json!({ "prefix": path }),
        Some(PathMatch::Regex(regex)) => json!({ "regex": regex.as_str() }),
    };
    let headers = matches.headers.iter();
    let headers = headers.map(|header| named(header.name.as_str(), &header.value));
    let query = matches.query.iter();
    let query = query.map(|query| named(&query.name, &query.value));
    json!({
        "hostname": matches.hostname.as_ref().map(ToString::to_string),
        "path": path,
        "method": matches.method.as_ref().map(http::Method::as_str),
        "headers": headers.collect::<Vec<_>>(),
        "query": query.collect::<Vec<_>>(),
    })
}

fn named(name: &str, value: &TextMatch) -> Value {
    match value {
        TextMatch::Exact(value) => json!({ "name": name, "exact": value }),
        TextMatch::Regex(regex) => json!({ "name": name, "regex": regex.as_str() }),
    }
}

fn inbound(inbound: &Inbound) -> Value {
    let ports = inbound.ports.iter().map(|port| {
        let services: Vec<String> = port.services.iter().map(ToString::to_string).collect();
        json!({ "port": port.port, "protocol": protocol(port.protocol), "services": services })
    });
    json!({
        "ports": ports.collect::<Vec<_>>(),
        "refuses_unknown": inbound.refuses_unknown,
        "outbound_policy": inbound.outbound_policy,
    })
}
