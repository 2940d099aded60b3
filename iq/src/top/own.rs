//! A server of this project, which tells everything it counts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use iip_core::stats::{CODE_NAMES, is_error};
use iip_rpc::Code;
use serde::Deserialize;

use super::source::ask;
use super::table::shown_rate;
use crate::connection::Connection;
use crate::exit::{Failure, Outcome};
use crate::live::{
    self, Call, Connections, Figures, Method, Phase, Snapshot, Source, Text, Total, Verdict,
};
use crate::stats::parse;

/// The path of the numbers.
const SNAPSHOT: &str = "/sys/snapshot";

/// The largest reply, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// The time over which rates and quantiles are taken, and the least time between two readings that
/// are kept for that, both in milliseconds.
const WINDOW: u64 = 10_000;
const STEP: u64 = 1000;

/// The share of calls from which errors are a problem, and below which they are not mentioned, as on
/// the live page.
const PROBLEM: f64 = 0.05;
const MENTION: f64 = 0.001;

/// The most methods that the verdict names.
const NAMED: usize = 3;

/// Returns `true` if the server has the path.
pub(super) async fn is_there(connection: &Connection) -> Outcome<bool> {
    match ask(connection, SNAPSHOT, "{}").await {
        Ok(_) => Ok(true),
        Err(Failure::Status(status)) if status.code() == Code::Unimplemented => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    connection: Connection,
    target: Text,
    interval: Duration,
    /// The last readings, the oldest first.
    readings: VecDeque<Reading>,
}

/// What was counted until a moment.
#[derive(Debug)]
struct Reading {
    uptime_ms: u64,
    methods: HashMap<String, Counts>,
}

#[derive(Clone, Default, Debug, Deserialize)]
struct Counts {
    codes: BTreeMap<String, u64>,
    in_flight: u64,
    /// Buckets of durations: from, to, both in nanoseconds, and how many.
    latency: Vec<[u64; 3]>,
}

#[derive(Deserialize)]
struct Document {
    now: u64,
    uptime_ms: u64,
    ready: bool,
    methods: Vec<NamedCounts>,
    connections: Listed,
    calls: Vec<Recent>,
}

#[derive(Deserialize)]
struct NamedCounts {
    path: String,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Deserialize)]
struct Listed {
    open: u64,
    listed: Vec<Open>,
}

#[derive(Deserialize)]
struct Open {
    peer: Option<Text>,
    age_ms: u64,
    received: u64,
    sent: u64,
    unsent: u64,
    in_flight: u64,
}

#[derive(Deserialize)]
struct Recent {
    at: u64,
    path: Text,
    code: Text,
    took_us: u64,
    peer: Option<Text>,
    trace: Option<Text>,
    message: Text,
    phases: Vec<(Text, u64)>,
}

impl Server {
    pub(super) fn new(connection: Connection, target: Text, interval: Duration) -> Self {
        Self {
            connection,
            target,
            interval,
            readings: VecDeque::new(),
        }
    }

    pub(super) async fn read(&mut self) -> Outcome<Snapshot> {
        let mut document = self.ask().await?;
        let is_restarted = |last: &Reading| document.uptime_ms < last.uptime_ms;
        if self.readings.back().is_none_or(is_restarted) {
            self.readings.clear();
            self.keep(&document);
            // Rates need two readings.
            tokio::time::sleep(self.interval).await;
            document = self.ask().await?;
        }
        self.keep(&document);
        Ok(self.snapshot(document))
    }

    async fn ask(&self) -> Outcome<Document> {
        let reply = ask(&self.connection, SNAPSHOT, "{}").await?;
        if reply.len() > MAX_BYTES {
            let text = format!("the reply of {SNAPSHOT} has more than {MAX_BYTES} bytes");
            return Err(Failure::Own(text));
        }
        parse(SNAPSHOT, &reply)
    }

