//! Local time, which the caller passes to an evaluation.

/// A point in local time, from which the variables of time are read, such as `$stime` or `$ihour`.
///
/// The crate asks no clock. A caller without a library for time zones can use
/// [`LocalTime::from_unix`] with a fixed offset.
///
/// ```
/// use iip_rules::LocalTime;
///
/// let noon = LocalTime { year: 2026, month: 2, day: 28, hour: 12, minute: 0, second: 0 };
/// assert_eq!(LocalTime::from_unix(1_772_276_400, 3600), noon);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the parts of a time do not change"
)]
pub struct LocalTime {
    /// The year, such as 2026.
    pub year: i32,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, 1 to 31.
    pub day: u8,
    /// The hour, 0 to 23.
    pub hour: u8,
    /// The minute, 0 to 59.
    pub minute: u8,
    /// The second, 0 to 59.
    pub second: u8,
}

impl LocalTime {
    /// Returns the time that is `seconds` after 1970-01-01 00:00:00 UTC in a zone which is
    /// `utc_offset` seconds ahead of UTC. Years beyond the range of `i32` are clamped to it.
    #[must_use]
    pub fn from_unix(seconds: i64, utc_offset: i32) -> Self {
        let local = seconds.saturating_add(i64::from(utc_offset));
        let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        // The calendar repeats every 400 years, which are 146,097 days. Years begin in March here,
        // so that the leap day is the last one.
        let days = days + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = year + 400 * era + next;
        let part = |value: i64| u8::try_from(value).unwrap_or(0);
        Self {
            year: i32::try_from(year).unwrap_or(if year < 0 { i32::MIN } else { i32::MAX }),
            month: part(month),
            day: part(day),
            hour: part(second / 3600),
            minute: part(second / 60 % 60),
            second: part(second % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_computed_from_unix_seconds() {
        let parts = |seconds, offset| {
            let time = LocalTime::from_unix(seconds, offset);
            let LocalTime {
                year,
                month,
                day,
                hour,
                minute,
                second,
            } = time;
            (year, month, day, hour, minute, second)
        };
        assert_eq!(parts(0, 0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(parts(-1, 0), (1969, 12, 31, 23, 59, 59));
        assert_eq!(parts(951_782_400, 0), (2000, 2, 29, 0, 0, 0));
        assert_eq!(parts(951_868_799, 1), (2000, 3, 1, 0, 0, 0));
        assert_eq!(parts(4_107_542_400, 0), (2100, 3, 1, 0, 0, 0));
        assert_eq!(parts(1_700_000_000, 28_800), (2023, 11, 15, 6, 13, 20));
        assert_eq!(parts(i64::MAX, 0).0, i32::MAX);
        assert_eq!(parts(i64::MIN, 0).0, i32::MIN);
    }
}
