//! A snapshot as JSON, for tools that watch a server over IIP.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::code::CODE_NAMES;
use super::notable::RecentCall;
use super::snapshot::{ConnectionStats, MethodStats, Snapshot};
use crate::clock;

/// The path on which a server sends it.
pub(crate) const SNAPSHOT: &str = "/sys/snapshot";

#[derive(Serialize)]
struct Document<'a> {
    now: u64,
    uptime_ms: u64,
    ready: bool,
    methods: Vec<Method<'a>>,
    connections: Connections,
    calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Method<'a> {
    path: &'a str,
    codes: BTreeMap<&'static str, u64>,
    in_flight: u64,
    /// The buckets with durations: from, to, both in nanoseconds, and how many.
    latency: Vec<[u64; 3]>,
}

#[derive(Serialize)]
struct Connections {
    open: usize,
    listed: Vec<Connection>,
}

#[derive(Serialize)]
struct Connection {
    peer: Option<String>,
    age_ms: u64,
    received: u64,
    sent: u64,
    unsent: usize,
    in_flight: usize,
}

#[derive(Serialize)]
struct Call<'a> {
    number: u64,
    at: u64,
    path: &'a str,
    code: &'static str,
    took_us: u64,
    peer: Option<&'a str>,
    trace: Option<&'a str>,
    message: &'a str,
    /// In microseconds.
    phases: Vec<(&'static str, u64)>,
}

impl Snapshot {
    /// Returns the snapshot of a server as JSON, with its last calls that failed or were slow.
    pub(crate) fn to_json(&self, calls: &[RecentCall], ready: bool) -> Option<String> {
        let listed = self.connections.list.iter();
        let document = Document {
            now: since_1970(clock::wall_clock()),
            uptime_ms: millis(self.uptime),
            ready,
            methods: self.methods.iter().map(Method::of).collect(),
            connections: Connections {
                open: self.connections.open,
                listed: listed.map(Connection::of).collect(),
            },
            calls: calls.iter().map(Call::of).collect(),
        };
        serde_json::to_string(&document).ok()
    }
}

impl<'a> Method<'a> {
    fn of(method: &'a MethodStats) -> Self {
        let (codes, buckets) = (method.codes.iter(), method.latency.buckets());
        Self {
            path: &method.path,
            codes: codes.map(|(_, name, calls)| (name, calls)).collect(),
            in_flight: method.in_flight,
            latency: buckets
                .map(|(from, to, calls)| [nanos(from), nanos(to), calls])
                .collect(),
        }
    }
}

impl Connection {
    fn of(connection: &ConnectionStats) -> Self {
        Self {
            peer: connection.peer.map(|peer| peer.to_string()),
            age_ms: millis(connection.age),
            received: connection.received_bytes,
            sent: connection.sent_bytes,
            unsent: connection.unsent_bytes,
            in_flight: connection.in_flight,
        }
    }
}

impl<'a> Call<'a> {
    fn of(call: &'a RecentCall) -> Self {
        let name = CODE_NAMES.get(usize::from(call.code));
        let phases = call.phases.iter();
        Self {
            number: call.number,
            at: since_1970(call.at),
            path: &call.path,
            code: name.copied().unwrap_or("UNKNOWN"),
            took_us: micros(call.took),
            peer: call.peer.as_deref(),
            trace: call.trace.as_deref(),
            message: &call.message,
            phases: phases.map(|&(name, time)| (name, micros(time))).collect(),
        }
    }
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    millis(since.unwrap_or(Duration::ZERO))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
