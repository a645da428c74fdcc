//! The exchange between any two HTTP versions, over real sockets: a forwarder built of the proxy's
//! own rooms stands between a client and an application that are written byte by byte here.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use weft_proto::spiffe::SpiffeId;
use weft_proxy::endpoint::{Credentials, Endpoints, Limits};
use weft_proxy::http::{
    Failure, Request, Serve, ServerLimits, Terms, Told, Workers, exchange, exchange_upgrade,
    respond, serve_http1, serve_http2,
};
use weft_proxy::model::Protocol;
use weft_proxy::tcp::{ReadAhead, client_first, split};

struct NoCredentials;

impl Credentials for NoCredentials {
    fn client_config(&self, _: &SpiffeId) -> Option<Arc<ClientConfig>> {
        None
    }
    fn generation(&self) -> u64 {
        0
    }
    fn not_after(&self) -> Option<i64> {
        None
    }
}

/// Sends every request to one application.
struct Forwarder {
    endpoints: Endpoints<NoCredentials>,
    application: SocketAddr,
    protocol: Protocol,
    workers: Rc<Workers<Self>>,
}

impl Serve for Forwarder {
    async fn serve(&self, request: &mut Request<'_>) {
        let Request {
            head,
            body,
            responder,
        } = request;
        let mut opened = match self
            .endpoints
            .open_plain(self.application, self.protocol)
            .await
        {
            Ok(opened) => opened,
            Err(failed) => {
                let _ = respond(
                    responder.take().unwrap(),
                    Told::of(failed.fault, head.is_grpc()),
                )
                .await;
                return;
            }
        };
        let upstream = &mut opened.upstream;
        let ended = if head.upgrade.is_some() {
            exchange_upgrade(head, body, responder, upstream, false, Terms::default())
                .await
                .map(|(outcome, _)| outcome)
        } else {
            exchange(head, body, responder, upstream, Terms::default()).await
        };
        match ended {
            Ok(outcome) if outcome.reusable => self.endpoints.give_back(opened),
            Ok(_) | Err(Failure::ClientGone | Failure::Again(_)) => {}
            Err(Failure::Unanswered(failed)) => {
                if let Some(responder) = responder.take() {
                    let _ = respond(responder, Told::of(failed.fault, false)).await;
                }
            }
        }
    }

    fn refused(&self, _: Told, _: http::Version) {}

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.workers
    }
}

/// Runs `test` with the address of a forwarder in front of `application`.
async fn with_forwarder<F: Future<Output = ()>>(
    application: SocketAddr,
    protocol: Protocol,
    test: impl FnOnce(SocketAddr) -> F,
) {
    let local = LocalSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    local.spawn_local(async move {
        let forwarder = Rc::new(Forwarder {
            endpoints: Endpoints::new(NoCredentials, Limits::default()),
            application,
            protocol,
            workers: Rc::default(),
        });
        let (_keep, drain) = watch::channel(false);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (forwarder, drain) = (forwarder.clone(), drain.clone());
            tokio::task::spawn_local(async move {
                let (mut reader, writer) = split(stream, BytesMut::new());
                let limits = ServerLimits::default();
                match client_first(&mut reader).await {
                    Some(Protocol::Http2) => {
                        let (stream, peeked) = reader.reunite(writer).unwrap();
                        serve_http2(
                            ReadAhead::new(stream, peeked),
                            forwarder,
                            &limits,
                            drain,
                            None,
                        )
                        .await;
                    }
                    Some(_) => {
                        drop(serve_http1(reader, writer, forwarder, &limits, drain, false).await)
                    }
                    None => {}
                }
            });
        }
    });
    let limit = std::time::Duration::from_secs(20);
    local
        .run_until(tokio::time::timeout(limit, test(address)))
        .await
        .expect("the test hangs");
}

