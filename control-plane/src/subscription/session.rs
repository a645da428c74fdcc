//! One connected proxy.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::state::{AttachRefused, State, SubscribeRefused};
use super::topics::{Published, SessionId};
use super::{Shared, Subscriptions};
use crate::compile::Name;
use crate::registry::{PORTS_MAX, Workload};

/// How long a proxy may take to acknowledge a push. One that takes longer is disconnected: it hangs,
/// and what it has can't be known.
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of resources in one push; a larger resource goes alone.
const PUSH_BYTES_MAX: usize = 1 << 20;
/// Resources in one push.
const PUSH_RESOURCES_MAX: usize = 1024;
/// Questions that wait for one proxy's answer. A further one is refused.
const QUESTIONS_MAX: usize = 16;

/// What a proxy says of itself when it connects; its identity is already checked.
#[derive(Debug)]
pub struct Hello {
    pub workload: Workload,
    pub proxy_version: String,
    /// What it holds, with versions, empty for what it holds as absent.
    pub known: Vec<(Name, Arc<str>)>,
    pub certificate_not_after: SystemTime,
}

/// A resource on its way to a proxy.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub name: Name,
    pub version: Arc<str>,
    pub body: Bytes,
}

/// What is to be sent to a proxy next.
#[derive(Debug)]
pub enum Outgoing {
    Push {
        nonce: u64,
        resources: Vec<Delivery>,
    },
    AskConfig {
        id: u64,
    },
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
    pub field: String,
    pub reason: String,
}

/// What a proxy has of one resource.
#[derive(Debug, Default)]
pub struct Held {
    /// The version it was last sent, or said it has.
    pub sent: Option<Arc<str>>,
    /// The generation of the topic that the proxy last answered to.
    pub settled: u64,
    pub rejected: Option<Rejected>,
}

#[derive(Clone, Debug)]
pub struct Rejected {
    pub version: Arc<str>,
    pub field: String,
    pub reason: String,
}

struct InFlight {
    nonce: u64,
    sent_at: Instant,
    resources: Vec<Sent>,
}

struct Sent {
    name: Name,
    version: Arc<str>,
    generation: u64,
    changed_at: Instant,
}

/// A connected proxy, behind the lock.
pub struct Attached {
    pub instance: Arc<str>,
    /// `NAMESPACE/WORKLOAD`
    pub proxy: String,
    pub proxy_version: String,
    pub connected_at: SystemTime,
    pub certificate_not_after: SystemTime,
    pub subscribed: HashMap<Name, Held>,
    pub due: BTreeSet<Name>,
    pub wake: Arc<Notify>,
    pub replaced: bool,
    in_flight: Option<InFlight>,
    nonces: u64,
    to_ask: VecDeque<u64>,
    asked: HashMap<u64, oneshot::Sender<Result<String, String>>>,
    questions: u64,
}

impl Attached {
    pub fn new(
        workload: &Workload,
        proxy_version: String,
        certificate_not_after: SystemTime,
    ) -> Self {
        Self {
            instance: workload.instance.clone(),
            proxy: format!("{}/{}", workload.namespace(), workload.name),
            proxy_version,
            connected_at: SystemTime::now(),
            certificate_not_after,
            subscribed: HashMap::new(),
            due: BTreeSet::new(),
            wake: Arc::new(Notify::new()),
            replaced: false,
            in_flight: None,
            nonces: 0,
            to_ask: VecDeque::new(),
            asked: HashMap::new(),
            questions: 0,
        }
    }

    /// Notes a subscription. One that is repeated has the resource sent again: the proxy forgot it.
    pub fn subscribe(&mut self, name: Name, known: Option<Arc<str>>) {
        let held = Held {
            sent: known,
            ..Held::default()
        };
        self.subscribed.insert(name.clone(), held);
        self.due.insert(name);
        self.wake.notify_one();
    }

    /// Takes the next question to ask, or `None` when too many wait already.
    pub fn ask(&mut self) -> Option<oneshot::Receiver<Result<String, String>>> {
        self.asked.retain(|_, answer| !answer.is_closed());
        if self.asked.len() >= QUESTIONS_MAX {
            return None;
        }
        self.questions += 1;
        let (sender, receiver) = oneshot::channel();
        self.asked.insert(self.questions, sender);
        self.to_ask.push_back(self.questions);
        self.wake.notify_one();
        Some(receiver)
    }
}

