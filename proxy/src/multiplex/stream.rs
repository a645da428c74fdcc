//! The two halves of a stream. Dropping both ends it, with a reset if it isn't over.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;

use super::{Multiplex, Turn, set};
use crate::http2::{ErrorCode, Failure, Key, Piece, Taken};
use crate::model::{Fields, ResponseHead};

/// What comes in.
#[derive(Debug)]
pub struct StreamReceiver {
    multiplex: Rc<Multiplex>,
    key: Key,
}

/// What goes out.
#[derive(Debug)]
pub struct StreamSender {
    multiplex: Rc<Multiplex>,
    key: Key,
}

impl StreamReceiver {
    pub(super) fn new(multiplex: Rc<Multiplex>, key: Key) -> Self {
        Self { multiplex, key }
    }

    /// The next piece, or nothing at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        poll_fn(|cx| {
            let mut inner = self.multiplex.inner.borrow_mut();
            let taken = inner.engine.take(self.key);
            match taken {
                Taken::Piece(piece) => {
                    // The peer is told that there is room.
                    inner.wake_driver();
                    Poll::Ready(Ok(Some(piece)))
                }
                Taken::End => Poll::Ready(Ok(None)),
                Taken::Failed(failure) => Poll::Ready(Err(failure)),
                Taken::Pending => {
                    set(&mut inner.waiting(self.key).receiver, cx.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// What there is to take now. Whoever waits for more is attached.
    pub fn take(&mut self) -> Taken {
        let mut inner = self.multiplex.inner.borrow_mut();
        let taken = inner.engine.take(self.key);
        if matches!(taken, Taken::Piece(_)) {
            // The peer is told that there is room.
            inner.wake_driver();
        }
        taken
    }

    /// From here on `turn` is called when something happens to the stream, in either direction, and no task is woken.
    pub fn attach(&self, turn: Rc<dyn Turn>) {
        let mut inner = self.multiplex.inner.borrow_mut();
        inner.waiting(self.key).attached = Some(turn);
    }

    /// Tasks are woken again.
    pub fn detach(&self) {
        let mut inner = self.multiplex.inner.borrow_mut();
        inner.waiting(self.key).attached = None;
    }

    /// Whether everything has been taken.
    pub fn is_drained(&self) -> bool {
        self.multiplex.inner.borrow().engine.is_drained(self.key)
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        let mut inner = self.multiplex.inner.borrow_mut();
        if let Some(waiting) = inner.waiting.get_mut(self.key.slot()) {
            waiting.attached = None;
        }
        inner.engine.drop_receiver(self.key);
        inner.wake_driver();
    }
}

impl StreamSender {
    pub(super) fn new(multiplex: Rc<Multiplex>, key: Key) -> Self {
        Self { multiplex, key }
    }

    /// Sends a response's head; `end` says that nothing follows it.
    pub fn respond(&mut self, head: &ResponseHead, end: bool) -> Result<(), Failure> {
        let mut inner = self.multiplex.inner.borrow_mut();
        inner.engine.respond(self.key, head, end)?;
        inner.wake_driver();
        Ok(())
    }

    /// Hands data on as the peer's window allows it (RFC 9113 5.2).
    pub async fn data(&mut self, mut data: Bytes) -> Result<(), Failure> {
        poll_fn(|cx| {
            let mut inner = self.multiplex.inner.borrow_mut();
            inner.engine.send_data(self.key, &mut data)?;
            inner.wake_driver();
            if data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            set(&mut inner.waiting(self.key).sender, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Hands on as much of `data` as the peer's window allows now; who is attached has a turn when more may go.
    pub fn send(&mut self, data: &mut Bytes) -> Result<(), Failure> {
        let mut inner = self.multiplex.inner.borrow_mut();
        inner.engine.send_data(self.key, data)?;
        inner.wake_driver();
        Ok(())
    }

    /// Whether nothing that is sent would arrive.
    pub fn is_gone(&self) -> bool {
        self.multiplex
            .inner
            .borrow()
            .engine
            .failure(self.key)
            .is_some()
    }

    /// Ends our side, with trailers if there are any.
    pub fn finish(&mut self, trailers: &Fields) -> Result<(), Failure> {
        let mut inner = self.multiplex.inner.borrow_mut();
        if trailers.is_empty() {
            inner.engine.send_end(self.key)?;
        } else {
            inner.engine.send_trailers(self.key, trailers)?;
        }
        inner.wake_driver();
        Ok(())
    }

    /// Ends the stream before its time.
    pub fn reset(&mut self, code: ErrorCode) {
        let mut inner = self.multiplex.inner.borrow_mut();
        inner.engine.reset(self.key, code);
        inner.notify();
        inner.wake_driver();
    }

    /// Returns once nothing that is sent would arrive.
    pub async fn gone(&mut self) {
        poll_fn(|cx| {
            let mut inner = self.multiplex.inner.borrow_mut();
            if inner.engine.failure(self.key).is_some() {
                return Poll::Ready(());
            }
            set(&mut inner.waiting(self.key).sender, cx.waker());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        let mut inner = self.multiplex.inner.borrow_mut();
        inner.engine.drop_sender(self.key);
        inner.wake_driver();
    }
}
