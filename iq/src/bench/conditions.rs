//! Conditions of figures, such as `p99<5ms,errors<0.1%,rate>900`.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::latencies::short;
use super::measured::Measured;

/// A list of conditions, all of which have to hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conditions(Vec<Condition>);

/// One condition, such as `p99<5ms`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    text: String,
    figure: Figure,
    relation: Relation,
    limit: f64,
}

/// A figure of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    /// The latency that this fraction of the calls does not exceed, in nanoseconds.
    Quantile(f64),
    /// The mean latency, in nanoseconds.
    Mean,
    /// The longest latency, in nanoseconds.
    Max,
    /// The fraction of the calls that failed.
    ErrorRatio,
    /// The number of calls that failed.
    Errors,
    /// The fraction of the due calls that were skipped.
    SkippedRatio,
    /// The number of calls that were skipped.
    Skipped,
    /// Successful calls per second.
    Rate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// The result of checking a condition.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) condition: String,
    pub(super) holds: bool,
    /// The figure, with its unit.
    pub(super) found: String,
    /// The name of the figure with its unit, and its value; `None` if no call succeeded.
    pub(super) figure: (&'static str, Option<f64>),
}

impl Finding {
    /// Returns the fields of a finding in JSON. The figure has its unit in its name.
    pub(super) fn to_json(&self) -> Value {
        let (name, value) = self.figure;
        json!({ "condition": self.condition, "holds": self.holds, name: value })
    }
}

impl Conditions {
    /// Compares the figures of a run with each condition.
    pub(super) fn check(&self, measured: &Measured) -> Vec<Finding> {
        self.0.iter().map(|it| it.check(measured)).collect()
    }
}

impl Condition {
    fn check(&self, measured: &Measured) -> Finding {
        let value = self.figure.of(measured);
        let holds = match self.relation {
            Relation::Less => value < self.limit,
            Relation::AtMost => value <= self.limit,
            Relation::Greater => value > self.limit,
            Relation::AtLeast => value >= self.limit,
        };
        // Without successful calls, there are no latencies.
        let known = !self.figure.is_latency() || measured.latency.count() > 0;
        Finding {
            condition: self.text.clone(),
            holds: holds && known,
            found: match known {
                true => self.figure.show(value),
                false => "no call succeeded".to_owned(),
            },
            figure: {
                let (name, value) = self.figure.named(value);
                (name, known.then_some(value))
            },
        }
    }
}

impl Figure {
    fn parse(name: &str, is_ratio: bool) -> Option<Self> {
        Some(match (name, is_ratio) {
            ("mean", false) => Self::Mean,
            ("max", false) => Self::Max,
            ("errors", true) => Self::ErrorRatio,
            ("errors", false) => Self::Errors,
            ("skipped", true) => Self::SkippedRatio,
            ("skipped", false) => Self::Skipped,
            ("rate", false) => Self::Rate,
            (name, false) => {
                let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
                let is_one = percent > 0.0 && percent <= 100.0;
                is_one.then_some(Self::Quantile(percent / 100.0))?
            }
            _ => return None,
        })
    }

    fn is_latency(self) -> bool {
        matches!(self, Self::Quantile(_) | Self::Mean | Self::Max)
    }

    fn of(self, measured: &Measured) -> f64 {
        match self {
            Self::Quantile(quantile) => measured.latency.quantile(quantile),
            Self::Mean => measured.latency.mean(),
            Self::Max => measured.latency.max(),
            Self::ErrorRatio => measured.error_ratio(),
            Self::Errors => measured.errors as f64,
            Self::SkippedRatio => measured.skipped_ratio(),
            Self::Skipped => measured.skipped as f64,
            Self::Rate => measured.rate(),
        }
    }

