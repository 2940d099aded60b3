//! A server of this project, which reports all of its counters.

mod counts;
mod verdict;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use iip_rpc::Code;
use serde::Deserialize;

use self::counts::{Counts, per_second};
use self::verdict::verdict;
use super::ask::ask;
use crate::connection::Connection;
use crate::exit::{Failure, Outcome};
use crate::live::{self, Call, Connections, Method, Phase, Snapshot, Source, Text, Total};
use crate::stats::parse;

/// The path of the snapshot.
const SNAPSHOT: &str = "/sys/snapshot";

/// Maximum size of a reply, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// The time over which rates and quantiles are computed, and the minimum time between two readings
/// that are kept for that, both in milliseconds.
const WINDOW: u64 = 10_000;
const STEP: u64 = 1000;

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

/// The counts up to a moment.
#[derive(Debug)]
struct Reading {
    uptime_ms: u64,
    methods: HashMap<String, Counts>,
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

    /// Keeps the counts of a reading for the next ones, and drops readings that are too old.
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
