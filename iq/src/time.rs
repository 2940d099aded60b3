//! Times on the command line and in the configuration.

use std::time::Duration;

/// Maximum time, so that every command ends.
const MAX: Duration = Duration::from_secs(24 * 3600);

/// Parses a time such as `500ms`, `10s`, `2m` or `1h`. It must be more than zero, and at most a
/// day.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let time = time_of(text).ok_or("expected a time such as 500ms, 10s, 2m or 1h")?;
    match time {
        Duration::ZERO => Err("the time must be more than zero".to_owned()),
        time if time > MAX => Err("the time must be at most 24h".to_owned()),
        time => Ok(time),
    }
}

fn time_of(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_limits() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse("24h"), Ok(MAX));
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "1.5s",
            "5 s",
            "0s",
            "25h",
            "99999999999999999999s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
