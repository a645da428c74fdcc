//! What a route demands of an exchange.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Unanswered;
use crate::model::{Fault, ResponseHead};

/// What a route demands of an exchange; nothing by default.
#[derive(Clone, Copy, Default)]
pub struct Terms<'t> {
    pub deadline: Option<Deadline>,
    /// Changes the final answer's head before the client gets it.
    pub change: Option<&'t dyn Fn(&mut ResponseHead)>,
    /// Whether an answer is thrown away, because the request is to be sent again.
    pub again: Option<&'t dyn Fn(&ResponseHead) -> bool>,
    /// Whether the latency is to be measured. Most exchanges are spared the two looks at the clock.
    pub timed: bool,
}

impl Terms<'_> {
    /// Begins to measure, where that is asked for.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.timed.then(Instant::now))
    }
}

/// Measures from when it was made.
#[derive(Default)]
pub(super) struct Watch(Option<Instant>);

impl Watch {
    pub(super) fn read(&self) -> Option<Duration> {
        self.0.map(|began| began.elapsed())
    }
}

/// When an exchange has to be over, and which fault it is if it isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    pub at: Instant,
    pub fault: Fault,
}

impl Deadline {
    /// How long it is until then.
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The one that comes first.
    pub fn first(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.at < one.at { other } else { one }),
            (one, other) => one.or(other),
        }
    }
}

/// Rings at a deadline. Most exchanges have none, so what rings is boxed.
pub(super) struct Alarm(Option<(Pin<Box<Sleep>>, Fault)>);

impl Alarm {
    pub(super) fn new(deadline: Option<Deadline>) -> Self {
        Self(deadline.map(|Deadline { at, fault }| (Box::pin(sleep_until(at)), fault)))
    }

    /// Returns at the deadline, and each time that it is asked later. Cancel-safe.
    pub(super) async fn rings(&mut self) -> Fault {
        match &mut self.0 {
            Some((sleep, fault)) => {
                sleep.as_mut().await;
                *fault
            }
            None => pending().await,
        }
    }
}

/// Does something that has to be over by a deadline. The application has seen nothing of the request
/// as long as it goes on.
pub async fn within<T>(
    deadline: Option<Deadline>,
    future: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, Unanswered> {
    let mut alarm = Alarm::new(deadline);
    tokio::select! {
        biased;
        done = future => done,
        fault = alarm.rings() => Err(match fault {
            // With the time of the whole request that of further attempts is over too.
            Fault::RequestTimeout => Unanswered::late(fault),
            _ => Unanswered::unprocessed(fault),
        }),
    }
}
