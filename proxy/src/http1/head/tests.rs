//! Heads as they are read, a line each.

use super::*;

fn read(text: &str) -> Reading<ReceivedRequest> {
    receive_request(&mut BytesMut::from(text), &Limits::default())
}

/// One line for each request: what it was read as, or why it was refused.
fn check(text: &str, expect: &str) {
    let seen = match read(text) {
        Ok(None) => "more".to_owned(),
        Ok(Some(request)) => {
            let head = &request.head;
            let names: Vec<&str> = head.headers.names().map(HeaderName::as_str).collect();
            format!(
                "{} {} {} {:?} keep={} up={:?} [{}]",
                head.method,
                head.authority.as_deref().unwrap_or("-"),
                head.path,
                request.body,
                request.keep_alive,
                head.upgrade,
                names.join(" ")
            )
        }
        Err(Refusal::Malformed(reason)) => format!("malformed: {reason}"),
        Err(Refusal::TooLarge(reason)) => format!("too large: {reason}"),
        Err(refusal @ Refusal::TargetTooLarge) => format!("too large: {refusal}"),
    };
    assert_eq!(seen, expect, "{text:?}");
}

#[test]
fn requests() {
    check("GET / HTTP/1.1\r\nHost: a\r\n", "more");
    check("GET / HTTP/1.1\r\nHost: a\r\n\r", "more");
    check(
        "GET /x?y=1 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET a:80 /x?y=1 None keep=true up=None []",
    );
    check(
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a / None keep=true up=None []",
    );
    check(
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET b / None keep=true up=None []",
    );
    check(
        "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET b /?q None keep=true up=None []",
    );
    check(
        "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
        "CONNECT b:443  None keep=true up=None []",
    );
    check(
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS a * None keep=true up=None []",
    );
    check(
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET a / None keep=true up=None []",
    );
    check(
        "GET / HTTP/1.0\r\n\r\n",
        "GET - / None keep=false up=None []",
    );
    check(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET - / None keep=true up=None []",
    );
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST a / Exactly(5) keep=true up=None [content-length]",
    );
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTE: trailers, deflate\r\n\r\n",
        "POST a / Chunked keep=true up=None [te]",
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nKeep-Alive: 5\r\n\r\n",
        "GET a / None keep=false up=None [x-end]",
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET a / None keep=true up=Some(\"websocket\") []",
    );
    check(
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET a / None keep=false up=None []",
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        "GET a / None keep=true up=None []",
    );
}

#[test]
fn refusals() {
    let malformed = |text: &str, reason: &str| check(text, &format!("malformed: {reason}"));
    malformed("GET / HTTP/1.1\nHost: a\n\n", "a line ends with a bare LF");
    malformed("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "a bare CR");
    malformed(
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "a folded header line (obs-fold)",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "a header name is not a token",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        "a header name is not a token",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        "a header value holds a control character",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "a header line without a colon",
    );
    malformed("GET / HTTP/1.1\r\n\r\n", "no Host header");
    malformed(
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "several Host headers",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "the authority is not HOST or HOST:PORT",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        "the authority is not HOST or HOST:PORT",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "the authority holds user information",
    );
    malformed(
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "the request line is not METHOD SP TARGET SP VERSION",
    );
    malformed(
        "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
        "the request target holds a byte that is no visible ASCII",
    );
    malformed(
        "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
        "the request target holds a fragment",
    );
    malformed(
        "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
        "the request target has no known form",
    );
    malformed(
        "GET ftp://x/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "the request target's scheme is neither http nor https",
    );
    for version in ["HTTP/2.0", "HTTP/1.10", "HTTP/1.x", "HTTP/1.", "http/1.1"] {
        malformed(
            &format!("GET / {version}\r\nHost: a\r\n\r\n"),
            "the version is not one of HTTP/1",
        );
    }
    malformed(
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "the method is not a token",
    );
    let with = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    malformed(
        &with("Content-Length: 1\r\nTransfer-Encoding: chunked"),
        "both Content-Length and Transfer-Encoding",
    );
    malformed(
        &with("Content-Length: 1\r\nContent-Length: 1"),
        "several Content-Length headers",
    );
    for length in ["+1", "-1", "1,1", "0x1", "1 1", "", "99999999999999999999"] {
        malformed(
            &with(&format!("Content-Length: {length}")),
            "the Content-Length is not a number",
        );
    }
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity",
        "gzip, chunked",
        "chunked\r\nTransfer-Encoding: x",
    ] {
        malformed(
            &with(&format!("Transfer-Encoding: {coding}")),
            "a Transfer-Encoding other than chunked",
        );
    }
    malformed(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding in HTTP/1.0",
    );
}

#[test]
fn too_large() {
    let with = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    let large = "x".repeat(70_000);
    check(
        &with(&format!("X: {large}")),
        "too large: the header section is too large",
    );
    check(
        &format!("GET / HTTP/1.1\r\nX: {large}"),
        "too large: the header section is too large",
    );
    check(
        &format!("GET /{large} HTTP/1.1\r\nHost: a\r\n\r\n"),
        "too large: the request target is too large",
    );
    check(
        &format!("GET /{large}"),
        "too large: the request target is too large",
    );
    check(
        &with("X: y\r\n".repeat(300).trim_end()),
        "too large: too many header fields",
    );
}

#[test]
fn responses() {
    let check = |text: &str, method: Method, expect: Result<(u16, BodyLength, bool), ()>| {
        let read = receive_response(&mut BytesMut::from(text), &method, &Limits::default());
        let seen = read
            .map(|r| r.expect("complete"))
            .map(|r| (r.head.status.as_u16(), r.body, r.keep_alive));
        assert_eq!(seen.map_err(drop), expect, "{text:?}");
    };
    let close = BodyLength::UntilClose;
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        Method::GET,
        Ok((200, BodyLength::Exactly(2), true)),
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        Method::HEAD,
        Ok((200, BodyLength::None, true)),
    );
    check("HTTP/1.1 200\r\n\r\n", Method::GET, Ok((200, close, false)));
    check(
        "HTTP/1.0 200 OK\r\n\r\n",
        Method::GET,
        Ok((200, close, false)),
    );
    check(
        "HTTP/1.1 204 No\r\n\r\n",
        Method::GET,
        Ok((204, BodyLength::None, true)),
    );
    check(
        "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n",
        Method::GET,
        Ok((304, BodyLength::None, true)),
    );
    check(
        "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
        Method::GET,
        Ok((103, BodyLength::None, true)),
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        Method::GET,
        Err(()),
    );
    check(
        "HTTP/1.2 200 OK\r\nContent-Length \t: 2\r\n\r\n",
        Method::GET,
        Ok((200, BodyLength::Exactly(2), true)),
    );
    check("HTTP/1.1 200 OK\r\n : 2\r\n\r\n", Method::GET, Err(()));
    check("HTTP/1.1 200 OK\r\nA b : 2\r\n\r\n", Method::GET, Err(()));
    check("HTTP/1.1 2000 OK\r\n\r\n", Method::GET, Err(()));
    check("SSH-2.0-x\r\n\r\n", Method::GET, Err(()));
}
