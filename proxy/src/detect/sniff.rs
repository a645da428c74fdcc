//! A client's first bytes.

use crate::model::Protocol;

/// RFC 9113 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest request line that is still waited for; a longer first line is opaque.
const REQUEST_LINE_MAX: usize = 16 * 1024;
/// The methods of the IANA registry, and those of UPnP and caches. A line that begins with another
/// word is opaque: too many protocols begin with a word to wait for the rest of each.
const METHODS: [&[u8]; 42] = [
    b"ACL",
    b"BASELINE-CONTROL",
    b"BIND",
    b"CHECKIN",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LABEL",
    b"LINK",
    b"LOCK",
    b"M-SEARCH",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MKREDIRECTREF",
    b"MKWORKSPACE",
    b"MOVE",
    b"NOTIFY",
    b"OPTIONS",
    b"ORDERPATCH",
    b"PATCH",
    b"POST",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"PUT",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SUBSCRIBE",
    b"TRACE",
    b"UNBIND",
    b"UNCHECKOUT",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
    b"UPDATE",
];

/// What a client that sent these bytes first speaks, or nothing while they leave that open. HTTP/1
/// is known by its whole first line: other protocols begin with words that look like a method. An
/// answer stands, however many bytes follow and however they were cut.
pub fn sniff(bytes: &[u8]) -> Option<Protocol> {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    if bytes.starts_with(HTTP2_PREFACE) {
        return Some(Protocol::Http2);
    }
    if HTTP2_PREFACE.starts_with(bytes) || bytes == b"\r" {
        return None;
    }
    if bytes[0] == 0x16 {
        return sniff_tls(bytes);
    }
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    if line.len() > REQUEST_LINE_MAX || !may_become_request_line(line) {
        return Some(Protocol::Tcp);
    }
    let complete = line.len() < bytes.len();
    complete.then(|| {
        if ends_with_version(line) {
            Protocol::Http1
        } else {
            Protocol::Tcp
        }
    })
}

/// A handshake record of SSL 3.0 or later (RFC 8446 5.1) that holds a ClientHello.
fn sniff_tls(bytes: &[u8]) -> Option<Protocol> {
    let looks_right =
        |at: usize, fine: fn(u8) -> bool| bytes.get(at).is_none_or(|byte| fine(*byte));
    if !looks_right(1, |byte| byte == 3)
        || !looks_right(2, |byte| byte <= 4)
        || !looks_right(5, |byte| byte == 1)
    {
        return Some(Protocol::Tcp);
    }
    (bytes.len() >= 6).then_some(Protocol::Tls)
}

fn ends_with_version(line: &[u8]) -> bool {
    let mut words = line.rsplitn(2, |b| *b == b' ');
    let version = words.next().unwrap_or_default();
    version.starts_with(b"HTTP/") && words.next().is_some_and(|rest| rest.contains(&b' '))
}

/// A method, and as much of a target as there is.
fn may_become_request_line(bytes: &[u8]) -> bool {
    if bytes.iter().any(|b| *b < 0x20 && *b != b'\r') {
        return false;
    }
    match bytes.iter().position(|b| *b == b' ') {
        None => METHODS.iter().any(|method| method.starts_with(bytes)),
        Some(space) => {
            let (method, target) = (&bytes[..space], &bytes[space + 1..]);
            let connect = method == b"CONNECT";
            let plausible = |first: &u8| connect || matches!(first, b'/' | b'*' | b'h' | b'H');
            METHODS.contains(&method) && target.first().is_none_or(plausible)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_bytes() {
        let check =
            |bytes: &[u8], expect: Option<Protocol>| assert_eq!(sniff(bytes), expect, "{bytes:?}");
        let (http1, http2, tls, tcp) = (
            Some(Protocol::Http1),
            Some(Protocol::Http2),
            Some(Protocol::Tls),
            Some(Protocol::Tcp),
        );
        check(b"", None);
        check(b"G", None);
        check(b"GET /x HTTP/1.1", None);
        check(b"GET /x HTTP/1.1\r\n", http1);
        check(b"GET /x HTTP/1.1\n", http1);
        check(b"\r\nGET /x HTTP/1.1\r\n", http1);
        check(b"FROBNICATE /x HTTP/1.1\r\n", tcp);
        check(b"PROPFIND /x HTTP/1.1\r\n", http1);
        check(b"GET key HTTP/1.1\r\n", tcp);
        check(b"\r", None);
        check(b"GET /x y HTTP/1.1\r\n", http1);
        check(b"GET key\r\n", tcp);
        check(b"GET key", tcp);
        check(b"PING", tcp);
        check(b"PR", None);
        check(b"PRI * HT", None);
        check(HTTP2_PREFACE, http2);
        check(b"PRI * HTTP/2.0\r\n\r\nXX", tcp);
        check(b"*1\r\n$4\r\nPING\r\n", tcp);
        check(b"EHLO mail\r\n", tcp);
        check(b"\x16\x03\x01\x02\x00\x01", tls);
        check(b"\x16\x03", None);
        check(b"\x16\x02", tcp);
        check(b"\x16\x03\x01\x02\x00\x02", tcp);
        check(b"\x00\x01", tcp);
        check(b"AMQP\x00\x00\x09\x01", tcp);
        check(&[b'a'; 40], tcp);
        check(&[b"GET /".as_slice(), &[b'a'; 20_000]].concat(), tcp);
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let words: [&[u8]; 14] = [
            b"GET",
            b"OPTIONS",
            b"OPTIO",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PRI",
            b" ",
            b"/x",
            b"*",
            b"http://a",
            b" HTTP/1.1",
            b"\r\n",
            b"\r",
            b"\n",
            b"\x16\x03\x01\x00\x05\x01",
        ];
        prop_oneof![
            4 => prop::sample::select(words.map(<[u8]>::to_vec).to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// More bytes never change an answer that was given.
        #[test]
        fn an_answer_stands(pieces in prop::collection::vec(piece(), 0..7)) {
            let bytes = pieces.concat();
            let mut answer = None;
            for end in 1..=bytes.len() {
                let now = sniff(&bytes[..end]);
                if answer.is_some() {
                    prop_assert_eq!(now, answer);
                }
                answer = now;
            }
        }
    }
}
