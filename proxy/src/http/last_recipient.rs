//! Requests that say after how many proxies they end (RFC 9110 7.6.2). They are there to be seen on their way, so each
//! sidecar counts as the proxy that it is.

use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, MAX_FORWARDS, PROXY_AUTHORIZATION,
};
use http::{HeaderName, Method, StatusCode, Version};

use super::{Failure, Outcome, Request};
use crate::http1::write_request;
use crate::model::{FieldValue, Fields, RequestHead, ResponseHead};

/// What a TRACE doesn't tell of itself, as who reads its answer need not be who may read the request (RFC 9110 9.3.8).
const KEPT_BACK: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Takes one off the proxies that a TRACE or an OPTIONS may still pass. Whether none was left, so that it ends here.
/// What is no number is passed on as it is, as with any other method.
pub fn is_last_recipient(head: &mut RequestHead) -> bool {
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return false;
    }
    let left = head.headers.get(&MAX_FORWARDS);
    let left = left.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    match left {
        None => false,
        Some(0) => true,
        Some(left) => {
            let left = FieldValue::from(u64::from(left - 1));
            head.headers.set(MAX_FORWARDS, left);
            false
        }
    }
}

/// Answers as the last recipient: an OPTIONS with nothing, a TRACE with the request as it came here (RFC 9110 9.3.8).
pub async fn answer_as_last(request: &mut Request<'_>) -> Result<Outcome, Failure> {
    let responder = request.responder.take().ok_or(Failure::ClientGone)?;
    let (mut headers, mut content) = (Fields::new(), Bytes::new());
    if request.head.method == Method::TRACE {
        headers.set(CONTENT_TYPE, FieldValue::from_static("message/http"));
        content = told(&request.head);
    }
    headers.set(CONTENT_LENGTH, FieldValue::from(content.len() as u64));
    let head = ResponseHead {
        status: StatusCode::OK,
        version: Version::HTTP_11,
        upgrade: None,
        headers,
    };
    let mut outcome = Outcome::of(&head, None);
    outcome.response_bytes = content.len() as u64;
    let gone = |_| Failure::ClientGone;
    let mut sink = responder.respond(head, content.is_empty()).map_err(gone)?;
    if !content.is_empty() {
        sink.data(content).await.map_err(gone)?;
    }
    sink.finish(Fields::new()).await.map_err(gone)?;
    Ok(outcome)
}

/// The request in HTTP/1's words, whichever version it came in.
fn told(head: &RequestHead) -> Bytes {
    let mut shown = head.clone();
    shown.headers.retain(|name, _| !KEPT_BACK.contains(name));
    let mut told = BytesMut::new();
    write_request(&mut told, &shown, false);
    told.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Text;

    fn head(method: Method, fields: &[(HeaderName, &'static str)]) -> RequestHead {
        let mut headers = Fields::new();
        for (name, value) in fields {
            headers.append(name.clone(), FieldValue::from_static(value));
        }
        RequestHead {
            method,
            scheme: None,
            authority: Some(Text::from_static("a:80")),
            path: Text::from_static("/p"),
            version: Version::HTTP_2,
            upgrade: None,
            headers,
        }
    }

    #[test]
    fn proxies_are_counted() {
        let check = |method: Method, value: &'static str, is_last: bool, left: &str| {
            let mut head = head(method, &[(MAX_FORWARDS, value)]);
            assert_eq!(is_last_recipient(&mut head), is_last, "{value}");
            let seen = head.headers.get(&MAX_FORWARDS).unwrap();
            assert_eq!(seen.as_bytes(), left.as_bytes(), "{value}");
        };
        check(Method::OPTIONS, "5", false, "4");
        check(Method::OPTIONS, "1", false, "0");
        check(Method::OPTIONS, "0", true, "0");
        check(Method::TRACE, "00", true, "00");
        check(Method::TRACE, "4294967296", false, "4294967296");
        check(Method::TRACE, "-1", false, "-1");
        check(Method::GET, "0", false, "0");
        assert!(!is_last_recipient(&mut head(Method::TRACE, &[])));
    }

    #[test]
    fn a_trace_tells_what_came_but_no_secrets() {
        let fields = [
            (COOKIE, "a=b"),
            (MAX_FORWARDS, "0"),
            (AUTHORIZATION, "Basic eDp5"),
            (PROXY_AUTHORIZATION, "Basic eDp5"),
        ];
        assert_eq!(
            told(&head(Method::TRACE, &fields)),
            "TRACE /p HTTP/1.1\r\nhost: a:80\r\nmax-forwards: 0\r\n\r\n"
        );
    }
}
