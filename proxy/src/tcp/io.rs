//! What a connection's bytes pass through: the socket, or TLS that we began over it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::ReadAhead;

/// A TLS connection that we opened.
pub type TlsStream = tokio_rustls::client::TlsStream<ReadAhead<TcpStream>>;

/// Writes to a socket. The kernel takes a vectored write of one slice for a dearer write, so it is a plain one: most
/// writes are of one head with its body, or one record of TLS.
pub(super) fn poll_write_slices<S: AsyncWrite>(
    socket: Pin<&mut S>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match slices {
        [one] => socket.poll_write(cx, one),
        slices => socket.poll_write_vectored(cx, slices),
    }
}

#[derive(Debug)]
pub(super) enum ReadIo {
    Tcp(OwnedReadHalf),
    Tls(ReadHalf<Box<TlsStream>>),
}

#[derive(Debug)]
pub(super) enum WriteIo {
    Tcp(OwnedWriteHalf),
    Tls(WriteHalf<Box<TlsStream>>),
}

impl AsyncRead for ReadIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadIo::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            ReadIo::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteIo::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            WriteIo::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteIo::Tcp(io) => poll_write_slices(Pin::new(io), cx, bufs),
            WriteIo::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            WriteIo::Tcp(io) => io.is_write_vectored(),
            WriteIo::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteIo::Tcp(io) => Pin::new(io).poll_flush(cx),
            WriteIo::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteIo::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            WriteIo::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
