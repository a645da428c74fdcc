//! What goes out: exact frames (RFC 9113 4.2, 6.1, 6.2, 6.10, 8).

use super::*;

#[test]
fn requests_as_they_go_out() {
    let mut bench = Bench::begun(Role::Client, Limits::default());
    bench.feed(&settings(&[(8, 1)])).seen();
    let upgrade = RequestHead {
        upgrade: Some("websocket".into()),
        ..request("GET")
    };
    let tunnel = RequestHead {
        path: Text::default(),
        scheme: None,
        authority: Some(Text::from_static("a.b:1")),
        ..request("CONNECT")
    };
    let bare = RequestHead {
        path: Text::default(),
        scheme: None,
        authority: None,
        ..request("GET")
    };
    let headed = RequestHead {
        headers: fields(&[("te", "trailers"), ("a", "b"), ("a", "c")]),
        ..request("POST")
    };
    for (head, end, expected) in [
        (
            &request("GET"),
            true,
            "HEADERS 1 end :method=GET :scheme=https :path=/ :authority=a.b",
        ),
        (
            &bare,
            true,
            "HEADERS 3 end :method=GET :scheme=http :path=/ :authority=unknown.invalid",
        ),
        (&tunnel, false, "HEADERS 5 :method=CONNECT :authority=a.b:1"),
        (
            &upgrade,
            false,
            "HEADERS 7 :method=CONNECT :scheme=https :path=/ :authority=a.b :protocol=websocket",
        ),
        (
            &headed,
            false,
            "HEADERS 9 :method=POST :scheme=https :path=/ :authority=a.b te=trailers a=b a=c",
        ),
    ] {
        bench.open(head, end);
        assert_eq!(bench.seen(), expected);
    }
    let more = HeaderName::from_static("x-more");
    let opened = bench
        .engine
        .open(&request("GET"), |put| put(&more, b"1"), true);
    opened.unwrap();
    assert_eq!(
        bench.seen(),
        "HEADERS 11 end :method=GET :scheme=https :path=/ :authority=a.b x-more=1"
    );
}

#[test]
fn responses_as_they_go_out() {
    let mut bench = Bench::server();
    bench.feed(&[get(1), get(3), get(5)].concat()).seen();
    let [one, three, five] = [1, 3, 5].map(|id| bench.key(id));
    let engine = &mut bench.engine;
    engine.respond(one, &response(103), false).unwrap();
    engine.respond(one, &response(200), false).unwrap();
    engine.send_trailers(one, &fields(&[("a", "b")])).unwrap();
    assert!(engine.send_end(one).is_err());
    assert!(engine.respond(one, &response(200), true).is_err());
    engine.respond(three, &response(204), true).unwrap();
    // RFC 8441 5: what HTTP/1 says with 101.
    let switched = ResponseHead {
        upgrade: Some("websocket".into()),
        ..response(101)
    };
    engine.respond(five, &switched, false).unwrap();
    assert_eq!(
        bench.seen(),
        "HEADERS 1 :status=103; HEADERS 1 :status=200; HEADERS 1 end a=b; \
         HEADERS 3 end :status=204; HEADERS 5 :status=200"
    );
}

#[test]
fn the_end_rides_on_the_last_data() {
    // RFC 9113 6.1.
    let mut bench = Bench::client();
    bench.send(3, b"abc");
    bench.engine.send_end(bench.key(3)).unwrap();
    assert_eq!(bench.seen(), "DATA 3 3 end");
    let cases: &[(&str, Act, &str)] = &[
        (
            "two frames",
            |bench| {
                bench.send(3, b"abc");
            },
            "DATA 3 1; DATA 3 3 end",
        ),
        (
            "sent already",
            |bench| {
                bench.engine.sent(1);
            },
            "",
        ),
        (
            "of another stream",
            |bench| {
                bench.send(7, b"ab");
            },
            "DATA 3 1; DATA 7 2; DATA 3 0 end",
        ),
        (
            "a frame between",
            |bench| {
                bench.engine.ping();
            },
            "DATA 3 1; PING \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01; DATA 3 0 end",
        ),
        (
            "a large one, sent from where it lies",
            |bench| {
                bench.send(3, &[0; 5000]);
            },
            "DATA 3 1; DATA 3 5000; DATA 3 0 end",
        ),
        (
            "the largest that is copied",
            |bench| {
                bench.send(3, &[0; 4096]);
            },
            "DATA 3 1; DATA 3 4096 end",
        ),
        (
            "a small one after a large one",
            |bench| {
                bench.send(3, &[0; 5000]);
                bench.send(3, b"ab");
            },
            "DATA 3 1; DATA 3 5000; DATA 3 2 end",
        ),
    ];
    for (case, step, expected) in cases {
        let mut bench = Bench::client();
        bench.send(3, b"x");
        step(&mut bench);
        bench.engine.send_end(bench.key(3)).unwrap();
        if expected.is_empty() {
            let rest = bench.output();
            assert!(rest.ends_with(&data(3, END, b"")), "{case}");
        } else {
            assert_eq!(bench.seen(), *expected, "{case}");
        }
    }
}

