//! Waiting until the proxies have what a change brought.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Subscriptions;
use super::state::State;
use super::topics::SessionId;
use crate::compile::Name;

/// The least time between two looks at who still lags.
const LOOK_TIME: Duration = Duration::from_millis(5);

/// A proxy that doesn't have a resource as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lag {
    pub proxy: String,
    /// `TYPE NAME`
    pub resource: String,
    pub reason: String,
}

/// How far the proxies are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Proxies that have everything that the change brought them.
    pub acknowledged: usize,
    pub waiting: BTreeSet<Lag>,
    pub rejected: BTreeSet<Lag>,
}

struct Target {
    session: SessionId,
    name: Name,
    generation: u64,
}

/// How long a reader waits for the dispatcher; it is late only where it has much to do.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

impl Subscriptions {
    /// Waits until everything that was applied so far is taken in.
    pub async fn catch_up(&self) {
        let _ = tokio::time::timeout(CATCH_UP_MAX, self.next_round()).await;
    }

    /// Waits for the end of a round that has not begun yet: it takes in everything before it.
    async fn next_round(&self) {
        let started = self.shared.rounds_started.load(Ordering::SeqCst);
        let mut finished = self.shared.rounds_finished.subscribe();
        self.shared.touched.notify_one();
        // It fails when the sender is gone, which lives as long as `self`.
        let _ = finished.wait_for(|finished| *finished > started).await;
    }

    /// Waits until every connected proxy has answered to everything that changed up to `revision`,
    /// which must have been applied already, or until the time is over.
    pub async fn wait(&self, revision: u64, timeout: Duration) -> Waited {
        let deadline = Instant::now() + timeout;
        let _ = tokio::time::timeout_at(deadline, self.next_round()).await;
        let targets = self.shared.lock().targets(revision);
        loop {
            let progress = self.shared.progress.notified();
            let waited = self.shared.lock().judge(&targets);
            if waited.waiting.is_empty() || Instant::now() >= deadline {
                return waited;
            }
            let _ = tokio::time::timeout_at(deadline, progress).await;
            tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_TIME)).await;
        }
    }
}

impl State {
    /// What the proxies must have answered to: what the revision (or a later one) changed, and what
    /// they have not answered to yet.
    fn targets(&self, revision: u64) -> Vec<Target> {
        let mut targets = Vec::new();
        for (session, attached) in &self.sessions {
            for (name, held) in &attached.subscribed {
                let Some(topic) = self.topics.get(name) else {
                    continue;
                };
                if topic.revision >= revision || held.settled < topic.generation {
                    targets.push(Target {
                        session: *session,
                        name: name.clone(),
                        generation: topic.generation,
                    });
                }
            }
        }
        targets
    }

    fn judge(&self, targets: &[Target]) -> Waited {
        let mut waited = Waited::default();
        let mut proxies = BTreeSet::new();
        let mut lagging = BTreeSet::new();
        for target in targets {
            // Who left, or doesn't want it any more, has nothing to acknowledge.
            let Some(attached) = self.sessions.get(&target.session) else {
                continue;
            };
            let Some(held) = attached.subscribed.get(&target.name) else {
                continue;
            };
            proxies.insert(target.session);
            let lag = |reason: String| Lag {
                proxy: attached.proxy.clone(),
                resource: target.name.to_string(),
                reason,
            };
            if held.settled < target.generation {
                lagging.insert(target.session);
                waited
                    .waiting
                    .insert(lag("not acknowledged yet".to_owned()));
            } else if let Some(rejected) = &held.rejected {
                lagging.insert(target.session);
                let reason = format!("{}: {}", rejected.field, rejected.reason);
                waited.rejected.insert(lag(reason));
            }
        }
        waited.acknowledged = proxies.difference(&lagging).count();
        waited
    }
}
