//! One HTTP/2 connection shared by many tasks of one thread. The engine (`http2`) keeps the state;
//! here it meets a socket and those who wait: a [driver](Multiplex::drive) reads and writes, and
//! whoever holds a stream is woken when there is something for it. Frames of all streams gather in
//! the engine's output, and the driver, which runs after those it woke, sends them in one write.

mod drive;
mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod turn;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::http2::{Connection, Ended, ErrorCode, Key, Limits, NotOpened, Put, Refused, Role};
use crate::model::RequestHead;

pub use stream::{StreamReceiver, StreamSender};
pub use turn::Turn;

/// A shared connection. Its streams end when its driver is dropped.
#[derive(Debug)]
pub struct Multiplex {
    inner: RefCell<Inner>,
    /// Bytes read from the socket.
    received: Cell<u64>,
}

#[derive(Debug)]
struct Inner {
    engine: Connection,
    /// By stream, as [`Key::slot`] numbers them.
    waiting: Vec<Waiting>,
    driver: Option<Waker>,
    pinger: Option<Waker>,
}

/// Who waits for a stream: tasks, or whoever is attached to it.
#[derive(Debug, Default)]
struct Waiting {
    receiver: Option<Waker>,
    sender: Option<Waker>,
    attached: Option<Rc<dyn Turn>>,
}

/// A request that came in.
#[derive(Debug)]
pub struct Accepted<'d> {
    /// Its head, or why it is answered with an error right away. It stays where the driver put it until somebody takes
    /// it, as each move would copy it.
    pub head: &'d mut Option<Result<RequestHead, Refused>>,
    pub receiver: StreamReceiver,
    pub sender: StreamSender,
    /// When it came, as far as that was looked at.
    pub at: Instant,
}

impl Multiplex {
    pub fn new(role: Role, limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            inner: RefCell::new(Inner {
                engine: Connection::new(role, limits),
                waiting: Vec::new(),
                driver: None,
                pinger: None,
            }),
            received: Cell::new(0),
        })
    }

    /// Opens a stream, as [`Connection::open`] does.
    pub fn open(
        self: &Rc<Self>,
        head: &RequestHead,
        extra: impl FnOnce(&mut Put<'_>),
        end: bool,
    ) -> Result<(StreamSender, StreamReceiver), NotOpened> {
        let mut inner = self.inner.borrow_mut();
        let key = inner.engine.open(head, extra, end)?;
        inner.wake_driver();
        drop(inner);
        Ok(self.halves(key))
    }

    fn halves(self: &Rc<Self>, key: Key) -> (StreamSender, StreamReceiver) {
        (
            StreamSender::new(self.clone(), key),
            StreamReceiver::new(self.clone(), key),
        )
    }

    /// How many more streams may be opened now.
    pub fn room(&self) -> u32 {
        self.inner.borrow().engine.room()
    }

    /// Whether no stream can be opened any more, now and later.
    pub fn is_closed(&self) -> bool {
        self.inner.borrow().engine.is_closing()
    }

    pub fn has_streams(&self) -> bool {
        self.inner.borrow().engine.has_streams()
    }

    /// Whether the peer has begun to speak HTTP/2.
    pub fn has_begun(&self) -> bool {
        self.inner.borrow().engine.has_begun()
    }

    /// Asks the peer whether it is there, and waits for the answer.
    pub async fn ping(&self) -> Result<(), Ended> {
        let number = {
            let mut inner = self.inner.borrow_mut();
            let number = inner.engine.ping();
            inner.wake_driver();
            number
        };
        poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            if inner.engine.pings_answered() >= number {
                return Poll::Ready(Ok(()));
            }
            if let Some(ended) = inner.engine.ended() {
                return Poll::Ready(Err(ended));
            }
            set(&mut inner.pinger, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Bytes that have come from the peer so far; as long as they grow, it is there.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Gives the connection up with what is on it: the peer is taken to be gone.
    pub fn lose(&self, why: &'static str) {
        let mut inner = self.inner.borrow_mut();
        inner.engine.lost(why);
        inner.notify();
        if let Some(driver) = inner.driver.take() {
            driver.wake();
        }
    }

    /// Tells the peer to open no more streams; the driver ends once those that are open have.
    pub fn go_away(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.engine.go_away();
        inner.wake_driver();
    }

    /// Ends the connection with what is on it; the driver ends once the peer has been told.
    pub fn end(&self, code: ErrorCode, why: &'static str) {
        let mut inner = self.inner.borrow_mut();
        inner.engine.end(code, why);
        inner.notify();
        inner.wake_driver();
    }
}

impl Inner {
    /// Has what was put into the output sent.
    fn wake_driver(&mut self) {
        if !self.engine.output().is_empty()
            && let Some(driver) = self.driver.take()
        {
            driver.wake();
        }
    }

    fn waiting(&mut self, key: Key) -> &mut Waiting {
        if key.slot() >= self.waiting.len() {
            self.waiting.resize_with(key.slot() + 1, Waiting::default);
        }
        &mut self.waiting[key.slot()]
    }

    /// Wakes everybody who has something to do.
    fn notify(&mut self) {
        while let Some(notice) = self.engine.notice() {
            let Some(waiting) = self.waiting.get_mut(notice.key.slot()) else {
                continue;
            };
            if let Some(attached) = &waiting.attached {
                turn::push(attached);
                continue;
            }
            if notice.readable
                && let Some(receiver) = waiting.receiver.take()
            {
                receiver.wake();
            }
            if notice.writable
                && let Some(sender) = waiting.sender.take()
            {
                sender.wake();
            }
        }
        if let Some(pinger) = self.pinger.take() {
            pinger.wake();
        }
    }
}

/// Remembers who waits, without a clone when it is remembered already.
fn set(slot: &mut Option<Waker>, waker: &Waker) {
    if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}
