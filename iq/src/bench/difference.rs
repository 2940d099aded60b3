//! The differences between two runs, and the check that they are more than noise.

use std::path::Path;

use fastrand::Rng;
use serde_json::json;

use super::latencies::{Latencies, short};
use super::measured::{Interval, MAX_INTERVALS, Measured};
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// The number of samples of the bootstrap.
const SAMPLES: usize = 400;

/// The minimum number of intervals for an estimate of how much a figure varies.
const MIN_INTERVALS: usize = 5;

/// The figures that are compared, with their quantiles; the rate has none.
const FIGURES: [(&str, Option<f64>); 5] = [
    ("rate", None),
    ("p50", Some(0.5)),
    ("p90", Some(0.9)),
    ("p99", Some(0.99)),
    ("p99.9", Some(0.999)),
];

/// The difference of a figure. A ratio is the new value divided by the old one, minus 1.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Difference {
    name: &'static str,
    old: f64,
    new: f64,
    ratio: f64,
    /// The interval that contains the ratio with a probability of 95 %; `None` if the runs have too
    /// few intervals.
    interval: Option<(f64, f64)>,
}

/// Reads the figures that another run has saved.
pub(super) fn read(path: &Path) -> Outcome<Measured> {
    let mistake = |reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| mistake(error.to_string()))?;
    let wrong = |reason: &str| mistake(format!("these are not the figures of a run: {reason}"));
    let run: Measured = serde_json::from_slice(&text).map_err(|error| wrong(&error.to_string()))?;
    match run.intervals.len() {
        0..=MAX_INTERVALS => Ok(run),
        _ => Err(wrong("there are too many intervals")),
    }
}

/// Prints the differences of two runs.
pub(super) fn print(old: &Measured, new: &Measured, output: &Output) -> Outcome {
    if old.plan.load != new.plan.load {
        output.note(format_args!(
            "the loads differ: {}, and now {}",
            old.plan.load, new.plan.load
        ));
    }
    if !output.is_json() {
        output.line(format_args!(
            "\nchange of   from          to    95 % interval"
        ))?;
    }
    for difference in differences(old, new, new.plan.seed) {
        let object = json!({
            "figure": difference.name,
            "old": difference.old,
            "new": difference.new,
            "ratio": difference.ratio,
            "interval": difference.interval,
            "beyond_noise": difference.is_beyond_noise(),
        });
        output.either("difference", object, difference.line())?;
    }
    Ok(())
}

impl Difference {
    /// Returns `true` if it is more than noise; `None` if there are too few intervals.
    fn is_beyond_noise(&self) -> Option<bool> {
        self.interval.map(|(low, high)| low > 0.0 || high < 0.0)
    }

    fn line(&self) -> String {
        let show = |value: f64| match self.name {
            "rate" => format!("{value:.1}/s"),
            _ => short(value),
        };
        let range = match self.interval {
            Some((low, high)) => format!("{:+.1} % .. {:+.1} %", 100.0 * low, 100.0 * high),
            None => String::new(),
        };
        let verdict = match self.is_beyond_noise() {
            Some(true) => "beyond noise",
            Some(false) => "within noise",
            None => "too short to tell",
        };
        format!(
            "{:<6} {:>10}  {:>10}  {:>+7.1} %  {range:<20}  {verdict}",
            self.name,
            show(self.old),
            show(self.new),
            100.0 * self.ratio,
        )
    }
}

fn differences(old: &Measured, new: &Measured, seed: u64) -> Vec<Difference> {
    let mut random = Rng::with_seed(seed);
    let is_long = |run: &Measured| run.intervals.len() >= MIN_INTERVALS;
    let samples: Vec<[f64; FIGURES.len()]> = match is_long(old) && is_long(new) {
        true => (0..SAMPLES)
            .map(|_| {
                let (old, new) = (resampled(old, &mut random), resampled(new, &mut random));
                std::array::from_fn(|at| ratio(old[at], new[at]))
            })
            .collect(),
        false => Vec::new(),
    };
    let (old, new) = (figures(&old.intervals), figures(&new.intervals));
    let differences = FIGURES.iter().enumerate().map(|(at, (name, _))| {
        let mut ratios: Vec<f64> = samples.iter().map(|sample| sample[at]).collect();
        ratios.sort_by(f64::total_cmp);
        let quantile = |part: f64| ratios[((ratios.len() - 1) as f64 * part).round() as usize];
        Difference {
            name,
            old: old[at],
            new: new[at],
            ratio: ratio(old[at], new[at]),
            interval: (!ratios.is_empty()).then(|| (quantile(0.025), quantile(0.975))),
        }
    });
    differences.collect()
}

fn ratio(old: f64, new: f64) -> f64 {
    match old > 0.0 {
        true => new / old - 1.0,
        false => 0.0,
    }
}

/// Returns the figures of a sample of the run: as many of its intervals, drawn with replacement.
fn resampled(run: &Measured, random: &mut Rng) -> [f64; FIGURES.len()] {
    let intervals = &run.intervals;
    figures((0..intervals.len()).map(|_| &intervals[random.usize(..intervals.len())]))
}

fn figures<'a>(intervals: impl IntoIterator<Item = &'a Interval>) -> [f64; FIGURES.len()] {
    let (mut seconds, mut ok, mut latencies) = (0.0, 0.0, Latencies::default());
    for interval in intervals {
        seconds += interval.seconds;
        ok += interval.ok as f64;
        latencies.record_all(interval.latency.iter().copied());
    }
    let rate = ok / f64::max(seconds, 1e-9);
    FIGURES.map(|(_, quantile)| quantile.map_or(rate, |quantile| latencies.quantile(quantile)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a run whose rate and latencies vary by a tenth from one interval to the next.
    fn run(scale: f64, seed: u64) -> Measured {
        let mut random = Rng::with_seed(seed);
        let intervals = (0..20).map(|_| {
            let noise = scale * (0.9 + 0.2 * random.f64());
            let calls = (1000.0 / noise) as u64;
            Interval {
                seconds: 0.5,
                ok: calls,
                latency: vec![((1e6 * noise) as u64, calls)],
                ..Interval::default()
            }
        });
        Measured {
            intervals: intervals.collect(),
            ..Measured::default()
        }
    }

    #[test]
    fn a_change_is_told_from_noise() {
        let verdicts = |old: &Measured, new: &Measured| {
            let differences = differences(old, new, 1);
            let verdicts = differences.iter().map(Difference::is_beyond_noise);
            verdicts.collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&run(1.0, 1), &run(1.0, 2))[..2], [Some(false); 2]);
        assert_eq!(verdicts(&run(1.0, 1), &run(1.5, 2)), [Some(true); 5]);
        let mut short = run(1.0, 1);
        short.intervals.truncate(MIN_INTERVALS - 1);
        assert_eq!(verdicts(&short, &run(1.5, 2)), [None; 5]);
    }

    #[test]
    fn the_line_of_a_difference_has_its_interval() {
        let difference = Difference {
            name: "p99",
            old: 1e6,
            new: 2e6,
            ratio: 1.0,
            interval: Some((0.9, 1.1)),
        };
        assert_eq!(
            difference.line(),
            "p99       1.00 ms     2.00 ms   +100.0 %  +90.0 % .. +110.0 %   beyond noise"
        );
    }
}
