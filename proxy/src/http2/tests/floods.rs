//! What costs us and gets the peer nothing is limited (RFC 9113 10.5).

use super::*;

/// The frames of the stream with this identifier.
type OnStream<'a> = &'a dyn Fn(u32) -> Vec<u8>;

const CALM: &str = "ended ENHANCE_YOUR_CALM";

fn limited() -> Bench {
    Bench::begun(
        Role::Server,
        Limits {
            resets: 20,
            control_frames: 50,
            ..Limits::default()
        },
    )
}

/// How many of these are taken before the connection ends; at most `most`.
fn taken(bench: &mut Bench, most: u32, mut each: impl FnMut(u32) -> Vec<u8>) -> u32 {
    for count in 0..most {
        bench.feed(&each(count)).seen();
        if let Some(ended) = bench.engine.ended() {
            assert_eq!(ended.code, ErrorCode::ENHANCE_YOUR_CALM);
            return count;
        }
    }
    most
}

#[test]
fn frames_without_use() {
    let rows: &[(&str, Vec<u8>, u32)] = &[
        ("PING", frame(PING, 0, 0, &[0; 8]), 50),
        ("PING ACK", frame(PING, flag::ACK, 0, &[0; 8]), 50),
        ("SETTINGS", settings(&[(4, 1)]), 50),
        ("SETTINGS ACK", frame(SETTINGS, flag::ACK, 0, &[]), 50),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 5]), 50),
        ("an unknown frame", frame(99, 0, 0, &[]), 50),
        ("empty DATA", data(1, 0, &[]), 50),
        ("DATA with padding only", padded(1, 0, &[], 9), 50),
        (
            "RST_STREAM on a closed stream",
            rst(3, ErrorCode::CANCEL),
            50,
        ),
        ("GOAWAY", go_away(0, ErrorCode::NO_ERROR), 50),
        ("DATA", data(1, 0, b"x"), 500),
    ];
    for (kind, bytes, most) in rows {
        let mut bench = limited();
        bench
            .feed(&post(1))
            .feed(&post(3))
            .feed(&data(3, END, b"x"));
        bench.seen();
        let key = bench.key(3);
        bench.engine.respond(key, &response(200), true).unwrap();
        let count = taken(&mut bench, 500, |_| bytes.clone());
        assert_eq!(count, *most, "{kind}");
    }
}

#[test]
fn time_and_use_refill() {
    let mut bench = limited();
    let ping = || frame(PING, 0, 0, &[0; 8]);
    assert_eq!(
        taken(&mut bench, 48, |_| ping()),
        48,
        "the handshake cost two"
    );
    bench.later(Duration::from_millis(200));
    assert_eq!(taken(&mut bench, 10, |_| ping()), 10);
    // A useful frame each.
    bench.feed(&post(1));
    let count = taken(&mut bench, 500, |_| [data(1, 0, b"x"), ping()].concat());
    assert_eq!(count, 500);
    // Never above what it is at first.
    bench.later(Duration::from_secs(3600));
    assert_eq!(taken(&mut bench, 500, |_| ping()), 50);
    assert_eq!(bench.seen(), CALM);
}

#[test]
fn slow_trickles_never_end_a_connection() {
    let mut bench = limited();
    for _ in 0..1000 {
        bench.later(Duration::from_millis(21));
        bench.feed(&frame(PING, 0, 0, &[0; 8])).seen();
    }
    assert_eq!(bench.engine.ended(), None);
}

