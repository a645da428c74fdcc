//! How a request of our workload would be treated, for people who ask. The configuration, the matcher
//! and the balancer's state are those that serve; nothing is sent anywhere.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Outbound;
use super::destination::Destination;
use crate::discovery::{About, Question};
use crate::http::Ending;
use crate::model::{
    BackendTls, Cluster, Endpoint, Fault, Filter, RequestHead, ResponseHead, Route, Rule,
    ServicePort, TlsRule, WeightedCluster,
};
use crate::route::{self, Decision};

/// Rules that are shown; of a route with more, those up to the one that matched come first.
const CANDIDATES_MAX: usize = 200;
/// Endpoints of one backend that are shown.
const ENDPOINTS_MAX: usize = 100;

impl Outbound {
    /// Answers a question of the control plane.
    pub async fn answer(self: Rc<Self>, question: Question) {
        let answer = match question.about {
            About::Request { to, head } => self.explain(&to, &head).await,
            About::Trace(trace_id) => json!({
                "trace_id": format!("{:032x}", u128::from_be_bytes(trace_id)),
                "requests": self.recent.borrow().of_trace(trace_id),
            }),
        };
        // Whoever asked may have gone.
        let _ = question.answer.send(answer);
    }

    async fn explain(&self, to: &str, head: &RequestHead) -> Value {
        let mut explained = json!({
            "request": {
                "method": head.method.as_str(),
                "authority": head.authority.as_deref(),
                "path": &*head.path,
            },
        });
        let found = self.find_authority(to, head.scheme.as_deref()).await;
        let destination = match found {
            Ok(destination) => destination,
            Err(fault) => {
                explained["destination"] = self.unknown(to, fault);
                explained["outcome"] = faulty(fault, head);
                return explained;
            }
        };
        match &destination {
            Destination::Service(port) => {
                explained["destination"] = json!({"kind": "service", "name": port.to_string()});
                match self.route(port).await {
                    Ok(route) => self.explain_route(&route, head, &mut explained).await,
                    Err(fault) => {
                        explained["destination"]["note"] =
                            json!(format!("the service has no port {}", port.port()));
                        explained["outcome"] = faulty(fault, head);
                    }
                }
            }
            Destination::Endpoint(endpoint) => {
                explained["destination"] = json!({
                    "kind": "endpoint",
                    "name": &*endpoint.id,
                    "note": "a workload's own address: no route applies",
                });
                explained["backends"] = json!([{
                    "cluster": null, "weight": 1, "share": "100.0 %", "invalid": null,
                    "filters": [], "tls": null, "policies": [], "endpoints": [self.endpoint(endpoint)],
                }]);
                explained["outcome"] = json!({"kind": "forward"});
            }
            Destination::Outside(address) => {
                explained["destination"] = json!({
                    "kind": "outside",
                    "name": address.to_string(),
                    "note": "no service of the mesh: passed on as it is, without mutual TLS",
                });
                explained["outcome"] = json!({"kind": "forward"});
            }
        }
        explained
    }

    async fn explain_route(&self, route: &Route, head: &RequestHead, explained: &mut Value) {
        if let Some(rule) = &route.tcp {
            explained["route"] = json!({"name": &*rule.route});
            explained["destination"]["note"] =
                json!("a TCPRoute is attached: bytes are passed on unread");
            self.explain_backends(&rule.backends, head, explained).await;
            return;
        }
        if !route.tls_rules.is_empty() {
            return self.explain_tls(route, head, explained).await;
        }
        let decided = route::decide(route, head, 0);
        let rule = match &decided {
            Ok(Decision::Default) => None,
            Ok(Decision::Backend { rule, .. } | Decision::Answer { rule, .. }) => Some(*rule),
            Err(refused) => refused.rule,
        };
        explained["candidates"] = candidates(route, rule, head);
        let Some(rule) = rule.map(|position| &route.rules[position]) else {
            if matches!(decided, Ok(Decision::Default)) {
                let whole = whole(&route.default_cluster);
                self.explain_backends(&[whole], head, explained).await;
            } else {
                explained["outcome"] = faulty(Fault::NoRoute, head);
            }
            return;
        };
        explained["route"] = json!({
            "name": &*rule.route,
            "rule": rule.rule,
            "rule_name": rule.rule_name,
            "match": rule.match_index,
        });
        explained["filters"] = json!(described(&rule.filters));
        explained["retries"] = match &rule.retry {
            Some(retry) => json!({
                "codes": retry.codes,
                "attempts": retry.attempts,
                "backoff": shown(Some(retry.backoff)),
            }),
            None => Value::Null,
        };
        let faults = Some(&rule.faults.policy).filter(|policy| !policy.is_empty());
        explained["faults"] = json!(faults);
        explained["session"] = json!(rule.session.as_ref().map(|session| &session.name));
        explained["timeouts"] = json!({
            "request": shown(rule.request_timeout),
            "backend_request": shown(rule.backend_request_timeout),
        });
        self.explain_backends(&rule.backends, head, explained).await;
        if let Ok(Decision::Answer { response, .. }) = &decided {
            explained["outcome"] = answered(response);
        }
    }

