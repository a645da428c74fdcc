//! Mirrored requests: a copy to another cluster, whose answer nobody waits for. A copy takes nothing from
//! its original: it runs in a task of its own, is tried once, and is left out where too many run.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Version;

use super::Outbound;
use super::destination::Destination;
use super::tcp::party_of;
use crate::balance::Wanted;
use crate::http::{
    BodyCopy, Deadline, Ending, Outcome, Request, Unanswered, exchange_copy, within,
};
use crate::model::{Endpoint, Fault, Hop, Protocol, RequestHead, ServicePort};
use crate::telemetry::{Direction, RequestRecord};

/// Copies that one worker has on their way; one more is left out.
const COPIES_MAX: usize = 1024;
/// How long one copy may take, with its answer; then it is broken off.
const COPY_TIMEOUT: Duration = Duration::from_secs(15);

/// A copy on its way.
struct Copy {
    head: RequestHead,
    body: BodyCopy,
    cluster: ServicePort,
    route: Arc<str>,
    client: SocketAddr,
}

impl Outbound {
    /// Sends a copy of the request to `cluster`, as `route` asks.
    pub(super) fn mirror(
        self: &Rc<Self>,
        cluster: &ServicePort,
        route: &Arc<str>,
        request: &mut Request<'_>,
        client: SocketAddr,
    ) {
        // What is switched to afterwards can't be copied.
        if request.head.upgrade.is_some() || Rc::strong_count(&self.copies) > COPIES_MAX {
            return;
        }
        let copy = Copy {
            head: request.head.clone(),
            body: request.body.copy(),
            cluster: cluster.clone(),
            route: route.clone(),
            client,
        };
        let (outbound, counted) = (self.clone(), self.copies.clone());
        tokio::task::spawn_local(async move {
            outbound.send_copy(copy).await;
            drop(counted);
        });
    }

    async fn send_copy(&self, mut copy: Copy) {
        let (start, began) = (SystemTime::now(), Instant::now());
        let context = self.telemetry.begin(&copy.head.headers);
        context.inject(&mut copy.head.headers);
        let mut endpoint = None;
        let sent = within(
            Some(Deadline {
                at: tokio::time::Instant::now() + COPY_TIMEOUT,
                fault: Fault::RequestTimeout,
            }),
            self.try_copy(&mut copy, &mut endpoint),
        );
        let outcome = sent.await;
        let Copy { head, cluster, .. } = &copy;
        let ended = outcome.as_ref().map_err(|failed| failed.fault);
        let ending = Ending::of(ended, head.is_grpc());
        let endpoint: Option<Arc<Endpoint>> = endpoint;
        let sidecar = endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.sidecar.as_ref());
        let destination = Destination::Service(Rc::new(cluster.clone()));
        self.telemetry.finish_request(RequestRecord {
            direction: Direction::Outbound,
            context,
            start,
            duration: began.elapsed(),
            method: head.method.clone(),
            scheme: "http",
            authority: head.authority.as_ref().map(Cow::Borrowed),
            path: Cow::Borrowed(&head.path),
            version: head.version,
            status: ending.status.as_u16(),
            grpc_status: ending.grpc_status,
            fault: ending.fault,
            source: self.party.lend(),
            destination: party_of(&destination, endpoint.as_deref()),
            route: Some(Cow::Borrowed(&copy.route)),
            peer: sidecar.map(|sidecar| Cow::Borrowed(&sidecar.spiffe_id)),
            tls: sidecar.is_some(),
            request_bytes: copy.body.bytes(),
            response_bytes: 0,
            retries: 0,
            upstream: endpoint.as_ref().map(|endpoint| endpoint.address),
            downstream: Some(copy.client),
        });
    }

    async fn try_copy(
        &self,
        copy: &mut Copy,
        endpoint: &mut Option<Arc<Endpoint>>,
    ) -> Result<Outcome, Unanswered> {
        let cluster = self.cluster(&copy.cluster).await;
        let cluster = cluster.map_err(Unanswered::unprocessed)?;
        let picked = {
            let mut random = self.random.borrow_mut();
            self.balancer
                .pick(&cluster, Wanted::default(), Instant::now(), &mut *random)
        };
        let picked = picked.ok_or(Unanswered::unprocessed(Fault::NoEndpoint))?;
        let to = endpoint.insert(picked.endpoint.clone()).clone();
        let spoken = if copy.head.version == Version::HTTP_2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        let protocol = cluster.protocol.filter(|protocol| protocol.is_http());
        let protocol = protocol.unwrap_or(spoken);
        let hop = Box::new(Hop {
            no_host: copy.head.authority.is_none(),
            ..self.hop(&to, protocol)
        });
        let mut opened = self
            .endpoints
            .open(&to, cluster.tls.as_ref(), protocol, hop)
            .await?;
        exchange_copy(&mut copy.head, &copy.body, &mut opened.upstream).await
    }
}
