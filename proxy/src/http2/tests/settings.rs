//! SETTINGS (RFC 9113 6.5, RFC 8441 3) and what they change.

use super::*;
use crate::http2::NotOpened;

#[test]
fn values() {
    let protocol = "ended PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR";
    let flow = "ended FLOW_CONTROL_ERROR; GOAWAY 0 FLOW_CONTROL_ERROR";
    check_server(&[
        ("6.5 none", settings(&[]), "SETTINGS ack"),
        (
            "6.5.2 unknown",
            settings(&[(0, 1), (7, 9), (0xffff, u32::MAX)]),
            "SETTINGS ack",
        ),
        (
            "6.5.2 any table",
            settings(&[(1, u32::MAX)]),
            "SETTINGS ack",
        ),
        ("6.5.2 no push", settings(&[(2, 0)]), "SETTINGS ack"),
        ("6.5.2 push", settings(&[(2, 1)]), "SETTINGS ack"),
        ("6.5.2 neither", settings(&[(2, 2)]), protocol),
        ("6.5.2 no streams", settings(&[(3, 0)]), "SETTINGS ack"),
        ("6.5.2 no window", settings(&[(4, 0)]), "SETTINGS ack"),
        (
            "6.5.2 the largest window",
            settings(&[(4, (1 << 31) - 1)]),
            "SETTINGS ack",
        ),
        ("6.5.2 a larger window", settings(&[(4, 1 << 31)]), flow),
        ("6.5.2 small frames", settings(&[(5, 16_383)]), protocol),
        (
            "6.5.2 usual frames",
            settings(&[(5, 16_384)]),
            "SETTINGS ack",
        ),
        (
            "6.5.2 large frames",
            settings(&[(5, (1 << 24) - 1)]),
            "SETTINGS ack",
        ),
        ("6.5.2 larger frames", settings(&[(5, 1 << 24)]), protocol),
        ("6.5.2 a small list", settings(&[(6, 0)]), "SETTINGS ack"),
        ("8441 3 a protocol", settings(&[(8, 1)]), "SETTINGS ack"),
        ("8441 3 neither", settings(&[(8, 2)]), protocol),
        ("8441 3 no protocol", settings(&[(8, 0)]), "SETTINGS ack"),
        ("8441 3 taken back", settings(&[(8, 1), (8, 0)]), protocol),
        (
            "8441 3 taken back later",
            [settings(&[(8, 1)]), settings(&[(8, 0)])].concat(),
            "ended PROTOCOL_ERROR; SETTINGS ack; GOAWAY 0 PROTOCOL_ERROR",
        ),
        ("6.5.3 in order", settings(&[(4, 7), (5, 1)]), protocol),
        ("6.5.3 an ACK", frame(SETTINGS, flag::ACK, 0, &[]), ""),
        (
            "6.5 other flags",
            frame(SETTINGS, 0xfe, 0, &[]),
            "SETTINGS ack",
        ),
    ]);
    let begun = || Bench::begun(Role::Client, Limits::default());
    check(
        begun,
        &[
            (
                "6.5.2 a server says no push",
                settings(&[(2, 0)]),
                "SETTINGS ack",
            ),
            ("6.5.2 a server says push", settings(&[(2, 1)]), protocol),
        ],
    );
}

#[test]
fn initial_windows_change_those_that_are_open() {
    // RFC 9113 6.9.2: also below zero.
    let mut bench = Bench::client();
    assert_eq!(bench.send(3, &[0; 1000]), 1000);
    bench.feed(&settings(&[(4, 400)]));
    assert_eq!(bench.send(3, b"x"), 0);
    bench.feed(&window(3, 600));
    assert_eq!(bench.woken(), [0; 0], "the window is 0");
    assert_eq!(bench.send(3, b"x"), 0);
    bench.feed(&window(3, 1));
    assert_eq!(bench.woken(), [3]);
    assert_eq!(bench.send(3, b"xy"), 1);
    bench.feed(&settings(&[(4, 402)]));
    assert_eq!(bench.woken(), [3]);
    assert_eq!(bench.send(3, b"xyz"), 2);
    assert_eq!(
        bench.seen(),
        "DATA 3 1000; SETTINGS ack; DATA 3 1; SETTINGS ack; DATA 3 2"
    );
}

