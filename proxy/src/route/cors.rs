//! Cross-origin requests of browsers (Fetch standard, "HTTP-CORS protocol"; GEP-1767). The proxy answers
//! preflights itself, and says in other answers what the browser may do with them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, Method, StatusCode};

use super::filters::answer;
use crate::model::{Cors, FieldValue, Fields, OriginMatch, RequestHead, ResponseHead};

/// The answer, where the request is a preflight. One from an origin that may not ask gets an answer
/// without permission, which a browser takes for a no.
pub(super) fn preflight(cors: &Cors, head: &RequestHead) -> Option<ResponseHead> {
    let origin = head.headers.get(&ORIGIN)?;
    let method = head.headers.get(&ACCESS_CONTROL_REQUEST_METHOD)?;
    if head.method != Method::OPTIONS {
        return None;
    }
    let mut headers = Fields::new();
    if is_allowed(cors, origin) {
        allow(cors, Some(origin), &mut headers);
        let asked = head.headers.get(&ACCESS_CONTROL_REQUEST_HEADERS);
        list(
            ACCESS_CONTROL_ALLOW_METHODS,
            &cors.allow_methods,
            cors,
            Some(method),
            &mut headers,
        );
        list(
            ACCESS_CONTROL_ALLOW_HEADERS,
            &cors.allow_headers,
            cors,
            asked,
            &mut headers,
        );
        headers.set(
            ACCESS_CONTROL_MAX_AGE,
            FieldValue::from(u64::from(cors.max_age_seconds)),
        );
    }
    Some(answer(StatusCode::OK, headers))
}

