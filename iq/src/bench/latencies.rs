//! Distributions of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The shortest and the longest latency of a distribution, in nanoseconds.
const BOUNDS: (u64, u64) = (1_000, 60_000_000_000);

/// The number of significant digits of a latency.
const DIGITS: u8 = 3;

/// The quantiles of reports.
pub(super) const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// A distribution of latencies from 1 µs to 60 s, with three significant digits.
///
/// It is serialized as a list of latencies in nanoseconds, each with its number of calls.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(BOUNDS.0, BOUNDS.1, DIGITS);
        Self(histogram.expect("bounds that a histogram can have"))
    }
}

impl Latencies {
    /// Adds a call.
    pub(super) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos);
    }

    /// Adds calls by their latencies in nanoseconds.
    pub(super) fn record_all(&mut self, buckets: impl IntoIterator<Item = (u64, u64)>) {
        for (nanos, count) in buckets {
            self.0.saturating_record_n(nanos, count);
        }
    }

    /// Adds the calls of another distribution.
    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so this does not fail.
        let _ = self.0.add(&other.0);
    }

    /// Returns the calls that were added since an earlier state.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        // All calls of the earlier state are also in this one.
        let _ = later.0.subtract(&earlier.0);
        later
    }

    /// Returns the number of calls.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the latency of this quantile, in nanoseconds; 0 without calls.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        match self.0.is_empty() {
            true => 0.0,
            false => self.0.value_at_quantile(quantile).min(self.0.max()) as f64,
        }
    }

    /// Returns the mean, in nanoseconds.
    pub(super) fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// Returns the longest latency, in nanoseconds.
    pub(super) fn max(&self) -> f64 {
        self.0.max() as f64
    }

    /// Returns the latencies that occurred, in nanoseconds, each with its number of calls.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.buckets())
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let buckets: Vec<(u64, u64)> = Vec::deserialize(deserializer)?;
        let counts = buckets.iter().map(|(_, count)| *count);
        // Sums over many distributions must not overflow.
        if counts.fold(0, u64::saturating_add) > 1 << 48 {
            return Err(D::Error::custom("there are too many calls"));
        }
        let mut latencies = Self::default();
        latencies.record_all(buckets);
        Ok(latencies)
    }
}

/// Formats a latency with three digits and its unit.
pub(super) fn short(nanos: f64) -> String {
    let (value, unit) = match nanos {
        nanos if nanos < 999.5 => (nanos, "ns"),
        nanos if nanos < 999.5e3 => (nanos / 1e3, "µs"),
        nanos if nanos < 999.5e6 => (nanos / 1e6, "ms"),
        nanos => (nanos / 1e9, "s"),
    };
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Formats the duration of a run with its unit: in seconds with one decimal, or less than a second.
pub(super) fn duration(seconds: f64) -> String {
    match seconds < 1.0 {
        true => short(seconds * 1e9),
        false => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_keep_three_digits_and_survive_json() {
        let mut latencies = Latencies::default();
        for micros in 1..=999_u64 {
            latencies.record(Duration::from_micros(100 * micros));
        }
        latencies.record(Duration::from_secs(3600));
        let near = |found: f64, wanted: f64| (found / wanted - 1.0).abs() < 0.003;
        assert!(near(latencies.quantile(0.5), 50e6));
        assert!(near(latencies.max(), 60e9), "{}", latencies.max());
        let text = serde_json::to_string(&latencies).unwrap();
        let read: Latencies = serde_json::from_str(&text).unwrap();
        assert_eq!(read.count(), 1000);
        assert!(near(read.quantile(0.999), latencies.quantile(0.999)));
        assert_eq!(latencies.since(&read).count(), 0);
    }

    #[test]
    fn latencies_have_three_digits_in_texts() {
        for (nanos, text) in [
            (0.0, "0.00 ns"),
            (999.0, "999 ns"),
            (1_234.0, "1.23 µs"),
            (99_960.0, "100 µs"),
            (12_345_678.0, "12.3 ms"),
            (999_600_000.0, "1.00 s"),
            (60e9, "60.0 s"),
        ] {
            assert_eq!(short(nanos), text);
        }
        assert_eq!(duration(0.0123), "12.3 ms");
        assert_eq!(duration(61.25), "61.2 s");
    }
}
