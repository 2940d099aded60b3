//! Latencies of the recent calls of a method. Pure.

use std::time::Duration;

/// Number of calls that are remembered.
const CALLS: usize = 256;

/// Number of calls below which a percentile would be a guess.
const ENOUGH: usize = 32;

/// Number of calls after which the percentile is computed again.
const REFRESH: usize = 16;

/// The latencies of the last calls of a method.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// In microseconds; at most [`CALLS`].
    calls: Vec<u32>,
    /// Index of the next latency once all places are taken.
    next: usize,
    /// The percentile computed last, with its latency.
    found: Option<(u8, Duration)>,
    age: usize,
}

impl Latencies {
    pub(super) fn add(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.calls.len() < CALLS {
            self.calls.push(micros);
        } else {
            self.calls[self.next] = micros;
            self.next = (self.next + 1) % CALLS;
        }
        self.age += 1;
    }

    /// Returns the time within which `percentile` of 100 calls received their reply; `None` before
    /// enough calls were seen.
    pub(super) fn percentile(&mut self, percentile: u8) -> Option<Duration> {
        if self.calls.len() < ENOUGH {
            return None;
        }
        match self.found {
            Some((found, time)) if found == percentile && self.age < REFRESH => Some(time),
            _ => {
                let place = self.calls.len() * usize::from(percentile.clamp(1, 99)) / 100;
                // Copied, because the order of arrival decides which latency is replaced next.
                let mut calls = self.calls.clone();
                let (_, &mut micros, _) = calls.select_nth_unstable(place);
                let time = Duration::from_micros(micros.into());
                self.found = Some((percentile, time));
                self.age = 0;
                Some(time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn no_percentile_is_known_before_enough_calls_were_seen() {
        let mut latencies = Latencies::default();
        for _ in 0..ENOUGH - 1 {
            latencies.add(ms(1));
            assert_eq!(latencies.percentile(95), None);
        }
        latencies.add(ms(1));
        assert_eq!(latencies.percentile(95), Some(ms(1)));
    }

    #[test]
    fn a_percentile_is_the_time_of_the_call_at_that_rank() {
        let mut latencies = Latencies::default();
        // The values are not sorted.
        (0..200).for_each(|call| latencies.add(ms(call * 73 % 200)));
        for (percentile, time) in [(1, 2), (50, 100), (95, 190), (99, 198), (0, 2), (255, 198)] {
            assert_eq!(
                latencies.percentile(percentile),
                Some(ms(time)),
                "p{percentile}"
            );
        }
    }

    #[test]
    fn old_calls_are_forgotten() {
        let mut latencies = Latencies::default();
        (0..CALLS).for_each(|_| latencies.add(ms(1)));
        assert_eq!(latencies.percentile(50), Some(ms(1)));
        (0..CALLS).for_each(|_| latencies.add(ms(9)));
        assert_eq!(latencies.calls.len(), CALLS);
        assert_eq!(latencies.percentile(1), Some(ms(9)));
    }
}
