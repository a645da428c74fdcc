//! Against another implementation: what either side sends is what the other gets, in both roles.
//! Each exchange is planned, and its path says which plan it is.

mod client;
mod server;

use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{Multiplex, StreamReceiver, StreamSender};
use crate::http2::{ErrorCode, Failure, Limits, Piece, Role};
use crate::model::{Fields, ResponseHead};

/// How long everything may take; whoever waits for longer waits forever.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a chunk of a content may be.
const CHUNK_LENGTH_MAX: usize = 200_000;
/// How many chunks a content may have.
const CHUNKS_MAX: usize = 4;

/// Every content is a beginning of these octets.
fn octets_of_all() -> &'static Bytes {
    static OCTETS: OnceLock<Bytes> = OnceLock::new();
    OCTETS.get_or_init(|| {
        let octets = 0..CHUNK_LENGTH_MAX * CHUNKS_MAX;
        octets.map(|at| (at ^ (at >> 8)) as u8).collect()
    })
}

/// What one side sends after its head.
#[derive(Clone, Debug, Default)]
struct Content {
    chunks: Vec<usize>,
    trailers: HeaderMap,
    /// The stream is reset in place of an end.
    is_cut_off: bool,
}

impl Content {
    /// Nothing but an end.
    fn is_none(&self) -> bool {
        self.chunks.is_empty() && self.trailers.is_empty() && !self.is_cut_off
    }

    fn pieces(&self) -> Vec<Bytes> {
        let mut at = 0;
        let piece = |length: &usize| {
            let octets = at..at + length;
            at += length;
            octets_of_all().slice(octets)
        };
        self.chunks.iter().map(piece).collect()
    }

    fn whole(&self) -> Bytes {
        octets_of_all().slice(..self.chunks.iter().sum::<usize>())
    }

    /// Whether this is what was to come.
    #[track_caller]
    fn check(&self, seen: &Seen) {
        let whole = self.whole();
        if self.is_cut_off {
            assert!(whole.starts_with(&seen.content), "another content");
            assert_eq!(seen.ended, Err(ErrorCode::CANCEL.0));
            return;
        }
        assert!(whole == seen.content, "another content");
        assert_eq!(seen.ended, Ok(()));
        assert_eq!(seen.trailers, self.trailers);
    }
}

#[derive(Clone, Debug)]
struct Plan {
    method: Method,
    headers: HeaderMap,
    up: Content,
    informational: u8,
    answer: HeaderMap,
    down: Content,
    /// The answer is sent while the request is still on its way.
    is_early: bool,
}

/// What came in after a head.
#[derive(Debug)]
struct Seen {
    content: Vec<u8>,
    trailers: HeaderMap,
    /// Or the code of the reset.
    ended: Result<(), u32>,
}

/// What a server saw of a request.
#[derive(Debug)]
struct SeenRequest {
    plan: usize,
    method: Method,
    authority: String,
    headers: HeaderMap,
    seen: Seen,
}

/// What a client saw of a response.
#[derive(Debug)]
struct SeenResponse {
    informational: u8,
    status: u16,
    headers: HeaderMap,
    seen: Seen,
}

async fn send(sender: &mut StreamSender, content: &Content) -> Result<(), Failure> {
    for piece in content.pieces() {
        sender.data(piece).await?;
    }
    if content.is_cut_off {
        sender.reset(ErrorCode::CANCEL);
        return Ok(());
    }
    sender.finish(&Fields::from(&content.trailers))
}

/// What comes in on a stream, its heads and the rest.
async fn read(receiver: &mut StreamReceiver) -> (Vec<ResponseHead>, Seen) {
    let mut heads = Vec::new();
    let mut seen = Seen {
        content: Vec::new(),
        trailers: HeaderMap::new(),
        ended: Ok(()),
    };
    loop {
        match receiver.next().await {
            Ok(Some(Piece::Head(head))) => heads.push(head),
            Ok(Some(Piece::Data(data))) => seen.content.extend_from_slice(&data),
            Ok(Some(Piece::Trailers(trailers))) => seen.trailers = HeaderMap::from(&trailers),
            Ok(None) => return (heads, seen),
            Err(failure) => {
                seen.ended = Err(failure.code.0);
                return (heads, seen);
            }
        }
    }
}

/// The same with the other implementation.
async fn send_h2(mut stream: h2::SendStream<Bytes>, content: &Content) -> Result<(), h2::Error> {
    for mut piece in content.pieces() {
        while !piece.is_empty() {
            stream.reserve_capacity(piece.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let Some(room) = room.transpose()? else {
                return Ok(());
            };
            stream.send_data(piece.split_to(room.min(piece.len())), false)?;
        }
    }
    if content.is_cut_off {
        stream.send_reset(h2::Reason::CANCEL);
        return Ok(());
    }
    if content.trailers.is_empty() {
        stream.send_data(Bytes::new(), true)
    } else {
        stream.send_trailers(content.trailers.clone())
    }
}

async fn read_h2(mut stream: h2::RecvStream) -> Seen {
    let mut seen = Seen {
        content: Vec::new(),
        trailers: HeaderMap::new(),
        ended: Ok(()),
    };
    let code = |error: &h2::Error| error.reason().map_or(u32::MAX, u32::from);
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                let _ = stream.flow_control().release_capacity(data.len());
                seen.content.extend_from_slice(&data);
            }
            Err(error) => {
                seen.ended = Err(code(&error));
                return seen;
            }
        }
    }
    match stream.trailers().await {
        Ok(trailers) => seen.trailers = trailers.unwrap_or_default(),
        Err(error) => seen.ended = Err(code(&error)),
    }
    seen
}