/// Says that the origin may read the answer, if it may. What the application said of the same is
/// replaced.
pub(super) fn allow(cors: &Cors, origin: Option<&FieldValue>, headers: &mut Fields) {
    let Some(origin) = origin.filter(|origin| is_allowed(cors, origin)) else {
        return;
    };
    if cors.allow_origins.contains(&OriginMatch::Any) && !cors.allow_credentials {
        headers.set(ACCESS_CONTROL_ALLOW_ORIGIN, FieldValue::from_static("*"));
    } else {
        headers.set(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // Another origin gets another answer, which caches have to know.
        headers.append(VARY, FieldValue::from_static("origin"));
    }
    if cors.allow_credentials {
        headers.set(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            FieldValue::from_static("true"),
        );
    } else {
        headers.remove(&ACCESS_CONTROL_ALLOW_CREDENTIALS);
    }
    list(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        &cors.expose_headers,
        cors,
        None,
        headers,
    );
}

/// Sets a field to a list, if there is one. Where credentials are allowed a star would be read as a name
/// of its own, so what was asked for stands in its place.
fn list(
    name: HeaderName,
    values: &[String],
    cors: &Cors,
    asked: Option<&FieldValue>,
    headers: &mut Fields,
) {
    let any = values.iter().any(|value| value == "*");
    let value = match asked {
        Some(asked) if any && cors.allow_credentials => Some(asked.clone()),
        _ if values.is_empty() => None,
        _ if any => Some(FieldValue::from_static("*")),
        _ => FieldValue::from_text(&values.join(", ")).ok(),
    };
    match value {
        Some(value) => headers.set(name, value),
        None => drop(headers.remove(&name)),
    }
}

fn is_allowed(cors: &Cors, origin: &FieldValue) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let origin = origin.to_ascii_lowercase();
    cors.allow_origins.iter().any(|allowed| match allowed {
        OriginMatch::Any => true,
        OriginMatch::Exact(exact) => origin == *exact,
        OriginMatch::Below { scheme, suffix } => origin
            .strip_prefix(scheme.as_str())
            .and_then(|host| host.strip_suffix(suffix.as_str()))
            .is_some_and(|labels| !labels.is_empty() && !labels.contains(['/', ':', '@'])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Text;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn cors(credentials: bool, methods: &[&str]) -> Cors {
        Cors {
            allow_origins: vec![
                OriginMatch::Exact("https://www.foo.com".to_owned()),
                OriginMatch::Below {
                    scheme: "https://".to_owned(),
                    suffix: ".bar.com".to_owned(),
                },
            ],
            allow_credentials: credentials,
            allow_methods: strings(methods),
            allow_headers: strings(&["x-1", "x-2"]),
            expose_headers: strings(&["x-3"]),
            max_age_seconds: 3600,
        }
    }

    fn any(credentials: bool) -> Cors {
        Cors {
            allow_origins: vec![OriginMatch::Any],
            ..cors(credentials, &["*"])
        }
    }

    fn lines(headers: &Fields) -> String {
        let short = |name: &HeaderName| name.as_str().replace("access-control-", "");
        let lines = headers.iter();
        let lines = lines.filter(|(name, _)| *name != http::header::CONTENT_LENGTH);
        let lines =
            lines.map(|(name, value)| format!("{}={}", short(name), value.to_str().unwrap()));
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn preflights() {
        let check =
            |cors: &Cors, method: Method, origin: &str, asked: &str, expect: Option<&str>| {
                let mut head = RequestHead {
                    method,
                    scheme: None,
                    authority: None,
                    path: Text::from_static("/"),
                    version: http::Version::HTTP_11,
                    upgrade: None,
                    headers: Fields::new(),
                };
                head.headers.append(ORIGIN, origin.parse().unwrap());
                if !asked.is_empty() {
                    head.headers
                        .append(ACCESS_CONTROL_REQUEST_METHOD, asked.parse().unwrap());
                    head.headers
                        .append(ACCESS_CONTROL_REQUEST_HEADERS, "x-9".parse().unwrap());
                }
                let seen = preflight(cors, &head).map(|response| lines(&response.headers));
                assert_eq!(seen.as_deref(), expect, "{origin} {asked}");
            };
        let options = || Method::OPTIONS;
        check(
            &cors(true, &["GET", "PUT"]),
            options(),
            "https://www.foo.com",
            "GET",
            Some(
                "allow-origin=https://www.foo.com vary=origin allow-credentials=true \
                 expose-headers=x-3 allow-methods=GET, PUT allow-headers=x-1, x-2 max-age=3600",
            ),
        );
        check(
            &cors(true, &["GET"]),
            options(),
            "https://foobar.com",
            "GET",
            Some(""),
        );
        check(
            &cors(true, &["GET"]),
            options(),
            "https://www.foo.com",
            "",
            None,
        );
        check(
            &cors(true, &["GET"]),
            Method::GET,
            "https://www.foo.com",
            "GET",
            None,
        );
        check(
            &any(false),
            options(),
            "https://a.test:123",
            "PUT",
            Some(
                "allow-origin=* expose-headers=x-3 allow-methods=* allow-headers=x-1, x-2 \
                 max-age=3600",
            ),
        );
        check(
            &any(true),
            options(),
            "https://a.test",
            "PUT",
            Some(
                "allow-origin=https://a.test vary=origin allow-credentials=true \
                 expose-headers=x-3 allow-methods=PUT allow-headers=x-1, x-2 max-age=3600",
            ),
        );
    }

    #[test]
    fn origins() {
        let check = |origin: &str, expect: bool| {
            let origin = FieldValue::from_text(origin).unwrap();
            assert_eq!(is_allowed(&cors(false, &[]), &origin), expect, "{origin:?}");
        };
        check("https://www.foo.com", true);
        check("https://WWW.foo.com", true);
        check("http://www.foo.com", false);
        check("https://www.foo.com:8443", false);
        check("https://a.bar.com", true);
        check("https://b.a.bar.com", true);
        check("https://bar.com", false);
        check("https://evil.test/.bar.com", false);
        check("https://evil.test:1.bar.com", false);
        check("null", false);
    }

    #[test]
    fn what_the_application_said_is_replaced() {
        let mut headers: Fields = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, FieldValue::from_static("*")),
            (
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                FieldValue::from_static("true"),
            ),
        ]
        .into_iter()
        .collect();
        let foreign = FieldValue::from_static("https://evil.test");
        allow(&cors(false, &[]), Some(&foreign), &mut headers);
        assert_eq!(lines(&headers), "allow-origin=* allow-credentials=true");
        let origin = FieldValue::from_static("https://a.bar.com");
        allow(&cors(false, &[]), Some(&origin), &mut headers);
        assert_eq!(
            lines(&headers),
            "allow-origin=https://a.bar.com vary=origin expose-headers=x-3"
        );
    }
}
