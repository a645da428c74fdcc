//! Reading matches.

use super::super::fields::{Field, Fields};
use super::{
    GrpcMethodMatch, HEADERS_MAX, MatchKind, PATH_BYTES_MAX, PathMatch, REGEX_COMPILED_BYTES_MAX,
    RouteKind, RouteMatch, TextMatch, VALUE_BYTES_MAX, ValueMatch,
};

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

impl RouteMatch {
    /// The match that a rule without one has.
    pub(super) fn any(kind: RouteKind) -> Self {
        let kind = match kind {
            RouteKind::Http => MatchKind::Http {
                path: PathMatch::Prefix("/".to_owned()),
                method: None,
                query: Vec::new(),
            },
            RouteKind::Grpc => MatchKind::Grpc(GrpcMethodMatch::default()),
            RouteKind::Tls | RouteKind::Tcp => MatchKind::Bytes,
        };
        Self {
            kind,
            headers: Vec::new(),
        }
    }
}

/// Reads one of `matches`.
pub(in crate::resource) fn route_match(item: &Field<'_>, kind: RouteKind) -> Option<RouteMatch> {
    let mut fields = item.mapping()?;
    let read = match kind {
        RouteKind::Grpc => grpc(&mut fields).map(MatchKind::Grpc),
        _ => http(&mut fields),
    };
    let listed = fields.take("headers");
    let headers = listed.map(|field| headers(&field)).unwrap_or_default();
    fields.finish();
    Some(RouteMatch {
        kind: read?,
        headers,
    })
}

fn http(fields: &mut Fields<'_>) -> Option<MatchKind> {
    let path = match fields.take("path") {
        Some(field) => path_match(&field),
        None => Some(PathMatch::Prefix("/".to_owned())),
    };
    let method = fields
        .take("method")
        .and_then(|field| field.checked(one_of(&METHODS)));
    let listed = fields.take("queryParams");
    let query = listed.map(|field| query(&field)).unwrap_or_default();
    Some(MatchKind::Http {
        path: path?,
        method,
        query,
    })
}

fn grpc(fields: &mut Fields<'_>) -> Option<GrpcMethodMatch> {
    let Some(field) = fields.take("method") else {
        return Some(GrpcMethodMatch::default());
    };
    let mut fields = field.mapping()?;
    let is_regex = match fields.take("type") {
        Some(kind) => kind.checked(one_of(&["Exact", "RegularExpression"]))? != "Exact",
        None => false,
    };
    let mut is_empty = true;
    let mut part = |name: &str, exact: fn(&str) -> Result<(), String>| {
        let field = fields.take(name)?;
        is_empty = false;
        field.checked(|text| {
            if is_regex {
                regex(text, PATH_BYTES_MAX)
            } else {
                exact(text)
            }
        })
    };
    let service = part("service", grpc_service);
    let method = part("method", grpc_word);
    fields.finish();
    if is_empty {
        field.problem("needs service, method or both");
    }
    Some(GrpcMethodMatch {
        is_regex,
        service,
        method,
    })
}

fn grpc_service(name: &str) -> Result<(), String> {
    let name = name.strip_prefix('.').unwrap_or(name);
    name.split('.').try_for_each(grpc_word)
}

fn grpc_word(word: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fine = (1..=PATH_BYTES_MAX).contains(&word.len())
        && word.bytes().all(inner)
        && !word.starts_with(|c: char| c.is_ascii_digit());
    fine.then_some(())
        .ok_or_else(|| format!("{word:?} is no name of gRPC: letters, digits and '_'"))
}

fn path_match(field: &Field<'_>) -> Option<PathMatch> {
    let mut fields = field.mapping()?;
    let kind = match fields.take("type") {
        Some(kind) => kind.checked(one_of(&["Exact", "PathPrefix", "RegularExpression"])),
        None => Some("PathPrefix".to_owned()),
    };
    let value = fields.take("value");
    fields.finish();
    let kind = kind?;
    let text = match value {
        Some(value) if kind == "RegularExpression" => {
            value.checked(|text| regex(text, PATH_BYTES_MAX))?
        }
        Some(value) => value.checked(plain_path)?,
        None => "/".to_owned(),
    };
    Some(match kind.as_str() {
        "Exact" => PathMatch::Exact(text),
        "PathPrefix" => PathMatch::Prefix(text),
        _ => PathMatch::Regex(text),
    })
}

