//! What filters make of a request's head and of an answer's (pure).

use http::StatusCode;

use super::matching::after_prefix;
use crate::model::{
    FieldValue, Fields, Filter, HeaderModifier, PathMatch, PathModifier, Redirect, RequestHead,
    ResponseHead, Rewrite, Rule, Text,
};

/// Changes a request as the filters of its rule, then those of its backend, say.
pub fn change_request<'f>(
    filters: impl Iterator<Item = &'f Filter>,
    rule: &Rule,
    head: &mut RequestHead,
) {
    for filter in filters {
        match filter {
            Filter::RequestHeaders(modifier) => modify(modifier, &mut head.headers),
            Filter::Rewrite(rewrite) => self::rewrite(rewrite, rule, head),
            Filter::ResponseHeaders(_)
            | Filter::Redirect(_)
            | Filter::Mirror(_)
            | Filter::Cors(_) => {}
        }
    }
}

/// Changes an answer as the filters of the backend, then those of the rule, say: the way back.
/// `origin` is what the request's `origin` said.
pub fn change_response<'f>(
    filters: impl Iterator<Item = &'f Filter>,
    origin: Option<&FieldValue>,
    head: &mut ResponseHead,
) {
    for filter in filters {
        match filter {
            Filter::ResponseHeaders(modifier) => modify(modifier, &mut head.headers),
            Filter::Cors(cors) => super::cors::allow(cors, origin, &mut head.headers),
            Filter::RequestHeaders(_)
            | Filter::Redirect(_)
            | Filter::Rewrite(_)
            | Filter::Mirror(_) => {}
        }
    }
}

fn modify(modifier: &HeaderModifier, headers: &mut Fields) {
    for (name, value) in &modifier.set {
        headers.set(name.clone(), value.clone());
    }
    for (name, value) in &modifier.add {
        headers.append(name.clone(), value.clone());
    }
    for name in &modifier.remove {
        headers.remove(name);
    }
}

fn rewrite(rewrite: &Rewrite, rule: &Rule, head: &mut RequestHead) {
    if let Some(hostname) = &rewrite.hostname {
        head.authority = Some(hostname.clone());
    }
    if let Some(path) = rewrite
        .path
        .as_ref()
        .and_then(|path| changed_path(path, rule, head))
    {
        head.path = path;
    }
}

/// The path and query that a modifier makes; nothing where a request has no path to change (`*`).
fn changed_path(modifier: &PathModifier, rule: &Rule, head: &RequestHead) -> Option<Text> {
    let path = head.path_only();
    if !path.starts_with('/') {
        return None;
    }
    let mut changed = match modifier {
        PathModifier::Full(full) => full.to_string(),
        PathModifier::Prefix(replacement) => {
            let prefix = match &rule.matches.path {
                Some(PathMatch::Prefix(prefix)) => prefix,
                _ => "/",
            };
            let rest = after_prefix(path, prefix)?;
            let replacement = replacement.strip_suffix('/').unwrap_or(replacement);
            format!("{replacement}{rest}")
        }
    };
    if changed.is_empty() {
        changed.push('/');
    }
    changed.push_str(&head.path[path.len()..]);
    Text::try_from(changed.as_str()).ok()
}

/// The answer of a redirect; `port` is the service's (Gateway API, HTTPRequestRedirectFilter).
pub(super) fn redirected(
    redirect: &Redirect,
    rule: &Rule,
    head: &RequestHead,
    port: u16,
) -> ResponseHead {
    let asked = head.scheme.as_deref().unwrap_or("http");
    let scheme = redirect.scheme.as_deref().unwrap_or(asked);
    let host = redirect.hostname.as_deref().unwrap_or(head.host());
    let own = if scheme == "https" { 443 } else { 80 };
    let port = redirect.port.unwrap_or(match redirect.scheme {
        Some(_) => own,
        None => port,
    });
    let path = redirect
        .path
        .as_ref()
        .and_then(|path| changed_path(path, rule, head))
        .unwrap_or_else(|| head.path.clone());
    let location = if port == own {
        format!("{scheme}://{host}{path}")
    } else {
        format!("{scheme}://{host}:{port}{path}")
    };
    let mut headers = Fields::new();
    // Its parts are visible ASCII each.
    if let Ok(location) = FieldValue::from_text(&location) {
        headers.set(http::header::LOCATION, location);
    }
    answer(redirect.status, headers)
}

