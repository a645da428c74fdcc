//! The story of calls to our workload: mTLS -> peer -> authorize -> http | tcp, and the same without
//! mTLS for what was intercepted on its way to the application.
//!
//! The inbound port takes two kinds of connections, told apart by their first bytes. Another
//! sidecar's begins with a ClientHello that offers `weft/1`; its streams name the application's port
//! themselves. Anything else must have been redirected here, and goes where it was going.

mod admit;
mod carry;
mod http;
mod plain;
mod tcp;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};
use weft_proto::spiffe::SpiffeId;
use weft_proto::svid;

use self::admit::Last;
use self::carry::Incoming;
use self::http::{HopRequests, PlainRequests};
use crate::admission::Admission;
use crate::authorization::Policy;
use crate::detect::client_hello;
use crate::discovery::{self, ApplicationPorts, LatestPort};
use crate::endpoint::{self, Endpoints, TLS_BUFFER_MAX};
use crate::http::{Carriers, Drain, ServerLimits, Spent, Workers, serve_http2};
use crate::identity::{Identity, explain};
use crate::listener::Accepted;
use crate::model::{Fault, InboundPolicy, Own, Protocol};
use crate::ratelimit::RateLimitServers;
use crate::tcp::{ReadAhead, Reader, Writer, split};
use crate::telemetry::{Direction, Telemetry};

/// What the hop is called in TLS (RFC 7301).
pub const HOP_ALPN: &[u8] = b"weft/1";
/// A peer that has not finished its handshake by then is dropped. All of it counts, from before the ClientHello's first
/// byte on: who sends byte by byte gains no time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// One worker's inbound side.
pub struct Inbound {
    pub(crate) own: Own,
    /// Names this workload to those who expect exactly it.
    instance: Arc<str>,
    address: IpAddr,
    policy: Policy,
    discovery: discovery::Handle,
    ports: ApplicationPorts,
    latest_port: LatestPort,
    identity: Identity,
    telemetry: Telemetry,
    endpoints: Endpoints<Identity>,
    hop_workers: Rc<Workers<HopRequests>>,
    plain_workers: Rc<Workers<PlainRequests>>,
    carriers: Rc<Carriers<Incoming>>,
    limits: ServerLimits,
    drain: Drain,
    spent: Spent,
    leaving: Arc<AtomicBool>,
    admission: Admission,
    servers: RateLimitServers,
    /// What is in force on ports that no policy is for.
    usual: Arc<InboundPolicy>,
    /// What was known of the last request's port.
    last: RefCell<Option<Last>>,
    worker: usize,
}

/// What the inbound side is made of.
pub struct Parts {
    pub own: Own,
    pub instance: Arc<str>,
    pub address: IpAddr,
    pub policy: Policy,
    pub discovery: discovery::Handle,
    pub ports: ApplicationPorts,
    pub identity: Identity,
    pub telemetry: Telemetry,
    pub limits: ServerLimits,
    pub drain: Drain,
    /// Failures of our workload's own calls.
    pub spent: Spent,
    /// Set once the workload is told to end.
    pub leaving: Arc<AtomicBool>,
    /// This worker, and how many there are: they share what is allowed together.
    pub worker: (usize, usize),
    /// Asked where a policy says so.
    pub servers: RateLimitServers,
}

/// The far end of a connection, with what was read of it.
struct Client {
    reader: Reader,
    writer: Writer,
    address: SocketAddr,
}

