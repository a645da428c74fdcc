//! Requests to an application that speaks HTTP/2, from another sidecar: carried without a task of their own, where
//! nothing has to be waited for on the way there. The rest goes the general way ([`go_on`](Inbound::go_on)).

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;

use futures_util::FutureExt;
use http::Method;

use super::Inbound;
use super::http::{Begun, HopRequests, Sent};
use crate::endpoint::Share;
use crate::http::{Carriers, Errand, Failure, Outcome, Request, Terms, Told, carry};
use crate::model::{Fault, Protocol, RequestHead, ResponseHead, hop};
use crate::multiplex::Accepted;

/// A request that is being carried.
pub(super) struct Incoming {
    inbound: Rc<Inbound>,
    /// There until it is over.
    begun: Option<Begun>,
    sent: Sent,
    application: SocketAddr,
    /// Counts as a stream of the application's connection.
    _share: Share,
}

/// What a request goes to.
struct Admitted {
    application: SocketAddr,
    sent: Sent,
    share: Share,
}

impl HopRequests {
    /// Carries the request on a stream; the stream again, if it is none that could be.
    pub(super) fn carry_stream(self: &Rc<Self>, accepted: Accepted) -> ControlFlow<(), Accepted> {
        let (head, receiver, sender) = match accepted {
            Accepted {
                head: Ok(head),
                receiver,
                sender,
            } if may_be_carried(&head) => (head, receiver, sender),
            accepted => return ControlFlow::Continue(accepted),
        };
        let mut request = Request::of_stream(head, receiver, sender);
        let inbound = self.inbound.clone();
        let Ok(call) = self.call(&mut request.head) else {
            let requests = self.clone();
            tokio::task::spawn_local(async move {
                let told = Told::of(Fault::MalformedRequest, false);
                requests.inbound.answer(&mut request, told).await;
            });
            return ControlFlow::Break(());
        };
        let begun = inbound.begin(&mut request.head, call);
        match inbound.admit_now(&request.head, &begun) {
            Some(admitted) => {
                let Admitted {
                    application,
                    sent,
                    share,
                } = admitted;
                let connection = share.connection().clone();
                let incoming = Incoming {
                    inbound,
                    begun: Some(begun),
                    sent,
                    application,
                    _share: share,
                };
                carry(request, (&connection, None), Terms::default(), incoming);
            }
            None => drop(tokio::task::spawn_local(async move {
                inbound.go_on(&mut request, begun).await;
            })),
        }
        ControlFlow::Break(())
    }
}

/// Whether a request may be one that nothing but the application is waited for.
fn may_be_carried(head: &RequestHead) -> bool {
    let usual = head.method != Method::CONNECT && head.upgrade.is_none();
    usual && hop::protocol_of(&head.headers) == Some(Protocol::Http2)
}

impl Inbound {
    /// Lets a request in, and opens its way to the application; nothing, where anything of it has to be waited for.
    fn admit_now(&self, head: &RequestHead, begun: &Begun) -> Option<Admitted> {
        let Begun {
            call, began, known, ..
        } = begun;
        let policy = &known.policy;
        // Their tokens are taken once.
        let is_limited = !policy.rate_limits.is_empty() || policy.global_rate_limit.is_some();
        if is_limited || self.refuses_to_repeat(call, head) {
            return None;
        }
        let application = call.application.ok()?;
        let admitting = self.admit(call.port, policy, call.asked(head), (*began, None));
        let pass = admitting.now_or_never()?.ok()?;
        Some(Admitted {
            application,
            sent: (begun.context.trace_id, Cell::new(pass)),
            share: self.endpoints.share_plain_now(application)?,
        })
    }
}

impl Errand for Incoming {
    fn again(&self, _: &ResponseHead) -> bool {
        false
    }

    fn change(&mut self, head: &mut ResponseHead) {
        self.inbound.mark(head, &self.sent);
    }

    fn over(&mut self, request: &mut Option<Request<'static>>, ended: Result<Outcome, Failure>) {
        let Some(begun) = self.begun.take() else {
            return;
        };
        let inbound = self.inbound.clone();
        let failed = match ended {
            Err(Failure::Unanswered(failed)) => failed,
            ended => {
                let request = request.as_mut();
                return request.map_or((), |request| inbound.conclude(request, begun, &ended));
            }
        };
        let Some(mut request) = request.take() else {
            return;
        };
        // It may be sent again, and whoever asked is told otherwise.
        let application = self.application;
        let sent: Sent = (self.sent.0, Cell::new(self.sent.1.take()));
        tokio::task::spawn_local(async move {
            let call = &begun.call;
            let forwarded = inbound.forward(&mut request, application, call, &sent, Some(failed));
            let ended = forwarded.await;
            drop(sent);
            inbound.finish(&mut request, begun, ended, None).await;
        });
    }

    fn carriers(&self) -> &Rc<Carriers<Self>> {
        &self.inbound.carriers
    }
}
