//! DNS for the application: services of the mesh are answered here, everything else by the host's
//! own resolvers.

mod answer;
mod forward;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::model::{Known, Service, ServiceName};
use answer::{Asked, Question};
use forward::Forwarder;

/// Questions answered at once; one more is answered with SERVFAIL.
pub const QUESTIONS_MAX: usize = 1_024;
/// TCP connections held at once; one more waits in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 128;
/// A TCP connection without a whole question for so long is closed (RFC 7766 section 6.2.3).
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);
/// ExternalNames that lead to each other; one more is answered with SERVFAIL.
const ALIASES_MAX: usize = 4;
/// The largest message there is (RFC 1035 section 4.2.2).
const MESSAGE_BYTES_MAX: usize = 65_535;
/// After a failed accept or receive, such as for want of file descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What the mesh knows of names.
pub trait Lookup {
    /// The service of that name, asked for where it must be; unknown where nobody can be asked.
    fn service(&self, name: &ServiceName) -> impl Future<Output = Known<Service>>;
}

/// How a question came, and so how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

struct Server<L> {
    namespace: String,
    lookup: L,
    forwarder: Forwarder,
    questions: Semaphore,
}

/// Binds UDP and TCP at each address and answers from tasks of this thread's `LocalSet`, as an
/// application in `namespace` means its questions.
pub async fn serve<L: Lookup + 'static>(
    addresses: Vec<SocketAddr>,
    namespace: String,
    lookup: L,
) -> io::Result<()> {
    let forwarder = Forwarder::of_host(&addresses);
    bind(addresses, namespace, lookup, forwarder).await?;
    Ok(())
}

/// Gives the addresses bound, for the ports that the kernel chose.
async fn bind<L: Lookup + 'static>(
    addresses: Vec<SocketAddr>,
    namespace: String,
    lookup: L,
    forwarder: Forwarder,
) -> io::Result<Vec<SocketAddr>> {
    let server = Rc::new(Server {
        namespace,
        lookup,
        forwarder,
        questions: Semaphore::new(QUESTIONS_MAX),
    });
    let mut sockets = Vec::new();
    for address in addresses {
        let udp = UdpSocket::bind(address).await?;
        let address = udp.local_addr()?;
        sockets.push((address, udp, TcpListener::bind(address).await?));
    }
    let mut bound = Vec::new();
    for (address, udp, tcp) in sockets {
        tokio::task::spawn_local(server.clone().serve_udp(Rc::new(udp)));
        tokio::task::spawn_local(server.clone().serve_tcp(tcp));
        bound.push(address);
    }
    Ok(bound)
}

