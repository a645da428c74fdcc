//! Connections to endpoints: plaintext to applications and to what has no sidecar, mutual TLS to
//! other sidecars, pooled for each worker. Few connections, many streams.

mod connect;
mod http1;
mod http2;
mod tcp;
mod tls;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use weft_proto::spiffe::SpiffeId;

pub use http2::{Share, WATCH_EVERY};
pub use tcp::TcpUpstream;

use self::tls::{Proof, Tls};
use crate::http::{Http1Upstream, Http2Upstream, Lead, Unanswered, Upstream};
use crate::identity::Identity;
use crate::model::{BackendTls, Endpoint, Hop, Protocol};

/// Encrypted bytes that wait for one socket at most, so that one write takes many records.
pub const TLS_BUFFER_MAX: usize = 256 * 1024;

/// Limits of the pools; each is for one worker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connect_timeout: Duration,
    /// Idle HTTP/1 connections kept for each address; more are closed.
    pub idle_per_address: usize,
    /// How long an idle HTTP/1 connection is kept: shorter than the time after which common servers
    /// close (5 s), so that few requests meet a connection that is just closing.
    pub idle_timeout: Duration,
    /// Streams on one connection to another sidecar before a second connection is made. As many
    /// stream windows fit into the connection's window, so that readers that stand still hold up
    /// nobody who shares the connection.
    pub streams_per_connection: u32,
    pub http1: crate::http1::Limits,
    pub http2: crate::http2::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            idle_per_address: 64,
            idle_timeout: Duration::from_secs(4),
            streams_per_connection: 128,
            http1: crate::http1::Limits::default(),
            http2: crate::http2::Limits::default(),
        }
    }
}

/// What the pools need to know of this proxy's identity.
pub trait Credentials {
    /// A configuration that accepts this peer and nobody else; none while there is no identity.
    fn client_config(&self, expected: &SpiffeId) -> Option<Arc<ClientConfig>>;
    /// Changes with every new certificate or trust bundle.
    fn generation(&self) -> u64;
    /// When our own certificate ends, in seconds since 1970.
    fn not_after(&self) -> Option<i64>;
}

impl Credentials for Identity {
    fn client_config(&self, expected: &SpiffeId) -> Option<Arc<ClientConfig>> {
        Identity::client_config(self, expected)
    }

    fn generation(&self) -> u64 {
        Identity::generation(self)
    }

    fn not_after(&self) -> Option<i64> {
        Identity::not_after(self)
    }
}

/// One worker's connections.
pub struct Endpoints<C> {
    http1: Rc<http1::Pool>,
    http2: Rc<http2::Pool<C>>,
    tls: Rc<Tls>,
    limits: Limits,
}

/// What has no sidecar: an address, in plaintext or by TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Server {
    address: SocketAddr,
    proof: Option<Proof>,
}

impl Server {
    fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            proof: None,
        }
    }

    /// As the cluster of an endpoint asks for it.
    fn of(address: SocketAddr, tls: Option<&Arc<BackendTls>>) -> Self {
        let proof = tls.map(Proof::of);
        Self { address, proof }
    }
}

/// An upstream for a request, with its share of a pooled connection, if it has one.
pub struct Opened {
    pub upstream: Upstream,
    /// Where an HTTP/1 connection leads.
    server: Option<Server>,
    /// Counts as a stream of the connection until dropped.
    _share: Option<Share>,
}

/// What a request can be sent on without waiting. It is held until the request is over.
pub enum Ready {
    Share(Share),
    Line(http1::Borrowed),
}

impl Ready {
    /// With what is said to a sidecar, where it leads to one.
    pub fn lead<'c>(&'c self, hop: Option<&'c Hop>) -> Lead<'c> {
        match self {
            Self::Share(share) => Lead::Stream(share.connection(), hop),
            Self::Line(borrowed) => Lead::Line(borrowed.line()),
        }
    }

    /// Whether it is a connection that its other end has reset.
    pub fn is_reset(&self) -> bool {
        match self {
            Self::Share(_) => false,
            Self::Line(borrowed) => borrowed.is_reset(),
        }
    }
}

