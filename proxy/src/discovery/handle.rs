//! What the rest of the proxy sees of discovery.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use weft_proto::v1alpha1 as wire;

use super::held::Held;
use super::publish::{Applied, Change, Resources, is_known};
use super::questions::{Question, Workers};
use super::{ApplicationPorts, dump, persist};
use crate::bootstrap::Settings;
use crate::identity::Identity;
use crate::model::{Configuration, Name};

/// How long a look-up waits for the control plane's answer.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a goodbye waits until it is on its way.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// A cheap handle; every clone sees the same configuration.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    configuration: ArcSwap<Configuration>,
    /// Where `configuration` is, for [`Handle::is_current`]: comparing takes no share of it.
    current_at: AtomicPtr<Configuration>,
    /// Held while `configuration` changes.
    resources: Mutex<Resources>,
    changed: watch::Sender<u64>,
    connected: watch::Sender<bool>,
    last_error: Mutex<Option<String>>,
    /// Wakes the stream: the subscriptions changed.
    outbox: Notify,
    farewell: watch::Sender<Farewell>,
    ports: ApplicationPorts,
    /// Who answers questions; set once, when the workers are there.
    workers: OnceLock<Workers>,
    /// Where the last good resources are kept.
    path: Option<PathBuf>,
}

/// How far the goodbye came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The workload serves.
    Staying,
    /// It drains; the stream is to say so.
    Leaving,
    /// The control plane was told.
    Said,
}

/// Why there is no answer for a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Nobody can be asked now.
    #[error("not connected to the control plane, and {0} was never asked for")]
    Disconnected(String),
    /// The control plane did not answer.
    #[error("the control plane did not answer for {0} in time")]
    Timeout(String),
    /// What it answered can't be used, and nothing older is held.
    #[error("{name} can't be used: {reason}")]
    Rejected {
        /// Of the resource.
        name: String,
        /// Field and reason.
        reason: String,
    },
}

impl Handle {
    /// Begins with what an earlier run left in the data directory. Never fails: what can't be read is
    /// put aside, and asked for again.
    pub fn open(settings: &Settings, identity: &Identity) -> Self {
        let path = settings
            .data_dir
            .as_deref()
            .map(|directory| directory.join("resources"));
        let mut resources = Resources::default();
        let mut configuration = Configuration::default();
        if let Some(path) = &path {
            persist::load(path, &mut resources, &mut configuration);
        }
        let own = [
            Name::Inbound,
            Name::TrustBundle(identity.trust_domain().into()),
        ];
        for name in &own {
            resources.want(name, &mut configuration);
        }
        let ports = ApplicationPorts::new(settings.address, settings.ports.values().copied());
        ports.poll(&configuration);
        let configuration = Arc::new(configuration);
        Self {
            shared: Arc::new(Shared {
                current_at: AtomicPtr::new(place_of(&configuration)),
                configuration: ArcSwap::new(configuration),
                resources: Mutex::new(resources),
                changed: watch::Sender::new(0),
                connected: watch::Sender::new(false),
                last_error: Mutex::new(None),
                outbox: Notify::new(),
                farewell: watch::Sender::new(Farewell::Staying),
                ports,
                workers: OnceLock::new(),
                path,
            }),
        }
    }

    /// What is in force now.
    pub fn current(&self) -> Arc<Configuration> {
        self.shared.configuration.load_full()
    }

    /// Whether this is the configuration that is in force now. Much cheaper than [`current`](Self::current), as
    /// nothing that workers share is written to. The asker holds it, so no other can be in its place.
    pub fn is_current(&self, configuration: &Arc<Configuration>) -> bool {
        self.shared.current_at.load(Ordering::Acquire) == place_of(configuration)
    }

