//! Follows DNS for the external names that somebody subscribes to.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Subscriptions;
use crate::registry::{Answer, Resolver};

/// How often names are looked at for whether they are due.
const TICK: Duration = Duration::from_millis(500);
/// Questions to DNS at a time; further ones wait.
const LOOKUPS_MAX: usize = 32;

impl Subscriptions {
    /// Runs for ever.
    pub async fn follow_dns(&self, resolver: &Resolver) {
        let mut lookups = FuturesUnordered::new();
        let mut waiting: Vec<String> = Vec::new();
        loop {
            waiting.extend(self.hosts_due());
            while lookups.len() < LOOKUPS_MAX
                && let Some(host) = waiting.pop()
            {
                lookups.push(async move {
                    let answer = resolver.resolve(&host).await;
                    (host, answer)
                });
            }
            tokio::select! {
                Some((host, answer)) = lookups.next() => self.record(&host, answer),
                () = self.shared.host_wanted.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn hosts_due(&self) -> Vec<String> {
        let mut state = self.shared.lock();
        let topics = &state.topics;
        let wanted = state
            .mesh
            .catalog
            .external_names()
            .filter(|(_, services)| services.iter().any(|name| topics.has_cluster_of(name)))
            .map(|(host, _)| host.clone())
            .collect();
        state.mesh.external.due(&wanted, Instant::now())
    }

    fn record(&self, host: &str, answer: Answer) {
        let mut state = self.shared.lock();
        if state.mesh.external.record(host, answer, Instant::now()) {
            let affected = state.mesh.catalog.touched_by_external(host);
            state.topics.touch(&affected, 0);
            drop(state);
            self.shared.touched.notify_one();
        }
    }
}
