//! Frames as such: the preface, sizes, padding, CONTINUATION (RFC 9113 3.4, 4, 6).

use super::*;

fn unbegun_server() -> Bench {
    let mut bench = Bench::new(Role::Server, Limits::default());
    bench.seen();
    bench
}

fn unbegun_client() -> Bench {
    let mut bench = Bench::new(Role::Client, Limits::default());
    bench.seen();
    bench
}

#[test]
fn what_a_connection_begins_with() {
    let mut server = Bench::new(Role::Server, Limits::default());
    assert_eq!(
        server.seen(),
        "SETTINGS 8=1 3=1024 4=65500 6=65536; WINDOW_UPDATE 0 33488897"
    );
    let mut client = Bench::new(Role::Client, Limits::default());
    assert!(client.output().starts_with(PREFACE), "RFC 9113 3.4");
    let mut client = Bench::new(Role::Client, Limits::default());
    assert_eq!(
        client.seen(),
        "SETTINGS 2=0 3=1024 4=65500 6=65536; WINDOW_UPDATE 0 33488897"
    );
    assert!(!client.engine.has_begun());
    client.feed(&settings(&[]));
    assert!(client.engine.has_begun());
}

#[test]
fn preface_and_first_settings() {
    let begin = |more: &[u8]| [PREFACE, more].concat();
    let wrong = "ended PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR";
    check(
        unbegun_server,
        &[
            ("3.4 a part of it", PREFACE[..10].to_vec(), ""),
            ("3.4 the whole of it", begin(&[]), ""),
            (
                "3.4 another protocol",
                b"GET / HTTP/1.1\r\n".to_vec(),
                wrong,
            ),
            ("3.4 its last octet", [&PREFACE[..23], b"x"].concat(), wrong),
            ("3.4 no preface", settings(&[]), wrong),
            ("3.4 SETTINGS", begin(&settings(&[])), "SETTINGS ack"),
            ("3.4 something else", begin(&get(1)), wrong),
            (
                "3.4 an ACK",
                begin(&frame(SETTINGS, flag::ACK, 0, &[])),
                wrong,
            ),
            ("3.4 an unknown frame", begin(&frame(99, 0, 0, &[])), wrong),
            (
                "3.4 its header is enough",
                begin(&frame(PING, 0, 0, &[0; 8])[..9]),
                wrong,
            ),
        ],
    );
    check(
        unbegun_client,
        &[
            ("3.4 SETTINGS", settings(&[]), "SETTINGS ack"),
            ("3.4 a client's preface", begin(&[]), {
                // Its first three octets are a length.
                "ended FRAME_SIZE_ERROR; GOAWAY 0 FRAME_SIZE_ERROR"
            }),
            ("3.4 something else", headers(1, END, OK), wrong),
            ("3.4 an ACK", frame(SETTINGS, flag::ACK, 0, &[]), wrong),
            ("3.4 GOAWAY", go_away(0, ErrorCode::NO_ERROR), wrong),
        ],
    );
}

