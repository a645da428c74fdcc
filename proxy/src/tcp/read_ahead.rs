//! A connection of which more was read than was asked for: its first bytes, to see what it is, and what
//! came with what somebody asked for in small reads. TLS reads four kilobytes at a time, which costs four
//! calls for a full record and one for each small record that could have come with the others.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::poll_write_slices;

/// Room offered to one read of the socket; what a connection holds at most that was read and not asked
/// for yet, besides what it began with.
const READ_MAX: usize = 64 * 1024;

thread_local! {
    /// Needed only during a read, so all connections of a worker share it, and an idle one has none.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection of which more is read than is asked for.
#[derive(Debug)]
pub struct ReadAhead<S> {
    ahead: BytesMut,
    stream: S,
}

impl<S> ReadAhead<S> {
    /// `peeked` was read of it before.
    pub fn new(stream: S, peeked: BytesMut) -> Self {
        Self {
            ahead: peeked,
            stream,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { ahead, stream } = self.get_mut();
        if ahead.is_empty() && buf.remaining() >= READ_MAX {
            return Pin::new(stream).poll_read(cx, buf);
        }
        if ahead.is_empty() {
            return SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(READ_MAX, 0);
                let mut read = ReadBuf::new(scratch);
                ready!(Pin::new(stream).poll_read(cx, &mut read))?;
                let (now, later) = read
                    .filled()
                    .split_at(buf.remaining().min(read.filled().len()));
                buf.put_slice(now);
                ahead.extend_from_slice(later);
                Poll::Ready(Ok(()))
            });
        }
        let count = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..count]);
        ahead.advance(count);
        if ahead.is_empty() {
            *ahead = BytesMut::new();
        }
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
