//! Tasks that serve one stream after the other. A task for each stream would be made, moved and thrown
//! away again, several kilobytes each time; these stay, and their room with them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Serve;
use super::server2::serve_stream;
use crate::http2::Refused;
use crate::model::RequestHead;
use crate::multiplex::{Accepted, StreamReceiver, StreamSender};

/// Tasks of one kind that wait for a stream on each thread; one more ends with its stream.
const IDLE_MAX: usize = 512;

/// The tasks of one thread that serve streams of one kind.
pub struct Workers<S> {
    idle: RefCell<Vec<Rc<Desk<S>>>>,
    /// The fewest that were idle since the last sweep.
    unused: Cell<usize>,
}

/// Where a task finds its next stream.
struct Desk<S> {
    stream: RefCell<Option<Stream<S>>>,
    /// It has been idle for too long.
    leaves: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// A stream that is to be served.
pub(super) struct Stream<S> {
    pub(super) head: Result<RequestHead, Refused>,
    pub(super) receiver: StreamReceiver,
    pub(super) sender: StreamSender,
    pub(super) service: Rc<S>,
}

impl<S> Default for Workers<S> {
    fn default() -> Self {
        Self {
            idle: RefCell::default(),
            unused: Cell::default(),
        }
    }
}

impl<S: Serve> Workers<S> {
    /// Has a stream served by a task that is idle, or a new one.
    pub(super) fn serve(self: &Rc<Self>, accepted: Accepted<'_>, service: Rc<S>) {
        let Some(head) = accepted.head.take() else {
            return;
        };
        let stream = Some(Stream {
            head,
            receiver: accepted.receiver,
            sender: accepted.sender,
            service,
        });
        let idle = self.idle.borrow_mut().pop();
        if let Some(desk) = idle {
            self.unused
                .set(self.unused.get().min(self.idle.borrow().len()));
            desk.stream.replace(stream);
            return desk.wake();
        }
        self.unused.set(0);
        let desk = Rc::new(Desk {
            stream: RefCell::new(stream),
            leaves: Cell::default(),
            waker: Cell::default(),
        });
        tokio::task::spawn_local(work(self.clone(), desk));
    }

    /// Sends tasks away that had nothing to do since the last call; to be called every second or so.
    pub fn sweep(&self) {
        let unused = self.unused.get();
        for desk in self.idle.borrow_mut().drain(..unused) {
            desk.leaves.set(true);
            desk.wake();
        }
        self.unused.set(self.idle.borrow().len());
    }

    /// Whether the task is to wait for another stream.
    fn keep(&self, desk: &Rc<Desk<S>>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let keeps = idle.len() < IDLE_MAX;
        if keeps {
            idle.push(desk.clone());
        }
        keeps
    }
}

impl<S> Desk<S> {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for the next stream; false when the task is to end.
    async fn has_next(&self) -> bool {
        poll_fn(|cx| {
            if self.stream.borrow().is_some() {
                return Poll::Ready(true);
            }
            if self.leaves.get() {
                return Poll::Ready(false);
            }
            self.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

/// A panic ends the task and with it the stream, and nobody waits for it: its desk is not among the
/// idle ones.
async fn work<S: Serve>(workers: Rc<Workers<S>>, desk: Rc<Desk<S>>) {
    while desk.has_next().await {
        serve_stream(&desk.stream).await;
        if !workers.keep(&desk) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode, Version};
    use tokio::sync::{Notify, watch};
    use tokio::task::LocalSet;

    use super::super::{Request, ServerLimits, Told, serve_http2};
    use super::*;
    use crate::http2::{Failure, Limits, Piece, Role};
    use crate::model::{Fields, RequestHead, ResponseHead, Text};
    use crate::multiplex::Multiplex;

    /// Answers `/`, answers `/wait` once it is told to, and panics at `/panic`.
    #[derive(Default)]
    struct Service {
        workers: Rc<Workers<Service>>,
        waiting: Cell<usize>,
        go_on: Notify,
    }

    impl Serve for Service {
        async fn serve(&self, request: &mut Request<'_>) {
            match &*request.head.path {
                "/panic" => panic!("asked for"),
                "/wait" => {
                    self.waiting.set(self.waiting.get() + 1);
                    self.go_on.notified().await;
                }
                _ => {}
            }
            let head = ResponseHead {
                status: StatusCode::OK,
                version: Version::HTTP_2,
                upgrade: None,
                headers: Fields::new(),
            };
            let responder = request.responder.take().unwrap();
            assert!(responder.respond(head, true).is_ok());
        }

        fn refused(&self, _: Told, _: Version) {}

        fn workers(&self) -> &Rc<Workers<Self>> {
            &self.workers
        }
    }

    async fn ask(client: &Rc<Multiplex>, path: &'static str) -> Result<StatusCode, Failure> {
        let head = RequestHead {
            method: Method::GET,
            scheme: None,
            authority: None,
            path: Text::from_static(path),
            version: Version::HTTP_2,
            upgrade: None,
            headers: Fields::new(),
        };
        let (_sender, mut receiver) = client.open(&head, |_| {}, true).unwrap();
        match receiver.next().await? {
            Some(Piece::Head(head)) => Ok(head.status),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn tasks_stay_and_a_panic_takes_one_stream() {
        let test = async {
            let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
            let service = Rc::new(Service::default());
            let serving = service.clone();
            let (_draining, drain) = watch::channel(false);
            tokio::task::spawn_local(async move {
                serve_http2(theirs, serving, &ServerLimits::default(), drain, None).await;
            });
            let client = Multiplex::new(Role::Client, Limits::default());
            let driven = client.clone();
            tokio::task::spawn_local(async move { driven.drive(&mut ours, |_| {}).await });
            client.ping().await.unwrap();
            let idle = || service.workers.idle.borrow().len();

            for _ in 0..3 {
                assert_eq!(ask(&client, "/").await, Ok(StatusCode::OK));
            }
            assert_eq!(idle(), 1, "one after the other");
            let asked: Vec<_> = (0..4)
                .map(|_| {
                    let client = client.clone();
                    tokio::task::spawn_local(async move { ask(&client, "/wait").await })
                })
                .collect();
            while service.waiting.get() < 4 {
                tokio::task::yield_now().await;
            }
            service.go_on.notify_waiters();
            for answer in asked {
                assert_eq!(answer.await.unwrap(), Ok(StatusCode::OK));
            }
            assert_eq!(idle(), 4, "side by side");

            assert!(ask(&client, "/panic").await.is_err());
            assert_eq!(idle(), 3, "the one that panicked is gone");
            assert_eq!(ask(&client, "/").await, Ok(StatusCode::OK));

            // Of three one was used since the last sweep, if there was one; then none.
            service.workers.sweep();
            assert_eq!(ask(&client, "/").await, Ok(StatusCode::OK));
            service.workers.sweep();
            assert_eq!(idle(), 1);
            service.workers.sweep();
            assert_eq!(idle(), 0);
            assert_eq!(ask(&client, "/").await, Ok(StatusCode::OK));
        };
        LocalSet::new().run_until(test).await;
    }
}
