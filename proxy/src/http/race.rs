//! One request at two upstreams at once: the first answer is the client's, and the other attempt is called off.
//! Only for requests without a body, because nobody could send one body twice at a time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::StatusCode;

use super::exchange::receive_response;
use super::terms::Alarm;
use super::{Failure, Outcome, Responder, Terms, Unanswered, Upstream};
use crate::model::{Fault, RequestHead};

/// Where the answer goes: to whoever has one first.
pub struct Prize<'d>(RefCell<Option<Responder<'d>>>);

impl<'d> Prize<'d> {
    pub fn new(responder: Option<Responder<'d>>) -> Self {
        Self(RefCell::new(responder))
    }

    /// Whether somebody has it.
    pub fn is_won(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// Ready once the client is gone, as long as nobody has it.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.0.borrow_mut() {
            Some(responder) => pin!(responder.gone()).poll(cx),
            None => Poll::Pending,
        }
    }

    /// What nobody won.
    pub fn into_inner(self) -> Option<Responder<'d>> {
        self.0.into_inner()
    }
}

/// As [`super::exchange`], for a request without a body, and for the prize. Who comes second gets
/// [`Failure::ClientGone`].
pub async fn exchange_for(
    prize: &Prize<'_>,
    head: &mut RequestHead,
    upstream: &mut Upstream,
    terms: Terms<'_>,
) -> Result<Outcome, Failure> {
    let mut alarm = Alarm::new(terms.deadline);
    let watch = terms.watch();
    let (mut sink, mut answer) = upstream
        .send(head, true)
        .await
        .map_err(Failure::Unanswered)?;
    // An upstream that takes nothing ends, which is seen where its answer is awaited.
    let _ = sink.flush().await;
    let mut response = loop {
        let received = tokio::select! {
            biased;
            received = answer.next_head() => received.map_err(Failure::Unanswered)?,
            fault = alarm.rings() => return Err(Failure::Unanswered(Unanswered::late(fault))),
        };
        // An informational answer may be that of the attempt which loses.
        if !received.status.is_informational() {
            break received;
        }
        if received.status == StatusCode::SWITCHING_PROTOCOLS {
            let broken = Unanswered::late(Fault::UpstreamProtocol);
            return Err(Failure::Unanswered(broken));
        }
    };
    let mut outcome = Outcome::of(&response, watch.read());
    if terms.again.is_some_and(|again| again(&response)) {
        return Err(Failure::Again(outcome));
    }
    let Some(responder) = prize.0.borrow_mut().take() else {
        return Err(Failure::ClientGone);
    };
    if let Some(change) = terms.change {
        change(&mut response);
    }
    receive_response(response, &mut answer, responder, &mut outcome, &mut alarm).await?;
    outcome.reusable = answer.keeps_alive() && outcome.fault.is_none();
    Ok(outcome)
}

/// An attempt on its way.
pub type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Outcome, Failure>> + 'a>>;

/// Runs attempts until one of them ends; once one has the prize, the other is called off. Says which one it was.
pub async fn race(
    attempts: &mut [Option<Attempt<'_>>; 2],
    prize: &Prize<'_>,
) -> (usize, Result<Outcome, Failure>) {
    poll_fn(|cx| {
        for index in 0..attempts.len() {
            let was_won = prize.is_won();
            let Some(attempt) = &mut attempts[index] else {
                continue;
            };
            if let Poll::Ready(ended) = attempt.as_mut().poll(cx) {
                attempts[index] = None;
                return Poll::Ready((index, ended));
            }
            if prize.is_won() && !was_won {
                attempts[1 - index] = None;
            }
        }
        prize.poll_gone(cx).map(|()| (0, Err(Failure::ClientGone)))
    })
    .await
}
