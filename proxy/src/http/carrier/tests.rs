//! A client, what carries its requests, and an application, over either version of HTTP and in one thread.

use std::ops::ControlFlow;
use std::time::{Duration, Instant as StdInstant};

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;
use http::{Method, StatusCode, Version};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, timeout};

use super::*;
use crate::http::exchange::grpc_status;
use crate::http::{Piece, Serve, ServerLimits, Told, Workers, respond, serve_http1, serve_http2};
use crate::http1::{self, BodyDecoder, Decoded};
use crate::http2::{self, Limits, Role};
use crate::model::{FieldValue, Fields, RequestHead, Text};
use crate::multiplex::{Accepted, StreamReceiver, StreamSender};
use crate::tcp::{Reader, split};

/// Carries every request to one connection, and notes how each ended.
#[derive(Default)]
struct Porter {
    workers: Rc<Workers<Porter>>,
    carriers: Rc<Carriers<Trip>>,
    upstream: RefCell<Option<Reached>>,
    /// Path, and what came of it.
    ended: RefCell<Vec<(String, String)>>,
}

/// Where the application is reached.
#[derive(Clone)]
enum Reached {
    /// With what serves the other end.
    Http1(Rc<Line>, AbortHandle),
    Http2(Rc<Multiplex>),
}

impl Reached {
    /// Whether it has a request.
    fn is_asked(&self) -> bool {
        match self {
            Self::Http1(line, _) => line.is_serving(),
            Self::Http2(connection) => connection.has_streams(),
        }
    }

    fn lose(&self) {
        match self {
            Self::Http1(_, server) => server.abort(),
            Self::Http2(connection) => connection.lose("tried"),
        }
    }
}

#[derive(Default)]
struct Trip(Option<Rc<Porter>>);

impl Porter {
    fn upstream(&self) -> Reached {
        self.upstream.borrow().clone().unwrap()
    }

    fn carry(self: &Rc<Self>, request: Request<'static>, at: StdInstant) {
        assert_ne!(request.head.path, "/panic-at-once");
        let deadline = request.head.path.ends_with("late").then(|| Deadline {
            at: Instant::now() + Duration::from_millis(20),
            fault: Fault::RequestTimeout,
        });
        let terms = Terms {
            deadline,
            ..Terms::default()
        };
        let upstream = self.upstream();
        let lead = match &upstream {
            Reached::Http1(line, _) => Lead::Line(line),
            Reached::Http2(connection) => Lead::Stream(connection, None),
        };
        let load = Load::new(&self.carriers, request);
        load.with(|request, trip, passage| {
            trip.0 = Some(self.clone());
            passage.set_out(request, lead, &terms);
        });
        carry(load, at);
    }
}

impl Serve for Porter {
    async fn serve(&self, _: &mut Request<'_>) {
        panic!("everything is carried");
    }

    fn refused(&self, _: Told, _: Version) {}

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.workers
    }

    fn carry<'d>(self: &Rc<Self>, accepted: Accepted<'d>) -> ControlFlow<(), Accepted<'d>> {
        let Accepted {
            head,
            receiver,
            sender,
            at,
        } = accepted;
        let head = head.take().unwrap().unwrap();
        Porter::carry(self, Request::of_stream(head, receiver, sender), at);
        ControlFlow::Break(())
    }

    fn begin(
        self: &Rc<Self>,
        request: Request<'static>,
        at: StdInstant,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        Porter::carry(self, request, at);
        None
    }
}

impl Errand for Trip {
    fn again(&self, head: &ResponseHead) -> bool {
        head.status == StatusCode::BAD_GATEWAY
    }

    fn change(&mut self, head: &mut ResponseHead, _: StdInstant) {
        assert_ne!(head.status, StatusCode::IM_A_TEAPOT);
        head.headers
            .set("x-changed".parse().unwrap(), FieldValue::from_static("1"));
    }

