//! The story of our workload's calls: destination -> detect -> http | tcp.
//!
//! A connection comes in one of two ways. Intercepted, it carries the address that the application
//! dialled, and that address decides. Explicit, the application speaks HTTP to us, and each
//! request's host decides. From there on both are the same.
//!
//! What a connection is, is found out first, and handed on ([`Known`]) to whoever serves it: so a connection that
//! rests carries nothing of how it was found out. Each step's future is boxed, because a future is as large as the
//! largest of its steps.

mod attempt;
mod carry;
mod destination;
mod explain;
mod health;
mod hedge;
mod http;
mod inject;
mod learnt;
mod mirror;
mod recent;
mod session;
mod target;
mod tcp;
mod tls;

pub use self::health::CHECK_EVERY;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tracing::debug;

use self::carry::Outgoing;
use self::destination::{Destination, Latest};
use self::health::Checks;
use self::http::OutboundRequests;
use self::learnt::Learnt;
use self::recent::Recent;
use crate::balance::Balancer;
use crate::discovery;
use crate::endpoint::{self, Endpoints};
use crate::http::{Carriers, Drain, Ended, ServerLimits, Spent, Workers, serve_http1, serve_http2};
use crate::identity::Identity;
use crate::listener::Accepted;
use crate::model::{Fault, Own, Protocol, Text};
use crate::route::Draws;
use crate::tcp::{Detected, ReadAhead, Reader, Writer, client_first, either_first, split};
use crate::telemetry::{Direction, Party, Telemetry};

/// One worker's outbound side.
pub struct Outbound {
    own: Own,
    /// Our workload, as telemetry knows it.
    party: Party<'static>,
    /// Our workload's name, as the other sidecar is told it.
    source: Text,
    discovery: discovery::Handle,
    telemetry: Telemetry,
    endpoints: Endpoints<Identity>,
    balancer: Balancer,
    spent: Spent,
    learnt: Learnt,
    latest: Latest,
    workers: Rc<Workers<OutboundRequests>>,
    carriers: Rc<Carriers<Outgoing>>,
    recent: RefCell<Recent>,
    checks: Checks,
    /// Mirrored requests on their way; each holds a clone.
    copies: Rc<()>,
    /// Which backend of a route is next.
    draws: Draws,
    random: RefCell<SmallRng>,
    limits: ServerLimits,
    drain: Drain,
}

/// What the outbound side is made of.
pub struct Parts {
    pub own: Own,
    pub discovery: discovery::Handle,
    pub identity: Identity,
    pub telemetry: Telemetry,
    pub limits: ServerLimits,
    pub drain: Drain,
    /// Workers of this proxy, which share what is allowed together.
    pub workers: usize,
    /// Failures of our workload's calls.
    pub spent: Spent,
}

