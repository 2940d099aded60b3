//! The replies that a client has read together.

use std::time::Instant;

use super::recorder::{Recorder, Replies};
use super::registry::MethodId;

/// The maximum number of replies that are timed together.
const MAX_REPLIES: u32 = 8;

/// The replies of a batch.
#[derive(Debug, Default)]
pub(crate) struct ReplyBatch {
    last: Replies,
    full: Vec<Replies>,
}

impl ReplyBatch {
    /// Adds a call that has its reply.
    #[inline]
    pub(crate) fn add(&mut self, method: Option<MethodId>, begun: Option<Instant>) {
        if self.last.method != method || self.last.calls == MAX_REPLIES {
            self.next(method);
        }
        self.last.calls = self.last.calls.wrapping_add(1);
        if self.last.calls <= MAX_REPLIES / 2 {
            self.last.begun = begun;
        }
    }

    /// Counts the one frame of the last reply.
    #[inline]
    pub(crate) fn add_frame(&mut self, bytes: usize) {
        self.last.frames = self.last.frames.wrapping_add(1);
        self.last.bytes = self.last.bytes.wrapping_add(bytes as u64);
    }

    #[cold]
    fn next(&mut self, method: Option<MethodId>) {
        let last = std::mem::take(&mut self.last);
        if last.calls > 0 {
            self.full.push(last);
        }
        self.last.method = method;
    }

    /// Counts the replies, which have been read now.
    pub(crate) fn count(&mut self, stats: &mut Recorder, now: Instant) {
        while let Some(replies) = self.full.pop() {
            stats.replied_by(&replies, now);
        }
        if self.last.calls > 0 {
            stats.replied_by(&self.last, now);
            self.last.calls = 0;
            (self.last.frames, self.last.bytes) = (0, 0);
        }
    }

    /// Releases the memory that is needed only while there are calls.
    pub(crate) fn release_memory(&mut self) {
        self.full = Vec::new();
    }
}