#[test]
fn frame_sizes() {
    let wrong = "ended FRAME_SIZE_ERROR; GOAWAY 0 FRAME_SIZE_ERROR";
    let opened = |more: Vec<u8>| [post(1), more].concat();
    let later = "ended FRAME_SIZE_ERROR; request 1 POST /; failed 1 FRAME_SIZE_ERROR; \
                 GOAWAY 1 FRAME_SIZE_ERROR";
    check_server(&[
        (
            "4.2 the largest DATA",
            opened(data(1, END, &[0; 16_384])),
            "request 1 POST /; data 1 16384; end 1",
        ),
        (
            "4.2 DATA above it",
            opened(data(1, END, &[0; 16_385])),
            later,
        ),
        (
            "4.2 HEADERS above it",
            frame(HEADERS, 4, 1, &[0; 16_385]),
            wrong,
        ),
        (
            "4.2 an unknown frame above it",
            frame(99, 0, 0, &[0; 16_385]),
            wrong,
        ),
        (
            "6.4 RST_STREAM too short",
            opened(frame(RST_STREAM, 0, 1, &[0; 3])),
            later,
        ),
        (
            "6.4 RST_STREAM too long",
            opened(frame(RST_STREAM, 0, 1, &[0; 5])),
            later,
        ),
        (
            "6.5 SETTINGS, half a value",
            frame(SETTINGS, 0, 0, &[0; 7]),
            wrong,
        ),
        (
            "6.5 an ACK with a payload",
            frame(SETTINGS, flag::ACK, 0, &[0; 6]),
            wrong,
        ),
        ("6.7 PING too short", frame(PING, 0, 0, &[0; 7]), wrong),
        (
            "6.7 PING too long",
            frame(PING, flag::ACK, 0, &[0; 9]),
            wrong,
        ),
        ("6.8 GOAWAY too short", frame(GOAWAY, 0, 0, &[0; 7]), wrong),
        (
            "6.8 GOAWAY with debug data",
            frame(GOAWAY, 0, 0, &[0; 99]),
            "",
        ),
        (
            "6.9 WINDOW_UPDATE too short",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            wrong,
        ),
        (
            "6.9 WINDOW_UPDATE too long",
            frame(WINDOW_UPDATE, 0, 0, &[0; 5]),
            wrong,
        ),
        (
            "6.9 WINDOW_UPDATE of a stream",
            opened(frame(WINDOW_UPDATE, 0, 1, &[0; 5])),
            later,
        ),
        (
            "6.3 PRIORITY of a wrong size",
            opened(frame(PRIORITY, 0, 1, &[0; 4])),
            "request 1 POST /; failed 1 FRAME_SIZE_ERROR; RST_STREAM 1 FRAME_SIZE_ERROR",
        ),
        // A stream that is idle cannot be reset (RFC 9113 6.4).
        (
            "6.3 the same of an idle stream",
            frame(PRIORITY, 0, 1, &[0; 6]),
            wrong,
        ),
    ]);
}

#[test]
fn frames_on_the_wrong_stream() {
    let wrong = "ended PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR";
    check_server(&[
        ("6.1 DATA", data(0, END, b"x"), wrong),
        ("6.2 HEADERS", headers(0, END, GET), wrong),
        ("6.3 PRIORITY", frame(PRIORITY, 0, 0, &[0; 5]), wrong),
        ("6.4 RST_STREAM", rst(0, ErrorCode::CANCEL), wrong),
        ("6.5 SETTINGS", frame(SETTINGS, 0, 1, &[]), wrong),
        (
            "6.5 SETTINGS ACK",
            frame(SETTINGS, flag::ACK, 1, &[]),
            wrong,
        ),
        (
            "6.6 PUSH_PROMISE",
            frame(PUSH_PROMISE, 4, 0, &[0; 4]),
            wrong,
        ),
        ("6.7 PING", frame(PING, 0, 1, &[0; 8]), wrong),
        ("6.8 GOAWAY", frame(GOAWAY, 0, 1, &[0; 8]), wrong),
        ("6.10 CONTINUATION", frame(CONTINUATION, 4, 0, &[]), wrong),
        ("5.5 an unknown frame", frame(99, 255, 0, b"x"), ""),
        (
            "5.5 the same on an idle stream",
            frame(99, 255, 7, b"x"),
            "",
        ),
        (
            "4.1 the reserved bit",
            headers(1 | 1 << 31, END, GET),
            "request 1 GET /; end 1",
        ),
    ]);
}

#[test]
fn padding() {
    let get = block(GET);
    let padded_get = |padding: u8, real: usize| {
        let payload = [&[padding][..], &get, &vec![0; real]].concat();
        frame(HEADERS, flag::PADDED | flag::END_HEADERS | END, 1, &payload)
    };
    let prioritized = [&[0x80, 0, 0, 3, 200][..], &get].concat();
    let wrong = "ended PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR";
    let too_short = "ended FRAME_SIZE_ERROR; GOAWAY 0 FRAME_SIZE_ERROR";
    let too_short_data = "ended FRAME_SIZE_ERROR; request 1 POST /; failed 1 FRAME_SIZE_ERROR; \
                          GOAWAY 1 FRAME_SIZE_ERROR";
    let wrong_data = "ended PROTOCOL_ERROR; request 1 POST /; failed 1 PROTOCOL_ERROR; \
                      GOAWAY 1 PROTOCOL_ERROR";
    let posted = |more: Vec<u8>| [post(1), more].concat();
    check_server(&[
        ("6.2 padding", padded_get(9, 9), "request 1 GET /; end 1"),
        ("6.2 none", padded_get(0, 0), "request 1 GET /; end 1"),
        ("6.2 more than the payload", padded_get(255, 0), wrong),
        (
            "4.2 no room for its length",
            frame(HEADERS, 0xc, 1, &[]),
            too_short,
        ),
        (
            "4.2 no room for the priority",
            frame(HEADERS, 0x24, 1, &[0; 4]),
            too_short,
        ),
        (
            "6.2 priority",
            frame(HEADERS, 0x25, 1, &prioritized),
            "request 1 GET /; end 1",
        ),
        (
            "6.2 priority and padding",
            frame(
                HEADERS,
                0x2d,
                1,
                &[&[2][..], &prioritized, &[0; 2]].concat(),
            ),
            "request 1 GET /; end 1",
        ),
        (
            "6.1 padding",
            posted(padded(1, END, b"hello", 200)),
            "request 1 POST /; data 1 5; end 1",
        ),
        (
            "6.1 nothing else",
            posted(padded(1, END, b"", 255)),
            "request 1 POST /; end 1",
        ),
        (
            "6.1 as long as the payload",
            posted(data(1, 9, &[1])),
            wrong_data,
        ),
        ("6.1 longer", posted(data(1, 9, &[3, 0, 0])), wrong_data),
        (
            "4.2 no room for its length",
            posted(data(1, 9, &[])),
            too_short_data,
        ),
    ]);
}

