//! Between the engine and a socket.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use super::{Accepted, Inner, Multiplex, set, turn};
use crate::http2::{Ended, Incoming};

/// Room offered to a read, and after how much of one record after the other the engine takes them in.
const READ_MAX: usize = 64 * 1024;
/// Room below which another record is not read.
const ROOM_MIN: usize = 16 * 1024;
/// Reads of one turn; then others get theirs.
const READS_MAX: usize = 4;
/// Slices of one vectored write.
const SLICES_MAX: usize = 32;
/// How long a connection that is over waits until a peer that may not read has taken what is left; then how long,
/// and how much, is still read after the end was said, so that the peer gets to read why.
const LINGER: Duration = Duration::from_secs(1);
/// See [`LINGER`].
const LINGER_BYTES_MAX: usize = 256 * 1024;

thread_local! {
    /// The buffer that reads go into. It is needed only while bytes are being taken in, so all
    /// connections of a worker share it, and an idle connection has none.
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A socket with what stands between two turns.
struct Socket<'i, I> {
    io: &'i mut I,
    /// The beginning of a frame whose rest has not come yet.
    rest: BytesMut,
    needs_flush: bool,
    is_at_end: bool,
}

/// Ends every stream when the driver is dropped.
struct Guard<'m>(&'m Multiplex);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.borrow_mut();
        inner.engine.lost("the connection was closed");
        inner.notify();
        drop(inner);
        // Not here: this may be a panic's way out.
        if !turn::is_empty() {
            tokio::task::spawn_local(async { turn::run() });
        }
    }
}

