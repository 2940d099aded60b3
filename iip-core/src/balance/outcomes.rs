//! Successes and failures of one backend within a window. Lock-free.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The number of parts of a window.
pub(super) const BUCKETS: u64 = 10;
/// The number of successes that are counted together.
const GROUP: u32 = 8;

/// The settings of [`Outcomes`].
#[derive(Debug)]
pub(super) struct OutcomeSettings {
    /// The duration of a bucket in nanoseconds.
    pub(super) bucket: u64,
    /// Failures in a row after which a backend is ejected; 0: never.
    pub(super) in_a_row: u32,
    /// The minimum share of successes.
    pub(super) min_success: f64,
    /// The number of calls in the window from which on that share counts.
    pub(super) min_calls: u32,
}

/// The count of a bucket: its number since the epoch in the upper 32 bits, then 16 bits of
/// successes and 16 bits of failures, both saturating.
#[derive(Clone, Copy)]
struct Bucket(u64);

impl Bucket {
    fn new(number: u64) -> Self {
        Self(number << 32)
    }

    fn number(self) -> u64 {
        self.0 >> 32
    }

    fn good(self) -> u32 {
        (self.0 >> 16 & 0xFFFF) as u32
    }

    fn bad(self) -> u32 {
        (self.0 & 0xFFFF) as u32
    }

    fn add(self, good: u32, bad: u32) -> Self {
        let good = u64::from(self.good().saturating_add(good).min(0xFFFF));
        let bad = u64::from(self.bad().saturating_add(bad).min(0xFFFF));
        Self(self.number() << 32 | good << 16 | bad)
    }
}

/// Successes and failures of one backend.
#[derive(Default, Debug)]
pub(super) struct Outcomes {
    in_a_row: AtomicU32,
    /// Successes that are not counted in a bucket yet.
    waiting: AtomicU32,
    /// The bucket in which too many failures were reported last, plus 1.
    reported: AtomicU64,
    buckets: [AtomicU64; BUCKETS as usize],
}

impl Outcomes {
    /// Counts successes.
    #[inline]
    pub(super) fn succeeded(&self, now: u64, count: u32, settings: &OutcomeSettings) {
        self.end_row();
        self.count(now, count, 0, settings);
    }

    /// Records a success that is counted later. Returns the number of successes to count once they
    /// are [`GROUP`], else 0.
    #[inline]
    pub(super) fn group(&self) -> u32 {
        self.end_row();
        match self.waiting.fetch_add(1, Ordering::Relaxed) + 1 >= GROUP {
            true => self.waiting.swap(0, Ordering::Relaxed),
            false => 0,
        }
    }

