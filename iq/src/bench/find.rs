//! The search for the highest rate at which conditions hold.

use serde_json::json;

use super::conditions::{Conditions, Finding};
use super::latencies::short;
use super::load::{Load, Made, Mode, Setup};
use super::max_in_flight;
use super::measured::Measured;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// The relative difference of rates that ends the search.
const PRECISION: f64 = 0.05;

/// The lowest and the highest rate of the search.
const BOUNDS: (f64, f64) = (1.0, 5e6);

/// The minimum fraction of the due calls that must have succeeded or failed within the time.
const KEPT_UP: f64 = 0.95;

/// A search for the highest rate.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) conditions: &'a Conditions,
    /// The load of a step, whose rate changes from step to step.
    pub(super) load: Load,
    pub(super) max_in_flight: Option<u32>,
}

/// The bounds between which the limit is.
#[derive(Clone, Copy, Debug, Default)]
struct Bracket {
    /// The highest rate at which the conditions held.
    holds: Option<f64>,
    /// The lowest rate at which they did not hold.
    fails: Option<f64>,
}

impl Bracket {
    fn add(&mut self, rate: f64, holds: bool) {
        match holds {
            true => self.holds = Some(rate),
            false => self.fails = Some(rate),
        }
    }

    /// Returns the rate to try after this one; `None` if the limit is known.
    fn next(&self, rate: f64) -> Option<f64> {
        let next = match (self.holds, self.fails) {
            (Some(holds), Some(fails)) if fails / holds <= 1.0 + PRECISION => return None,
            (Some(holds), Some(fails)) => f64::midpoint(holds, fails),
            (Some(_), None) => rate * 2.0,
            _ => rate / 2.0,
        };
        (BOUNDS.0..=BOUNDS.1).contains(&next).then_some(next)
    }
}

impl Search<'_> {
    /// Makes loads until the limit is known, and prints each step.
    pub(super) async fn run(mut self, first: f64, setup: Setup<'_>) -> Outcome {
        let output = setup.output;
        let (mut bracket, mut next) = (Bracket::default(), Some(first));
        let mut has_succeeded = false;
        while let Some(rate) = next {
            self.load.mode = Mode::Open {
                rates: (rate, rate),
                max_in_flight: max_in_flight(self.max_in_flight, rate),
            };
            let Made {
                measured,
                is_interrupted,
            } = self.load.make(setup).await?;
            if is_interrupted {
                output.note("interrupted: the limit is not found yet");
                return Err(Failure::Interrupted);
            }
            let holds = self.judge(rate, &measured, output)?;
            has_succeeded |= measured.ok > 0;
            if let Some(failure) = measured.nothing_succeeded().filter(|_| !has_succeeded) {
                return Err(failure);
            }
            bracket.add(rate, holds);
            next = bracket.next(rate);
        }
        match bracket.holds {
            Some(rate) => {
                let line = format!("{} up to {rate:.0}/s", self.conditions);
                let conditions = self.conditions.to_string();
                output.either(
                    "limit",
                    json!({"rate": rate, "conditions": conditions}),
                    line,
                )
            }
            None => Err(Failure::Check(format!(
                "{}: no rate was found at which this holds",
                self.conditions
            ))),
        }
    }

    /// Prints a step, and returns `true` if the conditions hold at its rate.
    fn judge(&self, rate: f64, measured: &Measured, output: &Output) -> Outcome<bool> {
        let mut findings = self.conditions.check(measured);
        let asked = findings.len();
        findings.extend(keeps_up(rate, measured));
        let holds = findings.iter().all(|finding| finding.holds);
        // The conditions of every search are shown only if they do not hold.
        let shown = (0..)
            .zip(&findings)
            .filter(|(place, finding)| *place < asked || !finding.holds);
        let shown: Vec<String> = shown
            .map(|(_, finding)| format!("{}: {}", finding.condition, finding.found))
            .collect();
        let latency = Some(&measured.latency).filter(|latency| latency.count() > 0);
        let quantile = |quantile| latency.map(|latency| latency.quantile(quantile));
        let micros = |nanos: f64| nanos / 1e3;
        let object = json!({
            "rate": rate,
            "achieved": measured.rate(),
            "holds": holds,
            "conditions": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "skipped": measured.skipped,
            "errors": measured.errors,
            "p50_us": quantile(0.5).map(micros),
            "p99_us": quantile(0.99).map(micros),
        });
        let line = format!(
            "{rate:>9.0}/s  {:<6}  {:>9.0}/s  {} skipped  p50 {}  {}",
            if holds { "ok" } else { "failed" },
            measured.rate(),
            measured.skipped,
            quantile(0.5).map_or_else(|| "-".to_owned(), short),
            shown.join("  "),
        );
        output.either("step", object, line)?;
        Ok(holds)
    }
}

/// Checks the conditions of every search: all due calls were made, and nearly all of them have
/// ended within the time.
fn keeps_up(rate: f64, measured: &Measured) -> [Finding; 2] {
    let ended = (measured.ok + measured.errors) as f64 / (rate * measured.seconds).max(1.0);
    [
        Finding {
            condition: "skipped<1".to_owned(),
            holds: measured.skipped == 0,
            found: measured.skipped.to_string(),
            figure: ("found_calls", Some(measured.skipped as f64)),
        },
        Finding {
            condition: format!("{:.0} % of the rate", 100.0 * KEPT_UP),
            holds: ended >= KEPT_UP,
            found: format!("{:.1} %", 100.0 * ended),
            figure: ("found_percent", Some(100.0 * ended)),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rate found if the conditions hold up to `limit`, and the number of steps.
    fn found(limit: f64, first: f64) -> (Option<f64>, usize) {
        let (mut bracket, mut next, mut steps) = (Bracket::default(), Some(first), 0);
        while let Some(rate) = next {
            steps += 1;
            bracket.add(rate, rate <= limit);
            next = bracket.next(rate);
        }
        (bracket.holds, steps)
    }

    #[test]
    fn a_step_that_does_not_keep_up_says_so() {
        let measured = Measured {
            seconds: 2.0,
            ok: 150,
            errors: 10,
            skipped: 3,
            ..Measured::default()
        };
        let found = |rate| keeps_up(rate, &measured).map(|finding| (finding.holds, finding.found));
        assert_eq!(found(100.0)[0], (false, "3".to_owned()));
        assert_eq!(found(100.0)[1], (false, "80.0 %".to_owned()));
        assert_eq!(found(80.0)[1], (true, "100.0 %".to_owned()));
    }

    #[test]
    fn the_limit_is_found_from_both_sides_in_few_steps() {
        for (limit, first) in [
            (5000.0, 1000.0),
            (5000.0, 64_000.0),
            (3.3, 1000.0),
            (999.0, 1000.0),
        ] {
            let (holds, steps) = found(limit, first);
            let holds = holds.unwrap();
            assert!(holds <= limit && holds >= limit / 1.06, "{limit}: {holds}");
            assert!(steps <= 16, "{limit}: {steps} steps");
        }
        assert_eq!(found(0.5, 1000.0).0, None);
        assert!(found(f64::INFINITY, 1000.0).0 > Some(2e6));
    }
}
