//! Cells: the displayed text, and the value for sorting.

use std::cmp::Ordering;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// The value for sorting; the text if there is none.
    number: Option<f64>,
    pub(crate) mark: Mark,
}

/// The highlighting of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    Plain,
    Warning,
    Problem,
}

impl Cell {
    pub(in crate::top) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            number: None,
            mark: Mark::Plain,
        }
    }

    pub(super) fn number(number: Option<f64>, shown: impl Fn(f64) -> String) -> Self {
        Self {
            text: number.map_or_else(|| "-".to_owned(), shown),
            // Unknown values are sorted below all others.
            number: Some(number.unwrap_or(f64::NEG_INFINITY)),
            mark: Mark::Plain,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers are for people")]
    pub(super) fn count(count: Option<u64>) -> Self {
        Self::number(count.map(|count| count as f64), |count| {
            format!("{count:.0}")
        })
    }

    pub(super) fn rate(rate: Option<f64>) -> Self {
        Self::number(rate, shown_rate)
    }

    pub(super) fn errors(rate: Option<f64>) -> Self {
        let is_error = rate.is_some_and(|rate| rate > 0.0);
        Self::rate(rate).marked(if is_error { Mark::Problem } else { Mark::Plain })
    }

    pub(super) fn latency(us: Option<f64>) -> Self {
        Self::number(us, shown_latency)
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers are for people")]
    pub(super) fn bytes(bytes: u64) -> Self {
        Self::number(Some(bytes as f64), shown_bytes)
    }

    /// Returns a cell with the time between two moments, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "numbers are for people")]
    pub(super) fn since(now: u64, then: Option<u64>) -> Self {
        let passed = then.map(|then| now.saturating_sub(then) / 1000);
        Self::number(passed.map(|seconds| seconds as f64), |_| {
            shown_age(passed.unwrap_or(0))
        })
    }

    pub(super) fn marked(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            _ => self.text.cmp(&other.text),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers are for people")]
pub(super) fn micros(us: u64) -> f64 {
    us as f64
}

pub(super) fn shown_us(us: u64) -> String {
    shown_latency(micros(us))
}

pub(crate) fn shown_rate(rate: f64) -> String {
    match rate {
        ..100.0 => format!("{rate:.1}"),
        _ => format!("{rate:.0}"),
    }
}

pub(crate) fn shown_latency(us: f64) -> String {
    match Duration::try_from_secs_f64(us / 1e6) {
        Ok(Duration::ZERO) => "0".to_owned(),
        Ok(time) => format!("{time:.1?}"),
        // A process may send a value that is not a duration.
        Err(_) => "-".to_owned(),
    }
}

fn shown_bytes(bytes: f64) -> String {
    match bytes {
        ..1024.0 => format!("{bytes:.0} B"),
        ..1_048_576.0 => format!("{:.1} KiB", bytes / 1024.0),
        ..1_073_741_824.0 => format!("{:.1} MiB", bytes / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes / 1_073_741_824.0),
    }
}

pub(crate) fn shown_age(seconds: u64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        3600..86400 => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