impl Inbound {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            own,
            instance,
            address,
            policy,
            discovery,
            ports,
            identity,
            telemetry,
            limits,
            drain,
            spent,
            leaving,
            worker: (worker, workers),
            servers,
        } = parts;
        let endpoints = Endpoints::new(identity.clone(), endpoint::Limits::default());
        Self {
            own,
            instance,
            address,
            policy,
            discovery,
            ports,
            latest_port: LatestPort::default(),
            identity,
            telemetry,
            endpoints,
            hop_workers: Rc::default(),
            plain_workers: Rc::default(),
            carriers: Rc::default(),
            limits,
            drain,
            spent,
            leaving,
            admission: Admission::new(workers),
            servers,
            usual: Arc::default(),
            last: RefCell::default(),
            worker,
        }
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            original_destination,
            held,
        } = accepted;
        let open = self.telemetry.connection_opened(Direction::Inbound);
        let (reader, writer) = split(stream, BytesMut::new());
        let mut client = Client {
            reader,
            writer,
            address: peer,
        };
        match original_destination {
            Some(destination) => Box::pin(self.serve_intercepted(client, destination)).await,
            None => {
                let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
                if offers_hop(&mut client.reader, deadline).await == Some(true) {
                    Box::pin(self.serve_hop(client, deadline)).await;
                } else {
                    let why = "neither redirected here nor another sidecar";
                    self.refuse(client, Fault::Loop, why);
                }
            }
        }
        drop((open, held));
    }

    /// Streams of another sidecar, which has to have finished its handshake by the deadline.
    async fn serve_hop(self: &Rc<Self>, client: Client, deadline: Instant) {
        let address = client.address;
        let Some(config) = self.identity.server_config() else {
            return self.refuse(client, Fault::PeerIdentity, "no identity yet");
        };
        let Some((stream, peeked)) = client.reader.reunite(client.writer) else {
            return;
        };
        let handshake = TlsAcceptor::from(config).accept(ReadAhead::new(stream, peeked));
        let stream = match timeout_at(deadline, Box::pin(handshake)).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_MAX));
                stream
            }
            Ok(Err(error)) => {
                let error = explain(&error);
                warn!(%address, error, "the TLS handshake of another sidecar failed");
                return self
                    .telemetry
                    .refused(Direction::Inbound, Fault::PeerIdentity);
            }
            Err(_) => {
                return self
                    .telemetry
                    .refused(Direction::Inbound, Fault::PeerIdentity);
            }
        };
        let Some((peer, until)) = self.authenticated(&stream) else {
            return self
                .telemetry
                .refused(Direction::Inbound, Fault::PeerIdentity);
        };
        let requests = Rc::new(HopRequests::new(self.clone(), peer, address));
        Box::pin(serve_http2(
            stream,
            requests,
            &self.limits,
            self.drain.clone(),
            Some(until),
        ))
        .await;
    }

    /// Who is at the other end, and how long both certificates vouch for the connection.
    fn authenticated(
        &self,
        stream: &TlsStream<ReadAhead<TcpStream>>,
    ) -> Option<(SpiffeId, Instant)> {
        let leaf: &CertificateDer<'_> = stream.get_ref().1.peer_certificates()?.first()?;
        let peer = svid::spiffe_id(leaf).ok()?;
        let theirs = svid::not_after(leaf).ok()?;
        let end = self
            .identity
            .not_after()
            .map_or(theirs, |ours| ours.min(theirs));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let left = Duration::from_secs(u64::try_from(end).unwrap_or_default()).saturating_sub(now);
        Some((peer, Instant::now() + left))
    }

    /// Where the application takes connections on `port`.
    fn application(&self, port: u16) -> Result<SocketAddr, Fault> {
        if self.own.ports.contains(&port) {
            return Err(Fault::Loop);
        }
        let bound = self
            .ports
            .latest_address_of(&self.latest_port, port, self.address);
        Ok(bound.unwrap_or(SocketAddr::new(self.address, port)))
    }

    /// The protocol that a service's document names for the application's port.
    fn configured(&self, port: u16) -> Option<Protocol> {
        let configuration = self.discovery.current();
        let inbound = configuration.inbound.as_ref()?;
        inbound
            .ports
            .iter()
            .find(|known| known.port == port)?
            .protocol
    }

    fn refuse(&self, mut client: Client, fault: Fault, why: &'static str) {
        debug!(client = %client.address, reason = fault.reason(), why, "inbound connection refused");
        self.telemetry.refused(Direction::Inbound, fault);
        client.writer.reset();
    }

    /// Lets go of what is idle; to be called every second or so.
    pub fn sweep(&self) {
        self.endpoints.sweep();
        self.hop_workers.sweep();
        self.plain_workers.sweep();
        self.carriers.sweep();
        self.show_concurrency();
    }
}

/// Whether the first bytes are another sidecar's ClientHello; nothing when the client left, or hasn't sent enough by the
/// deadline.
async fn offers_hop(reader: &mut Reader, deadline: Instant) -> Option<bool> {
    loop {
        match client_hello(&reader.buffer) {
            Ok(Some(hello)) => return Some(hello.alpn.iter().any(|name| name == HOP_ALPN)),
            Ok(None) => {}
            Err(_) => return Some(false),
        }
        let read = timeout_at(deadline, reader.fill()).await;
        if !matches!(read, Ok(Ok(read)) if read > 0) {
            return None;
        }
    }
}
