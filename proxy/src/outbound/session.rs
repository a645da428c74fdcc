//! Sessions that stay with their endpoint (GEP-1619). What a client brings back names the endpoint by a hash, and
//! when the session began and was used last; it is nobody's secret, and all that a client can do with one that it
//! made up is to choose its endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::SET_COOKIE;

use super::attempt::cookie;
use crate::balance::{Balancer, endpoint_hash};
use crate::model::{
    Cluster, FieldValue, RequestHead, ResponseHead, SessionCarrier, SessionPersistence,
};

/// What a client brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The hash of the endpoint's ID.
    endpoint: u64,
    /// Seconds since 1970.
    began: u64,
    /// Seconds since 1970.
    used: u64,
}

pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Session {
    /// A session that begins now, or goes on at another endpoint.
    pub(super) fn at(endpoint: &Arc<str>, before: Option<Self>, now: u64) -> Self {
        Self {
            endpoint: endpoint_hash(endpoint),
            began: before.map_or(now, |before| before.began),
            used: now,
        }
    }

    /// The session of a request, if it has one that is not over.
    pub(super) fn of(policy: &SessionPersistence, head: &RequestHead, now: u64) -> Option<Self> {
        let text = match &policy.carrier {
            SessionCarrier::Cookie => cookie(head, &policy.name)?,
            SessionCarrier::Header(name) => head.headers.get(name)?.to_str().ok()?,
        };
        let session = Self::parse(text)?;
        let is_over = |since: u64, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_sub(since) > limit.as_secs())
        };
        let over = is_over(session.began, policy.absolute_timeout)
            || is_over(session.used, policy.idle_timeout);
        (!over).then_some(session)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| u64::from_str_radix(part, 16));
        let mut next = || numbers.next()?.ok();
        let session = Self {
            endpoint: next()?,
            began: next()?,
            used: next()?,
        };
        numbers.next().is_none().then_some(session)
    }

    fn text(&self) -> String {
        let Self {
            endpoint,
            began,
            used,
        } = self;
        format!("{endpoint:016x}.{began:x}.{used:x}")
    }

    /// The endpoint of a cluster that this is a session of.
    pub(super) fn endpoint(
        &self,
        balancer: &Balancer,
        cluster: &Arc<Cluster>,
        now: Instant,
    ) -> Option<Arc<str>> {
        balancer.named(cluster, self.endpoint, now)
    }

    /// Tells the client, where there is something new to tell.
    pub(super) fn tell(
        &self,
        policy: &SessionPersistence,
        before: Option<Self>,
        head: &mut ResponseHead,
    ) {
        let moved = before.is_none_or(|before| before.endpoint != self.endpoint);
        if !moved && policy.idle_timeout.is_none() {
            return;
        }
        let (name, text) = (&policy.name, self.text());
        match &policy.carrier {
            SessionCarrier::Header(name) => {
                if let Ok(value) = FieldValue::from_text(&text) {
                    head.headers.set(name.clone(), value);
                }
            }
            SessionCarrier::Cookie => {
                let absolute = policy.absolute_timeout.filter(|_| policy.permanent);
                let age = absolute.map(|age| {
                    let passed = self.used.saturating_sub(self.began);
                    format!("; Max-Age={}", age.as_secs().saturating_sub(passed))
                });
                let age = age.unwrap_or_default();
                let cookie = format!("{name}={text}; Path=/; HttpOnly; SameSite=Lax{age}");
                if let Ok(value) = FieldValue::from_text(&cookie) {
                    head.headers.append(SET_COOKIE, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method, StatusCode, Version};

    use super::*;
    use crate::model::Fields;

    fn policy(carrier: SessionCarrier) -> SessionPersistence {
        SessionPersistence {
            name: "s".to_owned(),
            carrier,
            absolute_timeout: None,
            idle_timeout: None,
            permanent: false,
        }
    }

    fn request(name: &'static str, value: &str) -> RequestHead {
        let mut headers = Fields::new();
        let value = FieldValue::from_text(value).unwrap();
        headers.append(HeaderName::from_static(name), value);
        RequestHead {
            method: Method::GET,
            scheme: None,
            authority: None,
            path: crate::model::Text::default(),
            version: Version::HTTP_11,
            upgrade: None,
            headers,
        }
    }

    #[test]
    fn what_a_client_brings_back() {
        let check = |policy: &SessionPersistence, head: &RequestHead, at: u64, expect: bool| {
            let session = Session::of(policy, head, at);
            assert_eq!(session.is_some(), expect, "{policy:?} {head:?}");
        };
        let by_cookie = policy(SessionCarrier::Cookie);
        let header = HeaderName::from_static("x-session");
        let by_header = policy(SessionCarrier::Header(header));
        let whole = format!("{:016x}.64.c8", 7);
        check(
            &by_cookie,
            &request("cookie", &format!("a=b; s={whole}")),
            1000,
            true,
        );
        check(&by_header, &request("x-session", &whole), 1000, true);
        check(
            &by_header,
            &request("cookie", &format!("s={whole}")),
            1000,
            false,
        );
        for broken in ["", "s", "1.2", "1.2.3.4", "x.2.3", "1.2.", &"f".repeat(40)] {
            check(&by_header, &request("x-session", broken), 1000, false);
        }
        // It began at 100 and was used at 200.
        let limited = |absolute: Option<u64>, idle: Option<u64>| SessionPersistence {
            absolute_timeout: absolute.map(Duration::from_secs),
            idle_timeout: idle.map(Duration::from_secs),
            ..by_header.clone()
        };
        let head = request("x-session", &whole);
        check(&limited(Some(100), None), &head, 200, true);
        check(&limited(Some(100), None), &head, 201, false);
        check(&limited(None, Some(50)), &head, 250, true);
        check(&limited(None, Some(50)), &head, 251, false);
        // A clock that was set back ends nothing.
        check(&limited(Some(100), Some(50)), &head, 50, true);
    }

    #[test]
    fn what_a_client_is_told() {
        let check = |policy: &SessionPersistence, before: Option<Session>, expect: &str| {
            let mut head = ResponseHead {
                status: StatusCode::OK,
                version: Version::HTTP_11,
                upgrade: None,
                headers: Fields::new(),
            };
            let session = Session {
                endpoint: 7,
                began: 100,
                used: 200,
            };
            session.tell(policy, before, &mut head);
            let told = head
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
            assert_eq!(told.collect::<Vec<_>>().join("|"), expect);
        };
        let text = "0000000000000007.64.c8";
        let cookie = format!("set-cookie: s={text}; Path=/; HttpOnly; SameSite=Lax");
        let by_cookie = policy(SessionCarrier::Cookie);
        let same = Session {
            endpoint: 7,
            began: 100,
            used: 150,
        };
        check(&by_cookie, None, &cookie);
        check(&by_cookie, Some(same), "");
        check(
            &by_cookie,
            Some(Session {
                endpoint: 8,
                ..same
            }),
            &cookie,
        );
        let idle = SessionPersistence {
            idle_timeout: Some(Duration::from_secs(60)),
            ..by_cookie.clone()
        };
        check(&idle, Some(same), &cookie);
        let permanent = SessionPersistence {
            absolute_timeout: Some(Duration::from_secs(300)),
            permanent: true,
            ..by_cookie
        };
        check(&permanent, None, &format!("{cookie}; Max-Age=200"));
        let header = HeaderName::from_static("x-session");
        let by_header = policy(SessionCarrier::Header(header));
        check(&by_header, None, &format!("x-session: {text}"));
    }
}
