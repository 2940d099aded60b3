//! The report for people.

use iip_core::Printable;

use super::{explanation, plot};
use crate::bench::latencies::{Latencies, QUANTILES, duration, short};
use crate::bench::measured::{Measured, Messages};
use crate::plural::counted;

/// Returns the lines of a report of this width.
pub(super) fn lines(measured: &Measured, width: usize) -> Vec<String> {
    let plan = &measured.plan;
    let mut lines = vec![
        Printable(format!("{} at {}", plan.method, plan.targets.join(", "))).to_string(),
        plan.load.clone(),
        String::new(),
    ];
    lines.extend(figures(measured, width));
    if measured.latency.count() > 0 {
        lines.push(String::new());
        lines.extend(wrapped(&explanation(measured), width));
        lines.extend([String::new(), "latency".to_owned()]);
        lines.extend(plot::quantiles(&measured.latency, width));
        lines.extend([String::new(), "calls per second".to_owned()]);
        lines.extend(plot::rate(&measured.intervals, width));
    }
    lines
}

/// Returns the lines with the figures of a report.
pub(super) fn figures(measured: &Measured, width: usize) -> Vec<String> {
    let mut lines = counts(measured);
    for group in &measured.failures {
        let line = format!(
            "{}, {}: {}",
            group.code,
            counted(group.count, "time"),
            group.example
        );
        let line = Printable(line).to_string();
        lines.extend(
            wrapped(&line, width - 2)
                .into_iter()
                .map(|line| format!("  {line}")),
        );
    }
    lines.extend([generator(measured), String::new()]);
    if measured.latency.count() > 0 {
        lines.extend(table(measured));
    }
    lines
}

fn counts(measured: &Measured) -> Vec<String> {
    let mut lines = vec![
        format!("time    {:>10}", duration(measured.seconds)),
        format!("calls   {:>10}  {:.1}/s", measured.ok, measured.rate()),
    ];
    let Messages { sent, received } = measured.messages;
    for (name, count) in [("sent", sent), ("received", received)] {
        if count > 0 {
            let rate = count as f64 / measured.seconds.max(1e-9);
            lines.push(format!("{name:<8}{count:>10}  {rate:.1}/s messages"));
        }
    }
    let percent = 100.0 * measured.error_ratio();
    lines.push(format!("errors  {:>10}  {percent:.3} %", measured.errors));
    if measured.service.is_some() {
        let percent = 100.0 * measured.skipped_ratio();
        lines.push(format!("skipped {:>10}  {percent:.3} %", measured.skipped));
    }
    if measured.unfinished > 0 {
        lines.push(format!("unfinished {:>7}", measured.unfinished));
    }
    lines
}

/// Returns the quantiles, of both kinds of latency if there are two.
fn table(measured: &Measured) -> Vec<String> {
    let (latency, service) = (&measured.latency, measured.service.as_ref());
    let row = |name: &str, of: &dyn Fn(&Latencies) -> f64| {
        let service = service.map(|service| format!("  {:>10}", short(of(service))));
        let service = service.unwrap_or_default();
        format!("{name:<8}{:>10}{service}", short(of(latency)))
    };
    let head = match service {
        Some(_) => "latency   from due   from sent",
        None => "latency",
    };
    let mut lines = vec![head.to_owned()];
    lines.extend(QUANTILES.map(|(name, quantile)| row(name, &|of| of.quantile(quantile))));
    lines.push(row("max", &Latencies::max));
    lines.push(row("mean", &Latencies::mean));
    lines
}

/// Returns the line about the processor time of this program.
fn generator(measured: &Measured) -> String {
    let generator = &measured.generator;
    let Some(used) = generator.used_cores(measured.seconds) else {
        return "cores   unknown: the system does not tell the processor time".to_owned();
    };
    let busiest = generator.busiest_thread;
    let busiest = busiest.map(|busy| format!("; its busiest thread {:.0} % of one", 100.0 * busy));
    format!(
        "cores   {used:>10.2}  of {} used by this program{}",
        generator.cores,
        busiest.unwrap_or_default()
    )
}

/// Breaks a text into lines of at most this width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::measured::Failures;

    #[test]
    fn what_a_server_says_moves_no_cursor_and_lines_keep_to_the_width() {
        let mut measured = Measured {
            seconds: 1.0,
            service: Some(Latencies::default()),
            failures: vec![Failures {
                code: "INTERNAL".to_owned(),
                count: 2,
                example: "\u{1b}[2J".to_owned(),
            }],
            ..Measured::default()
        };
        measured.latency.record(Duration::from_millis(3));
        let lines = lines(&measured, 60);
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
        assert!(
            lines.contains(&"  INTERNAL, 2 times: \\u{1b}[2J".to_owned()),
            "{lines:#?}"
        );
        assert!(
            lines.iter().all(|line| line.chars().count() <= 60),
            "{lines:#?}"
        );
    }
}