    fn over(
        &mut self,
        request: &mut Option<Request<'static>>,
        ended: Result<Outcome, Failure>,
        _: StdInstant,
    ) {
        let said = match &ended {
            Ok(Outcome {
                fault: Some(fault), ..
            }) => format!("broken off: {}", fault.reason()),
            Ok(outcome) => format!(
                "{} {:?} {}",
                outcome.status.as_u16(),
                outcome.grpc_status,
                outcome.response_bytes
            ),
            Err(Failure::Unanswered(failed)) => failed.fault.reason().to_owned(),
            Err(Failure::Again(outcome)) => format!("again: {}", outcome.status.as_u16()),
            Err(Failure::ClientGone) => "client gone".to_owned(),
        };
        let path = request.as_ref().unwrap().head.path.to_string();
        self.0
            .as_ref()
            .unwrap()
            .ended
            .borrow_mut()
            .push((path, said));
        // Served on by a task, as a request is that has no answer yet.
        if let Err(Failure::Unanswered(failed)) = ended {
            let responder = request.take().and_then(|request| request.responder);
            spawn_local(async move {
                let _ = respond(responder.unwrap(), Told::of(failed.fault, false)).await;
            });
        }
    }

    fn carriers(&self) -> Option<&Rc<Carriers<Self>>> {
        Some(&self.0.as_ref()?.carriers)
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

/// Answers as the path asks.
#[derive(Default)]
struct Application {
    workers: Rc<Workers<Application>>,
}

fn head(status: u16) -> ResponseHead {
    ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    }
}

impl Serve for Application {
    async fn serve(&self, request: &mut Request<'_>) {
        let mut responder = request.responder.take().unwrap();
        let path = request.head.path.to_string();
        match &*path {
            "/reset" => return responder.reset(ErrorCode::INTERNAL_ERROR),
            "/silent-late" | "/silent" => return std::future::pending().await,
            "/hints" => {
                let hints = responder.informational(head(103)).await;
                hints.unwrap();
            }
            _ => {}
        }
        let status = match &*path {
            "/teapot" => 418,
            "/again" => 502,
            _ => 200,
        };
        let empty = path == "/empty";
        let mut sink = responder.respond(head(status), empty).unwrap();
        match &*path {
            "/empty" | "/early" => {
                let _ = sink.finish(Fields::new()).await;
            }
            "/broken" => {
                sink.flush().await.unwrap();
                sink.reset(ErrorCode::INTERNAL_ERROR);
            }
            "/slow-late" => {
                sink.flush().await.unwrap();
                std::future::pending().await
            }
            _ => {
                let trailers = loop {
                    match request.body.next().await {
                        Ok(Piece::Data(data)) => sink.data(data).await.unwrap(),
                        Ok(Piece::End(trailers)) => break trailers,
                        Err(_) => return sink.reset(ErrorCode::CANCEL),
                    }
                };
                let _ = sink.finish(trailers).await;
            }
        }
    }

    fn refused(&self, _: Told, _: Version) {}

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.workers
    }
}

/// Which HTTP one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Http1,
    Http2,
}

/// What carries requests to an application that is reached by this HTTP.
async fn start(side: Side) -> Rc<Porter> {
    let porter = Rc::new(Porter::default());
    let application = Rc::new(Application::default());
    let reached = match side {
        Side::Http1 => {
            let (ours, theirs) = pair().await;
            let serving = spawn_local(serve_line(theirs, application)).abort_handle();
            let (reader, writer) = split(ours, BytesMut::new());
            let line = Line::new(reader, writer, http1::Limits::default(), Role::Client);
            spawn_local(line.clone().drive());
            Reached::Http1(line, serving)
        }
        Side::Http2 => Reached::Http2(connect(application).await),
    };
    porter.upstream.replace(Some(reached));
    porter
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap());
    let ours = ours.await.unwrap();
    (ours, listener.accept().await.unwrap().0)
}

