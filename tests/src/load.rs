//! HTTP load. With `--rate` it is open-loop: requests are due at fixed times whatever the answers
//! do, and a latency counts from the time its request was due, so a stall shows in full. Without,
//! each connection sends its next request when it has the answer.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::pace::Pace;
use crate::report::{Outcome, Report};

/// Options of `load`.
#[derive(Args, Clone)]
pub struct Options {
    /// Whom to call; its host becomes Host or :authority.
    #[arg(long)]
    url: Uri,
    /// Where to connect: a proxy's outbound port, or the application itself.
    #[arg(long)]
    connect: SocketAddr,
    #[arg(long, value_enum, default_value = "http1")]
    protocol: Wire,
    /// Send `GET http://host/path` as to a proxy, not `GET /path` (HTTP/1 only).
    #[arg(long)]
    absolute_form: bool,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight on one HTTP/2 connection.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Requests a second over all connections; without it the load is closed-loop.
    #[arg(long)]
    rate: Option<f64>,
    /// How long; SIGINT ends it earlier. The report comes either way.
    #[arg(long, default_value = "10s")]
    duration: humantime::Duration,
    /// Requests due before then count, but their latencies don't: connections are being opened.
    #[arg(long, default_value = "0s")]
    settle: humantime::Duration,
    /// A request without a whole answer by then has failed.
    #[arg(long, default_value = "10s")]
    timeout: humantime::Duration,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// `name: value`; may be given many times.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Length of each request's body.
    #[arg(long, default_value_t = 0)]
    body_bytes: usize,
    /// Response header whose values are counted.
    #[arg(long, default_value = "x-served-by")]
    split_by: HeaderName,
    /// A new connection for each request, which asks for `connection: close` (HTTP/1 only).
    #[arg(long)]
    close: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    Http1,
    H2c,
}

/// What the senders share.
struct Load {
    options: Options,
    headers: Vec<(HeaderName, HeaderValue)>,
    start: Instant,
    end: Instant,
    next: AtomicU64,
    stopped: AtomicBool,
    report: Mutex<Report>,
}

#[derive(Clone)]
enum Sender {
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    H2c(http2::SendRequest<Full<Bytes>>),
}

/// Runs the load and prints its report.
pub async fn run(options: Options) -> io::Result<()> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    let parsed = options.headers.iter().map(|header| {
        let (name, value) = header.split_once(':')?;
        Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
    });
    let headers = parsed
        .collect::<Option<Vec<(HeaderName, HeaderValue)>>>()
        .ok_or_else(|| invalid("--header wants `name: value`"))?;
    let start = Instant::now();
    let load = Arc::new(Load {
        headers,
        start,
        end: start + *options.duration,
        next: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        report: Mutex::new(Report::settled_at(*options.settle)),
        options,
    });
    let streams = match load.options.protocol {
        Wire::Http1 => 1,
        Wire::H2c => load.options.streams.max(1),
    };
    let mut senders = Vec::new();
    for _ in 0..load.options.connections {
        let connection = Arc::new(tokio::sync::Mutex::new(None));
        for _ in 0..streams {
            senders.push(tokio::spawn(send(load.clone(), connection.clone())));
        }
    }
    let all = futures_util::future::join_all(senders);
    let mut all = std::pin::pin!(all);
    let ended = tokio::select! {
        ended = all.as_mut() => ended,
        _ = tokio::signal::ctrl_c() => {
            load.stopped.store(true, Ordering::Relaxed);
            all.await
        }
    };
    for one in ended {
        one.map_err(io::Error::other)??;
    }
    let mut report = load.report.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", report.render(start.elapsed())?);
    Ok(())
}

type Connection = Arc<tokio::sync::Mutex<Option<Sender>>>;

/// One request at a time until the end; HTTP/2 streams of one connection share it.
async fn send(load: Arc<Load>, connection: Connection) -> io::Result<()> {
    let pace = Pace::new()?;
    loop {
        let slot = load.next.fetch_add(1, Ordering::Relaxed);
        let due = match load.options.rate {
            Some(rate) => load.start + Duration::from_secs_f64(slot as f64 / rate),
            None => Instant::now(),
        };
        if due >= load.end {
            return Ok(());
        }
        pace.wait_until(due).await?;
        if load.stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        let began = Instant::now();
        let outcome = match timeout(*load.options.timeout, request(&load, &connection)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                *connection.lock().await = None;
                Outcome::Failure {
                    kind: "timeout",
                    detail: String::new(),
                }
            }
        };
        if matches!(outcome, Outcome::Failure { .. }) && load.options.rate.is_none() {
            // A closed loop against a dead port would spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if load.options.close {
            *connection.lock().await = None;
        }
        let mut report = load.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.add(due - load.start, began - due, due.elapsed(), outcome);
    }
}

