//! The rows of the page: the counts of the sources, in the form that is sent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use iip_core::Printable;
use iip_core::stats::{CODE_NAMES, MAX_RECENT_CALLS, RecentCall};
use serde::Deserialize;

use super::curve::TEN;
use super::history::{History, Key, MethodHistory, TotalHistory};
use super::source::{Reading, Source};
use super::verdict::verdict;
use super::window::Recent;
use super::wire::{
    BackendRow, CallRow, ConnectionRow, Figures, Kind, MethodRow, PeerRow, PhaseRow, Second,
    SourceRow, TotalRow, Verdict,
};

/// Maximum number of backends that are shown.
const MAX_BACKENDS: usize = 1000;

/// Maximum number of bytes of a name or a message, which come from a peer.
const MAX_TEXT: usize = 300;

/// Numbers for keys. A number is never reused.
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

    /// Drops all keys except the wanted ones.
    fn retain(&mut self, is_wanted: impl Fn(&K) -> bool) {
        self.known.retain(|key, _| is_wanted(key));
    }
}

/// The keys by which rows are numbered.
#[derive(Debug, Default)]
pub(super) struct Ids {
    methods: Numbers<Key>,
    /// A connection: its source, its peer, and its index among those of the same peer.
    connections: Numbers<(usize, Option<SocketAddr>, usize)>,
    builds: Builds,
}

/// The builds of peers, by the addresses of their hellos: each hello is read once.
#[derive(Debug, Default)]
struct Builds(HashMap<usize, (Bytes, Option<String>)>);

impl Builds {
    fn of(&mut self, hello: &Bytes) -> Option<String> {
        let entry = self.0.entry(hello.as_ptr().addr());
        // The hello is kept alive, so that no other one gets its address.
        let (_, build) = entry.or_insert_with(|| (hello.clone(), build(hello)));
        build.clone()
    }

    /// Drops the hellos of peers that have disconnected.
    fn forget_unused(&mut self) {
        self.0.retain(|_, (hello, _)| !hello.is_unique());
    }
}

/// A source that could be read: its id, its kind and its reading.
type Known<'a> = (usize, Kind, &'a Reading);

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
    /// Number of connections, of which not all may be listed.
    pub(super) connection_count: usize,
    pub(super) peers: Vec<PeerRow>,
}

impl Rows {
    pub(super) fn new(
        sources: &[Arc<Source>],
        readings: &[Option<Reading>],
        history: &History,
        ids: &mut Ids,
        is_draining: bool,
    ) -> Self {
        let now = SystemTime::now();
        let all = sources.iter().zip(readings).enumerate();
        let sources = all.clone();
        let sources =
            sources.map(|(id, (source, reading))| source_row(id, source, reading.as_ref()));
        let sources: Vec<SourceRow> = sources.collect();
        let known =
            all.filter_map(|(id, (source, reading))| Some((id, source.kind, reading.as_ref()?)));
        let known: Vec<Known<'_>> = known.collect();
        let (keys, methods) = methods(&known, history, &mut ids.methods);
        let totals = totals(&known, history);
        let backends = known.iter();
        let backends = backends.flat_map(|(source, _, reading)| backends_of(*source, reading));
        let backends: Vec<BackendRow> = backends.take(MAX_BACKENDS).collect();
        let connections = connections(&known, now, ids);
        let open = |(_, _, reading): &Known<'_>| reading.stats.connections.open;
        Self {
            now: millis(now),
            verdict: verdict(is_draining, &sources, &totals, &methods, &backends),
            calls: calls(&known),
            peers: peers(&connections),
            connection_count: known.iter().map(open).sum(),
            sources,
            totals,
            methods,
            keys,
            backends,
            connections,
        }
    }
}

