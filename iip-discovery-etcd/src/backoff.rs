//! The pauses between attempts.

use std::time::Duration;

/// The upper bound of the first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The upper bound of a pause, so that a change is seen soon after etcd is back.
const MAX: Duration = Duration::from_millis(1500);
/// The upper bound of a pause after a denial: checking a password costs etcd much time.
const MAX_DENIED: Duration = Duration::from_secs(15);

/// The number of failures in a row, and the pause that follows from it: random from zero to a bound
/// that doubles ("full jitter"), so that many clients do not return at the same time.
#[derive(Default, Debug)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and returns the pause after it; `random` is from 0 to 1.
    pub(crate) fn next(&mut self, denied: bool, random: f64) -> Duration {
        let bound = FIRST.saturating_mul(1_u32 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let max = if denied { MAX_DENIED } else { MAX };
        bound.min(max).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_maximum() {
        let mut backoff = Backoff::default();
        let mut pauses = |denied| -> Vec<u128> {
            backoff.reset();
            (0..10)
                .map(|_| backoff.next(denied, 1.0).as_millis())
                .collect()
        };
        assert_eq!(pauses(false)[..6], [100, 200, 400, 800, 1500, 1500]);
        assert_eq!(pauses(true)[6..], [6400, 12_800, 15_000, 15_000]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next(false, 0.5), MAX / 2);
    }
}
