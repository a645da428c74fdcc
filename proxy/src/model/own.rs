//! This proxy itself.

use std::sync::Arc;

/// What a story needs to know of this proxy's own workload.
#[derive(Clone, Debug)]
pub struct Own {
    pub namespace: Arc<str>,
    pub workload: Arc<str>,
    /// Empty when unknown.
    pub zone: Arc<str>,
    /// Every port on which this proxy itself listens: a call to one of them would be a loop.
    pub ports: Arc<[u16]>,
}
