//! The progress of a run: one line per second.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::latencies::short;
use super::tally::Counts;
use crate::output::Output;

/// A writer of one line per second on stderr.
#[derive(Debug)]
pub(super) struct Progress {
    last: (Duration, Counts),
}

impl Progress {
    /// Returns `None` if nobody watches: stderr is not a terminal, or the output is quiet or JSON.
    pub(super) fn new(output: &Output) -> Option<Self> {
        let is_watched = io::stderr().is_terminal() && !output.is_quiet() && !output.is_json();
        is_watched.then(|| Self {
            last: (Duration::ZERO, Counts::default()),
        })
    }

    /// Writes a line with what was counted since the last line.
    pub(super) fn show(&mut self, time: Duration, counts: &Counts, in_flight: usize) {
        let line = line(time, counts, &self.last, in_flight);
        self.last = (time, counts.clone());
        // A failure cannot be reported anywhere.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

fn line(time: Duration, counts: &Counts, last: &(Duration, Counts), in_flight: usize) -> String {
    let interval = counts.since(&last.1, time.saturating_sub(last.0));
    let latency = counts.latency.since(&last.1.latency);
    let show = |quantile| match latency.count() {
        0 => "-".to_owned(),
        _ => short(latency.quantile(quantile)),
    };
    let skipped = match interval.skipped {
        0 => String::new(),
        skipped => format!("  {skipped} skipped"),
    };
    format!(
        "{:>4} s  {:>9.0}/s  {} errors{skipped}  p50 {}  p99 {}  {in_flight} in flight",
        time.as_secs(),
        interval.rate(),
        interval.errors,
        show(0.5),
        show(0.99),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_happened_since_the_last_one() {
        let mut counts = Counts::default();
        (0..100).for_each(|_| counts.latency.record(Duration::from_secs(1)));
        counts.ok = 100;
        let last = (Duration::from_secs(1), counts.clone());
        (0..50).for_each(|_| counts.latency.record(Duration::from_millis(2)));
        (counts.ok, counts.errors, counts.skipped) = (150, 3, 4);
        assert_eq!(
            line(Duration::from_secs(2), &counts, &last, 7),
            "   2 s         50/s  3 errors  4 skipped  p50 2.00 ms  p99 2.00 ms  7 in flight"
        );
    }
}