/// An answer without a body.
pub(super) fn answer(status: StatusCode, mut headers: Fields) -> ResponseHead {
    headers.set(http::header::CONTENT_LENGTH, FieldValue::from_static("0"));
    ResponseHead {
        status,
        version: http::Version::HTTP_11,
        upgrade: None,
        headers,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::model::RouteMatch;

    fn rule(prefix: &str) -> Rule {
        Rule {
            route: "HTTPRoute/shop/r".into(),
            hop_route: Text::default(),
            rule: 0,
            rule_name: None,
            match_index: 0,
            matches: RouteMatch {
                path: Some(PathMatch::Prefix(prefix.to_owned())),
                ..RouteMatch::default()
            },
            filters: Vec::new(),
            request_timeout: None,
            backend_request_timeout: None,
            retry: None,
            session: None,
            faults: Default::default(),
            backends: Vec::new(),
        }
    }

    fn head(authority: &'static str, path: &str) -> RequestHead {
        RequestHead {
            method: Method::GET,
            scheme: None,
            authority: Some(Text::from_static(authority)),
            path: Text::try_from(path).unwrap(),
            version: http::Version::HTTP_11,
            upgrade: None,
            headers: Fields::new(),
        }
    }

    /// The table of Gateway API's HTTPPathModifier, and what it leaves open.
    #[test]
    fn paths() {
        let check = |path: &str, prefix: &str, modifier: PathModifier, expect: &str| {
            let mut head = head("orders", path);
            let rewrite = Filter::Rewrite(Rewrite {
                hostname: None,
                path: Some(modifier),
            });
            change_request([rewrite].iter(), &rule(prefix), &mut head);
            assert_eq!(&*head.path, expect, "{path} {prefix}");
        };
        let prefix = |text: &'static str| PathModifier::Prefix(Text::from_static(text));
        let full = |text: &'static str| PathModifier::Full(Text::from_static(text));
        check("/foo/bar", "/foo", prefix("/xyz"), "/xyz/bar");
        check("/foo/bar", "/foo", prefix("/xyz/"), "/xyz/bar");
        check("/foo/bar", "/foo/", prefix("/xyz"), "/xyz/bar");
        check("/foo/bar", "/foo/", prefix("/xyz/"), "/xyz/bar");
        check("/foo", "/foo", prefix("/xyz"), "/xyz");
        check("/foo/", "/foo", prefix("/xyz"), "/xyz/");
        check("/foo/bar", "/foo", prefix(""), "/bar");
        check("/foo/", "/foo", prefix(""), "/");
        check("/foo", "/foo", prefix(""), "/");
        check("/foo/", "/foo", prefix("/"), "/");
        check("/foo", "/foo", prefix("/"), "/");
        check("/foo?a=/foo", "/foo", prefix("/xyz"), "/xyz?a=/foo");
        check("/a/b", "/", prefix("/xyz"), "/xyz/a/b");
        check("/foo/bar?q", "/foo", full("/one"), "/one?q");
        check("/foo", "/", full(""), "/");
        check("*", "/", full("/one"), "*");
    }

    #[test]
    fn hosts_and_fields() {
        let line = |name: &str, value: &str| (name.parse().unwrap(), value.parse().unwrap());
        let modifier = HeaderModifier {
            set: vec![line("x-set", "new")],
            add: vec![line("x-add", "two"), line("x-new", "one")],
            remove: vec!["x-remove".parse().unwrap()],
        };
        let before: Fields = [
            line("x-set", "old"),
            line("x-add", "one"),
            line("x-remove", "one"),
            line("x-set", "older"),
            line("x-remove", "two"),
        ]
        .into_iter()
        .collect();
        let after: Fields = [
            line("x-set", "new"),
            line("x-add", "one"),
            line("x-add", "two"),
            line("x-new", "one"),
        ]
        .into_iter()
        .collect();
        let mut request = head("orders", "/");
        request.headers = before.clone();
        let filters = [
            Filter::RequestHeaders(modifier.clone()),
            Filter::Rewrite(Rewrite {
                hostname: Some(Text::from_static("other.test")),
                path: None,
            }),
        ];
        change_request(filters.iter(), &rule("/"), &mut request);
        assert_eq!(request.headers, after);
        assert_eq!(request.authority.as_deref(), Some("other.test"));

        let mut response = answer(StatusCode::OK, before);
        response.headers.remove("content-length");
        change_response(
            [Filter::ResponseHeaders(modifier)].iter(),
            None,
            &mut response,
        );
        assert_eq!(response.headers, after);
    }

    #[test]
    fn redirects() {
        let nothing = || Redirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: StatusCode::FOUND,
        };
        let text = |text: &'static str| Some(Text::from_static(text));
        let check = |redirect: Redirect, asked: RequestHead, port: u16, expect: &str| {
            let response = redirected(&redirect, &rule("/foo"), &asked, port);
            assert_eq!(response.status, redirect.status);
            assert_eq!(response.headers.get("location").unwrap(), expect);
        };
        let asked = || head("orders:80", "/foo/bar?q=1");
        check(nothing(), asked(), 80, "http://orders/foo/bar?q=1");
        check(nothing(), asked(), 8080, "http://orders:8080/foo/bar?q=1");
        let scheme = |scheme| Redirect {
            scheme: text(scheme),
            ..nothing()
        };
        check(scheme("https"), asked(), 8080, "https://orders/foo/bar?q=1");
        check(scheme("http"), asked(), 8080, "http://orders/foo/bar?q=1");
        let port = |scheme: Option<&'static str>, port| Redirect {
            scheme: scheme.map(Text::from_static),
            port: Some(port),
            ..nothing()
        };
        check(port(None, 80), asked(), 8080, "http://orders/foo/bar?q=1");
        check(
            port(None, 443),
            asked(),
            80,
            "http://orders:443/foo/bar?q=1",
        );
        check(
            port(Some("https"), 443),
            asked(),
            80,
            "https://orders/foo/bar?q=1",
        );
        check(
            port(Some("https"), 8443),
            asked(),
            80,
            "https://orders:8443/foo/bar?q=1",
        );
        let host = Redirect {
            hostname: text("example.org"),
            status: StatusCode::PERMANENT_REDIRECT,
            ..nothing()
        };
        check(host, asked(), 80, "http://example.org/foo/bar?q=1");
        let path = Redirect {
            path: Some(PathModifier::Prefix(Text::from_static("/xyz"))),
            ..nothing()
        };
        check(path, asked(), 80, "http://orders/xyz/bar?q=1");
        check(
            nothing(),
            head("[fd00::1]:80", "/foo"),
            80,
            "http://[fd00::1]/foo",
        );
        check(
            nothing(),
            head("[fd00::1]", "/foo"),
            80,
            "http://[fd00::1]/foo",
        );
    }
}
