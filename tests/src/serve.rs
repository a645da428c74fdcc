//! An HTTP application that answers with what it saw of a request, over HTTP/1 and h2c on the same
//! port.
//!
//! - `/bytes/N` answers with N bytes of the pattern, `/grpc/N` with N gRPC messages of 128 bytes, a
//!   frame each, once it has read the request; any other path with JSON: who answered, the
//!   head as it arrived, the body's length and SHA-256.
//! - `?delay=MS` waits before the head, `?status=N` sets the status, `?trailers=1` ends with
//!   trailers, `?pieces=N&every=MS` sends the JSON and then N lines, one each MS.
//! - With `--call`, each request makes one of its own, of the same trace, and is answered with 502 when that
//!   one fails.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore, watch};

use crate::{pattern, serve_admin};

/// Length of a gRPC message of `/grpc/N`, its prefix of five bytes included.
const GRPC_MESSAGE: usize = 128;

/// Options of `serve`.
#[derive(Args)]
pub struct Options {
    /// What this application calls itself in `x-served-by`.
    #[arg(long, default_value = "app")]
    name: String,
    /// Where to listen; may be given many times.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// How many ports in a row to open from each --listen on; each calls itself NAME-PORT.
    #[arg(long, default_value_t = 1)]
    ports: u16,
    /// Whom to call for each request: http://HOST/PATH.
    #[arg(long, requires = "via")]
    call: Option<http::Uri>,
    /// The HTTP proxy that calls go through.
    #[arg(long)]
    via: Option<SocketAddr>,
    /// Requests that are worked on at once; more wait for their turn.
    #[arg(long, requires = "work")]
    workers: Option<usize>,
    /// How long one is worked on.
    #[arg(long, requires = "workers")]
    work: Option<humantime::Duration>,
    /// Where to tell the count of requests, and to open and close ports.
    #[arg(long)]
    admin: Option<SocketAddr>,
}

/// What all connections of this process share.
pub struct Shared {
    /// Prefix of the name in `x-served-by`.
    name: String,
    /// Requests seen on every port, the refused ones too.
    pub requests: AtomicU64,
    /// Connections that are open.
    pub open: AtomicU64,
    /// Connections accepted on every port.
    pub connections: AtomicU64,
    /// Status and delay in milliseconds that requests get, and of a hundred how many; 0 leaves a request be.
    pub trouble: Trouble,
    /// Whom to call, and through which proxy.
    call: Option<(http::Uri, SocketAddr)>,
    /// Places to work at, and for how long one is taken.
    work: Option<(Semaphore, Duration)>,
    numbered: bool,
}

/// What goes wrong on purpose.
#[derive(Default)]
pub struct Trouble {
    pub status: AtomicU64,
    pub delay: AtomicU64,
    pub percent: AtomicU64,
    drawn: AtomicU64,
}

