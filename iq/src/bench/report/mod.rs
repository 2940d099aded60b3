//! The report of a run: for people, for programs, and as a page.

mod html;
mod plot;
mod svg;
mod terminal;
mod text;

use std::path::Path;

use serde_json::{Value, json};

pub(super) use self::html::page;
use self::terminal::width;
use super::conditions::Finding;
use super::latencies::{Latencies, QUANTILES};
use super::measured::Measured;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// The fraction of a core, or of all cores, above which this program may limit the figures.
const BUSY: f64 = 0.8;

/// An explanation of the figures of one-way calls.
pub(super) const ONE_WAY: &str = concat!(
    "One-way calls have no reply: a latency is the time until the call is queued to be written, ",
    "not until it has run, and the rate is that at which the connection takes calls. Callers wait ",
    "only while its queue is full, because the server reads too slowly."
);

/// Prints the figures of a run.
pub(super) fn print(measured: &Measured, output: &Output) -> Outcome {
    if output.is_json() {
        return objects(measured, output);
    }
    text::lines(measured, width())
        .iter()
        .try_for_each(|line| output.line(line))
}

/// Prints the figures as objects.
fn objects(measured: &Measured, output: &Output) -> Outcome {
    for interval in &measured.intervals {
        let mut latencies = Latencies::default();
        latencies.record_all(interval.latency.iter().copied());
        output.object(
            "interval",
            json!({
                "seconds": interval.seconds,
                "rate": interval.rate(),
                "ok": interval.ok,
                "errors": interval.errors,
                "skipped": interval.skipped,
                "latency_us": micros(&latencies),
            }),
        )?;
    }
    for group in &measured.failures {
        output.object("failures", group)?;
    }
    output.object("summary", summary(measured))
}

/// Returns the figures of a run without its curves.
fn summary(measured: &Measured) -> Value {
    json!({
        "plan": measured.plan,
        "seconds": measured.seconds,
        "rate": measured.rate(),
        "ok": measured.ok,
        "messages": measured.messages,
        "errors": measured.errors,
        "skipped": measured.skipped,
        "unfinished": measured.unfinished,
        "latency_us": micros(&measured.latency),
        "service_us": measured.service.as_ref().map(micros),
        "generator": measured.generator,
    })
}

/// Returns the quantiles of latencies in microseconds; `null` without calls.
fn micros(latencies: &Latencies) -> Value {
    if latencies.count() == 0 {
        return Value::Null;
    }
    let quantiles = QUANTILES.map(|(name, quantile)| (name, latencies.quantile(quantile)));
    let all = quantiles
        .into_iter()
        .chain([("mean", latencies.mean()), ("max", latencies.max())]);
    let all = all.map(|(name, nanos)| (name.to_owned(), (nanos / 1e3).into()));
    Value::Object(all.collect())
}

/// Prints the result of each condition; fails if one of them does not hold.
pub(super) fn expectations(findings: &[Finding], output: &Output) -> Outcome {
    for finding in findings {
        let verdict = if finding.holds { "ok" } else { "failed" };
        let line = format!(
            "expected {}: {verdict}, {}",
            finding.condition, finding.found
        );
        output.either("expectation", finding.to_json(), line)?;
    }
    let failed = findings.iter().filter(|finding| !finding.holds);
    let failed: Vec<String> = failed
        .map(|finding| format!("{} (found {})", finding.condition, finding.found))
        .collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Check(format!("expected {}", failed.join(", ")))),
    }
}

/// Warns if this program, and not the server, may limit the figures.
pub(super) fn warn_if_busy(measured: &Measured, output: &Output) {
    warnings(measured).iter().for_each(|text| output.note(text));
}

fn warnings(measured: &Measured) -> Vec<String> {
    let (generator, mut warnings) = (&measured.generator, Vec::new());
    if let Some(busy) = generator.busiest_thread.filter(|busy| *busy > BUSY) {
        warnings.push(format!(
            "a thread of this program used {:.0} % of a core, so the figures may be those of this \
             program: more threads (option --threads) can make more load",
            busy * 100.0
        ));
    }
    let cores = generator.cores as f64;
    let used = generator.used_cores(measured.seconds);
    if let Some(used) = used.filter(|used| *used > BUSY * cores) {
        warnings.push(format!(
            "this program used {used:.1} of the {cores} cores of this machine, so the figures may \
             be those of this program: run it on another machine than the server"
        ));
    }
    warnings
}

/// Writes a file.
pub(super) fn write(path: &Path, text: &str) -> Outcome {
    let written = std::fs::write(path, text);
    written.map_err(|error| Failure::Own(format!("{}: {error}", path.display())))
}

/// Returns the sentences that explain the latencies.
pub(super) fn explanation(measured: &Measured) -> String {
    let of_loop = match measured.service {
        Some(_) => {
            "Latencies from due count from the time at which a call should have been sent, so they \
             include what calls had to wait while the server, or this program, did not keep up; \
             those from sent leave that out."
        }
        None if measured.plan.one_way => return ONE_WAY.to_owned(),
        None => {
            "Callers wait for a reply before they call again, so a server that stalls gets fewer \
             calls, and its pauses hardly show; with --rate, calls are due whatever the server \
             does, and latencies count from then."
        }
    };
    match measured.plan.one_way {
        true => format!("{ONE_WAY} {of_loop}"),
        false => of_loop.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measured::Generator;

    #[test]
    fn a_generator_that_is_busy_warns() {
        let warned = |busiest, cpu_seconds| {
            let generator = Generator {
                cpu_seconds: Some(cpu_seconds),
                busiest_thread: Some(busiest),
                cores: 4,
            };
            let measured = Measured {
                seconds: 10.0,
                generator,
                ..Measured::default()
            };
            warnings(&measured)
        };
        assert!(warned(0.8, 32.0).is_empty());
        let texts = warned(0.93, 33.0);
        assert!(texts[0].contains("used 93 % of a core") && texts[0].contains("--threads"));
        assert!(texts[1].contains("used 3.3 of the 4 cores"), "{texts:?}");
    }
}
