//! What a peer may do that costs us and gets it nothing: each such thing is paid from a budget that
//! time and useful work refill. A budget that is used up ends the connection (RFC 9113 10.5).

use std::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    refilled: Option<Instant>,
}

impl Budget {
    pub fn new(most: u32, per_second: u32) -> Self {
        Self {
            left: most,
            most,
            per_second,
            refilled: None,
        }
    }

    /// Pays for one thing; false when nothing is left.
    #[must_use]
    pub fn pay(&mut self, now: Instant) -> bool {
        let since = *self.refilled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since).as_millis();
        let earned = elapsed * u128::from(self.per_second) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.most);
            self.refilled = Some(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Useful work was done.
    pub fn refund(&mut self) {
        self.left = (self.left + 1).min(self.most);
    }
}
