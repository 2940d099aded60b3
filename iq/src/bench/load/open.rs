//! An open loop: calls that are sent when they are due, whether or not earlier ones have ended.

use std::io;

use fastrand::Rng;

use super::Task;
use super::pace::Pace;
use super::schedule::Schedule;
use crate::bench::tally::Times;

/// The number of calls that are sent before other tasks may run.
const BATCH: u32 = 32;

/// The share that a thread has of an open loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) schedule: Schedule,
    /// The number of its first call.
    pub(super) first: u64,
    /// The step from one of its calls to the next, which is the number of threads.
    pub(super) step: u64,
    pub(super) max_in_flight: usize,
    pub(super) is_precise: bool,
}

impl Share {
    /// Returns the first call of this thread after `call` that is not before `first_after`.
    fn next_after(&self, call: u64, first_after: u64) -> u64 {
        let steps = first_after.saturating_sub(call).div_ceil(self.step);
        call + steps.max(1) * self.step
    }
}

/// Sends calls when they are due, until none is left.
pub(super) async fn send(task: &Task, share: Share, seed: u64) -> io::Result<()> {
    let Task {
        caller,
        shared,
        window,
    } = task;
    let pace = Pace::new(share.is_precise)?;
    let (mut random, mut call, mut batch) = (Rng::with_seed(seed), share.first, 0);
    while let Some((due, is_measured)) = share.schedule.due(call) {
        let request = caller.prepare(&mut random);
        let due = window.start + due;
        let sent = pace.until(due).await;
        if shared.in_flight() >= share.max_in_flight {
            // All due calls are skipped now, and not sent in a burst once there is room.
            let first_after = share.schedule.first_after(sent - window.start);
            let next = share.next_after(call, first_after);
            if is_measured {
                shared.tally().counts.skipped += (next - call) / share.step;
            }
            call = next;
            continue;
        }
        call += share.step;
        let (in_flight, caller, shared) = (shared.begin(), caller.clone(), shared.clone());
        tokio::spawn(async move {
            let outcome = match request {
                Ok(request) => caller.call(request).await,
                Err(reason) => Err(reason.into()),
            };
            if is_measured {
                let ended = std::time::Instant::now();
                shared.record(Times { due, sent, ended }, outcome);
            }
            drop(in_flight);
        });
        batch += 1;
        if batch == BATCH {
            batch = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_due_is_skipped_in_one_step() {
        let (second, none) = (Duration::from_secs(1), None);
        let share = Share {
            schedule: Schedule::new((1000.0, 1000.0), Duration::ZERO, none, None),
            first: 1,
            step: 4,
            max_in_flight: 1,
            is_precise: false,
        };
        let next = share.next_after(5, share.schedule.first_after(second));
        assert_eq!(next, 1001);
        assert!(
            share
                .schedule
                .due(next)
                .is_some_and(|(due, _)| due > second)
        );
        assert_eq!(share.next_after(5, 5), 9);
    }
}