impl<C: Credentials + 'static> Endpoints<C> {
    pub fn new(credentials: C, limits: Limits) -> Self {
        let tls = Rc::<Tls>::default();
        Self {
            http1: Rc::new(http1::Pool::new(tls.clone(), limits)),
            http2: Rc::new(http2::Pool::new(credentials, tls.clone(), limits)),
            tls,
            limits,
        }
    }

    /// A stream to the sidecar of `endpoint`, or a connection to an endpoint that has none: by TLS where
    /// its cluster asks for it.
    pub async fn open(
        &self,
        endpoint: &Endpoint,
        tls: Option<&Arc<BackendTls>>,
        protocol: Protocol,
        hop: Box<Hop>,
    ) -> Result<Opened, Unanswered> {
        match &endpoint.sidecar {
            None => {
                let server = Server::of(endpoint.address, tls);
                self.open_server(server, protocol).await
            }
            Some(sidecar) => {
                let share = self.http2.share(&http2::Peer::of(sidecar)).await?;
                let upstream = Upstream::Http2(Http2Upstream {
                    connection: share.connection().clone(),
                    hop: Some(hop),
                });
                Ok(Opened {
                    upstream,
                    server: None,
                    _share: Some(share),
                })
            }
        }
    }

    /// What [`open`](Self::open) would open on, if that is there now.
    pub fn open_now(
        &self,
        endpoint: &Endpoint,
        tls: Option<&Arc<BackendTls>>,
        protocol: Protocol,
    ) -> Option<Ready> {
        match &endpoint.sidecar {
            None => self.server_now(Server::of(endpoint.address, tls), protocol),
            Some(sidecar) => {
                let share = self.http2.share_open_to(sidecar)?;
                Some(Ready::Share(share))
            }
        }
    }

    /// The same in plaintext, for [`open_plain`](Self::open_plain).
    pub fn open_plain_now(&self, address: SocketAddr, protocol: Protocol) -> Option<Ready> {
        self.server_now(Server::plain(address), protocol)
    }

    fn server_now(&self, server: Server, protocol: Protocol) -> Option<Ready> {
        match protocol {
            Protocol::Http2 => {
                let share = self.http2.share_open(&http2::Peer::Server(server))?;
                Some(Ready::Share(share))
            }
            Protocol::Http1 => Some(Ready::Line(self.http1.borrow(server)?)),
            _ => None,
        }
    }

    /// A connection, or a stream, in plaintext.
    pub async fn open_plain(
        &self,
        address: SocketAddr,
        protocol: Protocol,
    ) -> Result<Opened, Unanswered> {
        self.open_server(Server::plain(address), protocol).await
    }

    async fn open_server(&self, server: Server, protocol: Protocol) -> Result<Opened, Unanswered> {
        if protocol == Protocol::Http2 {
            let share = self.http2.share(&http2::Peer::Server(server)).await?;
            let upstream = Upstream::Http2(Http2Upstream {
                connection: share.connection().clone(),
                hop: None,
            });
            return Ok(Opened {
                upstream,
                server: None,
                _share: Some(share),
            });
        }
        let connection = self.http1.take(&server).await?;
        Ok(Opened {
            upstream: Upstream::Http1(Box::new(connection)),
            server: Some(server),
            _share: None,
        })
    }

    /// Takes an HTTP/1 connection back that can serve another request.
    pub fn give_back(&self, opened: Opened) {
        if let (Upstream::Http1(connection), Some(server)) = (opened.upstream, opened.server) {
            let Http1Upstream { reader, writer, .. } = *connection;
            self.http1.put(server, reader, writer);
        }
    }

    /// A TCP connection to an endpoint: a stream to its sidecar, or a connection, by TLS where its cluster
    /// asks for it.
    pub async fn open_tcp(
        &self,
        endpoint: &Endpoint,
        tls: Option<&Arc<BackendTls>>,
        hop: &Hop,
    ) -> Result<TcpUpstream, Unanswered> {
        match &endpoint.sidecar {
            None => match tls {
                None => self.open_plain_tcp(endpoint.address).await,
                Some(tls) => self.open_tls(endpoint.address, tls).await,
            },
            Some(sidecar) => {
                tcp::open_stream(self.http2.share(&http2::Peer::of(sidecar)).await?, hop).await
            }
        }
    }

    /// A TCP connection of its own.
    pub async fn open_plain_tcp(&self, address: SocketAddr) -> Result<TcpUpstream, Unanswered> {
        let stream = connect::connect(address, self.limits.connect_timeout).await?;
        Ok(TcpUpstream::plain(stream))
    }

    /// A TLS connection of its own.
    async fn open_tls(
        &self,
        address: SocketAddr,
        tls: &Arc<BackendTls>,
    ) -> Result<TcpUpstream, Unanswered> {
        let limit = self.limits.connect_timeout;
        let stream = connect::connect(address, limit).await?;
        let to = (&Proof::of(tls), Protocol::Tcp);
        let stream = self.tls.connect(stream, address, to, limit).await?;
        Ok(TcpUpstream::tls(stream))
    }

    /// Finds out whose other end is gone; to be called each [`WATCH_EVERY`].
    pub fn watch(&self) {
        self.http2.watch();
    }

    /// Closes what has been idle for too long; to be called every second or so.
    pub fn sweep(&self) {
        self.http1.sweep();
        self.http2.sweep();
        self.tls.sweep();
    }
}
