//! The halves of a stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::io::{ReadIo, TlsStream, WriteIo};
use crate::http2::{ErrorCode, Failure, Piece, RECORD_PAYLOAD};
use crate::model::Fields;
use crate::multiplex::{StreamReceiver, StreamSender};

/// Room of the buffer that all connections of a thread share for a read: what it brings is kept in as
/// much memory as it is long, so that idle and small connections stay small.
const SHARED_READ: usize = 64 * 1024;
/// A connection whose reads fill it reads this much into room of its own; bulk costs few calls and is not copied. On the
/// hop it is a number of whole frames, so that no rest needs a record and a call of its own.
pub(super) const DIRECT_READ: usize = 8 * RECORD_PAYLOAD;
/// Room is made for such a read when less than this share of it is left.
const ROOM_SHARE: usize = 8;
/// Pieces up to this size are gathered in the writer's buffer; larger ones are written beside it.
const GATHER_MAX: usize = 4 * 1024;
/// Slices of one vectored write.
const SLICES_MAX: usize = 32;
/// What a writer gathers before it writes on its own.
const BUFFER_MAX: usize = 32 * 1024;

/// The reading half of a connection with what was read and not yet taken.
#[derive(Debug)]
pub struct Reader {
    io: ReadIo,
    pub buffer: BytesMut,
    /// Reads fill the shared room, so they go into room of their own.
    is_direct: bool,
}

/// The writing half of a connection with what was written and not yet sent.
#[derive(Debug)]
pub struct Writer {
    io: WriteIo,
    pub buffer: BytesMut,
    /// A message was begun and not ended, so nothing else can be sent on this connection.
    pub within_message: bool,
}

/// Splits a connection; `buffer` holds bytes that were read before.
pub fn split(stream: TcpStream, buffer: BytesMut) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    halves(ReadIo::Tcp(read), WriteIo::Tcp(write), buffer)
}

/// Splits a TLS connection.
pub fn split_tls(stream: Box<TlsStream>) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    halves(ReadIo::Tls(read), WriteIo::Tls(write), BytesMut::new())
}

fn halves(read: ReadIo, write: WriteIo, buffer: BytesMut) -> (Reader, Writer) {
    (
        Reader {
            io: read,
            buffer,
            is_direct: false,
        },
        Writer {
            io: write,
            buffer: BytesMut::new(),
            within_message: false,
        },
    )
}

/// Rooms of resting writers that a thread keeps for the next messages.
const ROOMS_MAX: usize = 32;
/// A larger room is given back, so that those that are kept are 256 KiB at most.
const ROOM_MAX: usize = 8 * 1024;
/// A room that is made for a message: nearly every head fits.
const ROOM: usize = 512;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ROOMS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Reads once into the shared buffer. A read that doesn't fill it clears the readiness, so that the
/// next wait costs no call.
fn poll_shared<T>(
    io: &mut ReadIo,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    SHARED.with_borrow_mut(|shared| {
        shared.resize(SHARED_READ, 0);
        let mut read = ReadBuf::new(shared);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(take(read.filled())))
    })
}