async fn serve_line<S: Serve>(stream: TcpStream, service: Rc<S>) {
    let (_draining, drain) = watch::channel(false);
    let (reader, writer) = split(stream, BytesMut::new());
    let limits = ServerLimits::default();
    serve_http1(reader, writer, service, &limits, drain, false).await;
}

async fn connect<S: Serve>(service: Rc<S>) -> Rc<Multiplex> {
    let (mut ours, theirs) = tokio::io::duplex(16 * 1024);
    spawn_local(async move {
        let (_draining, drain) = watch::channel(false);
        serve_http2(theirs, service, &ServerLimits::default(), drain, None).await;
    });
    let client = Multiplex::new(Role::Client, Limits::default());
    let driven = client.clone();
    spawn_local(async move { driven.drive(&mut ours, |_| {}).await });
    client.ping().await.unwrap();
    client
}

/// What a client of this HTTP sees of the answer to a POST.
async fn ask(
    side: Side,
    porter: &Rc<Porter>,
    path: &str,
    length: usize,
    trailers: &Fields,
) -> String {
    let trailers = trailers.clone();
    if side == Side::Http2 {
        let client = connect(porter.clone()).await;
        let (sender, receiver) = open(&client, path, false);
        let sent = spawn_local(async move { send(sender, length, &trailers).await });
        let seen = read(receiver).await;
        sent.abort();
        return seen;
    }
    let (ours, theirs) = pair().await;
    spawn_local(serve_line(theirs, porter.clone()));
    let (mut reader, mut writer) = split(ours, BytesMut::new());
    let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    let sent = spawn_local(async move {
        let mut body = BytesMut::from(head.as_bytes());
        if length > 0 {
            body.extend_from_slice(format!("{length:x}\r\n").as_bytes());
            body.resize(body.len() + length, 7);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n");
        for (name, value) in &trailers {
            body.extend_from_slice(format!("{name}: ").as_bytes());
            body.extend_from_slice(value.as_bytes());
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"\r\n");
        // An application that answers early takes none of it.
        let _ = writer.write(body.freeze()).await;
        let _ = writer.flush().await;
        std::future::pending::<()>().await;
    });
    let seen = read_line(&mut reader).await;
    sent.abort();
    seen
}

/// As [`read`], on a connection of HTTP/1.
async fn read_line(reader: &mut Reader) -> String {
    let limits = http1::Limits::default();
    let mut seen = String::new();
    let mut decoder = loop {
        let received = http1::receive_response(&mut reader.buffer, &Method::POST, &limits);
        let Some(received) = received.unwrap() else {
            if !matches!(reader.fill().await, Ok(1..)) {
                return format!("{seen}broken");
            }
            continue;
        };
        seen += &shown(&received.head);
        if !received.head.status.is_informational() {
            break BodyDecoder::new(received.body);
        }
    };
    let mut bytes = 0;
    loop {
        match decoder.decode(&mut reader.buffer, &limits).unwrap() {
            Some(Decoded::Data(data)) => bytes += data.len(),
            Some(Decoded::End(trailers)) => {
                let status = grpc_status(&trailers);
                let status = status.map(|status| format!(" {:?}", Some(status)));
                return format!("{seen}{bytes}{}", status.unwrap_or_default());
            }
            None if matches!(reader.fill().await, Ok(1..)) => {}
            None => return format!("{seen}broken"),
        }
    }
}

fn shown(head: &ResponseHead) -> String {
    let changed = head.headers.contains("x-changed");
    let mark = if changed { "*" } else { "" };
    format!("{}{mark} ", head.status.as_u16())
}

fn open(client: &Rc<Multiplex>, path: &str, end: bool) -> (StreamSender, StreamReceiver) {
    let head = RequestHead {
        method: Method::POST,
        scheme: None,
        authority: Some(Text::from_static("test")),
        path: Text::try_from(path).unwrap(),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    };
    client.open(&head, |_| {}, end).unwrap()
}

/// What the client sees of an answer.
async fn read(mut receiver: StreamReceiver) -> String {
    let (mut seen, mut bytes) = (String::new(), 0);
    loop {
        match receiver.next().await {
            Ok(Some(http2::Piece::Head(head))) => seen += &shown(&head),
            Ok(Some(http2::Piece::Data(data))) => bytes += data.len(),
            Ok(Some(http2::Piece::Trailers(trailers))) => {
                let status = grpc_status(&trailers);
                return format!("{seen}{bytes} {status:?}");
            }
            Ok(None) => return format!("{seen}{bytes}"),
            Err(failure) => return format!("{seen}{}", failure.code),
        }
    }
}

async fn send(mut sender: StreamSender, length: usize, trailers: &Fields) {
    // An application that answers early takes none of it.
    if length > 0 {
        let _ = sender.data(Bytes::from(vec![7; length])).await;
    }
    let _ = sender.finish(trailers);
}

/// Runs a test that ends, or fails.
async fn run(test: impl Future<Output = ()>) {
    let limit = timeout(Duration::from_secs(20), test);
    LocalSet::new().run_until(limit).await.expect("it hangs");
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        yield_now().await;
    }
}

