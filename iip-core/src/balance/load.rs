//! The load of one backend: calls in flight, latency, and penalties for failures. Lock-free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::time::nanos;

/// Ages below this fraction of the time constant do not decay: the error is less than 0.1 %.
const NO_DECAY: f64 = 1.0 / 1024.0;
/// After this many time constants, less than one millionth of a penalty is left.
const GONE: f64 = 14.0;

/// The settings of [`Load`], in nanoseconds.
#[derive(Debug)]
pub(super) struct LoadSettings {
    /// One divided by the time constant of latencies.
    pub(super) decay: f64,
    /// One divided by the time constant of penalties.
    pub(super) penalty_decay: f64,
    pub(super) min_penalty: f64,
    pub(super) max_penalty: f64,
}

/// A failed call.
#[derive(Clone, Copy)]
pub(super) struct Penalty {
    pub(super) elapsed: Duration,
    pub(super) pushback: Option<Duration>,
}

/// A value that was set at a point in time, and decays from then on. Nothing ticks: the decay is
/// computed when it is read.
#[derive(Default, Debug)]
struct Decaying {
    /// Nanoseconds, the bits of an `f64`; 0: there is no value.
    value: AtomicU64,
    at: AtomicU64,
}

impl Decaying {
    #[inline]
    fn value(&self) -> f64 {
        f64::from_bits(self.value.load(Ordering::Relaxed))
    }

    /// Returns the age at `now` in time constants.
    #[inline]
    fn age(&self, now: u64, decay: f64) -> f64 {
        age(self.at.load(Ordering::Relaxed), now, decay)
    }

    fn set(&self, now: u64, value: f64) {
        self.at.store(now, Ordering::Relaxed);
        self.value.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// Returns the age at `now` of what was set at `at`, in time constants.
#[inline]
fn age(at: u64, now: u64, decay: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a millionth of an age does not matter"
    )]
    let age = now.saturating_sub(at) as f64;
    age * decay
}

/// The load of one backend.
///
/// The latency is a peak EWMA: it rises at once to a longer sample, and falls with a time constant
/// ([`BalanceOptions::decay`](super::BalanceOptions::decay)). Without samples it approaches the
/// median of all backends, so an idle backend is neither preferred nor avoided. A failure adds a
/// penalty, which the latency does not fall below until it has decayed.
#[derive(Default, Debug)]
pub struct Load {
    in_flight: AtomicU32,
    latency: Decaying,
    penalty: Decaying,
    /// The calls in flight of all backends, if the policy needs them.
    total: Option<Arc<AtomicU64>>,
}

impl Load {
    pub(super) fn new(total: Option<Arc<AtomicU64>>) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    /// Accounts for a call that starts. Returns the number of calls in flight before it.
    #[inline]
    pub fn started(&self) -> u32 {
        if let Some(total) = &self.total {
            total.fetch_add(1, Ordering::Relaxed);
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed)
    }