impl Reader {
    /// Reads once; 0 is the end. Cancel-safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// As [`fill`](Self::fill).
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self {
            io,
            buffer,
            is_direct,
        } = self;
        if !*is_direct {
            let keep = |bytes: &[u8]| {
                buffer.extend_from_slice(bytes);
                bytes.len()
            };
            let read = ready!(poll_shared(io, cx, keep))?;
            *is_direct = read == SHARED_READ;
            return Poll::Ready(Ok(read));
        }
        // What is left of the room is used up first.
        if buffer.capacity() - buffer.len() < DIRECT_READ / ROOM_SHARE {
            buffer.reserve(DIRECT_READ);
        }
        let room = DIRECT_READ.min(buffer.capacity() - buffer.len());
        let read = ready!(pin!(io.read_buf(&mut buffer.limit(room))).poll(cx))?;
        *is_direct = read >= room.min(SHARED_READ);
        Poll::Ready(Ok(read))
    }

    /// Reads once into the buffer that all connections share, and hands over what there is; 0 is the
    /// end.
    pub(super) async fn pass<T>(&mut self, mut to: impl FnMut(&[u8]) -> T) -> io::Result<T> {
        poll_fn(|cx| poll_shared(&mut self.io, cx, &mut to)).await
    }

    /// Gives the buffer's memory back while the connection is idle.
    pub fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.is_direct = false;
        }
    }

    /// Whether the peer has closed, or sent what nobody asked for; asked of a pooled connection
    /// before it is used. Makes no call that blocks.
    pub fn is_stale(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let mut probe = [0u8; 1];
        match &mut self.io {
            ReadIo::Tcp(io) => {
                !matches!(io.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // What TLS says to itself (a new session) is read, and nothing else is there.
            ReadIo::Tls(io) => io.read(&mut probe).now_or_never().is_some(),
        }
    }

    /// Whether the peer's kernel has reset the connection, after an end that was read before.
    pub fn is_reset(&self) -> bool {
        let error = self.socket().map(TcpStream::take_error);
        matches!(error, Some(Ok(Some(_))))
    }

    /// Sends the peer something short that it takes no notice of, and returns once its kernel says that nobody is
    /// there any more; not at all otherwise. Nobody else may be sending in the middle of something.
    pub async fn challenge(&self, question: &[u8]) {
        if let Some(socket) = self.socket() {
            match socket.try_write(question) {
                Ok(written) if written < question.len() => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
            if socket.ready(Interest::ERROR).await.is_ok() {
                return;
            }
        }
        pending().await
    }

    /// The socket, where nothing lies between it and the bytes.
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        match &self.io {
            ReadIo::Tcp(io) => Some(io.as_ref()),
            ReadIo::Tls(_) => None,
        }
    }

    /// Puts the two halves of a TCP connection together again.
    pub fn reunite(self, writer: Writer) -> Option<(TcpStream, BytesMut)> {
        match (self.io, writer.io) {
            (ReadIo::Tcp(read), WriteIo::Tcp(write)) => {
                Some((read.reunite(write).ok()?, self.buffer))
            }
            _ => None,
        }
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
            self.io.write_all(&data).await?;
        } else {
            let mut both = std::mem::take(&mut self.buffer).chain(data);
            self.io.write_all_buf(&mut both).await?;
        }
        self.push().await
    }

    /// Sends what TLS holds back; a socket holds back nothing.
    async fn push(&mut self) -> io::Result<()> {
        match &mut self.io {
            WriteIo::Tcp(_) => Ok(()),
            WriteIo::Tls(io) => io.flush().await,
        }
    }

    /// Sends what has gathered, and all of these.
    async fn write_all(&mut self, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
        self.flush().await?;
        while !pieces.is_empty() {
            // The slices are made anew for each try, so that nobody who waits carries room for them.
            let mut written = poll_fn(|cx| {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = slices.len().min(pieces.len());
                for (slice, piece) in slices.iter_mut().zip(&*pieces) {
                    *slice = IoSlice::new(piece);
                }
                Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count])
            })
            .await?;
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
        self.push().await
    }

    /// Sends what has gathered.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.io.write_all_buf(&mut self.buffer).await?;
            self.push().await?;
        }
        if self.buffer.capacity() > 2 * BUFFER_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// As [`write`](Self::write), as far as it can be done without waiting: what is left of `data` is to be written once
    /// [`poll_room`](Self::poll_room) says so.
    pub fn try_write(&mut self, data: &mut Bytes) -> io::Result<()> {
        let is_gathered = data.len() <= GATHER_MAX || self.socket().is_none();
        if is_gathered && self.buffer.len() < BUFFER_MAX {
            self.buffer.extend_from_slice(data);
            data.clear();
            if self.buffer.len() >= BUFFER_MAX {
                self.try_flush()?;
            }
            return Ok(());
        }
        while !data.is_empty() {
            let Some(sent) = self.send_now(data)? else {
                return Ok(());
            };
            let gathered = sent.min(self.buffer.len());
            self.sent(gathered);
            data.advance(sent - gathered);
        }
        Ok(())
    }

    /// Sends what has gathered, as far as it can be done without waiting; whether that is all.
    pub fn try_flush(&mut self) -> io::Result<bool> {
        self.flush_by(|writer| writer.send_now(&[]))
    }

    /// As [`try_flush`](Self::try_flush), where the end of this direction follows at once: the kernel keeps the last
    /// bytes for it, so that both are one segment. Were there no end, they would go after 200 ms (send(2), MSG_MORE).
    pub fn try_flush_before_end(&mut self) -> io::Result<bool> {
        self.flush_by(|writer| {
            let Some(socket) = writer.socket() else {
                return Ok(None);
            };
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            let keep = || Ok(send(socket, &writer.buffer, flags)?);
            unless_full(socket.try_io(Interest::WRITABLE, keep))
        })
    }

    fn flush_by(
        &mut self,
        send_once: impl Fn(&Self) -> io::Result<Option<usize>>,
    ) -> io::Result<bool> {
        while !self.buffer.is_empty() {
            let Some(sent) = send_once(self)? else {
                return Ok(false);
            };
            self.sent(sent);
        }
        Ok(true)
    }

    /// Writes once what has gathered and `more`, if the socket has room. What lies between us and a socket may always
    /// have to be waited for.
    fn send_now(&self, more: &[u8]) -> io::Result<Option<usize>> {
        let Some(socket) = self.socket() else {
            return Ok(None);
        };
        // The kernel takes a vectored write of one slice for a dearer write.
        let sent = match (&*self.buffer, more) {
            (gathered, []) => socket.try_write(gathered),
            ([], more) => socket.try_write(more),
            (gathered, more) => {
                socket.try_write_vectored(&[IoSlice::new(gathered), IoSlice::new(more)])
            }
        };
        unless_full(sent)
    }

    /// Sends what has gathered; ready once that is done and there is room for more.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(sent);
        }
        match &mut self.io {
            WriteIo::Tcp(io) => io.as_ref().poll_write_ready(cx),
            WriteIo::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    /// The first so many bytes of the buffer were sent. What is left moves to the front, so that the buffer keeps all of
    /// its room.
    fn sent(&mut self, count: usize) {
        let left = self.buffer.len() - count;
        self.buffer.copy_within(count.., 0);
        self.buffer.truncate(left);
    }

    /// As [`Reader::socket`].
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        match &self.io {
            WriteIo::Tcp(io) => Some(io.as_ref()),
            WriteIo::Tls(_) => None,
        }
    }

    /// Sends what has gathered, then the end of this direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        if !self.try_flush_before_end()? {
            self.flush().await?;
        }
        self.io.shutdown().await
    }

    /// Gets room for a message, after [`shrink`](Self::shrink).
    pub fn make_room(&mut self) {
        if self.buffer.capacity() == 0 {
            let kept = ROOMS.with_borrow_mut(Vec::pop);
            self.buffer = kept.unwrap_or_else(|| BytesMut::with_capacity(ROOM));
        }
    }

    /// Gives the buffer's memory back while the connection is idle.
    pub fn shrink(&mut self) {
        if !self.buffer.is_empty() {
            return;
        }
        let room = std::mem::take(&mut self.buffer);
        if (ROOM..=ROOM_MAX).contains(&room.capacity()) {
            ROOMS.with_borrow_mut(|rooms| {
                if rooms.len() < ROOMS_MAX {
                    rooms.push(room);
                }
            });
        }
    }

    /// Makes the connection end with a reset once it is dropped. In TLS an end that was not announced says
    /// the same (RFC 8446 6.1).
    pub fn reset(&mut self) {
        if let Some(socket) = self.socket() {
            // Refused only when the socket is gone already, and then there is nothing left to reset.
            let _ = socket.set_zero_linger();
        }
    }
}

