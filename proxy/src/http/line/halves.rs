//! The two halves of a request on a connection of HTTP/1, and of one that is sent to a server.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use super::super::sink::begin_answer;
use super::super::{BodyError, Piece, Unanswered};
use super::{Line, Waiting};
use crate::http1::{
    BodyDecoder, BodyEncoder, BodyLength, Decoded, receive_response, write_response,
};
use crate::model::{Fault, Fields, RequestHead, ResponseHead};
use crate::multiplex::Turn;
use crate::tcp::StreamError;

/// What comes in: the rest of a request, or an answer.
#[derive(Debug)]
pub struct LineReceiver {
    line: Rc<Line>,
}

impl LineReceiver {
    pub(super) fn new(line: Rc<Line>) -> Self {
        Self { line }
    }

    /// The next head of the answer to a request of this method, if it has come; `begun` says that one came before.
    pub fn take_head(
        &mut self,
        method: &Method,
        begun: &mut bool,
    ) -> Poll<Result<ResponseHead, Unanswered>> {
        let inner = &mut *self.line.0.borrow_mut();
        let Some(reader) = &mut inner.reader else {
            return Poll::Ready(Err(Unanswered::late(Fault::UpstreamReset)));
        };
        match receive_response(&mut reader.buffer, method, &inner.limits) {
            Ok(Some(received)) => {
                *begun = true;
                inner.keep_alive &= received.keep_alive;
                let status = received.head.status;
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    // Nobody asked for it (RFC 9110 15.2.2), so what follows could not be framed.
                    return Poll::Ready(Err(Unanswered::late(Fault::UpstreamProtocol)));
                }
                if !status.is_informational() {
                    inner.decoder = BodyDecoder::new(received.body);
                }
                Poll::Ready(Ok(received.head))
            }
            Err(_) => Poll::Ready(Err(Unanswered::late(Fault::UpstreamProtocol))),
            Ok(None) if !inner.has_ended => {
                inner.taken(true);
                Poll::Pending
            }
            Ok(None) => {
                let silent = !*begun && reader.buffer.is_empty();
                Poll::Ready(Err(Unanswered::ended(silent, silent && inner.is_reset)))
            }
        }
    }

    /// What there is to take now.
    pub fn take(&mut self) -> Option<Result<Piece, BodyError>> {
        let inner = &mut *self.line.0.borrow_mut();
        if inner.decoder.is_done() {
            return Some(Ok(Piece::End(Fields::new())));
        }
        let Some(reader) = &mut inner.reader else {
            return Some(Err(BodyError::Truncated));
        };
        let decoded = match inner.decoder.decode(&mut reader.buffer, &inner.limits) {
            Err(refusal) => return Some(Err(refusal.into())),
            Ok(decoded) => decoded,
        };
        inner.taken(decoded.is_none());
        if inner.has_ended && inner.may_ask() {
            inner.wake_task();
        }
        match decoded {
            Some(Decoded::Data(data)) => Some(Ok(Piece::Data(data))),
            Some(Decoded::End(trailers)) => Some(Ok(Piece::End(trailers))),
            // RFC 9112 8: only an orderly end is one.
            None if inner.has_ended && !inner.is_broken && inner.decoder.ends_with_connection() => {
                Some(Ok(Piece::End(Fields::new())))
            }
            None if inner.has_ended || inner.is_gone => Some(Err(BodyError::Truncated)),
            None => None,
        }
    }

    /// As [`take`](Self::take), for a task.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        match self.take() {
            Some(taken) => Poll::Ready(taken),
            None => {
                self.line.wait(cx);
                Poll::Pending
            }
        }
    }

    pub fn is_done(&self) -> bool {
        self.line.0.borrow().decoder.is_done()
    }

    /// From here on `turn` is called when something happened, in either direction.
    pub fn attach(&self, turn: Rc<dyn Turn>) {
        self.line.0.borrow_mut().waiting = Waiting::Attached(turn);
    }

    pub fn detach(&self) {
        self.line.0.borrow_mut().waiting = Waiting::Nobody;
    }
}

