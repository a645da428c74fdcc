//! Bytes that neither of the two wrote: everything that RFC 9112 lets a sender write, read by both.

use super::*;

/// A field line with the blanks around its value (RFC 9112 5.1).
#[derive(Clone, Debug)]
struct Line {
    name: String,
    before: &'static str,
    value: Vec<u8>,
    after: &'static str,
}

impl Line {
    fn plain(name: &str, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.to_owned(),
            before: " ",
            value: value.into(),
            after: "",
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b":");
        out.extend_from_slice(self.before.as_bytes());
        out.extend_from_slice(&self.value);
        out.extend_from_slice(self.after.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[derive(Clone, Debug)]
struct Chunk {
    data: Bytes,
    zeros: usize,
    is_upper: bool,
    extension: &'static str,
}

/// How a body's end is told (RFC 9112 6).
#[derive(Clone, Debug)]
enum Framing {
    /// By nothing: a request has no body then, and a response's ends with the connection.
    Unsaid(Vec<Bytes>),
    Length {
        zeros: usize,
        pieces: Vec<Bytes>,
    },
    Chunked {
        coding: &'static str,
        chunks: Vec<Chunk>,
        last: &'static str,
        trailers: Vec<Line>,
    },
}

impl Framing {
    fn data(&self) -> Vec<u8> {
        match self {
            Framing::Unsaid(pieces) | Framing::Length { pieces, .. } => pieces.concat(),
            Framing::Chunked { chunks, .. } => {
                let data = chunks.iter().map(|chunk| chunk.data.clone());
                data.collect::<Vec<_>>().concat()
            }
        }
    }

    fn line(&self) -> Option<Line> {
        match self {
            Framing::Unsaid(_) => None,
            Framing::Length { zeros, .. } => {
                let length = format!("{}{}", "0".repeat(*zeros), self.data().len());
                Some(Line::plain("Content-length", length))
            }
            Framing::Chunked { coding, .. } => Some(Line::plain("tRANSFER-Encoding", *coding)),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Framing::Chunked {
            chunks,
            last,
            trailers,
            ..
        } = self
        else {
            out.extend_from_slice(&self.data());
            return;
        };
        for chunk in chunks {
            let length = chunk.data.len();
            let size = match chunk.is_upper {
                true => format!("{length:X}"),
                false => format!("{length:x}"),
            };
            let zeros = "0".repeat(chunk.zeros);
            out.extend_from_slice(format!("{zeros}{size}{}\r\n", chunk.extension).as_bytes());
            out.extend_from_slice(&chunk.data);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(last.as_bytes());
        out.extend_from_slice(b"\r\n");
        for line in trailers {
            line.write(out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[derive(Clone, Debug)]
enum Target {
    Origin(String),
    Absolute {
        scheme: &'static str,
        authority: &'static str,
        path: String,
    },
    Asterisk,
    Authority(&'static str),
}

fn says(options: &[&str], option: &str) -> bool {
    let mut lines = options.iter().map(|line| line.to_ascii_lowercase());
    lines.any(|line| line.contains(option))
}

/// RFC 9112 9.3.
fn goes_on(options: &[&str], is_old: bool) -> bool {
    !says(options, "close") && (!is_old || says(options, "keep-alive"))
}

#[derive(Clone, Debug)]
struct RawRequest {
    empty_lines: usize,
    method: String,
    target: Target,
    is_old: bool,
    host: &'static str,
    /// The Connection header's lines.
    options: Vec<&'static str>,
    lines: Vec<Line>,
    framing: Framing,
}

impl RawRequest {
    /// What a client asks that was not told to stop.
    fn after() -> Self {
        Self {
            empty_lines: 0,
            method: "GET".to_owned(),
            target: Target::Origin("/after".to_owned()),
            is_old: false,
            host: "a",
            options: Vec::new(),
            lines: Vec::new(),
            framing: Framing::Unsaid(Vec::new()),
        }
    }

    /// RFC 9112 3.2, as a table.
    fn path(&self) -> String {
        match &self.target {
            Target::Origin(path) => path.clone(),
            Target::Absolute { path, .. } if path.starts_with('/') => path.clone(),
            Target::Absolute { path, .. } if path.is_empty() && self.method == "OPTIONS" => {
                "*".to_owned()
            }
            Target::Absolute { path, .. } => format!("/{path}"),
            Target::Asterisk => "*".to_owned(),
            Target::Authority(_) => String::new(),
        }
    }

    fn persists(&self) -> bool {
        let is_open = !matches!(self.target, Target::Authority(_));
        is_open && goes_on(&self.options, self.is_old)
    }

    /// As a client may send it: HTTP/1.0 has no chunks, and only it may leave Host away.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice("\r\n".repeat(self.empty_lines).as_bytes());
        let target = match &self.target {
            Target::Origin(path) => path.clone(),
            Target::Absolute {
                scheme,
                authority,
                path,
            } => format!("{scheme}://{authority}{path}"),
            Target::Asterisk => "*".to_owned(),
            Target::Authority(authority) => (*authority).to_owned(),
        };
        let version = if self.is_old { "1.0" } else { "1.1" };
        out.extend_from_slice(format!("{} {target} HTTP/{version}\r\n", self.method).as_bytes());
        if !(self.is_old && self.host.is_empty()) {
            Line::plain("hOST", self.host).write(out);
        }
        for option in &self.options {
            Line::plain("Connection", *option).write(out);
        }
        for line in self.lines.iter().chain(&self.framing.line()) {
            line.write(out);
        }
        out.extend_from_slice(b"\r\n");
        self.framing.write(out);
    }
}

#[derive(Clone, Debug)]
struct RawResponse {
    method: Method,
    informational: Vec<(u16, Vec<Line>)>,
    status: u16,
    reason: Vec<u8>,
    is_old: bool,
    options: Vec<&'static str>,
    lines: Vec<Line>,
    framing: Framing,
}

impl RawResponse {
    /// RFC 9112 6.3: what has no content whatever its head says.
    fn is_bodiless(&self) -> bool {
        self.method == Method::HEAD || matches!(self.status, 204 | 304)
    }

    fn ends_with_connection(&self) -> bool {
        !self.is_bodiless() && matches!(self.framing, Framing::Unsaid(_))
    }

    fn persists(&self) -> bool {
        !self.ends_with_connection() && goes_on(&self.options, self.is_old)
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (status, lines) in &self.informational {
            out.extend_from_slice(format!("HTTP/1.1 {status} \r\n").as_bytes());
            for line in lines {
                line.write(out);
            }
            out.extend_from_slice(b"\r\n");
        }
        let version = if self.is_old { "1.0" } else { "1.1" };
        out.extend_from_slice(format!("HTTP/{version} {} ", self.status).as_bytes());
        out.extend_from_slice(&self.reason);
        out.extend_from_slice(b"\r\n");
        for option in &self.options {
            Line::plain("Connection", *option).write(out);
        }
        // RFC 9110 8.6 and 9112 6.1: a 204 has neither of the two fields.
        let framing = self.framing.line().filter(|_| self.status != 204);
        for line in self.lines.iter().chain(&framing) {
            line.write(out);
        }
        out.extend_from_slice(b"\r\n");
        if !self.is_bodiless() {
            self.framing.write(out);
        }
    }
}

fn line() -> impl Strategy<Value = Line> {
    let blanks = || prop::sample::select(vec!["", " ", "\t", " \t  "]);
    let known = prop::sample::select(vec![
        ("TE", "trailers"),
        ("te", "deflate;q=0.5, Trailers"),
        ("TE", "gzip"),
        ("Keep-Alive", "timeout=5"),
        ("X-Hop", "1"),
        ("Proxy-Connection", "keep-alive"),
        ("Trailer", "x-sum"),
        ("Expect", "100-continue"),
    ]);
    let known = known.prop_map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let field = prop_oneof![5 => (free_name(), value()), 1 => known];
    (field, blanks(), blanks()).prop_map(|((name, value), before, after)| Line {
        name,
        before,
        value,
        after,
    })
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    prop::collection::vec(line(), 0..5)
}

fn trailers() -> impl Strategy<Value = Vec<Line>> {
    let forbidden = prop::sample::select(vec!["Content-Length", "Host", "Upgrade", "Connection"]);
    let forbidden = forbidden.prop_map(|name| Line::plain(name, "7"));
    prop::collection::vec(prop_oneof![9 => line(), 1 => forbidden], 0..3)
}

fn framing() -> impl Strategy<Value = Framing> {
    let extension = prop::sample::select(vec!["", ";a", ";a=b;c", ";a=\"b ;\\\"\u{e4}\""]);
    let format = (0..3_usize, any::<bool>(), extension);
    let chunked = (
        prop::sample::select(vec!["chunked", "Chunked", "CHUNKED"]),
        pieces(),
        format,
        prop::sample::select(vec!["0", "000", "0;a=b"]),
        trailers(),
    );
    let chunked = chunked.prop_map(
        |(coding, data, (zeros, is_upper, extension), last, trailers)| {
            let chunk = |data| Chunk {
                data,
                zeros,
                is_upper,
                extension,
            };
            Framing::Chunked {
                coding,
                chunks: data.into_iter().map(chunk).collect(),
                last,
                trailers,
            }
        },
    );
    prop_oneof![
        1 => pieces().prop_map(Framing::Unsaid),
        1 => (0..3_usize, pieces()).prop_map(|(zeros, pieces)| Framing::Length { zeros, pieces }),
        2 => chunked,
    ]
}

/// Options of a connection that goes on, in HTTP/1.1 at least.
fn options() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        6 => Just(vec![]),
        3 => Just(vec!["keep-alive"]),
        1 => Just(vec!["Keep-Alive , X-Hop"]),
        1 => Just(vec!["TE, x-hop", "keep-alive"]),
        1 => Just(vec!["keep-alive, Upgrade"]),
        1 => Just(vec![", ,"]),
    ]
}

/// Options of one that may end.
fn last_options() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        options(),
        Just(vec!["close"]),
        Just(vec!["x-hop, Close"]),
        Just(vec!["keep-alive, close"]),
        Just(vec!["keep-alive", "close"]),
        Just(vec!["close", "keep-alive"]),
    ]
}

/// The method and the target, which depend on each other (RFC 9112 3.2).
fn target() -> impl Strategy<Value = (String, Target)> {
    let known = vec![
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get",
    ];
    let method = prop_oneof![
        9 => prop::sample::select(known).prop_map(str::to_owned),
        1 => text(TOKEN, 0..9).prop_map(|rest| format!("x{}", String::from_utf8_lossy(&rest))),
    ];
    let absolute_path = prop_oneof![path(), Just(String::new()), Just("?a=/b".to_owned())];
    let schemes = prop::sample::select(vec!["http", "https", "HTTP"]);
    let authorities = prop::sample::select(AUTHORITIES.to_vec());
    let absolute = (schemes, authorities, absolute_path);
    let absolute = absolute.prop_map(|(scheme, authority, path)| Target::Absolute {
        scheme,
        authority,
        path,
    });
    let form = prop_oneof![3 => path().prop_map(Target::Origin), 1 => absolute];
    prop_oneof![
        9 => (method, form),
        1 => Just(("OPTIONS".to_owned(), Target::Asterisk)),
    ]
}

const AUTHORITIES: &[&str] = &[
    "orders.shop",
    "A.b:8080",
    "[::1]:80",
    "[FD00::1]",
    "127.0.0.1:65535",
    "a_b~c!$&'()*+,;=",
    "a:",
];

fn request() -> impl Strategy<Value = RawRequest> {
    let line = (0..3_usize, target(), prop::bool::weighted(0.2));
    let host = prop_oneof![9 => prop::sample::select(AUTHORITIES.to_vec()), 1 => Just("")];
    let upgrade =
        prop_oneof![4 => Just(None), 1 => Just(Some("websocket")), 1 => Just(Some("h2c"))];
    let fields = (host, options(), lines(), upgrade);
    (line, fields, framing()).prop_map(|(line, (host, options, mut lines, upgrade), framing)| {
        let (empty_lines, (method, target), is_old) = line;
        lines.extend(upgrade.map(|token| Line::plain("Upgrade", token)));
        // What HTTP/1.0 cannot say: that a connection goes on without a word, and chunks.
        let is_old = is_old && says(&options, "keep-alive");
        let framing = match framing {
            Framing::Unsaid(_) => Framing::Unsaid(Vec::new()),
            chunked @ Framing::Chunked { .. } if is_old => Framing::Length {
                zeros: 0,
                pieces: vec![Bytes::from(chunked.data())],
            },
            framing => framing,
        };
        RawRequest {
            empty_lines,
            method,
            target,
            is_old,
            host,
            options,
            lines,
            framing,
        }
    })
}

/// One that may be the last of its connection.
fn last_request() -> impl Strategy<Value = RawRequest> {
    let way = prop_oneof![Just("a CONNECT"), Just("as of old"), Just("by an option")];
    (request(), last_options(), way).prop_map(|(mut request, options, way)| {
        match way {
            "a CONNECT" => {
                request.method = "CONNECT".to_owned();
                request.target = Target::Authority("orders.shop:80");
                request.framing = Framing::Unsaid(Vec::new());
            }
            "as of old" if !matches!(request.framing, Framing::Chunked { .. }) => {
                request.is_old = true;
                request.options = options;
            }
            _ => request.options = options,
        }
        request
    })
}

fn response() -> impl Strategy<Value = RawResponse> {
    let known = vec!["GET", "HEAD", "POST", "DELETE", "x-any"];
    let method = prop::sample::select(known).prop_map(|name| name.parse().unwrap());
    let informational =
        prop::collection::vec((prop_oneof![Just(100), 102..200_u16], lines()), 0..3);
    let status = prop_oneof![Just(200), Just(204), Just(304), 200..600_u16];
    let line = (status, value(), prop::bool::weighted(0.2));
    let head = (method, informational, line, options(), lines());
    (head, framing()).prop_map(|(head, framing)| {
        let (method, informational, (status, reason, is_old), options, lines) = head;
        let is_old = is_old && says(&options, "keep-alive");
        let mut response = RawResponse {
            method,
            informational,
            status,
            reason,
            is_old,
            options,
            lines,
            framing,
        };
        let data = Bytes::from(response.framing.data());
        if response.ends_with_connection() || is_old {
            response.framing = Framing::Length {
                zeros: 0,
                pieces: vec![data],
            };
        }
        response
    })
}

/// One that may be the last of its connection.
fn last_response() -> impl Strategy<Value = RawResponse> {
    let ends_it = (any::<bool>(), any::<bool>(), pieces());
    (response(), last_options(), ends_it).prop_map(|(mut response, options, ends_it)| {
        let (is_old, until_close, pieces) = ends_it;
        response.options = options;
        if until_close {
            response.framing = Framing::Unsaid(pieces);
        }
        response.is_old = is_old && !matches!(response.framing, Framing::Chunked { .. });
        response
    })
}

#[track_caller]
fn alike(ours: &[Message], theirs: &[Message]) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

/// RFC 9112 3.2.4: an absolute form without a path asks for the options of `*`. The type that hyper
/// has for targets makes `/` of it, so what we read is held to what was sent, and then told like this.
fn without_asterisk(mut seen: Message, sent: &RawRequest) -> Message {
    let Start::Request { path, .. } = &mut seen.start else {
        panic!("a response");
    };
    assert_eq!(*path, sent.path());
    if path == "*" && matches!(sent.target, Target::Absolute { .. }) {
        *path = "/".to_owned();
    }
    seen
}

/// How many messages a connection carries.
const MESSAGES: usize = 16;

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn requests_are_read_alike(
        mut requests in prop::collection::vec(request(), MESSAGES - 1),
        last in last_request(),
        cuts in cuts(),
        pipe in 1000..100_000_usize,
    ) {
        requests.push(last);
        let mut bytes = Vec::new();
        for request in &requests {
            request.write(&mut bytes);
        }
        let goes_on = requests.last().is_some_and(RawRequest::persists);
        // Only a connection that goes on is asked this.
        requests.push(RawRequest::after());
        requests[MESSAGES].write(&mut bytes);
        let mut ours = Reader::of_requests();
        for piece in cuts.pieces(&bytes) {
            ours.feed(piece).expect("a request as it should be");
        }
        prop_assert_eq!(ours.seen.len(), MESSAGES + usize::from(goes_on));
        for (seen, sent) in ours.seen.iter().zip(&requests) {
            prop_assert_eq!(&seen.body, &sent.framing.data());
        }
        let ours = ours.seen.into_iter().zip(&requests);
        let ours: Vec<_> = ours.map(|(seen, sent)| without_asterisk(seen, sent)).collect();
        alike(&ours, &theirs::read_requests(&bytes, &cuts, pipe));
    }

    #[test]
    fn responses_are_read_alike(
        mut responses in prop::collection::vec(response(), MESSAGES - 1),
        last in last_response(),
        cuts in cuts(),
        pipe in 1000..100_000_usize,
    ) {
        responses.push(last);
        let mut ours = Reader::of_responses(responses.iter().map(|one| one.method.clone()));
        let mut answers = Vec::new();
        for response in &responses {
            let mut bytes = Vec::new();
            response.write(&mut bytes);
            for piece in cuts.pieces(&bytes) {
                ours.feed(piece).expect("a response as it should be");
            }
            let ends = response.ends_with_connection();
            answers.push((response.method.clone(), bytes, ends));
        }
        prop_assert!(ours.end());
        let (theirs, goes_on) = theirs::read_responses(answers, &cuts, pipe);
        alike(&ours.seen, &theirs);
        prop_assert_eq!(ours.persists, goes_on);
        prop_assert_eq!(ours.seen.len(), MESSAGES);
        prop_assert_eq!(goes_on, responses.last().is_some_and(RawResponse::persists));
        for (seen, sent) in ours.seen.iter().zip(&responses) {
            let data = if sent.is_bodiless() { Vec::new() } else { sent.framing.data() };
            prop_assert_eq!(&seen.body, &data);
        }
    }
}

/// What RFC 9112 lets a sender write, or asks a recipient to understand, and we refuse none the
/// less, because parsers are known to disagree about it (RFC 9112 11.2). hyper takes it.
#[test]
fn what_only_we_refuse() {
    let chunked = |body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}\r\n\r\n")
    };
    let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
    for (reason, input) in [
        (
            "7.1, blanks after a size without an extension",
            chunked("3  \r\nabc\r\n0"),
        ),
        (
            "6.3, the same length twice",
            with("Content-Length: 0\r\nContent-Length: 0"),
        ),
        (
            "2.2, lines that end with LF alone",
            "GET / HTTP/1.1\nHost: a\n\n".to_owned(),
        ),
        (
            "RFC 3986 3.2.2, an encoded host",
            "GET / HTTP/1.1\r\nHost: %61\r\n\r\n".to_owned(),
        ),
        (
            "RFC 3986 3.2.3, a port beyond 65535",
            "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n".to_owned(),
        ),
    ] {
        let mut ours = Reader::of_requests();
        assert!(ours.feed(input.as_bytes()).is_err(), "{reason}");
        let theirs = theirs::read_requests(input.as_bytes(), &Cuts(vec![1000]), 1000);
        assert_eq!(theirs.len(), 1, "{reason}");
    }
}