    /// Keeps what a reading has counted for the next ones, and forgets what is too old.
    fn keep(&mut self, document: &Document) {
        let now = document.uptime_ms;
        let is_new = |last: &Reading| now.saturating_sub(last.uptime_ms) >= STEP;
        if self.readings.len() < 2 || self.readings.back().is_none_or(is_new) {
            let methods = document.methods.iter();
            let methods = methods.map(|method| (method.path.clone(), method.counts.clone()));
            self.readings.push_back(Reading {
                uptime_ms: now,
                methods: methods.collect(),
            });
        }
        let is_old = |next: &Reading| now.saturating_sub(next.uptime_ms) >= WINDOW;
        while self.readings.get(1).is_some_and(is_old) {
            self.readings.pop_front();
        }
    }

    fn snapshot(&self, document: Document) -> Snapshot {
        let before = self.readings.front();
        let passed = before.map_or(0, |before| {
            document.uptime_ms.saturating_sub(before.uptime_ms)
        });
        let seconds = Duration::from_millis(passed.max(1)).as_secs_f64();
        let mut total = Counts::default();
        let mut methods = Vec::new();
        for NamedCounts { path, counts } in &document.methods {
            let earlier = before.and_then(|before| before.methods.get(path));
            let recent = earlier.map_or_else(|| counts.clone(), |earlier| counts.since(earlier));
            let failed = recent
                .codes
                .iter()
                .filter(|&(name, &calls)| name != "OK" && calls > 0);
            methods.push(Method {
                source: 0,
                name: Text::new(path.strip_prefix('/').unwrap_or(path)),
                figures: recent.figures(seconds),
                codes: failed
                    .map(|(name, &calls)| (Text::new(name), per_second(calls, seconds)))
                    .collect(),
                calls: counts.total(),
            });
            total.add(&recent);
        }
        let totals = vec![Total {
            side: Text::new("server"),
            figures: total.figures(seconds),
        }];
        let source = Source {
            id: 0,
            kind: Text::new("server"),
            name: self.target.clone(),
        };
        Snapshot {
            name: self.target.clone(),
            started: Some(document.now.saturating_sub(document.uptime_ms)),
            now: document.now,
            verdict: verdict(document.ready, &methods, &totals),
            sources: vec![source],
            totals,
            methods,
            calls: document.calls.into_iter().map(Recent::row).collect(),
            connections: document.connections.rows(document.now),
            ..Snapshot::default()
        }
    }
}

impl Counts {
    fn total(&self) -> u64 {
        self.codes
            .values()
            .fold(0, |sum, &calls| sum.saturating_add(calls))
    }

    /// What was counted since an earlier reading.
    fn since(&self, earlier: &Self) -> Self {
        let codes = self.codes.iter().map(|(name, &calls)| {
            let before = earlier.codes.get(name).copied().unwrap_or(0);
            (name.clone(), calls.saturating_sub(before))
        });
        let before: HashMap<u64, u64> = earlier
            .latency
            .iter()
            .map(|&[from, _, calls]| (from, calls))
            .collect();
        let latency = self.latency.iter().map(|&[from, to, calls]| {
            let before = before.get(&from).copied().unwrap_or(0);
            [from, to, calls.saturating_sub(before)]
        });
        Self {
            codes: codes.collect(),
            in_flight: self.in_flight,
            latency: latency.collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        for (name, calls) in &other.codes {
            let sum = self.codes.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*calls);
        }
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.latency.extend_from_slice(&other.latency);
    }

    fn figures(&self, seconds: f64) -> Figures {
        let errors = self.codes.iter().filter(|(name, _)| is_error_name(name));
        let errors = errors.fold(0_u64, |sum, (_, &calls)| sum.saturating_add(calls));
        let mut latency = self.latency.clone();
        latency.sort_unstable();
        Figures {
            rate: Some(per_second(self.total(), seconds)),
            errors: Some(per_second(errors, seconds)),
            mean: None,
            p50: quantile(&latency, 0.5),
            p99: quantile(&latency, 0.99),
            p999: quantile(&latency, 0.999),
            in_flight: Some(self.in_flight),
        }
    }
}

