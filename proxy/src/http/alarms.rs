//! Deadlines of what is carried: all of a thread have one timer of the runtime, and a task only while there are any.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Deadline;
use crate::model::Fault;
use crate::multiplex::{Turn, turn};

thread_local! {
    static ALARMS: RefCell<Alarms> = RefCell::default();
}

/// Who is to have a turn when.
#[derive(Default)]
struct Alarms {
    by_time: BTreeMap<Key, Rc<dyn Turn>>,
    /// Tells those of one moment apart.
    next: u64,
    /// Told of an alarm before all others; there while the task is.
    ringing: Option<Rc<Notify>>,
}

type Key = (Instant, u64);

/// Gives a turn at a deadline, unless it is dropped before.
pub(super) struct SetAlarm {
    key: Key,
    fault: Fault,
}

impl SetAlarm {
    pub(super) fn new(deadline: Deadline, turn: Rc<dyn Turn>) -> Self {
        let key = ALARMS.with_borrow_mut(|alarms| {
            let key = (deadline.at, alarms.next);
            alarms.next += 1;
            let is_first = alarms.first().is_none_or(|first| deadline.at < first);
            alarms.by_time.insert(key, turn);
            match &alarms.ringing {
                Some(ringing) if is_first => ringing.notify_one(),
                Some(_) => {}
                None => {
                    let earlier = Rc::<Notify>::default();
                    alarms.ringing = Some(earlier.clone());
                    tokio::task::spawn_local(ring(earlier));
                }
            }
            key
        });
        Self {
            key,
            fault: deadline.fault,
        }
    }

    /// Which fault it is, once the time is over.
    pub(super) fn rung(&self) -> Option<Fault> {
        (Instant::now() >= self.key.0).then_some(self.fault)
    }
}

impl Drop for SetAlarm {
    fn drop(&mut self) {
        // At the very end of a thread nothing is left to ring.
        let _ = ALARMS.try_with(|alarms| alarms.borrow_mut().by_time.remove(&self.key));
    }
}

impl Alarms {
    fn first(&self) -> Option<Instant> {
        let (key, _) = self.by_time.first_key_value()?;
        Some(key.0)
    }

    /// Takes the first alarm whose time has come.
    fn take_due(&mut self, now: Instant) -> Option<Rc<dyn Turn>> {
        let first = self.by_time.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// Without the task nobody would ring, so the next alarm begins another.
struct Ringing;

impl Drop for Ringing {
    fn drop(&mut self) {
        // At the very end of a thread nothing is left to ring.
        let _ = ALARMS.try_with(|alarms| alarms.borrow_mut().ringing = None);
    }
}

async fn ring(earlier: Rc<Notify>) {
    let ringing = Ringing;
    while let Some(first) = ALARMS.with_borrow(Alarms::first) {
        tokio::select! {
            () = sleep_until(first) => {}
            () = earlier.notified() => continue,
        }
        let now = Instant::now();
        while let Some(due) = ALARMS.with_borrow_mut(|alarms| alarms.take_due(now)) {
            turn::push(&due);
        }
        turn::run();
    }
    drop(ringing);
}
