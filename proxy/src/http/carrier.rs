//! A request and its answer between two connections, without a task of their own: what comes on one side is handed on to
//! the other by whoever drives the connections. It does what [`exchange`](super::exchange) does, for the
//! exchanges that wait for nothing but the two sides; they are most of all, and this is what they cost.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::Method;

use super::alarms::SetAlarm;
use super::exchange::grpc_status;
use super::line::{Line, LineReceiver, LineSender};
use super::terms::Watch;
use super::upstream::{check_hop, lost, open_stream};
use super::{
    Deadline, Failure, Outcome, Piece, Request, RequestBody, Responder, Terms, Unanswered,
};
use crate::http2::{self, ErrorCode, Taken};
use crate::model::{Fault, Fields, Hop, ResponseHead};
use crate::multiplex::{Multiplex, StreamReceiver, StreamSender, Turn};

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

/// Where the request was sent.
enum Upstream {
    Stream {
        sender: StreamSender,
        receiver: StreamReceiver,
        /// The other end is a sidecar.
        on_hop: bool,
    },
    Line {
        sender: LineSender,
        receiver: LineReceiver,
        /// A head of the answer has come.
        begun: bool,
    },
}

/// An answer that is being passed on.
struct Answering {
    client: Client,
    /// The head said already that nothing follows.
    is_whole: bool,
    outcome: Outcome,
}

/// Whoever asked.
enum Client {
    Line(LineSender),
    Stream(StreamSender),
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

impl Client {
    /// Takes it from a request whose answer begins.
    fn take(request: &mut Request<'static>) -> Option<Self> {
        match request.responder.take()? {
            Responder::Http1 { .. } => None,
            Responder::Line { answer } => Some(Self::Line(answer)),
            Responder::Http2 { stream } => Some(Self::Stream(stream)),
        }
    }

    /// Begins the final answer.
    fn respond(&mut self, head: ResponseHead, is_whole: bool) -> Result<(), Failure> {
        match self {
            Self::Line(answer) => answer.respond(head, is_whole).map_err(gone),
            Self::Stream(stream) => stream.respond(&head, is_whole).map_err(gone),
        }
    }

    /// Hands on as much as there is room for.
    fn send(&mut self, data: &mut Bytes) -> Result<(), Failure> {
        match self {
            Self::Line(answer) => answer.send(data).map_err(gone),
            Self::Stream(stream) => stream.send(data).map_err(gone),
        }
    }

    /// Ends an answer; `is_whole` if its head said already that nothing follows.
    fn finish(&mut self, trailers: &Fields, is_whole: bool) -> Result<(), Failure> {
        match self {
            Self::Line(answer) => answer.finish(trailers).map_err(gone),
            Self::Stream(_) if is_whole => Ok(()),
            Self::Stream(stream) => stream.finish(trailers).map_err(gone),
        }
    }

    fn reset(&mut self, code: ErrorCode) {
        match self {
            Self::Line(answer) => answer.reset(),
            Self::Stream(stream) => stream.reset(code),
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::Line(answer) => answer.is_gone(),
            Self::Stream(stream) => stream.is_gone(),
        }
    }
}

fn gone<E>(_: E) -> Failure {
    Failure::ClientGone
}

impl Upstream {
    /// Takes the next head of the answer: an informational one is passed on, and the final one begins the answer.
    fn next_head(
        &mut self,
        request: &mut Request<'static>,
        (errand, watch, now): (&mut impl Errand, &Watch, Instant),
    ) -> Poll<Result<Option<Answering>, Failure>> {
        match self.take_head(&request.head.method) {
            Poll::Ready(Ok(head)) => {
                Poll::Ready(self.pass_head_on(head, request, (errand, watch, now)))
            }
            Poll::Ready(Err(unanswered)) => Poll::Ready(Err(Failure::Unanswered(unanswered))),
            Poll::Pending => {
                let is_gone = request.responder.as_ref().is_none_or(Responder::is_gone);
                match is_gone {
                    true => Poll::Ready(Err(Failure::ClientGone)),
                    false => Poll::Pending,
                }
            }
        }
    }

    fn take_head(&mut self, method: &Method) -> Poll<Result<ResponseHead, Unanswered>> {
        let (receiver, on_hop) = match self {
            Self::Stream {
                receiver, on_hop, ..
            } => (receiver, *on_hop),
            Self::Line {
                receiver, begun, ..
            } => return receiver.take_head(method, begun),
        };
        Poll::Ready(match receiver.take() {
            Taken::Pending => return Poll::Pending,
            Taken::Piece(http2::Piece::Head(head)) if on_hop => check_hop(head),
            Taken::Piece(http2::Piece::Head(head)) => Ok(head),
            Taken::Failed(failure) => Err(lost(failure)),
            Taken::Piece(_) | Taken::End => Err(Unanswered::late(Fault::UpstreamProtocol)),
        })
    }

