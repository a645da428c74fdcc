//! From socket to socket. Bytes pass through one buffer that all connections of a thread share; once
//! a direction is shown to be bulk they stay in the kernel, and only pages change hands (splice(2)).

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{Reader, Writer};

/// A direction is bulk once it carried this much in reads of [`BULK_READ`] on the average.
const BULK_BYTES: u64 = 1024 * 1024;
/// See [`BULK_BYTES`]. Below, copying costs less than the calls for a pipe.
const BULK_READ: u64 = 8 * 1024;
/// What a pipe is to hold; the kernel grants an unprivileged user less once many pipes are large.
const PIPE: usize = 1024 * 1024;
/// Pipes of a thread; each takes two descriptors, and while its receiver takes nothing up to [`PIPE`]
/// of the kernel's memory. Beyond, bytes go through the shared buffer.
const PIPES_MAX: usize = 128;

thread_local! {
    static PIPES: Cell<usize> = const { Cell::new(0) };
}

/// Copies until `from` ends, which is passed on. `count` is kept at what was carried.
pub(super) async fn copy(from: &mut Reader, to: &mut Writer, count: &mut u64) -> io::Result<()> {
    if !from.buffer.is_empty() {
        let early = from.buffer.split().freeze();
        *count += early.len() as u64;
        to.write(early).await?;
    }
    to.flush().await?;
    from.shrink();
    let mut reads = 0;
    loop {
        let read = pass(from, to).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        *count += read as u64;
        reads += 1;
        if *count >= BULK_BYTES
            && *count / reads >= BULK_READ
            && let Some(socket) = from.socket()
            && let Some(pipe) = Pipe::new()
        {
            return splice_all(socket, to, &pipe, count).await;
        }
    }
}

/// One read, and the write of what it brought. What the receiver doesn't take at once is kept, and
/// nothing more is read before it is gone.
async fn pass(from: &mut Reader, to: &mut Writer) -> io::Result<usize> {
    let passed = from.pass(|bytes| {
        let written = match to.socket().map(|socket| socket.try_write(bytes)) {
            None => 0,
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => 0,
            Some(written) => written?,
        };
        to.buffer.extend_from_slice(&bytes[written..]);
        Ok(bytes.len())
    });
    let passed = passed.await?;
    to.flush().await?;
    passed
}

async fn splice_all(
    from: &TcpStream,
    to: &mut Writer,
    pipe: &Pipe,
    count: &mut u64,
) -> io::Result<()> {
    loop {
        // The pipe is empty, so a call that would block found the socket empty.
        let read = from
            .async_io(Interest::READABLE, || pipe.take(from))
            .await?;
        if read == 0 {
            return to.shutdown().await;
        }
        *count += read as u64;
        let mut left = read;
        while left > 0 {
            let socket = to.socket().ok_or(ErrorKind::Unsupported)?;
            let write = || pipe.give(socket, left);
            left -= socket.async_io(Interest::WRITABLE, write).await?;
        }
    }
}

/// Where bytes are on their way from one socket to the other.
struct Pipe {
    start: OwnedFd,
    end: OwnedFd,
}

impl Pipe {
    /// None when there are too many, or descriptors are short.
    fn new() -> Option<Self> {
        if PIPES.get() >= PIPES_MAX {
            return None;
        }
        let (end, start) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one costs more calls and carries the same.
        let _ = fcntl_setpipe_size(&start, PIPE);
        PIPES.set(PIPES.get() + 1);
        Some(Self { start, end })
    }

    fn take(&self, from: &TcpStream) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(splice(from, None, &self.start, None, PIPE, flags)?)
    }

    fn give(&self, to: &TcpStream, bytes: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(splice(&self.end, None, to, None, bytes, flags)?)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        PIPES.set(PIPES.get() - 1);
    }
}
