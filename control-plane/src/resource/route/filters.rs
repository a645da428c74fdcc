//! Reading filters.

use weft_proto::fields::is_proxy_field;

use super::super::fields::{Field, Fields};
use super::super::names;
use super::matches::{header_name, header_value, one_of, plain_path};
use super::{
    CORS_LIST_MAX, Cors, FILTERS_MAX, Filter, HeaderModifier, MODIFIED_MAX, PathModifier,
    RequestMirror, RequestRedirect, RouteKind, UrlRewrite, backend,
};

/// A filter's type and the field that has what it says.
const HTTP_FILTERS: [(&str, &str); 6] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("RequestMirror", "requestMirror"),
    ("CORS", "cors"),
];

/// Seconds that a browser may remember a preflight's answer where the document doesn't say.
const MAX_AGE_DEFAULT: i64 = 5;

/// Reads `filters`.
pub(super) fn filters(field: &Field<'_>, kind: RouteKind, namespace: &str) -> Vec<Filter> {
    let mut filters: Vec<Filter> = Vec::new();
    for item in &field.sequence(FILTERS_MAX) {
        let Some(filter) = filter(item, kind, namespace) else {
            continue;
        };
        let may_repeat = matches!(filter, Filter::RequestMirror(_));
        let same = |other: &Filter| other.type_name() == filter.type_name();
        if !may_repeat && filters.iter().any(same) {
            item.problem(format!("{} is there twice", filter.type_name()));
        }
        filters.push(filter);
    }
    let has = |name| filters.iter().any(|filter| filter.type_name() == name);
    if has("RequestRedirect") && has("URLRewrite") {
        field.problem("RequestRedirect and URLRewrite exclude each other");
    }
    filters
}

impl Filter {
    /// As a document writes it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::RequestHeaderModifier(_) => "RequestHeaderModifier",
            Self::ResponseHeaderModifier(_) => "ResponseHeaderModifier",
            Self::RequestRedirect(_) => "RequestRedirect",
            Self::UrlRewrite(_) => "URLRewrite",
            Self::RequestMirror(_) => "RequestMirror",
            Self::Cors(_) => "CORS",
        }
    }
}

fn filter(item: &Field<'_>, kind: RouteKind, namespace: &str) -> Option<Filter> {
    let mut fields = item.mapping()?;
    let known = |(name, _): &&(&str, &str)| {
        kind == RouteKind::Http || name.contains("HeaderModifier") || *name == "RequestMirror"
    };
    let served: Vec<&(&str, &str)> = HTTP_FILTERS.iter().filter(known).collect();
    let names: Vec<&str> = served.iter().map(|(name, _)| *name).collect();
    let named = fields.require("type").and_then(|field| {
        field.checked(|name| match name {
            "ExtensionRef" | "ExternalAuth" => Err(format!(
                "{name} is no filter of weft: there is nothing that it could refer to"
            )),
            name => one_of(&names)(name),
        })
    });
    let Some(named) = named else {
        // What belongs to a type that is unknown can't be read.
        fields.ignore(&["extensionRef", "externalAuth"]);
        fields.ignore(&HTTP_FILTERS.map(|(_, field)| field));
        fields.finish();
        return None;
    };
    let (_, own) = served.iter().find(|(name, _)| *name == named)?;
    let body = fields.require(own);
    fields.finish();
    let body = body?;
    match named.as_str() {
        "RequestHeaderModifier" => header_modifier(&body).map(Filter::RequestHeaderModifier),
        "ResponseHeaderModifier" => header_modifier(&body).map(Filter::ResponseHeaderModifier),
        "RequestRedirect" => redirect(&body).map(Filter::RequestRedirect),
        "URLRewrite" => rewrite(&body).map(Filter::UrlRewrite),
        "RequestMirror" => mirror(&body, namespace).map(Filter::RequestMirror),
        _ => cors(&body).map(Filter::Cors),
    }
}

fn modifiable(name: &str) -> Result<(), String> {
    header_name(name)?;
    let lower = name.to_ascii_lowercase();
    if lower == "host" {
        return Err("the host is changed by URLRewrite's hostname".to_owned());
    }
    if is_proxy_field(&lower) {
        return Err(format!("{name:?} is the proxy's own and can't be changed"));
    }
    Ok(())
}

fn header_modifier(field: &Field<'_>) -> Option<HeaderModifier> {
    let mut fields = field.mapping()?;
    let mut seen: Vec<String> = Vec::new();
    let mut once = |item: &Field<'_>, name: &str| {
        let lower = name.to_ascii_lowercase();
        if seen.contains(&lower) {
            item.problem(format!("{name:?} is there twice"));
        }
        seen.push(lower);
    };
    let mut lines = |fields: &mut Fields<'_>, name: &str| -> Vec<(String, String)> {
        let items = fields.take(name).map(|field| field.sequence(MODIFIED_MAX));
        let items = items.unwrap_or_default();
        let read = items.iter().filter_map(|item| {
            let mut line = item.mapping()?;
            let name = line
                .require("name")
                .and_then(|field| field.checked(modifiable));
            let value = line
                .require("value")
                .and_then(|field| field.checked(header_value));
            line.finish();
            let name = name?;
            once(item, &name);
            Some((name, value?))
        });
        read.collect()
    };
    let (set, add) = (lines(&mut fields, "set"), lines(&mut fields, "add"));
    let items = fields
        .take("remove")
        .map(|field| field.sequence(MODIFIED_MAX));
    let items = items.unwrap_or_default();
    let remove = items.iter().filter_map(|item| {
        let name = item.checked(modifiable)?;
        once(item, &name);
        Some(name)
    });
    let remove = remove.collect();
    fields.finish();
    Some(HeaderModifier { set, add, remove })
}

