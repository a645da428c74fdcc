//! Flow control, both ways (RFC 9113 5.2, 6.1, 6.9).

use super::*;

/// Windows of 1000 and 3000 octets, after the handshake.
fn small() -> Bench {
    Bench::begun(
        Role::Server,
        Limits {
            stream_window: 1000,
            connection_window: 100_000,
            ..Limits::default()
        },
    )
}

#[test]
fn what_a_window_allows() {
    let posted = |more: Vec<u8>| [post(1), more].concat();
    let wrong = "request 1 POST /; failed 1 FLOW_CONTROL_ERROR; RST_STREAM 1 FLOW_CONTROL_ERROR";
    check(
        || {
            let mut bench = small();
            bench.takes = false;
            bench
        },
        &[
            (
                "6.9.1 all of it",
                posted(data(1, 0, &[0; 1000])),
                "request 1 POST /",
            ),
            ("6.9.1 one more", posted(data(1, 0, &[0; 1001])), wrong),
            (
                "6.9.1 one more in the next frame",
                posted([data(1, 0, &[0; 1000]), data(1, END, b"x")].concat()),
                wrong,
            ),
            (
                "6.9.1 nothing more is fine",
                posted([data(1, 0, &[0; 1000]), data(1, END, b"")].concat()),
                "request 1 POST /",
            ),
            (
                "6.9.1 padding and its length count",
                posted(padded(1, 0, &[0; 900], 99)),
                "request 1 POST /",
            ),
            (
                "6.9.1 one octet more of padding",
                posted(padded(1, 0, &[0; 900], 100)),
                wrong,
            ),
        ],
    );
}

#[test]
fn the_connections_window() {
    let limits = Limits {
        stream_window: 1 << 20,
        connection_window: 70_000,
        ..Limits::default()
    };
    let mut bench = Bench::begun(Role::Server, limits);
    bench.takes = false;
    for id in [1, 3, 5, 7] {
        bench.feed(&post(id)).feed(&data(id, 0, &[0; 16_384]));
    }
    assert_eq!(
        bench.seen(),
        "request 1 POST /; request 3 POST /; request 5 POST /; request 7 POST /"
    );
    bench.feed(&data(7, 0, &[0; 70_000 - 4 * 16_384]));
    assert_eq!(bench.seen(), "");
    // Even on a stream that takes nothing any more.
    bench.feed(&rst(7, ErrorCode::CANCEL)).seen();
    bench.feed(&data(7, 0, b"x"));
    let seen = bench.seen();
    assert!(seen.starts_with("ended FLOW_CONTROL_ERROR; "), "{seen}");
}

#[test]
fn a_window_below_the_initial_one_holds_once_it_is_known() {
    // RFC 9113 6.9.2, 6.5.3: until the ACK the peer may use the initial window of 65,535.
    let limits = Limits {
        stream_window: 1000,
        ..Limits::default()
    };
    let mut bench = Bench::new(Role::Server, limits);
    bench.feed(PREFACE).feed(&settings(&[])).seen();
    bench.feed(&post(1)).feed(&data(1, 0, &[0; 16_384]));
    bench.feed(&data(1, 0, &[0; 16_384])).seen();
    let key = bench.key(1);
    assert_eq!(bench.engine.failure(key), None);
    bench.feed(&frame(SETTINGS, flag::ACK, 0, &[]));
    bench.feed(&post(3)).feed(&data(3, 0, &[0; 1001]));
    assert_eq!(
        bench.seen(),
        "request 3 POST /; failed 3 FLOW_CONTROL_ERROR; RST_STREAM 3 FLOW_CONTROL_ERROR"
    );
}

#[test]
fn what_is_taken_may_be_sent_anew() {
    let mut bench = small();
    bench.feed(&post(1)).seen();
    // RFC 9113 6.9: announced once half of the window was taken.
    bench.feed(&data(1, 0, &[0; 499]));
    assert_eq!(bench.seen(), "data 1 499");
    bench.feed(&data(1, 0, b"x"));
    assert_eq!(bench.seen(), "data 1 1; WINDOW_UPDATE 1 500");
    bench.feed(&data(1, 0, &[0; 1000]));
    assert_eq!(bench.seen(), "data 1 1000; WINDOW_UPDATE 1 1000");
    // Nobody needs a window after the end.
    bench.feed(&data(1, END, &[0; 1000]));
    assert_eq!(bench.seen(), "data 1 1000; end 1");
}

#[test]
fn a_window_is_what_a_stream_carries_in_a_round_trip() {
    let micros = |micros| {
        Limits::default()
            .over(Duration::from_micros(micros))
            .stream_window
    };
    assert_eq!(micros(0), 65_500);
    assert_eq!(micros(131), 65_500);
    assert_eq!(micros(200), 100_000);
    assert_eq!(micros(1_000), 262_000);
    assert_eq!(micros(u64::MAX), 262_000);
}

