//! HTTP/2 connections that many requests share: to sidecars over mutual TLS, to applications in
//! plaintext, to what is outside by TLS where policy says so.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use hashbrown::{Equivalent, HashMap};
use rustls_pki_types::{IpAddr, ServerName};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::warn;
use weft_proto::spiffe::SpiffeId;
use weft_proto::svid;

use super::tls::Tls;
use super::{Credentials, Limits, Server, TLS_BUFFER_MAX, connect};
use crate::http::Unanswered;
use crate::http2::{self, ErrorCode, Role};
use crate::identity::explain;
use crate::model::{Fault, Protocol, Sidecar};
use crate::multiplex::Multiplex;
use crate::tcp::ReadAhead;

/// A connection without streams is closed after this long.
const IDLE: Duration = Duration::from_secs(60);
/// A connection lives no longer than this when no certificate limits it.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A sidecar from which nothing came for this long, while somebody waits for it, is asked whether it is there;
/// as long as it stays silent otherwise, half as often each time. Nobody else is asked: a server of gRPC takes
/// frequent PINGs for abuse, and ends the connection (gRFC A8).
pub const WATCH_EVERY: Duration = Duration::from_millis(200);
/// A sidecar's machine that doesn't acknowledge bytes for this long is gone, or the network to it is. It is the
/// kernel that acknowledges, so a sidecar that is merely slow is not taken for dead.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_millis(700);
/// It is asked again after this many times [`WATCH_EVERY`] at the latest.
const SILENT_TURNS_MAX: u32 = 50;
/// A peer that lives and doesn't answer within this is as good as gone.
const WATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Server(Server),
    Sidecar {
        address: SocketAddr,
        spiffe_id: SpiffeId,
    },
}

impl Peer {
    pub(super) fn of(sidecar: &Sidecar) -> Self {
        Self::Sidecar {
            address: sidecar.address,
            spiffe_id: sidecar.spiffe_id.clone(),
        }
    }
}

impl Hash for Peer {
    /// Of the address alone, since few have the same: this is on every request's way.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let address = match self {
            Peer::Server(server) => &server.address,
            Peer::Sidecar { address, .. } => address,
        };
        address.hash(state);
    }
}

/// Asks for a sidecar without a share of its name: this is on every request's way. It is hashed as its [`Peer`] is.
struct To<'s>(&'s Sidecar);

impl Hash for To<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.address.hash(state);
    }
}

impl Equivalent<Peer> for To<'_> {
    fn equivalent(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Server(_) => false,
            Peer::Sidecar { address, spiffe_id } => {
                *address == self.0.address && *spiffe_id == self.0.spiffe_id
            }
        }
    }
}

/// The pool of one worker.
pub(super) struct Pool<C> {
    credentials: C,
    tls: Rc<Tls>,
    limits: Limits,
    peers: RefCell<HashMap<Peer, Connections, RandomState>>,
}

#[derive(Default)]
struct Connections {
    open: Vec<Rc<Connection>>,
    /// One attempt at a time; everybody who needs it waits for the same one.
    connecting: Option<Connecting>,
}

type Connecting = Shared<LocalBoxFuture<'static, Result<Rc<Connection>, Unanswered>>>;

#[derive(Debug)]
struct Connection {
    multiplex: Rc<Multiplex>,
    streams: Cell<u32>,
    generation: u64,
    /// From here on it takes no new streams, so that it is empty before a certificate ends.
    retires: Instant,
    /// Whether that was seen, at most [`WATCH_EVERY`] late. Requests are spared the look at the clock.
    is_retired: Cell<bool>,
    /// Whether a stream has ended since the last sweep.
    is_used: Cell<bool>,
    /// The last sweep that saw it in use.
    used: Cell<Instant>,
    silence: Cell<Silence>,
}

/// How long nothing has come but answers to PINGs, in turns of [`WATCH_EVERY`].
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// Bytes that had come when it was last looked at.
    received: u64,
    turns: u32,
    /// The turn in which the peer is asked.
    asks_at: u32,
}

impl Silence {
    /// What a turn makes of it, and whether the peer is asked now.
    fn turn(self, received: u64) -> (Self, bool) {
        if received != self.received {
            let heard = Self {
                received,
                turns: 0,
                asks_at: 1,
            };
            return (heard, false);
        }
        let turns = self.turns + 1;
        let asks = turns >= self.asks_at;
        let after = match asks {
            true => Self {
                turns: 0,
                asks_at: (self.asks_at * 2).clamp(1, SILENT_TURNS_MAX),
                ..self
            },
            false => Self { turns, ..self },
        };
        (after, asks)
    }
}

impl Drop for Connection {
    /// Nobody opens streams on it any more, and those that were open have ended.
    fn drop(&mut self) {
        self.multiplex.go_away();
    }
}

impl Connection {
    /// Whether nobody has had a share of it.
    fn is_new(&self) -> bool {
        self.streams.get() == 0 && !self.is_used.get()
    }

