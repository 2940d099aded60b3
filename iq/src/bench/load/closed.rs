//! A closed loop: callers that wait for a reply before they call again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fastrand::Rng;

use super::Task;
use crate::bench::tally::Times;

/// The number of calls that a thread may still make.
#[derive(Debug)]
pub(super) struct Left(AtomicU64);

impl Left {
    pub(super) fn new(calls: u64) -> Self {
        Self(AtomicU64::new(calls))
    }

    /// Takes one call; returns `false` if none is left.
    fn take(&self) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        // All callers of this counter run on one thread.
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }
}

/// Makes calls until the time is over, or no call is left.
pub(super) async fn call(task: Task, left: Option<Arc<Left>>, seed: u64) {
    let Task {
        caller,
        shared,
        window,
    } = task;
    let _in_flight = shared.begin();
    let mut random = Rng::with_seed(seed);
    let mut sent = Instant::now();
    while !shared.is_stopped() && window.end.is_none_or(|end| sent < end) {
        let is_measured = sent >= window.begin;
        if is_measured && left.as_ref().is_some_and(|left| !left.take()) {
            return;
        }
        let request = caller.prepare(&mut random);
        if !caller.is_prepared() {
            sent = Instant::now();
        }
        let outcome = match request {
            Ok(request) => caller.call(request).await,
            Err(reason) => Err(reason.into()),
        };
        // The end of one call is the beginning of the next.
        let ended = Instant::now();
        let has_failed = outcome.is_err();
        if is_measured {
            let times = Times {
                due: sent,
                sent,
                ended,
            };
            shared.record(times, outcome);
        }
        sent = ended;
        if has_failed || caller.is_one_way() {
            // The call may have ended without waiting, so other tasks need a chance to run.
            tokio::task::yield_now().await;
            sent = Instant::now();
        }
    }
}