/// One of these words.
pub(in crate::resource) fn one_of(names: &[&str]) -> impl Fn(&str) -> Result<(), String> {
    move |name| {
        names
            .contains(&name)
            .then_some(())
            .ok_or_else(|| format!("{name:?} is none of {}", names.join(", ")))
    }
}

/// Gateway API's rules for HTTPPathMatch: a path that could mean another one is refused.
pub(super) fn plain_path(path: &str) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("longer than {PATH_BYTES_MAX} bytes"));
    }
    if !path.starts_with('/') {
        return Err(format!("{path:?} must begin with '/'"));
    }
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if path.contains(part) {
            return Err(format!("{path:?} must not hold {part:?}"));
        }
    }
    if path.ends_with("/..") || path.ends_with("/.") {
        return Err(format!("{path:?} must not end with a dot segment"));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    match path.bytes().find(|b| !allowed(*b)) {
        Some(b) => Err(format!(
            "{path:?} holds {:?}, which must be percent-encoded in a path",
            char::from(b)
        )),
        None => Ok(()),
    }
}

fn regex(text: &str, bytes_max: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(format!("must have 1 to {bytes_max} bytes"));
    }
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(REGEX_COMPILED_BYTES_MAX)
        .build()
        .map(drop)
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the expression takes more than {REGEX_COMPILED_BYTES_MAX} bytes compiled")
            }
            // The library draws the place over several lines; the last one says what is wrong.
            other => {
                let drawn = other.to_string();
                let what = drawn.lines().last().unwrap_or_default();
                format!(
                    "no regular expression: {}",
                    what.trim_start_matches("error: ")
                )
            }
        })
}

fn headers(field: &Field<'_>) -> Vec<ValueMatch> {
    let items = field.sequence(HEADERS_MAX);
    let read = items.iter().filter_map(|item| {
        let matched = value_match(item, header_name)?;
        Some(ValueMatch {
            name: matched.name.to_ascii_lowercase(),
            ..matched
        })
    });
    first_of_each(read)
}

fn query(field: &Field<'_>) -> Vec<ValueMatch> {
    let name = |name: &str| {
        let fine = (1..=256).contains(&name.len());
        fine.then_some(())
            .ok_or_else(|| "must have 1 to 256 bytes".to_owned())
    };
    let items = field.sequence(HEADERS_MAX);
    first_of_each(items.iter().filter_map(|item| value_match(item, name)))
}

/// Gateway API: of those with one name only the first counts.
fn first_of_each(matches: impl Iterator<Item = ValueMatch>) -> Vec<ValueMatch> {
    let mut kept: Vec<ValueMatch> = Vec::new();
    for one in matches {
        if !kept.iter().any(|other| other.name == one.name) {
            kept.push(one);
        }
    }
    kept
}

fn value_match(
    item: &Field<'_>,
    check_name: impl Fn(&str) -> Result<(), String>,
) -> Option<ValueMatch> {
    let mut fields = item.mapping()?;
    let kind = match fields.take("type") {
        Some(kind) => kind.checked(one_of(&["Exact", "RegularExpression"])),
        None => Some("Exact".to_owned()),
    };
    let name = fields
        .require("name")
        .and_then(|field| field.checked(check_name));
    let value = fields.require("value");
    fields.finish();
    let (kind, value) = (kind?, value?);
    let value = if kind == "Exact" {
        TextMatch::Exact(value.checked(header_value)?)
    } else {
        TextMatch::Regex(value.checked(|text| regex(text, VALUE_BYTES_MAX))?)
    };
    Some(ValueMatch { name: name?, value })
}

pub(in crate::resource) fn header_name(name: &str) -> Result<(), String> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) if name.len() <= 256 => Ok(()),
        _ => Err(format!("{name:?} is no header name")),
    }
}

pub(super) fn header_value(text: &str) -> Result<(), String> {
    let fine =
        (1..=VALUE_BYTES_MAX).contains(&text.len()) && http::HeaderValue::from_str(text).is_ok();
    fine.then_some(())
        .ok_or_else(|| format!("must have 1 to {VALUE_BYTES_MAX} visible characters"))
}
