//! Follows the store: takes its changes in, and has compiled what they touch.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::{Shared, Subscriptions};
use crate::store::{Change, Snapshot, Store};

/// The least time between two rounds: what changes meanwhile is compiled and pushed once.
const ROUND_TIME: Duration = Duration::from_millis(10);
/// Changes taken in one go, so that the lock is free for others in between.
const BATCH_MAX: usize = 256;

impl Subscriptions {
    /// Takes in what the store holds. To be called once before proxies are let in, and then the
    /// changes of `watch`, which must be older than the snapshot, followed.
    pub fn load(&self, snapshot: &Snapshot) {
        let mut state = self.shared.lock();
        let gone = state.mesh.catalog.keys().into_iter();
        let gone: Vec<_> = gone.filter(|key| snapshot.get(key).is_none()).collect();
        for key in gone {
            state.set_document(&key, None, snapshot.revision);
        }
        for resource in snapshot.iter() {
            state.set_document(&resource.key(), Some(resource), snapshot.revision);
        }
        state.refresh(self.shared.encode);
        self.shared
            .metrics
            .store_revision
            .set_u64(snapshot.revision);
    }

    /// Runs for as long as the store is there.
    pub async fn dispatch(&self, store: Store, mut watch: Receiver<Change>) {
        loop {
            let first = tokio::select! {
                change = watch.recv() => Some(change),
                () = self.shared.touched.notified() => None,
                () = settled(&self.shared) => None,
            };
            let round = self.shared.rounds_started.fetch_add(1, Ordering::SeqCst) + 1;
            let mut is_behind = false;
            let mut batch = Vec::new();
            match first {
                Some(Ok(change)) => batch.push(change),
                Some(Err(RecvError::Lagged(_))) => is_behind = true,
                Some(Err(RecvError::Closed)) => return,
                None => {}
            }
            while !is_behind {
                match watch.try_recv() {
                    Ok(change) => batch.push(change),
                    Err(TryRecvError::Lagged(_)) => is_behind = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
                if batch.len() >= BATCH_MAX {
                    self.take(&std::mem::take(&mut batch));
                }
            }
            if is_behind {
                tracing::warn!("too many changes at once to follow one by one; reading all again");
                watch = store.watch();
                self.load(&store.snapshot());
            } else {
                self.take(&batch);
            }
            self.refresh();
            self.shared.rounds_finished.send_replace(round);
            tokio::time::sleep(ROUND_TIME).await;
        }
    }

    fn take(&self, changes: &[Change]) {
        let mut state = self.shared.lock();
        for change in changes {
            state.set_document(&change.key, change.after.as_deref(), change.revision);
            self.shared.metrics.store_revision.set_u64(change.revision);
        }
    }

    fn refresh(&self) {
        let mut state = self.shared.lock();
        state.settle(Instant::now());
        if state.topics.is_dirty() {
            let start = Instant::now();
            state.refresh(self.shared.encode);
            self.shared.metrics.compile_seconds.observe(start.elapsed());
        }
    }
}

/// Waits for the end of the time in which endpoints are held back.
async fn settled(shared: &Shared) {
    let until = shared.lock().settling_until;
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
