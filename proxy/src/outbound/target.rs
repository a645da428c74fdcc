//! Where a request was routed to, and what its route asks of it on the way there and back.

use std::sync::Arc;
use std::time::Duration;

use http::header::ORIGIN;

use super::destination::Destination;
use super::session::{self, Session};
use crate::model::{
    BackendTls, Cluster, Endpoint, FaultInjection, FieldValue, Filter, Protocol, RequestHead,
    ResponseHead, Retry, Route, Rule, SessionPersistence, Text,
};
use crate::route;

/// Where a request goes, as far as it was found out.
pub(super) struct Target {
    pub destination: Destination,
    /// The rule that took it; none where no route is attached.
    pub routed: Option<Routed>,
    /// The endpoints of a service; none for any other destination.
    pub cluster: Option<Arc<Cluster>>,
    pub protocol: Option<Protocol>,
}

impl Target {
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            destination,
            routed: None,
            cluster: None,
            protocol: None,
        }
    }

    /// How requests of one session find their endpoint again: as the rule says it, or the backend.
    pub(super) fn session(&self) -> Option<&SessionPersistence> {
        let of_rule = self
            .routed
            .as_ref()
            .and_then(|routed| routed.rule().session.as_ref());
        of_rule.or_else(|| self.cluster.as_ref()?.policy.session.as_ref())
    }

    /// Faults that are made on purpose: those of the rule, then the backend's.
    pub(super) fn faults(&self) -> impl Iterator<Item = &FaultInjection> {
        let routed = self.routed.as_ref();
        let of_rule = routed.map(|routed| &routed.rule().faults);
        let of_cluster = self.cluster.as_ref().map(|cluster| &cluster.policy.faults);
        let all = of_rule.into_iter().chain(of_cluster);
        all.flat_map(|faults| faults.list.iter())
    }

    /// Whether an answer is changed on its way.
    pub(super) fn changes_response(&self) -> bool {
        self.routed.is_some() || self.session().is_some()
    }

    /// Does to an answer what its route says, and tells the client of its session.
    pub(super) fn change_response(
        &self,
        head: &mut ResponseHead,
        endpoint: Option<&Endpoint>,
        before: Option<Session>,
    ) {
        if let Some(routed) = &self.routed {
            routed.change_response(head);
        }
        if let (Some(policy), Some(endpoint)) = (self.session(), endpoint) {
            let session = Session::at(&endpoint.id, before, session::now());
            session.tell(policy, before, head);
        }
    }

    /// The TLS that is spoken to an endpoint of the cluster.
    pub(super) fn tls_to(&self, endpoint: &Endpoint) -> Option<&Arc<BackendTls>> {
        let cluster = self.cluster.as_ref()?;
        cluster.tls.as_ref().filter(|_| endpoint.sidecar.is_none())
    }
}

/// A rule of the configuration that was in force when the request came. It is kept until the answer is
/// over, so that one request never sees two versions.
pub(super) struct Routed {
    route: Arc<Route>,
    rule: usize,
    backend: Option<usize>,
    /// What the request's `origin` said before any filter.
    origin: Option<FieldValue>,
}

impl Routed {
    pub(super) fn new(
        route: Arc<Route>,
        rule: usize,
        backend: Option<usize>,
        head: &RequestHead,
    ) -> Self {
        Self {
            route,
            rule,
            backend,
            origin: head.headers.get(&ORIGIN).cloned(),
        }
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.route.rules[self.rule]
    }

    /// The route's name, as telemetry has it.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.rule().route
    }

    /// The same, as the other sidecar is told it.
    pub(super) fn hop_name(&self) -> Text {
        self.rule().hop_route.clone()
    }

    pub(super) fn request_timeout(&self) -> Option<Duration> {
        self.rule().request_timeout
    }

    pub(super) fn backend_request_timeout(&self) -> Option<Duration> {
        self.rule().backend_request_timeout
    }

    /// When the rule has a request sent again.
    pub(super) fn retry(&self) -> Option<&Retry> {
        self.rule().retry.as_ref()
    }

    /// The filters that the request passes, in their order.
    pub(super) fn filters(&self) -> impl DoubleEndedIterator<Item = &Filter> {
        let rule = self.rule();
        let backend = self.backend.map(|backend| &rule.backends[backend].filters);
        rule.filters.iter().chain(backend.into_iter().flatten())
    }

    pub(super) fn change_request(&self, head: &mut RequestHead) {
        route::change_request(self.filters(), self.rule(), head);
    }

    pub(super) fn change_response(&self, head: &mut ResponseHead) {
        route::change_response(self.filters().rev(), self.origin.as_ref(), head);
    }
}
