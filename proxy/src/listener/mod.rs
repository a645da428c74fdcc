//! Accepting connections: a permit first, then the connection, then where it was going before it was
//! redirected here.

mod spread;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

pub use spread::{Handed, Held, Spread};

/// Connections that the kernel holds for us before we accept them.
const BACKLOG: i32 = 4096;
/// How long to wait when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// A peer that is silently gone is noticed after this long without a byte, and a few probes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection that has been accepted.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// The address that it was redirected from; none when it was made to this listener itself.
    pub original_destination: Option<SocketAddr>,
    pub held: Held,
}

/// A listening socket of one worker.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// The port that it is bound to.
    port: u16,
    permits: Arc<Semaphore>,
}

/// Binds an address. `share` lets every worker bind it too (SO_REUSEPORT), so that each accepts some of
/// the connections; [`Spread`] decides who serves them.
pub fn bind(address: SocketAddr, share: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // Whatever is accepted here inherits these.
    set_socket_options(&SockRef::from(&socket));
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// Takes a bound socket into this worker's runtime. `permits` bounds the connections of all
    /// listeners that share it; at the bound new ones wait in the kernel's queue.
    pub fn new(socket: std::net::TcpListener, permits: Arc<Semaphore>) -> io::Result<Self> {
        Ok(Self {
            port: socket.local_addr()?.port(),
            socket: TcpListener::from_std(socket)?,
            permits,
        })
    }

    /// The next connection. Errors that concern one connection or pass by themselves are not
    /// returned.
    pub async fn accept(&self) -> Accepted {
        loop {
            let Ok(permit) = self.permits.clone().acquire_owned().await else {
                // The semaphore is never closed; were it, nothing could be accepted any more.
                std::future::pending::<()>().await;
                continue;
            };
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    if let Some(accepted) = self.prepare(stream, peer, permit) {
                        return accepted;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(%error, "no connection can be accepted for now; raise the limit of open files if this stays");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn prepare(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Option<Accepted> {
        let mut original = original_destination(&stream, peer.ip());
        // Only a connection to our own port can be one that was meant for us, so that most save a call.
        if original.is_some_and(|original| original.port() == self.port) {
            let local = canonical(stream.local_addr().ok()?);
            original = original.filter(|original| *original != local);
        }
        Some(Accepted {
            stream,
            peer: canonical(peer),
            original_destination: original,
            held: Held::new(permit),
        })
    }
}

/// What every TCP connection that the proxy makes is set to.
pub fn set_options(stream: &TcpStream) {
    set_socket_options(&SockRef::from(stream));
}

/// A socket that takes no option is already gone, and the next read says so.
fn set_socket_options(socket: &SockRef<'_>) {
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// Asks the kernel's connection tracking where the connection of `peer` was going (SO_ORIGINAL_DST).
fn original_destination(stream: &TcpStream, peer: IpAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let v4 = || {
        socket
            .original_dst_v4()
            .ok()
            .and_then(|address| address.as_socket())
    };
    let v6 = || {
        socket
            .original_dst_v6()
            .ok()
            .and_then(|address| address.as_socket())
    };
    let address = match peer {
        IpAddr::V4(_) => v4(),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => v4(),
        IpAddr::V6(_) => v6(),
    };
    address.map(canonical)
}

/// An IPv4 address that came over an IPv6 socket is an IPv4 address.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
