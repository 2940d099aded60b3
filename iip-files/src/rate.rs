//! A limit on bytes per second.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::service::MAX_PIECE_BYTES;
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

    /// Waits until the rate allows `bytes`. They are taken in steps, so other transfers get their
    /// share meanwhile.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, only the bytes of the time that has passed remain taken.
    pub(crate) async fn pay(&self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            left -= self.pay_step(left).await;
        }
    }

    /// Waits until the rate allows `bytes`, at most until this time. Returns the number of bytes
    /// that it allows.
    pub(crate) async fn pay_until(&self, bytes: usize, until: Instant) -> usize {
        let mut paid = 0;
        while paid < bytes {
            match timeout_at(until, self.pay_step(bytes - paid)).await {
                Ok(step) => paid += step,
                Err(_) => break,
            }
        }
        paid
    }

    /// Waits for the next of `left` bytes, and returns their number.
    async fn pay_step(&self, left: usize) -> usize {
        let step = left.min(self.step_bytes());
        let mut owed = Owed {
            rate: self,
            bytes: step,
        };
        sleep_until(self.take(step)).await;
        owed.bytes = 0;
        step
    }

    /// Returns the number of bytes that are taken at once: those of a [`BURST`], but
    /// at most a piece.
    fn step_bytes(&self) -> usize {
        let of_burst = self.per_second / (1000 / BURST.as_millis() as u64);
        usize::try_from(of_burst).map_or(MAX_PIECE_BYTES, |bytes| bytes.clamp(1, MAX_PIECE_BYTES))
    }

    fn cost(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.per_second as f64)
    }

    /// Takes `bytes`, and returns the time before which no further bytes may be taken.
    pub(crate) fn take(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let mut paid = locked(&self.paid);
        let start = now
            .checked_sub(BURST)
            .map_or(*paid, |earliest| earliest.max(*paid));
        *paid = start.checked_add(self.cost(bytes)).unwrap_or(start);
        *paid
    }

    fn give_back(&self, bytes: usize) {
        let mut paid = locked(&self.paid);
        *paid = paid.checked_sub(self.cost(bytes)).unwrap_or(*paid);
    }
}

/// Bytes that were taken and not waited for; given back when this is dropped.
struct Owed<'a> {
    rate: &'a Rate,
    bytes: usize,
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.rate.give_back(self.bytes);
        }
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
            sleep_until(rate.take(100)).await;
        }
        assert_eq!(start.elapsed().as_secs(), 5);
        // After a long pause, only the bytes of a burst may be caught up on.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..50 {
            sleep_until(rate.take(100)).await;
        }
        assert!(
            start.elapsed() >= Duration::from_millis(4890),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waits_that_are_dropped_owe_nothing() {
        let rate = Rate::new(50_000);
        for _ in 0..100 {
            let wait = rate.pay(6_000_000);
            let dropped = tokio::time::timeout(Duration::from_millis(60), wait).await;
            assert!(dropped.is_err());
        }
        let start = Instant::now();
        rate.pay(5000).await;
        let waited = start.elapsed();
        assert!(waited <= Duration::from_millis(101), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_leaves_others_their_share() {
        let rate = Rate::new(50_000);
        let start = Instant::now();
        let ended = |at: &Instant| (*at - start).as_secs();
        let (long, short) = tokio::join!(
            async {
                rate.pay(500_000).await;
                Instant::now()
            },
            async {
                rate.pay(50_000).await;
                Instant::now()
            }
        );
        assert!(ended(&short) <= 2, "{:?}", short - start);
        assert!((10..=11).contains(&ended(&long)), "{:?}", long - start);
    }
}