#[test]
fn streams_of_a_client_that_is_far_get_a_larger_window() {
    let limits = Limits {
        stream_window: 1000,
        stream_window_max: 5000,
        ..Limits::default()
    };
    for (micros, window) in [(0, 1000), (4, 2000), (1_000_000, 5000)] {
        let mut bench = Bench::new(Role::Server, limits);
        bench.feed(PREFACE).feed(&settings(&[])).seen();
        bench.now += Duration::from_micros(micros);
        bench.feed(&frame(SETTINGS, flag::ACK, 0, &[])).seen();
        bench.feed(&post(1)).feed(&data(1, 0, &[0; 500]));
        // The rest of the larger window is announced with what was taken.
        let announced = window - 1000 + 500;
        let expected = format!("request 1 POST /; data 1 500; WINDOW_UPDATE 1 {announced}");
        assert_eq!(bench.seen(), expected, "{micros} us");
        bench.takes = false;
        bench.feed(&data(1, 0, &vec![0; window]));
        assert_eq!(bench.seen(), "", "{micros} us");
        bench.feed(&data(1, 0, b"x"));
        let refused = "failed 1 FLOW_CONTROL_ERROR; RST_STREAM 1 FLOW_CONTROL_ERROR";
        assert_eq!(bench.seen(), refused, "{micros} us");
    }
}

#[test]
fn padding_is_given_back() {
    let mut bench = small();
    bench.feed(&post(1)).seen();
    for _ in 0..1000 {
        bench.feed(&padded(1, 0, b"x", 255)).seen();
    }
    // Even if it is all there is.
    for _ in 0..1000 {
        bench.feed(&padded(1, 0, b"", 255)).seen();
    }
    let key = bench.key(1);
    assert_eq!(bench.engine.failure(key), None);
    assert_eq!(bench.engine.ended(), None);
}

#[test]
fn little_data_that_waits_is_joined_on_each_stream() {
    let mut bench = Bench::server();
    bench.feed(&post(1)).feed(&post(3)).seen();
    bench.takes = false;
    // Octets of both come by turns, so what lies between two of a stream is the other's.
    let said = |id: u32, at: u32| (id * 100 + at % 50) as u8;
    let count = 5000;
    for at in 0..count {
        for id in [1, 3] {
            bench.feed(&data(id, 0, &[said(id, at)]));
        }
    }
    for id in [1, 3] {
        let key = bench.key(id);
        let (mut pieces, mut content) = (0, Vec::new());
        while let Taken::Piece(Piece::Data(data)) = bench.engine.take(key) {
            pieces += 1;
            content.extend_from_slice(&data);
        }
        let expected: Vec<u8> = (0..count).map(|at| said(id, at)).collect();
        assert_eq!(content, expected, "stream {id}");
        assert!(pieces <= 3, "stream {id}: {pieces} pieces");
    }
}

#[test]
fn the_connections_window_is_given_back_whoever_takes_the_data() {
    let each: &[(&str, Act)] = &[
        ("taken", |_| {}),
        ("dropped receiver", |bench| bench.drop_receiver(1)),
        ("reset by us", |bench| {
            let key = bench.key(1);
            bench.engine.reset(key, ErrorCode::CANCEL);
        }),
        ("reset by the peer", |bench| {
            bench.feed(&rst(1, ErrorCode::CANCEL));
        }),
        ("dropped after it came", |bench| {
            bench.takes = false;
            bench.feed(&data(1, 0, &[0; 1000]));
            bench.drop_receiver(1);
        }),
        ("dropped while it comes", |bench| {
            let frame = data(1, 0, &[0; 900]);
            bench.feed(&frame[..500]);
            bench.drop_receiver(1);
            bench.feed(&frame[500..]);
        }),
        ("reset while it comes", |bench| {
            let frame = data(1, 0, &[0; 900]);
            bench.feed(&frame[..500]);
            let key = bench.key(1);
            bench.engine.reset(key, ErrorCode::CANCEL);
            bench.feed(&frame[500..]).seen();
        }),
        ("more than the Content-Length", |bench| {
            let head = with(POST, &[("content-length", "3")]);
            bench.feed(&headers(3, OPEN, &head)).seen();
            bench.feed(&data(3, 0, b"hello")).seen();
        }),
    ];
    for (case, step) in each {
        let mut bench = small();
        bench.feed(&post(1)).seen();
        step(&mut bench);
        bench.seen();
        bench.takes = true;
        bench.feed(&post(5)).seen();
        // Far more than the connection's window.
        let mut sent = 0;
        while sent < 300_000 {
            bench.feed(&data(5, 0, &[0; 900]));
            bench.feed(&data(1, 0, &[0; 100])).seen();
            sent += 1000;
            let ended = bench.engine.ended();
            assert_eq!(ended, None, "{case}: {sent}");
            let window = bench.engine.receive_window + i64::from(bench.engine.taken);
            assert_eq!(window, 100_000, "{case}: after {sent}");
            if *case != "taken" {
                continue;
            }
            let key = bench.key(1);
            assert_eq!(bench.engine.failure(key), None, "{case}: {sent}");
        }
    }
}

