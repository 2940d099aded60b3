//! The pace of repeated calls.

use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// The pace of the calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// The pace of the recording.
    Original,
    /// This number of calls per second.
    Rate(f64),
    /// The pace at which the server replies.
    Max,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected `original`, `max`, or a number of calls such as 50/s".to_owned();
        match (text, text.strip_suffix("/s")) {
            ("original", _) => Ok(Self::Original),
            ("max", _) => Ok(Self::Max),
            (_, Some(rate)) => Ok(Self::Rate(positive(rate).map_err(|_| wrong())?)),
            _ => Err(wrong()),
        }
    }
}

/// Parses a number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    match number.is_finite() && number > 0.0 && number <= 1e6 {
        true => Ok(number),
        false => Err("the number must be more than 0, and at most 1000000".to_owned()),
    }
}

/// The times at which calls are due.
pub(super) struct Clock {
    pace: Pace,
    speed: f64,
    started: Instant,
    /// The time of the first call in the recording.
    first: Option<u64>,
    count: u64,
}

impl Clock {
    pub(super) fn new(pace: Pace, speed: f64) -> Self {
        Self {
            pace,
            speed,
            started: Instant::now(),
            first: None,
            count: 0,
        }
    }

    /// Waits until the next call is due, which was recorded at `at`.
    pub(super) async fn wait(&mut self, at: u64) {
        // A time beyond the range of the clock never comes.
        let after = self.due(at);
        match self.started.checked_add(after) {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the time from the start until the next call is due.
    fn due(&mut self, at: u64) -> Duration {
        let first = *self.first.get_or_insert(at);
        let after = match self.pace {
            Pace::Max => 0.0,
            Pace::Original => {
                let recorded = Duration::from_micros(at.saturating_sub(first));
                recorded.as_secs_f64() / self.speed
            }
            Pace::Rate(rate) => self.count as f64 / rate,
        };
        self.count += 1;
        Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces_are_parsed() {
        assert_eq!("original".parse(), Ok(Pace::Original));
        assert_eq!("max".parse(), Ok(Pace::Max));
        assert_eq!("2.5/s".parse(), Ok(Pace::Rate(2.5)));
        for text in ["", "5", "/s", "0/s", "-1/s", "inf/s", "5/m"] {
            assert!(text.parse::<Pace>().is_err(), "{text}");
        }
    }

    #[test]
    fn calls_are_due_at_their_times() {
        for (pace, speed, expected) in [
            (Pace::Original, 1.0, [0, 3_000, 2_000]),
            (Pace::Original, 2.0, [0, 1_500, 1_000]),
            (Pace::Rate(4.0), 1.0, [0, 250, 500]),
            (Pace::Max, 1.0, [0, 0, 0]),
        ] {
            let mut clock = Clock::new(pace, speed);
            let due = [7_000_000, 10_000_000, 9_000_000].map(|at| clock.due(at).as_millis());
            assert_eq!(due, expected, "{pace:?}");
        }
    }
}