#[test]
fn continuation() {
    let whole = block(GET);
    let (first, rest) = whole.split_at(7);
    let begun = frame(HEADERS, END, 1, first);
    let then = |more: Vec<u8>| [begun.clone(), more].concat();
    let wrong = "ended PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR";
    check_server(&[
        (
            "6.10 two frames",
            then(frame(CONTINUATION, 4, 1, rest)),
            "request 1 GET /; end 1",
        ),
        (
            "6.10 an octet each",
            then(
                rest.iter()
                    .enumerate()
                    .flat_map(|(at, octet)| {
                        let last = if at + 1 == rest.len() { 4 } else { 0 };
                        frame(CONTINUATION, last, 1, &[*octet])
                    })
                    .collect(),
            ),
            "request 1 GET /; end 1",
        ),
        (
            "6.10 empty ones",
            then(
                [
                    frame(CONTINUATION, 0, 1, rest),
                    frame(CONTINUATION, 4, 1, &[]),
                ]
                .concat(),
            ),
            "request 1 GET /; end 1",
        ),
        (
            "6.10 END_STREAM means nothing here",
            [
                frame(HEADERS, OPEN, 1, first),
                frame(CONTINUATION, 4 | END, 1, rest),
            ]
            .concat(),
            "request 1 GET /",
        ),
        (
            "6.10 of another stream",
            then(frame(CONTINUATION, 4, 3, rest)),
            wrong,
        ),
        ("6.10 DATA between", then(data(1, 0, b"x")), wrong),
        ("6.10 HEADERS between", then(get(3)), wrong),
        ("6.10 SETTINGS between", then(settings(&[])), wrong),
        ("6.10 PING between", then(frame(PING, 0, 0, &[0; 8])), wrong),
        (
            "5.5 an unknown frame between",
            then(frame(99, 0, 1, &[])),
            wrong,
        ),
        ("6.10 of nothing", frame(CONTINUATION, 4, 1, &whole), wrong),
        (
            "6.10 after the end",
            [get(1), frame(CONTINUATION, 4, 1, &[])].concat(),
            {
                "ended PROTOCOL_ERROR; request 1 GET /; end 1; failed 1 PROTOCOL_ERROR; \
             GOAWAY 1 PROTOCOL_ERROR"
            },
        ),
        (
            "4.3 what is no block",
            frame(HEADERS, 5, 1, &[0xff, 0xff, 0xff]),
            "ended COMPRESSION_ERROR; GOAWAY 0 COMPRESSION_ERROR",
        ),
        (
            "4.3 an index in neither table",
            frame(HEADERS, 5, 1, &[0x80 | 70]),
            "ended COMPRESSION_ERROR; GOAWAY 0 COMPRESSION_ERROR",
        ),
        (
            "4.3 a block that is cut off",
            frame(HEADERS, 5, 1, first),
            "ended COMPRESSION_ERROR; GOAWAY 0 COMPRESSION_ERROR",
        ),
    ]);
}

#[test]
fn nothing_is_taken_after_the_end() {
    let mut bench = Bench::server();
    bench.feed(&data(0, 0, b"x")).seen();
    assert_eq!(bench.feed(&get(1)).seen(), "ended PROTOCOL_ERROR");
    assert!(bench.engine.is_over());
    assert!(bench.engine.is_closing());
}
