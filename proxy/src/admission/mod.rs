//! Whether a request is let in to our workload now: rate limits, and how much the application can do at once. No
//! I/O; `now` is handed in. What is known of a port outlives a push, because it is kept by the port's number.

mod bucket;
mod gate;
mod gradient;
#[cfg(test)]
mod overload;
mod selector;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use self::bucket::Buckets;
use self::gate::{Arrival, Gate};
use crate::model::{Concurrency, InboundPolicy, Priority, RateLimit};

pub use selector::Asked;

/// Ports without a policy that are told apart: callers name ports as they like, and requests to more are let in as they
/// come. Ports with a policy come on top, so that naming others lifts no limit; they are as many as the control plane
/// sends policies for.
const PORTS_MAX: usize = 1024;

/// What one worker lets in.
#[derive(Debug)]
pub struct Admission {
    ports: RefCell<HashMap<u16, Rc<Port>, RandomState>>,
    /// The one that was asked for last, which mostly is the next one too.
    last: RefCell<Option<(u16, Rc<Port>)>>,
    workers: u32,
}

/// An application port.
#[derive(Debug)]
pub struct Port {
    gate: RefCell<Gate<oneshot::Sender<()>>>,
    limits: RefCell<Vec<Kept>>,
    seeded: RandomState,
    workers: u32,
}

/// A rate limit with its buckets, which outlive a push that doesn't change it.
#[derive(Debug)]
struct Kept {
    policy: String,
    limit: RateLimit,
    buckets: Buckets,
}

impl Kept {
    fn is_of(&self, policy: &InboundPolicy, limit: &RateLimit) -> bool {
        let own = &self.limit;
        let same = (own.requests, own.interval, own.burst)
            == (limit.requests, limit.interval, limit.burst);
        same && own.name == limit.name && own.key == limit.key && self.policy == policy.name
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Entry {
    Admitted(Pass),
    /// It waits for its turn, at most this long.
    Waits(Waiting, Duration),
    /// The application has enough to do.
    Refused,
}

/// A request that was let in; it counts until its answer begins, or this is dropped.
#[derive(Debug)]
pub struct Pass {
    port: Option<Rc<Port>>,
    concurrency: Concurrency,
    admitted: Instant,
}

/// Becomes a pass, or nothing when somebody more important has the place; dropping it gives up waiting.
#[derive(Debug)]
pub struct Waiting {
    called: oneshot::Receiver<()>,
    port: Rc<Port>,
    concurrency: Concurrency,
}

/// What is seen of a port.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub port: u16,
    pub limit: u32,
    pub in_flight: u32,
    /// Requests beyond the limit while it isn't kept.
    pub exceeded: u64,
}

impl Admission {
    /// For one of `workers` workers, which share what is allowed together.
    pub fn new(workers: usize) -> Self {
        Self {
            ports: RefCell::default(),
            last: RefCell::default(),
            workers: u32::try_from(workers.max(1)).unwrap_or(u32::MAX),
        }
    }

    /// What is known of a port; nothing where there are too many, and no policy is for this one.
    pub fn port(&self, number: u16, policy: &InboundPolicy, now: Instant) -> Option<Rc<Port>> {
        let mut last = self.last.borrow_mut();
        if let Some((last, port)) = &*last
            && *last == number
        {
            return Some(port.clone());
        }
        let mut ports = self.ports.borrow_mut();
        let is_full = ports.len() >= PORTS_MAX;
        let port = match ports.get(&number) {
            Some(port) => port.clone(),
            None if is_full && !policy.is_named() => return None,
            None => {
                let port = Rc::new(Port::new(self.workers, now));
                ports.insert(number, port.clone());
                port
            }
        };
        *last = Some((number, port.clone()));
        Some(port)
    }

    /// What is seen of every port. `policy` says which is in force there.
    pub fn seen(&self, policy: impl Fn(u16) -> Concurrency) -> Vec<Seen> {
        let ports = self.ports.borrow();
        let seen = ports.iter().map(|(number, port)| {
            let gate = port.gate.borrow();
            Seen {
                port: *number,
                limit: gate.limit(&policy(*number)),
                in_flight: gate.in_flight(),
                exceeded: gate.exceeded,
            }
        });
        seen.collect()
    }
}

impl Port {
    fn new(workers: u32, now: Instant) -> Self {
        Self {
            gate: RefCell::new(Gate::new(now)),
            limits: RefCell::default(),
            seeded: RandomState::default(),
            workers,
        }
    }