    /// Accounts for a call that ends, without an outcome.
    #[inline]
    pub fn finished(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(total) = &self.total {
            total.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of calls in flight.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Adds a sample of the latency.
    #[inline]
    pub(super) fn observe(&self, now: u64, elapsed: Duration, settings: &LoadSettings) {
        // A sample of 0 would look like no sample.
        #[expect(
            clippy::cast_precision_loss,
            reason = "a millionth of a latency is enough"
        )]
        let sample = nanos(elapsed).max(1) as f64;
        let before = self.latency.at.swap(now, Ordering::Relaxed);
        let age = age(before, now, settings.decay);
        let left = match age < NO_DECAY {
            true => 1.0 - age,
            false => (-age).exp(),
        };
        let mut seen = self.latency.value.load(Ordering::Relaxed);
        loop {
            let old = f64::from_bits(seen);
            let new = match sample >= old {
                true => sample,
                false => old * left + sample * (1.0 - left),
            };
            let value = &self.latency.value;
            let change = value.compare_exchange_weak(
                seen,
                new.to_bits(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match change {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Sets the latency of a backend without samples to the median of the others. Their latencies
    /// may hold an old peak: by its first sample alone, it would take most of the calls.
    pub(super) fn seed(&self, now: u64, median: f64) {
        let (value, none) = (&self.latency.value, 0.0_f64.to_bits());
        self.latency.at.store(now, Ordering::Relaxed);
        // A sample that comes meanwhile is kept.
        let _sampled =
            value.compare_exchange(none, median.to_bits(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Adds a failure: its penalty is the longest of the elapsed time, the minimum, the pushback
    /// and twice what is left of the last one, up to the maximum.
    pub(super) fn penalize(&self, now: u64, penalty: Penalty, settings: &LoadSettings) {
        let last = self.latency.value().max(self.penalty_at(now, settings));
        let told = penalty.pushback.unwrap_or_default().max(penalty.elapsed);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a millionth of a latency is enough"
        )]
        let told = nanos(told) as f64;
        let value = told.max(2.0 * last).max(settings.min_penalty);
        self.penalty.set(now, value.min(settings.max_penalty));
    }

    /// Sets the penalty to `pushback`, unless it is higher.
    pub(super) fn avoid(&self, now: u64, pushback: Duration, settings: &LoadSettings) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a millionth of a latency is enough"
        )]
        let told = (nanos(pushback) as f64).min(settings.max_penalty);
        if told > self.penalty_at(now, settings) {
            self.penalty.set(now, told);
        }
    }

    #[inline]
    fn penalty_at(&self, now: u64, settings: &LoadSettings) -> f64 {
        let penalty = self.penalty.value();
        if penalty == 0.0 {
            return 0.0;
        }
        let age = self.penalty.age(now, settings.penalty_decay);
        match age > GONE {
            true => 0.0,
            false => penalty * (-age).exp(),
        }
    }

    /// Returns the latency at `now` in nanoseconds, penalties included. `median` is that of all
    /// backends, for one without samples.
    #[inline]
    pub(super) fn latency(&self, now: u64, median: f64, settings: &LoadSettings) -> f64 {
        let value = self.latency.value();
        let age = self.latency.age(now, settings.decay);
        let latency = if value == 0.0 {
            median
        } else if age < NO_DECAY {
            value
        } else {
            median + (value - median) * (-age).exp()
        };
        latency.max(self.penalty_at(now, settings))
    }

    /// Returns the latency without decay and penalties; `None` without samples.
    pub(super) fn sampled(&self) -> Option<f64> {
        Some(self.latency.value()).filter(|value| *value > 0.0)
    }

    /// Forgets latency and penalties. Calls in flight stay.
    pub(super) fn forget(&self) {
        self.latency.set(0, 0.0);
        self.penalty.set(0, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;
    const SECOND: u64 = 1_000_000_000;

    fn settings() -> LoadSettings {
        LoadSettings {
            decay: 1e-10,
            penalty_decay: 1e-9,
            min_penalty: 1e9,
            max_penalty: 3e10,
        }
    }

    fn after(load: &Load, seconds: u64, median: f64) -> f64 {
        load.latency(seconds * SECOND, median, &settings())
    }

    #[test]
    fn latency_rises_at_once_and_falls_slowly() {
        let load = Load::default();
        load.observe(0, Duration::from_millis(1), &settings());
        load.observe(0, Duration::from_millis(100), &settings());
        assert!((after(&load, 0, MS) - 100.0 * MS).abs() < 1.0);
        load.observe(10 * SECOND, Duration::from_millis(1), &settings());
        let expected = 100.0 * MS * (-1.0_f64).exp() + MS * (1.0 - (-1.0_f64).exp());
        assert!((after(&load, 10, MS) - expected).abs() < 1.0);
    }

    #[test]
    fn an_idle_backend_approaches_the_median_and_not_zero() {
        let load = Load::default();
        assert!((after(&load, 0, 5.0 * MS) - 5.0 * MS).abs() < f64::EPSILON);
        load.observe(0, Duration::from_millis(1), &settings());
        assert!(after(&load, 5, 5.0 * MS) > 1.5 * MS);
        assert!((after(&load, 1000, 5.0 * MS) - 5.0 * MS).abs() < 1.0);
    }

    #[test]
    fn failures_in_a_row_double_the_penalty_up_to_its_maximum() {
        let load = Load::default();
        let penalty = Penalty {
            elapsed: Duration::from_micros(50),
            pushback: None,
        };
        load.penalize(0, penalty, &settings());
        assert!((after(&load, 0, MS) - 1e9).abs() < 1.0);
        load.penalize(0, penalty, &settings());
        assert!((after(&load, 0, MS) - 2e9).abs() < 1.0);
        for _ in 0..10 {
            load.penalize(0, penalty, &settings());
        }
        assert!((after(&load, 0, MS) - 3e10).abs() < 1.0);
        assert!((after(&load, 20, MS) - MS).abs() < 1.0, "it decays");
    }

    #[test]
    fn pushback_is_a_penalty() {
        let load = Load::default();
        let penalty = Penalty {
            elapsed: Duration::ZERO,
            pushback: Some(Duration::from_secs(7)),
        };
        load.penalize(0, penalty, &settings());
        assert!((after(&load, 0, MS) - 7e9).abs() < 1.0);
        load.forget();
        assert!((after(&load, 0, MS) - MS).abs() < 1.0);
    }

    #[test]
    fn small_updates_are_not_lost() {
        let load = Load::default();
        load.observe(0, Duration::from_secs(10), &settings());
        for step in 1..=10_000 {
            load.observe(step * 1_000_000, Duration::from_millis(1), &settings());
        }
        let expected = 1e10 * (-1.0_f64).exp();
        assert!((after(&load, 10, MS) / expected - 1.0).abs() < 0.01);
    }
}