#[test]
fn rapid_resets() {
    let short = with(POST, &[("content-length", "1")]);
    let each: &[(&str, OnStream)] = &[
        ("RST_STREAM", &|id| {
            [post(id), rst(id, ErrorCode::CANCEL)].concat()
        }),
        ("after the end", &|id| {
            [get(id), rst(id, ErrorCode::CANCEL)].concat()
        }),
        ("with NO_ERROR", &|id| {
            [get(id), rst(id, ErrorCode::NO_ERROR)].concat()
        }),
        ("WINDOW_UPDATE of nothing", &|id| {
            [get(id), window(id, 0)].concat()
        }),
        ("WINDOW_UPDATE beyond", &|id| {
            [get(id), window(id, (1 << 31) - 1)].concat()
        }),
        ("malformed", &|id| headers(id, END, &[])),
        ("too short", &|id| headers(id, END, &short)),
        ("too short, later", &|id| {
            [headers(id, OPEN, &short), data(id, END, b"")].concat()
        }),
        ("too long", &|id| {
            [headers(id, OPEN, &short), data(id, OPEN, b"ab")].concat()
        }),
        ("DATA after the end", &|id| {
            [get(id), data(id, 0, b"x")].concat()
        }),
        ("HEADERS after the end", &|id| [get(id), get(id)].concat()),
        ("malformed trailers", &|id| {
            [post(id), headers(id, END, GET)].concat()
        }),
        ("PRIORITY of itself", &|id| {
            [post(id), frame(PRIORITY, 0, id, &[0; 4])].concat()
        }),
    ];
    for (kind, each) in each {
        let mut bench = limited();
        let count = taken(&mut bench, 500, |count| each(2 * count + 1));
        assert_eq!(count, 20, "{kind}");
        let mut bench = limited();
        taken(&mut bench, 20, |count| each(2 * count + 1));
        bench.later(Duration::from_millis(500));
        assert_eq!(
            taken(&mut bench, 10, |count| each(2 * count + 101)),
            10,
            "{kind}"
        );
    }
}

#[test]
fn streams_in_order_pay_for_resets() {
    let mut bench = limited();
    for id in (1..2000).step_by(4) {
        bench.feed(&get(id)).seen();
        let key = bench.key(id);
        bench.engine.respond(key, &response(200), true).unwrap();
        bench.feed(&[get(id + 2), rst(id + 2, ErrorCode::CANCEL)].concat());
        bench.seen();
        bench.streams.clear();
    }
    assert_eq!(bench.engine.ended(), None);
    // Also those whose request ends after its answer.
    let mut bench = limited();
    for id in (1..2000).step_by(4) {
        bench.feed(&post(id)).seen();
        let key = bench.key(id);
        bench.engine.respond(key, &response(200), true).unwrap();
        bench.feed(&data(id, END, b"x"));
        bench.feed(&[get(id + 2), rst(id + 2, ErrorCode::CANCEL)].concat());
        bench.seen();
        bench.streams.clear();
    }
    assert_eq!(bench.engine.ended(), None);
}

#[test]
fn an_early_answers_reset_costs_nothing() {
    // RFC 9113 8.1.
    let limits = Limits {
        resets: 5,
        ..Limits::default()
    };
    let mut bench = Bench::begun(Role::Client, limits);
    for id in (1..200).step_by(2) {
        bench.open(&request("POST"), false);
        bench.feed(&headers(id, END, OK));
        bench.feed(&rst(id, ErrorCode::NO_ERROR)).seen();
    }
    assert_eq!(bench.engine.ended(), None);
}

#[test]
fn streams_that_were_answered_early_cost_nothing() {
    // Their peer is told once, and what it had sent before it read that is no fault of its.
    let mut bench = limited();
    let ids = || (1..2048).step_by(2);
    for id in ids() {
        bench.feed(&post(id)).seen();
    }
    for id in ids() {
        let key = bench.key(id);
        bench.engine.respond(key, &response(403), true).unwrap();
        bench.engine.drop_sender(key);
        bench.drop_receiver(id);
    }
    bench.seen();
    for id in ids() {
        bench.feed(&data(id, END, b"x"));
        assert_eq!(bench.seen(), "", "{id}");
    }
    for id in ids() {
        bench.feed(&headers(id, END, &[]));
        assert_eq!(bench.seen(), "", "{id}");
    }
}

