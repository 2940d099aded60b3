//! The load of one backend: calls in flight, latency, and penalties for failures. Lock-free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::time::nanos;

/// Ages below this fraction of the time constant do not decay: the error is less than 0.1 %.
const NO_DECAY: f64 = 1.0 / 1024.0;
/// After this many time constants, less than one millionth of a penalty is left.
const GONE: f64 = 14.0;
/// The least weight of a sample in the mean latency. One peak of 100 times the mean leaves it at 2.5
/// times.
const MEAN_WEIGHT: f64 = 1.0 / 64.0;
/// The weight of a sample after a pause, in the time constant of latencies: all of a fifth of it.
/// The mean of a backend that gets few calls follows them within seconds.
const MEAN_WEIGHT_AFTER_PAUSE: f64 = 5.0;
/// A backend is slow if its mean latency is longer than that of another one by this factor and
/// [`SLOW_SLACK`].
const SLOW_FACTOR: f64 = 2.5;
/// Differences below this, in nanoseconds, make no backend slow.
const SLOW_SLACK: f64 = 500_000.0;

/// The settings of [`Load`], in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadSettings {
    /// One divided by the time constant of latencies.
    pub(super) decay: f64,
    /// One divided by the time constant of penalties.
    pub(super) penalty_decay: f64,
    pub(super) min_penalty: f64,
    pub(super) max_penalty: f64,
}

impl LoadSettings {
    /// Returns the time since which a sample must have come, so that its decay is less than a tenth
    /// at `time` after `now`; the maximum if time constants are too short for that.
    pub(super) fn fresh_since(&self, now: u64, time: u64) -> u64 {
        let unseen = age(0, time, self.decay);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a positive number of nanoseconds, and saturates"
        )]
        match unseen + NO_DECAY > 0.1 + 1e-3 {
            true => u64::MAX,
            false => now.saturating_sub((NO_DECAY / self.decay) as u64),
        }
    }
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
///
/// The mean latency beside it is not moved by a single peak. It says which backends are
/// slow.
// All that a pick reads is in one line of the cache.
#[derive(Default, Debug)]
#[repr(align(64))]
pub struct Load {
    in_flight: AtomicU32,
    latency: Decaying,
    /// Nanoseconds, the bits of an `f64`; 0: there are no samples.
    mean: AtomicU64,
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
        let mean = self.mean();
        let weight = (age * MEAN_WEIGHT_AFTER_PAUSE).clamp(MEAN_WEIGHT, 1.0);
        let mean = match mean == 0.0 {
            true => sample,
            false => mean + (sample - mean) * weight,
        };
        // Of samples at the same moment, one may be lost: the mean stays one of many.
        self.mean.store(mean.to_bits(), Ordering::Relaxed);
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

    /// Returns the mean latency in nanoseconds; 0 without samples.
    #[inline]
    pub(super) fn mean(&self) -> f64 {
        f64::from_bits(self.mean.load(Ordering::Relaxed))
    }

    /// Returns `true` if calls take much longer on average than those of `other`.
    #[inline]
    pub(super) fn seems_slower(&self, other: &Self) -> bool {
        is_much_longer(self.mean(), other.mean())
    }

    /// Returns `true` if calls take so much longer than those of `other` that they are not worth
    /// to be made here however many calls the other one has in flight.
    ///
    /// If the other one becomes slower by its calls, this ends. Without samples, it ends with the
    /// time constant of latencies.
    pub(super) fn is_slower(&self, other: &Self, now: u64, settings: &LoadSettings) -> bool {
        let mean = other.mean();
        // Nothing is known of the other one, or it does not take calls.
        if mean == 0.0 || other.penalty_at(now, settings) > mean {
            return false;
        }
        let own = mean + (self.mean() - mean) * (-self.latency.age(now, settings.decay)).exp();
        // What does not reply to its calls is not fast. Replies come in groups, with gaps between.
        let silent = other.latency.age(now, settings.decay) / settings.decay;
        if other.in_flight() > 0 && silent > SLOW_FACTOR * own {
            return false;
        }
        is_much_longer(own, mean)
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

    /// Returns the latency if there was a sample at `since` or later, and no penalty.
    #[inline]
    pub(super) fn fresh_latency(&self, since: u64) -> Option<f64> {
        let is_fresh = self.latency.at.load(Ordering::Relaxed) >= since;
        let value = self.latency.value();
        (is_fresh && value != 0.0 && self.penalty.value() == 0.0).then_some(value)
    }

    /// Returns the latency without decay and penalties; `None` without samples.
    pub(super) fn sampled(&self) -> Option<f64> {
        Some(self.latency.value()).filter(|value| *value > 0.0)
    }

    /// Forgets latency and penalties. Calls in flight stay.
    pub(super) fn forget(&self) {
        self.latency.set(0, 0.0);
        self.mean.store(0.0_f64.to_bits(), Ordering::Relaxed);
        self.penalty.set(0, 0.0);
    }
}

#[inline]
fn is_much_longer(latency: f64, other: f64) -> bool {
    latency > SLOW_FACTOR * other + SLOW_SLACK
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
    fn a_backend_is_slow_by_its_mean_and_not_by_one_peak() {
        let (load, other) = (Load::default(), Load::default());
        let mut now = 0;
        let mut observe = |load: &Load, millis: u64| {
            now += 1_000_000;
            load.observe(now, Duration::from_millis(millis), &settings());
            now
        };
        for _ in 0..100 {
            observe(&load, 1);
            observe(&other, 1);
        }
        let now = observe(&load, 80);
        assert!(!load.is_slower(&other, now, &settings()));
        for _ in 0..20 {
            observe(&load, 10);
        }
        let now = observe(&other, 1);
        assert!(load.is_slower(&other, now, &settings()));
        assert!(!other.is_slower(&load, now, &settings()));
        assert!(
            !load.is_slower(&Load::default(), now, &settings()),
            "nothing is known of the other one"
        );
        assert!(
            !load.is_slower(&other, now + 20 * SECOND, &settings()),
            "it decays"
        );
        other.started();
        assert!(load.is_slower(&other, now, &settings()));
        assert!(
            !load.is_slower(&other, now + SECOND / 10, &settings()),
            "the other one does not reply"
        );
        let penalty = Penalty {
            elapsed: Duration::ZERO,
            pushback: None,
        };
        other.penalize(now, penalty, &settings());
        assert!(!load.is_slower(&other, now, &settings()));
    }

    #[test]
    fn the_mean_of_a_backend_with_few_calls_follows_them() {
        let load = Load::default();
        load.observe(0, Duration::from_millis(10), &settings());
        for step in 1..=4 {
            load.observe(step * SECOND, Duration::from_millis(1), &settings());
        }
        assert!(load.mean() < 2.0 * MS, "{}", load.mean());
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
