//! Faults that are made on purpose, before a request goes anywhere.

use rand::Rng;

use super::attempt::sleep;
use super::http::{OutboundRequests, Trail};
use super::target::Target;
use crate::http::{Deadline, Failure, Unanswered};
use crate::model::{Fault, FaultInjection, RequestHead, SHARES};
use crate::route;

impl OutboundRequests {
    /// Has a request wait, or fail, as a policy of its rule or its cluster asks for.
    pub(super) async fn inject(
        &self,
        head: &RequestHead,
        trail: &mut Trail,
        whole: Option<Deadline>,
    ) -> Result<(), Failure> {
        let is_for = |fault: &&FaultInjection| {
            let matches = fault.matches.as_ref();
            matches.is_none_or(|matches| route::matches(matches, head))
        };
        let mut faults = trail.target.iter().flat_map(Target::faults);
        let Some(fault) = faults.find(is_for) else {
            return Ok(());
        };
        let (delay, abort) = (fault.delay, fault.abort);
        let is_hit = |share: u32| {
            let mut random = self.outbound.random.borrow_mut();
            random.random_range(0..SHARES) < share
        };
        if let Some((share, delay)) = delay
            && is_hit(share)
        {
            sleep(delay, whole).await?;
        }
        match abort {
            Some((share, status)) if is_hit(share) => {
                trail.status = Some(status);
                let injected = Unanswered::unprocessed(Fault::FaultInjected);
                Err(Failure::Unanswered(injected))
            }
            _ => Ok(()),
        }
    }
}