/// What was sent; nothing where the socket has no room.
fn unless_full(sent: io::Result<usize>) -> io::Result<Option<usize>> {
    match sent {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(sent) => Ok(Some(sent)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
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
                let read = reader.buffer.split().freeze();
                if !reader.is_direct {
                    // What is left of the room would be held for as long as nothing comes.
                    reader.buffer = BytesMut::new();
                }
                Ok(Some(read))
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_writers_room_is_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap());
        let (_reader, mut writer) = split(connected.await.unwrap(), BytesMut::new());
        // What is written and sent, and whether its room is kept for the next message.
        let mut check = |length: usize, is_kept: bool| {
            writer.make_room();
            writer.buffer.extend_from_slice(&vec![7; length]);
            writer.shrink();
            assert_eq!(writer.buffer.len(), length, "it is not sent yet");
            writer.sent(length / 3);
            writer.sent(length - length / 3);
            let (room, size) = (writer.buffer.as_ptr(), writer.buffer.capacity());
            writer.shrink();
            assert_eq!(writer.buffer.capacity(), 0);
            writer.make_room();
            let is_same = (writer.buffer.as_ptr(), writer.buffer.capacity()) == (room, size);
            assert_eq!(is_same, is_kept, "{length}");
        };
        check(100, true);
        check(ROOM_MAX, true);
        check(ROOM_MAX + 1, false);
    }
}
