//! How connections and streams end: GOAWAY, PING, lost bytes, dropped halves (RFC 9113 5.4, 6.7, 6.8,
//! 8.1, 8.7).

use super::*;
use crate::http2::NotOpened;

#[test]
fn pings() {
    check_server(&[
        (
            "6.7 a PING",
            frame(PING, 0, 0, b"12345678"),
            "PING ack 12345678",
        ),
        (
            "6.7 other flags",
            frame(PING, 0xfe, 0, b"12345678"),
            "PING ack 12345678",
        ),
        (
            "6.7 an ACK of nothing",
            frame(PING, flag::ACK, 0, &[0; 8]),
            "",
        ),
        (
            "6.7 an ACK of none of ours",
            frame(PING, flag::ACK, 0, &[255; 8]),
            "",
        ),
    ]);
    let mut bench = Bench::client();
    assert_eq!((bench.engine.ping(), bench.engine.ping()), (1, 2));
    assert_eq!(
        bench.seen(),
        "PING \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01; PING \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02"
    );
    bench.feed(&frame(PING, flag::ACK, 0, &3_u64.to_be_bytes()));
    assert_eq!(bench.engine.pings_answered(), 0);
    bench.feed(&frame(PING, flag::ACK, 0, &1_u64.to_be_bytes()));
    assert_eq!(bench.engine.pings_answered(), 1);
    bench.feed(&frame(PING, 0, 0, &2_u64.to_be_bytes()));
    assert_eq!(bench.engine.pings_answered(), 1, "no ACK");
    bench.feed(&frame(PING, flag::ACK, 0, &2_u64.to_be_bytes()));
    assert_eq!(bench.engine.pings_answered(), 2);
}

#[test]
fn a_servers_go_away() {
    // RFC 9113 6.8: those above the last one were not looked at.
    let mut bench = Bench::client();
    bench.feed(&go_away(3, ErrorCode::NO_ERROR));
    assert_eq!(
        bench.seen(),
        "failed 5 NO_ERROR by peer unprocessed; failed 7 NO_ERROR by peer unprocessed"
    );
    assert!(bench.engine.is_closing());
    assert_eq!(bench.engine.room(), 0);
    let full = bench.engine.open(&request("GET"), |_| {}, true);
    assert_eq!(full, Err(NotOpened::Full));
    bench.feed(&headers(1, END, OK));
    bench.feed(&go_away(1, ErrorCode::ENHANCE_YOUR_CALM));
    assert_eq!(
        bench.seen(),
        "head 1 200 OK; end 1; failed 3 ENHANCE_YOUR_CALM by peer unprocessed"
    );
    assert!(bench.engine.is_over());
}

#[test]
fn a_servers_announcement() {
    let mut bench = Bench::client();
    bench.feed(&go_away(STREAM_MASK, ErrorCode::NO_ERROR));
    bench.feed(&frame(PING, 0, 0, b"12345678"));
    assert_eq!(bench.seen(), "PING ack 12345678");
    assert!(bench.engine.is_closing() && !bench.engine.is_over());
    bench.feed(&go_away(7, ErrorCode::NO_ERROR));
    for id in [1, 3, 5, 7] {
        assert!(!bench.engine.is_over(), "{id}");
        bench.feed(&headers(id, END, OK));
    }
    bench.engine.send_end(bench.key(3)).unwrap();
    assert!(!bench.engine.is_over());
    bench.engine.send_end(bench.key(7)).unwrap();
    assert!(bench.engine.is_over());
}

#[test]
fn a_clients_go_away() {
    // RFC 9113 6.8: it only speaks of pushes.
    let mut bench = Bench::server();
    bench.feed(&get(1)).feed(&go_away(0, ErrorCode::NO_ERROR));
    assert_eq!(bench.seen(), "request 1 GET /; end 1");
    bench.feed(&get(3));
    assert_eq!(bench.seen(), "request 3 GET /; end 3");
    assert!(!bench.engine.is_over());
}