fn check_request(plans: &[Plan], request: &SeenRequest) {
    let plan = &plans[request.plan];
    assert_eq!(request.method, plan.method);
    assert_eq!(request.authority, "a.b:80");
    assert_eq!(request.headers, plan.headers);
    plan.up.check(&request.seen);
}

fn check_response(plan: &Plan, response: &SeenResponse) {
    // A client that has reset its stream sees nothing of an answer.
    if plan.up.is_cut_off {
        return;
    }
    if response.status == 0 {
        assert!(
            plan.down.is_cut_off,
            "no head, but {:?}",
            response.seen.ended
        );
        return;
    }
    assert_eq!(response.informational, plan.informational);
    assert_eq!(response.status, 200);
    assert_eq!(response.headers, plan.answer);
    plan.down.check(&response.seen);
}

/// Runs a client and a server; every request that isn't cut off is seen by the server.
fn exchange<C: Future<Output = ()> + 'static>(
    plans: Vec<Plan>,
    pipe: usize,
    serve: fn(DuplexStream, Rc<Vec<Plan>>, mpsc::UnboundedSender<SeenRequest>),
    ask: impl FnOnce(DuplexStream, Rc<Vec<Plan>>) -> C + 'static,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (one, other) = tokio::io::duplex(pipe);
    let plans = Rc::new(plans);
    let whole = plans.iter().filter(|plan| !plan.up.is_cut_off).count();
    LocalSet::new().block_on(&runtime, async move {
        let (seen_by_server, mut requests) = mpsc::unbounded_channel();
        serve(other, plans.clone(), seen_by_server);
        let all = async {
            ask(one, plans.clone()).await;
            let mut seen = 0;
            while seen < whole {
                let request = requests.recv().await.expect("the server is there");
                check_request(&plans, &request);
                seen += usize::from(!plans[request.plan].up.is_cut_off);
            }
        };
        let done = tokio::time::timeout(PATIENCE, all).await;
        done.expect("somebody waits forever");
    });
}

fn header_map() -> impl Strategy<Value = HeaderMap> {
    let name = prop_oneof![
        Just("a".to_owned()),
        Just("content-type".to_owned()),
        Just("authorization".to_owned()),
        "x-[a-z]{1,20}",
    ];
    let value = prop_oneof![
        Just(String::new()),
        Just("application/grpc".to_owned()),
        "[!-~]{1,30}",
        long_value(),
    ];
    let field = (name, value).prop_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(&value).unwrap())
    });
    prop::collection::vec(field, 0..5).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    })
}

/// A value that does not fit into a small frame. It is counted out, because a strategy for each of
/// thousands of letters costs more than all the exchanges of a case.
fn long_value() -> impl Strategy<Value = String> {
    (200..9000_usize, 1..26_usize).prop_map(|(length, step)| {
        let letter = |at: usize| char::from(b'a' + (at * step % 26) as u8);
        (0..length).map(letter).collect()
    })
}

fn content() -> impl Strategy<Value = Content> {
    let size = prop_oneof![
        4 => 1..20_usize,
        4 => 1..5000_usize,
        1 => 1..CHUNK_LENGTH_MAX,
    ];
    let chunks = prop::collection::vec(size, 0..=CHUNKS_MAX);
    let cut_off = prop::bool::weighted(0.1);
    (chunks, header_map(), cut_off).prop_map(|(chunks, trailers, is_cut_off)| Content {
        chunks,
        trailers,
        is_cut_off,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let method = prop_oneof![
        Just(Method::GET),
        Just(Method::POST),
        Just(Method::DELETE),
        Just(Method::from_bytes(b"x-any").unwrap()),
    ];
    let up = (method, header_map(), content());
    let down = (0..3_u8, header_map(), content(), any::<bool>());
    (up, down).prop_map(
        |((method, headers, up), (informational, answer, down, is_early))| Plan {
            method,
            headers,
            up,
            informational,
            answer,
            // A cut off answer to a request that is on its way cuts that one off too.
            is_early: is_early && !down.is_cut_off,
            down,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let all = (100..300_000_u32, 1000..2_000_000_u32);
    all.prop_map(|(stream_window, connection_window)| Limits {
        stream_window,
        connection_window,
        ..Limits::default()
    })
}

fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|cases| cases.parse().ok()).unwrap_or(usual),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn a_client_of_ours_and_a_server_of_theirs(
        plans in prop::collection::vec(plan(), 1..20),
        limits in limits(),
        pipe in 10..100_000_usize,
    ) {
        exchange(plans, pipe, client::serve_theirs, move |io, plans| client::ask(io, plans, limits));
    }

    #[test]
    fn a_server_of_ours_and_a_client_of_theirs(
        plans in prop::collection::vec(plan(), 1..20),
        window in 1..300_000_u32,
        pipe in 10..100_000_usize,
    ) {
        exchange(plans, pipe, server::serve, move |io, plans| server::ask_theirs(io, plans, window));
    }

    #[test]
    fn a_client_and_a_server_of_ours(
        plans in prop::collection::vec(plan(), 1..20),
        limits in limits(),
        pipe in 10..100_000_usize,
    ) {
        exchange(plans, pipe, server::serve, move |io, plans| client::ask(io, plans, limits));
    }
}

#[tokio::test]
async fn a_connection_that_ended_does_not_wait_for_a_peer_that_reads_nothing() {
    let (mut io, _peer) = tokio::io::duplex(16);
    let connection = Multiplex::new(Role::Server, Limits::default());
    connection.end(ErrorCode::ENHANCE_YOUR_CALM, "too many PINGs");
    let driven = connection.drive(&mut io, |_| panic!("a request"));
    let ended = tokio::time::timeout(PATIENCE, driven).await;
    let code = ended.expect("an end").map(|ended| ended.code);
    assert_eq!(code, Some(ErrorCode::ENHANCE_YOUR_CALM));
}
