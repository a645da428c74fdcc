//! Which requests something is about.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::RandomState;
use weft_proto::spiffe::SpiffeId;

use crate::model::{Caller, RateLimitKey, RequestHead, RequestSelector};
use crate::route;

/// A request, with what is known of who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    pub head: &'r RequestHead,
    /// Proven by a certificate; nobody for plaintext.
    pub caller: Option<&'r SpiffeId>,
    /// The route by which the caller's sidecar sent it, as that says.
    pub route: Option<&'r str>,
}

impl Asked<'_> {
    /// Whether all of what a selector names holds.
    pub fn is_selected(&self, selector: &RequestSelector) -> bool {
        let RequestSelector {
            callers,
            routes,
            matches,
        } = selector;
        let is_caller = |known: &Caller| {
            let account = known.service_account.as_deref();
            self.caller.is_some_and(|caller| {
                caller.namespace() == known.namespace
                    && account.is_none_or(|account| account == caller.service_account())
            })
        };
        let has_route = || {
            self.route
                .is_some_and(|route| routes.iter().any(|known| known == route))
        };
        (callers.is_empty() || callers.iter().any(is_caller))
            && (routes.is_empty() || has_route())
            && matches
                .as_ref()
                .is_none_or(|matches| route::matches(matches, self.head))
    }

    /// The value of a part of a key; nothing where the request has none.
    pub fn value(&self, part: &RateLimitKey) -> Option<String> {
        match part {
            RateLimitKey::Caller => Some(self.caller?.to_string()),
            RateLimitKey::Route => Some(self.route?.to_owned()),
            RateLimitKey::Header(name) => {
                let value = self.head.headers.get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
        }
    }

    /// A hash of the values of a key, which nobody outside can foresee.
    pub(super) fn key_hash(&self, key: &[RateLimitKey], seeded: &RandomState) -> Option<u64> {
        let mut hasher = seeded.build_hasher();
        for part in key {
            self.value(part)?.hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}