/// An application that reads until `request_end` has come in, answers with `answer`, and tells what
/// it read. `hold` keeps the connection open.
async fn application(
    request_end: &'static str,
    answer: &'static str,
) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let seen = read_until(&mut stream, request_end).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        seen
    });
    (address, task)
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).ends_with(end) {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(
            read > 0,
            "ended early: {:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(seen).unwrap()
}

/// One HTTP/1 exchange: what the application saw, and what the client got until `answer_end`.
async fn check_http1(
    request: &str,
    request_end: &'static str,
    answer: &'static str,
    answer_end: &str,
) -> (String, String) {
    let (address, task) = application(request_end, answer).await;
    let mut got = String::new();
    let result = &mut got;
    with_forwarder(address, Protocol::Http1, |proxy| async move {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        *result = read_until(&mut client, answer_end).await;
    })
    .await;
    (task.await.unwrap(), got)
}

#[tokio::test]
async fn http1_keeps_framing_and_drops_what_is_hop_by_hop() {
    let (seen, got) = check_http1(
        "POST /a?b HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\nhello",
        "hello",
        "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nX-A: b\r\n\r\nok",
        "ok",
    )
    .await;
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "POST /a?b HTTP/1.1",
            "content-length: 5",
            "host: orders",
            "x-end: 2"
        ]
    );
    assert_eq!(body, "hello");
    assert_eq!(
        got,
        "HTTP/1.1 201 Created\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok"
    );
}

#[tokio::test]
async fn http1_chunked_both_ways_with_trailers() {
    let (seen, got) = check_http1(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
        "x-sum: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 2\r\n\r\n",
        "x-end: 2\r\n\r\n",
    )
    .await;
    assert!(
        seen.ends_with("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"),
        "{seen}"
    );
    assert!(
        got.ends_with("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 2\r\n\r\n"),
        "{got}"
    );
}

#[tokio::test]
async fn http1_expect_continue_and_early_hints_pass() {
    let (address, _task) = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.contains("expect: 100-continue"), "{head}");
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
            read_until(&mut stream, "hello").await;
            stream
                .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
                .await
                .unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!")
                .await
                .unwrap();
        });
        (address, task)
    };
    with_forwarder(address, Protocol::Http1, |proxy| async move {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        let head =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let first = read_until(&mut client, "\r\n\r\n").await;
        assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").await.unwrap();
        let rest = read_until(&mut client, "!").await;
        assert!(
            rest.starts_with("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{rest}"
        );
    })
    .await;
}

#[tokio::test]
async fn http1_upgrade_becomes_a_tunnel_with_half_close() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        stream.write_all(b" bye").await.unwrap();
        (head, rest)
    });
    with_forwarder(address, Protocol::Http1, |proxy| async move {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let first = read_until(&mut client, "hi").await;
        assert!(
            first.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{first}"
        );
        client.write_all(b"data").await.unwrap();
        client.shutdown().await.unwrap();
        read_until(&mut client, " bye").await;
    })
    .await;
    let (head, rest) = task.await.unwrap();
    assert!(
        head.contains("connection: upgrade\r\nupgrade: echo\r\n"),
        "{head}"
    );
    assert_eq!(rest, "data");
}

