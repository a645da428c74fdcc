//! A connection of HTTP/1 and the request on it, between the task that reads and whoever serves the request. As with a
//! stream of HTTP/2, what comes is handed on by whoever it came to: the task gives a turn to who is attached, and what
//! goes out is written where it is made, without the task.

mod halves;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::Version;

pub use self::halves::{LineReceiver, LineSender};
use super::{Body, Request, RequestBody, Responder};
use crate::http1::{
    self, BodyDecoder, BodyLength, Reading, ReceivedRequest, receive_request, write_request,
};
use crate::http2::Role;
use crate::model::{Fields, RequestHead};
use crate::multiplex::{Turn, turn};
use crate::tcp::{Reader, StreamError, Writer};

/// What may be read ahead: of a body that nobody takes, or of the client's next requests.
const READ_AHEAD_MAX: usize = 64 * 1024;

/// A connection, shared by its task and by the request that is being served.
#[derive(Debug)]
pub struct Line(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    /// Missing while somebody needs it for longer.
    reader: Option<Reader>,
    writer: Option<Writer>,
    limits: http1::Limits,
    /// Ours.
    role: Role,
    state: State,
    /// What is still to come of the request, or of the answer.
    decoder: BodyDecoder,
    /// Whether another request may follow.
    keep_alive: bool,
    /// A client that sends no more may be asked whether it waits: HTTP/1.0 knows no such question (RFC 9110 15.2), and
    /// once the final answer has begun it is too late for one.
    may_ask: bool,
    /// The socket had no room.
    is_blocked: bool,
    /// Nothing is read until something is taken.
    is_full: bool,
    /// What was read is not enough to take something of it.
    is_short: bool,
    /// The other side sends no more.
    has_ended: bool,
    /// It ended with an error, so that what came before may not be whole.
    is_broken: bool,
    /// The error was a reset.
    is_reset: bool,
    /// Nothing that is sent to the client would arrive.
    is_gone: bool,
    waiting: Waiting,
    task: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next request may be read.
    Free,
    /// A request is being served, and both of its halves are there, or one.
    Served { halves: u8 },
    /// Nothing can follow.
    Over,
}

/// Who serves the request, and is told when something happened.
#[derive(Debug, Default)]
enum Waiting {
    #[default]
    Nobody,
    Task(Waker),
    Attached(Rc<dyn Turn>),
}

/// What the connection's task is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Bytes have come.
    Read,
    /// The client ended its direction.
    Ended,
    /// No request is being served, and none can be.
    Over,
}

