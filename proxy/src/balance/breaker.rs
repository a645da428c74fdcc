//! Circuit breaking: how much is on its way at once, and who waits for room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// Room for so many.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: Cell<u32>,
    waiting: RefCell<VecDeque<oneshot::Sender<()>>>,
}

/// What becomes of one more.
#[derive(Debug)]
pub enum Admission {
    Admitted(Admitted),
    /// It waits for its turn.
    Waits(Waiting),
    /// Too many wait already.
    Refused,
}

/// A place that is given back when this is dropped: to whoever waits longest.
#[derive(Debug)]
pub struct Admitted {
    room: Rc<Room>,
}

/// Becomes a place; dropping it gives up waiting.
#[derive(Debug)]
pub struct Waiting {
    called: oneshot::Receiver<()>,
    room: Rc<Room>,
}

impl Room {
    pub(super) fn is_busy(&self) -> bool {
        self.taken.get() > 0
    }

    pub(super) fn admit(self: &Rc<Self>, most: u32, waiting_max: u32) -> Admission {
        if self.taken.get() < most {
            self.taken.set(self.taken.get() + 1);
            return Admission::Admitted(Admitted { room: self.clone() });
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|one| !one.is_closed());
        if waiting.len() >= waiting_max as usize {
            return Admission::Refused;
        }
        let (sender, called) = oneshot::channel();
        waiting.push_back(sender);
        let room = self.clone();
        Admission::Waits(Waiting { called, room })
    }

    /// Gives a place to whoever waits longest.
    fn release(&self) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(next) = next else {
                return self.taken.set(self.taken.get() - 1);
            };
            // Whoever waited may be gone.
            if next.send(()).is_ok() {
                return;
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.room.release();
    }
}

impl Future for Waiting {
    type Output = Admitted;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.called).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Admitted {
                room: self.room.clone(),
            }),
            // The sender is the room's own, which lives as long as this.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It was called, and had not heard it yet.
        if self.called.try_recv().is_ok() {
            self.room.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn admitted(admission: Admission) -> Admitted {
        match admission {
            Admission::Admitted(admitted) => admitted,
            other => panic!("{other:?}"),
        }
    }

    fn waiting(admission: Admission) -> Waiting {
        match admission {
            Admission::Waits(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_go_to_whoever_waits_longest() {
        let room = Rc::new(Room::default());
        let first = admitted(room.admit(2, 2));
        let second = admitted(room.admit(2, 2));
        let mut third = waiting(room.admit(2, 2));
        let mut fourth = waiting(room.admit(2, 2));
        assert!(matches!(room.admit(2, 2), Admission::Refused));
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        let third = (&mut third).now_or_never().unwrap();
        assert!((&mut fourth).now_or_never().is_none());
        drop((second, third));
        drop((&mut fourth).now_or_never().unwrap());
        assert!(!room.is_busy());
    }

    #[test]
    fn who_gives_up_loses_nobodys_place() {
        let room = Rc::new(Room::default());
        let first = admitted(room.admit(1, 9));
        let gone = waiting(room.admit(1, 9));
        let called = waiting(room.admit(1, 9));
        let mut last = waiting(room.admit(1, 9));
        drop(gone);
        drop(first);
        // Called by now, and gone before it hears it.
        drop(called);
        drop((&mut last).now_or_never().unwrap());
        assert!(!room.is_busy());
        assert!(matches!(room.admit(1, 0), Admission::Admitted(_)));
    }
}