impl<L: Lookup + 'static> Server<L> {
    async fn serve_udp(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An ICMP error for an earlier answer shows up here too.
                    debug!(%error, "a question can't be received");
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
            };
            let bytes = &buffer[..length];
            let Ok(permit) = self.questions.try_acquire() else {
                if let Some(answer) = answer::refuse(bytes, ResponseCode::ServFail) {
                    let _ = socket.try_send_to(&answer, from);
                }
                continue;
            };
            // The permit goes with the task, which can't borrow from this loop.
            permit.forget();
            let (server, socket, bytes) = (self.clone(), socket.clone(), bytes.to_vec());
            tokio::task::spawn_local(async move {
                let answer = server.answer(&bytes, Transport::Udp).await;
                server.questions.add_permits(1);
                if let Some(answer) = answer
                    && let Err(error) = socket.send_to(&answer, from).await
                {
                    debug!(%error, %from, "an answer can't be sent");
                }
            });
        }
    }

    async fn serve_tcp(self: Rc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, from)) => {
                    let server = self.clone();
                    tokio::task::spawn_local(async move {
                        if let Err(error) = server.serve_connection(stream).await {
                            debug!(%error, %from, "a DNS connection broke");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "a DNS connection can't be accepted");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// One question after the other, each with its length in front (RFC 1035 section 4.2.2).
    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let Ok(bytes) = timeout(CONNECTION_IDLE_MAX, read_message(&mut stream)).await else {
                return Ok(());
            };
            let Some(bytes) = bytes? else {
                return Ok(());
            };
            let answer = match self.questions.try_acquire() {
                Ok(_permit) => self.answer(&bytes, Transport::Tcp).await,
                Err(_) => answer::refuse(&bytes, ResponseCode::ServFail),
            };
            let Some(answer) = answer else {
                return Ok(());
            };
            match timeout(CONNECTION_IDLE_MAX, write_message(&mut stream, &answer)).await {
                Ok(written) => written?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// The whole answer; none for what is no question at all.
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = match answer::read(bytes, &self.namespace) {
            Asked::Question(question) => question,
            Asked::Wrong(refusal) => return Some(refusal),
            Asked::Nothing => return None,
        };
        let found = self.find(question.service.as_ref()).await;
        if let Known::Present(service) = found {
            let message = self.answer_service(&question, service).await;
            return answer::encode(&question, message, transport);
        }
        match self.forwarder.forward(bytes, transport).await {
            Some(answer) if found == Known::Unknown && answer::denies(&answer) => {
                answer::refuse(bytes, ResponseCode::ServFail)
            }
            Some(answer) => Some(answer),
            None => answer::refuse(bytes, ResponseCode::ServFail),
        }
    }

    /// Where it is unknown whether there is such a service, the host's resolvers may know the name
    /// as another's, but that they don't says nothing: an application would keep an NXDOMAIN for
    /// minutes, and comes again after a SERVFAIL.
    async fn find(&self, name: Option<&ServiceName>) -> Known<Service> {
        match name {
            Some(name) => self.lookup.service(name).await,
            None => Known::Absent,
        }
    }

    /// Follows ExternalNames, from one service to the next while they stay in the mesh.
    async fn answer_service(&self, question: &Question, service: Arc<Service>) -> Message {
        let mut message = answer::begin(question);
        let mut owner = question.query.name().clone();
        let mut service = service;
        for _ in 0..ALIASES_MAX {
            let Some(target) = answer::alias(&service) else {
                answer::push_addresses(&mut message, &owner, question, &service);
                return message;
            };
            answer::push_alias(&mut message, &owner, &target);
            let name = answer::service_name(&target, &self.namespace);
            match self.find(name.as_ref()).await {
                Known::Present(next) => (owner, service) = (target, next),
                found => {
                    self.push_forwarded(&mut message, question, target).await;
                    let denied = message.metadata.response_code == ResponseCode::NXDomain;
                    if denied && found == Known::Unknown {
                        message.metadata.response_code = ResponseCode::ServFail;
                    }
                    return message;
                }
            }
        }
        message.answers.clear();
        message.metadata.response_code = ResponseCode::ServFail;
        message
    }

    /// What the host's resolvers say of the target of an alias.
    async fn push_forwarded(
        &self,
        message: &mut Message,
        question: &Question,
        target: hickory_proto::rr::Name,
    ) {
        let mut query = question.query.clone();
        query.set_name(target);
        let mut ask = Message::query();
        ask.metadata.op_code = OpCode::Query;
        ask.metadata.recursion_desired = true;
        ask.add_query(query);
        let answer = match ask.to_vec() {
            Ok(bytes) => self.forwarder.forward(&bytes, Transport::Tcp).await,
            Err(_) => None,
        };
        match answer.and_then(|bytes| Message::from_vec(&bytes).ok()) {
            Some(answer) => {
                message.metadata.response_code = answer.metadata.response_code;
                message.answers.extend(answer.answers);
            }
            None => message.metadata.response_code = ResponseCode::ServFail,
        }
    }
}

/// None at the end of the stream.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// In one write, so that length and message share a segment (RFC 7766 section 8).
async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message over 65535 bytes"))?;
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}
