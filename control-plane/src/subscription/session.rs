//! One connected proxy, as its stream sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::Notify;

use super::state::{AttachRefused, SubscribeRefused};
use super::topics::SessionId;
use super::{Shared, Subscriptions};
use crate::compile::Name;
use crate::registry::{PORTS_MAX, Workload};

/// How long a proxy may take to acknowledge a push. One that takes longer is disconnected: it hangs,
/// and what it has can't be known.
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a proxy says of itself when it connects; its identity is already checked.
#[derive(Debug)]
pub struct Hello {
    pub workload: Workload,
    pub proxy_version: String,
    /// What it holds, with versions, empty for what it holds as absent.
    pub known: Vec<(Name, Arc<str>)>,
    pub certificate_not_after: SystemTime,
    /// It can take a cluster's change in place of the cluster.
    pub takes_changes: bool,
}

/// A resource on its way to a proxy.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub name: Name,
    pub version: Arc<str>,
    pub content: Content,
}

/// A resource's body, or what makes it of the one that the proxy holds.
#[derive(Clone, Debug)]
pub enum Content {
    Whole(Bytes),
    Change { base: Arc<str>, change: Bytes },
}

impl Content {
    /// Bytes of it.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(body) => body.len(),
            Self::Change { change, .. } => change.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is to be sent to a proxy next.
#[derive(Debug)]
pub enum Outgoing {
    Push {
        nonce: u64,
        resources: Vec<Delivery>,
    },
    Ask {
        id: u64,
        question: Question,
    },
}

/// What a live proxy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What it has in force.
    Config,
    /// How it would treat a request of its workload.
    Request {
        method: String,
        url: String,
        headers: Vec<(String, String)>,
    },
    /// What became of the recent requests of a trace.
    Trace(String),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("a newer connection of the same instance replaced this one")]
    Replaced,
    #[error("no acknowledgement of push {nonce} within {ACKNOWLEDGE_TIMEOUT:?}")]
    Silent { nonce: u64 },
    #[error("the acknowledgement names push {got}, and push {expected:?} was sent last")]
    WrongNonce { got: u64, expected: Option<u64> },
    #[error("the report names {0} ports, more than {PORTS_MAX}")]
    TooManyPorts(usize),
    #[error(transparent)]
    Subscribe(#[from] SubscribeRefused),
}

/// A resource that a proxy can't take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub name: Name,
    /// It is only the change that it can't take, because of what it holds.
    pub whole_wanted: bool,
    pub field: String,
    pub reason: String,
}

/// A connected proxy. Dropping it withdraws its workload.
pub struct Session {
    shared: Arc<Shared>,
    id: SessionId,
    wake: Arc<Notify>,
}

impl Subscriptions {
    /// Takes a proxy in.
    pub fn attach(&self, hello: Hello) -> Result<Session, AttachRefused> {
        let mut state = self.shared.lock();
        let id = state.attach(hello, self.shared.encode)?;
        let wake = state.sessions[&id].wake.clone();
        self.shared
            .metrics
            .proxies_connected
            .set(state.sessions.len());
        drop(state);
        self.shared.touched.notify_one();
        self.shared.host_wanted.notify_one();
        Ok(Session {
            shared: self.shared.clone(),
            id,
            wake,
        })
    }
}

impl Session {
    /// Waits for what is to be sent next.
    pub async fn next(&self) -> Result<Outgoing, Ended> {
        loop {
            if let Some(outgoing) = self.shared.lock().next(self.id, self.shared.encode)? {
                if let Outgoing::Push { resources, .. } = &outgoing {
                    self.shared.metrics.pushes.add(1);
                    self.shared.metrics.resources_pushed.add(resources.len());
                }
                return Ok(outgoing);
            }
            // Woken by a change; at the latest in time to see that an acknowledgement is missing.
            let _ = tokio::time::timeout(ACKNOWLEDGE_TIMEOUT / 4, self.wake.notified()).await;
        }
    }

    /// Adds and removes subscriptions.
    pub fn subscribe(&self, add: Vec<Name>, remove: &[Name]) -> Result<(), Ended> {
        let mut state = self.shared.lock();
        state.unsubscribe(self.id, remove);
        state.subscribe(self.id, add, self.shared.encode)?;
        drop(state);
        self.shared.host_wanted.notify_one();
        Ok(())
    }

    /// Takes the answer to a push in.
    pub fn acknowledge(&self, nonce: u64, rejected: Vec<Rejection>) -> Result<(), Ended> {
        let refused = rejected.iter().filter(|rejection| !rejection.whole_wanted);
        self.shared.metrics.resources_rejected.add(refused.count());
        let changed = self.shared.lock().acknowledge(self.id, nonce, rejected)?;
        for changed_at in changed {
            self.shared
                .metrics
                .push_seconds
                .observe(changed_at.elapsed());
        }
        self.shared.progress.notify_waiters();
        Ok(())
    }

    /// Replaces the ports that accept connections.
    pub fn report_ports(&self, up: BTreeSet<u16>) -> Result<(), Ended> {
        if up.len() > PORTS_MAX {
            return Err(Ended::TooManyPorts(up.len()));
        }
        let mut state = self.shared.lock();
        state.change_workload(self.id, |workload| workload.ports_up = up);
        drop(state);
        self.shared.touched.notify_one();
        Ok(())
    }

    /// The proxy drains: its workload is offered to nobody from now on.
    pub fn goodbye(&self) {
        let mut state = self.shared.lock();
        state.change_workload(self.id, |workload| workload.draining = true);
        drop(state);
        self.shared.touched.notify_one();
    }

    /// Hands an answer to who asked.
    pub fn answer(&self, id: u64, answer: Result<String, String>) {
        let mut state = self.shared.lock();
        if let Some(attached) = state.sessions.get_mut(&self.id) {
            attached.answer(id, answer);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.detach(self.id);
        self.shared
            .metrics
            .proxies_connected
            .set(state.sessions.len());
        drop(state);
        self.shared.touched.notify_one();
        self.shared.progress.notify_waiters();
    }
}
