//! The counts of the threads of the load.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::latencies::Latencies;
use super::measured::{Failures, Interval, Messages};
use super::work::Failed;

/// The maximum length of the text of a failure, in characters.
const MAX_EXAMPLE: usize = 500;

/// The counts of calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) ok: u64,
    /// The messages of calls that succeeded.
    pub(super) messages: Messages,
    pub(super) errors: u64,
    pub(super) skipped: u64,
    /// The latencies since calls were due.
    pub(super) latency: Latencies,
    /// The latencies since calls were sent, if these times differ.
    pub(super) service: Option<Latencies>,
}

/// The counts of a thread.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    failures: BTreeMap<&'static str, (u64, String)>,
    /// The end of the last call.
    pub(super) last: Option<Instant>,
}

/// The state that a thread shares with the watch.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tally: Mutex<Tally>,
    in_flight: AtomicUsize,
    is_stopped: AtomicBool,
}

/// A call that is in flight until this is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>);

/// The times of a call that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) due: Instant,
    pub(super) sent: Instant,
    pub(super) ended: Instant,
}

impl Shared {
    /// Creates the state for an open loop, whose calls are sent later than they are due.
    pub(super) fn of_open_loop() -> Self {
        let shared = Self::default();
        shared.tally().counts.service = Some(Latencies::default());
        shared
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells callers to make no further calls.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Returns the number of calls in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Counts a call.
    pub(super) fn record(&self, times: Times, outcome: Result<Messages, Failed>) {
        let mut tally = self.tally();
        tally.last = Some(times.ended);
        match outcome {
            Ok(messages) => tally.counts.succeeded(times, messages),
            Err(failed) => tally.failed(failed),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    fn succeeded(&mut self, times: Times, messages: Messages) {
        self.ok += 1;
        self.messages.add(messages);
        self.latency.record(times.ended - times.due);
        if let Some(service) = &mut self.service {
            service.record(times.ended - times.sent);
        }
    }

    /// Adds the counts of another thread.
    pub(super) fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.messages.add(other.messages);
        self.errors += other.errors;
        self.skipped += other.skipped;
        self.latency.add(&other.latency);
        if let Some(service) = &other.service {
            self.service.get_or_insert_default().add(service);
        }
    }

    /// Returns what was counted since an earlier state.
    pub(super) fn since(&self, earlier: &Self, time: Duration) -> Interval {
        Interval {
            seconds: time.as_secs_f64(),
            ok: self.ok - earlier.ok,
            errors: self.errors - earlier.errors,
            skipped: self.skipped - earlier.skipped,
            latency: self.latency.since(&earlier.latency).buckets().collect(),
        }
    }
}

impl Tally {
    fn failed(&mut self, failed: Failed) {
        self.counts.errors += 1;
        let first = || (0, failed.text.chars().take(MAX_EXAMPLE).collect());
        self.failures.entry(failed.code).or_insert_with(first).0 += 1;
    }
}

/// Returns the failures of all threads, the most frequent first.
pub(super) fn failures<'a>(tallies: impl Iterator<Item = &'a Shared>) -> Vec<Failures> {
    let mut all: BTreeMap<&str, Failures> = BTreeMap::new();
    for shared in tallies {
        for (code, (count, example)) in &shared.tally().failures {
            let group = all.entry(code).or_insert_with(|| Failures {
                code: (*code).to_owned(),
                count: 0,
                example: example.clone(),
            });
            group.count += count;
        }
    }
    let mut all: Vec<Failures> = all.into_values().collect();
    all.sort_by_key(|group| std::cmp::Reverse(group.count));
    all
}