#[test]
fn header_blocks_without_an_end() {
    // CVE-2024-27316: what a block costs is limited before it is known what it is.
    let mut bench = Bench::server();
    bench.feed(&frame(HEADERS, 0, 1, &[]));
    let empty = taken(&mut bench, 1000, |_| frame(CONTINUATION, 0, 1, &[]));
    assert_eq!(empty, 8 + 64 - 1);
    let mut bench = Bench::server();
    bench.feed(&frame(HEADERS, 0, 1, &[0; 16_384]));
    let full = taken(&mut bench, 1000, |_| {
        frame(CONTINUATION, 0, 1, &[0; 16_384])
    });
    assert_eq!(full, 7, "128 KiB");
    assert_eq!(bench.seen(), CALM);
}

#[test]
fn a_compressed_list_is_as_large_as_it_decodes() {
    // RFC 7541 7.3: an entry of 4000 octets, then an octet for each time.
    let value = "x".repeat(3900);
    let length = block(&[("a", &value)]);
    let seen = |times: usize| {
        let mut bomb = block(GET);
        bomb.push(0x40);
        bomb.extend(&length[1..]);
        bomb.extend(vec![0xbe; times]);
        let mut bench = Bench::server();
        bench.feed(&frame(HEADERS, 5, 1, &bomb));
        bench.seen()
    };
    assert_eq!(seen(100), "refused 1 the header list is too large; end 1");
    assert_eq!(
        seen(12_000),
        "ended ENHANCE_YOUR_CALM; GOAWAY 0 ENHANCE_YOUR_CALM"
    );
}

#[test]
fn more_streams_than_the_limit() {
    // RFC 9113 5.1.2.
    let limits = Limits {
        streams: 3,
        ..Limits::default()
    };
    let mut bench = Bench::begun(Role::Server, limits);
    bench.feed(&[get(1), post(3), post(5), get(7)].concat());
    assert_eq!(
        bench.seen(),
        "request 1 GET /; request 3 POST /; request 5 POST /; end 1; RST_STREAM 7 REFUSED_STREAM"
    );
    // What belongs to a refused one is ignored (RFC 9113 5.4.2).
    bench.feed(&post(9)).feed(&data(9, 0, b"abc"));
    bench.feed(&headers(9, END, &[("a", "b")]));
    bench.feed(&rst(9, ErrorCode::CANCEL));
    assert_eq!(bench.seen(), "RST_STREAM 9 REFUSED_STREAM");
    // One of them ends.
    let key = bench.key(1);
    bench.engine.respond(key, &response(200), true).unwrap();
    bench.feed(&get(11)).feed(&get(13));
    assert_eq!(
        bench.seen(),
        "request 11 GET /; end 11; HEADERS 1 end :status=200; RST_STREAM 13 REFUSED_STREAM"
    );
}

#[test]
fn streams_that_are_over_and_held_are_limited_too() {
    let limits = Limits {
        streams: 3,
        ..Limits::default()
    };
    let mut bench = Bench::begun(Role::Server, limits);
    for id in [1, 3, 5, 7, 9, 11] {
        bench.feed(&[get(id), rst(id, ErrorCode::CANCEL)].concat());
    }
    bench.seen();
    bench.feed(&get(13));
    assert_eq!(bench.seen(), "RST_STREAM 13 REFUSED_STREAM");
    let key = bench.key(1);
    bench.drop_receiver(1);
    bench.engine.drop_sender(key);
    bench.feed(&get(15));
    assert_eq!(bench.seen(), "request 15 GET /; end 15");
}

