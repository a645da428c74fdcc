//! Bodies as they come in.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::BodyCopy;
use super::line::LineReceiver;
use crate::http1::{self, BodyDecoder, Decoded, Refusal};
use crate::http2::{self, Taken};
use crate::model::Fields;
use crate::multiplex::{StreamReceiver, Turn};
use crate::tcp::{Reader, Receiver};

/// Bytes of a request body that are kept so that it can be sent a second time. Beyond, the request
/// is sent once only.
const REPLAY_MAX: usize = 64 * 1024;

/// A message body that is being received.
pub enum Body<'a> {
    Http1 {
        reader: &'a mut Reader,
        decoder: &'a mut BodyDecoder,
        limits: http1::Limits,
    },
    /// Of a client's connection of HTTP/1.
    Line {
        body: LineReceiver,
    },
    Http2 {
        stream: StreamReceiver,
    },
}

/// A step of a body.
#[derive(Clone, Debug)]
pub enum Piece {
    Data(Bytes),
    /// The end, with the trailer fields.
    End(Fields),
}

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the connection ended within a body")]
    Truncated,
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Http2(#[from] http2::Failure),
}

impl Body<'_> {
    /// The next piece. Cancel-safe.
    pub async fn next(&mut self) -> Result<Piece, BodyError> {
        match self {
            Body::Http1 {
                reader,
                decoder,
                limits,
            } => loop {
                match decoder.decode(&mut reader.buffer, limits)? {
                    Some(Decoded::Data(data)) => return Ok(Piece::Data(data)),
                    Some(Decoded::End(trailers)) => return Ok(Piece::End(trailers)),
                    None if reader.fill().await? > 0 => {}
                    None if decoder.ends_with_connection() => {
                        return Ok(Piece::End(Fields::new()));
                    }
                    None => return Err(BodyError::Truncated),
                }
            },
            Body::Line { body } => poll_fn(|cx| body.poll_next(cx)).await,
            Body::Http2 { stream } => loop {
                match stream.next().await? {
                    Some(http2::Piece::Data(data)) => return Ok(Piece::Data(data)),
                    Some(http2::Piece::Trailers(trailers)) => return Ok(Piece::End(trailers)),
                    None => return Ok(Piece::End(Fields::new())),
                    // The final head came before, and the engine lets none follow it.
                    Some(http2::Piece::Head(_)) => {}
                }
            },
        }
    }

    /// Whether nothing more comes, as far as is known without reading.
    pub fn is_done(&self) -> bool {
        match self {
            Body::Http1 { decoder, .. } => decoder.is_done(),
            Body::Line { body } => body.is_done(),
            Body::Http2 { stream } => stream.is_drained(),
        }
    }

    /// The bytes that follow, once the message is over and its connection speaks another protocol.
    /// None on a [`Line`](Body::Line), whose requests don't ask for that.
    pub fn tunnel(&mut self) -> Option<Receiver<'_>> {
        match self {
            Body::Http1 { reader, .. } => Some(Receiver::Tcp(reader)),
            Body::Line { .. } => None,
            Body::Http2 { stream } => Some(Receiver::Http2(stream, None)),
        }
    }
}

/// A request body that can be sent again as long as little of it has been read.
pub struct RequestBody<'a> {
    body: Body<'a>,
    /// Most bodies are a piece and an end.
    kept: SmallVec<[Piece; 2]>,
    kept_bytes: usize,
    position: usize,
    overflowed: bool,
    overflow: Option<Rc<Cell<bool>>>,
    copies: Vec<BodyCopy>,
    /// Bytes received so far.
    pub received: u64,
}

impl<'a> RequestBody<'a> {
    pub fn new(body: Body<'a>) -> Self {
        Self {
            body,
            kept: SmallVec::new(),
            kept_bytes: 0,
            position: 0,
            overflowed: false,
            overflow: None,
            copies: Vec::new(),
            received: 0,
        }
    }

    /// A copy of everything that is still to be received; to be made before anything is.
    pub fn copy(&mut self) -> BodyCopy {
        let copy = BodyCopy::new(self.is_empty());
        self.copies.push(copy.clone());
        copy
    }

