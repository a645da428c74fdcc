//! A request and its answer between two connections, without a task of their own: what comes on one side is handed on to
//! the other by whoever drives the connections. It does what [`exchange`](super::exchange) does, for the
//! exchanges that wait for nothing but the two sides; they are most of all, and this is what they cost.

mod answering;
#[cfg(test)]
mod tests;
mod upstream;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;

use self::answering::{Answering, Client};
use self::upstream::Upstream;
use super::alarms::SetAlarm;
use super::line::Line;
use super::terms::Watch;
use super::upstream::open_stream;
use super::{Deadline, Failure, Outcome, Request, Terms, Unanswered};
use crate::http2::ErrorCode;
use crate::model::{Fault, Hop, ResponseHead};
use crate::multiplex::{Multiplex, Turn};

/// Carriers of one kind that are kept on each thread.
const KEPT_MAX: usize = 1024;

/// What a request is carried for. It stays in its carrier, empty, between two requests.
pub trait Errand: Default + 'static {
    /// Whether an answer is thrown away, because the request is to be sent again.
    fn again(&self, head: &ResponseHead) -> bool;
    /// Changes the final answer's head, which came `now`, before the client gets it.
    fn change(&mut self, head: &mut ResponseHead, now: Instant);
    /// It is over, and neither is needed any more; the request may be taken, to be served on. As long as it has a
    /// responder, there was no answer.
    fn over(
        &mut self,
        request: &mut Option<Request<'static>>,
        ended: Result<Outcome, Failure>,
        now: Instant,
    );
    /// Where the room for errands of this kind is kept on this thread; nowhere, as long as it is empty.
    fn carriers(&self) -> Option<&Rc<Carriers<Self>>>;
    /// Lets go of everything, where it stands: as it is by default.
    fn clear(&mut self);
}

/// Carriers that are not on their way: the next ones have their room, still warm.
#[derive(Debug)]
pub struct Carriers<E>(RefCell<Vec<Rc<Carrier<E>>>>);

impl<E> Default for Carriers<E> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<E: Errand> Carriers<E> {
    fn take(&self) -> Rc<Carrier<E>> {
        let kept = self.0.borrow_mut().pop();
        // One that is still to have a turn for what is over is somebody else's.
        let kept = kept.filter(|carrier| Rc::strong_count(carrier) == 1);
        kept.unwrap_or_else(|| {
            Rc::new(Carrier {
                is_due: Cell::new(false),
                carried: RefCell::default(),
            })
        })
    }

    fn give_back(&self, carrier: Rc<Carrier<E>>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(carrier);
        }
    }
}

impl<E> Carriers<E> {
    /// Lets go of half of them, so that a burst is forgotten after a while; to be called every second or so.
    pub fn sweep(&self) {
        let mut kept = self.0.borrow_mut();
        let half = kept.len() / 2;
        kept.truncate(half);
    }
}

/// A request that is to be carried, or served by a task if it can't be. It and its errand are made ready where they are
/// carried, as each move would copy them whole.
pub struct Load<E>(Rc<Carrier<E>>);

impl<E: Errand> Load<E> {
    /// A request with an empty errand.
    pub fn new(carriers: &Carriers<E>, request: Request<'static>) -> Self {
        let carrier = carriers.take();
        carrier.carried.borrow_mut().request = Some(request);
        Self(carrier)
    }

    /// Does something with it, which may be to have it set out.
    pub fn with<R>(
        &self,
        look: impl FnOnce(&mut Request<'static>, &mut E, &mut Passage) -> R,
    ) -> Option<R> {
        let mut carried = self.0.carried.borrow_mut();
        let Carried {
            request,
            errand,
            passage,
        } = &mut *carried;
        Some(look(request.as_mut()?, errand, passage))
    }

    /// Takes it back, to be served by a task.
    pub fn take(self) -> Option<(Request<'static>, E)> {
        let mut carried = self.0.carried.borrow_mut();
        let taken = (carried.request.take()?, std::mem::take(&mut carried.errand));
        drop(carried);
        if let Some(carriers) = taken.1.carriers() {
            carriers.give_back(self.0);
        }
        Some(taken)
    }
}

/// Carries a request that has [set out](Passage::set_out), and the answer back, and tells its errand what came of it.
pub fn carry<E: Errand>(Load(carrier): Load<E>, now: Instant) {
    carrier.attach();
    // Some of the body may have come already, and what failed at once is over.
    carrier.turn(now);
}

/// See [`carry`]. Both streams hold it until it is over.
pub struct Carrier<E> {
    is_due: Cell<bool>,
    carried: RefCell<Carried<E>>,
}

/// What is on its way. Nothing of it is there before and after.
#[derive(Default)]
struct Carried<E> {
    request: Option<Request<'static>>,
    errand: E,
    passage: Passage,
}

/// How far a request and its answer have come. What stays of it between two requests is only what setting out says
/// anew.
#[derive(Default)]
pub struct Passage {
    upstream: Option<Upstream>,
    /// Why there is no upstream.
    failed: Option<Unanswered>,
    deadline: Option<Deadline>,
    /// What the upstream had no room for yet.
    upward: Bytes,
    /// Nothing more goes to the upstream.
    is_sent: bool,
    /// The answer has begun.
    sink: Option<Answering>,
    /// What the client had no room for yet.
    downward: Bytes,
    watch: Watch,
    alarm: Option<SetAlarm>,
}

impl Passage {
    /// Sends the request's head where it leads. Of the terms only `deadline` and `timed` are looked at: the errand knows
    /// the rest.
    pub fn set_out(&mut self, request: &Request<'static>, lead: Lead<'_>, terms: &Terms<'_>) {
        self.watch = terms.watch();
        self.deadline = terms.deadline;
        self.is_sent = request.body.is_empty();
        match lead {
            Lead::Stream(connection, hop) => {
                match open_stream(connection, hop, &request.head, self.is_sent) {
                    Ok((sender, receiver)) => {
                        self.upstream = Some(Upstream::Stream {
                            sender,
                            receiver,
                            on_hop: hop.is_some(),
                        });
                    }
                    Err(failed) => self.failed = Some(failed),
                }
            }
            Lead::Line(line) => {
                let (sender, receiver) = line.open(&request.head, self.is_sent);
                self.upstream = Some(Upstream::Line {
                    sender,
                    receiver,
                    begun: false,
                });
            }
        }
    }
}

/// Where a request can be sent without waiting.
#[derive(Clone, Copy)]
pub enum Lead<'c> {
    /// A stream of a connection, to a sidecar where there is a hop.
    Stream(&'c Rc<Multiplex>, Option<&'c Hop>),
    /// A connection of HTTP/1 that served others before.
    Line(&'c Rc<Line>),
}

impl<E> fmt::Debug for Carrier<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl<E: Errand> Carrier<E> {
    /// From here on it gets a turn whenever something comes for it.
    fn attach(self: &Rc<Self>) {
        let mut carried = self.carried.borrow_mut();
        let Carried {
            request: Some(request),
            passage,
            ..
        } = &mut *carried
        else {
            return;
        };
        if let Some(upstream) = &passage.upstream {
            request.body.attach(self.clone());
            match upstream {
                Upstream::Stream { receiver, .. } => receiver.attach(self.clone()),
                Upstream::Line { receiver, .. } => receiver.attach(self.clone()),
            }
        }
        let deadline = passage.deadline;
        passage.alarm = deadline.map(|deadline| SetAlarm::new(deadline, self.clone()));
    }
}

impl<E: Errand> Turn for Carrier<E> {
    fn turn(self: Rc<Self>, now: Instant) {
        let mut carried = self.carried.borrow_mut();
        let Poll::Ready(ended) = carried.go_on(now) else {
            return carried.passage.flush();
        };
        let carriers = carried.end(ended, now);
        drop(carried);
        if let Some(carriers) = carriers {
            carriers.give_back(self);
        }
    }

