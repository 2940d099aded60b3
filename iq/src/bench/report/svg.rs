//! Curves as SVG.

use std::fmt::Write as _;

use crate::bench::latencies::{Latencies, duration, short};
use crate::bench::measured::{Interval, Measured};

/// The size of a picture, and the room for the labels of its axes.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 76.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 12.0;

/// The percentiles at the axis.
const PERCENTILES: [(&str, f64); 6] = [
    ("0 %", 0.0),
    ("90 %", 0.9),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("99.99 %", 0.9999),
    ("99.999 %", 0.99999),
];

/// The number of points of a curve of percentiles.
const POINTS: u32 = 200;

/// The number of bars of a histogram.
const BARS: usize = 60;

/// A function that returns the number of calls of one kind in an interval.
type Count = fn(&Interval) -> u64;

/// A position on an axis, between 0 and 1.
type Part = f64;

/// A picture with axes.
struct Picture(String);

impl Picture {
    fn new(title: &str) -> Self {
        Self(format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        ))
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }

    // Writing to a string does not fail.
    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(element);
    }

    /// Draws a line across the picture with its label, which is not escaped.
    fn level(&mut self, at: Part, label: &str) {
        let (left, right, y) = (x(0.0), x(1.0), y(at));
        self.element(format_args!(
            "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 6.0,
            y + 4.0
        ));
    }

    /// Writes a label below the picture.
    fn label(&mut self, at: Part, label: &str) {
        self.element(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x(at),
            HEIGHT - 8.0
        ));
    }

    fn curve(&mut self, class: &str, points: impl Iterator<Item = (Part, Part)>) {
        let points: Vec<String> = points
            .map(|(at, value)| format!("{:.1},{:.1}", x(at), y(value)))
            .collect();
        let points = points.join(" ");
        self.element(format_args!(
            "<polyline class=\"{class}\" points=\"{points}\"/>"
        ));
    }

    fn bar(&mut self, class: &str, from: Part, to: Part, height: Part) {
        let (left, top) = (x(from), y(height));
        self.element(format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
             height=\"{:.1}\"/>",
            x(to) - left,
            y(0.0) - top
        ));
    }
}

fn x(at: Part) -> f64 {
    LEFT + at.clamp(0.0, 1.0) * (WIDTH - LEFT - 40.0)
}