impl State {
    /// What is to be sent to a proxy now, if anything is.
    fn next(&mut self, id: SessionId) -> Result<Option<Outgoing>, Ended> {
        let settling = self.settling_until.is_some();
        let Some(attached) = self.sessions.get_mut(&id) else {
            return Err(Ended::Replaced);
        };
        if attached.replaced {
            return Err(Ended::Replaced);
        }
        if let Some(question) = attached.to_ask.pop_front() {
            return Ok(Some(Outgoing::AskConfig { id: question }));
        }
        if let Some(in_flight) = &attached.in_flight {
            let nonce = in_flight.nonce;
            let is_late = in_flight.sent_at.elapsed() >= ACKNOWLEDGE_TIMEOUT;
            return if is_late {
                Err(Ended::Silent { nonce })
            } else {
                Ok(None)
            };
        }
        let mut resources = Vec::new();
        let mut sent = Vec::new();
        let mut bytes = 0;
        let mut handled = Vec::new();
        for name in &attached.due {
            let (Some(topic), Some(held)) =
                (self.topics.get(name), attached.subscribed.get_mut(name))
            else {
                handled.push(name.clone());
                continue;
            };
            let Some(published) = &topic.published else {
                handled.push(name.clone());
                continue;
            };
            if held.sent.as_ref() == Some(&published.version) {
                held.settled = topic.generation;
                handled.push(name.clone());
                continue;
            }
            if settling && is_held_back(held, published) {
                continue;
            }
            let is_full = bytes + published.body.len() > PUSH_BYTES_MAX && !resources.is_empty();
            if is_full || resources.len() >= PUSH_RESOURCES_MAX {
                break;
            }
            bytes += published.body.len();
            held.sent = Some(published.version.clone());
            sent.push(Sent {
                name: name.clone(),
                version: published.version.clone(),
                generation: topic.generation,
                changed_at: topic.changed_at,
            });
            resources.push(Delivery {
                name: name.clone(),
                version: published.version.clone(),
                body: published.body.clone(),
            });
            handled.push(name.clone());
        }
        for name in handled {
            attached.due.remove(&name);
        }
        if resources.is_empty() {
            return Ok(None);
        }
        attached.nonces += 1;
        let nonce = attached.nonces;
        attached.in_flight = Some(InFlight {
            nonce,
            sent_at: Instant::now(),
            resources: sent,
        });
        Ok(Some(Outgoing::Push { nonce, resources }))
    }

    fn acknowledge(
        &mut self,
        id: SessionId,
        nonce: u64,
        rejections: Vec<Rejection>,
    ) -> Result<Vec<Instant>, Ended> {
        let Some(attached) = self.sessions.get_mut(&id) else {
            return Ok(Vec::new());
        };
        let expected = attached.in_flight.as_ref().map(|sent| sent.nonce);
        let in_flight = attached.in_flight.take_if(|sent| sent.nonce == nonce);
        let Some(in_flight) = in_flight else {
            return Err(Ended::WrongNonce {
                got: nonce,
                expected,
            });
        };
        let mut rejections: HashMap<Name, Rejection> = rejections
            .into_iter()
            .map(|rejection| (rejection.name.clone(), rejection))
            .collect();
        let mut changed = Vec::new();
        for sent in in_flight.resources {
            changed.push(sent.changed_at);
            let Some(held) = attached.subscribed.get_mut(&sent.name) else {
                continue;
            };
            held.settled = held.settled.max(sent.generation);
            held.rejected = rejections.remove(&sent.name).map(|rejection| Rejected {
                version: sent.version,
                field: rejection.field,
                reason: rejection.reason,
            });
        }
        attached.wake.notify_one();
        Ok(changed)
    }
}

/// While proxies are still coming back, what is made of endpoints may lack some. Who has more from
/// before keeps it; who has nothing is better served by some endpoints than by none.
fn is_held_back(held: &Held, published: &Published) -> bool {
    let has_some = held
        .sent
        .as_ref()
        .is_some_and(|version| !version.is_empty());
    published.is_of_endpoints && (has_some || published.is_hollow)
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
            if let Some(outgoing) = self.shared.lock().next(self.id)? {
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
        self.shared.metrics.resources_rejected.add(rejected.len());
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
        let attached = state.sessions.get_mut(&self.id);
        if let Some(asked) = attached.and_then(|attached| attached.asked.remove(&id)) {
            // Who asked may have stopped waiting.
            let _ = asked.send(answer);
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
