//! Tracks whether calls wait for a connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;

/// The time after which a call that found no connection counts as gone. Calls that wait look again
/// within a second.
const RECENT: Duration = Duration::from_secs(2);

/// The last time at which a call has found no connection.
#[derive(Debug)]
pub(super) struct Demand {
    start: Instant,
    /// Milliseconds since `start`, plus 1; 0: never.
    last: AtomicU64,
}

impl Demand {
    pub(super) fn new() -> Self {
        Self {
            start: clock::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Records a call that has found no connection. Returns `true` if it is the first one for some
    /// time.
    pub(super) fn note(&self) -> bool {
        let now = self.now();
        !is_recent(self.last.swap(now, Ordering::Relaxed), now)
    }

    /// Returns `true` if calls wait for a connection.
    pub(super) fn is_recent(&self) -> bool {
        is_recent(self.last.load(Ordering::Relaxed), self.now())
    }

    fn now(&self) -> u64 {
        let elapsed = clock::now().saturating_duration_since(self.start);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

fn is_recent(last: u64, now: u64) -> bool {
    last > 0 && u128::from(now.saturating_sub(last)) < RECENT.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_connection_is_a_demand_for_two_seconds() {
        let demand = Demand::new();
        assert!(!demand.is_recent());
        assert!(demand.note(), "the first");
        assert!(!demand.note());
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert!(demand.is_recent() && !demand.note());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!demand.is_recent());
        assert!(demand.note(), "the first for some time");
    }
}
