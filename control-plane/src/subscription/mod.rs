//! What each connected proxy asked for, what it has, and what is due.
//!
//! [`Topics`](topics) holds every resource that somebody subscribes to, compiled and encoded once a
//! change; [`Session`] is one proxy's view of them. `dispatch` follows the store, `external` follows
//! DNS, and both only mark what a change touches. Everything is under one lock that is never held
//! over I/O, so a slow proxy delays itself alone.

mod attached;
mod dispatch;
mod external;
mod losses;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod topics;
mod view;
mod wait;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use session::{Content, Delivery, Ended, Hello, Outgoing, Question, Rejection, Session};
pub use state::{AttachRefused, PROXIES_MAX, SUBSCRIPTIONS_MAX, SubscribeRefused};
pub use view::{ProxyView, RejectedView, TimedCondition, TimedEntry};
pub use wait::{Lag, Waited};

use crate::compile::{ClusterChange, Configuration, Mesh};
use crate::telemetry::Metrics;
use state::State;

/// How long after its start the control plane holds back what would take endpoints away: proxies
/// come back within a second, and until then theirs only seem to be gone.
pub const SETTLE_TIME: Duration = Duration::from_millis(1500);

/// How what goes over the wire is turned into bytes.
#[derive(Clone, Copy, Debug)]
pub struct Encode {
    /// The body of a resource.
    pub whole: fn(&Configuration) -> Bytes,
    /// A change of one.
    pub change: fn(&ClusterChange) -> Bytes,
}

/// Everything that is subscribed to, and by whom. Cloning shares it.
#[derive(Clone)]
pub struct Subscriptions {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    encode: Encode,
    metrics: Arc<Metrics>,
    /// Something was touched: there is work for the dispatcher.
    touched: Notify,
    /// A host name may be new to DNS.
    host_wanted: Notify,
    /// A proxy answered or left: who waits should look again.
    progress: Notify,
    rounds_started: AtomicU64,
    rounds_finished: watch::Sender<u64>,
}

impl Subscriptions {
    /// Starts empty: the dispatcher fills it from the store.
    pub fn new(
        trust_domain: &str,
        roots: Vec<CertificateDer<'static>>,
        encode: Encode,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mesh = Mesh {
            trust_domain: trust_domain.to_owned(),
            roots,
            ..Mesh::default()
        };
        let shared = Shared {
            state: Mutex::new(State::new(mesh, Instant::now() + SETTLE_TIME)),
            encode,
            metrics,
            touched: Notify::new(),
            host_wanted: Notify::new(),
            progress: Notify::new(),
            rounds_started: AtomicU64::new(0),
            rounds_finished: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Puts other roots into force.
    pub fn set_roots(&self, roots: Vec<CertificateDer<'static>>) {
        self.shared.lock().set_roots(roots);
        self.shared.touched.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds this lock")
    }
}
