//! Plots made of characters.

use crate::bench::latencies::{Latencies, QUANTILES, duration, short};
use crate::bench::measured::Interval;

/// The number of lines of a plot over time.
const HEIGHT: usize = 6;

/// The eighths of a line, from the lowest on.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The eighths of a column, from the narrowest on.
const BARS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// The width of the labels of an axis.
const LABEL: usize = 10;

/// Returns a bar for each quantile.
pub(super) fn quantiles(latencies: &Latencies, width: usize) -> Vec<String> {
    let values = QUANTILES.map(|(name, quantile)| (name, latencies.quantile(quantile)));
    let all: Vec<_> = values
        .into_iter()
        .chain([("max", latencies.max())])
        .collect();
    let highest = latencies.max().max(1.0);
    let room = width.saturating_sub(LABEL + 10);
    let lines = all.iter().map(|(name, nanos)| {
        let bar = bar(nanos / highest, room);
        format!("{name:>LABEL$} {:>8} {bar}", short(*nanos))
            .trim_end()
            .to_owned()
    });
    lines.collect()
}

/// Returns a bar that fills a fraction of this number of columns.
fn bar(part: f64, columns: usize) -> String {
    let eighths = (part.clamp(0.0, 1.0) * columns as f64 * 8.0).round() as usize;
    let mut bar = EIGHTHS[8].to_string().repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(BARS[eighths % 8]);
    }
    bar
}

/// Plots successful calls per second over time.
pub(super) fn rate(intervals: &[Interval], width: usize) -> Vec<String> {
    let columns = columns(intervals, width.saturating_sub(LABEL + 2));
    let highest = columns.iter().copied().fold(0.0, f64::max);
    if highest <= 0.0 {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for line in (0..HEIGHT).rev() {
        let label = match line {
            line if line + 1 == HEIGHT => format!("{highest:.0}/s"),
            0 => "0".to_owned(),
            _ => String::new(),
        };
        let blocks = columns.iter().map(|rate| {
            let eighths = (rate / highest * (HEIGHT * 8) as f64).round() as usize;
            EIGHTHS[eighths.saturating_sub(line * 8).min(8)]
        });
        let blocks: String = blocks.collect();
        lines.push(format!("{label:>LABEL$} {blocks}").trim_end().to_owned());
    }
    let seconds: f64 = intervals.iter().map(|interval| interval.seconds).sum();
    let end = duration(seconds);
    // At least one space separates it from the label of the beginning.
    let room = columns.len().saturating_sub(3).max(end.chars().count() + 1);
    lines.push(format!("{:>LABEL$} 0 s{end:>room$}", ""));
    lines
}

/// Returns the rates in columns of equal durations.
fn columns(intervals: &[Interval], max: usize) -> Vec<f64> {
    let seconds: f64 = intervals.iter().map(|interval| interval.seconds).sum();
    let count = max.min(intervals.len() * 2).max(1);
    let width = seconds / count as f64;
    let (mut at, mut ends) = (0, intervals.first().map_or(0.0, |first| first.seconds));
    let columns = (0..count).map(|column| {
        // A column shows the interval at its middle.
        let time = (column as f64 + 0.5) * width;
        while ends < time && at + 1 < intervals.len() {
            at += 1;
            ends += intervals[at].seconds;
        }
        intervals.get(at).map_or(0.0, Interval::rate)
    });
    columns.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn plots_keep_to_the_width_and_show_pauses() {
        let interval = |ok| Interval {
            seconds: 0.5,
            ok,
            ..Interval::default()
        };
        let intervals: Vec<_> = [100, 100, 0, 50].into_iter().map(interval).collect();
        let lines = rate(&intervals, 80);
        assert_eq!(lines.len(), HEIGHT + 1);
        assert_eq!(lines[0], "     200/s ████");
        assert_eq!(lines[HEIGHT - 1], "         0 ████  ██");
        assert_eq!(lines[HEIGHT], "           0 s 2.0 s");
        let lines = rate(&intervals[..1], 80);
        assert_eq!(lines[HEIGHT], "           0 s 500 ms");
        let many: Vec<_> = (0..120).map(interval).collect();
        for width in [40, 80, 160] {
            let lines = rate(&many, width);
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{width}"
            );
        }
        assert!(rate(&[], 80).is_empty());
    }

    #[test]
    fn the_bars_of_quantiles_are_as_long_as_their_latencies() {
        let mut latencies = Latencies::default();
        (0..99).for_each(|_| latencies.record(Duration::from_millis(5)));
        latencies.record(Duration::from_millis(10));
        let lines = quantiles(&latencies, 40);
        let length = |line: &String| line.matches(EIGHTHS[8]).count();
        assert_eq!(
            (length(&lines[0]), length(&lines[6])),
            (10, 20),
            "{lines:#?}"
        );
        assert!(lines.iter().all(|line| line.chars().count() <= 40));
    }
}
