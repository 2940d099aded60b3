//! Times as numbers, which fit into an atomic.

use std::time::{Duration, Instant};

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

/// Returns a duration in nanoseconds; the maximum is 584 years.
#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    // Twice as fast as by way of 128 bits.
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}
