//! The counters of one method, and the figures that are computed from them.

use std::collections::{BTreeMap, HashMap};

use iip_core::stats::verdict::is_error_name;
use serde::Deserialize;

use crate::live::Figures;

#[derive(Clone, Default, Debug, Deserialize)]
pub(super) struct Counts {
    pub(super) codes: BTreeMap<String, u64>,
    in_flight: u64,
    /// Buckets of durations: lower and upper bound, in nanoseconds, and number of calls.
    latency: Vec<[u64; 3]>,
}

impl Counts {
    pub(super) fn total(&self) -> u64 {
        self.codes
            .values()
            .fold(0, |sum, &calls| sum.saturating_add(calls))
    }

    /// Returns the counts since an earlier reading.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let codes = self.codes.iter().map(|(name, &calls)| {
            let before = earlier.codes.get(name).copied().unwrap_or(0);
            (name.clone(), calls.saturating_sub(before))
        });
        let before: HashMap<u64, u64> = earlier
            .latency
            .iter()
            .map(|&[from, _, calls]| (from, calls))
            .collect();
        let latency = self.latency.iter().map(|&[from, to, calls]| {
            let before = before.get(&from).copied().unwrap_or(0);
            [from, to, calls.saturating_sub(before)]
        });
        Self {
            codes: codes.collect(),
            in_flight: self.in_flight,
            latency: latency.collect(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (name, calls) in &other.codes {
            let sum = self.codes.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*calls);
        }
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.latency.extend_from_slice(&other.latency);
    }

    pub(super) fn figures(&self, seconds: f64) -> Figures {
        let errors = self.codes.iter().filter(|(name, _)| is_error_name(name));
        let errors = errors.fold(0_u64, |sum, (_, &calls)| sum.saturating_add(calls));
        let mut latency = self.latency.clone();
        latency.sort_unstable();
        Figures {
            rate: Some(per_second(self.total(), seconds)),
            errors: Some(per_second(errors, seconds)),
            mean: None,
            p50: quantile(&latency, 0.5),
            p99: quantile(&latency, 0.99),
            p999: quantile(&latency, 0.999),
            in_flight: Some(self.in_flight),
        }
    }
}

/// Returns a quantile of the durations in buckets, in microseconds; `None` if there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers are for people, and casts of floats saturate"
)]
fn quantile(buckets: &[[u64; 3]], q: f64) -> Option<f64> {
    let total = buckets
        .iter()
        .fold(0_u64, |sum, &[_, _, calls]| sum.saturating_add(calls));
    let rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0_u64;
    let bucket = buckets.iter().find(|&&[_, _, calls]| {
        seen = seen.saturating_add(calls);
        seen >= rank
    });
    // The last bucket has no meaningful upper bound.
    bucket.map(|&[from, to, _]| match to == u64::MAX {
        true => from as f64 / 1000.0,
        false => (from as f64 + to as f64) / 2000.0,
    })
}

#[expect(clippy::cast_precision_loss, reason = "numbers are for people")]
pub(super) fn per_second(calls: u64, seconds: f64) -> f64 {
    calls as f64 / seconds
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::top::own) fn counts(ok: u64, unavailable: u64, latency: &[[u64; 3]]) -> Counts {
        let codes = [("OK", ok), ("UNAVAILABLE", unavailable)];
        Counts {
            codes: codes.map(|(name, calls)| (name.to_owned(), calls)).into(),
            in_flight: 1,
            latency: latency.to_vec(),
        }
    }

    #[test]
    fn figures_are_of_what_was_counted_in_between() {
        let before = counts(100, 0, &[[1000, 2000, 100]]);
        let now = counts(198, 2, &[[1000, 2000, 190], [8000, 10_000, 10]]);
        let figures = now.since(&before).figures(10.0);
        assert_eq!((figures.rate, figures.errors), (Some(10.0), Some(0.2)));
        assert_eq!((figures.p50, figures.p99), (Some(1.5), Some(9.0)));
        let idle = now.since(&now).figures(10.0);
        assert_eq!((idle.rate, idle.p50), (Some(0.0), None));
    }

    #[test]
    fn numbers_of_a_hostile_server_do_no_harm() {
        let hostile = counts(
            u64::MAX,
            u64::MAX,
            &[[0, u64::MAX, u64::MAX], [7, 3, u64::MAX]],
        );
        let mut sum = hostile.clone();
        sum.add(&hostile);
        let figures = sum.since(&Counts::default()).figures(0.001);
        assert!(
            figures.rate > Some(1.0) && figures.p99.is_some(),
            "{figures:?}"
        );
    }
}
