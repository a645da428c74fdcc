//! Whole exchanges: what either side writes is what the other reads, in both roles.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::theirs::{body, write_in_pieces};
use super::*;
use crate::model::{Fields, Text};

/// How many exchanges a connection carries.
const EXCHANGES: usize = 16;

#[derive(Clone, Debug)]
struct Plan {
    method: Method,
    is_absolute: bool,
    path: String,
    headers: HeaderMap,
    up: Content,
    informational: Vec<HeaderMap>,
    status: StatusCode,
    answer: HeaderMap,
    down: Content,
}

/// How a connection ends after its last exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Not at all.
    Open,
    /// The server says so.
    Closed,
    /// The request is one of HTTP/1.0.
    Old,
}

impl Plan {
    /// RFC 9112 6.3: what has no content whatever its head says.
    fn is_bodiless(&self) -> bool {
        let status = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        self.method == Method::HEAD || status.contains(&self.status)
    }

    /// HTTP/1.0 has no chunks, so that a request without a length is sent as HTTP/1.1.
    fn version(&self, end: End) -> Version {
        let is_chunked = !self.up.is_none() && !self.headers.contains_key(CONTENT_LENGTH);
        if end == End::Old && !is_chunked {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        }
    }

    fn request(&self, version: Version, is_absolute: bool) -> Message {
        let start = Start::Request {
            method: self.method.clone(),
            scheme: is_absolute.then(|| "http".to_owned()),
            authority: Some("a.b:80".to_owned()),
            path: self.path.clone(),
            upgrade: None,
        };
        Message {
            start,
            version,
            headers: self.headers.clone(),
            body: self.up.pieces.concat(),
            trailers: self.up.trailers.clone(),
        }
    }

    fn response(&self, version: Version, has_informational: bool) -> Message {
        let early = self.informational.iter().filter(|_| has_informational);
        let start = Start::Response {
            status: self.status.as_u16(),
            informational: early.map(|fields| (103, fields.clone())).collect(),
        };
        let mut down = self.down.clone();
        if self.is_bodiless() {
            down = Content::default();
        }
        if version == Version::HTTP_10 {
            down.trailers.clear();
        }
        Message {
            start,
            version,
            headers: self.answer.clone(),
            body: down.pieces.concat(),
            trailers: down.trailers,
        }
    }
}

fn last_version(plans: &[Plan], end: End) -> Version {
    plans.last().expect("a plan").version(end)
}

/// Whether the connection persists after its last exchange.
fn goes_on(plans: &[Plan], end: End) -> bool {
    end != End::Closed && last_version(plans, end) == Version::HTTP_11
}

/// Compares where the two may differ: either may say of no content that its length is 0, and hyper
/// leaves out the names of trailers that it cannot send (RFC 9110 6.6.2).
fn same(mut seen: Message, mut planned: Message) {
    let is_nothing = |length: &HeaderValue| length == "0";
    if !planned.headers.contains_key(CONTENT_LENGTH)
        && planned.body.is_empty()
        && seen.headers.get(CONTENT_LENGTH).is_some_and(is_nothing)
    {
        seen.headers.remove(CONTENT_LENGTH);
    }
    if planned.trailers.is_empty() && !seen.headers.contains_key(TRAILER) {
        planned.headers.remove(TRAILER);
    }
    assert_eq!(seen, planned);
}

