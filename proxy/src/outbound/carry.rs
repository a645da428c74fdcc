//! Requests that wait for nothing but the far side, which are most: carried without a task of their own. Whatever is to
//! be waited for on the way there (a name, a connection, room), and whatever is rare, goes the general way ([`go_on`]),
//! from where it stands.
//!
//! [`go_on`]: OutboundRequests::go_on

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Instant;

use futures_util::FutureExt;

use super::attempt::{Course, is_asked, next_retry, one_attempt, protocol_to, seen, set_scheme};
use super::destination::Destination;
use super::hedge::hedge_after;
use super::http::{Found, OutboundRequests, Trail};
use crate::balance::Picked;
use crate::endpoint::Ready;
use crate::http::{
    Carriers, Deadline, Errand, Failure, Load, Outcome, Passage, Request, Terms, carry,
};
use crate::model::ResponseHead;

/// A request that is being carried.
#[derive(Default)]
pub(super) struct Outgoing {
    /// There until it is over.
    requests: Option<Rc<OutboundRequests>>,
    way: Way,
    /// What it was sent on.
    ready: Option<Ready>,
}

/// How a request has come so far.
#[derive(Default)]
struct Way {
    trail: Trail,
    /// Set once it has set out.
    course: Option<Course>,
    picked: Option<Picked>,
}

impl OutboundRequests {
    /// Carries a request that came at this time, or says what serves it on.
    pub(super) fn carry_request(
        self: &Rc<Self>,
        request: Request<'static>,
        at: Instant,
    ) -> Option<impl Future<Output = ()> + 'static> {
        let load = Load::new(&self.outbound.carriers, request);
        let mut found = None;
        let has_set_out = load.with(|request, outgoing, passage| {
            outgoing.requests = Some(self.clone());
            let way = &mut outgoing.way;
            way.trail.began = at;
            self.join(&mut request.head, &mut way.trail);
            if way.trail.is_last {
                return None;
            }
            // Where it has to be waited for, what was begun is dropped, and a task begins anew.
            found = self
                .find_target(&request.head, &mut way.trail)
                .now_or_never();
            let Some(Ok(None)) = &found else {
                return None;
            };
            self.prepare(request, &mut way.trail);
            let ready = self.choose_now(request, way)?;
            let ready = outgoing.ready.insert(ready);
            self.set_out_on(request, (way, ready), passage)
        });
        match has_set_out.flatten() {
            Some(()) => {
                carry(load, at);
                None
            }
            None => self.serve_on(load, found),
        }
    }

    /// Chooses whom the first attempt goes to, and gets a connection to there, or a share of one; nothing, where
    /// anything of it isn't there at once.
    fn choose_now(&self, request: &Request<'static>, way: &mut Way) -> Option<Ready> {
        if way.trail.target.as_ref()?.faults().next().is_some() {
            return None;
        }
        let set_out = self.set_out(&request.head, &mut way.trail);
        let course = way.course.insert(set_out.now_or_never()?.ok()?);
        way.picked = self.choose(&mut way.trail, course).ok()?;
        let picked = way.picked.as_ref();
        if picked.is_some_and(|picked| hedge_after(request, picked).is_some()) {
            return None;
        }
        let Trail {
            target,
            endpoint,
            version,
            ..
        } = &way.trail;
        let target = target.as_ref()?;
        let endpoints = &self.outbound.endpoints;
        let protocol = protocol_to(target, *version);
        match (endpoint, &target.destination) {
            (Some(endpoint), _) => endpoints.open_now(endpoint, target.tls_to(endpoint), protocol),
            (None, Destination::Outside(address)) => endpoints.open_plain_now(*address, protocol),
            _ => None,
        }
    }

    /// Sends the request's head to whoever was chosen, with what is said to a sidecar.
    fn set_out_on(
        &self,
        request: &mut Request<'static>,
        (way, ready): (&Way, &Ready),
        passage: &mut Passage,
    ) -> Option<()> {
        let (target, endpoint) = (way.trail.target.as_ref()?, way.trail.endpoint.as_deref());
        let deadline = Deadline::first(way.course.as_ref()?.whole, one_attempt(target));
        let sidecar = endpoint.filter(|endpoint| endpoint.sidecar.is_some());
        let hop = sidecar.map(|endpoint| self.hop_to(target, endpoint, &request.head, deadline));
        set_scheme(&mut request.head, target, endpoint);
        let terms = Terms {
            deadline,
            timed: way.picked.as_ref().is_some_and(Picked::is_timed),
            ..Terms::default()
        };
        passage.set_out(request, ready.lead(hop.as_ref()), &terms);
        Some(())
    }

    /// Serves a request on from where it stands.
    fn serve_on(
        self: &Rc<Self>,
        load: Load<Outgoing>,
        found: Option<Found>,
    ) -> Option<impl Future<Output = ()> + 'static> {
        let (mut request, outgoing) = load.take()?;
        let Way {
            trail,
            mut course,
            picked,
        } = outgoing.way;
        // Whoever was chosen stays chosen: choosing anew until there is a connection at once would never open one to
        // those that have none, and a second place in the cluster would count as another request.
        if let Some(course) = &mut course {
            course.chosen = picked;
        }
        let requests = self.clone();
        Some(async move { requests.go_on(&mut request, trail, found, course).await })
    }
}

