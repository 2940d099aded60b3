//! The verdict in the first line: the state of health, and the faults.

use iip_core::stats::verdict::{Failing, MAX_FINDINGS};

use super::wire::{BackendRow, Kind, Level, MethodRow, SourceRow, TotalRow, Verdict};

/// A fault, and its extent: the share of calls or backends.
struct Finding {
    level: Level,
    weight: f64,
    text: String,
}

pub(super) fn verdict(
    is_draining: bool,
    sources: &[SourceRow],
    totals: &[TotalRow],
    methods: &[MethodRow],
    backends: &[BackendRow],
) -> Verdict {
    let mut findings: Vec<Finding> = methods
        .iter()
        .filter_map(|method| failing(method, sources))
        .chain(
            sources
                .iter()
                .filter_map(|source| left_out(source, backends)),
        )
        .collect();
    findings.sort_by(|a, b| {
        let by_weight = b.weight.total_cmp(&a.weight);
        b.level.cmp(&a.level).then(by_weight)
    });
    let level = findings.first().map_or(Level::Ok, |finding| finding.level);
    let more = findings.len().saturating_sub(MAX_FINDINGS);
    let named = findings.into_iter().take(MAX_FINDINGS);
    let mut texts: Vec<String> = named.map(|finding| finding.text).collect();
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    if is_draining {
        texts.insert(0, "draining: no new calls are taken".to_owned());
    }
    if texts.is_empty() {
        texts.push(format!("nothing is wrong: {}", activity(totals)));
    }
    let mut text = texts.join("; ");
    if let Some(first) = text.get(..1).map(str::to_uppercase) {
        text.replace_range(..1, &first);
    }
    Verdict {
        level: if is_draining {
            level.max(Level::Warning)
        } else {
            level
        },
        text,
    }
}

fn activity(totals: &[TotalRow]) -> String {
    let total = |total: &TotalRow| {
        let verb = match total.side {
            Kind::Server => "served",
            Kind::Client => "made",
        };
        format!("{:.0} calls/s {verb}", total.figures.rate)
    };
    let texts: Vec<String> = totals.iter().map(total).collect();
    match texts.is_empty() {
        true => "no calls yet".to_owned(),
        false => texts.join(", "),
    }
}

fn failing(method: &MethodRow, sources: &[SourceRow]) -> Option<Finding> {
    let figures = &method.figures;
    let codes = method.codes.iter().map(|(name, rate)| (*name, *rate));
    let failing = Failing::judge(figures.rate, figures.errors, codes)?;
    let source = sources.get(method.source)?;
    let level = match failing.is_problem {
        true => Level::Problem,
        false => Level::Warning,
    };
    Some(Finding {
        level,
        weight: figures.errors,
        text: format!(
            "{} of {} {}: {:.1} % of {:.1} calls/s fail, most with {}",
            method.name,
            source.kind.name(),
            source.name,
            100.0 * failing.share,
            figures.rate,
            failing.code
        ),
    })
}

