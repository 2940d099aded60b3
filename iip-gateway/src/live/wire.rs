//! The JSON of the page. `docs/guide/live-page.md` describes it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::curve::{Point, Ring};

/// The version of the format. It changes if the meaning of an existing field changes.
pub(super) const FORMAT: u32 = 1;

/// Everything that the page shows.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot<'a> {
    pub(super) format: u32,
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) pid: u32,
    /// Like all times, in milliseconds since the Unix epoch.
    pub(super) started: u64,
    pub(super) now: u64,
    pub(super) tick: u64,
    pub(super) verdict: &'a Verdict,
    pub(super) drain: Drain<'a>,
    pub(super) sources: &'a [SourceRow],
    pub(super) totals: Vec<TotalWithCurves<'a>>,
    pub(super) methods: Vec<MethodWithCurve<'a>>,
    pub(super) calls: &'a [CallRow],
    pub(super) backends: &'a [BackendRow],
    pub(super) connections: ListedConnections<'a>,
    pub(super) peers: &'a [PeerRow],
}

/// The changes within a second.
#[derive(Debug, Serialize)]
pub(super) struct Tick<'a> {
    pub(super) now: u64,
    pub(super) tick: u64,
    pub(super) verdict: &'a Verdict,
    pub(super) drain: Drain<'a>,
    pub(super) totals: &'a [TotalRow],
    /// The methods that have changed.
    pub(super) methods: Vec<&'a MethodRow>,
    /// The methods that were removed.
    pub(super) gone: Vec<u32>,
    /// The new calls, the latest first.
    pub(super) calls: &'a [CallRow],
    /// All backends, if one has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backends: Option<&'a [BackendRow]>,
    pub(super) connections: ChangedConnections<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peers: Option<&'a [PeerRow]>,
}

/// The verdict in the first line of the page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warning,
    Problem,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Drain<'a> {
    pub(super) available: bool,
    pub(super) draining: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'a str>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct SourceRow {
    pub(super) id: usize,
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Calls of a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
}

/// The kind of a source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Server,
    Client,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// The calls of all sources of a kind.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct TotalRow {
    pub(super) side: Kind,
    #[serde(flatten)]
    pub(super) figures: Figures,
    pub(super) second: Second,
    /// The point of the last 10 s, in the event that completes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ten: Option<Second>,
}

#[derive(Debug, Serialize)]
pub(super) struct TotalWithCurves<'a> {
    #[serde(flatten)]
    pub(super) row: &'a TotalRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<Curve>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tens: Option<Curve>,
}

/// The present state. Rates and quantiles are those of the last 10 to 20 s.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Figures {
    /// Calls per second.
    pub(super) rate: f64,
    /// Calls per second that end with an error.
    pub(super) errors: f64,
    /// Latencies in microseconds; `None` if there were no calls.
    pub(super) p50: Option<u32>,
    pub(super) p99: Option<u32>,
    pub(super) p999: Option<u32>,
    pub(super) in_flight: u64,
}

/// One point of the curves.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Second {
    pub(super) rate: f64,
    pub(super) errors: f64,
    pub(super) p50: u32,
    pub(super) p99: u32,
}

impl Second {
    /// `seconds` are those of the point.
    pub(super) fn of(point: Point, seconds: f64) -> Self {
        Self {
            rate: f64::from(point.calls) / seconds,
            errors: f64::from(point.errors) / seconds,
            p50: point.p50,
            p99: point.p99,
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct MethodRow {
    pub(super) id: u32,
    pub(super) source: usize,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// The limit on concurrent calls of this method alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u32>,
    /// Calls per second by their codes, without OK.
    pub(super) codes: BTreeMap<&'static str, f64>,
    /// Number of calls since the source was started.
    pub(super) calls: u64,
    pub(super) failed: u64,
    /// Calls and errors of the last second.
    pub(super) second: [u32; 2],
}

#[derive(Debug, Serialize)]
pub(super) struct MethodWithCurve<'a> {
    #[serde(flatten)]
    pub(super) row: &'a MethodRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) curve: Option<ShortCurve>,
}

/// Calls and errors of each second, the latest last. Errors are empty if there were none.
#[derive(Debug, Serialize)]
pub(super) struct ShortCurve {
    rate: Vec<u32>,
    errors: Vec<u32>,
}

impl ShortCurve {
    pub(super) fn of(ring: &Ring) -> Self {
        let mut errors: Vec<u32> = ring.iter().map(|point| point.errors).collect();
        if errors.iter().all(|&errors| errors == 0) {
            errors.clear();
        }
        Self {
            rate: ring.iter().map(|point| point.calls).collect(),
            errors,
        }
    }
}

/// The points of a curve, the latest last. A latency of 0 means that there were no calls.
#[derive(Debug, Default, Serialize)]
pub(super) struct Curve {
    rate: Vec<f64>,
    errors: Vec<f64>,
    p50: Vec<u32>,
    p99: Vec<u32>,
}

impl Curve {
    /// `seconds` are those of a point.
    pub(super) fn of(ring: &Ring, seconds: f64) -> Self {
        let per_second = |count: u32| f64::from(count) / seconds;
        Self {
            rate: ring.iter().map(|point| per_second(point.calls)).collect(),
            errors: ring.iter().map(|point| per_second(point.errors)).collect(),
            p50: ring.iter().map(|point| point.p50).collect(),
            p99: ring.iter().map(|point| point.p99).collect(),
        }
    }
}

/// The curves of one method.
#[derive(Debug, Serialize)]
pub(super) struct MethodCurves {
    pub(super) now: u64,
    pub(super) seconds: Curve,
    pub(super) tens: Curve,
}

/// A call that failed, or was slow.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct CallRow {
    /// The number of the call, which grows from call to call.
    pub(super) n: u64,
    pub(super) at: u64,
    pub(super) source: usize,
    pub(super) method: String,
    pub(super) code: &'static str,
    /// In microseconds.
    pub(super) took: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    pub(super) phases: Vec<PhaseRow>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct PhaseRow {
    pub(super) name: &'static str,
    pub(super) us: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct BackendRow {
    pub(super) source: usize,
    pub(super) id: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) weight: f64,
    /// The expected cost of another call, in microseconds.
    pub(super) score: Option<f64>,
    pub(super) in_flight: u32,
    /// `None` if the connections to this backend are not known.
    pub(super) connections: Option<usize>,
    pub(super) reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ListedConnections<'a> {
    /// All connections, of which at most 1,000 of each source are listed.
    pub(super) total: usize,
    pub(super) listed: &'a [ConnectionRow],
}

#[derive(Debug, Serialize)]
pub(super) struct ChangedConnections<'a> {
    pub(super) total: usize,
    pub(super) listed: Vec<&'a ConnectionRow>,
    pub(super) gone: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct ConnectionRow {
    pub(super) id: u32,
    pub(super) source: usize,
    pub(super) peer: String,
    pub(super) since: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Bytes that are queued to be written.
    pub(super) unsent: usize,
    pub(super) calls: usize,
    /// The last measured round-trip time, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt: Option<u64>,
    /// The number of times that a stream had to wait for credit.
    pub(super) credit_stalls: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) build: Option<String>,
}

/// A build that peers have announced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct PeerRow {
    pub(super) source: usize,
    pub(super) build: String,
    pub(super) connections: usize,
}
