//! The figures of a run.

use serde::{Deserialize, Serialize};

use super::latencies::Latencies;
use crate::exit::Failure;

/// The number of intervals that are kept; beyond it, neighbours are joined.
pub(super) const MAX_INTERVALS: usize = 120;

/// The figures of a run. Times are in seconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Measured {
    /// What was called, and how.
    pub(super) plan: PlanText,
    /// The time that was measured.
    pub(super) seconds: f64,
    /// Calls that succeeded.
    pub(super) ok: u64,
    /// Messages of the streams of these calls.
    pub(super) messages: Messages,
    /// Calls that failed.
    pub(super) errors: u64,
    /// Calls that were due, and were not made because too many were in flight.
    pub(super) skipped: u64,
    /// Calls without an outcome, because the run was interrupted.
    pub(super) unfinished: u64,
    /// Latencies of successful calls: in an open loop from the time when they were due.
    pub(super) latency: Latencies,
    /// In an open loop: latencies from the time when the calls were sent.
    pub(super) service: Option<Latencies>,
    pub(super) failures: Vec<Failures>,
    pub(super) generator: Generator,
    pub(super) intervals: Vec<Interval>,
}

/// What was called, and how.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct PlanText {
    pub(super) method: String,
    pub(super) targets: Vec<String>,
    /// The load in words, as `closed loop, 50 callers, 1 connection, 1 thread`.
    pub(super) load: String,
    pub(super) seed: u64,
    /// Calls have no reply.
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
    /// The text of one of them.
    pub(super) example: String,
}

/// What the program that makes the load used.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Generator {
    /// Processor time of the process, in seconds; `None` if the system does not tell.
    pub(super) cpu_seconds: Option<f64>,
    /// The part of a core that the busiest of the threads used.
    pub(super) busiest_thread: Option<f64>,
    /// The cores of the machine.
    pub(super) cores: u64,
}

/// A part of the time.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Interval {
    pub(super) seconds: f64,
    pub(super) ok: u64,
    pub(super) errors: u64,
    pub(super) skipped: u64,
    /// Latencies in nanoseconds, each with its number of calls.
    pub(super) latency: Vec<(u64, u64)>,
}

impl Measured {
    /// Successful calls per second.
    pub(super) fn rate(&self) -> f64 {
        per_second(self.ok, self.seconds)
    }

    /// The failure of a run in which calls failed and none succeeded.
    pub(super) fn nothing_succeeded(&self) -> Option<Failure> {
        let first = self.failures.first().filter(|_| self.ok == 0)?;
        let (code, example) = (&first.code, &first.example);
        let text = format!("no call succeeded: {code}: {example}");
        Some(Failure::Check(text))
    }

    /// The part of the calls that failed.
    pub(super) fn error_ratio(&self) -> f64 {
        part(self.errors, self.ok + self.errors)
    }

    /// The part of the calls that were due and were not made.
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
    /// Cores that the process used on average.
    pub(super) fn used_cores(&self, seconds: f64) -> Option<f64> {
        self.cpu_seconds.map(|cpu| cpu / seconds.max(1e-9))
    }
}

impl Interval {
    /// Successful calls per second.
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

/// Joins neighbours, so that half as many intervals are left.
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

/// Adds an interval that is too short for one of its own to the last one.
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