/// A client of ours, all of whose requests are on their way at once.
async fn ask(io: DuplexStream, plans: &[Plan], end: End, cuts: &Cuts) -> Reader {
    let mut requests = BytesMut::new();
    for (number, plan) in plans.iter().enumerate() {
        let is_last = number + 1 == plans.len();
        let head = RequestHead {
            method: plan.method.clone(),
            scheme: None,
            authority: Some(Text::from_static("a.b:80")),
            path: Text::try_from(plan.path.as_str()).unwrap(),
            version: match (is_last, end) {
                (true, End::Old) => Version::HTTP_10,
                _ => Version::HTTP_11,
            },
            upgrade: None,
            headers: Fields::from(&plan.headers),
        };
        write_our_request(&mut requests, &head, &plan.up);
    }
    let (mut from, mut to) = tokio::io::split(io);
    let send = async {
        let sent = write_in_pieces(&mut to, &requests, cuts).await;
        sent.expect("a server that reads");
        // Whether the server goes on without being told to is seen by who closes.
        if end != End::Closed {
            to.shutdown().await.expect("a server that is there");
        }
    };
    let read = async {
        let mut reader = Reader::of_responses(plans.iter().map(|plan| plan.method.clone()));
        let mut buffer = BytesMut::new();
        while from.read_buf(&mut buffer).await.expect("an open pipe") > 0 {
            reader.feed(&buffer.split()).expect("nothing is wrong");
        }
        assert!(reader.end(), "the connection ended within an answer");
        reader
    };
    tokio::join!(send, read).1
}

/// A server of ours.
async fn serve(mut io: DuplexStream, plans: &[Plan], end: End, cuts: &Cuts) -> Vec<Message> {
    let mut reader = Reader::of_requests();
    let mut buffer = BytesMut::new();
    let mut answered = 0;
    while io.read_buf(&mut buffer).await.expect("an open pipe") > 0 {
        reader.feed(&buffer.split()).expect("nothing is wrong");
        if reader.body.is_some() || reader.seen.len() == answered {
            continue;
        }
        let (plan, version) = (&plans[answered], reader.seen[answered].version);
        answered += 1;
        let is_closed = answered == plans.len() && end == End::Closed;
        let answer = our_answer(plan, version, is_closed || !reader.persists);
        let written = write_in_pieces(&mut io, &answer, cuts).await;
        written.expect("a client that reads");
        if is_closed || !reader.persists {
            break;
        }
    }
    reader.seen
}

fn our_answer(plan: &Plan, version: Version, is_last: bool) -> BytesMut {
    let head = |status, headers: &HeaderMap| ResponseHead {
        status,
        version: Version::HTTP_11,
        upgrade: None,
        headers: Fields::from(headers),
    };
    let (method, nothing) = (&plan.method, Content::default());
    let mut out = BytesMut::new();
    if version == Version::HTTP_11 {
        for fields in &plan.informational {
            let head = head(StatusCode::EARLY_HINTS, fields);
            write_our_response(&mut out, &head, &nothing, method, version, false);
        }
    }
    let head = head(plan.status, &plan.answer);
    write_our_response(&mut out, &head, &plan.down, method, version, is_last);
    out
}

/// Either a length that was told, or trailers that were named.
fn told(headers: &mut HeaderMap, content: &mut Content, is_sized: bool) {
    if is_sized {
        content.trailers.clear();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(content.length()));
    } else if !content.trailers.is_empty() {
        let names: Vec<&str> = content.trailers.keys().map(HeaderName::as_str).collect();
        headers.insert(TRAILER, HeaderValue::from_str(&names.join(", ")).unwrap());
    }
}

/// Trailers that mean nothing to anybody: hyper keeps some others back.
fn trailers() -> impl Strategy<Value = HeaderMap> {
    let name = prop::sample::select(vec!["x-sum", "grpc-status", "x-end"]);
    prop::collection::vec((name, value()), 0..3).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        map
    })
}

fn content() -> impl Strategy<Value = Content> {
    (pieces(), trailers()).prop_map(|(pieces, trailers)| Content { pieces, trailers })
}

