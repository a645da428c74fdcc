//! Connections that were redirected here on their way to the application: from callers without a
//! sidecar, in plaintext or in the application's own TLS.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::http::PlainRequests;
use super::{Client, HOP_ALPN, Inbound};
use crate::authorization::decide;
use crate::detect::client_hello;
use crate::endpoint::TcpUpstream;
use crate::http::{serve_http1, serve_http2};
use crate::model::{Fault, Protocol};
use crate::tcp::{Detected, ReadAhead, client_first, either_first};

/// A client that policy lets reach nothing is closed if its first bytes haven't told by then what it speaks.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);

impl Inbound {
    pub(super) async fn serve_intercepted(
        self: &Rc<Self>,
        mut client: Client,
        destination: SocketAddr,
    ) {
        if self.own.ports.contains(&destination.port()) {
            return self.refuse(
                client,
                Fault::Loop,
                "redirected on its way to the proxy itself",
            );
        }
        match self.configured(destination.port()) {
            None | Some(Protocol::Http1 | Protocol::Http2)
                if decide(None, self.policy).is_err() =>
            {
                Box::pin(self.serve_refused(client, destination)).await;
            }
            Some(protocol) if protocol.is_http() => {
                if let Some(protocol) = client_first(&mut client.reader).await {
                    Box::pin(self.serve_protocol(client, destination, protocol, None)).await;
                }
            }
            Some(protocol) => {
                Box::pin(self.serve_plain_tcp(client, destination, protocol, None)).await
            }
            None => {
                let open = self.open_application(destination);
                match Box::pin(either_first(&mut client.reader, open)).await {
                    Ok(Detected::Client(protocol, upstream)) => {
                        Box::pin(self.serve_protocol(client, destination, protocol, upstream))
                            .await;
                    }
                    Ok(Detected::Server(upstream)) => {
                        Box::pin(self.serve_plain_tcp(
                            client,
                            destination,
                            Protocol::Tcp,
                            Some(upstream),
                        ))
                        .await;
                    }
                    Ok(Detected::End) => {}
                    Err(fault) => self.refuse(client, fault, "the application takes no connection"),
                }
            }
        }
    }

    /// A client that policy lets reach nothing: the application sees no connection of it. HTTP is told so, whatever else
    /// it speaks is closed.
    async fn serve_refused(self: &Rc<Self>, mut client: Client, destination: SocketAddr) {
        let protocol = match timeout(REFUSED_TIMEOUT, client_first(&mut client.reader)).await {
            Ok(Some(protocol)) => protocol,
            Ok(None) => return,
            Err(_) => Protocol::Tcp,
        };
        Box::pin(self.serve_protocol(client, destination, protocol, None)).await;
    }

    async fn serve_protocol(
        self: &Rc<Self>,
        client: Client,
        application: SocketAddr,
        protocol: Protocol,
        upstream: Option<TcpUpstream>,
    ) {
        let tunnel = client.reader.buffer.starts_with(b"CONNECT ");
        let requests = || {
            Rc::new(PlainRequests {
                inbound: self.clone(),
                application,
                client: client.address,
                caller: Rc::default(),
            })
        };
        match protocol {
            Protocol::Http1 if !tunnel => {
                let requests = requests();
                let Client { reader, writer, .. } = client;
                serve_http1(
                    reader,
                    writer,
                    requests,
                    &self.limits,
                    self.drain.clone(),
                    false,
                )
                .await;
            }
            Protocol::Http2 => {
                let requests = requests();
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
            // Another sidecar dials the inbound port itself; whoever sent it here changed its way.
            Protocol::Tls if is_hop(&client.reader.buffer) => {
                self.refuse(
                    client,
                    Fault::Loop,
                    "another sidecar's connection was redirected",
                );
            }
            Protocol::Tls | Protocol::Tcp | Protocol::Http1 => {
                Box::pin(self.serve_plain_tcp(client, application, protocol, upstream)).await;
            }
        }
    }
}

fn is_hop(bytes: &[u8]) -> bool {
    matches!(client_hello(bytes), Ok(Some(hello)) if hello.alpn.iter().any(|name| name == HOP_ALPN))
}
