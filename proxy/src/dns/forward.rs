//! Questions that are not the mesh's go to the host's resolvers, byte for byte but for their id.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{MESSAGE_BYTES_MAX, Transport, read_message, write_message};

/// How long one resolver may take before the next is asked.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Resolvers asked for a question, as the C library does (resolv.conf(5), MAXNS).
const RESOLVERS_MAX: usize = 3;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The host's resolvers, in their order.
pub(super) struct Forwarder {
    resolvers: Vec<SocketAddr>,
    timeout: Duration,
}

impl Forwarder {
    /// Those of `/etc/resolv.conf` as it is now, without ourselves.
    pub(super) fn of_host(own: &[SocketAddr]) -> Self {
        let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_else(|error| {
            warn!(%error, "{RESOLV_CONF} can't be read; only names of the mesh resolve");
            String::new()
        });
        let resolvers = parse_resolvers(&text, own);
        if resolvers.is_empty() {
            warn!("{RESOLV_CONF} names no resolver but this proxy; only names of the mesh resolve");
        }
        Self::new(resolvers, RESOLVER_TIMEOUT)
    }

    pub(super) fn new(resolvers: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { resolvers, timeout }
    }

    /// The first resolver's answer that fits the question, with the question's id.
    pub(super) async fn forward(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Message::from_vec(question).ok()?.queries.pop()?;
        for resolver in &self.resolvers {
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
