//! Curves: the points of the last 5 minutes and of the last hour.

use std::collections::VecDeque;

/// The number of points of a curve with one point per second, and of one with a point per 10 s.
pub(super) const SECONDS: usize = 300;
const TENS: usize = 360;

/// The seconds of a point of the longer curve.
pub(super) const TEN: u64 = 10;

/// One point: the calls and the errors of its time, and two quantiles of their latencies.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Point {
    pub(super) calls: u32,
    pub(super) errors: u32,
    /// In microseconds; 0 if there were no calls.
    pub(super) p50: u32,
    pub(super) p99: u32,
}

/// The points of the last 5 minutes and of the last hour.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) seconds: Ring,
    pub(super) tens: Ring,
}

impl Default for Curve {
    fn default() -> Self {
        Self {
            seconds: Ring::new(SECONDS),
            tens: Ring::new(TENS),
        }
    }
}

impl Curve {
    /// Adds a point for each of `seconds`, and one of 10 s.
    pub(super) fn extend(&mut self, second: Point, seconds: u64, ten: Option<Point>) {
        for _ in 0..seconds {
            self.seconds.push(second);
        }
        if let Some(ten) = ten {
            self.tens.push(ten);
        }
    }
}

/// The last points, up to a number that does not change.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    points: VecDeque<Point>,
    max: usize,
}

impl Ring {
    pub(super) fn new(max: usize) -> Self {
        Self {
            points: VecDeque::with_capacity(max),
            max,
        }
    }

    /// Adds the newest point, and drops the oldest one if there is no room.
    pub(super) fn push(&mut self, point: Point) {
        if self.points.len() >= self.max {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// Returns the points, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ring_has_the_last_points(max in 1_usize..20, calls in prop::collection::vec(0_u32.., 0..60)) {
            let mut ring = Ring::new(max);
            for &calls in &calls {
                ring.push(Point { calls, ..Point::default() });
            }
            let kept: Vec<u32> = ring.iter().map(|point| point.calls).collect();
            let expected = calls.get(calls.len().saturating_sub(max)..).unwrap_or_default();
            prop_assert_eq!(kept, expected);
        }
    }
}
