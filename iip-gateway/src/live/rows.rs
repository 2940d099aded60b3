//! The rows of the page: what the sources have counted, in the form that is sent.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iip_core::Printable;
use iip_core::stats::{CODE_NAMES, Codes, RecentCall};
use serde::Deserialize;

use super::history::{History, Last, TEN};
use super::source::{Reading, Source};
use super::verdict::verdict;
use super::wire::{
    BackendRow, CallRow, ConnectionRow, Figures, Kind, MethodRow, PeerRow, PhaseRow, Second,
    SourceRow, TotalRow, Verdict,
};

/// The most calls that are shown.
pub(super) const MAX_CALLS: usize = 64;

/// The most backends that are shown.
const MAX_BACKENDS: usize = 1000;

/// The most bytes of a name or a message, which are those of a peer.
const MAX_TEXT: usize = 300;

/// A method: its source and its path.
pub(super) type Key = (usize, Arc<str>);

/// Numbers for keys, which are never used again.
#[derive(Debug)]
pub(super) struct Numbers<K> {
    known: HashMap<K, u32>,
    next: u32,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            next: 0,
        }
    }
}

impl<K: Eq + Hash> Numbers<K> {
    fn of(&mut self, key: K) -> u32 {
        let next = &mut self.next;
        *self.known.entry(key).or_insert_with(|| {
            *next = next.wrapping_add(1);
            *next
        })
    }

    /// Forgets what is not among the keys that are wanted.
    fn retain(&mut self, is_wanted: impl Fn(&K) -> bool) {
        self.known.retain(|key, _| is_wanted(key));
    }
}

/// The keys by which rows are numbered.
#[derive(Debug, Default)]
pub(super) struct Ids {
    methods: Numbers<Key>,
    /// A connection: its source, its peer, and its place among those of the same peer.
    connections: Numbers<(usize, String, usize)>,
}

/// Everything that is shown, except for the curves.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) now: u64,
    pub(super) verdict: Verdict,
    pub(super) sources: Vec<SourceRow>,
    pub(super) totals: Vec<TotalRow>,
    pub(super) methods: Vec<MethodRow>,
    /// The keys of the methods.
    pub(super) keys: Vec<Key>,
    /// The latest first.
    pub(super) calls: Vec<CallRow>,
    pub(super) backends: Vec<BackendRow>,
    pub(super) connections: Vec<ConnectionRow>,
    /// All connections, of which not all may be listed.
    pub(super) connection_count: usize,
    pub(super) peers: Vec<PeerRow>,
}

impl Rows {
    pub(super) fn new(
        sources: &[Arc<Source>],
        readings: &[Option<Reading>],
        history: &History<Key, Kind>,
        ids: &mut Ids,
        is_draining: bool,
    ) -> Self {
        let now = SystemTime::now();
        let named = sources.iter().zip(readings).enumerate();
        let sources = named.map(|(id, (source, reading))| source_row(id, source, reading.as_ref()));
        let sources: Vec<SourceRow> = sources.collect();
        let known = || {
            let readings = readings.iter().enumerate();
            readings.filter_map(|(id, reading)| Some((id, reading.as_ref()?)))
        };
        let (mut methods, mut keys) = (Vec::new(), Vec::new());
        let mut in_flight: HashMap<Kind, u64> = HashMap::new();
        for (source, reading) in known() {
            for method in &reading.stats.methods {
                let key = (source, Arc::clone(&method.path));
                let Some(known) = history.methods.get(&key) else {
                    continue;
                };
                let side = sources
                    .get(source)
                    .map_or(Kind::Server, |source| source.kind);
                *in_flight.entry(side).or_default() += method.in_flight;
                let last = &known.last;
                methods.push(MethodRow {
                    id: ids.methods.of(key.clone()),
                    source,
                    name: printable(method.name()),
                    figures: figures(last, method.in_flight),
                    limit: method.max_concurrency,
                    codes: code_rates(&last.recent.codes, last.recent.seconds),
                    calls: method.codes.total(),
                    failed: method.codes.errors(),
                    second: [last.second.calls, last.second.errors],
                });
                keys.push(key);
            }
        }
        let totals = history.groups.iter().map(|(side, group)| TotalRow {
            side: *side,
            figures: figures(&group.last, in_flight.get(side).copied().unwrap_or(0)),
            second: Second::of(group.last.second, 1.0),
            #[expect(clippy::cast_precision_loss, reason = "it is 10")]
            ten: group
                .last
                .completed
                .map(|point| Second::of(point, TEN as f64)),
        });
        let mut totals: Vec<TotalRow> = totals.collect();
        totals.sort_by_key(|total| total.side);
        let mut calls: Vec<(SystemTime, CallRow)> = known()
            .flat_map(|(source, reading)| {
                reading
                    .calls
                    .iter()
                    .map(move |call| (call.at, call_row(source, call)))
            })
            .collect();
        calls.sort_by(|(a, left), (b, right)| b.cmp(a).then(right.n.cmp(&left.n)));
        calls.truncate(MAX_CALLS);
        let connections = connections(known(), now, &mut ids.connections);
        let backends: Vec<BackendRow> = known()
            .flat_map(|(source, reading)| backends(source, reading))
            .take(MAX_BACKENDS)
            .collect();
        ids.methods.retain(|key| history.methods.contains_key(key));
        Self {
            now: millis(now),
            verdict: verdict(is_draining, &sources, &totals, &methods, &backends),
            peers: peers(&connections),
            connection_count: known()
                .map(|(_, reading)| reading.stats.connections.open)
                .sum(),
            calls: calls.into_iter().map(|(_, call)| call).collect(),
            sources,
            totals,
            methods,
            keys,
            backends,
            connections,
        }
    }
}

