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

/// How much may happen in a second.
#[derive(Debug)]
pub(super) struct Rate {
    most: u32,
    /// When the second began, and what has happened in it.
    began: Instant,
    count: u32,
}

const SECOND: Duration = Duration::from_secs(1);

impl Rate {
    pub(super) fn new(most: u32, now: Instant) -> Self {
        Self {
            most,
            began: now,
            count: 0,
        }
    }

    /// Something happened, at the time `now` or soon after.
    pub(super) fn count(&mut self, now: Instant) {
        self.renew(now);
        self.count += 1;
    }

    /// May more happen?
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.count < self.most
    }

    /// When more may happen, if nothing may now.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.has_room()).then(|| self.began + SECOND)
    }

    pub(super) fn renew(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= SECOND {
            self.began = now;
            self.count = 0;
        }
    }
}

/// When something last moved.
#[derive(Debug)]
pub(crate) struct Timers {
    last_read: Instant,
    last_write: Instant,
    /// The first write after the last read.
    unheard_since: Instant,
    /// Since when there is nothing to read, and for how long there was nothing before, together.
    dry_since: Option<Instant>,
    dry: Duration,
    /// When the first byte of the unfinished head came.
    head_since: Option<Instant>,
    /// Since when output waits without a pause.
    output_since: Option<Instant>,
    over_budget_since: Option<Instant>,
    batch: Instant,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_read: now,
            last_write: now,
            unheard_since: now,
            dry_since: None,
            dry: Duration::ZERO,
            head_since: None,
            output_since: None,
            over_budget_since: None,
            batch: now,
        }
    }

    pub(crate) fn last_read(&self) -> Instant {
        self.last_read
    }

    pub(crate) fn last_write(&self) -> Instant {
        self.last_write
    }

    /// Since when the peer has had something to answer: the first write after the last read, or that read.
    pub(super) fn unheard_since(&self) -> Instant {
        self.unheard_since.max(self.last_read)
    }

    /// The frames that are handled next were read now, or else by the last read.
    pub(crate) fn on_batch(&mut self, now: Option<Instant>) {
        self.batch = now.unwrap_or(self.last_read);
    }

    /// When the frames that are handled were read.
    pub(super) fn batch(&self) -> Instant {
        self.batch
    }

    /// When bytes were last read or written.
    pub(crate) fn last_moved(&self) -> Instant {
        self.last_read.max(self.last_write)
    }

    /// Bytes were read; `in_head` tells whether they end within a frame's head, `frames` whether any frame completed.
    pub(crate) fn on_read(&mut self, now: Instant, in_head: bool, frames: bool) {
        self.last_read = now;
        if let Some(since) = self.dry_since.take() {
            self.dry += now.saturating_duration_since(since);
        }
        match in_head {
            false => self.head_since = None,
            true if frames || self.head_since.is_none() => self.head_since = Some(now),
            true => {}
        }
    }

    /// There is nothing to read at the moment.
    pub(crate) fn on_dry(&mut self, now: Instant) {
        self.dry_since.get_or_insert(now);
    }

    /// For how long there was nothing to read, in all.
    pub(crate) fn dry(&self) -> Duration {
        self.dry
    }

    pub(super) fn on_write(&mut self, now: Instant) {
        if self.unheard_since <= self.last_read {
            self.unheard_since = now;
        }
        self.last_write = now;
    }

    /// A frame was taken: for that moment there was room.
    #[inline]
    pub(crate) fn on_room(&mut self) {
        self.over_budget_since = None;
    }

    /// Output or buffered bytes began or ceased to wait.
    pub(crate) fn on_waiting(&mut self, now: Instant, output: bool, over_budget: bool) {
        update(&mut self.output_since, now, output);
        update(&mut self.over_budget_since, now, over_budget);
    }

    /// Since when each limit is in force, and how long it is; in the order of [`NAMES`].
    #[inline]
    fn limits(&self, limits: &Limits, waits: Waits) -> [(Option<Instant>, Duration); 5] {
        let progress = limits.progress();
        let write = self.output_since.filter(|_| waits.write);
        [
            (self.head_since.filter(|_| waits.head), limits.frame_head()),
            (waits.body.then_some(self.last_read), progress),
            (write.map(|since| since.max(self.last_write)), progress),
            (
                self.over_budget_since.filter(|_| waits.over_budget),
                progress,
            ),
            (waits.idle.then(|| self.last_moved()), limits.idle()),
        ]
    }

    /// When the first limit will be reached.
    pub(super) fn next(&self, limits: &Limits, waits: Waits) -> Option<Instant> {
        let mut next = None;
        for (since, limit) in self.limits(limits, waits) {
            if let Some(at) = since.and_then(|since| since.checked_add(limit))
                && next.is_none_or(|next| at < next)
            {
                next = Some(at);
            }
        }
        next
    }

    pub(super) fn check(
        &self,
        now: Instant,
        limits: &Limits,
        waits: Waits,
    ) -> Result<(), ConnectionError> {
        for ((since, limit), (what, option)) in self.limits(limits, waits).into_iter().zip(NAMES) {
            if since.is_some_and(|since| now.saturating_duration_since(since) >= limit) {
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

/// What was waited for, and the option that says how long.
const NAMES: [(&str, &str); 5] = [
    ("the head of a frame", "frame_head_timeout"),
    ("the next bytes of a message", "progress_timeout"),
    ("the peer to read", "progress_timeout"),
    ("room for more than max_buffered_bytes", "progress_timeout"),
    ("the next call", "idle_timeout"),
];

/// A peer has not read for so long.
#[cold]
pub(crate) fn not_read(limit: Duration) -> ConnectionError {
    let (what, option) = NAMES[2];
    ConnectionError::Timeout {
        what,
        limit,
        option,
    }
}

fn update(since: &mut Option<Instant>, now: Instant, waiting: bool) {
    if !waiting {
        *since = None;
    } else if since.is_none() {
        *since = Some(now);
    }
}
