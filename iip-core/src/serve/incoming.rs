//! A request that has arrived, before its handler runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::clock;
use crate::frame::ChannelId;
use crate::proto::{RequestPath, is_one_way};
use crate::stats::may_be_slow;

/// A request that is being dispatched to its handler.
pub(super) struct IncomingCall {
    /// The number of the call on its connection.
    pub(super) serial: u64,
    pub(super) channel: ChannelId,
    pub(super) path: Arc<RequestPath>,
    pub(super) body: Bytes,
    pub(super) kind: Kind,
    pub(super) received: Received,
}

impl IncomingCall {
    /// Returns `true` if the caller gets no reply.
    #[inline]
    pub(super) fn is_one_way(&self) -> bool {
        is_one_way(self.channel)
    }
}

/// The time at which a request had arrived, and how long it waited for its turn.
#[derive(Clone, Copy)]
pub(super) struct Received {
    pub(super) at: Instant,
    pub(super) waited: Duration,
}

impl Received {
    /// Creates the times of a request that has arrived now.
    #[inline]
    pub(super) fn now(now: Instant) -> Self {
        Self {
            at: now,
            waited: Duration::ZERO,
        }
    }

    /// Returns `true` if a call that ends now may be slow.
    pub(super) fn may_be_slow(self) -> bool {
        may_be_slow(clock::now().saturating_duration_since(self.at))
    }
}

/// The form in which the request of a call arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As a whole.
    Whole,
    /// More parts follow.
    Parts,
    /// A stream in each direction; `is_busy` if the server or connection is at capacity.
    Stream { is_busy: bool },
}
