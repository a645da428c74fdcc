//! What makes a message (RFC 9113 8.1): heads, content of the length that was said, trailers.

use super::*;

fn length(of: &str) -> Vec<(&str, &str)> {
    with(POST, &[("content-length", of)])
}

const TRAILERS: &[(&str, &str)] = &[("a", "b"), ("c", "d")];

#[test]
fn requests() {
    let wrong = "request 1 POST /; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR";
    check_server(&[
        ("8.1 a head", get(1), "request 1 GET /; end 1"),
        (
            "8.1 content",
            [post(1), data(1, 0, b"abc"), data(1, END, b"d")].concat(),
            "request 1 POST /; data 1 4; end 1",
        ),
        (
            "8.1 empty content",
            [post(1), data(1, END, b"")].concat(),
            "request 1 POST /; end 1",
        ),
        (
            "8.1 trailers",
            [post(1), data(1, 0, b"abc"), headers(1, END, TRAILERS)].concat(),
            "request 1 POST /; data 1 3; trailers 1 2; end 1",
        ),
        (
            "8.1 trailers alone",
            [post(1), headers(1, END, &[])].concat(),
            "request 1 POST /; trailers 1 0; end 1",
        ),
        (
            "8.1 trailers that don't end it",
            [post(1), headers(1, OPEN, TRAILERS)].concat(),
            wrong,
        ),
        (
            "8.1 trailers with a pseudo-header field",
            [post(1), headers(1, END, GET)].concat(),
            wrong,
        ),
        (
            "8.1 trailers with :status",
            [post(1), headers(1, END, OK)].concat(),
            wrong,
        ),
        (
            "8.2.2 trailers with a connection's field",
            [post(1), headers(1, END, &[("connection", "close")])].concat(),
            wrong,
        ),
    ]);
}

#[test]
fn lengths_of_requests() {
    let sent = |of: &str, more: &[Vec<u8>]| [headers(1, OPEN, &length(of)), more.concat()].concat();
    let malformed = "RST_STREAM 1 PROTOCOL_ERROR";
    let wrong = "request 1 POST /; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR";
    let some = "request 1 POST /; data 1 2; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR";
    check_server(&[
        (
            "8.1.1 exactly",
            sent("5", &[data(1, 0, b"ab"), data(1, END, b"cde")]),
            "request 1 POST /; data 1 5; end 1",
        ),
        (
            "8.1.1 exactly, padded",
            sent("5", &[padded(1, END, b"abcde", 9)]),
            "request 1 POST /; data 1 5; end 1",
        ),
        (
            "8.1.1 exactly, with trailers",
            sent("2", &[data(1, 0, b"ab"), headers(1, END, TRAILERS)]),
            "request 1 POST /; data 1 2; trailers 1 2; end 1",
        ),
        ("8.1.1 less", sent("5", &[data(1, END, b"ab")]), some),
        (
            "8.1.1 less, the end alone",
            sent("5", &[data(1, 0, b"ab"), data(1, END, b"")]),
            some,
        ),
        (
            "8.1.1 less, with trailers",
            sent("5", &[data(1, 0, b"ab"), headers(1, END, TRAILERS)]),
            some,
        ),
        ("8.1.1 more", sent("2", &[data(1, 0, b"abc")]), wrong),
        (
            "8.1.1 more, later",
            sent("2", &[data(1, 0, b"ab"), data(1, 0, b"c")]),
            some,
        ),
        (
            "8.1.1 no content at all",
            headers(1, END, &length("5")),
            malformed,
        ),
        (
            "8.1.1 none, and none was said",
            headers(1, END, &length("0")),
            { "request 1 POST /; end 1" },
        ),
        (
            "8.1.1 no number",
            headers(1, OPEN, &length("5x")),
            malformed,
        ),
        ("8.1.1 a sign", headers(1, OPEN, &length("+5")), malformed),
        ("8.1.1 a list", headers(1, OPEN, &length("5, 5")), malformed),
        ("8.1.1 nothing", headers(1, OPEN, &length("")), malformed),
        (
            "8.1.1 too many digits",
            headers(1, OPEN, &length("99999999999999999999")),
            malformed,
        ),
        (
            "8.1.1 twice",
            headers(1, OPEN, &with(&length("5"), &[("content-length", "5")])),
            malformed,
        ),
    ]);
    let connect = [
        (":method", "CONNECT"),
        (":authority", "a:1"),
        ("content-length", "3"),
    ];
    check_server(&[(
        "8.5 CONNECT has no content, its bytes are the tunnel's",
        [headers(1, OPEN, &connect), data(1, END, b"hello")].concat(),
        "request 1 CONNECT ; data 1 5; end 1",
    )]);
}

#[test]
fn responses() {
    let wrong = "failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR";
    let early = [(":status", "103"), ("link", "x")];
    check_client(&[
        ("8.1 a head", headers(1, END, OK), "head 1 200 OK; end 1"),
        (
            "8.1 content",
            [headers(1, OPEN, OK), data(1, 0, b"ab"), data(1, END, b"c")].concat(),
            "head 1 200 OK; data 1 3; end 1",
        ),
        (
            "8.1 trailers",
            [headers(1, OPEN, OK), headers(1, END, TRAILERS)].concat(),
            "head 1 200 OK; trailers 1 2; end 1",
        ),
        (
            "8.1 informational ones",
            [
                headers(1, OPEN, &early),
                headers(1, OPEN, &early),
                headers(1, END, OK),
            ]
            .concat(),
            "head 1 103 Early Hints; head 1 103 Early Hints; head 1 200 OK; end 1",
        ),
        (
            "8.1 an informational one at the end",
            headers(1, END, &early),
            wrong,
        ),
        (
            "8.1 DATA after an informational one",
            [headers(1, OPEN, &early), data(1, END, b"x")].concat(),
            "head 1 103 Early Hints; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR",
        ),
        ("8.1 DATA without a head", data(1, 0, b"x"), wrong),
        (
            "8.1 two heads",
            [headers(1, OPEN, OK), headers(1, OPEN, OK)].concat(),
            "head 1 200 OK; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR",
        ),
        (
            "8.1 an informational one after the head",
            [headers(1, OPEN, OK), headers(1, OPEN, &early)].concat(),
            "head 1 200 OK; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR",
        ),
        ("8.6 101", headers(1, OPEN, &[(":status", "101")]), wrong),
    ]);
}

