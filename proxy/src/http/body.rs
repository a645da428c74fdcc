//! Bodies as they come in.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use smallvec::SmallVec;

use super::BodyCopy;
use crate::http1::{self, BodyDecoder, Decoded, Refusal};
use crate::http2::{self, Taken};
use crate::model::Fields;
use crate::multiplex::{StreamReceiver, Turn};
use crate::tcp::{Reader, Receiver};

/// What may be read ahead of a client's next request while its answer is on the way.
const READ_AHEAD_MAX: usize = 64 * 1024;

/// How long after an HTTP/1 client has ended its direction it is asked whether it still waits. Most answers come
/// sooner.
const ASK_AFTER: Duration = Duration::from_millis(250);
/// What it is asked with: every client of HTTP/1.1 takes any number of them (RFC 9110 15.2), and the kernel of one
/// that has closed its connection answers with a reset.
const QUESTION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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
            Body::Http2 { stream } => stream.is_drained(),
        }
    }

    /// The bytes that follow, once the message is over and its connection speaks another protocol.
    pub fn tunnel(&mut self) -> Receiver<'_> {
        match self {
            Body::Http1 { reader, .. } => Receiver::Tcp(reader),
            Body::Http2 { stream } => Receiver::Http2(stream, None),
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
    version: Version,
    /// Bytes received so far.
    pub received: u64,
}

impl<'a> RequestBody<'a> {
    /// The body of a request that a client of `version` sends.
    pub fn new(body: Body<'a>, version: Version) -> Self {
        Self {
            body,
            version,
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

    /// The next piece of a body on a stream, if it has come.
    pub(super) fn take(&mut self) -> Option<Result<Piece, BodyError>> {
        if let Some(piece) = self.kept.get(self.position) {
            self.position += 1;
            return Some(Ok(piece.clone()));
        }
        let Body::Http2 { stream } = &mut self.body else {
            return None;
        };
        let piece = match stream.take() {
            Taken::Piece(http2::Piece::Data(data)) => Piece::Data(data),
            Taken::Piece(http2::Piece::Trailers(trailers)) => Piece::End(trailers),
            Taken::End => Piece::End(Fields::new()),
            Taken::Failed(failure) => return Some(Err(failure.into())),
            // A request has one head, which came before.
            Taken::Pending | Taken::Piece(http2::Piece::Head(_)) => return None,
        };
        self.keep(&piece);
        Some(Ok(piece))
    }

    /// As [`StreamReceiver::attach`], for a body on a stream.
    pub(super) fn attach(&self, turn: Rc<dyn Turn>) {
        if let Body::Http2 { stream } = &self.body {
            stream.attach(turn);
        }
    }

    /// As [`StreamReceiver::detach`].
    pub(super) fn detach(&self) {
        if let Body::Http2 { stream } = &self.body {
            stream.detach();
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

    /// Returns once the client, which has sent everything, is gone; HTTP/2 tells that where the answer goes.
    ///
    /// A client of HTTP/1 that ends its direction may have closed the connection, or wait for the answer all the
    /// same: TCP tells both in the same way. It is asked, as long as `answering` says that no answer has begun.
    /// HTTP/1.0 knows no such question, and waits (RFC 9110 15.2).
    pub async fn watch(&mut self, answering: &Cell<bool>) {
        let Body::Http1 { reader, .. } = &mut self.body else {
            return pending().await;
        };
        while reader.buffer.len() < READ_AHEAD_MAX {
            match reader.fill().await {
                Ok(0) if self.version == Version::HTTP_11 => {
                    // Boxed, as everything rare here, so that the usual request's state stays small.
                    return Box::pin(ask(reader, answering)).await;
                }
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        pending().await
    }

    /// See [`Body::tunnel`].
    pub fn tunnel(&mut self) -> Receiver<'_> {
        self.body.tunnel()
    }
}

/// Returns once a client that sends no more turns out to be gone.
async fn ask(reader: &Reader, answering: &Cell<bool>) {
    tokio::time::sleep(ASK_AFTER).await;
    if !answering.get() {
        return reader.challenge(QUESTION).await;
    }
    pending().await
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
