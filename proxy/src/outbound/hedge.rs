//! Hedging: an idempotent request that takes longer than most is sent to a second endpoint as well, and whoever
//! answers first has it. It is a repetition, so it is in the same budget as the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::{blame, seen};
use super::http::OutboundRequests;
use super::session::Session;
use super::target::Target;
use crate::balance::{Picked, Wanted};
use crate::http::{
    Attempt, Failure, Outcome, Prize, Request, Terms, exchange_for, is_idempotent, race,
};
use crate::model::{Endpoint, RequestHead};

/// Where and how an attempt is made.
#[derive(Clone, Copy)]
pub(super) struct Way<'w> {
    pub target: &'w Target,
    pub before: Option<Session>,
    pub terms: Terms<'w>,
}

/// When a second attempt at a request begins, where its cluster asks for one and it does no harm.
pub(super) fn hedge_after(request: &Request<'_>, picked: &Picked) -> Option<Duration> {
    let after = picked.hedge_after()?;
    let head = &request.head;
    let harmless = is_idempotent(&head.method) && request.body.is_empty();
    (harmless && head.upgrade.is_none()).then_some(after)
}

impl OutboundRequests {
    /// Sends a request to `first`, and after a while to another endpoint as well. `first` becomes whoever it ended
    /// at; the other one is among those that were `tried`. The number says how many attempts were added.
    pub(super) async fn send_hedged(
        &self,
        request: &mut Request<'_>,
        first: &mut Picked,
        tried: &mut Vec<Arc<str>>,
        after: Duration,
        way: Way<'_>,
    ) -> (Result<Outcome, Failure>, u32) {
        let began = Instant::now();
        let prize = Prize::new(request.responder.take());
        let head = &request.head;
        let endpoint = first.endpoint.clone();
        let attempt: Attempt<'_> = Box::pin(self.one(&prize, head, endpoint, way));
        let mut attempts = [Some(attempt), None];
        let ended = tokio::time::timeout(after, race(&mut attempts, &prize)).await;
        // Whoever has begun to answer goes on with it.
        let second = match ended.is_err() && !prize.is_won() {
            true => self.pick_other(way.target, first, tried),
            false => None,
        };
        let (ended, hedges) = match (ended, second) {
            (Ok((_, ended)), _) => (ended, 0),
            (Err(_), None) => (race(&mut attempts, &prize).await.1, 0),
            (Err(_), Some(mut second)) => {
                let hedged = Instant::now();
                let endpoint = second.endpoint.clone();
                attempts[1] = Some(Box::pin(self.one(&prize, head, endpoint, way)));
                let (mut index, mut ended) = race(&mut attempts, &prize).await;
                let failed = matches!(ended, Err(Failure::Unanswered(_) | Failure::Again(_)));
                if failed && attempts[1 - index].is_some() {
                    // The other one may still answer.
                    learn([first, &second][index], &ended);
                    (index, ended) = race(&mut attempts, &prize).await;
                } else {
                    let since = [began, hedged][1 - index];
                    [&*first, &second][1 - index].outpaced(since.elapsed(), Instant::now());
                }
                if index == 1 {
                    std::mem::swap(first, &mut second);
                }
                tried.push(second.endpoint.id.clone());
                (ended, 1)
            }
        };
        drop(attempts);
        request.responder = prize.into_inner();
        (ended, hedges)
    }

    /// Another endpoint, where there is one and another attempt is in the budget.
    fn pick_other(&self, target: &Target, first: &Picked, tried: &[Arc<str>]) -> Option<Picked> {
        let cluster = target.cluster.as_ref()?;
        let mut tried = tried.to_vec();
        tried.push(first.endpoint.id.clone());
        let (balancer, now) = (&self.outbound.balancer, Instant::now());
        if !balancer.has_untried(cluster, &tried) || !balancer.may_repeat(cluster, now) {
            return None;
        }
        let wanted = Wanted {
            tried: &tried,
            ..Wanted::default()
        };
        self.pick(cluster, wanted, now)
    }

    /// One attempt, for the prize.
    async fn one(
        &self,
        prize: &Prize<'_>,
        head: &RequestHead,
        endpoint: Arc<Endpoint>,
        way: Way<'_>,
    ) -> Result<Outcome, Failure> {
        let mut head = head.clone();
        let Way {
            target,
            before,
            terms,
        } = way;
        let mut opened = self
            .open(&mut head, target, Some(&endpoint), terms.deadline)
            .await?;
        let change = |head: &mut _| target.change_response(head, Some(&endpoint), before);
        let terms = Terms {
            change: target.changes_response().then_some(&change),
            ..terms
        };
        let outcome = exchange_for(prize, &mut head, &mut opened.upstream, terms).await?;
        if outcome.reusable {
            self.outbound.endpoints.give_back(opened);
        }
        Ok(outcome)
    }
}

/// Takes in how one of two did, whose failure isn't the last word.
fn learn(picked: &Picked, ended: &Result<Outcome, Failure>) {
    match ended {
        Err(Failure::Again(outcome)) => picked.answered(seen(outcome), Instant::now),
        Err(Failure::Unanswered(failed)) => blame(picked, failed),
        Ok(_) | Err(Failure::ClientGone) => {}
    }
}