impl Outbound {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            own,
            discovery,
            identity,
            telemetry,
            limits,
            drain,
            workers,
            spent,
        } = parts;
        Self {
            discovery,
            telemetry,
            source: Text::try_from(&*own.workload).unwrap_or_default(),
            endpoints: Endpoints::new(identity, endpoint::Limits::default()),
            balancer: Balancer::new(workers, own.zone.clone()),
            party: Party::of(&own),
            own,
            spent,
            learnt: Learnt::default(),
            latest: Latest::default(),
            workers: Rc::default(),
            carriers: Rc::default(),
            recent: RefCell::default(),
            checks: Checks::default(),
            copies: Rc::default(),
            draws: Draws::new(rand::random()),
            random: RefCell::new(SmallRng::from_os_rng()),
            limits,
            drain,
        }
    }

    /// Serves one connection of our workload to its end.
    pub async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            original_destination,
            held,
        } = accepted;
        let open = self.telemetry.connection_opened(Direction::Outbound);
        let (reader, writer) = split(stream, BytesMut::new());
        let client = Client {
            reader,
            writer,
            address: peer,
        };
        match original_destination {
            Some(address) => {
                if let Some(known) = Box::pin(self.look_at(address, client)).await {
                    self.serve_known(known).await;
                }
            }
            None => Box::pin(self.serve_explicit(client)).await,
        }
        drop((open, held));
    }

    /// The application speaks HTTP to us and says in each request where it wants to go.
    async fn serve_explicit(self: &Rc<Self>, mut client: Client) {
        let protocol = client_first(&mut client.reader).await;
        let requests = Rc::new(OutboundRequests::explicit(self.clone(), client.address));
        match protocol {
            // Opaque bytes can't say where they want to go, so whatever this is, it was meant as HTTP.
            Some(Protocol::Http1 | Protocol::Tcp) => {
                let Client {
                    reader,
                    writer,
                    address,
                } = client;
                let served = serve_http1(
                    reader,
                    writer,
                    requests,
                    &self.limits,
                    self.drain.clone(),
                    true,
                );
                if let Ended::Connect {
                    authority,
                    reader,
                    writer,
                } = served.await
                {
                    Box::pin(self.serve_connect(
                        &authority,
                        Client {
                            reader,
                            writer,
                            address,
                        },
                    ))
                    .await;
                }
            }
            Some(Protocol::Http2) => Box::pin(self.serve_http2(client, requests)).await,
            Some(Protocol::Tls) => {
                self.refuse::<()>(client, Fault::MalformedRequest);
            }
            None => {}
        }
    }

    /// After CONNECT the connection is as one that was intercepted on its way to that host.
    async fn serve_connect(self: &Rc<Self>, authority: &str, mut client: Client) {
        let destination = match self.find_authority(authority, None).await {
            Ok(destination) => destination,
            Err(fault) => {
                self.telemetry.refused(Direction::Outbound, fault);
                http::refuse_connect(&mut client.writer, fault).await;
                return;
            }
        };
        client
            .writer
            .buffer
            .extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
        if client.writer.flush().await.is_ok()
            && let Some(known) = Box::pin(self.find_protocol(destination, client)).await
        {
            self.serve_known(known).await;
        }
    }

    /// Finds out everything about a connection that was on its way to `address`; nothing where it is over.
    async fn look_at(self: &Rc<Self>, address: SocketAddr, client: Client) -> Option<Box<Known>> {
        match self.find_address(address).await {
            Ok(destination) => Box::pin(self.find_protocol(destination, client)).await,
            Err(fault) => self.refuse(client, fault),
        }
    }

    /// One destination for the whole connection.
    async fn find_protocol(
        self: &Rc<Self>,
        destination: Destination,
        mut client: Client,
    ) -> Option<Box<Known>> {
        if let Destination::Service(port) = &destination {
            match self.route(port).await {
                Ok(route) if !route.tls_rules.is_empty() => {
                    return Box::pin(self.find_tls_route(destination, &route, client)).await;
                }
                Ok(_) => {}
                Err(fault) => return self.refuse(client, fault),
            }
        }
        let configured = match self.protocol_of(&destination).await {
            Ok(configured) => configured,
            Err(fault) => return self.refuse(client, fault),
        };
        let (protocol, upstream) = match configured {
            // The client says which version, or turns out to speak something else.
            Some(protocol) if protocol.is_http() => (client_first(&mut client.reader).await?, None),
            Some(protocol) => (protocol, None),
            None if self.learnt.speaks_first(&destination) => (Protocol::Tcp, None),
            None => match Box::pin(self.detect(&destination, &mut client)).await {
                Ok(detected) => detected?,
                Err(fault) => return self.refuse(client, fault),
            },
        };
        Some(Box::new(Known {
            destination,
            client,
            protocol,
            upstream,
        }))
    }

    /// Nothing is known of the destination: both sides are looked at.
    async fn detect(
        &self,
        destination: &Destination,
        client: &mut Client,
    ) -> Result<Option<(Protocol, Option<tcp::Upstream>)>, Fault> {
        let open = self.open_tcp(destination, Protocol::Tcp);
        Ok(match either_first(&mut client.reader, open).await? {
            Detected::Client(protocol, upstream) => Some((protocol, upstream)),
            Detected::Server(upstream) => {
                self.learnt.remember_server_first(destination);
                Some((Protocol::Tcp, Some(upstream)))
            }
            Detected::End => None,
        })
    }

    /// Serves a connection of which everything is known. What it rests in is all that is kept of it.
    fn serve_known(self: &Rc<Self>, mut known: Box<Known>) -> LocalBoxFuture<'_, ()> {
        let connects = known.client.reader.buffer.starts_with(b"CONNECT ");
        if known.protocol == Protocol::Http1 && connects {
            // A client that speaks to a forward proxy of its own is none of our business.
            known.protocol = Protocol::Tcp;
        }
        if !known.protocol.is_http() {
            return Box::pin(self.serve_tcp(known));
        }
        let Known {
            destination,
            client,
            protocol,
            ..
        } = *known;
        let address = client.address;
        let requests = Rc::new(OutboundRequests::fixed(self.clone(), destination, address));
        if protocol == Protocol::Http2 {
            return Box::pin(self.serve_http2(client, requests));
        }
        let Client { reader, writer, .. } = client;
        let drain = self.drain.clone();
        let served = serve_http1(reader, writer, requests, &self.limits, drain, false);
        Box::pin(served.map(drop))
    }

    async fn serve_http2(&self, client: Client, requests: Rc<OutboundRequests>) {
        if let Some((stream, peeked)) = client.reader.reunite(client.writer) {
            let io = ReadAhead::new(stream, peeked);
            Box::pin(serve_http2(
                io,
                requests,
                &self.limits,
                self.drain.clone(),
                None,
            ))
            .await;
        }
    }

    /// There is no protocol in which the client could be told: it gets a reset, and nothing is left of it.
    fn refuse<T>(&self, mut client: Client, fault: Fault) -> Option<T> {
        debug!(client = %client.address, reason = fault.reason(), "outbound connection refused");
        self.telemetry.refused(Direction::Outbound, fault);
        client.writer.reset();
        None
    }

    /// Finds out whose other end is gone; to be called each [`WATCH_EVERY`](crate::endpoint::WATCH_EVERY).
    pub fn watch(&self) {
        self.endpoints.watch();
    }

    /// Lets go of what is idle or forgotten; to be called every second or so.
    pub fn sweep(&self) {
        self.endpoints.sweep();
        self.learnt.sweep();
        self.latest.sweep();
        self.workers.sweep();
        self.carriers.sweep();
    }
}

/// Our workload's end of a connection.
struct Client {
    reader: Reader,
    writer: Writer,
    address: SocketAddr,
}

/// What was found out of a connection. It is handed on and not called from where it was found out, so that an idle
/// connection is no larger than the step it rests in.
struct Known {
    destination: Destination,
    client: Client,
    protocol: Protocol,
    /// Opened already, where the client's first bytes didn't tell soon enough.
    upstream: Option<tcp::Upstream>,
}
