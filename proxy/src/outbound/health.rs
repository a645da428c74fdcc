//! Active health checks: endpoints whose policy asks for it are asked how they are, as a request would ask them
//! (the same way, the same identity), and get none while they don't answer well. Each worker asks for itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{Method, Version};
use tokio::time::timeout;

use super::Outbound;
use crate::http::{Answered, Unanswered, probe};
use crate::model::{
    Cluster, Configuration, Endpoint, Fault, FieldValue, Fields, HealthCheck, HealthCheckKind,
    Protocol, RequestHead, Text,
};

/// How often it is looked which checks are due.
pub const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Checks that one worker has on their way; one more waits for its turn.
const CHECKS_MAX: usize = 128;
/// What the checked application may tell checks by.
const AGENT: FieldValue = FieldValue::from_static("weft-health-check");

/// The clusters whose endpoints are asked.
#[derive(Default)]
pub(super) struct Checks {
    /// What they were found in.
    configuration: RefCell<Option<Arc<Configuration>>>,
    clusters: RefCell<Vec<Arc<Cluster>>>,
    /// Each check on its way holds a clone.
    running: Rc<()>,
}

impl Checks {
    /// Finds out whose policy asks for checks now, and gives back the clusters whose policy no longer does.
    fn update(&self, configuration: Arc<Configuration>) -> Vec<Arc<Cluster>> {
        let mut held = self.configuration.borrow_mut();
        let is_same = held.as_ref();
        if is_same.is_some_and(|held| Arc::ptr_eq(held, &configuration)) {
            return Vec::new();
        }
        let clusters = configuration.clusters.values();
        let checked: Vec<Arc<Cluster>> = clusters
            .filter_map(|entry| entry.peek())
            .filter(|cluster| cluster.policy.health_check.is_some())
            .cloned()
            .collect();
        *held = Some(configuration);
        let mut before = self.clusters.replace(checked);
        let now = self.clusters.borrow();
        before.retain(|old| !now.iter().any(|cluster| cluster.name == old.name));
        before
    }
}

impl Outbound {
    /// Begins the checks that are due; to be called each [`CHECK_EVERY`].
    pub fn check_health(self: &Rc<Self>) {
        for cluster in self.checks.update(self.discovery.current()) {
            self.balancer.forget_checks(&cluster);
        }
        let now = Instant::now();
        for cluster in &*self.checks.clusters.borrow() {
            let room = (CHECKS_MAX + 1).saturating_sub(Rc::strong_count(&self.checks.running));
            let mut random = self.random.borrow_mut();
            for endpoint in self.balancer.due_checks(cluster, room, now, &mut *random) {
                let (outbound, cluster) = (self.clone(), cluster.clone());
                let running = self.checks.running.clone();
                tokio::task::spawn_local(async move {
                    outbound.check(&cluster, &endpoint).await;
                    drop(running);
                });
            }
        }
    }

    async fn check(&self, cluster: &Arc<Cluster>, endpoint: &Endpoint) {
        let Some(policy) = &cluster.policy.health_check else {
            return;
        };
        let asked = timeout(
            policy.timeout,
            self.is_endpoint_well(policy, cluster, endpoint),
        )
        .await;
        let passed = match asked {
            Ok(Ok(passed)) => passed,
            Ok(Err(failed)) => is_limit(failed.fault),
            Err(_) => false,
        };
        self.telemetry.health_checked(passed);
        self.balancer
            .checked(cluster, &endpoint.id, passed, Instant::now());
    }

    async fn is_endpoint_well(
        &self,
        policy: &HealthCheck,
        cluster: &Cluster,
        endpoint: &Endpoint,
    ) -> Result<bool, Unanswered> {
        let tls = cluster.tls.as_ref();
        let (protocol, mut head, body) = match &policy.kind {
            HealthCheckKind::Tcp => {
                let hop = self.hop(endpoint, Protocol::Tcp);
                self.endpoints.open_tcp(endpoint, tls, &hop).await?;
                return Ok(true);
            }
            HealthCheckKind::Http { path, host, .. } => {
                let protocol = cluster.protocol.filter(|protocol| protocol.is_http());
                let protocol = protocol.unwrap_or(Protocol::Http1);
                let head = request(Method::GET, path.clone(), host.clone(), cluster, protocol);
                (protocol, head, Bytes::new())
            }
            HealthCheckKind::Grpc { service } => {
                let path = Text::from_static("/grpc.health.v1.Health/Check");
                let mut head = request(Method::POST, path, None, cluster, Protocol::Http2);
                let grpc = FieldValue::from_static("application/grpc");
                head.headers.set(CONTENT_TYPE, grpc);
                head.headers.set(TE, FieldValue::from_static("trailers"));
                (Protocol::Http2, head, health_check_request(service))
            }
        };
        let hop = Box::new(self.hop(endpoint, protocol));
        let mut opened = self.endpoints.open(endpoint, tls, protocol, hop).await?;
        let answered = probe(&mut head, body, &mut opened.upstream).await?;
        Ok(is_well(&policy.kind, &answered))
    }
}