async fn request(load: &Load, connection: &Connection) -> Outcome {
    // A connection that closed while idle lost no request: one more try, on a new one.
    let mut tries_left = 2;
    loop {
        let sender = match sender(load, connection).await {
            Ok(sender) => sender,
            Err(error) => {
                return Outcome::Failure {
                    kind: "connect",
                    detail: error.to_string(),
                };
            }
        };
        tries_left -= 1;
        match exchange(load, sender).await {
            Ok(outcome) => return outcome,
            Err(error) => {
                *connection.lock().await = None;
                if error.is_canceled() && tries_left > 0 {
                    continue;
                }
                return Outcome::Failure {
                    kind: kind(&error),
                    detail: describe(&error),
                };
            }
        }
    }
}

async fn sender(load: &Load, connection: &Connection) -> io::Result<Sender> {
    let mut slot = connection.lock().await;
    let closed = match slot.as_ref() {
        Some(Sender::Http1(sender)) => sender.lock().await.is_closed(),
        Some(Sender::H2c(sender)) => sender.is_closed(),
        None => true,
    };
    if closed {
        *slot = Some(connect(load).await?);
    }
    slot.clone()
        .ok_or_else(|| io::ErrorKind::NotConnected.into())
}

async fn connect(load: &Load) -> io::Result<Sender> {
    let socket = TcpStream::connect(load.options.connect).await?;
    socket.set_nodelay(true)?;
    let socket = TokioIo::new(socket);
    match load.options.protocol {
        Wire::Http1 => {
            let (sender, connection) = http1::handshake(socket).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(Sender::Http1(Arc::new(tokio::sync::Mutex::new(sender))))
        }
        Wire::H2c => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new());
            let (sender, connection) = builder.handshake(socket).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(Sender::H2c(sender))
        }
    }
}

async fn exchange(load: &Load, sender: Sender) -> hyper::Result<Outcome> {
    let request = build(load);
    let response = match sender {
        Sender::Http1(sender) => {
            let mut sender = sender.lock().await;
            sender.ready().await?;
            sender.send_request(request).await?
        }
        Sender::H2c(mut sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
    };
    let text = |name: &str| {
        let value = response.headers().get(name);
        value.and_then(|value| value.to_str().ok().map(str::to_owned))
    };
    let outcome = Outcome::Answer {
        status: response.status().as_u16(),
        split: text(load.options.split_by.as_str()),
        fault: text("weft-fault"),
    };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(outcome)
}

fn build(load: &Load) -> Request<Full<Bytes>> {
    let options = &load.options;
    let mut request = Request::new(Full::from(vec![b'x'; options.body_bytes]));
    *request.method_mut() = options.method.clone();
    let authority = options.url.authority();
    match options.protocol {
        Wire::H2c => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = options.url.clone();
        }
        Wire::Http1 => {
            let path = options.url.path_and_query().cloned();
            *request.uri_mut() = match path {
                Some(path) if !options.absolute_form => Uri::from(path),
                _ => options.url.clone(),
            };
            if let Some(Ok(host)) = authority.map(|a| HeaderValue::from_str(a.as_str())) {
                request.headers_mut().insert(http::header::HOST, host);
            }
            if options.close {
                let close = HeaderValue::from_static("close");
                request
                    .headers_mut()
                    .insert(http::header::CONNECTION, close);
            }
        }
    }
    let headers = load.headers.iter().cloned();
    request.headers_mut().extend(headers);
    request
}

fn kind(error: &hyper::Error) -> &'static str {
    if error.is_canceled() {
        "closed_before_request"
    } else if error.is_incomplete_message() {
        "closed_before_answer"
    } else if error.is_body_write_aborted() {
        "body_aborted"
    } else if error.is_parse() {
        "not_http"
    } else {
        "broken"
    }
}

fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