    /// Of TLS, what Host says stands for the server name.
    async fn explain_tls(&self, route: &Route, head: &RequestHead, explained: &mut Value) {
        explained["destination"]["note"] =
            json!("TLSRoutes are attached: only TLS is passed on, by its server name");
        let name = (head.scheme.as_deref() == Some("https")).then(|| head.host());
        let chosen = name.and_then(|name| route::find_tls(&route.tls_rules, Some(name)));
        let shown = route.tls_rules.iter().take(CANDIDATES_MAX);
        let shown = shown.map(|rule| tls_candidate(rule, name, chosen));
        explained["candidates"] = json!(shown.collect::<Vec<_>>());
        match chosen {
            Some(rule) => {
                explained["route"] = json!({"name": &*rule.route});
                self.explain_backends(&rule.backends, head, explained).await;
            }
            None => explained["outcome"] = faulty(Fault::NoRoute, head),
        }
    }

    /// Backends with their shares and endpoints, and what becomes of the request by them.
    async fn explain_backends(
        &self,
        backends: &[WeightedCluster],
        head: &RequestHead,
        explained: &mut Value,
    ) {
        let total: u64 = backends.iter().map(|one| u64::from(one.weight)).sum();
        let mut shown = Vec::new();
        let mut outcomes = Vec::new();
        for backend in backends {
            let mut fault = backend.invalid.as_ref().map(|_| Fault::BackendInvalid);
            let mut endpoints = Vec::new();
            let (mut tls, mut policies) = (Value::Null, Vec::new());
            let mut session = None;
            if backend.invalid.is_none() {
                match self.cluster(&backend.cluster).await {
                    Ok(cluster) => {
                        endpoints = self.endpoints_of(&cluster);
                        policies.clone_from(&cluster.policy.names);
                        session = cluster.policy.session.as_ref().map(|one| one.name.clone());
                        tls = cluster.tls.as_deref().map_or(Value::Null, backend_tls);
                        if cluster.endpoints.weight() == 0 {
                            fault = Some(Fault::NoEndpoint);
                        } else if cluster
                            .tls
                            .as_ref()
                            .is_some_and(|tls| tls.invalid.is_some())
                            && cluster.endpoints.iter().all(|one| one.sidecar.is_none())
                        {
                            fault = Some(Fault::BackendInvalid);
                        }
                    }
                    Err(unknown) => fault = Some(unknown),
                }
            }
            if backend.weight > 0 {
                outcomes.push(fault);
            }
            shown.push(json!({
                "cluster": backend.cluster.to_string(),
                "weight": backend.weight,
                "share": share(backend.weight, total),
                "invalid": backend.invalid,
                "fault": fault.map(Fault::reason),
                "filters": described(&backend.filters),
                "tls": tls,
                "policies": policies,
                "session": session,
                "endpoints": endpoints,
            }));
        }
        explained["backends"] = json!(shown);
        explained["outcome"] = match outcomes.iter().flatten().next() {
            _ if outcomes.is_empty() => {
                let mut outcome = faulty(Fault::BackendInvalid, head);
                outcome["reason"] = json!("the rule has no backend, or all weights are 0");
                outcome
            }
            Some(fault) if outcomes.iter().all(Option::is_some) => faulty(*fault, head),
            Some(_) => json!({
                "kind": "forward",
                "reason": "not every backend can serve: the others' share is answered with a fault",
            }),
            None => json!({"kind": "forward"}),
        };
    }

    fn unknown(&self, authority: &str, fault: Fault) -> Value {
        let configuration = self.discovery.current();
        let own = configuration.inbound.as_ref();
        let policy = own.and_then(|own| own.outbound_policy.as_deref());
        let (kind, note) = match fault {
            Fault::DestinationRefused => (
                "refused",
                format!(
                    "it is no service of the mesh, and {} refuses such calls",
                    policy.unwrap_or("policy")
                ),
            ),
            Fault::DiscoveryUnavailable => (
                "unresolved",
                "the control plane cannot be asked now".to_owned(),
            ),
            Fault::Loop => ("refused", "it is the proxy itself".to_owned()),
            _ => (
                "unresolved",
                "no service of the mesh has that name and port, and it does not resolve".to_owned(),
            ),
        };
        json!({"kind": kind, "name": authority, "note": note})
    }

    fn endpoints_of(&self, cluster: &Cluster) -> Vec<Value> {
        let endpoints = cluster.endpoints.iter().take(ENDPOINTS_MAX);
        endpoints.map(|endpoint| self.endpoint(endpoint)).collect()
    }

