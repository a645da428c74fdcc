//! Reading timeouts, retries and session persistence.

use std::time::Duration;

use super::super::fields::Field;
use super::super::names;
use super::matches::one_of;
use super::{RETRY_CODES_MAX, Retry, SessionPersistence, Timeouts, duration};

/// Bytes of a session's name; a longer one is refused (Gateway API's limit).
const SESSION_NAME_BYTES_MAX: usize = 128;

pub(super) fn timeouts(field: &Field<'_>) -> Timeouts {
    let Some(mut fields) = field.mapping() else {
        return Timeouts::default();
    };
    let request = fields
        .take("request")
        .and_then(|field| duration::read(&field));
    let backend_request = fields.take("backendRequest");
    let backend = backend_request.as_ref().and_then(duration::read);
    fields.finish();
    // 0 means no limit, as Gateway API has it.
    let limit = |duration: Option<Duration>| duration.filter(|duration| !duration.is_zero());
    let timeouts = Timeouts {
        request: limit(request),
        backend_request: limit(backend),
    };
    if let (Some(request), Some(backend), Some(field)) =
        (timeouts.request, timeouts.backend_request, backend_request)
        && backend > request
    {
        field.problem("longer than the request's own timeout, which would always come first");
    }
    timeouts
}

pub(super) fn retry(field: &Field<'_>) -> Option<Retry> {
    let mut fields = field.mapping()?;
    let codes = fields
        .take("codes")
        .map(|field| field.sequence(RETRY_CODES_MAX));
    let codes = codes.unwrap_or_default();
    let codes = codes.iter().filter_map(|code| code.integer(400..=599));
    let codes = codes.filter_map(|code| u16::try_from(code).ok()).collect();
    let attempts = fields.take("attempts");
    let attempts = attempts.and_then(|field| field.integer(0..=i64::from(i32::MAX)));
    let backoff = fields
        .take("backoff")
        .and_then(|field| duration::read(&field));
    fields.finish();
    Some(Retry {
        codes,
        attempts: attempts.and_then(|attempts| u32::try_from(attempts).ok()),
        backoff,
    })
}

/// Reads a `sessionPersistence`, of a rule or of a policy.
pub(in crate::resource) fn session_persistence(field: &Field<'_>) -> Option<SessionPersistence> {
    let mut fields = field.mapping()?;
    let session_name = fields.take("sessionName");
    let session_name = session_name
        .and_then(|field| field.checked(|name| names::token(name, SESSION_NAME_BYTES_MAX)));
    let by_header = match fields.take("type") {
        Some(kind) => kind.checked(one_of(&["Cookie", "Header"]))? == "Header",
        None => false,
    };
    let absolute_timeout = fields
        .take("absoluteTimeout")
        .and_then(|field| duration::read(&field));
    let idle_timeout = fields
        .take("idleTimeout")
        .and_then(|field| duration::read(&field));
    let cookie = fields.take("cookieConfig");
    fields.finish();
    let mut permanent = false;
    if let Some(cookie) = &cookie {
        let mut fields = cookie.mapping()?;
        if let Some(kind) = fields.take("lifetimeType") {
            permanent = kind.checked(one_of(&["Session", "Permanent"]))? == "Permanent";
        }
        fields.finish();
        if by_header {
            cookie.problem("means nothing where the session is kept by a header");
        }
    }
    if permanent && absolute_timeout.is_none() {
        field.problem("a permanent cookie needs absoluteTimeout");
    }
    Some(SessionPersistence {
        session_name,
        by_header,
        absolute_timeout,
        idle_timeout,
        permanent,
    })
}