/// Returns a quantile of durations in buckets, in microseconds; `None` if there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers are for people, and casts of floats saturate"
)]
fn quantile(buckets: &[[u64; 3]], q: f64) -> Option<f64> {
    let total = buckets
        .iter()
        .fold(0_u64, |sum, &[_, _, calls]| sum.saturating_add(calls));
    let rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0_u64;
    let bucket = buckets.iter().find(|&&[_, _, calls]| {
        seen = seen.saturating_add(calls);
        seen >= rank
    });
    // The last bucket has no end that means anything.
    bucket.map(|&[from, to, _]| match to == u64::MAX {
        true => from as f64 / 1000.0,
        false => (from as f64 + to as f64) / 2000.0,
    })
}

#[expect(clippy::cast_precision_loss, reason = "numbers are for people")]
fn per_second(calls: u64, seconds: f64) -> f64 {
    calls as f64 / seconds
}

fn is_error_name(name: &str) -> bool {
    let code = CODE_NAMES.iter().position(|known| *known == name);
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.is_some_and(is_error)
}

/// Judges as the live page does.
fn verdict(is_ready: bool, methods: &[Method], totals: &[Total]) -> Verdict {
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

impl Recent {
    fn row(self) -> Call {
        let phases = self.phases.into_iter();
        Call {
            at: self.at,
            source: 0,
            method: Text::new(self.path.strip_prefix('/').unwrap_or(&self.path)),
            code: self.code,
            took: self.took_us,
            peer: self.peer,
            trace: self.trace,
            text: Some(self.message).filter(|text| !text.is_empty()),
            phases: phases.map(|(name, us)| Phase { name, us }).collect(),
        }
    }
}

impl Listed {
    fn rows(self, now: u64) -> Connections {
        let row = |open: Open| live::Connection {
            source: 0,
            peer: open.peer.unwrap_or_else(|| Text::new("local")),
            since: Some(now.saturating_sub(open.age_ms)),
            received: open.received,
            sent: open.sent,
            unsent: open.unsent,
            calls: Some(open.in_flight),
            build: None,
        };
        Connections {
            total: self.open,
            listed: self.listed.into_iter().map(row).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ok: u64, unavailable: u64, latency: &[[u64; 3]]) -> Counts {
        let codes = [("OK", ok), ("UNAVAILABLE", unavailable)];
        Counts {
            codes: codes.map(|(name, calls)| (name.to_owned(), calls)).into(),
            in_flight: 1,
            latency: latency.to_vec(),
        }
    }

    #[test]
    fn figures_are_of_what_was_counted_in_between() {
        let before = counts(100, 0, &[[1000, 2000, 100]]);
        let now = counts(198, 2, &[[1000, 2000, 190], [8000, 10_000, 10]]);
        let figures = now.since(&before).figures(10.0);
        assert_eq!((figures.rate, figures.errors), (Some(10.0), Some(0.2)));
        assert_eq!((figures.p50, figures.p99), (Some(1.5), Some(9.0)));
        let idle = now.since(&now).figures(10.0);
        assert_eq!((idle.rate, idle.p50), (Some(0.0), None));
    }

    #[test]
    fn numbers_of_a_hostile_server_do_no_harm() {
        let hostile = counts(
            u64::MAX,
            u64::MAX,
            &[[0, u64::MAX, u64::MAX], [7, 3, u64::MAX]],
        );
        let mut sum = hostile.clone();
        sum.add(&hostile);
        let figures = sum.since(&Counts::default()).figures(0.001);
        assert!(
            figures.rate > Some(1.0) && figures.p99.is_some(),
            "{figures:?}"
        );
    }

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