    /// Takes the next piece of the answer's body, if it has come, or notice that it broke off.
    fn take_piece(&mut self) -> Option<Result<Piece, ()>> {
        let receiver = match self {
            Self::Stream { receiver, .. } => receiver,
            Self::Line { receiver, .. } => return Some(receiver.take()?.map_err(|_| ())),
        };
        match receiver.take() {
            Taken::Piece(http2::Piece::Data(data)) => Some(Ok(Piece::Data(data))),
            Taken::Piece(http2::Piece::Trailers(trailers)) => Some(Ok(Piece::End(trailers))),
            Taken::End => Some(Ok(Piece::End(Fields::new()))),
            Taken::Failed(_) => Some(Err(())),
            // The final head came before, and the engine lets none follow it.
            Taken::Pending | Taken::Piece(http2::Piece::Head(_)) => None,
        }
    }

    /// Whether nothing follows the answer's head.
    fn is_drained(&self) -> bool {
        match self {
            Self::Stream { receiver, .. } => receiver.is_drained(),
            Self::Line { receiver, .. } => receiver.is_done(),
        }
    }

    fn pass_head_on(
        &mut self,
        mut head: ResponseHead,
        request: &mut Request<'static>,
        (errand, watch, now): (&mut impl Errand, &Watch, Instant),
    ) -> Result<Option<Answering>, Failure> {
        // The engine takes no 101, so this is one that others follow.
        if head.status.is_informational() {
            let waiting = request.responder.as_mut();
            let passed_on = waiting.is_some_and(|waiting| waiting.pass_on(&head).is_ok());
            return match passed_on {
                true => Ok(None),
                false => Err(Failure::ClientGone),
            };
        }
        let outcome = Outcome::of(&head, watch.read());
        if request.body.is_kept() && errand.again(&head) {
            return Err(Failure::Again(outcome));
        }
        errand.change(&mut head, now);
        let mut client = Client::take(request).ok_or(Failure::ClientGone)?;
        let is_whole = self.is_drained();
        client.respond(head, is_whole)?;
        Ok(Some(Answering {
            client,
            is_whole,
            outcome,
        }))
    }

    /// Sends the body. Ready when nothing more is to be sent: false says that the client is gone. An upstream that
    /// takes no more of it says why in its answer, or ends, and both are seen there.
    fn send(&mut self, body: &mut RequestBody<'static>, upward: &mut Bytes) -> Poll<bool> {
        loop {
            if !upward.is_empty() {
                let sent = match self {
                    Self::Stream { sender, .. } => sender.send(upward).is_ok(),
                    Self::Line { sender, .. } => sender.send(upward).is_ok(),
                };
                if !sent {
                    return Poll::Ready(true);
                }
                if !upward.is_empty() {
                    return Poll::Pending;
                }
            }
            match body.take() {
                None => return Poll::Pending,
                Some(Err(_)) => {
                    match self {
                        Self::Stream { sender, .. } => sender.reset(ErrorCode::CANCEL),
                        Self::Line { sender, .. } => sender.reset(),
                    }
                    return Poll::Ready(false);
                }
                Some(Ok(Piece::Data(data))) => *upward = data,
                Some(Ok(Piece::End(trailers))) => {
                    // An upstream that is gone is seen where its answer is.
                    match self {
                        Self::Stream { sender, .. } => drop(sender.finish(&trailers)),
                        Self::Line { sender, .. } => drop(sender.finish(&trailers)),
                    }
                    return Poll::Ready(true);
                }
            }
        }
    }
}

impl Answering {
    /// Passes on what follows the head.
    fn pass_on(
        &mut self,
        upstream: &mut Upstream,
        downward: &mut Bytes,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if !downward.is_empty() {
                if let Err(gone) = self.client.send(downward) {
                    return Poll::Ready(Err(gone));
                }
                if !downward.is_empty() {
                    return Poll::Pending;
                }
            }
            match upstream.take_piece() {
                Some(Ok(Piece::Data(data))) => {
                    self.outcome.response_bytes += data.len() as u64;
                    *downward = data;
                }
                Some(Ok(Piece::End(trailers))) => {
                    self.outcome.grpc_status = grpc_status(&trailers).or(self.outcome.grpc_status);
                    return Poll::Ready(self.client.finish(&trailers, self.is_whole));
                }
                Some(Err(())) => {
                    self.outcome.fault = Some(Fault::UpstreamReset);
                    self.client.reset(ErrorCode::INTERNAL_ERROR);
                    return Poll::Ready(Ok(()));
                }
                None if self.client.is_gone() => {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
                None => return Poll::Pending,
            }
        }
    }
}
