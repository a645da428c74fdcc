//! A connection of which more was read than was asked for: its first bytes, to see what it is, and what
//! came with what somebody asked for in small reads. TLS reads four kilobytes at a time, which costs four
//! calls for a full record and one for each small record that could have come with the others.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::io::poll_write_slices;

/// Room offered to one read of the socket; what a connection holds at most that was read and not asked
/// for yet, besides what it began with.
const READ_MAX: usize = 64 * 1024;
/// As much as this keeps the room that it was read into; less is moved to memory of its own.
const STAYS: usize = READ_MAX / 4;

thread_local! {
    /// Room for a read, where nothing has stayed in it. Mostly all that is read is asked for at once, so the
    /// connections of a worker share one, and an idle one has none.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection of which more is read than is asked for.
#[derive(Debug)]
pub struct ReadAhead<S> {
    ahead: Vec<u8>,
    /// How much of it was asked for.
    taken: usize,
    stream: S,
}

impl<S> ReadAhead<S> {
    /// `peeked` was read of it before.
    pub fn new(stream: S, peeked: BytesMut) -> Self {
        Self {
            ahead: peeked.into(),
            taken: 0,
            stream,
        }
    }

    /// Hands on what there is.
    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let left = &self.ahead[self.taken..];
        let count = left.len().min(buf.remaining());
        buf.put_slice(&left[..count]);
        self.taken += count;
        if self.taken == self.ahead.len() {
            self.taken = 0;
            give_back(std::mem::take(&mut self.ahead));
        }
    }

    /// Little that was not asked for leaves the room that it was read into.
    fn settle(&mut self) {
        let left = &self.ahead[self.taken..];
        if !left.is_empty() && left.len() < STAYS {
            let left = left.to_vec();
            self.taken = 0;
            give_back(std::mem::replace(&mut self.ahead, left));
        }
    }
}

/// Keeps a room for the next read, if it is one.
fn give_back(mut room: Vec<u8>) {
    if room.capacity() >= READ_MAX {
        room.clear();
        ROOM.set(room);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if buf.remaining() >= READ_MAX {
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            let mut room = ROOM.take();
            room.reserve(READ_MAX);
            let mut limited = (&mut room).limit(READ_MAX);
            let read = pin!(this.stream.read_buf(&mut limited)).poll(cx);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                give_back(room);
                return read.map_ok(|_| ());
            }
            this.ahead = room;
            this.take(buf);
            this.settle();
            return Poll::Ready(Ok(()));
        }
        this.take(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_slices(Pin::new(&mut self.stream), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_what_was_sent() {
        let sent: Vec<u8> = (0..200_000).map(|at: usize| (at % 251) as u8).collect();
        for room in [1, 5, 4096, 100_000] {
            let (mut ours, theirs) = tokio::io::duplex(300_000);
            ours.write_all(&sent[3..]).await.unwrap();
            drop(ours);
            let mut reader = ReadAhead::new(theirs, BytesMut::from(&sent[..3]));
            let (mut seen, mut piece) = (Vec::new(), vec![0; room]);
            loop {
                let read = reader.read(&mut piece).await.unwrap();
                if read == 0 {
                    break;
                }
                seen.extend_from_slice(&piece[..read]);
                assert!(reader.ahead.len() <= READ_MAX);
            }
            assert!(seen == sent, "{} bytes in steps of {room}", seen.len());
        }
    }
}
