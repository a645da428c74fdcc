//! hyper as a reader and a writer, and every difference to us that is one on purpose.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use http::header::{CONNECTION, HOST, TE, UPGRADE};
use http::{Request, Response, request, response};
use http_body_util::{BodyExt, Collected, Either, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// How long everything may take; whoever waits for longer waits forever.
const PATIENCE: Duration = Duration::from_secs(30);
/// More fields than a test sends.
const FIELDS: usize = 256;

type Frames = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;
pub(super) type Body = Either<Empty<Bytes>, StreamBody<Frames>>;

pub(super) fn body(content: &Content) -> Body {
    if content.is_none() {
        return Either::Left(Empty::new());
    }
    let data = content.pieces.iter().cloned().map(Frame::data);
    let mut frames: Vec<_> = data.map(Ok).collect();
    if !content.trailers.is_empty() {
        frames.push(Ok(Frame::trailers(content.trailers.clone())));
    }
    Either::Right(StreamBody::new(stream::iter(frames)))
}

pub(super) fn run<F: Future>(all: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await });
    done.expect("somebody waits forever")
}

/// What a server of theirs reads of these bytes.
pub(super) fn read_requests(bytes: &[u8], cuts: &Cuts, pipe: usize) -> Vec<Message> {
    let (io, other) = tokio::io::duplex(pipe);
    let answer = |_| Response::new(body(&Content::default()));
    run(async {
        let (mut answers, mut requests) = tokio::io::split(other);
        let send = async {
            // It may have closed before the end, and then what is left is not read.
            let _ = write_in_pieces(&mut requests, bytes, cuts).await;
            let _ = requests.shutdown().await;
        };
        let drain = async { tokio::io::copy(&mut answers, &mut tokio::io::sink()).await };
        tokio::join!(serve(io, answer), send, drain).0
    })
}

/// What a client of theirs reads when it asks by these methods and is answered these bytes, after
/// which the connection may end; and whether it would ask once more.
pub(super) fn read_responses(
    answers: Vec<(Method, Vec<u8>, bool)>,
    cuts: &Cuts,
    pipe: usize,
) -> (Vec<Message>, bool) {
    let (io, mut other) = tokio::io::duplex(pipe);
    let request = |method: &Method| {
        let request = Request::builder().method(method).uri("/");
        request.body(body(&Content::default())).unwrap()
    };
    let requests = answers.iter().map(|(method, ..)| request(method)).collect();
    run(async {
        let answer = async move {
            let mut asked = BytesMut::new();
            for (_, bytes, ends) in answers {
                while !asked.ends_with(b"\r\n\r\n") {
                    other.read_buf(&mut asked).await.expect("a request");
                }
                asked.clear();
                let written = write_in_pieces(&mut other, &bytes, cuts).await;
                written.expect("a client that reads");
                if ends {
                    return;
                }
            }
            let end = other.read(&mut [0]).await;
            assert_eq!(end.ok(), Some(0), "more than was to be asked");
        };
        tokio::join!(ask(io, requests), answer).0
    })
}