impl Line {
    pub fn new(reader: Reader, writer: Writer, limits: http1::Limits, role: Role) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Inner {
            reader: Some(reader),
            writer: Some(writer),
            limits,
            role,
            state: State::Free,
            decoder: BodyDecoder::new(BodyLength::None),
            keep_alive: true,
            may_ask: false,
            is_blocked: false,
            is_full: false,
            is_short: false,
            has_ended: false,
            is_broken: false,
            is_reset: false,
            is_gone: false,
            waiting: Waiting::Nobody,
            task: None,
        })))
    }

    /// Whether the next request may begin.
    pub fn is_free(&self) -> bool {
        let inner = self.0.borrow();
        inner.state == State::Free && !inner.is_blocked
    }

    /// Whether the other side sends no more, or is gone.
    pub(super) fn has_ended(&self) -> bool {
        let inner = self.0.borrow();
        inner.has_ended || inner.is_gone
    }

    /// Whether part of a request is there.
    pub(super) fn has_begun(&self) -> bool {
        self.0.borrow().has_buffered()
    }

    /// The next request, if it is there. Until then nothing is kept for it.
    pub(super) fn receive(&self) -> Reading<ReceivedRequest> {
        let mut inner = self.0.borrow_mut();
        let Inner { reader, limits, .. } = &mut *inner;
        let Some(reader) = reader else {
            return Ok(None);
        };
        if reader.buffer.is_empty() {
            reader.shrink();
            return Ok(None);
        }
        receive_request(&mut reader.buffer, limits)
    }

    /// Begins to serve a request.
    pub(super) fn begin(self: &Rc<Self>, received: ReceivedRequest) -> Request<'static> {
        let ReceivedRequest {
            head,
            body,
            keep_alive,
        } = received;
        let mut inner = self.0.borrow_mut();
        inner.state = State::Served { halves: 2 };
        inner.decoder = BodyDecoder::new(body);
        inner.keep_alive &= keep_alive;
        inner.may_ask = head.version == Version::HTTP_11;
        inner.is_short = false;
        drop(inner);
        let answer = LineSender::new(self.clone(), &head, None);
        let body = LineReceiver::new(self.clone());
        let body = RequestBody::new(Body::Line { body });
        Request {
            head,
            body,
            responder: Some(Responder::Line { answer }),
        }
    }

    /// Sends a server a request's head; `empty` says that no body follows. What can't be sent is seen where the answer
    /// is awaited.
    pub(super) fn open(
        self: &Rc<Self>,
        head: &RequestHead,
        empty: bool,
    ) -> (LineSender, LineReceiver) {
        let mut inner = self.0.borrow_mut();
        inner.state = State::Served { halves: 2 };
        // It is found out with the answer's head.
        inner.decoder = BodyDecoder::new(BodyLength::UntilClose);
        inner.is_short = false;
        let writer = inner.writer.as_mut();
        let encoder = writer.map(|writer| {
            writer.make_room();
            write_request(&mut writer.buffer, head, !empty)
        });
        drop(inner);
        let mut sender = LineSender::new(self.clone(), head, encoder);
        if empty {
            let _ = sender.finish(&Fields::new());
        }
        (sender, LineReceiver::new(self.clone()))
    }

    /// Whether a connection to a server can't be used: its other end has closed it, or sent what nobody asked for.
    pub fn is_stale(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        let is_free = inner.state == State::Free && !inner.has_ended;
        !is_free || inner.reader.as_mut().is_none_or(Reader::is_stale)
    }

    /// Whether the other side's kernel has reset the connection, after an end that was read before.
    pub fn is_reset(&self) -> bool {
        let inner = self.0.borrow();
        inner.is_reset || inner.reader.as_ref().is_some_and(Reader::is_reset)
    }

    #[cfg(test)]
    pub(super) fn is_serving(&self) -> bool {
        matches!(self.0.borrow().state, State::Served { .. })
    }

    /// Nothing can follow on it.
    pub fn end(&self) {
        let mut inner = self.0.borrow_mut();
        inner.state = State::Over;
        inner.wake_task();
    }

    /// Reads what a server sends, until the connection is over or somebody else goes on with it.
    pub async fn drive(self: Rc<Self>) {
        while poll_fn(|cx| self.poll_event(cx, true)).await != Event::Over {}
    }

    /// The connection ends after the request that is being served.
    pub(super) fn close_after(&self) {
        self.0.borrow_mut().keep_alive = false;
    }

    /// Whether the last request was received whole.
    pub(super) fn is_whole(&self) -> bool {
        self.0.borrow().decoder.is_done()
    }

    /// Whether a client that sent a whole request, and then no more, may be asked whether it still waits.
    pub(super) fn may_ask(&self) -> bool {
        self.0.borrow().may_ask()
    }

    /// The client is gone.
    pub(super) fn lose(&self) {
        self.0.borrow_mut().lose();
        turn::run();
    }

    /// The reader, which nobody needs for a request that was read whole.
    pub(super) fn take_reader(&self) -> Option<Reader> {
        self.0.borrow_mut().reader.take()
    }

    /// Both halves, for whoever goes on with the connection in another way.
    pub fn take(&self) -> Option<(Reader, Writer)> {
        let mut inner = self.0.borrow_mut();
        inner.state = State::Over;
        inner.wake_task();
        inner.reader.take().zip(inner.writer.take())
    }

    /// Reads once, sends what waits for room, and tells who serves the request. For the connection's task, which says
    /// whether it found the connection [free](Self::is_free): if it did, all that there is was looked at.
    pub(super) fn poll_event(&self, cx: &mut Context<'_>, is_free: bool) -> Poll<Event> {
        let event = self.0.borrow_mut().poll_event(cx, is_free);
        turn::run();
        event
    }

    /// A task serves the request, and waits.
    fn wait(&self, cx: &mut Context<'_>) {
        let waiting = &mut self.0.borrow_mut().waiting;
        if !matches!(waiting, Waiting::Task(task) if task.will_wake(cx.waker())) {
            *waiting = Waiting::Task(cx.waker().clone());
        }
    }
}