#[test]
fn initial_windows_overflow() {
    // RFC 9113 6.9.2.
    let mut bench = Bench::client();
    bench.feed(&window(3, (1 << 31) - 1 - 65_535));
    assert_eq!(bench.seen(), "");
    bench.feed(&settings(&[(4, 65_536)]));
    let seen = bench.seen();
    assert!(seen.starts_with("ended FLOW_CONTROL_ERROR; "), "{seen}");
}

#[test]
fn initial_windows_of_streams_to_come() {
    let mut bench = Bench::begun(Role::Client, Limits::default());
    bench.feed(&settings(&[(4, 3)]));
    bench.open(&request("POST"), false);
    assert_eq!(bench.send(1, b"hello"), 3);
    // RFC 9113 6.9.2: the connection's window is another one.
    bench.feed(&settings(&[(4, 1 << 20)]));
    assert_eq!(bench.send(1, &[0; 100_000]), 65_535 - 3);
}

#[test]
fn streams_that_the_peer_takes() {
    // RFC 9113 5.1.2.
    let mut bench = Bench::new(Role::Client, Limits::default());
    assert_eq!(bench.engine.room(), u32::MAX);
    bench.feed(&settings(&[(3, 2)]));
    bench.open(&request("GET"), true);
    bench.open(&request("GET"), true);
    assert_eq!(bench.engine.room(), 0);
    let full = bench.engine.open(&request("GET"), |_| {}, true);
    assert_eq!(full, Err(NotOpened::Full));
    bench.feed(&settings(&[(3, 1)]));
    assert_eq!(bench.engine.room(), 0);
    bench.feed(&headers(1, END, OK));
    assert_eq!(bench.engine.room(), 0);
    bench.feed(&rst(3, ErrorCode::CANCEL));
    assert_eq!(bench.engine.room(), 1);
    assert!(!bench.engine.is_closing());
}

#[test]
fn protocols_only_where_they_are_known() {
    // RFC 8441 3.
    let upgrade = RequestHead {
        upgrade: Some("websocket".into()),
        ..request("GET")
    };
    let mut bench = Bench::begun(Role::Client, Limits::default());
    let opened = bench.engine.open(&upgrade, |_| {}, false);
    assert_eq!(opened, Err(NotOpened::NoConnectProtocol));
    assert_eq!(bench.seen(), "");
    bench.feed(&settings(&[(8, 1)])).seen();
    bench.open(&upgrade, false);
    assert_eq!(
        bench.seen(),
        "HEADERS 1 :method=CONNECT :scheme=https :path=/ :authority=a.b :protocol=websocket"
    );
}

#[test]
fn the_peers_table_follows_its_settings() {
    // RFC 7541 4.2: an update is the first thing in the next block, with the smallest size in between.
    let first_octets = |frames: &[&[u8]]| {
        let mut bench = Bench::begun(Role::Client, Limits::default());
        for frame in frames {
            bench.feed(frame);
        }
        bench.output();
        bench.open(&request("GET"), true);
        let output = bench.output();
        let updates = output[HEADER_BYTES..].iter();
        updates
            .take_while(|octet| **octet < 0x80)
            .copied()
            .collect::<Vec<_>>()
    };
    let table = |size| settings(&[(1, size)]);
    assert_eq!(first_octets(&[]), [0; 0]);
    assert_eq!(first_octets(&[&table(4096)]), [0; 0]);
    assert_eq!(first_octets(&[&table(30)]), [0x3e]);
    assert_eq!(first_octets(&[&table(0), &table(30)]), [0x20, 0x3e]);
    assert_eq!(first_octets(&[&settings(&[(1, 0), (1, 30)])]), [0x20, 0x3e]);
}

#[test]
fn the_peers_frames_are_as_large_as_it_says() {
    let mut bench = Bench::client();
    bench.feed(&settings(&[(5, 20_000)])).seen();
    assert_eq!(bench.send(3, &[0; 50_000]), 50_000);
    assert_eq!(bench.seen(), "DATA 3 20000; DATA 3 20000; DATA 3 10000");
    bench.feed(&settings(&[(5, 16_384)])).seen();
    assert_eq!(bench.send(3, &[0; 50_000]), 65_535 - 50_000);
    assert_eq!(bench.seen(), "DATA 3 15535");
}