fn left_out(source: &SourceRow, backends: &[BackendRow]) -> Option<Finding> {
    let of_source = backends
        .iter()
        .filter(|backend| backend.source == source.id);
    // Drained backends do not count: they are out of use on purpose.
    let wanted: Vec<&BackendRow> = of_source
        .filter(|backend| backend.state != "drained")
        .collect();
    let is_out = |backend: &&&BackendRow| {
        matches!(
            &*backend.state,
            "ejected" | "down" | "half open" | "not connected"
        )
    };
    let out = wanted.iter().filter(is_out).count();
    let bad = wanted
        .iter()
        .any(|backend| matches!(&*backend.state, "ejected" | "down"));
    if out == 0 || !bad {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "numbers of backends are small")]
    let weight = out as f64 / wanted.len() as f64;
    let level = match out == wanted.len() {
        true => Level::Problem,
        false => Level::Warning,
    };
    Some(Finding {
        level,
        weight,
        text: format!(
            "{out} of {} backends of client {} get no calls",
            wanted.len(),
            source.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::wire::{Figures, Second};
    use super::*;

    fn figures(rate: f64, errors: f64) -> Figures {
        Figures {
            rate,
            errors,
            p50: None,
            p99: None,
            p999: None,
            in_flight: 0,
        }
    }

    fn method(name: &str, rate: f64, codes: &[(&'static str, f64)]) -> MethodRow {
        let errors = codes.iter().filter(|(code, _)| *code != "NOT_FOUND");
        MethodRow {
            id: 1,
            source: 0,
            name: name.to_owned(),
            figures: figures(rate, errors.map(|(_, rate)| rate).sum()),
            limit: None,
            codes: codes.iter().copied().collect::<BTreeMap<_, _>>(),
            calls: 0,
            failed: 0,
            second: [0, 0],
        }
    }

    fn backend(state: &str) -> BackendRow {
        BackendRow {
            source: 0,
            id: "a".to_owned(),
            address: "a:1".to_owned(),
            state: state.to_owned(),
            weight: 1.0,
            score: None,
            in_flight: 0,
            connections: None,
            reasons: Vec::new(),
        }
    }

    fn judge(methods: &[MethodRow], states: &[&str]) -> (Level, String) {
        let sources = [SourceRow {
            id: 0,
            kind: Kind::Client,
            name: "users".to_owned(),
            target: None,
        }];
        let totals = [TotalRow {
            side: Kind::Client,
            figures: figures(12.0, 0.0),
            second: Second {
                rate: 0.0,
                errors: 0.0,
                p50: 0,
                p99: 0,
            },
            ten: None,
        }];
        let backends: Vec<BackendRow> = states.iter().map(|state| backend(state)).collect();
        let verdict = verdict(false, &sources, &totals, methods, &backends);
        (verdict.level, verdict.text)
    }

    #[test]
    fn failing_methods_are_named_the_worst_first() {
        let (level, text) = judge(&[], &[]);
        assert_eq!(
            (level, &*text),
            (Level::Ok, "Nothing is wrong: 12 calls/s made")
        );
        let few = method("few", 1000.0, &[("UNAVAILABLE", 0.5)]);
        assert_eq!(judge(&[few], &[]).0, Level::Ok);
        let wrong = method("wrong", 10.0, &[("NOT_FOUND", 9.0)]);
        assert_eq!(judge(&[wrong], &[]).0, Level::Ok);
        let some = method("some", 100.0, &[("UNAVAILABLE", 2.0), ("NOT_FOUND", 50.0)]);
        let many = method("many", 10.0, &[("INTERNAL", 1.0)]);
        let (level, text) = judge(&[some, many], &[]);
        let expected = "Many of client users: 10.0 % of 10.0 calls/s fail, most with INTERNAL; some of \
                        client users: 2.0 % of 100.0 calls/s fail, most with UNAVAILABLE";
        assert_eq!((level, &*text), (Level::Problem, expected));
        let own = method("own", 10.0, &[("UNKNOWN", 9.0)]);
        assert_eq!(judge(&[own], &[]).0, Level::Warning);
        let idle = method("idle", 0.0, &[]);
        assert_eq!(judge(&[idle], &[]).0, Level::Ok);
    }

    #[test]
    fn only_so_many_findings_are_named() {
        let failing = |name| method(name, 10.0, &[("INTERNAL", 1.0)]);
        let (_, text) = judge(&["a", "b", "c", "d", "e"].map(failing), &[]);
        assert!(text.ends_with("; 2 more"), "{text}");
        assert_eq!(text.matches(';').count(), 3);
    }

    #[test]
    fn backends_that_get_no_calls_are_counted() {
        for (states, expected) in [
            (&["ready", "slow start"][..], None),
            (&["ready", "not connected", "drained"], None),
            (&["ready", "ejected"], Some((Level::Warning, "1 of 2"))),
            (
                &["down", "ejected", "drained"],
                Some((Level::Problem, "2 of 2")),
            ),
        ] {
            let (level, text) = judge(&[], states);
            match expected {
                None => assert_eq!(level, Level::Ok, "{text}"),
                Some((expected, count)) => {
                    assert_eq!(level, expected, "{text}");
                    assert!(text.starts_with(count), "{text}");
                }
            }
        }
    }
}