impl Multiplex {
    /// Carries bytes until the connection is over. `accept` gets every request.
    pub async fn drive<I: AsyncRead + AsyncWrite + Unpin>(
        self: &Rc<Self>,
        io: &mut I,
        mut accept: impl FnMut(Accepted<'_>),
    ) -> Option<Ended> {
        let guard = Guard(self);
        let mut socket = Socket {
            io,
            rest: BytesMut::new(),
            needs_flush: false,
            is_at_end: false,
        };
        let carried = poll_fn(|cx| {
            let over = self.poll_turn(cx, &mut socket, &mut accept);
            over.map_err(|_| ())
        });
        let is_whole = carried.await.is_ok();
        let ended = self.inner.borrow().engine.ended();
        drop(guard);
        if is_whole {
            // Boxed, because its buffer would make every connection larger for as long as it lives.
            Box::pin(self.take_leave(&mut socket)).await;
        }
        ended
    }

    /// Reads what there is, then sends what has gathered. Ready when nothing will ever come again; what is left to be
    /// sent is then for [`take_leave`](Self::take_leave).
    fn poll_turn<I: AsyncRead + AsyncWrite + Unpin>(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        socket: &mut Socket<'_, I>,
        accept: &mut impl FnMut(Accepted<'_>),
    ) -> Poll<io::Result<()>> {
        // What gathers while this reads is sent at its end, so nobody need wake it for that.
        let waker = self.inner.borrow_mut().driver.take();
        let mut reads = 0;
        while !socket.is_at_end && self.inner.borrow().engine.ended().is_none() {
            if reads == READS_MAX {
                cx.waker().wake_by_ref();
                break;
            }
            let Poll::Ready(read) = self.poll_read(cx, socket) else {
                break;
            };
            reads += 1;
            if !matches!(read, Ok(read) if read > 0) {
                socket.is_at_end = true;
                let mut inner = self.inner.borrow_mut();
                inner.engine.lost("the peer closed the connection");
                inner.notify();
            }
            self.accept_all(accept);
            turn::run();
        }
        turn::run();
        let mut inner = self.inner.borrow_mut();
        inner.driver = waker;
        set(&mut inner.driver, cx.waker());
        if socket.is_at_end {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let written = inner.poll_write(cx, socket);
        drop(inner);
        // Those who got room; what they send wakes this again.
        turn::run();
        let engine = &self.inner.borrow().engine;
        match written {
            Poll::Pending if engine.ended().is_some() => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) if !engine.is_over() => Poll::Pending,
            written => written,
        }
    }

    /// Sends the end of what there is to say, and gives the peer the time to read it.
    async fn take_leave<I: AsyncRead + AsyncWrite + Unpin>(&self, socket: &mut Socket<'_, I>) {
        let closed = timeout(LINGER, poll_fn(|cx| self.poll_close(cx, socket))).await;
        if matches!(closed, Ok(Ok(()))) {
            let _ = timeout(LINGER, linger(socket.io)).await;
        }
    }

    fn poll_close<I: AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        socket: &mut Socket<'_, I>,
    ) -> Poll<io::Result<()>> {
        let written = self.inner.borrow_mut().poll_write(cx, socket);
        turn::run();
        ready!(written)?;
        Pin::new(&mut *socket.io).poll_shutdown(cx)
    }

    /// Reads what there is, which TLS hands out record by record, and has the engine take it in.
    fn poll_read<I: AsyncRead + Unpin>(
        &self,
        cx: &mut Context<'_>,
        socket: &mut Socket<'_, I>,
    ) -> Poll<io::Result<usize>> {
        let mut input = SCRATCH.take();
        input.extend_from_slice(&socket.rest);
        input.reserve(READ_MAX);
        let mut read = pin!(socket.io.read_buf(&mut input)).poll(cx);
        if let Poll::Ready(Ok(count @ 1..)) = &mut read {
            // How it ends is for the next time, after what came before.
            while input.capacity() - input.len() >= ROOM_MIN
                && let Poll::Ready(Ok(more @ 1..)) = pin!(socket.io.read_buf(&mut input)).poll(cx)
            {
                *count += more;
            }
            self.received.set(self.received.get() + *count as u64);
            let mut inner = self.inner.borrow_mut();
            // What is wrong is in the engine, and the output tells the peer.
            let _ = inner.engine.receive(&mut input, Instant::now());
            inner.notify();
            socket.rest.clear();
            if input.is_empty() {
                socket.rest = BytesMut::new();
            } else {
                socket.rest.extend_from_slice(&input);
            }
        }
        input.clear();
        SCRATCH.set(input);
        read
    }

    fn accept_all(self: &Rc<Self>, accept: &mut impl FnMut(Accepted<'_>)) {
        let mut at = None;
        for count in 0.. {
            let Some(Incoming { key, head }) = self.inner.borrow_mut().engine.accept() else {
                return;
            };
            if count % turn::LOOK_EVERY == 0 {
                at = None;
            }
            let (sender, receiver) = self.halves(key);
            accept(Accepted {
                head: &mut Some(head),
                receiver,
                sender,
                at: *at.get_or_insert_with(Instant::now),
            });
        }
    }
}

impl Inner {
    /// Sends what has gathered.
    fn poll_write<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket<'_, I>,
    ) -> Poll<io::Result<()>> {
        while !self.engine.output().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.engine.output().slices(&mut slices);
            let written = Pin::new(&mut *socket.io).poll_write_vectored(cx, &slices[..count]);
            let written = match ready!(written) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                written => written,
            };
            let written = match written {
                Ok(written) => written,
                Err(error) => {
                    self.engine.lost("the connection broke");
                    self.notify();
                    socket.is_at_end = true;
                    return Poll::Ready(Err(error));
                }
            };
            self.engine.sent(written);
            socket.needs_flush = true;
            self.notify();
        }
        if socket.needs_flush {
            ready!(Pin::new(&mut *socket.io).poll_flush(cx))?;
            socket.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads and drops what is still on its way, so that closing doesn't reset what the peer has to read.
async fn linger<I: AsyncRead + Unpin>(io: &mut I) {
    let mut left = LINGER_BYTES_MAX;
    let mut buffer = [0; 4096];
    while left > 0 {
        match io.read(&mut buffer).await {
            Ok(read) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}