fn y(at: Part) -> f64 {
    TOP + (1.0 - at.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
}

/// An axis of latencies whose steps are powers of ten.
#[derive(Clone, Copy)]
struct Powers {
    low: f64,
    high: f64,
}

impl Powers {
    fn of(measured: &Measured) -> Self {
        let all = both(measured);
        let lowest = all
            .iter()
            .map(|(_, of)| of.quantile(0.0))
            .fold(f64::MAX, f64::min);
        let highest = all.iter().map(|(_, of)| of.max()).fold(0.0, f64::max);
        let low = lowest.max(1.0).log10().floor();
        Self {
            low,
            high: highest.max(1.0).log10().ceil().max(low + 1.0),
        }
    }

    fn part(self, nanos: f64) -> Part {
        (nanos.max(1.0).log10() - self.low) / (self.high - self.low)
    }

    /// Returns the powers of ten, with their positions.
    fn steps(self) -> impl Iterator<Item = (Part, String)> {
        let count = (self.high - self.low) as u32;
        (0..=count).map(move |step| {
            let nanos = 10_f64.powf(self.low + f64::from(step));
            (self.part(nanos), short(nanos))
        })
    }
}

/// Returns the kinds of latency, with the class of each.
fn both(measured: &Measured) -> Vec<(&'static str, &Latencies)> {
    let service = measured.service.as_ref().map(|service| ("sent", service));
    [("due", &measured.latency)]
        .into_iter()
        .chain(service)
        .collect()
}

/// Draws latencies by percentile; both axes are logarithmic.
pub(super) fn percentiles(measured: &Measured) -> String {
    let mut picture = Picture::new("Latency by percentile");
    let (powers, decades) = (Powers::of(measured), (PERCENTILES.len() - 1) as f64);
    for (at, label) in powers.steps() {
        picture.level(at, &label);
    }
    for (label, quantile) in PERCENTILES {
        picture.label(-f64::log10(1.0 - quantile) / decades, label);
    }
    for (class, latencies) in both(measured) {
        let points = (0..=POINTS).map(|point| {
            let at = f64::from(point) / f64::from(POINTS);
            let quantile = 1.0 - 10_f64.powf(-at * decades);
            (at, powers.part(latencies.quantile(quantile)))
        });
        picture.curve(class, points);
    }
    picture.finish()
}

/// Draws calls, errors and skipped calls per second over time.
pub(super) fn over_time(measured: &Measured) -> String {
    let mut picture = Picture::new("Calls per second over time");
    let intervals = &measured.intervals;
    let seconds: f64 = intervals.iter().map(|interval| interval.seconds).sum();
    let seconds = seconds.max(1e-9);
    let rate = |count: u64, interval: &Interval| count as f64 / interval.seconds.max(1e-9);
    let curves: [(&str, Count); 3] = [
        ("due", |interval| interval.ok),
        ("errors", |interval| interval.errors),
        ("skipped", |interval| interval.skipped),
    ];
    let rates = intervals
        .iter()
        .flat_map(|it| curves.map(|(_, count)| rate(count(it), it)));
    let highest = rates.fold(1.0, f64::max);
    for part in [0.0, 0.5, 1.0] {
        picture.level(part, &format!("{:.0}/s", highest * part));
    }
    picture.label(0.0, "0 s");
    for part in [0.5, 1.0] {
        picture.label(part, &duration(seconds * part));
    }
    for (class, count) in curves {
        if class != "due" && intervals.iter().all(|interval| count(interval) == 0) {
            continue;
        }
        let mut begin = 0.0;
        let points = intervals.iter().flat_map(|interval| {
            let (from, height) = (begin, rate(count(interval), interval) / highest);
            begin += interval.seconds;
            [(from / seconds, height), (begin / seconds, height)]
        });
        picture.curve(class, points);
    }
    picture.finish()
}

/// Draws the number of calls by latency, for both kinds of latency.
pub(super) fn histograms(measured: &Measured) -> String {
    let mut picture = Picture::new("Number of calls by latency");
    let powers = Powers::of(measured);
    let bars = both(measured).into_iter().map(|(class, latencies)| {
        let mut bars = [0; BARS];
        for (nanos, count) in latencies.buckets() {
            let at = (powers.part(nanos as f64) * BARS as f64) as usize;
            bars[at.min(BARS - 1)] += count;
        }
        (class, bars)
    });
    let bars: Vec<_> = bars.collect();
    let highest = bars
        .iter()
        .flat_map(|(_, bars)| bars)
        .max()
        .copied()
        .unwrap_or(0);
    for part in [0.0, 0.5, 1.0] {
        picture.level(part, &format!("{:.0}", highest as f64 * part));
    }
    for (at, label) in powers.steps() {
        picture.label(at, &label);
    }
    for (class, bars) in bars {
        for (at, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (from, to) = (at as f64 / BARS as f64, (at + 1) as f64 / BARS as f64);
            picture.bar(class, from, to, *count as f64 / highest.max(1) as f64);
        }
    }
    picture.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn numbers_of_pictures_are_finite_and_inside() {
        let mut measured = Measured::default();
        let check = |measured: &Measured| {
            for picture in [
                percentiles(measured),
                over_time(measured),
                histograms(measured),
            ] {
                assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>"));
                assert!(
                    !picture.contains("NaN") && !picture.contains("inf"),
                    "{picture}"
                );
            }
        };
        check(&measured);
        measured.latency.record(Duration::from_micros(3));
        measured.latency.record(Duration::from_secs(70));
        measured.intervals.push(Interval::default());
        check(&measured);
        measured.service = Some(Latencies::default());
        measured.intervals.push(Interval {
            seconds: 1.0,
            ok: 7,
            errors: 1,
            ..Interval::default()
        });
        check(&measured);
        assert!(over_time(&measured).contains("errors"));
        assert!(!over_time(&measured).contains("skipped"));
    }
}
