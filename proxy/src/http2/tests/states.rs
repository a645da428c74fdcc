//! Frames on streams in every state (RFC 9113 5.1).

use super::*;

const EMPTY: &[u8] = &[];

#[test]
fn idle_streams() {
    let wrong = "ended PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR";
    check_server(&[
        ("5.1 DATA", data(1, END, b"x"), wrong),
        ("5.1 RST_STREAM", rst(1, ErrorCode::CANCEL), wrong),
        ("5.1 WINDOW_UPDATE", window(1, 1), wrong),
        ("5.1 PRIORITY", frame(PRIORITY, 0, 1, &[0; 5]), ""),
        ("5.1.1 HEADERS on an even one", get(2), wrong),
        ("5.1.1 DATA on an even one", data(2, 0, b"x"), wrong),
        (
            "5.1.1 RST_STREAM on an even one",
            rst(2, ErrorCode::CANCEL),
            wrong,
        ),
        (
            "8.4 a client's push",
            frame(PUSH_PROMISE, 4, 1, &[0; 4]),
            wrong,
        ),
    ]);
    let wrong = "ended PROTOCOL_ERROR; failed 1 PROTOCOL_ERROR; failed 3 PROTOCOL_ERROR; \
                 failed 5 PROTOCOL_ERROR; failed 7 PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR";
    check_client(&[
        ("5.1 HEADERS", headers(9, END, OK), wrong),
        ("5.1 HEADERS on an even one", headers(2, END, OK), wrong),
        ("5.1 DATA", data(9, END, b"x"), wrong),
        ("5.1 DATA on an even one", data(2, END, b"x"), wrong),
        ("5.1 RST_STREAM", rst(9, ErrorCode::CANCEL), wrong),
        ("5.1 WINDOW_UPDATE", window(9, 1), wrong),
        ("5.1 PRIORITY", frame(PRIORITY, 0, 9, &[0; 5]), ""),
        (
            "8.4 a push that was forbidden",
            frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]),
            wrong,
        ),
    ]);
}

#[test]
fn identifiers_grow() {
    let both = "request 5 GET /; end 5; ";
    check_server(&[
        (
            "5.1.1 gaps",
            [get(5), get(9)].concat(),
            "request 5 GET /; request 9 GET /; end 5; end 9",
        ),
        (
            "5.1.1 HEADERS on one that was skipped",
            [get(5), get(3)].concat(),
            "ended PROTOCOL_ERROR; request 5 GET /; end 5; failed 5 PROTOCOL_ERROR; \
             GOAWAY 5 PROTOCOL_ERROR",
        ),
        (
            "5.1.1 HEADERS on one that was skipped before the first",
            [get(3), get(1)].concat(),
            "ended PROTOCOL_ERROR; request 3 GET /; end 3; failed 3 PROTOCOL_ERROR; \
             GOAWAY 3 PROTOCOL_ERROR",
        ),
        (
            "5.1 HEADERS on one that is over, with a gap before it and behind it",
            [get(3), rst(3, ErrorCode::CANCEL), get(7), get(3)].concat(),
            "ended STREAM_CLOSED; request 3 GET /; request 7 GET /; end 3; failed 3 CANCEL by peer; end 7; \
             failed 7 STREAM_CLOSED; GOAWAY 7 STREAM_CLOSED",
        ),
        (
            "5.1 HEADERS on one that is over, without gaps",
            [get(1), rst(1, ErrorCode::CANCEL), get(3), get(1)].concat(),
            "ended STREAM_CLOSED; request 1 GET /; request 3 GET /; end 1; failed 1 CANCEL by peer; end 3; \
             failed 3 STREAM_CLOSED; GOAWAY 3 STREAM_CLOSED",
        ),
        (
            "5.1.1 WINDOW_UPDATE on one that was skipped",
            [get(5), window(3, 1)].concat(),
            both.strip_suffix("; ").unwrap(),
        ),
        (
            "5.1.1 DATA on one that was skipped",
            [get(5), data(3, 0, b"x")].concat(),
            "request 5 GET /; end 5; RST_STREAM 3 STREAM_CLOSED",
        ),
    ]);
}

