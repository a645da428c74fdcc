//! The halves of a stream.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::http2::{ErrorCode, Failure, Piece};
use crate::model::Fields;
use crate::multiplex::{StreamReceiver, StreamSender};

/// Room offered to one read. Grown to [`READ_MAX`] once reads fill it, so that idle and small
/// connections stay small and bulk costs few calls.
const READ_MIN: usize = 8 * 1024;
/// See [`READ_MIN`].
const READ_MAX: usize = 128 * 1024;
/// Room is made for a read when less than this share of it is left.
const ROOM_SHARE: usize = 8;
/// Pieces up to this size are gathered in the writer's buffer; larger ones are written beside it.
const GATHER_MAX: usize = 4 * 1024;
/// Slices of one vectored write.
const SLICES_MAX: usize = 32;
/// What a writer gathers before it writes on its own.
const BUFFER_MAX: usize = 32 * 1024;

/// The reading half of a TCP connection with what was read and not yet taken.
#[derive(Debug)]
pub struct Reader {
    io: OwnedReadHalf,
    pub buffer: BytesMut,
    next_read: usize,
}

/// The writing half of a TCP connection with what was written and not yet sent.
#[derive(Debug)]
pub struct Writer {
    io: OwnedWriteHalf,
    pub buffer: BytesMut,
    /// A message was begun and not ended, so nothing else can be sent on this connection.
    pub within_message: bool,
}

/// Splits a connection; `buffer` holds bytes that were read before.
pub fn split(stream: TcpStream, buffer: BytesMut) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    (
        Reader {
            io: read,
            buffer,
            next_read: READ_MIN,
        },
        Writer {
            io: write,
            buffer: BytesMut::new(),
            within_message: false,
        },
    )
}

impl Reader {
    /// Reads once; 0 is the end. Nothing is allocated while there is nothing to read. Cancel-safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.io.readable().await?;
        // What is left of the room is used up first: the slices of a head that is still in hand keep
        // it from being used again, and new room for each read would cost more than the read.
        if self.buffer.capacity() - self.buffer.len() < self.next_read / ROOM_SHARE {
            self.buffer.reserve(self.next_read);
        }
        // A read that doesn't fill the room clears the readiness, so that the next wait costs no call.
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.io.read_buf(&mut self.buffer).await?;
        let full = read >= room;
        self.next_read = if full {
            READ_MAX.min(self.next_read * 2)
        } else {
            self.next_read.max(READ_MIN)
        };
        Ok(read)
    }

    /// Gives the buffer's memory back while the connection is idle.
    pub fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.next_read = READ_MIN;
        }
    }

    /// Whether the peer has closed, or sent what nobody asked for; asked of a pooled connection
    /// before it is used. Makes no call that blocks.
    pub fn is_stale(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let mut probe = [0u8; 1];
        !matches!(self.io.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.io.as_ref()
    }

    /// Puts the two halves together again.
    pub fn reunite(self, writer: Writer) -> Option<(TcpStream, BytesMut)> {
        let stream = self.io.reunite(writer.io).ok()?;
        Some((stream, self.buffer))
    }
}

impl Writer {
    /// Adds to what is to be sent, and sends when enough has gathered.
    pub async fn write(&mut self, data: Bytes) -> io::Result<()> {
        if data.len() <= GATHER_MAX {
            self.buffer.extend_from_slice(&data);
            return if self.buffer.len() >= BUFFER_MAX {
                self.flush().await
            } else {
                Ok(())
            };
        }
        if self.buffer.is_empty() {
            return self.io.write_all(&data).await;
        }
        let mut both = std::mem::take(&mut self.buffer).chain(data);
        self.io.write_all_buf(&mut both).await
    }

    /// Sends what has gathered, and all of these.
    async fn write_all(&mut self, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
        self.flush().await?;
        while !pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = slices.len().min(pieces.len());
            for (slice, piece) in slices.iter_mut().zip(&*pieces) {
                *slice = IoSlice::new(piece);
            }
            let mut written = self.io.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(piece) = pieces.front_mut() {
                let sent = written.min(piece.len());
                piece.advance(sent);
                written -= sent;
                if !piece.is_empty() {
                    break;
                }
                pieces.pop_front();
            }
        }
        Ok(())
    }

    /// Sends what has gathered.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.io.write_all_buf(&mut self.buffer).await?;
        }
        if self.buffer.capacity() > 2 * BUFFER_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.io.as_ref()
    }

    /// Sends what has gathered, then the end of this direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.io.shutdown().await
    }

    /// Makes the connection end with a reset once it is dropped.
    pub fn reset(&mut self) {
        // Refused only when the socket is gone already, and then there is nothing left to reset.
        let _ = self.io.as_ref().set_zero_linger();
    }
}

/// Why a stream ended other than by its regular end.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http2(#[from] Failure),
}

/// Where opaque bytes come from.
pub enum Receiver<'a> {
    Tcp(&'a mut Reader),
    /// A stream, and what was read of it before.
    Http2(&'a mut StreamReceiver, Option<Bytes>),
}

/// Where opaque bytes go.
pub enum Sender<'a> {
    Tcp(&'a mut Writer),
    Http2(&'a mut StreamSender),
}

impl Receiver<'_> {
    /// The next bytes, or nothing at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        match self {
            Receiver::Tcp(reader) => {
                if reader.buffer.is_empty() && reader.fill().await? == 0 {
                    return Ok(None);
                }
                Ok(Some(reader.buffer.split().freeze()))
            }
            Receiver::Http2(_, early) if early.is_some() => Ok(early.take()),
            Receiver::Http2(stream, _) => loop {
                match stream.next().await? {
                    None => return Ok(None),
                    Some(Piece::Data(data)) => return Ok(Some(data)),
                    // Trailers of a tunnel mean nothing to opaque bytes.
                    Some(Piece::Head(_) | Piece::Trailers(_)) => {}
                }
            },
        }
    }
}

impl Sender<'_> {
    /// Hands bytes on; returns once the carrier took them, and leaves none.
    pub async fn send(&mut self, pieces: &mut VecDeque<Bytes>) -> Result<(), StreamError> {
        match self {
            Sender::Tcp(writer) => Ok(writer.write_all(pieces).await?),
            Sender::Http2(stream) => {
                for piece in pieces.drain(..) {
                    stream.data(piece).await?;
                }
                Ok(())
            }
        }
    }

    /// Ends this direction.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        match self {
            Sender::Tcp(writer) => Ok(writer.shutdown().await?),
            Sender::Http2(stream) => Ok(stream.finish(&Fields::new())?),
        }
    }

    /// Ends the stream abruptly.
    pub fn reset(&mut self) {
        match self {
            Sender::Tcp(writer) => writer.reset(),
            Sender::Http2(stream) => stream.reset(ErrorCode::CONNECT_ERROR),
        }
    }
}
