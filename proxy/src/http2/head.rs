//! Between HTTP/2's pseudo-header fields and plain heads (RFC 9113 8.3, RFC 8441).

use h2::ext::Protocol;
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use crate::http1::{Refusal, check_authority};
use crate::model::{RequestHead, ResponseHead};

/// Reads a request head. The fields that RFC 9113 8.2.2 forbids were refused by the engine.
pub fn receive_request(mut parts: Parts) -> Result<RequestHead, Refusal> {
    let mut headers = parts.headers;
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(Refusal::Malformed("several Host headers"));
    }
    headers.remove(HOST);
    let host = host.and_then(|host| host.to_str().ok().map(str::to_owned));
    let authority = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    // RFC 9113 8.3.1: a Host that says something else than :authority is a second opinion on where
    // the request goes.
    if let (Some(authority), Some(host)) = (&authority, &host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(Refusal::Malformed("Host and :authority differ"));
    }
    let authority = authority.or(host).filter(|authority| !authority.is_empty());
    if let Some(authority) = &authority {
        check_authority(authority)?;
    }
    join_cookies(&mut headers);
    let upgrade = parts
        .extensions
        .remove::<Protocol>()
        .map(|protocol| protocol.as_str().to_owned());
    let method = if upgrade.is_some() {
        Method::GET
    } else {
        parts.method
    };
    Ok(RequestHead {
        method,
        scheme: parts.uri.scheme_str().map(str::to_owned),
        authority,
        path: parts
            .uri
            .path_and_query()
            .map(|path| path.as_str().to_owned())
            .unwrap_or_default(),
        version: Version::HTTP_2,
        upgrade,
        headers,
    })
}

/// RFC 9113 8.2.3: cookies that were split for compression are one field again outside HTTP/2.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Reads a response head. `upgrade` is the protocol that the request asked for, if a 2xx means that
/// it is spoken from here on.
pub fn receive_response(parts: http::response::Parts, upgrade: Option<&str>) -> ResponseHead {
    let upgrade = upgrade
        .filter(|_| parts.status.is_success())
        .map(str::to_owned);
    ResponseHead {
        status: parts.status,
        version: Version::HTTP_2,
        upgrade,
        headers: parts.headers,
    }
}

/// Forms a request. An upgrade becomes an extended CONNECT (RFC 8441 4).
pub fn send_request(head: &RequestHead) -> Result<Request<()>, Refusal> {
    let malformed = Refusal::Malformed;
    let mut uri = http::uri::Parts::default();
    let scheme = head.scheme.as_deref().unwrap_or("http");
    uri.scheme = Some(Scheme::try_from(scheme).map_err(|_| malformed("the scheme is no scheme"))?);
    let authority = head.authority.as_deref().unwrap_or(NO_AUTHORITY);
    uri.authority = Some(
        Authority::try_from(authority)
            .map_err(|_| malformed("the authority is not HOST or HOST:PORT"))?,
    );
    let path = if head.path.is_empty() {
        "/"
    } else {
        &head.path
    };
    uri.path_and_query = Some(
        PathAndQuery::try_from(path).map_err(|_| malformed("the path holds a forbidden byte"))?,
    );
    let uri = Uri::from_parts(uri).map_err(|_| malformed("the request target cannot be formed"))?;

    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = head.headers.clone();
    if let Some(token) = &head.upgrade {
        *request.method_mut() = Method::CONNECT;
        request
            .extensions_mut()
            .insert(Protocol::from(token.as_str()));
    }
    Ok(request)
}

/// HTTP/2 needs an authority where HTTP/1.0 may have none.
const NO_AUTHORITY: &str = "unknown.invalid";

/// Forms a plain CONNECT (RFC 9113 8.5).
pub fn send_tunnel(authority: &str, headers: HeaderMap) -> Result<Request<()>, Refusal> {
    let authority = Authority::try_from(authority)
        .map_err(|_| Refusal::Malformed("the authority is not HOST:PORT"))?;
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(authority);
    let uri = Uri::from_parts(uri)
        .map_err(|_| Refusal::Malformed("the request target cannot be formed"))?;
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::CONNECT;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Forms a response; what HTTP/1 answers with 101 is 200 here.
pub fn send_response(head: ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = if head.upgrade.is_some() {
        StatusCode::OK
    } else {
        head.status
    };
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = head.headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_way_there_and_back() {
        let mut headers = HeaderMap::new();
        headers.insert("x", HeaderValue::from_static("1"));
        let head = RequestHead {
            method: Method::PUT,
            scheme: None,
            authority: Some("orders.shop:80".into()),
            path: "/a?b".into(),
            version: Version::HTTP_2,
            upgrade: None,
            headers,
        };
        let (parts, ()) = send_request(&head).unwrap().into_parts();
        let back = receive_request(parts).unwrap();
        assert_eq!(
            (back.method, back.authority, back.path),
            (head.method, head.authority, head.path)
        );
        assert_eq!(back.headers, head.headers);
    }

    #[test]
    fn host_and_authority_must_agree() {
        let check = |authority: &str, host: &str, fine: bool| {
            let request = Request::builder()
                .uri(format!("http://{authority}/"))
                .header("host", host);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(receive_request(parts).is_ok(), fine, "{authority} {host}");
        };
        check("a", "a", true);
        check("a", "A", true);
        check("a", "b", false);
    }

    #[test]
    fn cookies_are_joined() {
        let request = Request::builder()
            .uri("http://a/")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(
            receive_request(parts).unwrap().headers["cookie"],
            "a=1; b=2"
        );
    }
}
