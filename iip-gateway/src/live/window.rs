//! The calls of the last 10 to 20 s, whose rates and quantiles are shown.

use std::time::Duration;

use iip_core::stats::{Codes, Histogram};

use super::curve::{Point, TEN};

/// The quantiles of [`Recent`].
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// Returns a duration in microseconds, at least 1, because 0 means that there were no calls.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros())
        .unwrap_or(u32::MAX)
        .max(1)
}

/// The calls of some seconds.
#[derive(Clone, Default, Debug)]
pub(super) struct Counts {
    pub(super) seconds: u64,
    pub(super) codes: Codes,
    pub(super) latency: Histogram,
}

impl Counts {
    /// Returns counts without calls, for this number of seconds.
    pub(super) fn none(seconds: u64) -> Self {
        Self {
            seconds,
            ..Self::default()
        }
    }

    /// Adds the calls of other methods in the same seconds.
    pub(super) fn add_calls(&mut self, other: &Self) {
        self.codes.merge(&other.codes);
        self.latency.merge(&other.latency);
    }

    /// Adds the calls of other seconds.
    fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.saturating_add(other.seconds);
        self.add_calls(other);
    }

    /// Returns the point of a curve; `share` is the number of points that share the calls.
    fn point(&self, share: u64) -> Point {
        let narrow = |count: u64| u32::try_from(count / share.max(1)).unwrap_or(u32::MAX);
        let quantile = |q| self.latency.quantile(q).map_or(0, micros);
        Point {
            calls: narrow(self.codes.total()),
            errors: narrow(self.codes.errors()),
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
    }
}

/// The calls of the last 10 to 20 s: of the last full 10 s, and of the time since then.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The counts since the last full 10 s, and those of these 10 s.
    current: Counts,
    previous: Counts,
    /// The second of the last update.
    pub(super) second: Point,
    /// The 10 s that the last update has completed.
    pub(super) ten: Option<Point>,
}

/// The figures of a window that are shown.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Recent {
    pub(super) seconds: u64,
    pub(super) codes: Codes,
    /// In microseconds.
    pub(super) quantiles: Option<[u32; 3]>,
}

impl Window {
    /// Adds the counts since the last update. `is_ten` is set if they complete 10 s.
    pub(super) fn add(&mut self, counts: &Counts, is_ten: bool) {
        self.second = counts.point(counts.seconds);
        self.current.add(counts);
        self.ten = is_ten.then(|| {
            // An update that is late by many seconds completes several spans of 10 s.
            let point = self.current.point(self.current.seconds.div_ceil(TEN));
            self.previous = std::mem::take(&mut self.current);
            point
        });
    }

    /// Returns the figures that are shown.
    pub(super) fn recent(&self) -> Recent {
        let mut both = self.previous.clone();
        both.add(&self.current);
        let quantiles = QUANTILES.map(|q| both.latency.quantile(q).map(micros));
        Recent {
            seconds: both.seconds,
            codes: both.codes,
            quantiles: match quantiles {
                [Some(p50), Some(p99), Some(p999)] => Some([p50, p99, p999]),
                _ => None,
            },
        }
    }
}
