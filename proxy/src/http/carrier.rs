//! A request and its answer between two connections of HTTP/2, without a task of their own: what comes on one side is
//! handed on to the other by whoever drives the connections. It does what [`exchange`](super::exchange) does, for the
//! exchanges that wait for nothing but the two sides; they are most of all, and this is what they cost.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;

use super::alarms::SetAlarm;
use super::exchange::grpc_status;
use super::terms::Watch;
use super::upstream::{check_hop, lost, open_stream};
use super::{Failure, Outcome, Piece, Request, RequestBody, Responder, Terms, Unanswered};
use crate::http2::{self, ErrorCode, Taken};
use crate::model::{Fault, Fields, Hop, ResponseHead};
use crate::multiplex::{Multiplex, StreamReceiver, StreamSender, Turn};

/// Carriers of one kind that are kept on each thread.
const KEPT_MAX: usize = 1024;

/// What a request is carried for.
pub trait Errand: Sized + 'static {
    /// Whether an answer is thrown away, because the request is to be sent again.
    fn again(&self, head: &ResponseHead) -> bool;
    /// Changes the final answer's head before the client gets it.
    fn change(&mut self, head: &mut ResponseHead);
    /// It is over, and neither is needed any more; the request may be taken, to be served on. As long as it has a
    /// responder, there was no answer.
    fn over(&mut self, request: &mut Option<Request<'static>>, ended: Result<Outcome, Failure>);
    /// Where the room for errands of this kind is kept on this thread.
    fn carriers(&self) -> &Rc<Carriers<Self>>;
}

/// Carriers that are not on their way: the next ones have their room, still warm.
#[derive(Debug)]
pub struct Carriers<E>(RefCell<Vec<Rc<Carrier<E>>>>);

impl<E> Default for Carriers<E> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<E> Carriers<E> {
    fn take(&self) -> Rc<Carrier<E>> {
        let kept = self.0.borrow_mut().pop();
        // One that is still to have a turn for what is over is somebody else's.
        let kept = kept.filter(|carrier| Rc::strong_count(carrier) == 1);
        kept.unwrap_or_else(|| {
            Rc::new(Carrier {
                is_due: Cell::new(false),
                carried: RefCell::new(None),
            })
        })
    }

    fn give_back(&self, carrier: Rc<Carrier<E>>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(carrier);
        }
    }

    /// Lets go of half of them, so that a burst is forgotten after a while; to be called every second or so.
    pub fn sweep(&self) {
        let mut kept = self.0.borrow_mut();
        let half = kept.len() / 2;
        kept.truncate(half);
    }
}

/// Carries a request on a stream of `connection`, to a sidecar where there is a `hop`, and the answer back, and tells
/// `errand` what came of it. Of the terms only `deadline` and `timed` are looked at: the errand knows the rest.
pub fn carry<E: Errand>(
    request: Request<'static>,
    (connection, hop): (&Rc<Multiplex>, Option<&Hop>),
    terms: Terms<'_>,
    mut errand: E,
) {
    let watch = terms.watch();
    let empty = request.body.is_empty();
    let (sender, receiver) = match open_stream(connection, hop, &request.head, empty) {
        Ok(opened) => opened,
        Err(failed) => return errand.over(&mut Some(request), Err(Failure::Unanswered(failed))),
    };
    let carrier = errand.carriers().take();
    request.body.attach(carrier.clone());
    receiver.attach(carrier.clone());
    let alarm = terms
        .deadline
        .map(|deadline| SetAlarm::new(deadline, carrier.clone()));
    *carrier.carried.borrow_mut() = Some(Carried {
        request: Some(request),
        sender,
        receiver,
        on_hop: hop.is_some(),
        upward: Bytes::new(),
        is_sent: empty,
        sink: None,
        downward: Bytes::new(),
        watch,
        alarm,
        errand,
    });
    // Some of the body may have come already.
    carrier.turn();
}

/// See [`carry`]. Both streams hold it until it is over.
pub struct Carrier<E> {
    is_due: Cell<bool>,
    carried: RefCell<Option<Carried<E>>>,
}

/// What is on its way.
struct Carried<E> {
    /// There until it is over.
    request: Option<Request<'static>>,
    sender: StreamSender,
    receiver: StreamReceiver,
    /// The other end is a sidecar.
    on_hop: bool,
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
    errand: E,
}

/// An answer that is being passed on.
struct Answering {
    stream: StreamSender,
    /// The head said already that nothing follows.
    is_whole: bool,
    outcome: Outcome,
}