impl Inner {
    fn poll_event(&mut self, cx: &mut Context<'_>, is_free: bool) -> Poll<Event> {
        if !self
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
        {
            self.task = Some(cx.waker().clone());
        }
        if self.is_blocked
            && let Some(writer) = &mut self.writer
        {
            match writer.poll_room(cx) {
                Poll::Ready(Ok(())) => {
                    self.is_blocked = false;
                    self.notify();
                }
                Poll::Ready(Err(_)) => {
                    self.is_blocked = false;
                    self.broken();
                }
                Poll::Pending if self.may_read() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.state == State::Over {
            return Poll::Ready(Event::Over);
        }
        if !is_free && self.state == State::Free && self.has_more() {
            return Poll::Ready(Event::Read);
        }
        let Some(reader) = &mut self.reader else {
            return Poll::Pending;
        };
        if self.has_ended {
            // The end may have been read before all that came before it was taken.
            return match !is_free && self.may_ask() {
                true => Poll::Ready(Event::Ended),
                false => Poll::Pending,
            };
        }
        if self.is_gone {
            return Poll::Pending;
        }
        let is_enough = reader.buffer.len() >= READ_AHEAD_MAX && !self.is_short;
        if self.state != State::Free && is_enough {
            self.is_full = true;
            return Poll::Pending;
        }
        let event = match reader.poll_fill(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => {
                self.has_ended = true;
                Event::Ended
            }
            Poll::Ready(Ok(_)) => Event::Read,
            Poll::Ready(Err(error)) => {
                self.has_ended = true;
                self.is_broken = true;
                self.is_reset = error.kind() == io::ErrorKind::ConnectionReset;
                self.broken();
                Event::Ended
            }
        };
        if self.role == Role::Client && self.state == State::Free {
            // Between two requests a server has nothing to say, but that it closes.
            self.state = State::Over;
            return Poll::Ready(Event::Over);
        }
        if !self.decoder.is_done() {
            self.notify();
        }
        Poll::Ready(event)
    }

    fn may_ask(&self) -> bool {
        let is_served = matches!(self.state, State::Served { .. });
        let is_last = self.decoder.is_done() && !self.has_buffered();
        is_served && self.may_ask && is_last && !self.is_blocked && !self.is_gone
    }

    /// Whether there is something that was read and not looked at. Who took the reader to ask the client left nothing.
    fn has_buffered(&self) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| !reader.buffer.is_empty())
    }

    /// Whether there is something to read although an answer waits for room: who takes no answers gets no more
    /// requests served.
    fn may_read(&self) -> bool {
        matches!(self.state, State::Served { .. }) && !self.decoder.is_done()
    }

    /// Tells who serves the request.
    fn notify(&mut self) {
        match &self.waiting {
            Waiting::Nobody => {}
            Waiting::Attached(attached) => turn::push(attached),
            Waiting::Task(task) => task.wake_by_ref(),
        }
    }

    /// The connection broke. A server's answer may be there all the same, so that is seen where the answer ends.
    fn broken(&mut self) {
        self.keep_alive = false;
        if self.role == Role::Server {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.is_gone = true;
        self.notify();
    }

    /// Something was taken, or there is not enough for that: then reading goes on whatever there is already, up to the
    /// engine's own limits.
    fn taken(&mut self, is_short: bool) {
        self.is_short = is_short;
        if std::mem::take(&mut self.is_full) {
            self.wake_task();
        }
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Where something is written, as long as it would arrive.
    fn open(&mut self) -> Result<&mut Writer, StreamError> {
        match &mut self.writer {
            Some(writer) if !self.is_gone => Ok(writer),
            _ => Err(StreamError::Io(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// What came of writing: what had no room is the task's to send.
    fn written(&mut self, written: io::Result<bool>) -> Result<(), StreamError> {
        match written {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.is_blocked = true;
                self.wake_task();
                Ok(())
            }
            Err(error) => {
                self.broken();
                Err(error.into())
            }
        }
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        let written = self.open()?.try_flush();
        self.written(written)
    }

    /// Sends what has gathered when that is all.
    fn flush_whole(&mut self) -> Result<(), StreamError> {
        // The connection of a client that asked for its last answer is closed next.
        let is_last = self.role == Role::Server && !self.keep_alive && self.decoder.is_done();
        let writer = self.open()?;
        let written = match is_last {
            true => writer.try_flush_before_end(),
            false => writer.try_flush(),
        };
        self.written(written)
    }

    /// A half of the request is gone; with the other one the connection is free, or over.
    fn release(&mut self) {
        match self.state {
            State::Served { halves } if halves > 1 => {
                self.state = State::Served { halves: halves - 1 };
            }
            State::Served { .. } => {
                self.waiting = Waiting::Nobody;
                self.finish();
            }
            State::Free | State::Over => {}
        }
    }

    /// Whether there is something that was read and not looked at, if only the end.
    fn has_more(&self) -> bool {
        self.has_ended || self.reader.is_none() || self.has_buffered()
    }

    fn finish(&mut self) {
        let is_whole = self.decoder.is_done()
            && self
                .writer
                .as_ref()
                .is_some_and(|writer| !writer.within_message);
        let has_more = self.has_more();
        // A server has nothing more to say, and has read the request.
        let may_go_on = self.role == Role::Server || !(has_more || self.is_blocked);
        if !is_whole || self.is_gone || !self.keep_alive || !may_go_on {
            self.state = State::Over;
            return self.wake_task();
        }
        self.state = State::Free;
        if let Some(writer) = &mut self.writer {
            writer.shrink();
        }
        match &mut self.reader {
            Some(reader) if self.role == Role::Client => reader.shrink(),
            // Usually the next bytes wake the task.
            _ if has_more => self.wake_task(),
            _ => {}
        }
    }
}
