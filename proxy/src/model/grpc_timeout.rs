//! `grpc-timeout`: how long a gRPC client waits for the whole call ("gRPC over HTTP2").

use std::time::Duration;

use http::HeaderName;

use super::{FieldValue, RequestHead};

/// The field that says it; what is over by then is answered with DEADLINE_EXCEEDED.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Longest timeout that a client's own is taken for, also where it says a longer one: eight digits of hours
/// would overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 24 * 60 * 60);
/// A number has eight digits at most.
const NUMBER_MAX: u128 = 99_999_999;

/// What a request says.
pub fn get(head: &RequestHead) -> Option<Duration> {
    parse(head.headers.get(&GRPC_TIMEOUT)?.to_str().ok()?)
}

/// Says another timeout, in the finest unit that has room for it.
pub fn set(head: &mut RequestHead, timeout: Duration) {
    let timeout = timeout.min(TIMEOUT_MAX);
    let (number, unit) = match (timeout.as_micros(), timeout.as_millis()) {
        (micros, _) if micros <= NUMBER_MAX => (micros, 'u'),
        (_, millis) if millis <= NUMBER_MAX => (millis, 'm'),
        _ => (timeout.as_secs().into(), 'S'),
    };
    if let Ok(value) = FieldValue::from_text(&format!("{number}{unit}")) {
        head.headers.set(GRPC_TIMEOUT, value);
    }
}

/// `TimeoutValue TimeoutUnit` of gRPC's protocol: at most eight digits, and one letter.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.min(TIMEOUT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_grpc() {
        let check = |text: &str, expect: Option<u64>| {
            let milliseconds = parse(text).map(|timeout| timeout.as_millis());
            assert_eq!(milliseconds, expect.map(u128::from), "{text}");
        };
        check("1S", Some(1000));
        check("99999999n", Some(99));
        check("250m", Some(250));
        check("5000u", Some(5));
        check("2M", Some(120_000));
        check("1H", Some(3_600_000));
        check("99999999H", Some(100 * 24 * 3_600_000));
        check("100000000n", None);
        check("S", None);
        check("1", None);
        check("-1S", None);
        check("1s", None);
        check("", None);
        check("1é", None);
    }
    #[test]
    fn what_is_set_is_read() {
        use crate::model::{Fields, Text};
        let mut head = RequestHead {
            method: http::Method::POST,
            scheme: None,
            authority: None,
            path: Text::default(),
            version: http::Version::HTTP_2,
            upgrade: None,
            headers: Fields::new(),
        };
        let mut check = |timeout: Duration, expect: &str| {
            set(&mut head, timeout);
            assert_eq!(head.headers.get(&GRPC_TIMEOUT).unwrap(), expect);
            let lost = timeout - get(&head).unwrap();
            assert!(lost < Duration::from_secs(1), "{timeout:?}");
        };
        check(Duration::from_millis(1500), "1500000u");
        check(Duration::from_secs(100), "100000m");
        check(Duration::from_secs(30 * 24 * 3600), "2592000S");
        check(Duration::ZERO, "0u");
    }
}