#[test]
fn a_server_goes_away_gracefully() {
    let mut bench = Bench::server();
    bench.feed(&post(1)).seen();
    bench.engine.go_away();
    bench.engine.go_away();
    assert_eq!(bench.seen(), "GOAWAY 2147483647 NO_ERROR; PING weft-end");
    // What was on its way is still taken.
    bench.feed(&get(3));
    assert_eq!(bench.seen(), "request 3 GET /; end 3");
    bench.feed(&frame(PING, flag::ACK, 0, b"weft-end"));
    assert_eq!(bench.seen(), "GOAWAY 3 NO_ERROR");
    bench.feed(&frame(PING, flag::ACK, 0, b"weft-end"));
    assert_eq!(bench.seen(), "", "only once");
    // What comes now is ignored, with all that belongs to it.
    bench.feed(&post(5)).feed(&data(5, 0, &[0; 100]));
    bench.feed(&headers(5, END, &[("a", "b")]));
    bench.feed(&post(7)).feed(&headers(7, END, &[("a", "b")]));
    bench.feed(&post(9)).feed(&rst(9, ErrorCode::CANCEL));
    assert_eq!(bench.seen(), "");
    for id in [3, 1] {
        assert!(!bench.engine.is_over());
        let key = bench.key(id);
        bench.engine.respond(key, &response(204), true).unwrap();
    }
    assert!(!bench.engine.is_over());
    bench.feed(&data(1, END, b""));
    assert!(bench.engine.is_over());
}

#[test]
fn the_last_stream_never_grows_again() {
    // RFC 9113 6.8.
    let mut bench = Bench::server();
    bench.feed(&post(1));
    bench.engine.go_away();
    bench.feed(&frame(PING, flag::ACK, 0, b"weft-end"));
    bench.feed(&get(9)).seen();
    bench.engine.end(ErrorCode::INTERNAL_ERROR, "test");
    assert_eq!(
        bench.seen(),
        "ended INTERNAL_ERROR; failed 1 INTERNAL_ERROR; GOAWAY 1 INTERNAL_ERROR"
    );
}

#[test]
fn a_client_goes_away() {
    let mut bench = Bench::begun(Role::Client, Limits::default());
    bench.open(&request("GET"), true);
    bench.seen();
    bench.engine.go_away();
    assert_eq!(bench.seen(), "GOAWAY 0 NO_ERROR");
    assert!(!bench.engine.is_over());
    bench.feed(&headers(1, END, OK));
    assert!(bench.engine.is_over());
}

#[test]
fn an_idle_connection_goes_away() {
    let mut bench = Bench::server();
    bench.engine.go_away();
    assert!(!bench.engine.is_over(), "a request may be on its way");
    bench.feed(&frame(PING, flag::ACK, 0, b"weft-end"));
    assert!(bench.engine.is_over());
}

#[test]
fn a_lost_connection() {
    let mut bench = Bench::client();
    bench.feed(&headers(5, END, OK)).seen();
    bench.engine.lost("test");
    assert_eq!(
        bench.seen(),
        "ended INTERNAL_ERROR; failed 1 INTERNAL_ERROR by peer; \
         failed 3 INTERNAL_ERROR by peer; failed 7 INTERNAL_ERROR by peer"
    );
    assert!(bench.engine.is_over());
    let key = bench.key(3);
    let mut rest = Bytes::from_static(b"x");
    assert!(bench.engine.send_data(key, &mut rest).is_err());
    assert!(bench.engine.send_end(key).is_err());
    bench.engine.lost("again");
    bench.engine.end(ErrorCode::NO_ERROR, "again");
    bench.engine.go_away();
    assert_eq!(bench.seen(), "ended INTERNAL_ERROR");
}

#[test]
fn what_never_left_was_not_processed() {
    // RFC 9113 8.7, at each octet.
    let fresh = || Bench::begun(Role::Client, Limits::default());
    let ids = [1, 3, 5];
    let mut ends = Vec::new();
    let mut bench = fresh();
    for _ in ids {
        bench.open(&request("GET"), true);
        ends.push(bench.engine.output().len());
    }
    for sent in 0..=ends[2] {
        let mut bench = fresh();
        for _ in ids {
            bench.open(&request("GET"), true);
        }
        bench.engine.sent(sent);
        bench.engine.lost("test");
        let unprocessed = ids.map(|id| bench.engine.failure(bench.key(id)).unwrap().unprocessed);
        let expected = [0, 1, 2].map(|at| sent < ends[at]);
        assert_eq!(unprocessed, expected, "{sent} of {ends:?}");
    }
    // Those of the peer were.
    let mut bench = Bench::server();
    bench.feed(&get(1)).seen();
    bench.engine.lost("test");
    assert!(!bench.engine.failure(bench.key(1)).unwrap().unprocessed);
}

