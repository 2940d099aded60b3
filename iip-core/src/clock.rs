//! The only clock of these crates: that of the runtime, so that tests can pause it.

#![expect(clippy::disallowed_methods, reason = "the rule points here")]

use std::time::{Duration, Instant, SystemTime};

/// Returns the time of the runtime's clock.
#[inline]
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the wall-clock time, which tests cannot pause.
#[must_use]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Returns a duration in nanoseconds; the maximum is 584 years.
#[inline]
#[must_use]
pub(crate) fn nanos(duration: Duration) -> u64 {
    // Twice as fast as by way of 128 bits.
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}

/// Returns the wall-clock time in the time zone of the system, which tests cannot pause.
#[cfg(feature = "rules")]
#[must_use]
pub fn local_time() -> iip_rules::LocalTime {
    use chrono::{Datelike, Timelike};

    let now = chrono::Local::now();
    let part = |part: u32| u8::try_from(part).unwrap_or_default();
    iip_rules::LocalTime {
        year: now.year(),
        month: part(now.month()),
        day: part(now.day()),
        hour: part(now.hour()),
        minute: part(now.minute()),
        second: part(now.second()),
    }
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