/// Writes piece by piece, so that each is seen by itself where there is room for it.
pub(super) async fn write_in_pieces(
    to: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
    cuts: &Cuts,
) -> std::io::Result<()> {
    for piece in cuts.pieces(bytes) {
        to.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A server of theirs, which answers a connection's requests by their number.
pub(super) async fn serve(
    io: DuplexStream,
    answer: impl Fn(usize) -> Response<Body>,
) -> Vec<Message> {
    let seen = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (head, body) = request.into_parts();
        let body = body.collect().await?;
        let number = seen.borrow().len();
        seen.borrow_mut().push(of_request(head, body));
        Ok::<_, hyper::Error>(answer(number))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_headers(FIELDS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    connection.await.expect("nothing is wrong");
    seen.into_inner()
}

/// A client of theirs, which asks one after the other; and whether it could ask once more.
pub(super) async fn ask(io: DuplexStream, requests: Vec<Request<Body>>) -> (Vec<Message>, bool) {
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_headers(FIELDS)
        .handshake(TokioIo::new(io));
    let (mut client, connection) = handshake.await.expect("a handshake");
    let all = async move {
        let mut seen = Vec::new();
        for mut request in requests {
            let early = Arc::new(Mutex::new(Vec::new()));
            let heads = early.clone();
            hyper::ext::on_informational(&mut request, move |head| {
                let fields = end_to_end(head.headers().clone());
                heads.lock().unwrap().push((head.status().as_u16(), fields));
            });
            client.ready().await.expect("a connection that goes on");
            let response = client.send_request(request).await.expect("an answer");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a whole body");
            let early = std::mem::take(&mut *early.lock().unwrap());
            seen.push(of_response(head, body, early));
        }
        (seen, client.ready().await.is_ok())
    };
    let (ended, seen) = tokio::join!(connection, all);
    ended.expect("nothing is wrong");
    seen
}

/// A request in our words.
fn of_request(head: request::Parts, body: Collected<Bytes>) -> Message {
    let mut headers = head.headers;
    let host = headers.remove(HOST);
    let host = host.and_then(|host| host.to_str().map(str::to_owned).ok());
    // RFC 9112 3.2.2: the absolute form's authority wins over Host. RFC 9110 7.2: an empty Host
    // names nobody.
    let named = head.uri.authority().map(ToString::to_string).or(host);
    let authority = named.filter(|name| !name.is_empty());
    let query = head.uri.query().map(|query| format!("?{query}"));
    let path = if head.method == Method::CONNECT {
        String::new()
    } else {
        format!("{}{}", head.uri.path(), query.unwrap_or_default())
    };
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes().to_vec();
    // RFC 9110 7.8: HTTP/1.0 knows no upgrade, and any may be ignored: we pass on those of a GET
    // without content, and no h2c (RFC 9113 3.1).
    let is_framed = headers.contains_key(http::header::TRANSFER_ENCODING) || !body.is_empty();
    let upgrade = headers.get(UPGRADE).filter(|token| {
        head.version == Version::HTTP_11
            && head.method == Method::GET
            && !is_framed
            && *token != "h2c"
            && options(&headers, CONNECTION).contains(&"upgrade".to_owned())
    });
    let upgrade = upgrade.and_then(|token| token.to_str().map(str::to_owned).ok());
    let start = Start::Request {
        method: head.method,
        // RFC 3986 3.1: schemes are alike in any case.
        scheme: head.uri.scheme_str().map(str::to_ascii_lowercase),
        authority,
        path,
        upgrade,
    };
    Message {
        start,
        version: head.version,
        headers: end_to_end(headers),
        body,
        trailers: allowed_trailers(trailers),
    }
}

/// A response in our words.
fn of_response(
    head: response::Parts,
    body: Collected<Bytes>,
    informational: Vec<(u16, HeaderMap)>,
) -> Message {
    Message {
        start: Start::Response {
            status: head.status.as_u16(),
            informational,
        },
        version: head.version,
        headers: end_to_end(head.headers),
        trailers: allowed_trailers(body.trailers().cloned().unwrap_or_default()),
        body: body.to_bytes().to_vec(),
    }
}

/// A list's members, in lower case.
fn options(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    let members = texts.flat_map(|text| text.split(','));
    members
        .map(|member| member.trim().to_ascii_lowercase())
        .collect()
}

/// RFC 9110 7.6.1: what was meant for hyper alone is not passed on, neither what Connection names nor
/// what belongs to a connection anyway; RFC 9110 10.1.4: of TE the word that trailers are wanted.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    let wants_trailers = options(&headers, TE).contains(&"trailers".to_owned());
    for name in options(&headers, CONNECTION) {
        headers.remove(name.as_str());
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers
}

/// RFC 9110 6.5.1: what frames, routes or belongs to a connection has no place in trailers.
fn allowed_trailers(mut trailers: HeaderMap) -> HeaderMap {
    let framing = ["content-length", "transfer-encoding", "trailer"];
    let connection = ["host", "connection", "te", "upgrade", "keep-alive"];
    for name in framing.into_iter().chain(connection) {
        trailers.remove(name);
    }
    trailers
}
