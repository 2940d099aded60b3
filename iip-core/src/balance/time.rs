//! Times as numbers, which fit into an atomic.

use std::time::{Duration, Instant};

pub(super) use crate::clock::nanos;

/// The start of all times of a client. Times are nanoseconds since then, so that they fit into an
/// atomic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(pub(super) Instant);

impl Epoch {
    #[inline]
    pub(super) fn nanos(self, time: Instant) -> u64 {
        nanos(time.saturating_duration_since(self.0))
    }

    pub(super) fn instant(self, nanos: u64) -> Instant {
        crate::clock::after(self.0, Duration::from_nanos(nanos))
    }
}
