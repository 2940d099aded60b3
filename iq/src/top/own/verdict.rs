//! The verdict on a server, by the same rules as on the live page.

use iip_core::stats::verdict::{Failing, MAX_FINDINGS};

use super::super::table::shown_rate;
use crate::live::{Method, Text, Total, Verdict};

pub(super) fn verdict(is_ready: bool, methods: &[Method], totals: &[Total]) -> Verdict {
    let mut failing: Vec<(&Method, f64, Failing<'_>)> = methods
        .iter()
        .filter_map(|method| {
            let (errors, rate) = (method.figures.errors?, method.figures.rate?);
            let codes = method.codes.iter().map(|(name, rate)| (&**name, *rate));
            Some((method, errors, Failing::judge(rate, errors, codes)?))
        })
        .collect();
    failing.sort_by(|(_, one, _), (_, other, _)| other.total_cmp(one));
    let is_problem = failing.iter().any(|(_, _, failing)| failing.is_problem);
    let mut texts = Vec::new();
    if !is_ready {
        texts.push("Not ready: it drains, or says that it is not serving".to_owned());
    }
    let named = failing.iter().take(MAX_FINDINGS);
    texts.extend(named.map(|(method, _, failing)| {
        format!(
            "{}: {:.1} % of {} calls/s fail, most with {}",
            method.name,
            100.0 * failing.share,
            shown_rate(method.figures.rate.unwrap_or(0.0)),
            failing.code
        )
    }));
    if let more @ 1.. = failing.len().saturating_sub(MAX_FINDINGS) {
        texts.push(format!("{more} more"));
    }
    let level = match (is_problem, texts.is_empty()) {
        (true, _) => "problem",
        (false, false) => "warning",
        (false, true) => "ok",
    };
    if texts.is_empty() {
        let rates = totals.iter().filter_map(|total| total.figures.rate);
        // The sum of no rates would be -0.
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