#[test]
fn content_is_what_was_given() {
    let mut bench = Bench::client();
    let mut expected = Vec::new();
    for size in [1, 4096, 4097, 3, 16_384, 16_385, 2] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        assert_eq!(bench.send(3, &content), size);
        for chunk in content.chunks(16_384) {
            expected.extend(data(3, 0, chunk));
        }
    }
    assert_eq!(bench.output(), expected);
}

#[test]
fn the_output_is_sent_in_any_steps() {
    let filled = || {
        let mut bench = Bench::client();
        for size in [1, 5000, 10, 4097, 16_000] {
            bench.send(3, &vec![size as u8; size]);
            bench.engine.ping();
        }
        bench
    };
    let whole = filled().output();
    for step in [1, 2, 9, 10, 4096, 20_000] {
        let mut bench = filled();
        let mut sent: Vec<u8> = Vec::new();
        while !bench.engine.output().is_empty() {
            let before = bench.engine.output().len();
            let mut slices = [std::io::IoSlice::new(&[]); 2];
            let count = bench.engine.output().slices(&mut slices);
            let there: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            let step = step.min(there.len());
            sent.extend(&there[..step]);
            bench.engine.sent(step);
            assert_eq!(bench.engine.output().len(), before - step);
        }
        assert!(sent == whole, "steps of {step}");
    }
}

#[test]
fn a_large_head_goes_on_in_continuation() {
    // RFC 9113 6.10, 4.2.
    let long = "x".repeat(40_000);
    let head = RequestHead {
        headers: fields(&[("a", &long)]),
        ..request("GET")
    };
    let mut bench = Bench::begun(Role::Client, Limits::default());
    bench.open(&head, true);
    let seen = bench.seen();
    assert!(
        seen.starts_with("HEADERS 1 end; CONTINUATION 1; CONTINUATION 1 :method=GET"),
        "{}",
        &seen[..80]
    );
    assert!(seen.ends_with(&long));
    let mut bench = Bench::begun(Role::Client, Limits::default());
    bench.feed(&settings(&[(5, 100_000)])).seen();
    bench.open(&head, true);
    let seen = bench.seen();
    assert!(
        seen.starts_with("HEADERS 1 end :method=GET"),
        "{}",
        &seen[..80]
    );
    // Exactly as large as a frame may be, and one octet larger.
    for (more, expected) in [(0, 1), (1, 2)] {
        let size = |length: usize| {
            let mut bench = Bench::begun(Role::Client, Limits::default());
            let value = "x".repeat(length);
            let head = RequestHead {
                headers: fields(&[("a", &value)]),
                ..request("GET")
            };
            bench.open(&head, true);
            bench.output()
        };
        let overhead = size(16_000).len() - 16_000;
        let output = size(16_384 + HEADER_BYTES - overhead + more);
        let frames = output.len() - 16_384 - more;
        assert_eq!(frames, expected * HEADER_BYTES);
    }
}

#[test]
fn nothing_is_sent_on_a_stream_that_is_over() {
    let gone = |bench: &mut Bench, id| {
        let key = bench.key(id);
        let mut content = Bytes::from_static(b"x");
        let refused = bench.engine.send_data(key, &mut content).unwrap_err();
        assert_eq!(bench.engine.send_end(key), Err(refused));
        assert_eq!(
            bench.engine.send_trailers(key, &Fields::new()),
            Err(refused)
        );
        bench.engine.reset(key, ErrorCode::CANCEL);
        assert!(bench.engine.output().is_empty());
        (refused.code, refused.remote)
    };
    let mut bench = Bench::client();
    bench.feed(&rst(3, ErrorCode::ENHANCE_YOUR_CALM));
    assert_eq!(gone(&mut bench, 3), (ErrorCode::ENHANCE_YOUR_CALM, true));
    bench.feed(&headers(1, END, OK));
    assert_eq!(gone(&mut bench, 1), (ErrorCode::STREAM_CLOSED, false));
    bench.engine.reset(bench.key(7), ErrorCode::CANCEL);
    bench.seen();
    assert_eq!(gone(&mut bench, 7), (ErrorCode::CANCEL, false));
}