#[tokio::test]
async fn what_the_client_sees_and_how_it_ended() {
    use Side::{Http1, Http2};
    const SIDES: [(Side, Side); 4] = [
        (Http1, Http1),
        (Http1, Http2),
        (Http2, Http1),
        (Http2, Http2),
    ];
    let check = async |path: &str, length: usize, seen: &str, ended: &str| {
        for (client, application) in SIDES {
            let what = format!("{path} {client:?} to {application:?}");
            let porter = start(application).await;
            let mut trailers = Fields::new();
            if path == "/grpc" {
                trailers.set("grpc-status".parse().unwrap(), FieldValue::from(5));
            }
            let asked = ask(client, &porter, path, length, &trailers).await;
            if client == Http1
                && ["INTERNAL_ERROR", "CANCEL"]
                    .iter()
                    .any(|end| seen.ends_with(end))
            {
                // A reset has no reason, and may overtake what was gathered before it.
                assert!(asked.ends_with("broken"), "{what}: {asked}");
            } else {
                assert_eq!(asked, seen, "{what}");
            }
            until(|| !porter.ended.borrow().is_empty()).await;
            let expected = [(path.to_owned(), ended.to_owned())];
            assert_eq!(*porter.ended.borrow(), expected, "{what}");
            // Nothing is left of it on the connection to the application, and its carrier is kept.
            let upstream = porter.upstream();
            until(|| !upstream.is_asked()).await;
            assert_eq!(porter.carriers.0.borrow().len(), 1, "{what}");
        }
    };
    let rows = async {
        check("/", 0, "200* 0", "200 None 0").await;
        check("/", 5, "200* 5", "200 None 5").await;
        check("/empty", 0, "200* 0", "200 None 0").await;
        // More than windows, buffers and the duplex hold.
        check("/", 10_000_000, "200* 10000000", "200 None 10000000").await;
        check("/grpc", 3, "200* 3 Some(5)", "200 Some(5) 3").await;
        check("/hints", 1, "103 200* 1", "200 None 1").await;
        check("/early", 10_000_000, "200* 0", "200 None 0").await;
        let refused = "503 77";
        check("/reset", 3, refused, "upstream_reset").await;
        let broken = "200* INTERNAL_ERROR";
        check("/broken", 3, broken, "broken off: upstream_reset").await;
        let late = "504 64";
        check("/silent-late", 3, late, "request_timeout").await;
        let late = "200* CANCEL";
        check("/slow-late", 3, late, "broken off: request_timeout").await;
        check("/again", 3, "CANCEL", "again: 502").await;
    };
    run(rows).await;
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed() {
    let test = async {
        for side in [Side::Http1, Side::Http2] {
            let porter = start(side).await;
            let upstream = porter.upstream();
            let client = connect(porter.clone()).await;
            let (sender, receiver) = open(&client, "/silent", true);
            until(|| upstream.is_asked()).await;
            drop((sender, receiver));
            until(|| !upstream.is_asked()).await;
            let expected = [("/silent".to_owned(), "client gone".to_owned())];
            assert_eq!(*porter.ended.borrow(), expected);

            // The same with its whole connection.
            let porter = start(side).await;
            let upstream = porter.upstream();
            let client = connect(porter.clone()).await;
            let _waiting = open(&client, "/silent", true);
            until(|| upstream.is_asked()).await;
            client.lose("given up");
            until(|| !upstream.is_asked()).await;
            assert_eq!(*porter.ended.borrow(), expected);

            // And over HTTP/1, where its kernel has to be asked.
            let porter = start(side).await;
            let upstream = porter.upstream();
            let (ours, theirs) = pair().await;
            spawn_local(serve_line(theirs, porter.clone()));
            let (_, mut writer) = split(ours, BytesMut::new());
            let head = Bytes::from_static(b"GET /silent HTTP/1.1\r\nhost: test\r\n\r\n");
            writer.write(head).await.unwrap();
            writer.flush().await.unwrap();
            until(|| upstream.is_asked()).await;
            drop(writer);
            until(|| !upstream.is_asked()).await;
            assert_eq!(*porter.ended.borrow(), expected);
        }
    };
    run(test).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_answers_its_streams() {
    let test = async {
        for side in [Side::Http1, Side::Http2] {
            let porter = start(side).await;
            let client = connect(porter.clone()).await;
            let (_sender, receiver) = open(&client, "/silent", true);
            let upstream = porter.upstream();
            until(|| upstream.is_asked()).await;
            upstream.lose();
            assert_eq!(read(receiver).await, "503 77");
            assert_eq!(porter.ended.borrow()[0].1, "upstream_reset");
        }
    };
    run(test).await;
}

#[tokio::test]
async fn a_panic_takes_one_stream() {
    let test = async {
        let porter = start(Side::Http2).await;
        let client = connect(porter.clone()).await;
        let (sender, receiver) = open(&client, "/", false);
        for path in ["/panic-at-once", "/teapot"] {
            let (_sender, broken) = open(&client, path, true);
            assert_eq!(read(broken).await, "CANCEL", "{path}");
        }
        let teapot = ask(Side::Http1, &porter, "/teapot", 0, &Fields::new()).await;
        assert_eq!(teapot, "broken");
        send(sender, 9, &Fields::new()).await;
        assert_eq!(read(receiver).await, "200* 9");
        assert_eq!(porter.ended.borrow().len(), 1);
    };
    run(test).await;
}

/// Requests that come at once are answered one after the other, and a reader that stands still is waited for.
#[tokio::test]
async fn requests_that_come_at_once_on_a_line() {
    let test = async {
        for side in [Side::Http1, Side::Http2] {
            let porter = start(side).await;
            let (ours, theirs) = pair().await;
            spawn_local(serve_line(theirs, porter.clone()));
            let (mut reader, mut writer) = split(ours, BytesMut::new());
            let length = 30_000_000;
            let mut requests = BytesMut::new();
            for path in ["/a", "/empty", "/b"] {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n"
                );
                requests.extend_from_slice(head.as_bytes());
                requests.resize(requests.len() + length, 7);
            }
            let sent = spawn_local(async move {
                let _ = writer.write(requests.freeze()).await;
                writer
            });
            // The sockets' buffers are full now, and nothing moves.
            until(|| porter.upstream().is_asked()).await;
            for _ in 0..1000 {
                yield_now().await;
            }
            assert!(!sent.is_finished());
            assert_eq!(read_line(&mut reader).await, "200* 30000000");
            // What nobody took of the second one's body ends the connection after its answer.
            assert_eq!(read_line(&mut reader).await, "200* 0");
            assert_eq!(read_line(&mut reader).await, "broken");
            assert_eq!(porter.ended.borrow().len(), 2);
        }
    };
    run(test).await;
}
