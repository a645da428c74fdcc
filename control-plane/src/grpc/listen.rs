//! Connections: over TLS 1.3 from proxies and remote CLIs, over a Unix socket from the CLI of the
//! same machine.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use weft_proto::svid::{self, ClientVerifier, SharedTrustBundle};

use super::Peer;
use crate::ca::ServingIdentity;
use crate::telemetry::Metrics;

/// Connections on each listener. Further ones wait in the kernel until one closes.
pub const CONNECTIONS_MAX: usize = 20_000;
/// How long a client may take for its TLS handshake. One that takes longer is disconnected.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client without a certificate may stay: long enough to get one, and too short for many
/// such clients to take every connection.
const ANONYMOUS_TIME_MAX: Duration = Duration::from_secs(30);
/// How long to wait where the kernel has no descriptor or memory for a further connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A TLS connection whose handshake is done.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// When it is cut off, if its peer is anonymous.
    end: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

/// A connection through the socket in the data directory.
pub struct LocalConnection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

/// How the control plane speaks TLS: 1.3 only, a client certificate wanted but not required, since a
/// proxy has none before its first. Sessions are not resumed: a resumed one would not be checked
/// against the trust bundle in force.
pub fn tls(
    bundle: SharedTrustBundle,
    identity: Arc<ServingIdentity>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier = ClientVerifier::new(bundle, false, provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Accepts TLS connections until the other side of `connections` is gone. Each handshake is a task
/// of its own, so that a slow client delays nobody.
pub async fn accept_tls(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    connections: mpsc::Sender<io::Result<Connection>>,
    metrics: Arc<Metrics>,
) {
    let acceptor = TlsAcceptor::from(config);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = permits.clone().acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (acceptor, connections, metrics) =
            (acceptor.clone(), connections.clone(), metrics.clone());
        tokio::spawn(async move {
            match handshake(&acceptor, stream, remote, permit, &metrics).await {
                // When nobody takes connections any more, the server is stopping.
                Ok(connection) => drop(connections.send(Ok(connection)).await),
                Err(error) => {
                    metrics.handshakes_failed.add(1);
                    tracing::info!(%remote, %error, "TLS handshake failed");
                }
            }
        });
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
    metrics: &Arc<Metrics>,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))??;
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = match certificates.and_then(<[_]>::first) {
        None => Peer::Anonymous { remote },
        Some(certificate) => {
            let not_after = svid::not_after(certificate).map_err(io::Error::other)?;
            let seconds = u64::try_from(not_after).unwrap_or(0);
            Peer::Authenticated {
                remote,
                spiffe_id: svid::spiffe_id(certificate).map_err(io::Error::other)?,
                certificate_not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            }
        }
    };
    let is_anonymous = matches!(peer, Peer::Anonymous { .. });
    metrics.connections.add(1);
    Ok(Connection {
        stream,
        end: is_anonymous.then(|| Box::pin(tokio::time::sleep(ANONYMOUS_TIME_MAX))),
        peer,
        _permit: permit,
        metrics: metrics.clone(),
    })
}

/// Accepts connections through the Unix socket.
pub async fn accept_local(
    listener: UnixListener,
    connections: mpsc::Sender<io::Result<LocalConnection>>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = permits.clone().acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = LocalConnection {
                    stream,
                    _permit: permit,
                };
                if connections.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a local connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.connections.subtract(1);
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connected for LocalConnection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer::Local
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            let reason = "a client without a certificate stayed too long";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncRead for LocalConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// Writing is the stream's own.
macro_rules! write_through {
    ($connection:ty) => {
        impl AsyncWrite for $connection {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write(context, bytes)
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_flush(context)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_shutdown(context)
            }
        }
    };
}

write_through!(Connection);
write_through!(LocalConnection);
