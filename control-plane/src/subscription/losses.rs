//! Tells the end of a few proxies from the end of the network.

use std::time::Duration;

use tokio::time::Instant;

/// Losses within this time belong together.
const WINDOW: Duration = Duration::from_secs(1);
/// Fewer losses are what they look like.
const LOSSES_MIN: usize = 3;

/// Connections that ended without a goodbye, lately.
#[derive(Debug, Default)]
pub struct Losses {
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    connected: usize,
    lost: usize,
}

impl Losses {
    /// Notes a loss, of `connected` proxies. True when more than half of those that were connected
    /// are lost within a second: then it was this machine that could not be reached (or was stopped
    /// for a while), the workloads are most likely well, and their proxies will be back.
    pub fn record(&mut self, connected: usize, now: Instant) -> bool {
        let current = self.window.take_if(|window| now < window.began + WINDOW);
        let mut window = current.unwrap_or(Window {
            began: now,
            connected,
            lost: 0,
        });
        window.lost += 1;
        let is_mass = window.lost >= LOSSES_MIN && 2 * window.lost > window.connected;
        self.window = Some(window);
        is_mass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_at_once_is_told_from_some() {
        let check = |connected: usize, lost: usize, apart: Duration, expect: bool| {
            let mut losses = Losses::default();
            let start = Instant::now();
            let mut last = false;
            for (index, already) in (0..lost).zip(0_u32..) {
                last = losses.record(connected - index, start + apart * already);
            }
            assert_eq!(last, expect, "{lost} of {connected}, {apart:?} apart");
        };
        let at_once = Duration::from_millis(1);
        check(2, 1, at_once, false);
        check(2, 2, at_once, false);
        check(4, 2, at_once, false);
        check(4, 3, at_once, true);
        check(100, 50, at_once, false);
        check(100, 51, at_once, true);
        check(100, 60, Duration::from_millis(50), false);
    }
}