/// Returns the rows of the methods, and their keys.
fn methods(
    known: &[Known<'_>],
    history: &History,
    numbers: &mut Numbers<Key>,
) -> (Vec<Key>, Vec<MethodRow>) {
    let mut rows = Vec::new();
    for &(source, _, reading) in known {
        for method in &reading.stats.methods {
            let key = (source, Arc::clone(&method.path));
            let Some(MethodHistory { window, .. }) = history.methods.get(&key) else {
                continue;
            };
            let recent = window.recent();
            let row = MethodRow {
                id: numbers.of(key.clone()),
                source,
                name: printable(method.name()),
                figures: figures(&recent, method.in_flight),
                limit: method.max_concurrency,
                codes: code_rates(&recent),
                calls: method.codes.total(),
                failed: method.codes.errors(),
                second: [window.second.calls, window.second.errors],
            };
            rows.push((key, row));
        }
    }
    numbers.retain(|key| history.methods.contains_key(key));
    rows.into_iter().unzip()
}

fn totals(known: &[Known<'_>], history: &History) -> Vec<TotalRow> {
    let in_flight = |side: Kind| {
        let readings = known.iter().filter(|(_, kind, _)| *kind == side);
        let methods = readings.flat_map(|(_, _, reading)| &reading.stats.methods);
        methods.map(|method| method.in_flight).sum()
    };
    let totals = history
        .totals
        .iter()
        .map(|(&side, TotalHistory { window, .. })| TotalRow {
            side,
            figures: figures(&window.recent(), in_flight(side)),
            second: Second::of(window.second, 1.0),
            #[expect(clippy::cast_precision_loss, reason = "it is 10")]
            ten: window.ten.map(|point| Second::of(point, TEN as f64)),
        });
    totals.collect()
}

/// Returns the last calls that failed or were slow, the latest first.
fn calls(known: &[Known<'_>]) -> Vec<CallRow> {
    let all = known.iter().flat_map(|&(source, _, reading)| {
        let calls = reading.calls.iter();
        calls.map(move |call| (source, call))
    });
    let mut all: Vec<(usize, &RecentCall)> = all.collect();
    all.sort_by_key(|(_, call)| Reverse((call.at, call.number)));
    all.truncate(MAX_RECENT_CALLS);
    all.iter()
        .map(|(source, call)| call_row(*source, call))
        .collect()
}

/// Returns a text of a peer without misleading characters, and cut to the maximum length.
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
    // Two decimal places suffice; more would only make the text longer.
    (100.0 * count as f64 / seconds.max(1) as f64).round() / 100.0
}

fn figures(recent: &Recent, in_flight: u64) -> Figures {
    let [p50, p99, p999] = recent.quantiles.map_or([None; 3], |known| known.map(Some));
    Figures {
        rate: per_second(recent.codes.total(), recent.seconds),
        errors: per_second(recent.codes.errors(), recent.seconds),
        p50,
        p99,
        p999,
        in_flight,
    }
}

fn code_rates(recent: &Recent) -> BTreeMap<&'static str, f64> {
    let failed = recent.codes.iter().filter(|&(code, _, _)| code != 0);
    failed
        .map(|(_, name, calls)| (name, per_second(calls, recent.seconds)))
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

fn backends_of(source: usize, reading: &Reading) -> Vec<BackendRow> {
    let Some(explanation) = &reading.explanation else {
        return Vec::new();
    };
    // Connections have the address of the peer, backends the address in the source.
    let mut counts: HashMap<String, usize> = HashMap::new();
    for connection in &reading.stats.connections.list {
        if let Some(peer) = connection.peer {
            *counts.entry(peer.to_string()).or_default() += 1;
        }
    }
    let row = |backend: &iip_core::balance::BackendExplanation| {
        let address = backend.endpoint.to_string();
        let is_address = address.parse::<SocketAddr>().is_ok();
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

fn connections(known: &[Known<'_>], now: SystemTime, ids: &mut Ids) -> Vec<ConnectionRow> {
    let mut rows = Vec::new();
    let mut seen: HashMap<(usize, Option<SocketAddr>), usize> = HashMap::new();
    for &(source, _, reading) in known {
        for connection in &reading.stats.connections.list {
            let place = seen.entry((source, connection.peer)).or_default();
            *place += 1;
            let (peer, hello) = (connection.peer, connection.hello.as_ref());
            rows.push(ConnectionRow {
                id: ids.connections.of((source, peer, *place)),
                source,
                peer: peer.map_or_else(|| "local".to_owned(), |peer| peer.to_string()),
                // Rounded to seconds, so that it does not change from reading to reading.
                since: millis(now.checked_sub(connection.age).unwrap_or(UNIX_EPOCH)).div_ceil(1000)
                    * 1000,
                received: connection.received_bytes,
                sent: connection.sent_bytes,
                unsent: connection.unsent_bytes,
                calls: connection.in_flight,
                rtt: connection.round_trip.map(micros),
                credit_stalls: connection.credit_stalls,
                build: hello.and_then(|hello| ids.builds.of(hello)),
            });
        }
    }
    ids.builds.forget_unused();
    ids.connections.retain(|(source, peer, place)| {
        let count = seen.get(&(*source, *peer));
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
