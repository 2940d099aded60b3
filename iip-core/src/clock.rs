//! The one clock of this crate: the runtime's, so that tests can stop it.

use std::time::{Duration, Instant};

#[inline]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// `timeout` from `start`, or in a year if that is later than the clock can tell.
#[inline]
pub(crate) fn after(start: Instant, timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    start
        .checked_add(timeout)
        .or_else(|| start.checked_add(YEAR))
        .unwrap_or(start)
}
