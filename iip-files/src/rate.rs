//! A limit on bytes per second.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::locked;

/// Time of a pause whose unused bytes may be sent after it.
const BURST: Duration = Duration::from_millis(100);

/// A limit that several transfers share. It returns the times at which bytes may be sent or
/// received.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    /// The time at which the rate allows all bytes taken so far.
    paid: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            per_second: bytes_per_second.max(1),
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Takes `bytes`, and returns the time before which no further bytes may be taken.
    pub(crate) fn take(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let cost = Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
        let mut paid = locked(&self.paid);
        let start = now
            .checked_sub(BURST)
            .map_or(*paid, |earliest| earliest.max(*paid));
        *paid = start.checked_add(cost).unwrap_or(start);
        *paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_beyond_a_burst_are_spread_over_time() {
        let start = Instant::now();
        let rate = Rate::new(1000);
        for _ in 0..50 {
            tokio::time::sleep_until(rate.take(100)).await;
        }
        assert_eq!(start.elapsed().as_secs(), 5);
        // After a long pause, only the bytes of a burst may be caught up on.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..50 {
            tokio::time::sleep_until(rate.take(100)).await;
        }
        assert!(
            start.elapsed() >= Duration::from_millis(4890),
            "{:?}",
            start.elapsed()
        );
    }
}