impl Drop for LineReceiver {
    fn drop(&mut self) {
        self.line.0.borrow_mut().release();
    }
}

/// Where the answer goes, or the request. If it is dropped before that is whole, the connection ends.
#[derive(Debug)]
pub struct LineSender {
    line: Rc<Line>,
    method: Method,
    version: Version,
    /// Once the request, or the final answer, has begun.
    encoder: Option<BodyEncoder>,
    /// How much of the piece that was begun is still to be written, and what comes after it.
    left: usize,
    after: &'static [u8],
    is_done: bool,
}

impl LineSender {
    /// `encoder` is there for a request, whose head was written already.
    pub(super) fn new(line: Rc<Line>, head: &RequestHead, encoder: Option<BodyEncoder>) -> Self {
        Self {
            line,
            method: head.method.clone(),
            version: head.version,
            encoder,
            left: 0,
            after: b"",
            is_done: false,
        }
    }

    /// Passes a 1xx on. HTTP/1.0 knows none (RFC 9110 15.2).
    pub fn informational(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        if self.version == Version::HTTP_10 {
            return Ok(());
        }
        let mut inner = self.line.0.borrow_mut();
        let buffer = &mut inner.open()?.buffer;
        write_response(
            buffer,
            head,
            &self.method,
            self.version,
            BodyLength::None,
            false,
        );
        inner.flush()
    }

    /// Begins the final answer; `empty` says that no body follows.
    pub fn respond(&mut self, head: ResponseHead, empty: bool) -> Result<(), StreamError> {
        let mut inner = self.line.0.borrow_mut();
        let mut keep_alive = inner.keep_alive;
        let writer = inner.open()?;
        writer.make_room();
        let asked = (&self.method, self.version);
        self.encoder = Some(begin_answer(writer, head, empty, asked, &mut keep_alive));
        inner.keep_alive = keep_alive;
        inner.may_ask = false;
        Ok(())
    }

    /// Hands on as much of `data` as there is room for.
    pub fn send(&mut self, data: &mut Bytes) -> Result<(), StreamError> {
        let inner = &mut *self.line.0.borrow_mut();
        let writer = inner.open()?;
        if self.left == 0 {
            let framed = self.encoder.as_ref();
            let framed = framed.and_then(|encoder| encoder.frame(&mut writer.buffer, data.len()));
            let Some(after) = framed else {
                data.clear();
                return Ok(());
            };
            (self.left, self.after) = (data.len(), after);
        }
        let written = writer.try_write(data);
        self.left = data.len();
        if data.is_empty() {
            writer.buffer.extend_from_slice(self.after);
        }
        inner.written(written.map(|()| data.is_empty()))
    }

    /// Sends what has gathered; to be called before waiting for more.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        self.line.0.borrow_mut().flush()
    }

    /// Ends what is sent.
    pub fn finish(&mut self, trailers: &Fields) -> Result<(), StreamError> {
        let mut inner = self.line.0.borrow_mut();
        let writer = inner.open()?;
        if let Some(encoder) = &self.encoder {
            encoder.finish(&mut writer.buffer, Some(trailers));
        }
        writer.within_message = false;
        self.is_done = true;
        inner.flush_whole()
    }

    /// Ends the connection so that the other side knows that what was sent is not whole.
    pub fn reset(&mut self) {
        let mut inner = self.line.0.borrow_mut();
        inner.keep_alive = false;
        if let Some(writer) = &mut inner.writer {
            writer.reset();
        }
    }

    /// The connection ends after this answer.
    pub fn close_after(&mut self) {
        self.line.close_after();
    }

    /// Whether nothing that is sent would arrive.
    pub fn is_gone(&self) -> bool {
        self.line.0.borrow().is_gone
    }

    /// A task is told when something happened.
    pub fn wait(&self, cx: &mut Context<'_>) {
        self.line.wait(cx);
    }
}

impl Drop for LineSender {
    fn drop(&mut self) {
        let mut inner = self.line.0.borrow_mut();
        if !self.is_done {
            inner.keep_alive = false;
        }
        inner.release();
    }
}
