//! What the admin port tells of the identity.

use std::sync::PoisonError;

use serde::Serialize;

use super::Identity;

/// The identity now.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Absent until a certificate was issued.
    spiffe_id: Option<String>,
    instance: String,
    trust_domain: String,
    /// Seconds since 1970.
    not_after: Option<i64>,
    ready: bool,
    generation: u64,
    trust_bundle_roots: usize,
    /// Why the last try to get a certificate failed; absent after one that did not.
    last_error: Option<String>,
}

impl Status {
    pub(super) fn of(identity: &Identity) -> Self {
        let shared = &identity.shared;
        let last_error = shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Self {
            spiffe_id: identity.spiffe_id().map(|id| id.to_string()),
            instance: identity.instance().to_string(),
            trust_domain: identity.trust_domain().to_owned(),
            not_after: identity.not_after(),
            ready: identity.ready(),
            generation: identity.generation(),
            trust_bundle_roots: shared.bundle.load().certificates().len(),
            last_error: last_error.clone(),
        }
    }
}
