//! The state behind the lock: the mesh, the topics and the connected proxies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tokio::time::Instant;
use weft_proto::spiffe::SpiffeId;

use super::attached::Attached;
use super::losses::Losses;
use super::session::{Ended, Hello, Outgoing, Rejection};
use super::topics::{Published, SessionId, Topics};
use super::view::TimedEntry;
use super::{Encode, SETTLE_TIME};
use crate::compile::{Affected, Mesh, Name, status};
use crate::registry::{InvalidWorkload, Workload};
use crate::resource::{Key, Resource};

/// Connected proxies. A further one is refused, and tries again.
pub const PROXIES_MAX: usize = 10_000;
/// Resources that one proxy subscribes to. One that asks for more is disconnected with the reason.
pub const SUBSCRIPTIONS_MAX: usize = 50_000;

/// Why a proxy isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachRefused {
    #[error("{PROXIES_MAX} proxies are connected, which is the most that this control plane takes")]
    TooManyProxies,
    #[error("instance {instance} is a workload of {owner}")]
    InstanceTaken { instance: Arc<str>, owner: SpiffeId },
    #[error(transparent)]
    Workload(#[from] InvalidWorkload),
    #[error(transparent)]
    Subscribe(#[from] SubscribeRefused),
}

/// Why a subscription isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a proxy can subscribe to {SUBSCRIPTIONS_MAX} resources, and no more")]
pub struct SubscribeRefused;

pub struct State {
    pub mesh: Mesh,
    pub topics: Topics,
    pub sessions: BTreeMap<SessionId, Attached>,
    pub by_instance: HashMap<Arc<str>, SessionId>,
    pub statuses: HashMap<Key, Vec<TimedEntry>>,
    /// Until then what would take endpoints away is held back.
    pub settling_until: Option<Instant>,
    losses: Losses,
    sessions_opened: u64,
}

impl State {
    pub fn new(mesh: Mesh, settling_until: Instant) -> Self {
        Self {
            mesh,
            topics: Topics::default(),
            sessions: BTreeMap::new(),
            by_instance: HashMap::new(),
            statuses: HashMap::new(),
            settling_until: Some(settling_until),
            losses: Losses::default(),
            sessions_opened: 0,
        }
    }

    /// Takes a proxy in. An older connection of the same instance is closed: a proxy knows better
    /// than a socket that has not timed out yet.
    pub fn attach(&mut self, hello: Hello, encode: Encode) -> Result<SessionId, AttachRefused> {
        let workload = Arc::new(hello.workload);
        workload.validate()?;
        if hello.known.len() > SUBSCRIPTIONS_MAX {
            return Err(SubscribeRefused.into());
        }
        let instance = workload.instance.clone();
        if let Some(before) = self.mesh.workloads.get(&instance)
            && before.spiffe_id != workload.spiffe_id
        {
            return Err(AttachRefused::InstanceTaken {
                instance,
                owner: before.spiffe_id.clone(),
            });
        }
        match self.by_instance.get(&instance).copied() {
            Some(older) => self.replace(older),
            None if self.sessions.len() >= PROXIES_MAX => {
                return Err(AttachRefused::TooManyProxies);
            }
            None => {}
        }
        self.sessions_opened += 1;
        let id = self.sessions_opened;
        let attached = Attached::new(
            &workload,
            hello.proxy_version,
            hello.certificate_not_after,
            hello.takes_changes,
        );
        self.sessions.insert(id, attached);
        self.by_instance.insert(instance, id);
        self.set_workload(workload);
        for (name, version) in hello.known {
            self.subscribe_one(id, name, Some(version), encode);
        }
        Ok(id)
    }

    /// Closes a session, whose workload stays: its newer connection has it now.
    fn replace(&mut self, id: SessionId) {
        if let Some(attached) = self.sessions.get_mut(&id) {
            attached.replaced = true;
            attached.wake.notify_one();
        }
        self.drop_subscriptions(id);
    }

    /// Forgets a proxy, and withdraws its workload unless a newer connection has it.
    pub fn detach(&mut self, id: SessionId) {
        self.drop_subscriptions(id);
        let Some(attached) = self.sessions.remove(&id) else {
            return;
        };
        if self.by_instance.get(&attached.instance) != Some(&id) {
            return;
        }
        self.by_instance.remove(&attached.instance);
        if let Some(before) = self.mesh.workloads.remove(&attached.instance) {
            let now = Instant::now();
            if !before.draining && self.losses.record(self.sessions.len() + 1, now) {
                tracing::warn!(
                    "most proxies lost their connection at once; their endpoints are held"
                );
                self.settling_until = Some(now + SETTLE_TIME);
            }
            let affected = self.mesh.catalog.touched_by(&before);
            self.topics.touch(&affected, 0);
        }
    }

    fn drop_subscriptions(&mut self, id: SessionId) {
        let Some(attached) = self.sessions.get_mut(&id) else {
            return;
        };
        attached.due.clear();
        for (name, _) in attached.subscribed.drain() {
            self.topics.unsubscribe(&name, id);
        }
    }

    /// Changes the workload of a session, if it is still that session's.
    pub fn change_workload(&mut self, id: SessionId, change: impl FnOnce(&mut Workload)) {
        let Some(attached) = self.sessions.get(&id) else {
            return;
        };
        if self.by_instance.get(&attached.instance) != Some(&id) {
            return;
        }
        if let Some(workload) = self.mesh.workloads.get(&attached.instance) {
            let mut changed = Workload::clone(workload);
            change(&mut changed);
            if changed != **workload {
                self.set_workload(Arc::new(changed));
            }
        }
    }

    fn set_workload(&mut self, workload: Arc<Workload>) {
        let mut affected = self.mesh.catalog.touched_by(&workload);
        if let Some(before) = self.mesh.workloads.insert(workload) {
            affected.extend(self.mesh.catalog.touched_by(&before));
        }
        self.topics.touch(&affected, 0);
    }

    pub fn subscribe(
        &mut self,
        id: SessionId,
        names: Vec<Name>,
        encode: Encode,
    ) -> Result<(), SubscribeRefused> {
        for name in names {
            let Some(attached) = self.sessions.get(&id) else {
                return Ok(());
            };
            if attached.replaced {
                return Ok(());
            }
            if attached.subscribed.len() >= SUBSCRIPTIONS_MAX {
                return Err(SubscribeRefused);
            }
            self.subscribe_one(id, name, None, encode);
        }
        Ok(())
    }

    fn subscribe_one(
        &mut self,
        id: SessionId,
        name: Name,
        known: Option<Arc<str>>,
        encode: Encode,
    ) {
        let Some(attached) = self.sessions.get_mut(&id) else {
            return;
        };
        let topic = self.topics.subscribe(&name, id, &self.mesh, encode);
        let published = topic.published.as_ref();
        let held = published.filter(|published| Some(&published.version) == known.as_ref());
        let base = held.and_then(Published::as_base);
        attached.subscribe(name, known, base);
    }

    pub fn unsubscribe(&mut self, id: SessionId, names: &[Name]) {
        let Some(attached) = self.sessions.get_mut(&id) else {
            return;
        };
        for name in names {
            if attached.subscribed.remove(name).is_some() {
                attached.due.remove(name);
                self.topics.unsubscribe(name, id);
            }
        }
    }

    /// What is to be sent to a proxy now, if anything is.
    pub fn next(&mut self, id: SessionId, encode: Encode) -> Result<Option<Outgoing>, Ended> {
        let settling = self.settling_until.is_some();
        let attached = self.sessions.get_mut(&id).ok_or(Ended::Replaced)?;
        attached.next(&mut self.topics, settling, encode)
    }

    /// Takes a proxy's answer to a push in.
    pub fn acknowledge(
        &mut self,
        id: SessionId,
        nonce: u64,
        rejections: Vec<Rejection>,
    ) -> Result<Vec<Instant>, Ended> {
        let attached = self.sessions.get_mut(&id).ok_or(Ended::Replaced)?;
        attached.acknowledge(nonce, rejections)
    }

    /// Takes a change of the store in.
    pub fn set_document(&mut self, key: &Key, after: Option<&Resource>, revision: u64) {
        let Mesh {
            catalog, workloads, ..
        } = &mut self.mesh;
        let affected = catalog.set(key, after, workloads);
        self.topics.touch(&affected, revision);
        self.refresh_statuses(&affected);
    }

    pub fn set_roots(&mut self, roots: Vec<CertificateDer<'static>>) {
        self.mesh.roots = roots;
        let name = Name::TrustBundle(self.mesh.trust_domain.clone());
        self.topics.touch_name(name, 0);
    }

    fn refresh_statuses(&mut self, affected: &Affected) {
        let now = SystemTime::now();
        for name in &affected.statuses {
            match status(&self.mesh.catalog, name) {
                Some(status) => {
                    let before = self.statuses.remove(name).unwrap_or_default();
                    let timed = TimedEntry::carry_over(status, &before, now);
                    self.statuses.insert(name.clone(), timed);
                }
                None => {
                    self.statuses.remove(name);
                }
            }
        }
    }

    /// Compiles what was touched and tells who subscribes to what changed.
    pub fn refresh(&mut self, encode: Encode) {
        let changed = self.topics.refresh(&self.mesh, encode);
        let mut woken = BTreeSet::new();
        for name in changed {
            let subscribers = self.topics.get(&name).map(|topic| &topic.subscribers);
            for id in subscribers.into_iter().flatten() {
                if let Some(attached) = self.sessions.get_mut(id) {
                    attached.due.insert(name.clone());
                    woken.insert(*id);
                }
            }
        }
        for id in woken {
            if let Some(attached) = self.sessions.get(&id) {
                attached.wake.notify_one();
            }
        }
    }

    /// Ends the time in which endpoints are held back, once it is over.
    pub fn settle(&mut self, now: Instant) {
        if self.settling_until.is_some_and(|until| until <= now) {
            self.settling_until = None;
            for attached in self.sessions.values() {
                attached.wake.notify_one();
            }
        }
    }
}