#[test]
fn dropped_halves_of_a_client() {
    let mut bench = Bench::client();
    let [get, post, _, tunnel] = [1, 3, 5, 7].map(|id| bench.key(id));
    bench.engine.drop_sender(get);
    assert_eq!(bench.seen(), "");
    bench.drop_receiver(1);
    assert_eq!(bench.seen(), "RST_STREAM 1 CANCEL");
    // The answer isn't wanted; the request goes on, and then both are over.
    bench.drop_receiver(3);
    assert_eq!(bench.seen(), "");
    assert_eq!(bench.send(3, b"abc"), 3);
    bench.engine.send_end(post).unwrap();
    assert_eq!(
        bench.seen(),
        "failed 3 CANCEL; DATA 3 3 end; RST_STREAM 3 CANCEL"
    );
    bench.engine.drop_sender(post);
    bench.engine.drop_sender(tunnel);
    bench.feed(&headers(7, OPEN, OK)).feed(&data(7, 0, b"x"));
    assert_eq!(bench.seen(), "head 7 200 OK; data 7 1");
    bench.drop_receiver(7);
    assert_eq!(bench.seen(), "RST_STREAM 7 CANCEL");
    // What is over needs no reset.
    bench.feed(&headers(5, END, OK)).seen();
    let key = bench.key(5);
    bench.drop_receiver(5);
    bench.engine.drop_sender(key);
    assert_eq!(bench.seen(), "");
    assert_eq!(bench.engine.streams.held_count(), 0);
    assert!(!bench.engine.has_streams());
}

#[test]
fn dropped_halves_of_a_server() {
    let mut bench = Bench::server();
    bench
        .feed(&[post(1), post(3), get(5), post(7)].concat())
        .seen();
    let keys = [1, 3, 5, 7].map(|id| bench.key(id));
    // RFC 9113 8.1: the whole answer was given, and the rest of the request isn't needed.
    bench.drop_receiver(1);
    bench
        .engine
        .respond(keys[0], &response(200), false)
        .unwrap();
    bench.engine.send_end(keys[0]).unwrap();
    bench.engine.drop_sender(keys[0]);
    assert_eq!(
        bench.seen(),
        "HEADERS 1 :status=200; DATA 1 0 end; RST_STREAM 1 NO_ERROR"
    );
    bench.feed(&data(1, END, &[0; 1000]));
    assert_eq!(bench.seen(), "");
    // No answer.
    bench.drop_receiver(3);
    bench.engine.drop_sender(keys[1]);
    assert_eq!(bench.seen(), "RST_STREAM 3 CANCEL");
    // Half an answer.
    bench
        .engine
        .respond(keys[2], &response(200), false)
        .unwrap();
    bench.engine.drop_sender(keys[2]);
    bench.drop_receiver(5);
    assert_eq!(bench.seen(), "HEADERS 5 :status=200; RST_STREAM 5 CANCEL");
    // The request ends in time.
    bench.engine.respond(keys[3], &response(200), true).unwrap();
    bench.engine.drop_sender(keys[3]);
    assert_eq!(bench.seen(), "HEADERS 7 end :status=200");
    bench.feed(&data(7, END, b"x"));
    bench.drop_receiver(7);
    assert_eq!(bench.seen(), "");
    assert_eq!(bench.engine.streams.held_count(), 0);
}

#[test]
fn slots_are_used_again_and_keys_are_not() {
    let mut bench = Bench::server();
    bench.feed(&get(1)).seen();
    let old = bench.key(1);
    bench.engine.respond(old, &response(200), true).unwrap();
    bench.drop_receiver(1);
    bench.engine.drop_sender(old);
    bench.feed(&post(3)).seen();
    let new = bench.key(3);
    assert_eq!(new.slot(), old.slot());
    assert_ne!(new, old);
    bench.engine.drop_sender(old);
    bench.engine.drop_receiver(old);
    bench.engine.reset(old, ErrorCode::CANCEL);
    assert!(bench.engine.respond(old, &response(200), true).is_err());
    assert!(matches!(bench.engine.take(old), Taken::End));
    assert!(bench.engine.is_drained(old) && bench.engine.has_received_all(old));
    assert_eq!(bench.engine.failure(old), None);
    assert_eq!(bench.seen(), "");
    assert!(!bench.engine.is_drained(new) && !bench.engine.has_received_all(new));
    bench.feed(&data(3, END, b"abc"));
    assert!(!bench.engine.is_drained(new) && bench.engine.has_received_all(new));
    assert_eq!(bench.seen(), "data 3 3; end 3");
    assert!(bench.engine.is_drained(new));
}
