//! What an answer of gRPC says of being tried again (gRFC A6).

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::exchange::grpc_status;
use crate::model::{Fields, ResponseHead};

/// How long a client is to wait before it tries again; below 0, or no number: it had better not.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// A longer pushback is taken for this one; the route's own time is over before, mostly.
const PUSHBACK_MAX: Duration = Duration::from_secs(60);

/// What a server asks of whoever would try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    After(Duration),
    Never,
}

/// The status that a rule's codes are compared with: that of HTTP, or for a call that failed at once (its head is
/// its trailers) the one of HTTP that says the same.
pub fn status_for_rules(head: &ResponseHead) -> StatusCode {
    match grpc_status(&head.headers) {
        Some(status) if head.status == StatusCode::OK => status_of_http(status),
        _ => head.status,
    }
}

/// See `google.rpc.Code`, which names a status of HTTP for each.
fn status_of_http(grpc_status: u16) -> StatusCode {
    let status = match grpc_status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What the head of an answer says of it.
pub fn pushback(headers: &Fields) -> Option<Pushback> {
    let value = headers.get(&PUSHBACK)?;
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(number.map_or(Pushback::Never, |milliseconds| {
        Pushback::After(Duration::from_millis(milliseconds).min(PUSHBACK_MAX))
    }))
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::model::FieldValue;

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHead {
        let mut headers = Fields::new();
        for (name, value) in fields {
            let name = HeaderName::from_static(name);
            headers.set(name, FieldValue::from_static(value));
        }
        ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            version: Version::HTTP_2,
            upgrade: None,
            headers,
        }
    }

    #[test]
    fn statuses_for_rules() {
        let check = |status: u16, grpc: Option<&'static str>, expect: u16| {
            let fields = grpc.map(|grpc| ("grpc-status", grpc));
            let head = head(status, fields.as_slice());
            assert_eq!(status_for_rules(&head).as_u16(), expect, "{head:?}");
        };
        check(200, None, 200);
        check(503, None, 503);
        check(200, Some("0"), 200);
        check(200, Some("14"), 503);
        check(200, Some("4"), 504);
        check(200, Some("8"), 429);
        check(200, Some("13"), 500);
        check(200, Some("99"), 500);
        check(200, Some("x"), 200);
        check(502, Some("14"), 502);
    }

    #[test]
    fn pushbacks() {
        let check = |value: Option<&'static str>, expect: Option<Pushback>| {
            let fields = value.map(|value| ("grpc-retry-pushback-ms", value));
            assert_eq!(pushback(&head(200, fields.as_slice()).headers), expect);
        };
        check(None, None);
        check(
            Some("250"),
            Some(Pushback::After(Duration::from_millis(250))),
        );
        check(Some("0"), Some(Pushback::After(Duration::ZERO)));
        check(Some("86400000"), Some(Pushback::After(PUSHBACK_MAX)));
        check(Some("-1"), Some(Pushback::Never));
        check(Some("soon"), Some(Pushback::Never));
    }
}
