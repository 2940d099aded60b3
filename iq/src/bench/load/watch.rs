//! The watch of the counts of the threads, for curves and for the progress.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Interval as Ticks, MissedTickBehavior, interval_at};

use super::Window;
use crate::bench::cpu;
use crate::bench::measured::{Interval, MAX_INTERVALS, extend_last, halve};
use crate::bench::progress::Progress;
use crate::bench::tally::{Counts, Shared};
use crate::output::Output;

/// The interval of the ticks.
const TICK: Duration = Duration::from_millis(100);

/// The number of ticks from one line of progress to the next.
const PROGRESS_TICKS: u32 = 10;

/// A watch that reads the counts at regular intervals.
#[derive(Debug)]
pub(super) struct Watch {
    window: Window,
    shared: Vec<Arc<Shared>>,
    ticks: Ticks,
    /// The number of ticks since the last interval.
    since_interval: u32,
    /// The number of ticks per interval.
    per_interval: u32,
    last: (Instant, Counts),
    intervals: Vec<Interval>,
    progress: Option<Progress>,
    cpu_before: Option<Duration>,
    /// The number of ticks so far; the first one is at the beginning of the measured part.
    looks: u32,
}

impl Watch {
    pub(super) fn new(window: Window, shared: Vec<Arc<Shared>>, output: &Output) -> Self {
        let mut ticks = interval_at(window.begin.into(), TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            window,
            shared,
            ticks,
            since_interval: 0,
            per_interval: 1,
            last: (window.begin, Counts::default()),
            intervals: Vec::new(),
            progress: Progress::new(output),
            cpu_before: cpu::process(),
            looks: 0,
        }
    }

    pub(super) fn window(&self) -> Window {
        self.window
    }

    pub(super) fn shared(&self) -> Vec<Arc<Shared>> {
        self.shared.clone()
    }

    /// Returns the processor time of the process since the beginning of the measured part.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let used = cpu::process()?.checked_sub(self.cpu_before?)?;
        Some(used.as_secs_f64())
    }

    /// Stops the callers of all threads.
    pub(super) fn stop(&self) {
        self.shared.iter().for_each(|shared| shared.stop());
    }

    /// Waits for the next tick, and reads the counts. Cancel safe: nothing is lost.
    pub(super) async fn next(&mut self) {
        self.ticks.tick().await;
        self.looks += 1;
        if self.looks == 1 {
            if self.window.begin > self.window.start {
                self.cpu_before = cpu::process();
            }
            return;
        }
        self.since_interval += 1;
        let is_interval = self.since_interval >= self.per_interval;
        let is_progress =
            (self.looks - 1).is_multiple_of(PROGRESS_TICKS) && self.progress.is_some();
        if !is_interval && !is_progress {
            return;
        }
        let (now, counts) = (Instant::now(), self.counts());
        if is_progress && let Some(progress) = &mut self.progress {
            let in_flight = self.shared.iter().map(|shared| shared.in_flight()).sum();
            progress.show(now.duration_since(self.window.begin), &counts, in_flight);
        }
        if is_interval {
            self.add_interval(now, counts);
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for shared in &self.shared {
            counts.add(&shared.tally().counts);
        }
        counts
    }

    fn add_interval(&mut self, now: Instant, counts: Counts) {
        self.since_interval = 0;
        let time = now.duration_since(self.last.0);
        self.intervals.push(counts.since(&self.last.1, time));
        self.last = (now, counts);
        if self.intervals.len() >= MAX_INTERVALS {
            halve(&mut self.intervals);
            self.per_interval = self.per_interval.saturating_mul(2);
        }
    }

    /// Returns the counts of all threads, in total and over time.
    pub(super) fn finish(mut self, end: Instant) -> (Counts, Vec<Interval>) {
        let counts = self.counts();
        let time = end.saturating_duration_since(self.last.0);
        let rest = counts.since(&self.last.1, time);
        match 2 * time >= TICK * self.per_interval {
            true => self.intervals.push(rest),
            false => extend_last(&mut self.intervals, rest),
        }
        (counts, self.intervals)
    }
}