fn plan() -> impl Strategy<Value = Plan> {
    let known = vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "x-any"];
    let method = prop::sample::select(known).prop_map(|name| name.parse::<Method>().unwrap());
    let status = prop_oneof![Just(200), Just(204), Just(304), 200..600_u16];
    let up = (method, any::<bool>(), path(), header_map(), content());
    let informational = prop::collection::vec(header_map(), 0..3);
    let down = (informational, status, header_map(), content());
    (up, down, any::<bool>(), any::<bool>()).prop_map(|(up, down, is_sized_up, is_sized_down)| {
        let (method, is_absolute, path, mut headers, mut up) = up;
        let (informational, status, mut answer, mut down) = down;
        let status = StatusCode::from_u16(status).unwrap();
        // hyper sends no content with these unless it is told how much.
        let is_sized_up = is_sized_up || [Method::GET, Method::HEAD].contains(&method);
        told(&mut headers, &mut up, is_sized_up);
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            down = Content::default();
        } else {
            told(&mut answer, &mut down, is_sized_down);
        }
        // RFC 9110 6.5.1: a server that sends trailers wants to know that they are wanted.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Plan {
            method,
            is_absolute,
            path,
            headers,
            up,
            informational,
            status,
            answer,
            down,
        }
    })
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    prop::collection::vec(plan(), EXCHANGES)
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Open), Just(End::Closed), Just(End::Old)]
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn a_client_of_ours_and_a_server_of_theirs(
        plans in plans(),
        end in end(),
        cuts in cuts(),
        pipe in 1000..100_000_usize,
    ) {
        let (io, other) = tokio::io::duplex(pipe);
        let answer = |number: usize| {
            let plan: &Plan = &plans[number];
            let mut response = Response::new(body(&plan.down));
            *response.status_mut() = plan.status;
            *response.headers_mut() = plan.answer.clone();
            if number + 1 == plans.len() && end == End::Closed {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        };
        let (reader, requests) = theirs::run(async {
            tokio::join!(ask(io, &plans, end, &cuts), theirs::serve(other, answer))
        });
        prop_assert_eq!(requests.len(), EXCHANGES);
        prop_assert_eq!(reader.seen.len(), EXCHANGES);
        prop_assert_eq!(reader.persists, end != End::Closed);
        for (plan, (request, response)) in plans.iter().zip(requests.into_iter().zip(reader.seen)) {
            // RFC 9112 2.3: the version is ours, whatever the request came in.
            same(request, plan.request(Version::HTTP_11, false));
            same(response, plan.response(Version::HTTP_11, false));
        }
    }

    #[test]
    fn a_server_of_ours_and_a_client_of_theirs(
        plans in plans(),
        end in end(),
        cuts in cuts(),
        pipe in 1000..100_000_usize,
    ) {
        let (io, other) = tokio::io::duplex(pipe);
        let last = last_version(&plans, end);
        let version = |number| if number + 1 == EXCHANGES { last } else { Version::HTTP_11 };
        let request = |(number, plan): (usize, &Plan)| {
            let origin = if plan.is_absolute { "http://a.b:80" } else { "" };
            let mut request = Request::new(body(&plan.up));
            *request.method_mut() = plan.method.clone();
            *request.version_mut() = version(number);
            *request.uri_mut() = format!("{origin}{}", plan.path).parse().unwrap();
            *request.headers_mut() = plan.headers.clone();
            request.headers_mut().insert(HOST, HeaderValue::from_static("a.b:80"));
            request
        };
        let asked = plans.iter().enumerate().map(request).collect();
        let (requests, (responses, persists)) = theirs::run(async {
            tokio::join!(serve(io, &plans, end, &cuts), theirs::ask(other, asked))
        });
        prop_assert_eq!(requests.len(), EXCHANGES);
        prop_assert_eq!(responses.len(), EXCHANGES);
        prop_assert_eq!(persists, goes_on(&plans, end));
        for (number, (request, response)) in requests.into_iter().zip(responses).enumerate() {
            let (plan, version) = (&plans[number], version(number));
            same(request, plan.request(version, plan.is_absolute));
            same(response, plan.response(version, version == Version::HTTP_11));
        }
    }
}
