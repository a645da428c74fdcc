//! Field lines and pseudo-header fields (RFC 9113 8.2 and 8.3, RFC 8441 4).

use super::*;

const MALFORMED: &str = "RST_STREAM 1 PROTOCOL_ERROR";
const FINE: &str = "request 1 GET /; end 1";

/// A request that only says this.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(1, END, fields)
}

/// A GET that says this too.
fn also(more: &[(&str, &str)]) -> Vec<u8> {
    only(&with(GET, more))
}

/// A GET without one of its fields.
fn without(name: &str) -> Vec<u8> {
    let rest: Vec<_> = GET.iter().filter(|(n, _)| *n != name).copied().collect();
    only(&rest)
}

/// A request whose field is another one.
fn but(name: &str, value: &str) -> Vec<u8> {
    let other = |(n, v): &(&'static str, &'static str)| {
        if *n == name {
            (name.to_owned(), value.to_owned())
        } else {
            ((*n).to_owned(), (*v).to_owned())
        }
    };
    let fields: Vec<(String, String)> = GET.iter().map(other).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    only(&fields)
}

#[test]
fn pseudo_header_fields_of_requests() {
    let after = [&[("a", "b")], GET].concat();
    check_server(&[
        ("8.3.1 all", only(GET), FINE),
        ("8.3.1 no :method", without(":method"), MALFORMED),
        ("8.3.1 no :scheme", without(":scheme"), MALFORMED),
        ("8.3.1 no :path", without(":path"), MALFORMED),
        ("8.3.1 no :authority", without(":authority"), FINE),
        ("8.3.1 nothing", only(&[]), MALFORMED),
        ("8.3.1 two methods", also(&[(":method", "GET")]), MALFORMED),
        (
            "8.3.1 two schemes",
            also(&[(":scheme", "https")]),
            MALFORMED,
        ),
        ("8.3.1 two paths", also(&[(":path", "/")]), MALFORMED),
        (
            "8.3.1 two authorities",
            also(&[(":authority", "a.b")]),
            MALFORMED,
        ),
        ("8.3 a response's", also(&[(":status", "200")]), MALFORMED),
        ("8.3 an unknown one", also(&[(":other", "x")]), MALFORMED),
        ("8.3 after a regular one", only(&after), MALFORMED),
        ("8.3.1 an empty path", but(":path", ""), MALFORMED),
        ("8.3.1 no path", but(":path", "a"), MALFORMED),
        ("8.3.1 a whole URI", but(":path", "https://a.b/"), MALFORMED),
        ("8.3.1 * of a GET", but(":path", "*"), MALFORMED),
        ("8.3.1 a blank", but(":path", "/a b"), MALFORMED),
        ("8.3.1 a fragment", but(":path", "/a#b"), MALFORMED),
        ("8.3.1 not ASCII", but(":path", "/é"), MALFORMED),
        (
            "8.3.1 a query",
            but(":path", "/a?b=/?"),
            "request 1 GET /a?b=/?; end 1",
        ),
        ("8.3.1 no token", but(":method", "G T"), MALFORMED),
        ("8.3.1 an empty method", but(":method", ""), MALFORMED),
        (
            "8.3.1 another method",
            but(":method", "purge"),
            "request 1 purge /; end 1",
        ),
        ("8.3.1 an empty scheme", but(":scheme", ""), MALFORMED),
        (
            "8.3.1 * of OPTIONS",
            only(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")]),
            "request 1 OPTIONS *; end 1",
        ),
    ]);
}

#[test]
fn authorities() {
    let differ = "refused 1 Host and :authority differ; end 1";
    let host = |value| [&GET[..3], &[("host", value)]].concat();
    check_server(&[
        ("8.3.1 the same twice", also(&[("host", "A.b")]), FINE),
        ("8.3.1 another Host", also(&[("host", "a.c")]), differ),
        ("8.3.1 an empty Host", also(&[("host", "")]), differ),
        ("8.3.1 Host alone", only(&host("a.b:80")), FINE),
        (
            "9110 7.2 two Hosts",
            also(&[("host", "a.b"), ("host", "a.b")]),
            "refused 1 several Host headers; end 1",
        ),
    ]);
    for value in ["u@a.b", "a b", "a/b", "a:b:c"] {
        let seen = Bench::server().feed(&but(":authority", value)).seen();
        assert!(seen.starts_with("refused 1 "), "8.3.1 {value}: {seen}");
    }
    let mut bench = Bench::server();
    bench.feed(&only(&host("a.b:80")));
    let head = bench.engine.accept().unwrap().head.unwrap();
    assert_eq!(head.authority.as_deref(), Some("a.b:80"));
    assert!(head.headers.is_empty(), "{head:?}");
}

/// A gRPC client is told in its own words, wherever in the list it says that it is one.
#[test]
fn refusals_of_grpc() {
    let large = "refused 1 as gRPC the header list is too large; end 1";
    let grpc = [("content-type", "application/grpc+proto")];
    let many: Vec<(&str, &str)> = (0..300).map(|_| ("a", "b")).collect();
    check_server(&[
        (
            "its type within the limit",
            also(&[&grpc[..], &many].concat()),
            large,
        ),
        ("beyond it", also(&[&many[..], &grpc].concat()), large),
        (
            "another type beyond it",
            also(&[&many[..], &[("content-type", "text/plain")]].concat()),
            "refused 1 the header list is too large; end 1",
        ),
        (
            "of two authorities",
            also(&[&[("host", "a.c")], &grpc[..]].concat()),
            "refused 1 as gRPC Host and :authority differ; end 1",
        ),
        (
            "of a HEAD",
            only(&[&[(":method", "HEAD")], &GET[1..], &many].concat()),
            "refused 1 HEAD the header list is too large; end 1",
        ),
    ]);
    // The type as an entry of the table, which the first block makes (RFC 7541 6.2.1) and the second points at.
    let entry = [&[0x40], &block(&grpc)[1..]].concat();
    let mut bench = Bench::server();
    bench.feed(&frame(HEADERS, 5, 1, &[block(GET), entry].concat()));
    let blocks = [block(GET), block(&many), vec![0xbe]].concat();
    bench.feed(&frame(HEADERS, 5, 3, &blocks));
    let seen = bench.seen();
    assert!(seen.contains("refused 3 as gRPC"), "{seen}");
}

#[test]
fn connect() {
    let method = (":method", "CONNECT");
    let authority = (":authority", "a.b:1");
    let all = with(&[method], &GET[1..]);
    let protocol = (":protocol", "websocket");
    check_server(&[
        (
            "8.5 CONNECT",
            only(&[method, authority]),
            "request 1 CONNECT ; end 1",
        ),
        ("8.5 no authority", only(&[method]), MALFORMED),
        (
            "8.5 Host is no authority",
            only(&[method, ("host", "a.b:1")]),
            MALFORMED,
        ),
        (
            "8.5 an empty authority",
            only(&[method, (":authority", "")]),
            MALFORMED,
        ),
        (
            "8.5 a path",
            only(&[method, authority, (":path", "/")]),
            MALFORMED,
        ),
        (
            "8.5 a scheme",
            only(&[method, authority, (":scheme", "https")]),
            MALFORMED,
        ),
        ("8.5 both", only(&all), MALFORMED),
        (
            "8441 4 a protocol",
            only(&[&[protocol], &all[..]].concat()),
            FINE,
        ),
        (
            "8441 4 two",
            only(&[&[protocol; 2], &all[..]].concat()),
            MALFORMED,
        ),
        (
            "8441 4 no token",
            only(&[&[(":protocol", "")], &all[..]].concat()),
            MALFORMED,
        ),
        (
            "8441 4 no path",
            only(&[protocol, method, authority]),
            MALFORMED,
        ),
        (
            "8441 4 no CONNECT",
            only(&[&[protocol], GET].concat()),
            MALFORMED,
        ),
    ]);
    let mut bench = Bench::server();
    bench.feed(&headers(1, OPEN, &[&[protocol], &all[..]].concat()));
    let head = bench.engine.accept().unwrap().head.unwrap();
    assert_eq!(head.upgrade.as_deref(), Some("websocket"));
    assert_eq!(head.method, Method::GET, "as in HTTP/1");
}

#[test]
fn field_lines() {
    check_server(&[
        ("8.2.1 any", also(&[("a", "b"), ("c", "")]), FINE),
        ("8.2.1 upper case", also(&[("Accept", "x")]), MALFORMED),
        ("8.2.1 no name", also(&[("", "x")]), MALFORMED),
        ("8.2.1 a blank in a name", also(&[("a b", "x")]), MALFORMED),
        ("8.2.1 a colon in a name", also(&[("a:b", "x")]), MALFORMED),
        ("8.2.1 no ASCII in a name", also(&[("é", "x")]), MALFORMED),
        ("8.2.1 CR", also(&[("a", "x\ry")]), MALFORMED),
        ("8.2.1 LF", also(&[("a", "x\ny")]), MALFORMED),
        ("8.2.1 NUL", also(&[("a", "x\0y")]), MALFORMED),
        ("8.2.1 a blank before", also(&[("a", " x")]), MALFORMED),
        ("8.2.1 a tab after", also(&[("a", "x\t")]), MALFORMED),
        ("8.2.1 blanks within", also(&[("a", "x \ty")]), FINE),
        ("8.2.1 no ASCII in a value", also(&[("a", "é")]), FINE),
        (
            "8.2.2 connection",
            also(&[("connection", "close")]),
            MALFORMED,
        ),
        ("8.2.2 keep-alive", also(&[("keep-alive", "1")]), MALFORMED),
        (
            "8.2.2 proxy-connection",
            also(&[("proxy-connection", "x")]),
            MALFORMED,
        ),
        (
            "8.2.2 transfer-encoding",
            also(&[("transfer-encoding", "chunked")]),
            MALFORMED,
        ),
        ("8.2.2 upgrade", also(&[("upgrade", "h2c")]), MALFORMED),
        ("8.2.2 te", also(&[("te", "trailers")]), FINE),
        ("8.2.2 te, in any case", also(&[("te", "Trailers")]), FINE),
        (
            "8.2.2 te with something else",
            also(&[("te", "trailers, gzip")]),
            MALFORMED,
        ),
        ("8.2.2 te with another", also(&[("te", "gzip")]), MALFORMED),
    ]);
}

#[test]
fn responses() {
    let wrong = "failed 1 PROTOCOL_ERROR; RST_STREAM 1 PROTOCOL_ERROR";
    let answer = |fields: &[(&str, &str)]| headers(1, END, fields);
    check_client(&[
        ("8.3.2 :status", answer(OK), "head 1 200 OK; end 1"),
        ("8.3.2 none", answer(&[("a", "b")]), wrong),
        ("8.3.2 two", answer(&with(OK, OK)), wrong),
        (
            "8.3.2 after a regular one",
            answer(&with(&[("a", "b")], OK)),
            wrong,
        ),
        ("8.3.2 two digits", answer(&[(":status", "99")]), wrong),
        ("8.3.2 four digits", answer(&[(":status", "2000")]), wrong),
        ("8.3.2 below 100", answer(&[(":status", "099")]), wrong),
        ("8.3.2 no number", answer(&[(":status", "2x0")]), wrong),
        ("8.3.2 a blank", answer(&[(":status", "200 ")]), wrong),
        (
            "8.3 a request's",
            answer(&with(OK, &[(":path", "/")])),
            wrong,
        ),
        (
            "8.2.2 connection",
            answer(&with(OK, &[("connection", "close")])),
            wrong,
        ),
        (
            "8.2.2 transfer-encoding",
            answer(&with(OK, &[("transfer-encoding", "x")])),
            wrong,
        ),
        (
            "8.2.1 upper case",
            answer(&with(OK, &[("Server", "x")])),
            wrong,
        ),
    ]);
}

#[test]
fn cookies_are_one_again() {
    // RFC 9113 8.2.3.
    let mut bench = Bench::server();
    bench.feed(&also(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]));
    let head = bench.engine.accept().unwrap().head.unwrap();
    let cookies: Vec<_> = head.headers.get_all("cookie").collect();
    assert_eq!(cookies, ["a=b; c=d"]);
}

#[test]
fn upgrades_are_answered_with_a_2xx() {
    // RFC 8441 5.
    let mut bench = Bench::begun(Role::Client, Limits::default());
    bench.feed(&settings(&[(8, 1)]));
    let upgrade = RequestHead {
        upgrade: Some("websocket".into()),
        ..request("GET")
    };
    for (id, status, expected) in [(1, "200", Some("websocket")), (3, "403", None)] {
        let key = bench.open(&upgrade, false);
        bench.feed(&headers(id, OPEN, &[(":status", status)]));
        let Taken::Piece(Piece::Head(head)) = bench.engine.take(key) else {
            panic!("no head");
        };
        assert_eq!(head.upgrade.as_deref(), expected, "{status}");
    }
}