impl<E> fmt::Debug for Carrier<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl<E: Errand> Turn for Carrier<E> {
    fn turn(self: Rc<Self>) {
        let mut carried = self.carried.borrow_mut();
        let Some(under_way) = carried.as_mut() else {
            return;
        };
        let Poll::Ready(ended) = under_way.go_on() else {
            return;
        };
        under_way.end(ended);
        let next = under_way.errand.carriers().clone();
        *carried = None;
        drop(carried);
        next.give_back(self);
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
    fn go_on(&mut self) -> Poll<Result<(), Failure>> {
        if let Poll::Ready(ended) = self.answer() {
            return Poll::Ready(ended);
        }
        if self.send().is_ready() {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        match self.alarm.as_ref().and_then(SetAlarm::rung) {
            Some(fault) => Poll::Ready(self.give_up_late(fault)),
            None => Poll::Pending,
        }
    }

    /// The time is over: an answer that has begun is broken off.
    fn give_up_late(&mut self, fault: Fault) -> Result<(), Failure> {
        let Some(answering) = &mut self.sink else {
            return Err(Failure::Unanswered(Unanswered::late(fault)));
        };
        answering.outcome.fault = Some(fault);
        answering.stream.reset(ErrorCode::CANCEL);
        Ok(())
    }

    /// Passes the answer on.
    fn answer(&mut self) -> Poll<Result<(), Failure>> {
        while self.sink.is_none() {
            let unanswered = match self.receiver.take() {
                Taken::Pending if self.is_client_gone() => {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
                Taken::Pending => return Poll::Pending,
                Taken::Piece(http2::Piece::Head(head)) => match self.take_head(head) {
                    Ok(()) => continue,
                    Err(failure) => return Poll::Ready(Err(failure)),
                },
                Taken::Failed(failure) => lost(failure),
                Taken::Piece(_) | Taken::End => Unanswered::late(Fault::UpstreamProtocol),
            };
            return Poll::Ready(Err(Failure::Unanswered(unanswered)));
        }
        match &mut self.sink {
            Some(answering) => answering.pass_on(&mut self.receiver, &mut self.downward),
            None => Poll::Pending,
        }
    }

    /// The client's stream, as long as no answer has begun.
    fn waiting(&mut self) -> Result<&mut StreamSender, Failure> {
        let request = self.request.as_mut();
        match request.and_then(|request| request.responder.as_mut()) {
            Some(Responder::Http2 { stream }) => Ok(stream),
            _ => Err(Failure::ClientGone),
        }
    }

    fn is_client_gone(&mut self) -> bool {
        self.waiting().map_or(true, |stream| stream.is_gone())
    }

    /// A head of the answer: an informational one, or the final one.
    fn take_head(&mut self, mut head: ResponseHead) -> Result<(), Failure> {
        if self.on_hop {
            head = check_hop(head).map_err(Failure::Unanswered)?;
        }
        // The engine takes no 101, so this is one that others follow.
        if head.status.is_informational() {
            let passed_on = self.waiting()?.respond(&head, false);
            return passed_on.map_err(|_| Failure::ClientGone);
        }
        let outcome = Outcome::of(&head, self.watch.read());
        let is_kept = self.request.as_ref().is_some_and(|r| r.body.is_kept());
        if is_kept && self.errand.again(&head) {
            return Err(Failure::Again(outcome));
        }
        self.errand.change(&mut head);
        let is_whole = self.receiver.is_drained();
        let responder = self.request.as_mut();
        let responder = responder.and_then(|request| request.responder.take());
        let Some(Responder::Http2 { mut stream }) = responder else {
            return Err(Failure::ClientGone);
        };
        let responded = stream.respond(&head, is_whole);
        responded.map_err(|_| Failure::ClientGone)?;
        self.sink = Some(Answering {
            stream,
            is_whole,
            outcome,
        });
        Ok(())
    }

    /// Sends the body. Ready when the client is gone: an upstream that takes no more of it says why in its answer, or
    /// ends, and both are seen there.
    fn send(&mut self) -> Poll<()> {
        while !self.is_sent {
            if !self.upward.is_empty() {
                self.is_sent = self.sender.send(&mut self.upward).is_err();
                if !self.upward.is_empty() {
                    return Poll::Pending;
                }
            }
            let body = self.request.as_mut().map(|request| &mut request.body);
            match body.and_then(RequestBody::take) {
                None => return Poll::Pending,
                Some(Err(_)) => {
                    self.sender.reset(ErrorCode::CANCEL);
                    return Poll::Ready(());
                }
                Some(Ok(Piece::Data(data))) => self.upward = data,
                Some(Ok(Piece::End(trailers))) => {
                    // An upstream that is gone is seen where its answer is.
                    let _ = self.sender.finish(&trailers);
                    self.is_sent = true;
                }
            }
        }
        Poll::Pending
    }

    /// Says what came of it.
    fn end(&mut self, ended: Result<(), Failure>) {
        self.receiver.detach();
        if let Some(request) = &self.request {
            request.body.detach();
        }
        let ended = ended.and_then(|()| match self.sink.take() {
            Some(answering) => Ok(answering.outcome),
            None => Err(Failure::ClientGone),
        });
        self.errand.over(&mut self.request, ended);
    }
}

impl Answering {
    /// Passes on what follows the head.
    fn pass_on(
        &mut self,
        receiver: &mut StreamReceiver,
        downward: &mut Bytes,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if !downward.is_empty() {
                if self.stream.send(downward).is_err() {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
                if !downward.is_empty() {
                    return Poll::Pending;
                }
            }
            match receiver.take() {
                Taken::Piece(http2::Piece::Data(data)) => {
                    self.outcome.response_bytes += data.len() as u64;
                    *downward = data;
                }
                Taken::Piece(http2::Piece::Trailers(trailers)) => {
                    self.outcome.grpc_status = grpc_status(&trailers).or(self.outcome.grpc_status);
                    return Poll::Ready(self.finish(&trailers));
                }
                Taken::End => return Poll::Ready(self.finish(&Fields::new())),
                Taken::Failed(_) => {
                    self.outcome.fault = Some(Fault::UpstreamReset);
                    self.stream.reset(ErrorCode::INTERNAL_ERROR);
                    return Poll::Ready(Ok(()));
                }
                // The final head came before, and the engine lets none follow it.
                Taken::Piece(http2::Piece::Head(_)) => {}
                Taken::Pending if self.stream.is_gone() => {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
                Taken::Pending => return Poll::Pending,
            }
        }
    }

    fn finish(&mut self, trailers: &Fields) -> Result<(), Failure> {
        if self.is_whole {
            return Ok(());
        }
        let finished = self.stream.finish(trailers);
        finished.map_err(|_| Failure::ClientGone)
    }
}
