//! Requests that wait for nothing but the far side, which are most: carried without a task of their own. Whatever is to
//! be waited for on the way there (a name, a connection, room), and whatever is rare, goes the general way ([`go_on`]),
//! from where it stands.
//!
//! [`go_on`]: OutboundRequests::go_on

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Instant;

use futures_util::FutureExt;
use http::Method;

use super::attempt::{Course, is_asked, next_retry, one_attempt, protocol_to, seen, set_scheme};
use super::destination::Destination;
use super::hedge::hedge_after;
use super::http::{Found, OutboundRequests, Trail};
use crate::balance::Picked;
use crate::endpoint::Share;
use crate::http::{Carriers, Deadline, Errand, Failure, Outcome, Request, Terms, carry};
use crate::model::{Protocol, ResponseHead};
use crate::multiplex::Accepted;

/// A request that is being carried.
pub(super) struct Outgoing {
    requests: Rc<OutboundRequests>,
    /// There until it is over.
    way: Option<Way>,
    /// Counts as a stream of the upstream's connection.
    _share: Share,
}

/// How a request has come so far.
struct Way {
    trail: Trail,
    course: Course,
    picked: Option<Picked>,
}

/// What the first attempt goes to.
struct Chosen {
    course: Course,
    picked: Option<Picked>,
    share: Share,
}

impl OutboundRequests {
    /// Carries the request on a stream; the stream again, if it is none that could be.
    pub(super) fn carry_stream(self: &Rc<Self>, accepted: Accepted) -> ControlFlow<(), Accepted> {
        let (head, receiver, sender) = match accepted {
            Accepted {
                head: Ok(head),
                receiver,
                sender,
            } if head.method != Method::CONNECT && head.upgrade.is_none() => {
                (head, receiver, sender)
            }
            accepted => return ControlFlow::Continue(accepted),
        };
        let mut request = Request::of_stream(head, receiver, sender);
        let mut trail = self.begin(&mut request.head);
        // Where it has to be waited for, what was begun is dropped, and a task begins anew.
        let found = self.find_target(&request.head, &mut trail).now_or_never();
        let chosen = match &found {
            Some(Ok(None)) => {
                self.prepare(&mut request, &mut trail);
                self.choose_now(&request, &mut trail)
            }
            _ => None,
        };
        match chosen {
            Some(chosen) => self.carry_request(request, trail, chosen),
            None => self.leave_to_task(request, trail, found),
        }
        ControlFlow::Break(())
    }

    /// What the first attempt needs; nothing, where anything of it isn't there at once.
    fn choose_now(&self, request: &Request<'static>, trail: &mut Trail) -> Option<Chosen> {
        if trail.target.as_ref()?.faults().next().is_some() {
            return None;
        }
        let course = self.set_out(&request.head, trail).now_or_never()?.ok()?;
        let picked = self.choose(trail, &course).ok()?;
        let hedged = picked.as_ref();
        if hedged
            .and_then(|picked| hedge_after(request, picked))
            .is_some()
        {
            return None;
        }
        let share = self.share_now(trail)?;
        Some(Chosen {
            course,
            picked,
            share,
        })
    }

    /// A share of an open connection to where the request goes.
    fn share_now(&self, trail: &Trail) -> Option<Share> {
        let target = trail.target.as_ref()?;
        let endpoints = &self.outbound.endpoints;
        let is_http2 = protocol_to(target, trail.version) == Protocol::Http2;
        match (&trail.endpoint, &target.destination) {
            (Some(endpoint), _) if is_http2 || endpoint.sidecar.is_some() => {
                endpoints.share_now(endpoint, target.tls_to(endpoint))
            }
            (None, Destination::Outside(address)) if is_http2 => {
                endpoints.share_plain_now(*address)
            }
            _ => None,
        }
    }

    fn carry_request(self: &Rc<Self>, mut request: Request<'static>, trail: Trail, chosen: Chosen) {
        let Chosen {
            course,
            picked,
            share,
        } = chosen;
        let (target, endpoint) = (trail.target.as_ref(), trail.endpoint.as_deref());
        let (mut hop, mut deadline) = (None, None);
        if let Some(target) = target {
            let sidecar = endpoint.filter(|endpoint| endpoint.sidecar.is_some());
            deadline = Deadline::first(course.whole, one_attempt(target));
            hop = sidecar.map(|endpoint| self.hop_to(target, endpoint, &request.head, deadline));
            set_scheme(&mut request.head, target, endpoint);
        }
        let connection = share.connection().clone();
        let terms = Terms {
            deadline,
            timed: picked.as_ref().is_some_and(Picked::is_timed),
            ..Terms::default()
        };
        let outgoing = Outgoing {
            requests: self.clone(),
            way: Some(Way {
                trail,
                course,
                picked,
            }),
            _share: share,
        };
        carry(request, (&connection, hop.as_ref()), terms, outgoing);
    }

    fn leave_to_task(
        self: &Rc<Self>,
        mut request: Request<'static>,
        trail: Trail,
        found: Option<Found>,
    ) {
        let requests = self.clone();
        tokio::task::spawn_local(async move {
            requests.go_on(&mut request, trail, found).await;
        });
    }
}

impl Errand for Outgoing {
    fn again(&self, head: &ResponseHead) -> bool {
        let target = self.way.as_ref().and_then(|way| way.trail.target.as_ref());
        let rule = target.and_then(|target| next_retry(target, 0));
        rule.is_some_and(|rule| is_asked(rule, head))
    }

    fn change(&mut self, head: &mut ResponseHead) {
        if let Some(Way { trail, course, .. }) = &self.way
            && let Some(target) = &trail.target
            && target.changes_response()
        {
            let before = course.session.as_ref().map(|(before, _)| *before);
            target.change_response(head, trail.endpoint.as_deref(), before);
        }
    }

    fn over(&mut self, request: &mut Option<Request<'static>>, ended: Result<Outcome, Failure>) {
        let requests = &self.requests;
        if matches!(ended, Err(Failure::Unanswered(_) | Failure::Again(_))) {
            if let (Some(request), Some(way)) = (request.take(), self.way.take()) {
                tokio::task::spawn_local(repeat(requests.clone(), request, way, ended));
            }
            return;
        }
        if let (Some(request), Some(way)) = (request, &mut self.way) {
            if let (Ok(outcome), Some(picked)) = (&ended, &way.picked) {
                picked.answered(seen(outcome), Instant::now);
            }
            requests.remember_spent(&way.trail, &ended);
            requests.conclude(request, &mut way.trail, &ended);
        }
    }

    fn carriers(&self) -> &Rc<Carriers<Self>> {
        &self.requests.outbound.carriers
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
        mut course,
        picked,
    } = way;
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