#[test]
fn half_closed_remote() {
    let after = |more: Vec<u8>| [get(1), more].concat();
    let wrong = "request 1 GET /; end 1; failed 1 STREAM_CLOSED; RST_STREAM 1 STREAM_CLOSED";
    check_server(&[
        ("5.1 DATA", after(data(1, 0, b"x")), wrong),
        ("5.1 empty DATA", after(data(1, END, b"")), wrong),
        ("5.1 HEADERS", after(get(1)), wrong),
        ("5.1 trailers", after(headers(1, END, &[("a", "b")])), wrong),
        (
            "5.1 WINDOW_UPDATE",
            after(window(1, 1)),
            "request 1 GET /; end 1",
        ),
        (
            "5.1 PRIORITY",
            after(frame(PRIORITY, 0, 1, &[0; 5])),
            "request 1 GET /; end 1",
        ),
        (
            "5.1 RST_STREAM",
            after(rst(1, ErrorCode::CANCEL)),
            "request 1 GET /; end 1; failed 1 CANCEL by peer",
        ),
    ]);
    let answered = |more: Vec<u8>| [headers(3, END, OK), more].concat();
    let wrong = "head 3 200 OK; end 3; failed 3 STREAM_CLOSED; RST_STREAM 3 STREAM_CLOSED";
    check_client(&[
        ("5.1 DATA", answered(data(3, END, b"x")), wrong),
        ("5.1 HEADERS", answered(headers(3, END, OK)), wrong),
        (
            "5.1 WINDOW_UPDATE",
            answered(window(3, 1)),
            "head 3 200 OK; end 3",
        ),
        (
            "8.1 no more of the request is needed",
            answered(rst(3, ErrorCode::NO_ERROR)),
            "head 3 200 OK; end 3; failed 3 NO_ERROR by peer",
        ),
    ]);
}

/// Stream 1 ended on both sides.
fn closed_server() -> Bench {
    let mut bench = Bench::server();
    bench.feed(&get(1)).seen();
    let key = bench.key(1);
    bench.engine.respond(key, &response(200), true).unwrap();
    assert_eq!(bench.seen(), "HEADERS 1 end :status=200");
    assert!(!bench.engine.has_streams());
    bench
}

/// Streams 1 and 5 ended on both sides.
fn closed_client() -> Bench {
    let mut bench = Bench::client();
    bench.feed(&headers(1, END, OK));
    bench.feed(&headers(5, END, OK)).seen();
    bench
}

#[test]
fn closed_streams() {
    check(
        closed_server,
        &[
            (
                "5.1 HEADERS",
                get(1),
                "ended STREAM_CLOSED; GOAWAY 1 STREAM_CLOSED",
            ),
            ("5.1 DATA", data(1, END, b"x"), "RST_STREAM 1 STREAM_CLOSED"),
            ("5.1 WINDOW_UPDATE", window(1, 1), ""),
            ("5.1 RST_STREAM", rst(1, ErrorCode::CANCEL), ""),
            ("5.1 PRIORITY", frame(PRIORITY, 0, 1, &[0; 5]), ""),
        ],
    );
    check(
        closed_client,
        &[
            ("5.1 HEADERS", headers(1, END, OK), ""),
            ("5.1 DATA", data(1, END, b"x"), "RST_STREAM 1 STREAM_CLOSED"),
            ("5.1 WINDOW_UPDATE", window(1, 1), ""),
            ("5.1 RST_STREAM", rst(1, ErrorCode::CANCEL), ""),
        ],
    );
}

