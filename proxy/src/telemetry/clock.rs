//! The wall clock, for people who read traces and logs.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

/// How long one look at the wall clock is good for: as long it takes to notice that it was set.
const LOOK_LIFE: Duration = Duration::from_secs(1);

thread_local! {
    static LOOK: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}

/// What the wall clock showed `at` a moment that is about now. Each thread looks at it once a second and reckons
/// from there, because every request asks; so the moments of one request fit together also while the clock is set.
pub fn wall_clock(at: Instant) -> SystemTime {
    let (since, shown) = LOOK.get().unwrap_or_else(look);
    match at.checked_duration_since(since) {
        Some(later) if later < LOOK_LIFE => shown + later,
        Some(_) => reckon(look(), at),
        None => reckon((since, shown), at),
    }
}

fn look() -> (Instant, SystemTime) {
    let look = (Instant::now(), SystemTime::now());
    LOOK.set(Some(look));
    look
}

fn reckon((since, shown): (Instant, SystemTime), at: Instant) -> SystemTime {
    match at.checked_duration_since(since) {
        Some(later) => shown + later,
        None => shown - since.saturating_duration_since(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_distance() {
        let now = Instant::now();
        let shown = wall_clock(now);
        let off = SystemTime::now().duration_since(shown).unwrap();
        assert!(off < LOOK_LIFE, "{off:?}");
        for step in [1, 500, 999] {
            let step = Duration::from_millis(step);
            assert_eq!(wall_clock(now + step), shown + step);
        }
        // A request that began before the last look.
        let before = now.checked_sub(Duration::from_millis(300)).unwrap();
        assert_eq!(wall_clock(before), shown - Duration::from_millis(300));
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let now = Instant::now();
        let wrong = SystemTime::UNIX_EPOCH;
        LOOK.set(Some((now, wrong)));
        let half = LOOK_LIFE / 2;
        assert_eq!(wall_clock(now + half), wrong + half);
        assert!(wall_clock(now + LOOK_LIFE) > SystemTime::now() - half);
    }
}