fn request(
    method: Method,
    path: Text,
    host: Option<Text>,
    cluster: &Cluster,
    protocol: Protocol,
) -> RequestHead {
    let service = cluster.name.service();
    let own = || Text::try_from(format!("{}.{}", service.name(), service.namespace()).as_str());
    let mut headers = Fields::new();
    headers.set(USER_AGENT, AGENT);
    RequestHead {
        method,
        scheme: None,
        authority: host.or_else(|| own().ok()),
        path,
        version: match protocol {
            Protocol::Http2 => Version::HTTP_2,
            _ => Version::HTTP_11,
        },
        upgrade: None,
        headers,
    }
}

/// A message of gRPC (its length before it) that holds a `HealthCheckRequest`: field 1 is the service's name.
fn health_check_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// Whether a check was refused by a limit of the endpoint's sidecar, which says nothing against the application.
fn is_limit(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Overload | Fault::RateLimited | Fault::RateLimitUnknown
    )
}

/// Whether an answer is that of an endpoint that serves. Of a `HealthCheckResponse` field 1 is the status, and 1
/// is SERVING.
fn is_well(kind: &HealthCheckKind, answered: &Answered) -> bool {
    if answered.fault.is_some_and(is_limit) {
        return true;
    }
    match kind {
        HealthCheckKind::Http { statuses, .. } if statuses.is_empty() => {
            answered.status.is_success() || answered.status.is_redirection()
        }
        HealthCheckKind::Http { statuses, .. } => statuses.contains(&answered.status.as_u16()),
        HealthCheckKind::Grpc { .. } => {
            answered.grpc_status == Some(0) && answered.body.get(5..) == Some(&[0x08, 0x01])
        }
        HealthCheckKind::Tcp => true,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn requests_of_grpc() {
        assert_eq!(health_check_request(""), &[0, 0, 0, 0, 0][..]);
        assert_eq!(health_check_request("a.B"), &b"\0\0\0\0\x05\x0a\x03a.B"[..]);
        let long = health_check_request(&"x".repeat(300));
        assert_eq!(&long[..8], &[0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn answers() {
        let http = |statuses: &[u16]| HealthCheckKind::Http {
            path: Text::from_static("/"),
            host: None,
            statuses: statuses.to_vec(),
        };
        let grpc = || HealthCheckKind::Grpc {
            service: String::new(),
        };
        let check = |kind: HealthCheckKind,
                     status: u16,
                     grpc: Option<u16>,
                     body: &'static [u8],
                     expect: bool| {
            let answered = Answered {
                status: StatusCode::from_u16(status).unwrap(),
                grpc_status: grpc,
                fault: None,
                body: Bytes::from_static(body),
            };
            assert_eq!(is_well(&kind, &answered), expect, "{kind:?} {answered:?}");
        };
        check(http(&[]), 204, None, b"", true);
        check(http(&[]), 302, None, b"", true);
        check(http(&[]), 404, None, b"", false);
        check(http(&[]), 503, None, b"", false);
        check(http(&[418]), 418, None, b"", true);
        check(http(&[418]), 200, None, b"", false);
        check(grpc(), 200, Some(0), b"\0\0\0\0\x02\x08\x01", true);
        check(grpc(), 200, Some(0), b"\0\0\0\0\x02\x08\x02", false);
        check(grpc(), 200, Some(0), b"\0\0\0\0\0", false);
        check(grpc(), 200, Some(12), b"", false);
        check(grpc(), 200, Some(5), b"\0\0\0\0\x02\x08\x01", false);
        let refused = |fault: Fault| Answered {
            status: StatusCode::TOO_MANY_REQUESTS,
            grpc_status: None,
            fault: Some(fault),
            body: Bytes::new(),
        };
        assert!(is_well(&http(&[]), &refused(Fault::RateLimited)));
        assert!(!is_well(&http(&[]), &refused(Fault::UpstreamReset)));
    }
}
