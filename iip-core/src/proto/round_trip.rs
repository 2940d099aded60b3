//! The time that a message takes to the peer and back. Pure.

use std::time::{Duration, Instant};

/// Measures exchanges to which the peer replies by itself, whatever its handlers do.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    /// The begin of the exchange that is being measured.
    begun: Option<Instant>,
    last: Option<Duration>,
}

impl RoundTrip {
    /// Begins to measure, unless an exchange is being measured already.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// Ends the measurement, if there is one.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(begun) = self.begun.take() {
            self.last = Some(now.saturating_duration_since(begun));
        }
    }

    /// Returns what was measured last.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }
}