#[test]
fn window_updates() {
    let posted = |more: Vec<u8>| [post(1), more].concat();
    let most = (1 << 31) - 1;
    check_server(&[
        (
            "6.9 nothing, for the connection",
            window(0, 0),
            "ended PROTOCOL_ERROR; GOAWAY 0 PROTOCOL_ERROR",
        ),
        (
            "6.9 nothing, for a stream",
            posted(window(1, 0)),
            "request 1 POST /; failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR",
        ),
        ("6.9 the reserved bit", window(0, 1 | 1 << 31), ""),
        ("6.9.1 the largest window", window(0, most - 65_535), ""),
        (
            "6.9.1 a larger one",
            window(0, most - 65_534),
            "ended FLOW_CONTROL_ERROR; GOAWAY 0 FLOW_CONTROL_ERROR",
        ),
        (
            "6.9.1 the largest of a stream",
            posted(window(1, most - 65_535)),
            "request 1 POST /",
        ),
        (
            "6.9.1 a larger one of a stream",
            posted(window(1, most - 65_534)),
            "request 1 POST /; failed 1 FLOW_CONTROL_ERROR; RST_STREAM 1 FLOW_CONTROL_ERROR",
        ),
    ]);
}

#[test]
fn sent_within_both_windows() {
    let mut bench = Bench::client();
    assert_eq!(bench.send(3, &[0; 100_000]), 65_535);
    assert_eq!(
        bench.seen(),
        "DATA 3 16375; DATA 3 16375; DATA 3 16375; DATA 3 16384; DATA 3 26"
    );
    // The stream's window opens first, then the connection's.
    bench.feed(&window(3, 10));
    assert_eq!(bench.woken(), [3]);
    assert_eq!(bench.send(3, &[0; 20]), 0);
    assert_eq!(bench.send(7, b"x"), 0);
    bench.feed(&window(0, 7));
    assert_eq!(bench.woken(), [3, 7], "in the order in which they came");
    assert_eq!(bench.send(3, &[0; 20]), 7);
    assert_eq!(bench.seen(), "DATA 3 7");
    // Now the other way round.
    bench.feed(&window(0, 100));
    assert_eq!(bench.send(3, &[0; 20]), 3);
    bench.woken();
    bench.feed(&window(3, 4));
    assert_eq!(bench.woken(), [3]);
    assert_eq!(bench.send(3, &[0; 4]), 4);
    assert_eq!(bench.seen(), "DATA 3 3; DATA 3 4");
}

#[test]
fn blocked_senders_come_in_order() {
    let mut bench = Bench::begun(Role::Client, Limits::default());
    for _ in 0..5 {
        bench.open(&request("POST"), false);
    }
    assert_eq!(bench.send(1, &[0; 65_535]), 65_535);
    for id in [9, 3, 7, 5, 3] {
        assert_eq!(bench.send(id, b"x"), 0);
    }
    let gone = bench.key(7);
    bench.drop_receiver(7);
    bench.engine.drop_sender(gone);
    bench.woken();
    bench.seen();
    bench.feed(&window(0, 2));
    assert_eq!(bench.woken(), [9, 3, 5]);
    assert_eq!(bench.send(9, b"x"), 1);
    assert_eq!(bench.send(3, b"x"), 1);
    assert_eq!(bench.send(5, b"x"), 0);
    bench.feed(&window(0, 1));
    assert_eq!(bench.woken(), [5]);
}

#[test]
fn a_full_output_blocks() {
    let mut bench = Bench::client();
    bench.feed(&window(0, 1 << 30)).feed(&window(3, 1 << 30));
    bench.feed(&window(7, 1 << 30));
    let sent = bench.send(3, &[0; 1 << 20]);
    assert!((256 * 1024 - 200..=256 * 1024).contains(&sent), "{sent}");
    assert_eq!(bench.send(7, b"x"), 0);
    let length = bench.engine.output().len();
    bench.engine.sent(length / 2 - 100);
    assert_eq!(bench.woken(), [0; 0]);
    bench.engine.sent(200);
    assert_eq!(bench.woken(), [3, 7]);
}