    fn endpoint(&self, endpoint: &Arc<Endpoint>) -> Value {
        let state = if endpoint.weight == 0 {
            "takes no traffic"
        } else if self.balancer.is_unhealthy(&endpoint.id) {
            "unhealthy"
        } else if self.balancer.is_ejected(&endpoint.id, Instant::now()) {
            "ejected"
        } else {
            "usable"
        };
        let sidecar = endpoint.sidecar.as_ref();
        json!({
            "id": &*endpoint.id,
            "address": endpoint.address.to_string(),
            "workload": &*endpoint.workload,
            "sidecar": sidecar.map(|sidecar| sidecar.spiffe_id.to_string()),
            "zone": &*endpoint.zone,
            "state": state,
            "requests": self.balancer.outstanding(&endpoint.id),
        })
    }
}

/// A cluster that everything goes to.
fn whole(cluster: &ServicePort) -> WeightedCluster {
    WeightedCluster {
        cluster: cluster.clone(),
        weight: 1,
        invalid: None,
        filters: Vec::new(),
    }
}

/// The TLS that endpoints without a sidecar are reached by.
fn backend_tls(tls: &BackendTls) -> Value {
    json!({
        "policy": tls.policy,
        "hostname": tls.hostname.to_str(),
        "invalid": tls.invalid,
    })
}

fn faulty(fault: Fault, head: &RequestHead) -> Value {
    let status = Ending::of(Err(fault), head.is_grpc()).status.as_u16();
    json!({
        "kind": "fault",
        "fault": fault.reason(),
        "status": status,
        "status_class": format!("{}xx", status / 100),
    })
}

fn answered(response: &ResponseHead) -> Value {
    let status = response.status.as_u16();
    let location = response.headers.get(&http::header::LOCATION);
    json!({
        "kind": if location.is_some() { "redirect" } else { "preflight" },
        "status": status,
        "status_class": format!("{}xx", status / 100),
        "location": location.and_then(|location| location.to_str().ok()),
    })
}

/// Each rule with its verdict; the one that matched is always among those that are shown.
fn candidates(route: &Route, chosen: Option<usize>, head: &RequestHead) -> Value {
    let first = chosen.map_or(0, |chosen| chosen.saturating_sub(CANDIDATES_MAX - 1));
    let shown = route.rules.iter().enumerate().skip(first);
    let shown = shown.take(CANDIDATES_MAX).map(|(position, rule)| {
        let because = route::mismatches(&rule.matches, head);
        let verdict = match (Some(position) == chosen, because.is_empty()) {
            (true, _) => "matches",
            (false, true) => "shadowed",
            (false, false) => "does not match",
        };
        candidate(rule, verdict, &because)
    });
    json!(shown.collect::<Vec<_>>())
}

fn candidate(rule: &Rule, verdict: &str, because: &[String]) -> Value {
    let hostname = rule.matches.hostname.as_ref().map(ToString::to_string);
    json!({
        "route": &*rule.route,
        "rule": rule.rule,
        "rule_name": rule.rule_name,
        "match": rule.match_index,
        "hostname": hostname.unwrap_or_default(),
        "verdict": verdict,
        "because": because,
    })
}

fn tls_candidate(rule: &TlsRule, name: Option<&str>, chosen: Option<&TlsRule>) -> Value {
    let hostname = rule.hostname.as_ref().map(ToString::to_string);
    let matches = name.is_some_and(|name| {
        let alone = std::slice::from_ref(rule);
        route::find_tls(alone, Some(name)).is_some()
    });
    let is_chosen = chosen.is_some_and(|chosen| std::ptr::eq(chosen, rule));
    let (verdict, because) = match (is_chosen, matches, name) {
        (true, ..) => ("matches", None),
        (false, true, _) => ("shadowed", None),
        (false, false, Some(name)) => {
            let wanted = hostname.as_deref().unwrap_or_default();
            let reason = format!("server name {name} is not {wanted}");
            ("does not match", Some(reason))
        }
        (false, false, None) => {
            let reason = "the request is not TLS: ask for https://".to_owned();
            ("does not match", Some(reason))
        }
    };
    json!({
        "route": &*rule.route,
        "rule": 0,
        "rule_name": null,
        "match": 0,
        "hostname": hostname.unwrap_or_default(),
        "verdict": verdict,
        "because": because.into_iter().collect::<Vec<_>>(),
    })
}

fn described(filters: &[Filter]) -> Vec<String> {
    filters.iter().flat_map(Filter::describe).collect()
}

fn share(weight: u32, total: u64) -> String {
    if total == 0 {
        return "0.0 %".to_owned();
    }
    let percent = 100.0 * f64::from(weight) / total as f64;
    format!("{percent:.1} %")
}

fn shown(timeout: Option<Duration>) -> Option<String> {
    timeout.map(|timeout| humantime::format_duration(timeout).to_string())
}
