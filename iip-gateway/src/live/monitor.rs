//! The state that all viewers share: the readings of each second, and the events with the changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior};

use super::history::{Counters, History};
use super::rows::{Ids, Rows, millis};
use super::source::{Reading, Source};
use super::text;
use super::wire::{
    CallRow, ChangedConnections, Curve, Drain, FORMAT, ListedConnections, MethodCurves,
    MethodWithCurve, ShortCurve, Snapshot, Tick, TotalWithCurves,
};

/// Maximum number of methods with curves.
const MAX_CURVES: usize = 200;

/// Maximum number of events by which a viewer may lag. After that, it gets a new snapshot.
const MAX_LATE: usize = 4;

/// The contents of the page, and its name.
#[derive(Debug)]
pub(super) struct Monitor {
    name: String,
    version: String,
    started: u64,
    /// The secret of this process, which requests for actions must contain.
    token: String,
    has_drain: bool,
    is_draining: AtomicBool,
    state: Mutex<State>,
    ticks: broadcast::Sender<Bytes>,
}

#[derive(Debug)]
struct State {
    sources: Vec<Arc<Source>>,
    tick: u64,
    last: Option<Instant>,
    history: History,
    ids: Ids,
    readings: Vec<Option<Reading>>,
    /// The rows that viewers have. `None` if there was no viewer since the last tick.
    rows: Option<Rows>,
}

impl Monitor {
    pub(super) fn new(
        name: String,
        version: String,
        sources: Vec<Source>,
        has_drain: bool,
        token: String,
    ) -> Self {
        Self {
            name,
            version,
            started: millis(SystemTime::now()),
            token,
            has_drain,
            is_draining: AtomicBool::new(false),
            state: Mutex::new(State {
                sources: sources.into_iter().map(Arc::new).collect(),
                tick: 0,
                last: None,
                history: History::new(MAX_CURVES),
                ids: Ids::default(),
                readings: Vec::new(),
                rows: None,
            }),
            ticks: broadcast::Sender::new(MAX_LATE),
        }
    }

    pub(super) fn add(&self, source: Source) {
        self.lock().sources.push(Arc::new(source));
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Records that the process drains. Returns `true` the first time.
    pub(super) fn set_draining(&self) -> bool {
        !self.is_draining.swap(true, Ordering::Relaxed)
    }

    /// Reads the sources every second, as long as the monitor exists.
    pub(super) async fn run(this: Weak<Self>) {
        const SECOND: Duration = Duration::from_secs(1);
        let first = Instant::now() + SECOND;
        let mut interval = tokio::time::interval_at(first, SECOND);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            match this.upgrade() {
                Some(monitor) => monitor.tick(),
                None => return,
            }
        }
    }

    /// Reads the sources, and sends the changes to viewers.
    pub(super) fn tick(&self) {
        // Sources are only added. They are read without the lock, so that viewers do not wait.
        let sources = self.lock().sources.clone();
        let readings: Vec<_> = sources.iter().map(|source| source.read()).collect();
        let mut state = self.lock();
        let now = Instant::now();
        let passed = state.last.map_or(Duration::from_secs(1), |last| now - last);
        // Rounded to seconds; the remainder counts towards the next tick.
        let seconds = (passed + Duration::from_millis(500)).as_secs();
        if seconds == 0 {
            return;
        }
        let at = state
            .last
            .map_or(now, |last| last + Duration::from_secs(seconds));
        state.last = Some(if seconds > 300 { now } else { at });
        state.tick += 1;
        let counters = sources.iter().zip(&readings).enumerate();
        let counters = counters
            .filter_map(|(id, (source, reading))| Some((id, source.kind, reading.as_ref()?)));
        let counters = counters.flat_map(|(id, kind, reading)| {
            reading.stats.methods.iter().map(move |method| {
                let key = (id, Arc::clone(&method.path));
                let counters = Counters {
                    codes: &method.codes,
                    latency: &method.latency,
                };
                (key, kind, counters)
            })
        });
        state.history.update(seconds, counters);
        state.readings = readings;
        let before = state.rows.take();
        if self.ticks.receiver_count() == 0 {
            return;
        }
        let tick = state.tick;
        let (rows, _) = self.rows(&mut state);
        if let Some(before) = before {
            // An error means that there are no viewers.
            let _ = self
                .ticks
                .send(event("tick", &self.changes(tick, &before, rows)));
        }
    }

    /// Returns the event with the whole snapshot, and the receiver of the following events.
    pub(super) fn subscribe(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        // Under the lock, so that no event is between the two.
        let mut state = self.lock();
        let receiver = self.ticks.subscribe();
        let event = self.with_snapshot(&mut state, true, |snapshot| event("snapshot", snapshot));
        (event, receiver)
    }

    /// Returns the snapshot as JSON, with or without the curves.
    pub(super) fn json(&self, with_curves: bool) -> Bytes {
        self.with_snapshot(&mut self.lock(), with_curves, |snapshot| json(snapshot))
    }

    /// Returns the snapshot as text.
    pub(super) fn text(&self) -> Bytes {
        self.with_snapshot(&mut self.lock(), false, |snapshot| {
            text::text(snapshot).into()
        })
    }

