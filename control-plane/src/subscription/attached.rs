//! One connected proxy, behind the lock: what it holds and what is due.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::Encode;
use super::session::{
    ACKNOWLEDGE_TIMEOUT, Content, Delivery, Ended, Outgoing, Question, Rejection,
};
use super::topics::{Base, Published, Topics};
use crate::compile::Name;
use crate::registry::Workload;

/// Bytes of resources in one push; a larger resource goes alone.
const PUSH_BYTES_MAX: usize = 1 << 20;
/// Resources in one push.
const PUSH_RESOURCES_MAX: usize = 1024;
/// Questions that wait for one proxy's answer. A further one is refused.
const QUESTIONS_MAX: usize = 16;

/// What a proxy has of one resource.
#[derive(Debug, Default)]
pub struct Held {
    /// The version it was last sent, or said it has.
    pub sent: Option<Arc<str>>,
    /// What it acknowledged last of a cluster, as long as that is known: what a change is made from.
    pub base: Option<Base>,
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
    base: Option<Base>,
    is_change: bool,
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
    takes_changes: bool,
    in_flight: Option<InFlight>,
    nonces: u64,
    to_ask: VecDeque<(u64, Question)>,
    asked: HashMap<u64, oneshot::Sender<Result<String, String>>>,
    questions: u64,
}

impl Attached {
    pub fn new(
        workload: &Workload,
        proxy_version: String,
        certificate_not_after: SystemTime,
        takes_changes: bool,
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
            takes_changes,
            in_flight: None,
            nonces: 0,
            to_ask: VecDeque::new(),
            asked: HashMap::new(),
            questions: 0,
        }
    }

    /// Notes a subscription, with what is known of what the proxy holds. One that is repeated has the
    /// resource sent again: the proxy forgot it.
    pub fn subscribe(&mut self, name: Name, known: Option<Arc<str>>, base: Option<Base>) {
        let held = Held {
            sent: known,
            base,
            ..Held::default()
        };
        self.subscribed.insert(name.clone(), held);
        self.due.insert(name);
        self.wake.notify_one();
    }

    /// Takes the next question to ask, or `None` when too many wait already.
    pub fn ask(&mut self, question: Question) -> Option<oneshot::Receiver<Result<String, String>>> {
        self.asked.retain(|_, answer| !answer.is_closed());
        if self.asked.len() >= QUESTIONS_MAX {
            return None;
        }
        self.questions += 1;
        let (sender, receiver) = oneshot::channel();
        self.asked.insert(self.questions, sender);
        self.to_ask.push_back((self.questions, question));
        self.wake.notify_one();
        Some(receiver)
    }

    /// Hands an answer to who asked.
    pub fn answer(&mut self, id: u64, answer: Result<String, String>) {
        if let Some(asked) = self.asked.remove(&id) {
            // Who asked may have stopped waiting.
            let _ = asked.send(answer);
        }
    }

    /// What is to be sent now, if anything is. One push at most is in flight: what changes meanwhile
    /// is sent once, in its last version.
    pub fn next(
        &mut self,
        topics: &mut Topics,
        settling: bool,
        encode: Encode,
    ) -> Result<Option<Outgoing>, Ended> {
        if self.replaced {
            return Err(Ended::Replaced);
        }
        if let Some((id, question)) = self.to_ask.pop_front() {
            return Ok(Some(Outgoing::Ask { id, question }));
        }
        if let Some(in_flight) = &self.in_flight {
            let nonce = in_flight.nonce;
            let is_late = in_flight.sent_at.elapsed() >= ACKNOWLEDGE_TIMEOUT;
            return if is_late {
                Err(Ended::Silent { nonce })
            } else {
                Ok(None)
            };
        }
        let (resources, sent) = self.take_due(topics, settling, encode);
        if resources.is_empty() {
            return Ok(None);
        }
        self.nonces += 1;
        let nonce = self.nonces;
        self.in_flight = Some(InFlight {
            nonce,
            sent_at: Instant::now(),
            resources: sent,
        });
        Ok(Some(Outgoing::Push { nonce, resources }))
    }

    /// Takes what fits into one push; the rest stays due.
    fn take_due(
        &mut self,
        topics: &mut Topics,
        settling: bool,
        encode: Encode,
    ) -> (Vec<Delivery>, Vec<Sent>) {
        let (mut resources, mut sent, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut left = BTreeSet::new();
        let mut due = std::mem::take(&mut self.due).into_iter();
        for name in due.by_ref() {
            let (Some(topic), Some(held)) = (topics.get_mut(&name), self.subscribed.get_mut(&name))
            else {
                continue;
            };
            let Some(published) = topic.published.clone() else {
                continue;
            };
            if held.sent.as_ref() == Some(&published.version) {
                held.settled = topic.generation;
                continue;
            }
            if settling && is_held_back(held, &published) {
                left.insert(name);
                continue;
            }
            let base = held.base.as_ref().filter(|_| self.takes_changes);
            let content = topic.content(base, encode);
            let is_full = bytes + content.len() > PUSH_BYTES_MAX && !resources.is_empty();
            if is_full || resources.len() >= PUSH_RESOURCES_MAX {
                left.insert(name);
                break;
            }
            bytes += content.len();
            held.sent = Some(published.version.clone());
            sent.push(Sent {
                name: name.clone(),
                version: published.version.clone(),
                base: published.as_base(),
                is_change: matches!(content, Content::Change { .. }),
                generation: topic.generation,
                changed_at: topic.changed_at,
            });
            resources.push(Delivery {
                name,
                version: published.version,
                content,
            });
        }
        left.extend(due);
        self.due = left;
        (resources, sent)
    }

    /// Takes the answer to a push in. Returns when each of its resources had changed.
    pub fn acknowledge(
        &mut self,
        nonce: u64,
        rejections: Vec<Rejection>,
    ) -> Result<Vec<Instant>, Ended> {
        let expected = self.in_flight.as_ref().map(|sent| sent.nonce);
        let Some(in_flight) = self.in_flight.take_if(|sent| sent.nonce == nonce) else {
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
            let rejection = rejections.remove(&sent.name);
            let held = self.subscribed.get_mut(&sent.name);
            // Who was sent the whole can't wish for it again.
            let whole_wanted = rejection.as_ref().is_some_and(|r| r.whole_wanted);
            if whole_wanted && sent.is_change {
                if let Some(held) = held {
                    (held.sent, held.base) = (None, None);
                    self.due.insert(sent.name);
                }
                continue;
            }
            changed.push(sent.changed_at);
            let Some(held) = held else {
                continue;
            };
            held.settled = held.settled.max(sent.generation);
            if rejection.is_none() {
                held.base = sent.base;
            }
            held.rejected = rejection.map(|rejection| Rejected {
                version: sent.version,
                field: rejection.field,
                reason: rejection.reason,
            });
        }
        self.wake.notify_one();
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