fn redirect(field: &Field<'_>) -> Option<RequestRedirect> {
    let mut fields = field.mapping()?;
    let scheme = fields
        .take("scheme")
        .and_then(|field| field.checked(one_of(&["http", "https"])));
    let hostname = precise_hostname(&mut fields);
    let path = fields.take("path").and_then(|field| path_modifier(&field));
    let port = fields.take("port").and_then(|field| field.port());
    let status = match fields.take("statusCode") {
        Some(field) => {
            let code = field.integer(100..=599)?;
            if ![301, 302, 303, 307, 308].contains(&code) {
                field.problem(format!("{code} is none of 301, 302, 303, 307, 308"));
            }
            code
        }
        None => 302,
    };
    fields.finish();
    Some(RequestRedirect {
        scheme,
        hostname,
        path,
        port,
        status_code: u16::try_from(status).ok()?,
    })
}

fn rewrite(field: &Field<'_>) -> Option<UrlRewrite> {
    let mut fields = field.mapping()?;
    let hostname = precise_hostname(&mut fields);
    let path = fields.take("path").and_then(|field| path_modifier(&field));
    fields.finish();
    Some(UrlRewrite { hostname, path })
}

fn precise_hostname(fields: &mut Fields<'_>) -> Option<String> {
    fields.take("hostname")?.checked(names::precise_hostname)
}

fn path_modifier(field: &Field<'_>) -> Option<PathModifier> {
    let mut fields = field.mapping()?;
    let kind = fields
        .require("type")
        .and_then(|field| field.checked(one_of(&["ReplaceFullPath", "ReplacePrefixMatch"])));
    let replacement = |path: &str| match path {
        "" => Ok(()),
        path => plain_path(path),
    };
    let own = match kind.as_deref() {
        Some("ReplaceFullPath") => "replaceFullPath",
        _ => "replacePrefixMatch",
    };
    let path = fields
        .require(own)
        .and_then(|field| field.checked(replacement));
    fields.finish();
    Some(match kind?.as_str() {
        "ReplaceFullPath" => PathModifier::Full(path?),
        _ => PathModifier::Prefix(path?),
    })
}

fn mirror(field: &Field<'_>, namespace: &str) -> Option<RequestMirror> {
    let mut fields = field.mapping()?;
    let to = fields.require("backendRef");
    let percent = fields.take("percent");
    let fraction = fields.take("fraction");
    fields.finish();
    if let (Some(_), Some(fraction)) = (&percent, &fraction) {
        fraction.problem("percent and fraction exclude each other");
    }
    let (numerator, denominator) = match (percent, fraction) {
        (Some(percent), _) => (percent.integer(0..=100)?, 100),
        (None, Some(fraction)) => share(&fraction)?,
        (None, None) => (100, 100),
    };
    let mut to = to?.mapping()?;
    let backend = backend::backend(&mut to, namespace);
    to.finish();
    Some(RequestMirror {
        backend: backend?,
        numerator: u32::try_from(numerator).ok()?,
        denominator: u32::try_from(denominator).ok()?,
    })
}

fn share(field: &Field<'_>) -> Option<(i64, i64)> {
    let mut fields = field.mapping()?;
    let numerator = fields.require("numerator");
    let denominator = fields.take("denominator");
    fields.finish();
    let denominator = match denominator {
        Some(field) => field.integer(1..=i64::from(i32::MAX))?,
        None => 100,
    };
    Some((numerator?.integer(0..=denominator)?, denominator))
}

fn cors(field: &Field<'_>) -> Option<Cors> {
    let mut fields = field.mapping()?;
    let mut list = |name: &str, check: fn(&str) -> Result<(), String>| -> Vec<String> {
        let Some(field) = fields.take(name) else {
            return Vec::new();
        };
        let items = field.sequence(CORS_LIST_MAX);
        let list: Vec<String> = items
            .iter()
            .filter_map(|item| item.checked(check))
            .collect();
        if list.len() > 1 && list.iter().any(|value| value == "*") {
            field.problem("\"*\" means all and can't stand beside others");
        }
        list
    };
    let allow_origins = list("allowOrigins", origin);
    let allow_methods = list("allowMethods", |method| match method {
        "*" => Ok(()),
        method => method
            .parse::<http::Method>()
            .map(drop)
            .map_err(|_| format!("{method:?} is no method")),
    });
    let header = |name: &str| {
        if name == "*" {
            Ok(())
        } else {
            header_name(name)
        }
    };
    let allow_headers = list("allowHeaders", header);
    let expose_headers = list("exposeHeaders", header);
    let allow_credentials = match fields.take("allowCredentials") {
        Some(field) => field.boolean()?,
        None => false,
    };
    let max_age = match fields.take("maxAge") {
        Some(field) => field.integer(1..=i64::from(i32::MAX))?,
        None => MAX_AGE_DEFAULT,
    };
    fields.finish();
    Some(Cors {
        allow_origins,
        allow_credentials,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age_seconds: u32::try_from(max_age).ok()?,
    })
}

/// `*`, or `SCHEME://HOST[:PORT]` where the host's first label may be a star.
fn origin(origin: &str) -> Result<(), String> {
    if origin == "*" {
        return Ok(());
    }
    let wrong = || format!("{origin:?} is no origin: SCHEME://HOST[:PORT], or *");
    let (scheme, rest) = origin.split_once("://").ok_or_else(wrong)?;
    let (host, port) = rest
        .split_once(':')
        .map_or((rest, None), |(h, p)| (h, Some(p)));
    let is_word = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let host = host.strip_prefix("*.").unwrap_or(host).to_ascii_lowercase();
    let is_host = names::subdomain(&host).is_ok();
    (is_word && is_port && is_host)
        .then_some(())
        .ok_or_else(wrong)
}