    /// Returns the curves of a method as JSON; `None` if it has none.
    pub(super) fn curves(&self, id: u32) -> Option<Bytes> {
        let mut state = self.lock();
        let (rows, history) = self.rows(&mut state);
        let mut methods = rows.methods.iter().zip(&rows.keys);
        let (_, key) = methods.find(|(row, _)| row.id == id)?;
        let curve = history.methods.get(key)?.curve.as_ref()?;
        Some(json(&MethodCurves {
            now: rows.now,
            seconds: Curve::of(&curve.seconds, 1.0),
            tens: Curve::of(&curve.tens, 10.0),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows<'a>(&self, state: &'a mut State) -> (&'a Rows, &'a History) {
        let State {
            sources,
            history,
            ids,
            readings,
            rows,
            ..
        } = state;
        let is_draining = self.is_draining.load(Ordering::Relaxed);
        let rows =
            rows.get_or_insert_with(|| Rows::new(sources, readings, history, ids, is_draining));
        (rows, history)
    }

    fn drain(&self, with_token: bool) -> Drain<'_> {
        Drain {
            available: self.has_drain,
            draining: self.is_draining.load(Ordering::Relaxed),
            token: (with_token && self.has_drain).then_some(&self.token),
        }
    }

    fn with_snapshot<R>(
        &self,
        state: &mut State,
        with_curves: bool,
        make: impl FnOnce(&Snapshot<'_>) -> R,
    ) -> R {
        let tick = state.tick;
        let (rows, history) = self.rows(state);
        let totals = rows.totals.iter().filter_map(|row| {
            let curve = &history.totals.get(&row.side)?.curve;
            Some(TotalWithCurves {
                row,
                seconds: with_curves.then(|| Curve::of(&curve.seconds, 1.0)),
                tens: with_curves.then(|| Curve::of(&curve.tens, 10.0)),
            })
        });
        let methods = rows.methods.iter().zip(&rows.keys).map(|(row, key)| {
            let method = history.methods.get(key).filter(|_| with_curves);
            let curve = method.and_then(|method| method.curve.as_ref());
            MethodWithCurve {
                row,
                curve: curve.map(|curve| ShortCurve::of(&curve.seconds)),
            }
        });
        make(&Snapshot {
            format: FORMAT,
            name: &self.name,
            version: &self.version,
            pid: std::process::id(),
            started: self.started,
            now: rows.now,
            tick,
            verdict: &rows.verdict,
            drain: self.drain(true),
            sources: &rows.sources,
            totals: totals.collect(),
            methods: methods.collect(),
            calls: &rows.calls,
            backends: &rows.backends,
            connections: ListedConnections {
                total: rows.connection_count,
                listed: &rows.connections,
            },
            peers: &rows.peers,
        })
    }

    fn changes<'a>(&'a self, tick: u64, before: &Rows, rows: &'a Rows) -> Tick<'a> {
        let (methods, gone) = changed(&before.methods, &rows.methods, |row| row.id);
        let (connections, closed) = changed(&before.connections, &rows.connections, |row| row.id);
        // The latest calls come first.
        let known = |call: &&CallRow| before.calls.contains(call);
        let new = rows.calls.iter().take_while(|call| !known(call)).count();
        Tick {
            now: rows.now,
            tick,
            verdict: &rows.verdict,
            drain: self.drain(false),
            totals: &rows.totals,
            methods,
            gone,
            calls: rows.calls.get(..new).unwrap_or_default(),
            backends: (before.backends != rows.backends).then_some(&rows.backends[..]),
            connections: ChangedConnections {
                total: rows.connection_count,
                listed: connections,
                gone: closed,
            },
            peers: (before.peers != rows.peers).then_some(&rows.peers[..]),
        }
    }
}

/// Returns the rows that have changed or are new, and the numbers of those that were removed.
fn changed<'a, T: PartialEq, K: Copy + Eq + Hash>(
    before: &[T],
    now: &'a [T],
    number: impl Fn(&T) -> K,
) -> (Vec<&'a T>, Vec<K>) {
    let mut known: HashMap<K, &T> = before.iter().map(|row| (number(row), row)).collect();
    let is_changed = |row: &&T| {
        known
            .remove(&number(row))
            .is_none_or(|before| before != *row)
    };
    let changed = now.iter().filter(is_changed).collect();
    let gone = before
        .iter()
        .map(number)
        .filter(|number| known.contains_key(number));
    (changed, gone.collect())
}

fn json(value: &impl Serialize) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(text) => text.into(),
        // Numbers, texts and lists can always be written as JSON.
        Err(error) => {
            tracing::error!(%error, "the live page cannot be written");
            Bytes::from_static(b"{}")
        }
    }
}

/// Returns an event of a stream of server-sent events. JSON has no line breaks.
fn event(name: &str, value: &impl Serialize) -> Bytes {
    let mut text = format!("event: {name}\ndata: ").into_bytes();
    text.extend_from_slice(&json(value));
    text.extend_from_slice(b"\n\n");
    text.into()
}
