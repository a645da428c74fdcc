//! Requests that are sent a second time, to somebody whose answer nobody waits for. The original never
//! waits for its copy: a copy that can't keep up is broken off.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::{Outcome, Piece, Sink, Unanswered, Upstream};
use crate::http2::ErrorCode;
use crate::model::{Fault, Fields, RequestHead};

/// Bytes of a body that wait for their copy to be sent; with one more the copy is broken off.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// The pieces of a body, as they are received for somebody else. A clone is the same copy.
#[derive(Clone, Default)]
pub struct BodyCopy(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Bytes that were taken.
    taken: u64,
    /// The end was received.
    ended: bool,
    /// There will be no end.
    broken: bool,
    waker: Option<Waker>,
}

impl BodyCopy {
    /// `empty` says that there is no body.
    pub(super) fn new(empty: bool) -> Self {
        let queue = Queue {
            ended: empty,
            ..Queue::default()
        };
        Self(Rc::new(RefCell::new(queue)))
    }

    pub(super) fn push(&self, piece: &Piece) {
        let mut queue = self.0.borrow_mut();
        if queue.ended || queue.broken {
            return;
        }
        match piece {
            Piece::Data(data) => queue.bytes += data.len(),
            Piece::End(_) => queue.ended = true,
        }
        if queue.bytes > WAITING_BYTES_MAX {
            queue.broken = true;
            queue.pieces = VecDeque::new();
        } else {
            queue.pieces.push_back(piece.clone());
        }
        queue.wake();
    }

    /// Nothing more comes; what has no end by now stays without.
    pub(super) fn break_off(&self) {
        let mut queue = self.0.borrow_mut();
        queue.broken |= !queue.ended;
        queue.wake();
    }

    /// Whether there is no body.
    fn is_empty(&self) -> bool {
        let queue = self.0.borrow();
        queue.ended && queue.pieces.is_empty()
    }

    /// Bytes of the body that were handed on.
    pub fn bytes(&self) -> u64 {
        self.0.borrow().taken
    }

    /// The next piece; nothing when the copy is broken off.
    async fn next(&self) -> Option<Piece> {
        poll_fn(|cx| {
            let mut queue = self.0.borrow_mut();
            if queue.broken {
                return Poll::Ready(None);
            }
            if let Some(piece) = queue.pieces.pop_front() {
                if let Piece::Data(data) = &piece {
                    queue.bytes -= data.len();
                    queue.taken += data.len() as u64;
                }
                return Poll::Ready(Some(piece));
            }
            if queue.ended {
                return Poll::Ready(Some(Piece::End(Fields::new())));
            }
            queue.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Sends a copy and throws its answer away, but for what its head says.
pub async fn exchange_copy(
    head: &mut RequestHead,
    copy: &BodyCopy,
    upstream: &mut Upstream,
) -> Result<Outcome, Unanswered> {
    let empty = copy.is_empty();
    let sent_whole = empty && upstream.ends_with_head();
    let (mut sink, mut answer) = upstream.send(head, empty).await?;
    let mut sending = pin!(async {
        if !sent_whole {
            send(copy, &mut sink).await;
        }
        // Whatever became of it, the answer or its absence says the rest.
        std::future::pending::<()>().await;
    });
    let outcome = loop {
        let received = tokio::select! {
            biased;
            received = answer.next_head() => received?,
            () = &mut sending => continue,
        };
        if !received.status.is_informational() {
            break Outcome::of(&received, None);
        }
    };
    let mut body = answer
        .body()
        .ok_or(Unanswered::late(Fault::UpstreamReset))?;
    loop {
        let piece = tokio::select! {
            biased;
            piece = body.next() => piece,
            () = &mut sending => continue,
        };
        match piece {
            Ok(Piece::Data(_)) => {}
            Ok(Piece::End(_)) => return Ok(outcome),
            Err(_) => return Err(Unanswered::late(Fault::UpstreamReset)),
        }
    }
}

async fn send(copy: &BodyCopy, sink: &mut Sink<'_>) {
    loop {
        let sent = match copy.next().await {
            Some(Piece::Data(data)) => match sink.data(data).await {
                Ok(()) => sink.flush().await,
                Err(error) => Err(error),
            },
            Some(Piece::End(trailers)) => {
                // An upstream that is gone is seen where its answer is awaited.
                let _ = sink.finish(trailers).await;
                return;
            }
            None => return sink.reset(ErrorCode::CANCEL),
        };
        if sent.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;

    fn data(length: usize) -> Piece {
        Piece::Data(Bytes::from(vec![0; length]))
    }

    /// What a copy gives without waiting: sizes, `end`, `broken`, or `waits`.
    fn next(copy: &BodyCopy) -> String {
        match copy.next().now_or_never() {
            None => "waits".to_owned(),
            Some(None) => "broken".to_owned(),
            Some(Some(Piece::Data(data))) => data.len().to_string(),
            Some(Some(Piece::End(_))) => "end".to_owned(),
        }
    }

    #[test]
    fn a_copy_follows_and_is_broken_off_when_it_cannot() {
        let copy = BodyCopy::new(false);
        assert_eq!(next(&copy), "waits");
        copy.push(&data(3));
        copy.push(&data(WAITING_BYTES_MAX - 3));
        assert_eq!(next(&copy), "3");
        copy.push(&data(3));
        assert_eq!(next(&copy), (WAITING_BYTES_MAX - 3).to_string());
        copy.push(&Piece::End(Fields::new()));
        copy.break_off();
        assert_eq!(
            (next(&copy), next(&copy)),
            ("3".to_owned(), "end".to_owned())
        );

        assert_eq!(copy.bytes(), WAITING_BYTES_MAX as u64 + 3);

        let slow = BodyCopy::new(false);
        slow.push(&data(WAITING_BYTES_MAX));
        slow.push(&data(1));
        assert_eq!(next(&slow), "broken");

        let cut = BodyCopy::new(false);
        cut.push(&data(1));
        cut.break_off();
        assert_eq!(next(&cut), "broken");

        let empty = BodyCopy::new(true);
        empty.break_off();
        assert!(empty.is_empty());
        assert_eq!(next(&empty), "end");
    }
}
