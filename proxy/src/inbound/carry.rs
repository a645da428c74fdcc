//! Requests to an application: carried without a task of their own, where nothing has to be waited for on the way there.
//! The rest goes the general way ([`go_on`](Inbound::go_on)).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use super::Inbound;
use super::http::{Begun, Call, Sent};
use crate::endpoint::Ready;
use crate::http::{Carriers, Errand, Failure, Load, Outcome, Request, Terms, carry};
use crate::model::{RequestHead, ResponseHead};

/// A request that is being carried.
#[derive(Default)]
pub(super) struct Incoming {
    /// Both are there until it is over.
    inbound: Option<Rc<Inbound>>,
    begun: Option<Begun>,
    sent: Sent,
    /// What it was sent on.
    ready: Option<Ready>,
}

impl Inbound {
    /// Carries a request that came at this time, or says what serves it on. `call` finds out where it goes.
    pub(super) fn carry_request(
        self: &Rc<Self>,
        request: Request<'static>,
        at: Instant,
        call: impl FnOnce(&mut RequestHead) -> Call,
    ) -> Option<impl Future<Output = ()> + 'static> {
        let load = Load::new(&self.carriers, request);
        let has_set_out = load.with(|request, incoming, passage| {
            incoming.inbound = Some(self.clone());
            let call = call(&mut request.head);
            let begun = self.begin(&mut request.head, call, at);
            incoming.sent.0 = begun.context.trace_id;
            incoming.begun = Some(begun);
            let ready = self.admit_now(&request.head, incoming)?;
            passage.set_out(request, ready.lead(None), &Terms::default());
            incoming.ready = Some(ready);
            Some(())
        });
        match has_set_out.flatten() {
            Some(()) => {
                carry(load, at);
                None
            }
            None => serve_on(load),
        }
    }
}

/// Serves a request on from where it stands.
fn serve_on(load: Load<Incoming>) -> Option<impl Future<Output = ()> + 'static> {
    let (mut request, Incoming { inbound, begun, .. }) = load.take()?;
    let (inbound, begun) = (inbound?, begun?);
    Some(async move { inbound.go_on(&mut request, begun).await })
}

impl Inbound {
    /// Lets a request in, and gets a connection to the application, or a share of one; nothing, where anything of it has
    /// to be waited for.
    fn admit_now(&self, head: &RequestHead, incoming: &Incoming) -> Option<Ready> {
        let Begun {
            call,
            began,
            known,
            is_last,
            ..
        } = incoming.begun.as_ref()?;
        let policy = &known.policy;
        // Their tokens are taken once.
        let is_limited = !policy.rate_limits.is_empty() || policy.global_rate_limit.is_some();
        if is_limited || *is_last || self.refuses_to_repeat(call, head) {
            return None;
        }
        let ready = self
            .endpoints
            .open_plain_now(call.application.ok()?, call.protocol)?;
        // Whoever has to wait, or is refused, comes to the gate once, on the general way.
        if let Some(port) = self.admission.port(call.port, policy, *began) {
            incoming.sent.1.set(Some(port.enter_now(policy, *began)?));
        }
        Some(ready)
    }
}

impl Errand for Incoming {
    fn again(&self, _: &ResponseHead) -> bool {
        false
    }

    fn change(&mut self, head: &mut ResponseHead, now: Instant) {
        if let Some(inbound) = &self.inbound {
            inbound.mark(head, &self.sent, now);
        }
    }

    fn over(
        &mut self,
        request: &mut Option<Request<'static>>,
        ended: Result<Outcome, Failure>,
        now: Instant,
    ) {
        let (Some(inbound), Some(begun)) = (&self.inbound, &mut self.begun) else {
            return;
        };
        let failed = match ended {
            Err(Failure::Unanswered(failed)) => failed,
            ended => {
                let request = request.as_mut();
                return request.map_or((), |request| inbound.conclude(request, begun, &ended, now));
            }
        };
        let (Some(mut request), Some(begun)) = (request.take(), self.begun.take()) else {
            return;
        };
        // It may be sent again, and whoever asked is told otherwise.
        let sent: Sent = (self.sent.0, Cell::new(self.sent.1.take()));
        let (inbound, ready) = (inbound.clone(), self.ready.take());
        tokio::task::spawn_local(async move {
            let is_reset = || ready.as_ref().is_some_and(Ready::is_reset);
            let repeat = inbound.may_repeat(&mut request, failed, 1, is_reset);
            let ended = match (repeat.await, begun.call.application) {
                (Ok(()), Ok(address)) => {
                    let forwarded = inbound.forward(&mut request, address, &begun.call, &sent, 1);
                    forwarded.await
                }
                (Ok(()), Err(_)) => Err(Failure::Unanswered(failed)),
                (Err(ended), _) => Err(ended),
            };
            drop((sent, ready));
            inbound.finish(&mut request, begun, ended, None).await;
        });
    }

    fn carriers(&self) -> Option<&Rc<Carriers<Self>>> {
        Some(&self.inbound.as_ref()?.carriers)
    }

    fn clear(&mut self) {
        let Self {
            inbound,
            begun,
            sent: (_, pass),
            ready,
        } = self;
        *begun = None;
        pass.set(None);
        *ready = None;
        *inbound = None;
    }
}
