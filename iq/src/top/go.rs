//! A server that has only the statistics paths of Go servers.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iip_rpc::{CallOptions, HealthClient, HealthState};
use serde::Deserialize;

use super::ask::ask;
use crate::connection::Connection;
use crate::exit::{Failure, Outcome};
use crate::live::{self, Connections, Figures, Method, Snapshot, Text, Total, Verdict};
use crate::stats::parse;

/// The path of the report of all paths.
const REPORT: &str = "/sys/statis";

/// The path of the counters of all connections.
const CONNECTIONS: &str = "/sys/connection_statis";

/// A Go server and the last reading of its report.
#[derive(Debug)]
pub(super) struct Server {
    connection: Connection,
    target: Text,
    interval: Duration,
    /// The time of the last reading, and the number of calls of each path until then.
    last: Option<(Instant, HashMap<String, u64>)>,
}

/// The part of the report about one path.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PathReport {
    path: String,
    calls: u64,
    /// The mean duration of the calls of the last 5 minutes, in nanoseconds.
    mean: Option<u64>,
}

impl Server {
    pub(super) fn new(connection: Connection, target: Text, interval: Duration) -> Self {
        Self {
            connection,
            target,
            interval,
            last: None,
        }
    }

    pub(super) async fn read(&mut self) -> Outcome<Snapshot> {
        if self.last.is_none() {
            let paths = self.report().await?;
            self.last = Some((Instant::now(), counts(&paths)));
            // Rates need two readings.
            tokio::time::sleep(self.interval).await;
        }
        let paths = self.report().await?;
        let now = Instant::now();
        let before = self.last.replace((now, counts(&paths)));
        let connections = ask(&self.connection, CONNECTIONS, "{}").await?;
        let connections = parse(CONNECTIONS, &connections)?;
        let verdict = self.verdict().await;
        Ok(self.snapshot(&paths, before, now, &connections, verdict))
    }

    /// Returns a verdict without the codes of calls: the health, if the server reports it.
    async fn verdict(&self) -> Verdict {
        let connection = &self.connection;
        let options = CallOptions::new().timeout(connection.timeout);
        let health = HealthClient::new(connection.client.with_options(options));
        let (level, text) = match health.check("").await {
            Ok(HealthState::NotServing) => ("problem", "The server is not serving"),
            Ok(_) => ("ok", "The server is serving"),
            Err(_) => ("ok", "The server replies"),
        };
        let text = format!("{text}; its statistics do not tell which calls fail");
        Verdict {
            level: Text::new(level),
            text: Text::new(&text),
        }
    }

    async fn report(&self) -> Outcome<Vec<PathReport>> {
        let unit = r#"{"time_unit":"nanosecond"}"#;
        let report = ask(&self.connection, REPORT, unit).await?;
        read_report(&report).ok_or_else(|| {
            Failure::Own(format!(
                "the reply of {REPORT} is not a report of statistics"
            ))
        })
    }

    fn snapshot(
        &self,
        paths: &[PathReport],
        before: Option<(Instant, HashMap<String, u64>)>,
        now: Instant,
        connections: &HashMap<String, ConnectionReport>,
        verdict: Verdict,
    ) -> Snapshot {
        let (at, before) = before.unwrap_or_else(|| (now, HashMap::new()));
        let seconds = now.saturating_duration_since(at).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "numbers are for people")]
        let figures = |report: &PathReport| {
            let before = before.get(&report.path).copied().unwrap_or(0);
            Figures {
                rate: Some(report.calls.saturating_sub(before) as f64 / seconds),
                mean: report.mean.map(|mean| mean as f64 / 1000.0),
                ..Figures::default()
            }
        };
        let (total, paths) = match paths {
            [total, paths @ ..] => (figures(total), paths),
            [] => (Figures::default(), paths),
        };
        let methods = paths.iter().map(|report| Method {
            source: 0,
            name: Text::new(report.path.strip_prefix('/').unwrap_or(&report.path)),
            figures: figures(report),
            codes: BTreeMap::new(),
            calls: report.calls,
        });
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or(Duration::ZERO).as_millis();
        Snapshot {
            name: self.target.clone(),
            now: u64::try_from(since).unwrap_or(u64::MAX),
            verdict,
            sources: vec![live::Source {
                id: 0,
                kind: Text::new("server"),
                name: self.target.clone(),
            }],
            totals: vec![Total {
                side: Text::new("server"),
                figures: total,
            }],
            methods: methods.collect(),
            connections: listed(connections),
            ..Snapshot::default()
        }
    }
}

