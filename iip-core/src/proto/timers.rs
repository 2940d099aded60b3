//! The time limits of a connection as data. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use crate::error::ConnectionError;
use crate::limits::Limits;

/// What is being waited for at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    /// The head of a frame has begun.
    pub(super) head: bool,
    /// A body has begun; or a message has, and nothing else goes on.
    pub(super) body: bool,
    /// Output waits for the peer to read.
    pub(super) write: bool,
    /// The connection is not read because too much is buffered.
    pub(super) over_budget: bool,
    /// Nothing goes on.
    pub(super) idle: bool,
}

/// When something last moved.
#[derive(Debug)]
pub(crate) struct Timers {
    last_read: Instant,
    last_write: Instant,
    /// When the first byte of the unfinished head came.
    head_since: Option<Instant>,
    /// Since when output waits without a pause.
    output_since: Option<Instant>,
    over_budget_since: Option<Instant>,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_read: now,
            last_write: now,
            head_since: None,
            output_since: None,
            over_budget_since: None,
        }
    }

    pub(crate) fn last_read(&self) -> Instant {
        self.last_read
    }

    /// When bytes were last read or written.
    pub(crate) fn last_moved(&self) -> Instant {
        self.last_read.max(self.last_write)
    }

    /// Bytes were read; `in_head` tells whether they end within a frame's head, `frames` whether any frame completed.
    pub(crate) fn on_read(&mut self, now: Instant, in_head: bool, frames: bool) {
        self.last_read = now;
        match in_head {
            false => self.head_since = None,
            true if frames || self.head_since.is_none() => self.head_since = Some(now),
            true => {}
        }
    }

    pub(super) fn on_write(&mut self, now: Instant) {
        self.last_write = now;
    }

    /// Output or buffered bytes began or ceased to wait.
    pub(crate) fn on_waiting(&mut self, now: Instant, output: bool, over_budget: bool) {
        update(&mut self.output_since, now, output);
        update(&mut self.over_budget_since, now, over_budget);
    }

    /// Each limit in force: since when, how long, what and which option.
    fn limits<'a>(
        &'a self,
        limits: &'a Limits,
        waits: Waits,
    ) -> impl Iterator<Item = (Instant, Duration, &'static str, &'static str)> + 'a {
        let progress = limits.progress();
        let head = self.head_since.filter(|_| waits.head);
        let body = waits.body.then_some(self.last_read);
        let write = self
            .output_since
            .filter(|_| waits.write)
            .map(|since| since.max(self.last_write));
        let budget = self.over_budget_since.filter(|_| waits.over_budget);
        let idle = waits.idle.then_some(self.last_read.max(self.last_write));
        [
            head.map(|since| {
                (
                    since,
                    limits.frame_head(),
                    "the head of a frame",
                    "frame_head_timeout",
                )
            }),
            body.map(|since| {
                (
                    since,
                    progress,
                    "the next bytes of a message",
                    "progress_timeout",
                )
            }),
            write.map(|since| (since, progress, "the peer to read", "progress_timeout")),
            budget.map(|since| {
                (
                    since,
                    progress,
                    "room for more than max_buffered_bytes",
                    "progress_timeout",
                )
            }),
            idle.map(|since| (since, limits.idle(), "the next call", "idle_timeout")),
        ]
        .into_iter()
        .flatten()
    }

    pub(super) fn next(&self, limits: &Limits, waits: Waits) -> Option<Instant> {
        self.limits(limits, waits)
            .filter_map(|(since, limit, ..)| since.checked_add(limit))
            .min()
    }

    pub(super) fn check(
        &self,
        now: Instant,
        limits: &Limits,
        waits: Waits,
    ) -> Result<(), ConnectionError> {
        for (since, limit, what, option) in self.limits(limits, waits) {
            if now.saturating_duration_since(since) >= limit {
                return Err(ConnectionError::Timeout {
                    what,
                    limit,
                    option,
                });
            }
        }
        Ok(())
    }
}

fn update(since: &mut Option<Instant>, now: Instant, waiting: bool) {
    if !waiting {
        *since = None;
    } else if since.is_none() {
        *since = Some(now);
    }
}