    fn watch(self: &Rc<Self>, now: Instant) {
        self.is_retired.set(now >= self.retires);
        if self.streams.get() == 0 {
            return;
        }
        let (silence, asks) = self.silence.get().turn(self.multiplex.received());
        self.silence.set(silence);
        if asks {
            tokio::task::spawn_local(self.clone().ask());
        }
    }

    async fn ask(self: Rc<Self>) {
        if timeout(WATCH_TIMEOUT, self.multiplex.ping()).await.is_err() {
            self.multiplex.lose("the peer does not answer");
        }
        // The answer breaks no silence.
        self.silence.set(Silence {
            received: self.multiplex.received(),
            ..self.silence.get()
        });
    }
}

/// One stream's share of a connection.
#[derive(Debug)]
pub struct Share {
    connection: Rc<Connection>,
}

impl Share {
    fn new(connection: Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection }
    }

    /// For opening the stream.
    pub fn connection(&self) -> &Rc<Multiplex> {
        &self.connection.multiplex
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.connection
            .streams
            .set(self.connection.streams.get() - 1);
        self.connection.is_used.set(true);
    }
}

impl<C: Credentials + 'static> Pool<C> {
    pub(super) fn new(credentials: C, tls: Rc<Tls>, limits: Limits) -> Self {
        Self {
            credentials,
            tls,
            limits,
            peers: RefCell::default(),
        }
    }

    /// A share of a connection to `peer`, made if there is none with room.
    pub(super) async fn share(self: &Rc<Self>, peer: &Peer) -> Result<Share, Unanswered> {
        loop {
            if let Some(share) = self.share_open(peer) {
                return Ok(share);
            }
            let connected = self.connecting(peer).await?;
            // Others who waited for it may fill it, and then there is to be another one. But where nobody found
            // room, the next one would have none either.
            if connected.is_new() && connected.multiplex.room() == 0 {
                return Err(Unanswered::unprocessed(Fault::Overload));
            }
        }
    }

    /// A share of a connection that has room, if there is one.
    pub(super) fn share_open(&self, peer: &Peer) -> Option<Share> {
        self.share_of(peer, matches!(peer, Peer::Server(_)))
    }

    /// The same of a connection to a sidecar.
    pub(super) fn share_open_to(&self, sidecar: &Sidecar) -> Option<Share> {
        self.share_of(&To(sidecar), false)
    }

    fn share_of(&self, peer: &(impl Hash + Equivalent<Peer>), plain: bool) -> Option<Share> {
        let generation = self.credentials.generation();
        let peers = self.peers.borrow();
        let open = &peers.get(peer)?.open;
        let usable = |connection: &&Rc<Connection>| {
            let current =
                plain || (connection.generation == generation && !connection.is_retired.get());
            let has_room = connection.streams.get() < self.limits.streams_per_connection
                && connection.multiplex.room() > 0;
            current && has_room
        };
        open.iter()
            .find(usable)
            .map(|connection| Share::new(connection.clone()))
    }

    fn connecting(self: &Rc<Self>, peer: &Peer) -> Connecting {
        let mut peers = self.peers.borrow_mut();
        let connections = peers.entry(peer.clone()).or_default();
        if let Some(connecting) = &connections.connecting {
            return connecting.clone();
        }
        let (pool, peer) = (self.clone(), peer.clone());
        let internal = || Err(Unanswered::unprocessed(Fault::Internal));
        // A task of its own, so that it goes on when the requests that wait for it are cancelled.
        let task = tokio::task::spawn_local(async move {
            let connected = AssertUnwindSafe(pool.connect(&peer)).catch_unwind().await;
            let connected = connected.unwrap_or_else(|_| internal());
            pool.connected(&peer, &connected);
            connected
        });
        let connecting: Connecting = task
            .map(move |done| done.unwrap_or_else(|_| internal()))
            .boxed_local()
            .shared();
        connections.connecting = Some(connecting.clone());
        connecting
    }

    /// Takes in how an attempt ended, whoever still waits for it: nobody later meets its failure, and a
    /// connection that was made is kept, watched and swept as any other.
    fn connected(&self, peer: &Peer, connected: &Result<Rc<Connection>, Unanswered>) {
        if let Some(connections) = self.peers.borrow_mut().get_mut(peer) {
            connections.connecting = None;
            connections.open.extend(connected.as_ref().ok().cloned());
        }
    }

    /// Makes a TCP connection. How long that took tells how far the peer is, and so the windows that it gets.
    async fn reach(&self, address: SocketAddr) -> Result<(TcpStream, http2::Limits), Unanswered> {
        let began = Instant::now();
        let stream = connect::connect(address, self.limits.connect_timeout).await?;
        Ok((stream, self.limits.http2.over(began.elapsed())))
    }

    async fn connect(&self, peer: &Peer) -> Result<Rc<Connection>, Unanswered> {
        let failed = || Unanswered::unprocessed(Fault::ConnectFailed);
        match peer {
            Peer::Server(Server { address, proof }) => {
                let limit = self.limits.connect_timeout;
                let (stream, limits) = self.reach(*address).await?;
                let started = match proof {
                    None => {
                        let stream = ReadAhead::new(stream, BytesMut::new());
                        self.start(stream, limits, 0, LIFE_MAX).await
                    }
                    Some(proof) => {
                        let to = (proof, Protocol::Http2);
                        let stream = self.tls.connect(stream, *address, to, limit).await?;
                        self.start(stream, limits, 0, LIFE_MAX).await
                    }
                };
                // The connection was taken, so what failed is the protocol.
                started.map_err(|_| Unanswered::unprocessed(Fault::UpstreamProtocol))
            }
            Peer::Sidecar { address, spiffe_id } => {
                let generation = self.credentials.generation();
                let config = self
                    .credentials
                    .client_config(spiffe_id)
                    .ok_or_else(failed)?;
                let (stream, limits) = self.reach(*address).await?;
                // Only a socket that is gone refuses it, and that is seen at once.
                let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
                let name = ServerName::IpAddress(IpAddr::from(address.ip()));
                let stream = ReadAhead::new(stream, BytesMut::new());
                let handshake = TlsConnector::from(config).connect(name, stream);
                let stream = match timeout(self.limits.connect_timeout, handshake).await {
                    Ok(Ok(mut stream)) => {
                        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_MAX));
                        stream
                    }
                    Ok(Err(error)) => return Err(refused(*address, spiffe_id, &error)),
                    Err(_) => return Err(failed()),
                };
                let theirs = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|chain| chain.first());
                let theirs = theirs.and_then(|leaf| svid::not_after(leaf).ok());
                let ends = theirs.into_iter().chain(self.credentials.not_after()).min();
                let left = ends.map_or(LIFE_MAX, time_until);
                self.start(stream, limits, generation, left).await
            }
        }
    }

    /// Begins HTTP/2, and waits until the other side has answered: TLS 1.3 tells a client only then
    /// whether its own certificate was accepted, and a request must not be the one to find out.
    async fn start<I>(
        &self,
        mut io: I,
        limits: http2::Limits,
        generation: u64,
        left: Duration,
    ) -> Result<Rc<Connection>, Unanswered>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let multiplex = Multiplex::new(Role::Client, limits);
        let now = Instant::now();
        let connection = Rc::new(Connection {
            multiplex: multiplex.clone(),
            streams: Cell::new(0),
            generation,
            retires: now + left - left / 4,
            is_retired: Cell::default(),
            is_used: Cell::default(),
            used: Cell::new(now),
            silence: Cell::default(),
        });
        let driven = multiplex.clone();
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = driven.drive(&mut io, |_| {}) => {}
                // Nobody's trust reaches beyond a certificate's end, so the streams that are left end here.
                () = sleep(left) => {}
            }
        });
        match timeout(self.limits.connect_timeout, multiplex.ping()).await {
            Ok(Ok(())) => Ok(connection),
            _ => {
                multiplex.end(ErrorCode::NO_ERROR, "no answer to the first PING");
                Err(Unanswered::unprocessed(Fault::ConnectFailed))
            }
        }
    }

    /// Finds out whose peer is gone, and whose time is over; to be called each [`WATCH_EVERY`].
    pub(super) fn watch(&self) {
        let now = Instant::now();
        for (peer, connections) in self.peers.borrow().iter() {
            if matches!(peer, Peer::Sidecar { .. }) {
                connections
                    .open
                    .iter()
                    .for_each(|connection| connection.watch(now));
            }
        }
    }

    /// Lets go of connections that are closed, retired and empty, or idle.
    pub(super) fn sweep(&self) {
        let (now, generation) = (Instant::now(), self.credentials.generation());
        let mut peers = self.peers.borrow_mut();
        for (peer, connections) in peers.iter_mut() {
            let plain = matches!(peer, Peer::Server(_));
            connections.open.retain(|connection| {
                let retired =
                    !plain && (connection.generation != generation || connection.is_retired.get());
                if connection.is_used.take() || connection.streams.get() > 0 {
                    connection.used.set(now);
                }
                let idle = connection.streams.get() == 0
                    && (retired || now.saturating_duration_since(connection.used.get()) > IDLE);
                !connection.multiplex.is_closed() && !idle
            });
        }
        peers.retain(|_, connections| {
            !connections.open.is_empty() || connections.connecting.is_some()
        });
    }
}

/// The time until a moment given in seconds since 1970; nothing when it is over.
fn time_until(end: i64) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Duration::from_secs(u64::try_from(end).unwrap_or_default()).saturating_sub(now)
}

fn refused(address: SocketAddr, expected: &SpiffeId, error: &std::io::Error) -> Unanswered {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let stranger = matches!(tls, Some(rustls::Error::InvalidCertificate(_)));
    let reason = explain(error);
    warn!(%address, %expected, reason, "the TLS handshake with a sidecar failed; the endpoint is left out for a while");
    Unanswered::unprocessed(if stranger {
        Fault::PeerIdentity
    } else {
        Fault::ConnectFailed
    })
}