    /// A configuration in which every name is present or absent. Asks the control plane for those
    /// that are not known yet, and fails at once when it can't.
    pub async fn resolve(&self, names: &[Name]) -> Result<Arc<Configuration>, Unavailable> {
        let mut changed = self.changed();
        let mut connected = self.shared.connected.subscribe();
        let mut asked = false;
        let answer = async {
            loop {
                changed.mark_unchanged();
                let current = self.current();
                let Some(unknown) = names.iter().find(|name| !is_known(&current, name)) else {
                    return Ok(current);
                };
                if !*connected.borrow_and_update() {
                    return Err(Unavailable::Disconnected(describe(unknown)));
                }
                if !asked {
                    self.want(names, &current);
                    asked = true;
                }
                self.check_rejected(names)?;
                // Both senders live in `self`, so neither wait can fail.
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = connected.changed() => {}
                }
            }
        };
        match timeout(RESOLVE_TIMEOUT, Box::pin(answer)).await {
            Ok(answer) => answer,
            Err(_) => {
                let current = self.current();
                let unknown = names.iter().find(|name| !is_known(&current, name));
                unknown.map_or_else(
                    || Ok(current.clone()),
                    |name| Err(Unavailable::Timeout(describe(name))),
                )
            }
        }
    }

    /// Tells of each new configuration, and of each push that was rejected.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Whether it is known what this proxy has to know of its own workload.
    pub fn ready(&self) -> bool {
        self.shared.configuration.load().inbound.is_some()
    }

    /// Whether the control plane can be asked now.
    pub fn connected(&self) -> bool {
        *self.shared.connected.borrow()
    }

    /// Tells of each connection to the control plane, and of its end.
    pub fn connection(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    /// The application's ports.
    pub fn ports(&self) -> ApplicationPorts {
        self.shared.ports.clone()
    }

    /// Where other sidecars reach the application's port: see [`ApplicationPorts::address_of`].
    pub fn address_of(&self, port: u16, own: IpAddr) -> Option<std::net::SocketAddr> {
        self.shared.ports.address_of(port, own)
    }

    /// Type, name and version of each resource, and why a later version was not taken.
    pub fn status(&self) -> Value {
        let resources = self.lock();
        let list = resources
            .list()
            .into_iter()
            .map(|((kind, name), (held, rejected))| {
                json!({
                    "type": kind,
                    "name": name,
                    "version": held.map(|held| held.version.as_str()),
                    "absent": held.is_some_and(|held| held.version.is_empty()),
                    "rejected": rejected.map(|rejected| json!({
                        "version": rejected.version,
                        "field": rejected.rejection.field,
                        "reason": rejected.rejection.reason,
                    })),
                })
            });
        let list: Vec<Value> = list.collect();
        let last_error = self
            .shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        json!({
            "connected": self.connected(),
            "ready": self.ready(),
            "last_error": *last_error,
            "resources": list,
        })
    }

    /// Writes what is in force to the data directory now, so that a restart finds it.
    pub async fn flush(&self) {
        persist::store(self).await;
    }

    /// Says that the workload drains, so that no more traffic is sent to it. The stream stays, and
    /// says so again when it was broken. Returns once it is said, or cannot be.
    pub async fn goodbye(&self) {
        let mut farewell = self.shared.farewell.subscribe();
        self.shared.farewell.send_replace(Farewell::Leaving);
        if self.connected() {
            let said = farewell.wait_for(|farewell| *farewell == Farewell::Said);
            // Not said in time is the same to the caller: draining goes on.
            let _ = timeout(GOODBYE_TIMEOUT, said).await;
        }
    }

    /// Says who answers questions; the first call holds.
    pub fn set_workers(&self, workers: Vec<mpsc::Sender<Question>>) {
        let _ = self.shared.workers.set(Workers(workers));
    }

    /// Has the workers answer a question; the error is for whoever asked.
    pub(super) async fn explain(&self, question: wire::ExplainQuestion) -> Result<String, String> {
        match self.shared.workers.get() {
            Some(workers) => workers.explain(question).await,
            None => Err("the proxy is starting; ask again".to_owned()),
        }
    }

    /// JSON of what is in force.
    pub fn dump(&self) -> String {
        let mut document = self.status();
        document["configuration"] = dump::configuration(&self.current());
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }

    pub(super) fn farewell(&self) -> watch::Receiver<Farewell> {
        self.shared.farewell.subscribe()
    }

    /// The stream said goodbye, or broke after it did.
    pub(super) fn set_farewell(&self, farewell: Farewell) {
        self.shared.farewell.send_if_modified(|now| {
            let changed = *now != Farewell::Staying && *now != farewell;
            if changed {
                *now = farewell;
            }
            changed
        });
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.shared.connected.send_replace(connected);
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        let mut last = self
            .shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = error;
    }

    /// What a new stream says at first.
    pub(super) fn begin(&self) -> (Vec<wire::ResourceVersion>, Vec<Change>) {
        self.lock().begin()
    }

    /// Waits for changes of the subscriptions.
    pub(super) async fn next_changes(&self) -> Vec<Change> {
        loop {
            let changes = self.lock().take_outbox();
            if !changes.is_empty() {
                return changes;
            }
            self.shared.outbox.notified().await;
        }
    }

    pub(super) fn apply(&self, push: wire::Push) -> Applied {
        let mut applied = Applied::default();
        self.change(|resources, configuration| {
            applied = resources.apply(push, configuration);
            true
        });
        applied
    }

    pub(super) fn sweep(&self) {
        self.change(Resources::sweep);
    }

    pub(super) fn path(&self) -> Option<PathBuf> {
        self.shared.path.clone()
    }

    pub(super) fn to_keep(&self) -> Vec<(Name, Held)> {
        self.lock().to_keep()
    }

    fn want(&self, names: &[Name], current: &Configuration) {
        let unknown: Vec<&Name> = names
            .iter()
            .filter(|name| !is_known(current, name))
            .collect();
        self.change(|resources, configuration| {
            let mut evicted = false;
            for name in unknown {
                evicted |= resources.want(name, configuration);
            }
            evicted
        });
    }

    fn check_rejected(&self, names: &[Name]) -> Result<(), Unavailable> {
        let resources = self.lock();
        for name in names {
            if let Some(rejected) = resources.rejection(name) {
                return Err(Unavailable::Rejected {
                    name: describe(name),
                    reason: rejected.rejection.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Changes a copy and publishes it, if `change` says that it is another.
    fn change(&self, change: impl FnOnce(&mut Resources, &mut Configuration) -> bool) {
        let mut resources = self.lock();
        let mut configuration = Configuration::clone(&self.shared.configuration.load());
        let changed = change(&mut resources, &mut configuration);
        if changed {
            let configuration = Arc::new(configuration);
            let place = place_of(&configuration);
            self.shared.configuration.store(configuration);
            self.shared.current_at.store(place, Ordering::Release);
        }
        drop(resources);
        if changed {
            self.shared.changed.send_modify(|version| *version += 1);
        }
        self.shared.outbox.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Resources> {
        self.shared
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn place_of(configuration: &Arc<Configuration>) -> *mut Configuration {
    Arc::as_ptr(configuration).cast_mut()
}

fn describe(name: &Name) -> String {
    format!(
        "{} {}",
        super::names::kind(name),
        super::names::to_wire(name).name
    )
}