#[tokio::test]
async fn a_truncated_answer_is_not_passed_off_as_whole() {
    let (address, _task) = application(
        "\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    )
    .await;
    with_forwarder(address, Protocol::Http1, |proxy| async move {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut got = Vec::new();
        let ended = client.read_to_end(&mut got).await;
        assert!(ended.is_err() || !got.ends_with(b"abcdefghij"));
        assert!(!String::from_utf8_lossy(&got).ends_with("0\r\n\r\n"));
    })
    .await;
}

#[tokio::test]
async fn http2_client_to_http1_application_and_back() {
    let (address, task) = application(
        "0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 2\r\n\r\n",
    )
    .await;
    with_forwarder(address, Protocol::Http1, |proxy| async move {
        let stream = TcpStream::connect(proxy).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut send = send.ready().await.unwrap();
        let request = http::Request::post("http://orders/x")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let (response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"abc"), true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "ok");
        assert!(response.body_mut().data().await.is_none());
        let trailers = response.body_mut().trailers().await.unwrap().unwrap();
        assert_eq!(trailers["x-end"], "2");
    })
    .await;
    let seen = task.await.unwrap();
    assert_eq!(
        seen,
        "POST /x HTTP/1.1\r\nhost: orders\r\ncookie: a=1; b=2\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
}

#[tokio::test]
async fn http1_client_to_http2_application() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let (parts, mut body) = request.into_parts();
        let mut seen = Vec::new();
        while let Some(data) = body.data().await {
            seen.extend_from_slice(&data.unwrap());
        }
        let mut send = respond
            .send_response(
                http::Response::builder().status(418).body(()).unwrap(),
                false,
            )
            .unwrap();
        send.send_data(Bytes::from_static(b"tea"), true).unwrap();
        (parts.uri.to_string(), String::from_utf8(seen).unwrap())
    });
    with_forwarder(address, Protocol::Http2, |proxy| async move {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client
            .write_all(b"POST /x HTTP/1.1\r\nHost: orders\r\nContent-Length: 3\r\n\r\nabc")
            .await
            .unwrap();
        let got = read_until(&mut client, "0\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 418 I'm a teapot\r\n"), "{got}");
        assert!(got.contains("3\r\ntea\r\n"), "{got}");
    })
    .await;
    assert_eq!(
        task.await.unwrap(),
        ("http://orders/x".to_owned(), "abc".to_owned())
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            let name = head.split(' ').nth(1).unwrap().to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    with_forwarder(address, Protocol::Http1, |proxy| async move {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        let requests: String = ["/1", "/2", "/3"]
            .map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .concat();
        client.write_all(requests.as_bytes()).await.unwrap();
        let got = read_until(&mut client, "/3").await;
        let bodies: Vec<&str> = got
            .split("\r\n\r\n")
            .skip(1)
            .map(|rest| &rest[..2])
            .collect();
        assert_eq!(bodies, ["/1", "/2", "/3"]);
    })
    .await;
}

#[tokio::test]
async fn large_bodies_flow_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        let rest = loop {
            let mut chunk = [0; 4096];
            let read = stream.read(&mut chunk).await.unwrap();
            seen.extend_from_slice(&chunk[..read]);
            if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break seen.split_off(end + 4);
            }
        };
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        stream.write_all(&rest).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    with_forwarder(address, Protocol::Http1, |proxy| async move {
        let stream = TcpStream::connect(proxy).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let sent: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
        let expected = sent.clone();
        let writing = async {
            write
                .write_all(
                    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n")
                        .as_bytes(),
                )
                .await
                .unwrap();
            write.write_all(&sent).await.unwrap();
        };
        let reading = async {
            let mut got = vec![0; SIZE + 64];
            let mut length = 0;
            while length < got.len() {
                length += read.read(&mut got[length..]).await.unwrap();
                if let Some(end) = got[..length]
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
                    && length == end + 4 + SIZE
                {
                    return got[end + 4..length].to_vec();
                }
            }
            Vec::new()
        };
        let ((), got) = tokio::join!(writing, reading);
        assert!(got == expected);
    })
    .await;
}

/// A shared connection that the pool lets go of is closed; it would stand for as long as its server
/// lets it.
#[tokio::test]
async fn a_connection_that_nobody_uses_any_more_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(request) = connection.accept().await {
            drop(request.unwrap());
        }
    });
    let test = async {
        let endpoints = Endpoints::new(NoCredentials, Limits::default());
        let opened = endpoints.open_plain(address, Protocol::Http2).await;
        let opened = opened.unwrap_or_else(|failed| panic!("{failed:?}"));
        drop(endpoints);
        assert!(!server.is_finished(), "a share of it is still held");
        drop(opened);
        server.await.unwrap();
    };
    let limit = std::time::Duration::from_secs(20);
    let local = LocalSet::new();
    local
        .run_until(tokio::time::timeout(limit, test))
        .await
        .expect("the connection still stands");
}