#[test]
fn lengths_of_responses() {
    // Stream 1 is a GET's, 5 a HEAD's, 7 a CONNECT's.
    let head = |id, end, status| {
        let fields = [(":status", status), ("content-length", "3")];
        headers(id, end, &fields)
    };
    let answer = |id, status, content| [head(id, OPEN, status), data(id, END, content)].concat();
    let malformed = "failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR";
    let wrong = |what: &'static str| -> &'static str {
        format!("{what}; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR").leak()
    };
    check_client(&[
        (
            "8.1.1 exactly",
            answer(1, "200", b"abc"),
            "head 1 200 OK; data 1 3; end 1",
        ),
        (
            "8.1.1 less",
            answer(1, "200", b"ab"),
            wrong("head 1 200 OK; data 1 2"),
        ),
        (
            "8.1.1 more",
            answer(1, "200", b"abcd"),
            wrong("head 1 200 OK"),
        ),
        ("8.1.1 no content", head(1, END, "200"), malformed),
        (
            "8.1.1 less, with trailers",
            [
                head(1, OPEN, "200"),
                data(1, 0, b"ab"),
                headers(1, END, TRAILERS),
            ]
            .concat(),
            wrong("head 1 200 OK; data 1 2"),
        ),
        ("8.1.1 HEAD", head(5, END, "200"), "head 5 200 OK; end 5"),
        (
            "8.1.1 HEAD, then the end",
            answer(5, "200", b""),
            "head 5 200 OK; end 5",
        ),
        (
            "8.1.1 HEAD with content",
            answer(5, "200", b"abc"),
            "head 5 200 OK; failed 5 PROTOCOL_ERROR; RST_STREAM 5 PROTOCOL_ERROR",
        ),
        (
            "8.1.1 304",
            head(1, END, "304"),
            "head 1 304 Not Modified; end 1",
        ),
        (
            "8.1.1 304 with content",
            answer(1, "304", b"abc"),
            wrong("head 1 304 Not Modified"),
        ),
        (
            "8.1.1 204",
            head(1, END, "204"),
            "head 1 204 No Content; end 1",
        ),
        (
            "8.1.1 204 with content",
            answer(1, "204", b"abc"),
            wrong("head 1 204 No Content"),
        ),
        (
            "8.5 a tunnel's bytes are nobody's content",
            answer(7, "200", b"hello"),
            "head 7 200 OK; data 7 5; end 7",
        ),
        (
            "8.5 a refused tunnel's are",
            answer(7, "403", b"hello"),
            "head 7 403 Forbidden; failed 7 PROTOCOL_ERROR; RST_STREAM 7 PROTOCOL_ERROR",
        ),
        (
            "8.5 as long as it says",
            answer(7, "403", b"abc"),
            "head 7 403 Forbidden; data 7 3; end 7",
        ),
    ]);
}

#[test]
fn unread_informational_heads_are_limited() {
    let mut bench = Bench::client();
    bench.takes = false;
    for _ in 0..16 {
        bench.feed(&headers(1, OPEN, &[(":status", "103")]));
    }
    assert_eq!(bench.seen(), "");
    bench.feed(&headers(1, OPEN, &[(":status", "103")]));
    assert_eq!(
        bench.seen(),
        "failed 1 ENHANCE_YOUR_CALM; RST_STREAM 1 ENHANCE_YOUR_CALM"
    );
}

#[test]
fn lists_that_are_too_large() {
    let large = "x".repeat(8000);
    let many: Vec<(&str, &str)> = vec![("a", "b"); 253];
    let fields = |head, count| {
        let fields: Vec<_> = std::iter::repeat_n(("a", large.as_str()), count).collect();
        with(head, &fields)
    };
    let long = |stream, end, head, count| {
        let block = block(&fields(head, count));
        let mut chunks = block.chunks(16_384).peekable();
        let first = chunks.next().unwrap();
        let mut wire = frame(HEADERS, end, stream, first);
        while let Some(chunk) = chunks.next() {
            let last = if chunks.peek().is_none() { 4 } else { 0 };
            wire.extend(frame(CONTINUATION, last, stream, chunk));
        }
        wire
    };
    check_server(&[
        // The sizes that count are those of RFC 7541 4.1.
        (
            "10.5.1 within the limit",
            long(1, END, GET, 8),
            "request 1 GET /; end 1",
        ),
        (
            "10.5.1 above it",
            long(1, END, GET, 9),
            "refused 1 the header list is too large; end 1",
        ),
        (
            "10.5.1 many fields",
            headers(1, END, &with(GET, &many[1..])),
            "request 1 GET /; end 1",
        ),
        (
            "10.5.1 too many",
            headers(1, END, &with(GET, &many)),
            "refused 1 the header list is too large; end 1",
        ),
        (
            "10.5.1 trailers above it",
            [post(1), long(1, END, &[], 9)].concat(),
            "request 1 POST /; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR",
        ),
    ]);
    check_client(&[(
        "10.5.1 a response above it",
        long(1, END, OK, 9),
        "failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR",
    )]);
}