impl Errand for Outgoing {
    fn again(&self, head: &ResponseHead) -> bool {
        let target = self.way.trail.target.as_ref();
        let rule = target.and_then(|target| next_retry(target, 0));
        rule.is_some_and(|rule| is_asked(rule, head))
    }

    fn change(&mut self, head: &mut ResponseHead, _: Instant) {
        let Way { trail, course, .. } = &self.way;
        if let Some(target) = &trail.target
            && target.changes_response()
        {
            let session = course.as_ref().and_then(|course| course.session.as_ref());
            let before = session.map(|(before, _)| *before);
            target.change_response(head, trail.endpoint.as_deref(), before);
        }
    }

    fn over(
        &mut self,
        request: &mut Option<Request<'static>>,
        ended: Result<Outcome, Failure>,
        now: Instant,
    ) {
        let (Some(requests), way) = (&self.requests, &mut self.way) else {
            return;
        };
        if matches!(ended, Err(Failure::Unanswered(_) | Failure::Again(_))) {
            if let Some(request) = request.take() {
                let way = std::mem::take(way);
                tokio::task::spawn_local(repeat(requests.clone(), request, way, ended));
            }
            return;
        }
        if let Some(request) = request {
            if let (Ok(outcome), Some(picked)) = (&ended, &way.picked) {
                picked.answered(seen(outcome), || now);
            }
            requests.remember_spent(&way.trail, &ended);
            requests.conclude(request, &mut way.trail, &ended, now);
        }
    }

    fn carriers(&self) -> Option<&Rc<Carriers<Self>>> {
        Some(&self.requests.as_ref()?.outbound.carriers)
    }

    fn clear(&mut self) {
        let Self {
            requests,
            way:
                Way {
                    trail,
                    course,
                    picked,
                },
            ready,
        } = self;
        trail.clear();
        *course = None;
        *picked = None;
        *ready = None;
        *requests = None;
    }
}

/// Goes on after an attempt that has no answer for whoever asked: with another one, or by telling them.
async fn repeat(
    requests: Rc<OutboundRequests>,
    mut request: Request<'static>,
    way: Way,
    ended: Result<Outcome, Failure>,
) {
    let Way {
        mut trail,
        course: Some(mut course),
        picked,
    } = way
    else {
        return;
    };
    let picked = (picked, 0);
    let repeated = requests.repeat(&mut request, &mut trail, &mut course, picked, ended);
    let ended = match repeated.await {
        ControlFlow::Break(ended) => ended,
        ControlFlow::Continue(()) => {
            let attempted = requests.attempt_all(&mut request, &mut trail, &mut course);
            attempted.await
        }
    };
    requests.remember_spent(&trail, &ended);
    requests.finish(&mut request, trail, ended).await;
}
