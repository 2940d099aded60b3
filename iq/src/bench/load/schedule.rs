//! The times at which the calls of an open loop are due.

use std::time::Duration;

/// The times at which calls are due, since the start of an open loop. Warmup at a fixed rate is
/// followed by the measured part, whose rate may change linearly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// The seconds before the measured part.
    warmup: f64,
    /// Calls per second at the beginning.
    from: f64,
    /// The change of the rate per second.
    slope: f64,
    /// The seconds of the measured part.
    seconds: f64,
    /// The number of calls before the measured part.
    warm_calls: u64,
    /// The maximum number of calls in the measured part.
    max_calls: u64,
}

impl Schedule {
    pub(super) fn new(
        rates: (f64, f64),
        warmup: Duration,
        duration: Option<Duration>,
        requests: Option<u64>,
    ) -> Self {
        let (from, to) = rates;
        let warmup = warmup.as_secs_f64();
        let seconds = duration.map_or(f64::INFINITY, |duration| duration.as_secs_f64());
        Self {
            warmup,
            from,
            slope: (to - from) / seconds,
            seconds,
            // Rates and times have limits, so the number fits.
            warm_calls: (from * warmup).ceil() as u64,
            max_calls: requests.unwrap_or(u64::MAX),
        }
    }

    /// Returns the time of a call, and `true` if it is measured; `None` after the last one.
    pub(super) fn due(&self, call: u64) -> Option<(Duration, bool)> {
        let Some(measured) = call.checked_sub(self.warm_calls) else {
            return Some((Duration::from_secs_f64(call as f64 / self.from), false));
        };
        let calls = measured as f64;
        let seconds = if self.slope == 0.0 {
            calls / self.from
        } else {
            // The number of calls until a time is from * time + slope * time² / 2.
            let root = (self.from * self.from + 2.0 * self.slope * calls).sqrt();
            (root - self.from) / self.slope
        };
        // This is NaN if the rate falls and there are no more calls.
        let is_due = measured < self.max_calls && seconds < self.seconds;
        is_due.then(|| (Duration::from_secs_f64(self.warmup + seconds), true))
    }

    /// Returns the first call that is due after this time. There may be no such call.
    pub(super) fn first_after(&self, time: Duration) -> u64 {
        let time = time.as_secs_f64();
        let calls = if time < self.warmup {
            (time * self.from).floor() as u64
        } else {
            let time = (time - self.warmup).min(self.seconds);
            let calls = self.from * time + self.slope * time * time / 2.0;
            self.warm_calls + calls.floor() as u64
        };
        let last = self.warm_calls.saturating_add(self.max_calls);
        (calls + 1).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_are_due_at_a_rate_without_drift() {
        let schedule = Schedule::new((1000.0, 1000.0), 2 * SECOND, Some(10 * SECOND), None);
        assert_eq!(schedule.due(1500), Some((1500 * SECOND / 1000, false)));
        assert_eq!(schedule.due(2000), Some((2 * SECOND, true)));
        assert_eq!(schedule.due(11_999), Some((11_999 * SECOND / 1000, true)));
        assert_eq!(schedule.due(12_000), None);
        assert_eq!(schedule.first_after(SECOND / 2), 501);
        assert_eq!(schedule.first_after(3 * SECOND), 3001);
    }

    #[test]
    fn a_number_of_calls_ends_it_too() {
        let schedule = Schedule::new((10.0, 10.0), Duration::ZERO, None, Some(5));
        assert!(schedule.due(4).is_some() && schedule.due(5).is_none());
    }

    #[test]
    fn rates_rise_and_fall_evenly() {
        for rates in [(100.0, 300.0), (300.0, 100.0)] {
            let schedule = Schedule::new(rates, Duration::ZERO, Some(10 * SECOND), None);
            let due: Vec<Duration> = (0..)
                .map_while(|call| schedule.due(call))
                .map(|(due, _)| due)
                .collect();
            assert!((1999..=2001).contains(&due.len()), "{}", due.len());
            assert!(due.is_sorted());
            let in_first = due.iter().filter(|due| **due < SECOND).count() as f64;
            let wanted = rates.0 + (rates.1 - rates.0) / 20.0;
            assert!((in_first - wanted).abs() < 2.0, "{in_first}");
            for (call, due) in due.iter().enumerate().skip(1) {
                let before = schedule.first_after(*due - SECOND / 100_000);
                assert_eq!(before, call as u64, "{due:?}");
            }
        }
    }
}
