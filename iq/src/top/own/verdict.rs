//! Whether something is wrong, judged as on the live page.

use super::super::table::shown_rate;
use super::counts::is_error_name;
use crate::live::{Method, Text, Total, Verdict};

/// The share of calls from which errors are a problem, and below which they are not mentioned.
const PROBLEM: f64 = 0.05;
const MENTION: f64 = 0.001;

/// The most methods that the verdict names.
const NAMED: usize = 3;

pub(super) fn verdict(is_ready: bool, methods: &[Method], totals: &[Total]) -> Verdict {
    let mut failing: Vec<(&Method, f64, f64)> = methods
        .iter()
        .filter_map(|method| {
            let (errors, rate) = (method.figures.errors?, method.figures.rate?);
            (errors > rate * MENTION).then_some((method, errors, errors / rate))
        })
        .collect();
    failing.sort_by(|(_, one, _), (_, other, _)| other.total_cmp(one));
    let worst = |method: &Method| {
        let errors = method.codes.iter().filter(|(name, _)| is_error_name(name));
        let worst = errors.max_by(|(_, one), (_, other)| one.total_cmp(other));
        worst.map_or_else(String::new, |(name, _)| name.to_string())
    };
    // Methods with an error type of their own may fail with it in the course of business.
    let is_problem = failing
        .iter()
        .any(|(method, _, share)| *share >= PROBLEM && worst(method) != "UNKNOWN");
    let mut texts = Vec::new();
    if !is_ready {
        texts.push("Not ready: it drains, or says that it is not serving".to_owned());
    }
    texts.extend(failing.iter().take(NAMED).map(|(method, _, share)| {
        format!(
            "{}: {:.1} % of {} calls/s fail, most with {}",
            method.name,
            100.0 * share,
            shown_rate(method.figures.rate.unwrap_or(0.0)),
            worst(method)
        )
    }));
    if let more @ 1.. = failing.len().saturating_sub(NAMED) {
        texts.push(format!("{more} more"));
    }
    let level = match (is_problem, texts.is_empty()) {
        (true, _) => "problem",
        (false, false) => "warning",
        (false, true) => "ok",
    };
    if texts.is_empty() {
        let rates = totals.iter().filter_map(|total| total.figures.rate);
        // The sum of none would be -0.
        let rate = rates.fold(0.0, |sum, rate| sum + rate);
        texts.push(format!(
            "Nothing is wrong: {} calls/s served",
            shown_rate(rate)
        ));
    }
    Verdict {
        level: Text::new(level),
        text: Text::new(&texts.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::per_second;
    use super::super::counts::tests::counts;
    use super::*;

    #[test]
    fn the_worst_methods_are_named_first() {
        let method = |name: &str, ok, unavailable| {
            let recent = counts(ok, unavailable, &[]);
            Method {
                source: 0,
                name: Text::new(name),
                figures: recent.figures(1.0),
                codes: [(Text::new("UNAVAILABLE"), per_second(unavailable, 1.0))].into(),
                calls: 0,
            }
        };
        let said = |methods: &[Method], is_ready| {
            let verdict = verdict(is_ready, methods, &[]);
            format!("{}: {}", verdict.level, verdict.text)
        };
        assert_eq!(said(&[], true), "ok: Nothing is wrong: 0.0 calls/s served");
        let (some, many) = (method("some", 980, 20), method("many", 0, 300));
        assert_eq!(
            said(&[some.clone(), many], true),
            "problem: many: 100.0 % of 300 calls/s fail, most with UNAVAILABLE; \
             some: 2.0 % of 1000 calls/s fail, most with UNAVAILABLE"
        );
        assert!(said(&[some], true).starts_with("warning: some"));
        assert!(said(&[], false).starts_with("warning: Not ready"));
    }
}