    /// Returns the name that the figure has in JSON, with its unit, and the value in that unit.
    fn named(self, value: f64) -> (&'static str, f64) {
        match self {
            Self::ErrorRatio | Self::SkippedRatio => ("found_percent", value * 100.0),
            Self::Errors | Self::Skipped => ("found_calls", value),
            Self::Rate => ("found_per_second", value),
            _ => ("found_us", value / 1e3),
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::ErrorRatio | Self::SkippedRatio => format!("{:.3} %", value * 100.0),
            Self::Errors | Self::Skipped => format!("{value:.0}"),
            Self::Rate => format!("{value:.1}/s"),
            _ => short(value),
        }
    }
}

impl FromStr for Conditions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(condition)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "`{text}` is not a condition such as p99<5ms, mean<=800us, errors<0.1%, skipped<1 or \
             rate>900"
        )
    };
    let at = text.find(['<', '>']).ok_or_else(wrong)?;
    let (name, rest) = text.split_at(at);
    let (relation, limit) = match (rest.strip_prefix("<="), rest.strip_prefix(">=")) {
        (Some(limit), _) => (Relation::AtMost, limit),
        (_, Some(limit)) => (Relation::AtLeast, limit),
        _ if rest.starts_with('<') => (Relation::Less, &rest[1..]),
        _ => (Relation::Greater, &rest[1..]),
    };
    let (name, limit) = (name.trim(), limit.trim());
    let figure = Figure::parse(name, limit.ends_with('%')).ok_or_else(wrong)?;
    let limit = match figure {
        figure if figure.is_latency() => nanos(limit),
        Figure::ErrorRatio | Figure::SkippedRatio => {
            let percent = limit.strip_suffix('%').and_then(number);
            percent.map(|percent| percent / 100.0)
        }
        _ => number(limit),
    };
    Ok(Condition {
        text: text.to_owned(),
        figure,
        relation,
        limit: limit.ok_or_else(wrong)?,
    })
}

/// Parses a time with its unit, and returns nanoseconds. Unlike in options, it may have a fraction.
fn nanos(text: &str) -> Option<f64> {
    let units = [
        ("us", 1e3),
        ("µs", 1e3),
        ("ns", 1.0),
        ("ms", 1e6),
        ("s", 1e9),
    ];
    let (value, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    Some(number(value)? * unit)
}

fn number(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|it| &*it.text).collect();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn conditions_compare_figures() {
        let mut measured = Measured {
            seconds: 2.0,
            ok: 1000,
            errors: 10,
            ..Measured::default()
        };
        for micros in 1..=1000 {
            measured.latency.record(Duration::from_micros(micros));
        }
        let holds = |text: &str| {
            let conditions: Conditions = text.parse().unwrap();
            let findings = conditions.check(&measured);
            findings
                .iter()
                .map(|finding| finding.holds)
                .collect::<Vec<_>>()
        };
        assert_eq!(holds("p99<1ms, p99<980us"), [true, false]);
        assert_eq!(holds("max<=1.001ms,mean>0.4ms"), [true, true]);
        assert_eq!(holds("errors<1%,errors<=10,skipped<1"), [true, true, true]);
        assert_eq!(
            holds("errors<0.5%,rate>=500,rate>500.1"),
            [false, true, false]
        );
        let found = "p100<1s"
            .parse::<Conditions>()
            .unwrap()
            .check(&Measured::default());
        assert_eq!(
            (found[0].holds, &*found[0].found),
            (false, "no call succeeded")
        );
    }

    #[test]
    fn what_is_no_condition_is_named() {
        for text in [
            "",
            "p99",
            "p99<5",
            "p99=5ms",
            "p0<1ms",
            "p101<1ms",
            "p99<5%",
            "rate>1%",
            "rate>x",
            "errors<-1",
            "p99<NaNms",
            "p99<1ms,",
            "q99<1ms",
        ] {
            let error = text.parse::<Conditions>().unwrap_err();
            assert!(error.contains("is not a condition"), "{text}: {error}");
        }
    }
}