fn reset_by(role: Role) -> Bench {
    let mut bench = match role {
        Role::Server => Bench::server(),
        Role::Client => Bench::client(),
    };
    if role == Role::Server {
        bench.feed(&post(3)).seen();
    }
    let key = bench.key(3);
    bench.engine.reset(key, ErrorCode::CANCEL);
    assert_eq!(bench.seen(), "failed 3 CANCEL; RST_STREAM 3 CANCEL");
    bench
}

#[test]
fn streams_that_we_reset() {
    let rows: &[Row] = &[
        ("5.4.2 DATA", data(3, END, b"x"), ""),
        ("5.4.2 trailers", headers(3, END, &[("a", "b")]), ""),
        ("5.4.2 RST_STREAM", rst(3, ErrorCode::CANCEL), ""),
        ("5.4.2 WINDOW_UPDATE", window(3, 1), ""),
        ("5.4.2 WINDOW_UPDATE of nothing", window(3, 0), ""),
    ];
    check(|| reset_by(Role::Server), rows);
    check(|| reset_by(Role::Client), rows);
}

#[test]
fn streams_that_the_peer_reset() {
    let reset = |more: &[u8]| [&post(1), &rst(1, ErrorCode::CANCEL)[..], more].concat();
    let failed = "request 1 POST /; failed 1 CANCEL by peer";
    check_server(&[
        ("6.4 RST_STREAM", reset(EMPTY), failed),
        (
            "5.1 DATA",
            reset(&data(1, 0, b"x")),
            "request 1 POST /; failed 1 CANCEL by peer; RST_STREAM 1 STREAM_CLOSED",
        ),
        (
            "5.1 HEADERS",
            reset(&get(1)),
            "ended STREAM_CLOSED; request 1 POST /; failed 1 CANCEL by peer; \
             GOAWAY 1 STREAM_CLOSED",
        ),
        ("5.1 RST_STREAM", reset(&rst(1, ErrorCode::CANCEL)), failed),
        ("5.1 WINDOW_UPDATE", reset(&window(1, 1)), failed),
        (
            "6.4 what came before is kept",
            [post(1), data(1, 0, b"abc"), rst(1, ErrorCode(99))].concat(),
            "request 1 POST /; data 1 3; failed 1 error code 0x63 by peer",
        ),
    ]);
    check_client(&[
        (
            "8.7 refused",
            rst(3, ErrorCode::REFUSED_STREAM),
            "failed 3 REFUSED_STREAM by peer unprocessed",
        ),
        (
            "6.4 another code",
            rst(3, ErrorCode::CANCEL),
            "failed 3 CANCEL by peer",
        ),
        (
            "8.1 before the answer was whole",
            [headers(3, OPEN, OK), rst(3, ErrorCode::NO_ERROR)].concat(),
            "head 3 200 OK; failed 3 NO_ERROR by peer",
        ),
    ]);
}

#[test]
fn the_tables_go_on_whatever_happens_to_a_stream() {
    // RFC 9113 4.3: each block is decoded, also of streams that are refused, reset or malformed.
    let mut bench = Bench::begun(
        Role::Server,
        Limits {
            streams: 1,
            ..Limits::default()
        },
    );
    let entry = |name: &str| [&[0x40, 1][..], name.as_bytes(), b"\x01v"].concat();
    let with_entry = |stream, fields, name| {
        let payload = [block(fields), entry(name)].concat();
        frame(HEADERS, 5, stream, &payload)
    };
    bench.feed(&with_entry(1, POST, "a"));
    bench.feed(&with_entry(3, GET, "b"));
    bench.feed(&with_entry(5, &[], "c")).seen();
    let key = bench.key(1);
    bench.engine.respond(key, &response(200), true).unwrap();
    bench.seen();
    let indexed = [block(GET), vec![0xbe, 0xbf, 0xc0]].concat();
    bench.feed(&frame(HEADERS, 5, 7, &indexed));
    let head = bench.engine.accept().expect("a request").head.unwrap();
    assert_eq!(head.headers, fields(&[("c", "v"), ("b", "v"), ("a", "v")]));
}