/// Returns a text of a peer without characters that could mislead, and not too long.
fn printable(text: &str) -> String {
    let mut shown = Printable(text).to_string();
    if shown.len() > MAX_TEXT {
        let mut ends = (0..=MAX_TEXT).rev();
        shown.truncate(ends.find(|&end| shown.is_char_boundary(end)).unwrap_or(0));
        shown.push('…');
    }
    shown
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn source_row(id: usize, source: &Source, reading: Option<&Reading>) -> SourceRow {
    let explanation = reading.and_then(|reading| reading.explanation.as_ref());
    SourceRow {
        id,
        kind: source.kind,
        name: source.name.clone(),
        target: explanation.map(|explanation| printable(&explanation.target)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are for people")]
fn per_second(count: u64, seconds: u64) -> f64 {
    // Digits beyond the second would only make the text longer.
    (100.0 * count as f64 / seconds.max(1) as f64).round() / 100.0
}

fn figures(last: &Last, in_flight: u64) -> Figures {
    let recent = &last.recent;
    let [p50, p99, p999] = recent.quantiles.map_or([None; 3], |known| known.map(Some));
    Figures {
        rate: per_second(recent.codes.total(), recent.seconds),
        errors: per_second(recent.errors, recent.seconds),
        p50,
        p99,
        p999,
        in_flight,
    }
}

fn code_rates(codes: &Codes, seconds: u64) -> BTreeMap<&'static str, f64> {
    let failed = codes.iter().filter(|&(code, _, _)| code != 0);
    failed
        .map(|(_, name, calls)| (name, per_second(calls, seconds)))
        .collect()
}

fn call_row(source: usize, call: &RecentCall) -> CallRow {
    let phases = call.phases.iter();
    CallRow {
        n: call.number,
        at: millis(call.at),
        source,
        method: printable(call.path.strip_prefix('/').unwrap_or(&call.path)),
        code: CODE_NAMES
            .get(usize::from(call.code))
            .copied()
            .unwrap_or("UNKNOWN"),
        took: micros(call.took),
        peer: call.peer.as_deref().map(printable),
        trace: call.trace.as_deref().map(printable),
        text: Some(printable(&call.message)).filter(|text| !text.is_empty()),
        phases: phases
            .map(|&(name, time)| PhaseRow {
                name,
                us: micros(time),
            })
            .collect(),
    }
}

fn backends(source: usize, reading: &Reading) -> Vec<BackendRow> {
    let Some(explanation) = &reading.explanation else {
        return Vec::new();
    };
    // Connections are known by the address of the peer, backends by the address in the source.
    let mut counts: HashMap<String, usize> = HashMap::new();
    for connection in &reading.stats.connections.list {
        if let Some(peer) = connection.peer {
            *counts.entry(peer.to_string()).or_default() += 1;
        }
    }
    let row = |backend: &iip_core::balance::BackendExplanation| {
        let address = backend.endpoint.to_string();
        let is_address = address.parse::<std::net::SocketAddr>().is_ok();
        BackendRow {
            source,
            id: printable(&backend.id),
            connections: is_address.then(|| counts.get(&address).copied().unwrap_or(0)),
            address: printable(&address),
            state: backend.state.to_string(),
            weight: backend.weight,
            score: backend.score.map(|nanos| (nanos / 100.0).round() / 10.0),
            in_flight: backend.in_flight,
            reasons: backend
                .reasons
                .iter()
                .map(|reason| printable(reason))
                .collect(),
        }
    };
    explanation.backends.iter().map(row).collect()
}

fn connections<'a>(
    readings: impl Iterator<Item = (usize, &'a Reading)>,
    now: SystemTime,
    numbers: &mut Numbers<(usize, String, usize)>,
) -> Vec<ConnectionRow> {
    let mut rows = Vec::new();
    let mut seen: HashMap<(usize, String), usize> = HashMap::new();
    for (source, reading) in readings {
        for connection in &reading.stats.connections.list {
            let peer = connection.peer;
            let peer = peer.map_or_else(|| "local".to_owned(), |peer| peer.to_string());
            let place = seen.entry((source, peer.clone())).or_default();
            *place += 1;
            rows.push(ConnectionRow {
                id: numbers.of((source, peer.clone(), *place)),
                source,
                peer,
                // To the second, so that it does not change from reading to reading.
                since: millis(now.checked_sub(connection.age).unwrap_or(UNIX_EPOCH)).div_ceil(1000)
                    * 1000,
                received: connection.received_bytes,
                sent: connection.sent_bytes,
                unsent: connection.unsent_bytes,
                calls: connection.in_flight,
                rtt: connection.round_trip.map(micros),
                credit_stalls: connection.credit_stalls,
                build: connection.hello.as_deref().and_then(build),
            });
        }
    }
    numbers.retain(|(source, peer, place)| {
        let count = seen.get(&(*source, peer.clone()));
        count.is_some_and(|count| place <= count)
    });
    rows
}

/// Returns the fingerprint of its services that a peer has announced in its hello.
fn build(hello: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Hello {
        rpc: Rpc,
    }
    #[derive(Deserialize)]
    struct Rpc {
        fp: String,
    }
    let hello: Hello = serde_json::from_slice(hello).ok()?;
    Some(printable(&hello.rpc.fp))
}

fn peers(connections: &[ConnectionRow]) -> Vec<PeerRow> {
    let mut counts: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for connection in connections {
        if let Some(build) = &connection.build {
            *counts.entry((connection.source, build)).or_default() += 1;
        }
    }
    let counts = counts.into_iter();
    let row = |((source, build), connections): ((usize, &str), usize)| PeerRow {
        source,
        build: build.to_owned(),
        connections,
    };
    counts.map(row).collect()
}
