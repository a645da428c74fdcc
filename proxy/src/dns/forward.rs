//! Questions that are not the mesh's go to the host's resolvers, byte for byte but for their id.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, Query};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{MESSAGE_BYTES_MAX, Transport, read_message, write_message};

/// How long one resolver may take before the next is asked.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often all resolvers are asked before the application is told that none answers: a datagram
/// may get lost. More would outlast the application's own patience (resolv.conf(5): 5 s, twice).
const ROUNDS_MAX: usize = 2;
/// How long a reading of the file counts before the next question reads it again.
pub(super) const READING_AGE_MAX: Duration = Duration::from_secs(5);
/// Resolvers asked for a question, as the C library does (resolv.conf(5), MAXNS).
const RESOLVERS_MAX: usize = 3;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Asks the host's resolvers, in their order.
pub(super) struct Forwarder {
    source: Source,
    timeout: Duration,
}

enum Source {
    File(ResolvConf),
    #[cfg(test)]
    Fixed(Vec<SocketAddr>),
}

impl Forwarder {
    /// Those of `/etc/resolv.conf`, without ourselves.
    pub(super) fn of_host(own: &[SocketAddr]) -> Self {
        let file = ResolvConf::new(RESOLV_CONF.into(), own.to_vec());
        // What is wrong with the file is then said at the start, and not at the first question.
        file.resolvers(Instant::now());
        Self {
            source: Source::File(file),
            timeout: RESOLVER_TIMEOUT,
        }
    }

    /// These, whatever the host's are.
    #[cfg(test)]
    pub(super) fn new(resolvers: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self {
            source: Source::Fixed(resolvers),
            timeout,
        }
    }

    /// The first resolver's answer that fits the question, with the question's id.
    pub(super) async fn forward(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Message::from_vec(question).ok()?.queries.pop()?;
        let resolvers = match &self.source {
            Source::File(file) => file.resolvers(Instant::now()),
            #[cfg(test)]
            Source::Fixed(resolvers) => resolvers.clone(),
        };
        let rounds = std::iter::repeat_n(&resolvers, ROUNDS_MAX);
        for resolver in rounds.flatten() {
            match timeout(self.timeout, ask(*resolver, question, &query, transport)).await {
                Ok(Ok(mut answer)) => {
                    answer[..2].copy_from_slice(&question[..2]);
                    return Some(answer);
                }
                Ok(Err(error)) => debug!(%error, %resolver, "a resolver can't be asked"),
                Err(_) => debug!(%resolver, "a resolver doesn't answer"),
            }
        }
        None
    }
}

/// The resolvers that a file in the form of resolv.conf(5) names. It is read anew while the proxy
/// runs, because the host's network may change.
pub(super) struct ResolvConf {
    path: PathBuf,
    /// Where this proxy answers; never asked, or it would ask itself without end.
    own: Vec<SocketAddr>,
    reading: RefCell<Option<Reading>>,
}

struct Reading {
    at: Instant,
    resolvers: Vec<SocketAddr>,
}

impl ResolvConf {
    pub(super) fn new(path: PathBuf, own: Vec<SocketAddr>) -> Self {
        Self {
            path,
            own,
            reading: RefCell::new(None),
        }
    }

    /// As they are `now`, or were at most [`READING_AGE_MAX`] ago. Where the file names none, which
    /// may be because it is just being written, those of the reading before are kept.
    pub(super) fn resolvers(&self, now: Instant) -> Vec<SocketAddr> {
        let mut reading = self.reading.borrow_mut();
        if let Some(Reading { at, resolvers }) = &*reading
            && now.saturating_duration_since(*at) < READING_AGE_MAX
        {
            return resolvers.clone();
        }
        let mut resolvers = self.read();
        if resolvers.is_empty()
            && let Some(before) = reading.take()
        {
            resolvers = before.resolvers;
        }
        *reading = Some(Reading {
            at: now,
            resolvers: resolvers.clone(),
        });
        resolvers
    }

    fn read(&self) -> Vec<SocketAddr> {
        let path = self.path.display();
        let resolvers = match std::fs::read_to_string(&self.path) {
            Ok(text) => parse_resolvers(&text, &self.own),
            Err(error) => {
                warn!(%error, "{path} can't be read; other names than the mesh's may not resolve");
                return Vec::new();
            }
        };
        if resolvers.is_empty() {
            warn!(
                "{path} names no resolver but this proxy; other names than the mesh's may not resolve"
            );
        }
        resolvers
    }
}

/// By UDP, and by TCP where that was too short for a client that can take more.
async fn ask(
    resolver: SocketAddr,
    question: &[u8],
    query: &Query,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let mut question = question.to_vec();
    let id: u16 = rand::random();
    question[..2].copy_from_slice(&id.to_be_bytes());
    let answer = ask_udp(resolver, &question, id, query).await?;
    let truncated = answer[2] & 0x02 != 0;
    if truncated && transport == Transport::Tcp {
        return ask_tcp(resolver, &question, id, query).await;
    }
    Ok(answer)
}

/// From a socket and so a source port of its own: with the random id that is what an attacker
/// would have to guess (RFC 5452 section 9). What doesn't fit is passed over.
async fn ask_udp(
    resolver: SocketAddr,
    question: &[u8],
    id: u16,
    query: &Query,
) -> io::Result<Vec<u8>> {
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if fits(&buffer[..length], id, query) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(
    resolver: SocketAddr,
    question: &[u8],
    id: u16,
    query: &Query,
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    write_message(&mut stream, question).await?;
    match read_message(&mut stream).await? {
        Some(answer) if fits(&answer, id, query) => Ok(answer),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer doesn't fit the question",
        )),
    }
}

/// An answer to this very question (RFC 5452 section 9.1).
fn fits(bytes: &[u8], id: u16, query: &Query) -> bool {
    let Ok(answer) = Message::from_vec(bytes) else {
        return false;
    };
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == id
        && matches!(&answer.queries[..], [asked] if asked == query)
}

/// The `nameserver` lines but for those that are this proxy.
pub(super) fn parse_resolvers(text: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_own = |resolver: &SocketAddr| {
        own.iter().any(|own| {
            let same = own.ip() == resolver.ip();
            let any = own.ip().is_unspecified() && resolver.ip().is_loopback();
            own.port() == resolver.port() && (same || any)
        })
    };
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .filter(|resolver| !is_own(resolver))
        .take(RESOLVERS_MAX)
        .collect()
}
