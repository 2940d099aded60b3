//! The calls of the last five minutes, second by second, for the statistics of Go.

use serde::Serialize;

/// Number of seconds that are kept, including the current one.
const SECONDS: usize = 301;
/// Number of ranges of durations.
const RANGES: usize = 8;
/// The longest durations of all ranges but the last, in units of a path.
const BOUNDS: [u64; RANGES - 1] = [100, 200, 300, 500, 700, 1000, 1500];

const NANOS: u64 = 1_000_000_000;
/// Units of ranges, in nanoseconds.
pub(super) const MILLI: u64 = 1_000_000;
pub(super) const MICRO: u64 = 1000;

/// Number and sum of durations.
#[derive(Clone, Copy, Default, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Durations {
    /// In nanoseconds.
    pub(super) duration: u64,
    pub(super) count: u64,
}

impl Durations {
    fn add(&mut self, other: Self) {
        self.duration = self.duration.wrapping_add(other.duration);
        self.count += other.count;
    }
}

/// The calls of a second, or of all time, by ranges of their durations.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(super) struct TimeCount {
    pub(super) range_count: [Durations; RANGES],
}

impl TimeCount {
    pub(super) fn total(&self) -> Durations {
        let mut total = Durations::default();
        self.range_count.iter().for_each(|&range| total.add(range));
        total
    }

    fn merge(&mut self, other: &Self) {
        for (range, more) in self.range_count.iter_mut().zip(other.range_count) {
            range.add(more);
        }
    }
}

/// The recent calls of a method.
#[derive(Debug)]
pub(super) struct Recent {
    /// The unit of the ranges, in nanoseconds.
    unit: u64,
    /// The calls of the last seconds; that of second `n` has the index `n % SECONDS`.
    seconds: Vec<TimeCount>,
    /// The last second that was counted.
    last: u64,
    pub(super) all: TimeCount,
}

impl Recent {
    /// `unit` is that of the ranges, in nanoseconds.
    pub(super) fn new(unit: u64) -> Self {
        Self {
            unit,
            seconds: vec![TimeCount::default(); SECONDS],
            last: 0,
            all: TimeCount::default(),
        }
    }

    /// Counts calls that have ended at `now`, in nanoseconds, and took `nanos` each.
    pub(super) fn add(&mut self, now: u64, nanos: u64, calls: u64) {
        let second = self.pass(now);
        let ended = Durations {
            duration: nanos.wrapping_mul(calls),
            count: calls,
        };
        let range = BOUNDS.iter().position(|&bound| nanos <= bound * self.unit);
        let range = range.unwrap_or(RANGES - 1);
        self.seconds[second].range_count[range].add(ended);
        self.all.range_count[range].add(ended);
    }

    /// Clears the seconds that have passed since the last call. Returns the index of the current
    /// one.
    fn pass(&mut self, now: u64) -> usize {
        let second = (now / NANOS).max(self.last);
        let passed = (second - self.last).min(SECONDS as u64);
        for second in second - passed + 1..=second {
            self.seconds[index(second)] = TimeCount::default();
        }
        self.last = second;
        index(second)
    }

    /// Returns the calls second by second. The position of the current one is that of `now`.
    pub(super) fn seconds(&mut self, now: u64) -> &[TimeCount] {
        self.pass(now);
        &self.seconds
    }

    /// Returns the calls of the last five minutes.
    pub(super) fn five_minutes(&mut self, now: u64) -> TimeCount {
        let mut sum = TimeCount::default();
        for second in self.seconds(now) {
            sum.merge(second);
        }
        sum
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_second_and_range() {
        let mut recent = Recent::new(MILLI);
        recent.add(NANOS / 2, 100 * MILLI, 2);
        recent.add(NANOS / 2, 100 * MILLI + 1, 1);
        recent.add(3 * NANOS, 5000 * MILLI, 1);
        let counts = |time: &TimeCount| time.range_count.map(|range| range.count);
        let seconds = recent.seconds(3 * NANOS);
        assert_eq!(seconds.len(), 301);
        assert_eq!(counts(&seconds[0]), [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(counts(&seconds[3]), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(recent.five_minutes(3 * NANOS).total().count, 4);
        assert_eq!(recent.all.total().duration, 5300 * MILLI + 1);
    }

    #[test]
    fn what_is_older_than_five_minutes_counts_only_in_all() {
        let mut recent = Recent::new(MILLI);
        recent.add(0, 1, 5);
        assert_eq!(recent.five_minutes(300 * NANOS).total().count, 5);
        assert_eq!(recent.five_minutes(301 * NANOS).total().count, 0);
        recent.add(u64::MAX, 1, 1);
        // A clock that goes back counts for the last second.
        recent.add(5 * NANOS, 1, 1);
        assert_eq!(recent.five_minutes(u64::MAX).total().count, 2);
        assert_eq!(recent.all.total().count, 7);
    }
}
