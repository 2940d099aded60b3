//! The only clock of these crates: that of the runtime, so that tests can pause it.

#![expect(clippy::disallowed_methods, reason = "the rule points here")]

use std::time::{Duration, Instant};

/// Returns the time of the runtime's clock.
#[inline]
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the time `timeout` after `start`, or a year after it if the clock cannot represent that.
#[inline]
#[must_use]
pub fn after(start: Instant, timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    start
        .checked_add(timeout)
        .or_else(|| start.checked_add(YEAR))
        .unwrap_or(start)
}
