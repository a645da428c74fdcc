//! What operators see of the connected proxies and of routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attached::{Held, Rejected};
use super::topics::Topic;
use super::{Question, Subscriptions};
use crate::compile::{Condition, StatusEntry, Subject};
use crate::registry::Workload;
use crate::resource::Key;

/// How long a proxy may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connected proxy.
#[derive(Clone, Debug)]
pub struct ProxyView {
    pub workload: Arc<Workload>,
    pub proxy: String,
    pub proxy_version: String,
    pub connected_at: SystemTime,
    pub certificate_not_after: SystemTime,
    pub synced: usize,
    pub pending: usize,
    pub rejected: Vec<RejectedView>,
}

/// A resource that a proxy can't take.
#[derive(Clone, Debug)]
pub struct RejectedView {
    /// `TYPE NAME`
    pub resource: String,
    pub version: String,
    pub field: String,
    pub reason: String,
}

/// A condition and since when it is as it is.
#[derive(Clone, Debug)]
pub struct TimedCondition {
    pub condition: Condition,
    pub last_transition: SystemTime,
}

/// What a parent says of a route, or an ancestor of a policy.
#[derive(Clone, Debug)]
pub struct TimedEntry {
    pub subject: Subject,
    pub conditions: Vec<TimedCondition>,
}

impl TimedEntry {
    /// Gives each condition the time since which it is true, or isn't.
    pub fn carry_over(
        status: Vec<StatusEntry>,
        before: &[TimedEntry],
        now: SystemTime,
    ) -> Vec<Self> {
        let timed = |subject: &Subject, condition: Condition| {
            let older = before.iter().filter(|older| older.subject == *subject);
            let same = older
                .flat_map(|older| &older.conditions)
                .find(|older| older.condition.kind == condition.kind)
                .filter(|older| older.condition.is_true == condition.is_true);
            TimedCondition {
                last_transition: same.map_or(now, |older| older.last_transition),
                condition,
            }
        };
        let entries = status.into_iter().map(|status| TimedEntry {
            conditions: status
                .conditions
                .into_iter()
                .map(|condition| timed(&status.subject, condition))
                .collect(),
            subject: status.subject,
        });
        entries.collect()
    }
}

/// How far a proxy is with one resource.
pub(super) enum Sync<'a> {
    Synced,
    Pending,
    Rejected(&'a Rejected),
}

pub(super) fn sync_of<'a>(held: &'a Held, topic: Option<&Topic>) -> Sync<'a> {
    let generation = topic.map_or(0, |topic| topic.generation);
    match &held.rejected {
        _ if held.settled < generation => Sync::Pending,
        Some(rejected) => Sync::Rejected(rejected),
        None => Sync::Synced,
    }
}

impl Subscriptions {
    /// Every connected proxy, ordered by name and instance.
    pub fn proxies(&self) -> Vec<ProxyView> {
        let state = self.shared.lock();
        let mut views = BTreeMap::new();
        for attached in state
            .sessions
            .values()
            .filter(|attached| !attached.replaced)
        {
            let Some(workload) = state.mesh.workloads.get(&attached.instance) else {
                continue;
            };
            let mut view = ProxyView {
                workload: workload.clone(),
                proxy: attached.proxy.clone(),
                proxy_version: attached.proxy_version.clone(),
                connected_at: attached.connected_at,
                certificate_not_after: attached.certificate_not_after,
                synced: 0,
                pending: 0,
                rejected: Vec::new(),
            };
            for (name, held) in &attached.subscribed {
                match sync_of(held, state.topics.get(name)) {
                    Sync::Synced => view.synced += 1,
                    Sync::Pending => view.pending += 1,
                    Sync::Rejected(rejected) => view.rejected.push(RejectedView {
                        resource: name.to_string(),
                        version: rejected.version.to_string(),
                        field: rejected.field.clone(),
                        reason: rejected.reason.clone(),
                    }),
                }
            }
            view.rejected.sort_by(|a, b| a.resource.cmp(&b.resource));
            views.insert((view.proxy.clone(), attached.instance.clone()), view);
        }
        views.into_values().collect()
    }

    /// Asks a live proxy, by `NAMESPACE/WORKLOAD` or by instance.
    pub async fn ask(&self, proxy: &str, question: Question) -> Result<String, String> {
        let answer = {
            let mut state = self.shared.lock();
            let mut found = state.sessions.values_mut().filter(|attached| {
                !attached.replaced && (attached.proxy == proxy || &*attached.instance == proxy)
            });
            let first = found.next().ok_or_else(|| {
                format!("no proxy {proxy} is connected; `weft proxies` lists those that are")
            })?;
            if let Some(second) = found.next() {
                return Err(format!(
                    "several proxies are called {proxy}; name one by its instance, such as {} or {}",
                    first.instance, second.instance
                ));
            }
            let asked = first.ask(question);
            asked.ok_or_else(|| format!("{proxy} has too many questions to answer already"))?
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(format!("{proxy} disconnected before it answered")),
            Err(_) => Err(format!("{proxy} did not answer within {ANSWER_TIMEOUT:?}")),
        }
    }

    /// The conditions of a route or a policy; none of any other document.
    pub fn status(&self, name: &Key) -> Vec<TimedEntry> {
        let state = self.shared.lock();
        state.statuses.get(name).cloned().unwrap_or_default()
    }

    /// Every connected workload, ordered by instance.
    pub fn workloads(&self) -> Vec<Arc<Workload>> {
        let state = self.shared.lock();
        state.mesh.workloads.iter().cloned().collect()
    }
}