    /// The next piece, the kept ones first. Cancel-safe: a piece that was read is kept before it is
    /// returned.
    pub async fn next(&mut self) -> Result<Piece, BodyError> {
        if let Some(piece) = self.kept.get(self.position) {
            self.position += 1;
            return Ok(piece.clone());
        }
        let piece = self.body.next().await?;
        self.keep(&piece);
        Ok(piece)
    }

    /// The next piece of what can be carried, if it has come.
    pub(super) fn take(&mut self) -> Option<Result<Piece, BodyError>> {
        if let Some(piece) = self.kept.get(self.position) {
            self.position += 1;
            return Some(Ok(piece.clone()));
        }
        let piece = match &mut self.body {
            Body::Http1 { .. } => return None,
            Body::Line { body } => match body.take()? {
                Ok(piece) => piece,
                broken => return Some(broken),
            },
            Body::Http2 { stream } => match stream.take() {
                Taken::Piece(http2::Piece::Data(data)) => Piece::Data(data),
                Taken::Piece(http2::Piece::Trailers(trailers)) => Piece::End(trailers),
                Taken::End => Piece::End(Fields::new()),
                Taken::Failed(failure) => return Some(Err(failure.into())),
                // A request has one head, which came before.
                Taken::Pending | Taken::Piece(http2::Piece::Head(_)) => return None,
            },
        };
        self.keep(&piece);
        Some(Ok(piece))
    }

    /// As [`StreamReceiver::attach`], for what can be carried.
    pub(super) fn attach(&self, turn: Rc<dyn Turn>) {
        match &self.body {
            Body::Http1 { .. } => {}
            Body::Line { body } => body.attach(turn),
            Body::Http2 { stream } => stream.attach(turn),
        }
    }

    /// As [`StreamReceiver::detach`].
    pub(super) fn detach(&self) {
        match &self.body {
            Body::Http1 { .. } => {}
            Body::Line { body } => body.detach(),
            Body::Http2 { stream } => stream.detach(),
        }
    }

    /// Takes note of a piece that was received, and keeps it as long as there is room.
    fn keep(&mut self, piece: &Piece) {
        let size = match piece {
            Piece::Data(data) => data.len(),
            Piece::End(_) => 0,
        };
        self.received += size as u64;
        for copy in &self.copies {
            copy.push(piece);
        }
        self.kept_bytes += size;
        if self.kept_bytes > REPLAY_MAX {
            self.overflowed = true;
            self.overflow.iter().for_each(|flag| flag.set(true));
            self.kept = SmallVec::new();
            self.position = 0;
        } else if !self.overflowed {
            self.kept.push(piece.clone());
            self.position = self.kept.len();
        }
    }

    /// Becomes true once too much was read to begin anew; for whoever decides while the body is being sent.
    pub fn overflow(&mut self) -> Rc<Cell<bool>> {
        let now = self.overflowed;
        let flag = self.overflow.get_or_insert_with(|| Rc::new(Cell::new(now)));
        flag.clone()
    }

    /// Whether it can still be begun anew.
    pub(super) fn is_kept(&self) -> bool {
        !self.overflowed
    }

    /// Goes back to the beginning; false when that is no longer possible.
    pub fn rewind(&mut self) -> bool {
        self.position = 0;
        !self.overflowed
    }

    /// Whether it is known that there is no body.
    pub fn is_empty(&self) -> bool {
        self.received == 0 && self.body.is_done() && !self.kept.iter().any(carries)
    }

    /// Whether everything has been received.
    pub fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// See [`Body::tunnel`].
    pub fn tunnel(&mut self) -> Option<Receiver<'_>> {
        self.body.tunnel()
    }
}

impl Drop for RequestBody<'_> {
    fn drop(&mut self) {
        for copy in &self.copies {
            copy.break_off();
        }
    }
}

fn carries(piece: &Piece) -> bool {
    match piece {
        Piece::Data(data) => !data.is_empty(),
        Piece::End(trailers) => !trailers.is_empty(),
    }
}