impl Trouble {
    /// Status and delay of the next request. Shares are spread evenly, so that tests can count on them.
    fn next(&self) -> (u64, u64) {
        let percent = self.percent.load(Ordering::Relaxed);
        let before = self.drawn.fetch_add(percent, Ordering::Relaxed);
        if before / 100 == (before + percent) / 100 {
            return (0, 0);
        }
        (
            self.status.load(Ordering::Relaxed),
            self.delay.load(Ordering::Relaxed),
        )
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;
type Answer = Response<StreamBody<Frames>>;

/// Serves until terminated, and then to the end of what was begun.
pub async fn run(options: Options) -> io::Result<()> {
    let shared = Arc::new(Shared {
        name: options.name,
        requests: AtomicU64::new(0),
        open: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        trouble: Trouble::default(),
        call: options.call.zip(options.via),
        work: options
            .workers
            .zip(options.work)
            .map(|(workers, work)| (Semaphore::new(workers), work.into())),
        numbered: options.ports > 1,
    });
    let mut open = serve_admin::OpenPorts::new(shared.clone());
    for first in options.listen {
        for offset in 0..options.ports {
            let mut address = first;
            address.set_port(first.port() + offset);
            open.open(address).await?;
        }
    }
    println!("listening");
    let open = Arc::new(Mutex::new(open));
    let mut terminated = signal(SignalKind::terminate())?;
    match options.admin {
        Some(address) => tokio::select! {
            ended = serve_admin::run(address, open.clone()) => return ended,
            _ = terminated.recv() => {}
        },
        None => drop(terminated.recv().await),
    }
    // As an application ends that was asked to: nothing new is taken, and what was taken is answered.
    open.lock().await.close_all();
    while shared.open.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("served {}", shared.requests.load(Ordering::Relaxed));
    Ok(())
}

/// Accepts on `listener` until `stop` says so, then lets each connection end its request in hand.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let name: Arc<str> = match listener.local_addr() {
        Ok(address) if shared.numbered => format!("{}-{}", shared.name, address.port()).into(),
        _ => shared.name.as_str().into(),
    };
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        if let Ok((socket, _)) = socket {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            shared.open.fetch_add(1, Ordering::Relaxed);
            let (name, shared, stop) = (name.clone(), shared.clone(), stop.clone());
            tokio::spawn(async move {
                serve(socket, name, shared.clone(), stop).await;
                shared.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

async fn serve(
    socket: TcpStream,
    name: Arc<str>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    // Without it a head and its body written apart wait for an acknowledgement of 40 ms.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request| {
        let (name, shared) = (name.clone(), shared.clone());
        async move {
            shared.requests.fetch_add(1, Ordering::Relaxed);
            let mut trouble = shared.trouble.next();
            if let Some((places, work)) = &shared.work {
                let _place = places.acquire().await;
                tokio::time::sleep(*work).await;
            }
            if let Some((url, via)) = &shared.call
                && !crate::call::succeeds(url, *via, request.headers()).await
            {
                trouble.0 = 502;
            }
            Ok::<_, Infallible>(answer(&name, request, trouble).await)
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        eprintln!("connection: {error}");
    }
}

async fn answer(name: &str, request: Request<Incoming>, trouble: (u64, u64)) -> Answer {
    let mut query = query(request.uri().query().unwrap_or(""));
    let (status, delay) = trouble;
    if status > 0 {
        query.insert("status".to_owned(), status);
    }
    let number = |key: &str| query.get(key).copied().unwrap_or(0);
    let delay = delay + number("delay");
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let path = request.uri().path().to_owned();
    let parsed = |prefix| path.strip_prefix(prefix).map(str::parse);
    if let Some(Ok(messages)) = parsed("/grpc/") {
        return grpc(name, request, messages).await;
    }
    if path == "/grpc.health.v1.Health/Check" {
        return health(query.contains_key("status"));
    }
    let frames: Frames = match parsed("/bytes/") {
        Some(Ok(total)) => pattern_frames(total),
        _ => echo_frames(name, request, &query).await,
    };
    let mut response = Response::new(StreamBody::new(frames));
    *response.status_mut() = match query.get("status") {
        Some(status) => StatusCode::from_u16(*status as u16).unwrap_or(StatusCode::OK),
        None => StatusCode::OK,
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(name) {
        headers.insert("x-served-by", value);
    }
    if number("trailers") > 0 {
        headers.insert("trailer", HeaderValue::from_static("x-trailer"));
    }
    response
}

/// An answer as gRPC gives it: messages, and the status in trailers.
async fn grpc(name: &str, request: Request<Incoming>, messages: u64) -> Answer {
    let mut body = request.into_body();
    let mut status = "0";
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            status = "13";
            break;
        }
    }
    let mut message = vec![b'm'; GRPC_MESSAGE];
    message[..5].copy_from_slice(&[0, 0, 0, 0, (GRPC_MESSAGE - 5) as u8]);
    let message = Bytes::from(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let frames = (0..messages).map(move |_| Frame::data(message.clone()));
    let frames = frames.chain([Frame::trailers(trailers)]).map(Ok);
    let frames: Frames = Box::pin(stream::iter(frames));
    let mut response = Response::new(StreamBody::new(frames));
    let headers = response.headers_mut();
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(http::header::CONTENT_TYPE, grpc);
    if let Ok(value) = HeaderValue::from_str(name) {
        headers.insert("x-served-by", value);
    }
    response
}

/// Of `grpc.health.v1`: SERVING, or NOT_SERVING.
fn health(ill: bool) -> Answer {
    let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, 1 + u8::from(ill)]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let frames: Frames = Box::pin(stream::iter(frames));
    let mut response = Response::new(StreamBody::new(frames));
    let grpc = HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, grpc);
    response
}

async fn echo_frames(
    name: &str,
    request: Request<Incoming>,
    query: &HashMap<String, u64>,
) -> Frames {
    let (head, mut body) = request.into_parts();
    let mut hash = Sha256::new();
    let mut length = 0_u64;
    let mut trailers = HeaderMap::new();
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                hash.update(&data);
                length += data.len() as u64;
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().unwrap_or_default(),
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        }
    }
    let document = json!({
        "name": name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": format!("{:?}", head.version),
        "headers": pairs(&head.headers),
        "trailers": pairs(&trailers),
        "body_length": length,
        "body_sha256": format!("{:x}", hash.finalize()),
        "body_error": broken,
    });
    let first = stream::iter([Ok(Frame::data(Bytes::from(format!("{document}\n"))))]);
    let every = Duration::from_millis(query.get("every").copied().unwrap_or(100));
    let pieces = query.get("pieces").copied().unwrap_or(0);
    let rest = stream::iter(0..pieces).then(move |piece| async move {
        tokio::time::sleep(every).await;
        Ok(Frame::data(Bytes::from(format!("piece {piece}\n"))))
    });
    let end = query.get("trailers").is_some_and(|n| *n > 0).then(|| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", HeaderValue::from_static("end"));
        Ok(Frame::trailers(trailers))
    });
    Box::pin(first.chain(rest).chain(stream::iter(end)))
}

fn pattern_frames(total: u64) -> Frames {
    Box::pin(stream::unfold(0, move |offset| async move {
        let piece = pattern::piece(offset, total);
        let next = offset + piece.len() as u64;
        (!piece.is_empty()).then_some((Ok(Frame::data(piece)), next))
    }))
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

fn query(text: &str) -> HashMap<String, u64> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
        .collect()
}