    #[inline]
    fn end_row(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure. Returns `true` if there were too many: once a bucket, because what follows
    /// is expensive, and may be to no effect if too many other backends are ejected.
    pub(super) fn failed(&self, now: u64, settings: &OutcomeSettings) -> bool {
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting.swap(0, Ordering::Relaxed);
        self.count(now, waiting, 1, settings);
        let report = now / settings.bucket + 1;
        self.too_many(now, settings).is_some()
            && self.reported.swap(report, Ordering::Relaxed) != report
    }

    #[inline]
    fn count(&self, now: u64, good: u32, bad: u32, settings: &OutcomeSettings) {
        // 32 bits are enough for 136 years of seconds.
        let number = (now / settings.bucket) & 0xFFFF_FFFF;
        let Some(bucket) = self.buckets.get((number % BUCKETS) as usize) else {
            return;
        };
        let mut seen = bucket.load(Ordering::Relaxed);
        loop {
            let current = match Bucket(seen) {
                current if current.number() == number => current,
                _ => Bucket::new(number),
            };
            let Bucket(new) = current.add(good, bad);
            let change =
                bucket.compare_exchange_weak(seen, new, Ordering::Relaxed, Ordering::Relaxed);
            match change {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Returns the successes and failures of the window that ends at `now`.
    pub(super) fn window(&self, now: u64, settings: &OutcomeSettings) -> (u32, u32) {
        let number = (now / settings.bucket) & 0xFFFF_FFFF;
        let mut sum = (0, 0);
        for bucket in &self.buckets {
            let bucket = Bucket(bucket.load(Ordering::Relaxed));
            if bucket.number() + BUCKETS > number && bucket.number() <= number {
                sum = (sum.0 + bucket.good(), sum.1 + bucket.bad());
            }
        }
        sum
    }

    /// Returns why a backend is to be ejected at `now`, if it is.
    pub(super) fn too_many(&self, now: u64, settings: &OutcomeSettings) -> Option<Trigger> {
        let in_a_row = self.in_a_row.load(Ordering::Relaxed);
        if settings.in_a_row > 0 && in_a_row >= settings.in_a_row {
            return Some(Trigger::InARow(in_a_row));
        }
        let (good, bad) = self.window(now, settings);
        let calls = good + bad;
        let few_good = f64::from(good) < settings.min_success * f64::from(calls);
        (calls >= settings.min_calls && few_good).then_some(Trigger::Share { good, calls })
    }

    pub(super) fn forget(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
        self.reported.store(0, Ordering::Relaxed);
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }
}

/// The reason why a backend was ejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trigger {
    /// This many calls in a row have failed.
    InARow(u32),
    /// Too few calls of the window have succeeded.
    Share {
        /// The number of those that have.
        good: u32,
        /// The number of all.
        calls: u32,
    },
    /// The ping or the call that tested a backend after an ejection has failed.
    Trial,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn settings() -> OutcomeSettings {
        OutcomeSettings {
            bucket: SECOND,
            in_a_row: 5,
            min_success: 0.5,
            min_calls: 20,
        }
    }

    #[test]
    fn five_failures_in_a_row_are_too_many() {
        let outcomes = Outcomes::default();
        for _ in 0..4 {
            assert!(!outcomes.failed(0, &settings()));
        }
        outcomes.succeeded(0, 1, &settings());
        for _ in 0..4 {
            assert!(!outcomes.failed(0, &settings()));
        }
        assert!(outcomes.failed(0, &settings()));
        assert!(!outcomes.failed(0, &settings()), "reported once a second");
        assert!(outcomes.failed(SECOND, &settings()));
        assert_eq!(outcomes.too_many(0, &settings()), Some(Trigger::InARow(7)));
    }

    #[test]
    fn successes_of_a_group_are_counted_with_its_last_one_or_with_a_failure() {
        let outcomes = Outcomes::default();
        outcomes.failed(0, &settings());
        for _ in 1..GROUP {
            assert_eq!(outcomes.group(), 0);
        }
        assert_eq!(outcomes.group(), GROUP);
        for _ in 0..4 {
            outcomes.group();
            outcomes.failed(0, &settings());
            assert_eq!(outcomes.too_many(0, &settings()), None);
        }
        assert_eq!(outcomes.window(0, &settings()), (4, 5));
    }

    #[test]
    fn less_than_half_of_twenty_is_too_few() {
        let outcomes = Outcomes::default();
        for step in 0..9 {
            outcomes.succeeded(step * SECOND, 1, &settings());
            assert!(!outcomes.failed(step * SECOND, &settings()));
        }
        assert!(!outcomes.failed(9 * SECOND, &settings()), "19 calls");
        assert!(outcomes.failed(9 * SECOND, &settings()), "20 calls");
        let share = Trigger::Share { good: 9, calls: 20 };
        assert_eq!(outcomes.too_many(9 * SECOND, &settings()), Some(share));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let outcomes = Outcomes::default();
        outcomes.succeeded(0, 70_000, &settings());
        assert_eq!(outcomes.window(9 * SECOND, &settings()), (65_535, 0));
        assert_eq!(outcomes.window(10 * SECOND, &settings()), (0, 0));
        outcomes.succeeded(10 * SECOND, 2, &settings());
        assert_eq!(outcomes.window(10 * SECOND, &settings()), (2, 0));
        outcomes.forget();
        assert_eq!(outcomes.window(10 * SECOND, &settings()), (0, 0));
    }
}
