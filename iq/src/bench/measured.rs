//! The figures of a run.

use serde::{Deserialize, Serialize};

use super::latencies::Latencies;
use crate::exit::Failure;

/// The maximum number of intervals; beyond it, neighbours are joined.
pub(super) const MAX_INTERVALS: usize = 120;

/// The figures of a run. Times are in seconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Measured {
    /// The method and the load.
    pub(super) plan: PlanText,
    /// The duration of the measured part.
    pub(super) seconds: f64,
    /// The number of calls that succeeded.
    pub(super) ok: u64,
    /// The messages of the streams of these calls.
    pub(super) messages: Messages,
    /// The number of calls that failed.
    pub(super) errors: u64,
    /// The number of due calls that were not made, because too many were in flight.
    pub(super) skipped: u64,
    /// The number of calls without an outcome, because the run was interrupted.
    pub(super) unfinished: u64,
    /// The latencies of successful calls; in an open loop since they were due.
    pub(super) latency: Latencies,
    /// In an open loop: the latencies since the calls were sent.
    pub(super) service: Option<Latencies>,
    pub(super) failures: Vec<Failures>,
    pub(super) generator: Generator,
    pub(super) intervals: Vec<Interval>,
}

/// A description of the method and the load.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct PlanText {
    pub(super) method: String,
    pub(super) targets: Vec<String>,
    /// The load in words, such as `closed loop, 50 callers, 1 connection, 1 thread`.
    pub(super) load: String,
    pub(super) seed: u64,
    /// Set if calls have no reply.
    pub(super) one_way: bool,
}

/// Numbers of messages of streams.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Messages {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Failed calls with the same code.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Failures {
    pub(super) code: String,
    pub(super) count: u64,
    /// The text of one of the failures.
    pub(super) example: String,
}

/// The resources that this program used.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Generator {
    /// The processor time of the process, in seconds; `None` if the system does not report it.
    pub(super) cpu_seconds: Option<f64>,
    /// The fraction of a core that the busiest thread used.
    pub(super) busiest_thread: Option<f64>,
    /// The number of cores of the machine.
    pub(super) cores: u64,
}

/// An interval of the measured part.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Interval {
    pub(super) seconds: f64,
    pub(super) ok: u64,
    pub(super) errors: u64,
    pub(super) skipped: u64,
    /// The latencies in nanoseconds, each with its number of calls.
    pub(super) latency: Vec<(u64, u64)>,
}

impl Measured {
    /// Returns the number of successful calls per second.
    pub(super) fn rate(&self) -> f64 {
        per_second(self.ok, self.seconds)
    }

    /// Returns the failure of a run in which calls failed and none succeeded.
    pub(super) fn nothing_succeeded(&self) -> Option<Failure> {
        let first = self.failures.first().filter(|_| self.ok == 0)?;
        let (code, example) = (&first.code, &first.example);
        let text = format!("no call succeeded: {code}: {example}");
        Some(Failure::Check(text))
    }

    /// Returns the fraction of the calls that failed.
    pub(super) fn error_ratio(&self) -> f64 {
        part(self.errors, self.ok + self.errors)
    }

    /// Returns the fraction of the due calls that were not made.
    pub(super) fn skipped_ratio(&self) -> f64 {
        part(self.skipped, self.ok + self.errors + self.skipped)
    }
}

impl Messages {
    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
    }
}

impl Generator {
    /// Returns the number of cores that the process used on average.
    pub(super) fn used_cores(&self, seconds: f64) -> Option<f64> {
        self.cpu_seconds.map(|cpu| cpu / seconds.max(1e-9))
    }
}

impl Interval {
    /// Returns the number of successful calls per second.
    pub(super) fn rate(&self) -> f64 {
        per_second(self.ok, self.seconds)
    }

    fn join(&mut self, next: Self) {
        self.seconds += next.seconds;
        self.ok += next.ok;
        self.errors += next.errors;
        self.skipped += next.skipped;
        let mut latencies = Latencies::default();
        latencies.record_all(self.latency.drain(..).chain(next.latency));
        self.latency = latencies.buckets().collect();
    }
}

/// Joins neighbours, so that half as many intervals remain.
pub(super) fn halve(intervals: &mut Vec<Interval>) {
    let mut joined: Vec<Interval> = Vec::with_capacity(intervals.len() / 2 + 1);
    for (at, interval) in intervals.drain(..).enumerate() {
        match joined.last_mut() {
            Some(last) if at % 2 == 1 => last.join(interval),
            _ => joined.push(interval),
        }
    }
    *intervals = joined;
}

/// Adds to the last interval a rest that is too short for an interval of its own.
pub(super) fn extend_last(intervals: &mut Vec<Interval>, rest: Interval) {
    match intervals.last_mut() {
        Some(last) => last.join(rest),
        None => intervals.push(rest),
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-9)
}

fn part(count: u64, all: u64) -> f64 {
    count as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_loses_no_call() {
        let interval = |ok| Interval {
            seconds: 0.5,
            ok,
            latency: vec![(1_000_000, ok)],
            ..Interval::default()
        };
        let mut intervals: Vec<_> = (1..=5).map(interval).collect();
        halve(&mut intervals);
        let found: Vec<_> = intervals.iter().map(|it| (it.seconds, it.ok)).collect();
        assert_eq!(found, [(1.0, 3), (1.0, 7), (0.5, 5)]);
        let calls: u64 = intervals
            .iter()
            .flat_map(|it| &it.latency)
            .map(|it| it.1)
            .sum();
        assert_eq!(calls, 15);
    }
}
