//! A client, what carries its requests, and an application, all over HTTP/2 and in one thread.

use std::ops::ControlFlow;
use std::time::{Duration, Instant as StdInstant};

use http::{Method, StatusCode, Version};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, timeout};

use super::super::{Deadline, Serve, ServerLimits, Told, Workers, respond, serve_http2};
use super::*;
use crate::http2::{Limits, Role};
use crate::model::{FieldValue, RequestHead, Text};
use crate::multiplex::Accepted;

/// Carries every request to one connection, and notes how each ended.
#[derive(Default)]
struct Porter {
    workers: Rc<Workers<Porter>>,
    carriers: Rc<Carriers<Trip>>,
    upstream: RefCell<Option<Rc<Multiplex>>>,
    /// Path, and what came of it.
    ended: RefCell<Vec<(String, String)>>,
}

#[derive(Default)]
struct Trip(Option<Rc<Porter>>);

impl Serve for Porter {
    async fn serve(&self, _: &mut Request<'_>) {
        panic!("everything is carried");
    }

    fn refused(&self, _: Fault, _: Version) {}

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
        let request = Request::of_stream(head, receiver, sender);
        assert_ne!(request.head.path, "/panic-at-once");
        let deadline = request.head.path.ends_with("late").then(|| Deadline {
            at: Instant::now() + Duration::from_millis(20),
            fault: Fault::RequestTimeout,
        });
        let terms = Terms {
            deadline,
            ..Terms::default()
        };
        let upstream = self.upstream.borrow().clone().unwrap();
        let load = Load::new(&self.carriers, request);
        load.with(|request, trip, passage| {
            trip.0 = Some(self.clone());
            passage.set_out(request, (&upstream, None), &terms);
        });
        carry(load, at);
        ControlFlow::Break(())
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
            "/broken" => sink.reset(ErrorCode::INTERNAL_ERROR),
            "/slow-late" => std::future::pending().await,
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

    fn refused(&self, _: Fault, _: Version) {}

    fn workers(&self) -> &Rc<Workers<Self>> {
        &self.workers
    }
}

/// The two ends of a mesh: whom requests are sent to, and what carries them.
async fn start() -> (Rc<Multiplex>, Rc<Porter>) {
    let porter = Rc::new(Porter::default());
    let to_application = connect(Rc::new(Application::default()));
    to_application.ping().await.unwrap();
    porter.upstream.replace(Some(to_application));
    let client = connect(porter.clone());
    client.ping().await.unwrap();
    (client, porter)
}

fn connect<S: Serve>(service: Rc<S>) -> Rc<Multiplex> {
    let (mut ours, theirs) = tokio::io::duplex(16 * 1024);
    spawn_local(async move {
        let (_draining, drain) = watch::channel(false);
        serve_http2(theirs, service, &ServerLimits::default(), drain, None).await;
    });
    let client = Multiplex::new(Role::Client, Limits::default());
    let driven = client.clone();
    spawn_local(async move { driven.drive(&mut ours, |_| {}).await });
    client
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
            Ok(Some(http2::Piece::Head(head))) => {
                let changed = head.headers.contains("x-changed");
                let mark = if changed { "*" } else { "" };
                seen += &format!("{}{mark} ", head.status.as_u16());
            }
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
    let check = async |path: &str, length: usize, seen: &str, ended: &str| {
        let (client, porter) = start().await;
        let (sender, receiver) = open(&client, path, false);
        let mut trailers = Fields::new();
        if path == "/grpc" {
            trailers.set("grpc-status".parse().unwrap(), FieldValue::from(5));
        }
        let sent = spawn_local(async move { send(sender, length, &trailers).await });
        assert_eq!(read(receiver).await, seen, "{path}");
        sent.abort();
        until(|| !porter.ended.borrow().is_empty()).await;
        let expected = [(path.to_owned(), ended.to_owned())];
        assert_eq!(*porter.ended.borrow(), expected, "{path}");
        // Nothing is left of it on the connection to the application, and its carrier is kept.
        let upstream = porter.upstream.borrow().clone().unwrap();
        until(|| !upstream.has_streams()).await;
        assert_eq!(porter.carriers.0.borrow().len(), 1, "{path}");
    };
    let rows = async {
        check("/", 0, "200* 0", "200 None 0").await;
        check("/", 5, "200* 5", "200 None 5").await;
        check("/empty", 0, "200* 0", "200 None 0").await;
        // More than the windows and the duplex hold.
        check("/", 1_000_000, "200* 1000000", "200 None 1000000").await;
        check("/grpc", 3, "200* 3 Some(5)", "200 Some(5) 3").await;
        check("/hints", 1, "103 200* 1", "200 None 1").await;
        check("/early", 1_000_000, "200* 0", "200 None 0").await;
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
        let (client, porter) = start().await;
        let (sender, receiver) = open(&client, "/silent", true);
        let upstream = porter.upstream.borrow().clone().unwrap();
        until(|| upstream.has_streams()).await;
        drop((sender, receiver));
        until(|| !upstream.has_streams()).await;
        let expected = [("/silent".to_owned(), "client gone".to_owned())];
        assert_eq!(*porter.ended.borrow(), expected);

        // The same with its whole connection.
        let _waiting = open(&client, "/silent", true);
        until(|| upstream.has_streams()).await;
        client.lose("given up");
        until(|| !upstream.has_streams()).await;
        assert_eq!(porter.ended.borrow().len(), 2);
    };
    run(test).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_answers_its_streams() {
    let test = async {
        let (client, porter) = start().await;
        let (_sender, receiver) = open(&client, "/silent", true);
        let upstream = porter.upstream.borrow().clone().unwrap();
        until(|| upstream.has_streams()).await;
        upstream.lose("tried");
        assert_eq!(read(receiver).await, "503 77");
        assert_eq!(porter.ended.borrow()[0].1, "upstream_reset");
    };
    run(test).await;
}

#[tokio::test]
async fn a_panic_takes_one_stream() {
    let test = async {
        let (client, porter) = start().await;
        let (sender, receiver) = open(&client, "/", false);
        for path in ["/panic-at-once", "/teapot"] {
            let (_sender, broken) = open(&client, path, true);
            assert_eq!(read(broken).await, "CANCEL", "{path}");
        }
        send(sender, 9, &Fields::new()).await;
        assert_eq!(read(receiver).await, "200* 9");
        assert_eq!(porter.ended.borrow().len(), 1);
    };
    run(test).await;
}