fn counts(paths: &[PathReport]) -> HashMap<String, u64> {
    let paths = paths.iter();
    paths
        .map(|report| (report.path.clone(), report.calls))
        .collect()
}

/// Parses the report of Go servers: the total, then the paths. Returns `None` for other texts.
fn read_report(report: &str) -> Option<Vec<PathReport>> {
    let mut paths = Vec::new();
    for line in report.lines() {
        if let Some((path, _)) = line.split_once(" count: {") {
            paths.push(PathReport {
                path: path.to_owned(),
                calls: 0,
                mean: None,
            });
        } else if let Some(rest) = line.strip_prefix("5 minute requests") {
            let (calls, mean) = requests(rest)?;
            paths.last_mut()?.mean = Some(mean).filter(|_| calls > 0);
        } else if let Some(rest) = line.strip_prefix("all requests") {
            paths.last_mut()?.calls = requests(rest)?.0;
        }
    }
    (!paths.is_empty()).then_some(paths)
}

/// Parses `     : 7, average duration: 1000`.
fn requests(rest: &str) -> Option<(u64, u64)> {
    let rest = rest.trim_start().strip_prefix(": ")?;
    let (calls, mean) = rest.split_once(", average duration: ")?;
    Some((calls.parse().ok()?, mean.trim().parse().ok()?))
}

/// The counters of a connection, with the names of the protocol.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectionReport {
    #[serde(default)]
    write_queue: u64,
    #[serde(default)]
    count: Count,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Count {
    #[serde(default)]
    bytes_sent: u64,
    #[serde(default)]
    bytes_received: u64,
}

impl ConnectionReport {
    fn row(&self, peer: &str) -> live::Connection {
        live::Connection {
            source: 0,
            peer: Text::new(peer),
            since: None,
            received: self.count.bytes_received,
            sent: self.count.bytes_sent,
            unsent: self.write_queue,
            calls: None,
            build: None,
        }
    }
}

/// Returns the connections, in the order of their peers.
fn listed(reports: &HashMap<String, ConnectionReport>) -> Connections {
    let rows = reports.iter().map(|(peer, report)| report.row(peer));
    let mut listed: Vec<live::Connection> = rows.collect();
    listed.sort_by(|one, other| one.peer.cmp(&other.peer));
    Connections {
        total: listed.len() as u64,
        listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_a_go_server_is_read() {
        let report = "total count: {\"PacketsSent\":1}\ntotal measure: \n\n\
                      5 minute requests     : 2, average duration: 1500\n\
                      all requests          : 4, average duration: 2000\n\
                      5 minute timecount    : range1(2,100%, average 1500)\n---\n\
                      /echo count: {\"PacketsSent\":1}\n/echo measure: \n\n\
                      5 minute requests     : 0, average duration: 0\n\
                      all requests          : 4, average duration: 2000\n";
        let path = |path: &str, mean| PathReport {
            path: path.to_owned(),
            calls: 4,
            mean,
        };
        assert_eq!(
            read_report(report),
            Some(vec![path("total", Some(1500)), path("/echo", None)])
        );
        for broken in ["", "hello", "all requests : 1, average duration: 1"] {
            assert_eq!(read_report(broken), None, "{broken}");
        }
        let broken = report.replace("4, average", "four, average");
        assert_eq!(read_report(&broken), None);
    }
}
