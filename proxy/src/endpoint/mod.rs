//! Connections to endpoints: plaintext to applications and to what has no sidecar, mutual TLS to
//! other sidecars, pooled for each worker. Few connections, many streams.

mod connect;
mod http1;
mod http2;
mod tcp;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use weft_proto::spiffe::SpiffeId;

pub use http2::Share;
pub use tcp::TcpUpstream;

use crate::http::{Http1Upstream, Http2Upstream, Unanswered, Upstream};
use crate::identity::Identity;
use crate::model::{Endpoint, Hop, Protocol};

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
    http1: http1::Pool,
    http2: Rc<http2::Pool<C>>,
    limits: Limits,
}

/// An upstream for a request, with its share of a pooled connection, if it has one.
pub struct Opened {
    pub upstream: Upstream,
    /// Counts as a stream of the connection until dropped.
    _share: Option<Share>,
}

impl<C: Credentials + 'static> Endpoints<C> {
    pub fn new(credentials: C, limits: Limits) -> Self {
        Self {
            http1: http1::Pool::new(limits),
            http2: Rc::new(http2::Pool::new(credentials, limits)),
            limits,
        }
    }

    /// A stream to the sidecar of `endpoint`, or a connection to an endpoint that has none.
    pub async fn open(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        hop: Hop,
    ) -> Result<Opened, Unanswered> {
        match &endpoint.sidecar {
            None => self.open_plain(endpoint.address, protocol).await,
            Some(sidecar) => {
                let peer = http2::Peer::Sidecar {
                    address: sidecar.address,
                    spiffe_id: sidecar.spiffe_id.clone(),
                };
                let share = self.http2.share(&peer).await?;
                let upstream = Upstream::Http2(Http2Upstream {
                    connection: share.connection(),
                    hop: Some(hop),
                });
                Ok(Opened {
                    upstream,
                    _share: Some(share),
                })
            }
        }
    }

    /// A connection, or a stream, in plaintext.
    pub async fn open_plain(
        &self,
        address: SocketAddr,
        protocol: Protocol,
    ) -> Result<Opened, Unanswered> {
        if protocol == Protocol::Http2 {
            let share = self.http2.share(&http2::Peer::Plain(address)).await?;
            let upstream = Upstream::Http2(Http2Upstream {
                connection: share.connection(),
                hop: None,
            });
            return Ok(Opened {
                upstream,
                _share: Some(share),
            });
        }
        let connection = self.http1.take(address).await?;
        Ok(Opened {
            upstream: Upstream::Http1(Box::new(connection)),
            _share: None,
        })
    }

    /// Takes an HTTP/1 connection back that can serve another request.
    pub fn give_back(&self, address: SocketAddr, opened: Opened) {
        if let Upstream::Http1(connection) = opened.upstream {
            let Http1Upstream { reader, writer, .. } = *connection;
            self.http1.put(address, reader, writer);
        }
    }

    /// A TCP connection to an endpoint: a stream to its sidecar, or a connection.
    pub async fn open_tcp(
        &self,
        endpoint: &Endpoint,
        hop: &Hop,
    ) -> Result<TcpUpstream, Unanswered> {
        match &endpoint.sidecar {
            None => self.open_plain_tcp(endpoint.address).await,
            Some(sidecar) => {
                let peer = http2::Peer::Sidecar {
                    address: sidecar.address,
                    spiffe_id: sidecar.spiffe_id.clone(),
                };
                tcp::open_stream(self.http2.share(&peer).await?, hop).await
            }
        }
    }

    /// A TCP connection of its own.
    pub async fn open_plain_tcp(&self, address: SocketAddr) -> Result<TcpUpstream, Unanswered> {
        let stream = connect::connect(address, self.limits.connect_timeout).await?;
        Ok(TcpUpstream::plain(stream))
    }

    /// Closes what has been idle for too long; to be called every second or so.
    pub fn sweep(&self) {
        self.http1.sweep();
        self.http2.sweep();
    }
}

impl Opened {
    /// Whether it was used before, so that its server may just be closing it.
    pub fn is_reused(&self) -> bool {
        match &self.upstream {
            Upstream::Http1(connection) => connection.reused,
            Upstream::Http2(_) => true,
        }
    }
}