#[test]
fn answers_that_are_not_read() {
    let limits = Limits {
        control_frames: 1 << 30,
        ..Limits::default()
    };
    let mut bench = Bench::begun(Role::Server, limits);
    let mut count = 0;
    while bench.engine.ended().is_none() {
        bench.feed(&frame(PING, 0, 0, &[0; 8]));
        count += 1;
    }
    assert_eq!(count, 64 * 1024 / 17 + 1);
    // Those that are read are no trouble.
    let mut bench = Bench::begun(Role::Server, limits);
    for _ in 0..3 * count {
        bench.feed(&frame(PING, 0, 0, &[0; 8])).seen();
    }
    assert_eq!(bench.engine.ended(), None);
}

#[test]
fn heads_that_are_not_read() {
    // Streams that end with their head are open no longer, so only the output can bound them.
    let mut bench = Bench::server();
    let mut most = 0;
    for id in (1..200_000).step_by(2) {
        bench.feed(&get(id));
        if bench.engine.ended().is_some() {
            break;
        }
        if let Some(incoming) = bench.engine.accept() {
            let mut head = response(404);
            head.headers = fields(&[("x", &"y".repeat(1000))]);
            bench.engine.respond(incoming.key, &head, true).unwrap();
            bench.engine.drop_receiver(incoming.key);
            bench.engine.drop_sender(incoming.key);
        }
        most = most.max(bench.engine.output().len());
    }
    assert!(most < 1 << 20, "{most} bytes wait");
    assert_eq!(
        bench.engine.ended().map(|ended| ended.code),
        Some(ErrorCode::ENHANCE_YOUR_CALM)
    );
}

#[test]
fn streams_that_waited_and_are_gone_are_forgotten() {
    let mut bench = Bench::server();
    bench.feed(&get(1)).seen();
    let key = bench.key(1);
    bench.engine.respond(key, &response(200), false).unwrap();
    assert_eq!(bench.send(1, &[0; 65_535]), 65_535);
    for id in (3..20_000).step_by(2) {
        bench.later(Duration::from_millis(10));
        bench.feed(&get(id)).seen();
        let key = bench.key(id);
        bench.engine.respond(key, &response(200), false).unwrap();
        assert_eq!(bench.send(id, b"x"), 0);
        bench.feed(&rst(id, ErrorCode::CANCEL)).seen();
        bench.drop_receiver(id);
        bench.engine.drop_sender(key);
        bench.streams.pop();
        bench.woken();
    }
    assert!(bench.engine.blocked.len() < 10);
    // Whoever is blocked by both stands in the queue once.
    bench.feed(&post(20_001)).seen();
    let key = bench.key(20_001);
    bench.engine.respond(key, &response(200), false).unwrap();
    bench.engine.blocked.clear();
    for _ in 0..100 {
        assert_eq!(bench.send(20_001, b"x"), 0);
        bench.feed(&settings(&[(4, 0)])).seen();
        assert_eq!(bench.send(20_001, b"x"), 0);
        bench.feed(&settings(&[(4, 65_535)])).seen();
        bench.woken();
        bench
            .feed(&data(20_001, 0, b"x"))
            .feed(&data(20_001, 0, b"x"));
        bench.seen();
    }
    assert_eq!(bench.engine.blocked.len(), 1);
    bench.feed(&window(0, 1));
    assert_eq!(bench.woken(), [20_001]);
    assert_eq!(bench.send(20_001, b"x"), 1);
}

#[test]
fn a_window_of_single_octets_holds_few_pieces() {
    let limits = Limits {
        stream_window: 100_000,
        ..Limits::default()
    };
    let mut bench = Bench::begun(Role::Server, limits);
    bench.takes = false;
    bench.feed(&post(1)).seen();
    for _ in 0..100_000 {
        bench.feed(&data(1, 0, b"x"));
        while bench.engine.notice().is_some() {}
    }
    let key = bench.key(1);
    let pieces = bench.engine.streams.get(key).unwrap().pieces.len();
    assert!(pieces <= 100, "{pieces} pieces");
    bench.takes = true;
    assert!(bench.seen().starts_with("data 1 100000"));
}
