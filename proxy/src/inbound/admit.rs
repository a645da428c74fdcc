//! Whether a request goes to the application now, later, or not at all.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Inbound;
use crate::admission::{Asked, Entry, Pass, Port};
use crate::model::{
    Concurrency, Configuration, Descriptor, DescriptorValue, Fault, GlobalRateLimit, InboundPolicy,
};
use crate::ratelimit::{Answer, Pairs};
use crate::telemetry::Party;

/// What is known of an application's port.
pub(super) struct Known {
    pub party: Party<'static>,
    pub policy: Arc<InboundPolicy>,
}

/// What is known of a port, for as long as nothing changes: mostly the next request is for the same.
pub(super) struct Last {
    configuration: Arc<Configuration>,
    port: u16,
    known: Rc<Known>,
}

/// Why a request doesn't go to the application.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub fault: Fault,
    /// Another instance may have room for it.
    pub elsewhere: bool,
    /// When it may be tried again here.
    pub retry_after: Duration,
}

impl Refusal {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            elsewhere: false,
            retry_after: Duration::from_secs(1),
        }
    }

    fn overload() -> Self {
        Self {
            elsewhere: true,
            ..Self::new(Fault::Overload)
        }
    }
}

impl Inbound {
    /// What is known of a port: whose it is, for telemetry, and what it takes.
    pub(super) fn known(&self, port: u16) -> Rc<Known> {
        let mut last = self.last.borrow_mut();
        if let Some(last) = &*last
            && last.port == port
            && self.discovery.is_current(&last.configuration)
        {
            return last.known.clone();
        }
        let configuration = self.discovery.current();
        let known = Rc::new(self.look_up(&configuration, port));
        *last = Some(Last {
            configuration,
            port,
            known: known.clone(),
        });
        known
    }

    fn look_up(&self, configuration: &Configuration, port: u16) -> Known {
        let known = configuration.inbound.as_ref();
        let known = known.and_then(|inbound| inbound.ports.iter().find(|one| one.port == port));
        let service = known.and_then(|known| known.services.first());
        Known {
            party: Party {
                service: service.cloned().map(Cow::Owned),
                ..Party::of(&self.own)
            },
            policy: known.map_or_else(|| self.usual.clone(), |known| known.policy.clone()),
        }
    }

    /// Lets a request in, or has it wait for its turn, at most until `until`. Nothing is returned where there
    /// is nothing to be given back.
    pub(super) async fn admit(
        &self,
        port: u16,
        policy: &InboundPolicy,
        asked: Asked<'_>,
        (now, until): (Instant, Option<Instant>),
    ) -> Result<Option<Pass>, Refusal> {
        let Some(port) = self.admission.port(port, policy, now) else {
            return Ok(None);
        };
        if !policy.rate_limits.is_empty() {
            take_tokens(&port, policy, &asked, now)?;
        }
        if let Some(limit) = &policy.global_rate_limit {
            // Boxed, as everything rare, so that the usual request's state stays small.
            Box::pin(self.ask_server(limit, &asked)).await?;
        }
        match port.enter(policy, &asked, now) {
            Entry::Admitted(pass) => Ok(Some(pass)),
            Entry::Refused => Err(Refusal::overload()),
            Entry::Waits(waiting, longest) => {
                let left = until.map(|until| until.saturating_duration_since(now));
                let is_late = left.is_some_and(|left| left < longest);
                let longest = left.map_or(longest, |left| left.min(longest));
                match Box::pin(timeout(longest, waiting)).await {
                    Ok(Some(pass)) => Ok(Some(pass)),
                    Ok(None) => Err(Refusal::overload()),
                    // Nobody waits for the answer any more: the application is spared the work.
                    Err(_) if is_late => Err(Refusal::new(Fault::RequestTimeout)),
                    Err(_) => Err(Refusal::overload()),
                }
            }
        }
    }

    /// Asks a rate limit server about a request that some descriptor can be made of.
    async fn ask_server(&self, limit: &GlobalRateLimit, asked: &Asked<'_>) -> Result<(), Refusal> {
        let selected = limit.descriptors.iter();
        let selected = selected.filter(|descriptor| asked.is_selected(&descriptor.selector));
        let descriptors: Vec<Pairs> = selected
            .filter_map(|descriptor| pairs(descriptor, asked))
            .collect();
        if descriptors.is_empty() {
            return Ok(());
        }
        let traceparent = asked.head.headers.get("traceparent");
        let traceparent = traceparent.and_then(|value| value.to_str().ok());
        let answer = self.servers.ask(limit, descriptors, traceparent).await;
        self.telemetry.server_asked(match answer {
            Answer::Pass => "pass",
            Answer::OverLimit(_) => "over_limit",
            Answer::Unknown => "unknown",
        });
        match answer {
            Answer::OverLimit(retry_after) => Err(Refusal {
                retry_after,
                ..Refusal::new(Fault::RateLimited)
            }),
            Answer::Unknown if limit.deny_on_failure => Err(Refusal::new(Fault::RateLimitUnknown)),
            Answer::Pass | Answer::Unknown => Ok(()),
        }
    }

    /// Tells telemetry how much each port has to do; to be called every second or so.
    pub(super) fn show_concurrency(&self) {
        let configuration = self.discovery.current();
        let policy = |port: u16| {
            let inbound = configuration.inbound.as_ref();
            let known = inbound.and_then(|inbound| inbound.ports.iter().find(|p| p.port == port));
            known.map_or(Concurrency::default(), |known| known.policy.concurrency)
        };
        for seen in self.admission.seen(policy) {
            let numbers = [seen.limit.into(), seen.in_flight.into(), seen.exceeded];
            self.telemetry.concurrency(self.worker, seen.port, numbers);
        }
    }
}

/// What the server is told of a request; nothing where the request has no value for an entry.
fn pairs(descriptor: &Descriptor, asked: &Asked<'_>) -> Option<Pairs> {
    let entries = descriptor.entries.iter();
    entries
        .map(|(key, value)| {
            let value = match value {
                DescriptorValue::Text(text) => text.clone(),
                DescriptorValue::OfRequest(part) => asked.value(part)?,
            };
            Some((key.clone(), value))
        })
        .collect()
}

fn take_tokens(
    port: &Rc<Port>,
    policy: &InboundPolicy,
    asked: &Asked<'_>,
    now: Instant,
) -> Result<(), Refusal> {
    let taken = port.take_tokens(policy, asked, now);
    taken.map_err(|retry_after| Refusal {
        retry_after,
        ..Refusal::new(Fault::RateLimited)
    })
}