    /// Takes a token of each rate limit that the request falls under, or says how long there is none.
    pub fn take_tokens(
        &self,
        policy: &InboundPolicy,
        asked: &Asked<'_>,
        now: Instant,
    ) -> Result<(), Duration> {
        for limit in &policy.rate_limits {
            if !asked.is_selected(&limit.selector) {
                continue;
            }
            // A request without a value for a part of the key falls under no limit of that key.
            let Some(key) = asked.key_hash(&limit.key, &self.seeded) else {
                continue;
            };
            let mut kept = self.limits.borrow_mut();
            let found = kept.iter().position(|one| one.is_of(policy, limit));
            let index = found.unwrap_or_else(|| {
                // Those that are no longer there make room: there are never more than a policy has.
                kept.retain(|one| {
                    policy
                        .rate_limits
                        .iter()
                        .any(|limit| one.is_of(policy, limit))
                });
                kept.push(Kept {
                    policy: policy.name.clone(),
                    limit: limit.clone(),
                    buckets: Buckets::new(now),
                });
                kept.len() - 1
            });
            kept[index].buckets.take(key, limit, self.workers, now)?;
        }
        Ok(())
    }

    /// Asks for a place for one more request.
    pub fn enter(
        self: &Rc<Self>,
        policy: &InboundPolicy,
        asked: &Asked<'_>,
        now: Instant,
    ) -> Entry {
        let mut selectors = policy.priorities.iter();
        let found = selectors.find(|(selector, _)| asked.is_selected(selector));
        let priority = found.map_or(Priority::default(), |(_, priority)| *priority);
        let concurrency = policy.concurrency;
        let mut gate = self.gate.borrow_mut();
        let mut called = None;
        let mut arrive = |gate: &mut Gate<_>| {
            gate.arrive(priority, &concurrency, now, || {
                let (sender, receiver) = oneshot::channel();
                called = Some(receiver);
                sender
            })
        };
        let mut arrival = arrive(&mut gate);
        if arrival == Arrival::Refused {
            gate.retain(|waiting: &oneshot::Sender<()>| !waiting.is_closed());
            arrival = arrive(&mut gate);
        }
        match (arrival, called) {
            (Arrival::Admitted, _) => Entry::Admitted(self.pass(concurrency, now)),
            (Arrival::Waits(longest), Some(called)) => {
                let port = self.clone();
                let waiting = Waiting {
                    called,
                    port,
                    concurrency,
                };
                Entry::Waits(waiting, longest)
            }
            _ => Entry::Refused,
        }
    }

    /// A place where one is free at once; nothing is queued where there is none.
    pub fn enter_now(self: &Rc<Self>, policy: &InboundPolicy, now: Instant) -> Option<Pass> {
        let concurrency = policy.concurrency;
        let is_in = self.gate.borrow_mut().enter(&concurrency);
        is_in.then(|| self.pass(concurrency, now))
    }

    fn pass(self: &Rc<Self>, concurrency: Concurrency, now: Instant) -> Pass {
        Pass {
            port: Some(self.clone()),
            concurrency,
            admitted: now,
        }
    }

    fn finish(&self, latency: Option<Duration>, concurrency: &Concurrency, now: Instant) {
        let mut gate = self.gate.borrow_mut();
        gate.finished(latency, concurrency, now);
        while let Some(ticket) = gate.next(concurrency) {
            if ticket.send(()).is_err() {
                gate.gone();
            }
        }
    }
}

impl Pass {
    /// Since when.
    pub fn admitted(&self) -> Instant {
        self.admitted
    }

    /// The answer begins. One that says that the application failed says nothing of how much it has to do.
    pub fn answered(mut self, failed: bool, now: Instant) {
        let latency = now.saturating_duration_since(self.admitted);
        if let Some(port) = self.port.take() {
            let latency = (!failed).then_some(latency);
            port.finish(latency, &self.concurrency, now);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(port) = self.port.take() {
            port.finish(None, &self.concurrency, self.admitted);
        }
    }
}

impl Future for Waiting {
    type Output = Option<Pass>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.called).poll(cx).map(|called| {
            called.ok().map(|()| Pass {
                port: Some(self.port.clone()),
                concurrency: self.concurrency,
                admitted: Instant::now(),
            })
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It was called, and had not heard it yet.
        if self.called.try_recv().is_ok() {
            self.port.finish(None, &self.concurrency, Instant::now());
        }
    }
}
