//! Who is called in the place of a task that is woken. A request that is only handed on from one connection to another
//! needs no task: whoever drives the connections lets it have its turn when something came for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use tracing::error;

/// Requests and turns for which one look at the clock does: some tens of microseconds' work, where each look of its own
/// costs a hundredth of what a request does.
pub(super) const LOOK_EVERY: usize = 32;

/// Has a turn whenever something happened to a stream that it is attached to.
pub trait Turn: fmt::Debug {
    /// Does what can be done `now`. It must not wait, and is not called while a connection is being looked at.
    fn turn(self: Rc<Self>, now: Instant);
    /// A turn panicked: lets go of the streams, which ends them.
    fn give_up(&self);
    /// Whether it waits for its turn.
    fn is_due(&self) -> &Cell<bool>;
}

thread_local! {
    /// Who is to have a turn, on this thread.
    static DUE: RefCell<VecDeque<Rc<dyn Turn>>> = const { RefCell::new(VecDeque::new()) };
}

/// Has it called in the next [`run`].
pub fn push(turn: &Rc<dyn Turn>) {
    if !turn.is_due().replace(true) {
        DUE.with_borrow_mut(|due| due.push_back(turn.clone()));
    }
}

/// Whether nobody is to have a turn.
pub(super) fn is_empty() -> bool {
    DUE.with_borrow(VecDeque::is_empty)
}

/// Lets everybody have a turn who is to have one. A panic ends what had its turn, and nothing else.
pub fn run() {
    while !is_empty() {
        let now = Instant::now();
        for _ in 0..LOOK_EVERY {
            let Some(next) = DUE.with_borrow_mut(VecDeque::pop_front) else {
                return;
            };
            next.is_due().set(false);
            let turn = next.clone();
            if catch_unwind(AssertUnwindSafe(|| turn.turn(now))).is_err() {
                error!("a stream's turn panicked; the stream is ended");
                next.give_up();
            }
        }
    }
}