    fn give_up(&self) {
        let broken = self.carried.take();
        drop(broken);
    }

    fn is_due(&self) -> &Cell<bool> {
        &self.is_due
    }
}

impl<E: Errand> Carried<E> {
    /// Hands on what there is. The answer comes first: it may end the exchange before the request is sent.
    fn go_on(&mut self, now: Instant) -> Poll<Result<(), Failure>> {
        if let Some(failed) = self.passage.failed.take() {
            return Poll::Ready(Err(Failure::Unanswered(failed)));
        }
        let Self {
            request: Some(request),
            errand,
            passage,
        } = self
        else {
            return Poll::Pending;
        };
        let Some(upstream) = &mut passage.upstream else {
            return Poll::Pending;
        };
        while passage.sink.is_none() {
            match upstream.next_head(request, (&mut *errand, &passage.watch, now)) {
                Poll::Pending => break,
                Poll::Ready(Ok(begun)) => passage.sink = begun,
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
            }
        }
        if let Some(answering) = &mut passage.sink
            && let Poll::Ready(ended) = answering.pass_on(upstream, &mut passage.downward)
        {
            return Poll::Ready(ended);
        }
        if !passage.is_sent {
            match upstream.send(&mut request.body, &mut passage.upward) {
                Poll::Pending => {}
                Poll::Ready(true) => passage.is_sent = true,
                Poll::Ready(false) => return Poll::Ready(Err(Failure::ClientGone)),
            }
        }
        match passage.alarm.as_ref().and_then(SetAlarm::rung) {
            Some(fault) => Poll::Ready(passage.break_off(fault)),
            None => Poll::Pending,
        }
    }

    /// Says what came of it, and lets go of everything. Returned is where the carrier belongs.
    fn end(&mut self, ended: Result<(), Failure>, now: Instant) -> Option<Rc<Carriers<E>>> {
        if let Some(request) = &self.request {
            request.body.detach();
        }
        let Passage {
            upstream,
            sink,
            alarm,
            upward,
            downward,
            ..
        } = &mut self.passage;
        let outcome = sink.take().map(|answering| answering.outcome);
        let ended = ended.and_then(|()| outcome.ok_or(Failure::ClientGone));
        // The upstream's stream ends before anything else is done about the request.
        *upstream = None;
        *alarm = None;
        *upward = Bytes::new();
        *downward = Bytes::new();
        self.errand.over(&mut self.request, ended, now);
        let carriers = self.errand.carriers().cloned();
        self.request = None;
        self.errand.clear();
        carriers
    }
}

impl Passage {
    /// Sends what has gathered, before more is waited for. What can't be sent is seen at the turn which that causes.
    fn flush(&mut self) {
        if let Some(Upstream::Line { sender, .. }) = &mut self.upstream
            && !self.is_sent
        {
            let _ = sender.flush();
        }
        if let Some(Answering {
            client: Client::Line(answer),
            ..
        }) = &mut self.sink
        {
            let _ = answer.flush();
        }
    }

    /// The time is over: an answer that has begun ends here.
    fn break_off(&mut self, fault: Fault) -> Result<(), Failure> {
        let Some(answering) = &mut self.sink else {
            return Err(Failure::Unanswered(Unanswered::late(fault)));
        };
        answering.outcome.fault = Some(fault);
        answering.client.reset(ErrorCode::CANCEL);
        Ok(())
    }
}
