//! Whether a request is what a match asks for, and in words why not.

use std::borrow::Cow;

use crate::model::{
    HeaderMatch, HostMatch, PathMatch, QueryMatch, RequestHead, RouteMatch, TextMatch,
};

/// Whether all of what a match asks for holds.
pub fn matches(wanted: &RouteMatch, head: &RequestHead) -> bool {
    has_method(wanted, head)
        && has_hostname(wanted, head)
        && has_path(wanted, head)
        && wanted.headers.iter().all(|header| has_header(header, head))
        && wanted.query.iter().all(|query| has_query(query, head))
}

/// What does not hold, one sentence each; empty when all does.
pub fn mismatches(wanted: &RouteMatch, head: &RequestHead) -> Vec<String> {
    let mut because = Vec::new();
    if !has_hostname(wanted, head) {
        let host = head.host();
        because.push(match &wanted.hostname {
            Some(HostMatch::Exact(name)) => format!("host {host} is not {name}"),
            Some(HostMatch::Below(suffix)) => format!("host {host} is not *{suffix}"),
            None => String::new(),
        });
    }
    if !has_path(wanted, head) {
        let path = head.path_only();
        because.push(match &wanted.path {
            Some(PathMatch::Exact(exact)) => format!("path {path} is not {exact}"),
            Some(PathMatch::Prefix(prefix)) => {
                format!("path {path} does not begin with the elements of {prefix}")
            }
            Some(PathMatch::Regex(regex)) => {
                format!("path {path} does not match {}", regex.as_str())
            }
            None => String::new(),
        });
    }
    if !has_method(wanted, head)
        && let Some(method) = &wanted.method
    {
        because.push(format!("method {} is not {method}", head.method));
    }
    for header in wanted
        .headers
        .iter()
        .filter(|wanted| !has_header(wanted, head))
    {
        let seen = head.field(&header.name);
        because.push(difference(
            "header",
            header.name.as_str(),
            seen,
            &header.value,
        ));
    }
    for query in wanted
        .query
        .iter()
        .filter(|wanted| !has_query(wanted, head))
    {
        let seen = parameter(head.query(), &query.name);
        because.push(difference(
            "query parameter",
            &query.name,
            seen,
            &query.value,
        ));
    }
    because
}

fn difference(what: &str, name: &str, seen: Option<Cow<'_, str>>, wanted: &TextMatch) -> String {
    let Some(seen) = seen else {
        return format!("{what} {name} is not there");
    };
    match wanted {
        TextMatch::Exact(exact) => format!("{what} {name} is {seen:?} and not {exact:?}"),
        TextMatch::Regex(regex) => {
            format!(
                "{what} {name} is {seen:?} and does not match {}",
                regex.as_str()
            )
        }
    }
}

fn has_method(wanted: &RouteMatch, head: &RequestHead) -> bool {
    let method = wanted.method.as_ref();
    method.is_none_or(|method| *method == head.method)
}

fn has_hostname(wanted: &RouteMatch, head: &RequestHead) -> bool {
    let hostname = wanted.hostname.as_ref();
    hostname.is_none_or(|hostname| is_host(hostname, head.host()))
}

/// Host names are compared without regard to case (RFC 9110 4.2.3).
pub(super) fn is_host(wanted: &HostMatch, host: &str) -> bool {
    match wanted {
        HostMatch::Exact(name) => host.eq_ignore_ascii_case(name),
        HostMatch::Below(suffix) => {
            let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
            let labels = host.len().saturating_sub(suffix.len());
            labels > 0 && host[labels..].eq_ignore_ascii_case(suffix)
        }
    }
}

fn has_path(wanted: &RouteMatch, head: &RequestHead) -> bool {
    let path = head.path_only();
    match &wanted.path {
        None => true,
        Some(PathMatch::Exact(exact)) => path == exact,
        Some(PathMatch::Prefix(prefix)) => after_prefix(path, prefix).is_some(),
        Some(PathMatch::Regex(regex)) => regex.is_match(path),
    }
}

/// What follows the elements of `prefix`: empty, or from a slash on.
pub(super) fn after_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn has_header(wanted: &HeaderMatch, head: &RequestHead) -> bool {
    let value = head.field(&wanted.name);
    value.is_some_and(|value| is_text(&wanted.value, &value))
}

fn has_query(wanted: &QueryMatch, head: &RequestHead) -> bool {
    let value = parameter(head.query(), &wanted.name);
    value.is_some_and(|value| is_text(&wanted.value, &value))
}

fn is_text(wanted: &TextMatch, value: &str) -> bool {
    match wanted {
        TextMatch::Exact(exact) => value == exact,
        TextMatch::Regex(regex) => regex.is_match(value),
    }
}

/// The first parameter of this name, decoded as forms encode it (URL standard,
/// "application/x-www-form-urlencoded").
fn parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let mut parameters = query
        .split('&')
        .map(|part| part.split_once('=').unwrap_or((part, "")));
    let (_, value) = parameters.find(|(key, _)| decoded(key) == name)?;
    Some(decoded(value))
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let code = || std::str::from_utf8(after.get(..2)?).ok();
        let escaped = || u8::from_str_radix(code().filter(|code| !code.starts_with('+'))?, 16).ok();
        match (byte, (*byte == b'%').then(escaped).flatten()) {
            (_, Some(escaped)) => {
                bytes.push(escaped);
                rest = &after[2..];
                continue;
            }
            (b'+', None) => bytes.push(b' '),
            (byte, None) => bytes.push(*byte),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let exact = HostMatch::Exact("orders.shop".to_owned());
        let below = HostMatch::Below(".example.com".to_owned());
        let check = |wanted: &HostMatch, host: &str, expect: bool| {
            assert_eq!(is_host(wanted, host), expect, "{wanted:?} {host}");
        };
        check(&exact, "orders.shop", true);
        check(&exact, "ORDERS.shop", true);
        check(&exact, "a.orders.shop", false);
        check(&below, "a.example.com", true);
        check(&below, "a.b.EXAMPLE.com", true);
        check(&below, "example.com", false);
        check(&below, ".example.com", false);
        check(&below, "aexample.com", false);
        check(&below, "", false);
    }

    #[test]
    fn parameters() {
        let check = |query: &str, name: &str, expect: Option<&str>| {
            assert_eq!(parameter(query, name).as_deref(), expect, "{query} {name}");
        };
        check("a=1&b=2", "b", Some("2"));
        check("a=1&a=2", "a", Some("1"));
        check("a", "a", Some(""));
        check("", "a", None);
        check("A=1", "a", None);
        check("a=1=2", "a", Some("1=2"));
        check("%61=x%20y+z", "a", Some("x y z"));
        check("a=100%", "a", Some("100%"));
        check("a=%zz%4", "a", Some("%zz%4"));
        check("a=%+1", "a", Some("% 1"));
        check("a=%ff", "a", Some("\u{fffd}"));
        check("a=ä%41", "a", Some("äA"));
    }

    #[test]
    fn prefixes_are_whole_elements() {
        let check = |path: &str, prefix: &str, expect: Option<&str>| {
            assert_eq!(after_prefix(path, prefix), expect, "{path} {prefix}");
        };
        check("/a/b", "/a", Some("/b"));
        check("/a/b", "/a/", Some("/b"));
        check("/a", "/a/", Some(""));
        check("/ab", "/a", None);
        check("/", "/", Some("/"));
        check("*", "/", None);
    }
}
