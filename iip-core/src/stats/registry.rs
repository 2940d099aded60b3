//! The counters that the connections of a server or client share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use super::method::{MAX_SHARDS, Method};
use super::notable::RecentCalls;
use super::recent::{MILLI, Recent};
use super::snapshot::{Connections, MAX_METHODS, MethodStats, OTHER, Snapshot, name_of};
use crate::clock;
use crate::frame::Side;
use crate::path::label_and_query;

/// The number of a method within its registry. It is not used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct MethodId(pub(super) u16);

/// The counters of a server or client.
#[derive(Debug)]
pub(crate) struct Registry {
    side: Side,
    started: Instant,
    started_at: SystemTime,
    methods: RwLock<Methods>,
    shards: usize,
    /// Number of connections that were assigned to a shard.
    assigned: AtomicUsize,
    /// The recent calls of all methods but [`OTHER`], if they are kept.
    recent: Option<Mutex<Recent>>,
    notable: Arc<RecentCalls>,
}

#[derive(Debug)]
struct Methods {
    ids: HashMap<Box<[u8]>, MethodId>,
    /// The first one is [`OTHER`].
    list: Vec<Arc<Method>>,
}

impl Methods {
    fn add(&mut self, path: &str, rpc_method: Option<String>) -> MethodId {
        let Ok(number) = u16::try_from(self.list.len()) else {
            return MethodId::default();
        };
        if self.list.len() > MAX_METHODS {
            return MethodId::default();
        }
        let id = MethodId(number);
        self.ids.insert(path.as_bytes().into(), id);
        self.list.push(Arc::new(Method::new(path, rpc_method)));
        id
    }
}

impl Registry {
    /// The counters of a client, which adds methods as they are called.
    pub(crate) fn of_client() -> Arc<Self> {
        Arc::new(Self::new(Side::Client))
    }

    /// The counters of a server with these paths, and their names in metrics. Others count as
    /// [`OTHER`]. `keeps_recent` is `true` if recent calls are kept, which takes 38 KB for each
    /// method.
    pub(crate) fn of_server<'a>(
        methods: impl Iterator<Item = (&'a [u8], Option<String>)>,
        keeps_recent: bool,
    ) -> Arc<Self> {
        let mut registry = Self::new(Side::Server);
        registry.recent = keeps_recent.then(|| Mutex::new(Recent::new(MILLI)));
        let named = methods.filter_map(|(path, name)| Some((str::from_utf8(path).ok()?, name)));
        let mut named: Vec<(&str, Option<String>)> = named.collect();
        // If there are too many, the order decides which of them have figures of their own.
        named.sort_unstable();
        let mut methods = registry
            .methods
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let by_path = named.iter().filter(|(_, name)| name.is_none());
        let mut taken: HashSet<String> =
            by_path.map(|(path, _)| name_of(path).to_owned()).collect();
        for (path, name) in named {
            // Metrics with the same labels would be one.
            let name = name.filter(|name| taken.insert(name.clone()));
            methods.add(path, name);
        }
        drop(methods);
        Arc::new(registry)
    }

    fn new(side: Side) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            side,
            started: clock::now(),
            started_at: clock::wall_clock(),
            methods: RwLock::new(Methods {
                ids: HashMap::new(),
                list: vec![Arc::new(Method::new(OTHER, None))],
            }),
            // With one core, connections do not run at the same time.
            shards: cores.next_power_of_two().min(MAX_SHARDS),
            assigned: AtomicUsize::new(0),
            recent: None,
            notable: Arc::default(),
        }
    }

    /// Returns the recent calls of all methods, if they are kept.
    pub(super) fn recent(&self) -> Option<MutexGuard<'_, Recent>> {
        let recent = self.recent.as_ref()?;
        Some(recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds calls that have ended at `now` to the recent ones, if these are kept.
    pub(super) fn add_recent(&self, method: &Method, now: Instant, nanos: u64, calls: u64) {
        if let Some(mut all) = self.recent()
            && method.path() != OTHER
        {
            let now = clock::nanos(now.saturating_duration_since(self.started));
            all.add(now, nanos, calls);
            method.recent().add(now, nanos, calls);
        }
    }

    /// Returns all methods but [`OTHER`].
    pub(super) fn methods(&self) -> Vec<Arc<Method>> {
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        methods.list.iter().skip(1).cloned().collect()
    }

    /// Returns the method of this path, if it is not [`OTHER`].
    pub(super) fn known(&self, path: &[u8]) -> Option<Arc<Method>> {
        let id = Some(self.find(path)).filter(|id| *id != MethodId::default());
        id.map(|id| self.method(id))
    }

    /// Returns the current time, in nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        clock::nanos(self.uptime())
    }

    /// Returns the shard of a new connection.
    pub(super) fn assign(&self) -> usize {
        self.assigned.fetch_add(1, Ordering::Relaxed) % self.shards
    }

    /// The last calls that failed or were slow.
    pub(crate) fn notable(&self) -> &Arc<RecentCalls> {
        &self.notable
    }

    /// Returns the number of a method: at a server by the label of its path, at a client by its
    /// path as it is sent, whose query does not count.
    pub(super) fn find(&self, path: &[u8]) -> MethodId {
        if self.side == Side::Server {
            let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
            return methods.ids.get(path).copied().unwrap_or_default();
        }
        let label = label_and_query(path).label;
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = methods.ids.get(&label[..]) {
            return *id;
        }
        drop(methods);
        let Ok(path) = str::from_utf8(&label) else {
            return MethodId::default();
        };
        let mut methods = self.methods.write().unwrap_or_else(PoisonError::into_inner);
        // Another call may have added it in between.
        match methods.ids.get(&label[..]) {
            Some(id) => *id,
            None => methods.add(path, None),
        }
    }

    pub(super) fn method(&self, id: MethodId) -> Arc<Method> {
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        let method = methods.list.get(usize::from(id.0));
        Arc::clone(method.unwrap_or(&methods.list[0]))
    }

    /// Counts a call of this path that failed.
    #[cold]
    pub(crate) fn failed(&self, path: &[u8], code: u8) {
        self.method(self.find(path)).failed(code);
    }

    /// Returns everything that connections have added. They must have added it before.
    pub(crate) fn snapshot(&self, connections: Connections) -> Snapshot {
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        let list = methods.list.clone();
        drop(methods);
        let stats = list.iter().map(|method| method.stats());
        let mut methods: Vec<_> = stats.filter(MethodStats::is_used).collect();
        methods.sort_unstable_by(|a, b| {
            (&*a.path == OTHER, &a.path).cmp(&(&*b.path == OTHER, &b.path))
        });
        Snapshot {
            side: self.side,
            started_at: self.started_at,
            uptime: self.uptime(),
            methods,
            connections,
        }
    }

    fn uptime(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Shared;
    use crate::stats::Recorder;
    use crate::stats::method::Shard;

    fn registry(methods: usize) -> Arc<Registry> {
        let paths: Vec<String> = (0..methods).map(|n| format!("/service/{n}")).collect();
        let methods = paths.iter().map(|path| (path.as_bytes(), None));
        Registry::of_server(methods, false)
    }

    /// Counts calls of the first methods on a connection.
    fn count(recorder: &mut Recorder, methods: usize, calls: usize) {
        let begun = clock::now();
        recorder.set_now(begun + Duration::from_micros(50));
        for call in 0..calls {
            let path = format!("/service/{}", call % methods);
            recorder.received(path.as_bytes(), 20, true);
            recorder.begun(path.as_bytes());
            recorder.sent(path.as_bytes(), 30, true);
            recorder.ended(path.as_bytes(), begun);
        }
    }

    #[test]
    fn a_hundred_methods_take_less_than_six_megabytes() {
        let shards = 100 * MAX_SHARDS * size_of::<Shard>();
        let methods = 100 * size_of::<Method>();
        assert!(shards + methods < 6_000_000, "{shards} + {methods}");
    }

    #[test]
    fn more_methods_than_a_connection_keeps_are_all_counted() {
        let registry = registry(100);
        let mut recorder = Recorder::new(&registry);
        count(&mut recorder, 100, 1000);
        recorder.flush();
        let snapshot = registry.snapshot(Connections::default());
        assert_eq!(snapshot.methods.len(), 100);
        for method in &snapshot.methods {
            assert_eq!((method.codes.ok(), method.in_flight), (10, 0));
            assert_eq!((method.received.bytes, method.sent.bytes), (200, 300));
            assert_eq!(method.latency.sum(), Duration::from_micros(500));
        }
        let later = registry.snapshot(Connections::default());
        assert_eq!(later.since(&snapshot).total().codes.total(), 0);
    }

    #[test]
    fn no_two_methods_have_one_name_in_metrics() {
        let methods = [
            ("/a", Some("Shop/find")),
            ("/b", Some("Shop/find")),
            ("/c", Some("Shop/list")),
            ("/Shop/list", None),
        ];
        let methods = methods.map(|(path, name)| (path.as_bytes(), name.map(str::to_owned)));
        let registry = Registry::of_server(methods.into_iter(), false);
        let name = |path: &str| {
            let method = registry.known(path.as_bytes()).expect("it has a route");
            method.stats().rpc_method().to_owned()
        };
        let names = ["/a", "/b", "/c", "/Shop/list"].map(name);
        assert_eq!(names, ["Shop/find", "b", "c", "Shop/list"]);
    }

    #[test]
    fn a_call_that_fails_counts_once() {
        let registry = registry(1);
        let mut recorder = Recorder::new(&registry);
        count(&mut recorder, 1, 3);
        recorder.failed(b"/service/0", 5);
        recorder.failed(b"/service/0", 99);
        drop(recorder);
        let codes = registry.snapshot(Connections::default()).total().codes;
        assert_eq!((codes.ok(), codes.get(5), codes.total()), (2, 1, 3));
    }

    #[test]
    fn the_thousand_and_first_method_counts_with_others() {
        let registry = Registry::of_client();
        let ids: Vec<_> = (0..MAX_METHODS + 10)
            .map(|n| registry.find(format!("/{n}?query").as_bytes()))
            .collect();
        assert_eq!(ids[MAX_METHODS], MethodId::default());
        assert_ne!(ids[MAX_METHODS - 1], MethodId::default());
        assert_eq!(registry.find(b"/7"), ids[7]);
        assert_eq!(registry.find(b"/\xff"), MethodId::default());
    }

    #[tokio::test]
    #[ignore = "a measurement, of a release build: cargo test --release -p iip-core -- --ignored"]
    async fn a_scrape_of_a_hundred_methods_and_a_thousand_connections_takes_five_milliseconds() {
        let registry = registry(100);
        let connections = (0..1000).map(|_| {
            let shared = Shared::of_server(None);
            shared.lock().proto.stats = Recorder::new(&registry);
            shared
        });
        let connections: Vec<_> = connections.collect();
        let mut best = Duration::MAX;
        for _ in 0..20 {
            for shared in &connections {
                count(&mut shared.lock().proto.stats, 100, 100);
            }
            let start = Instant::now();
            let snapshot = registry.snapshot(Connections::of(1000, &connections));
            let text = snapshot.to_prometheus();
            best = best.min(start.elapsed());
            assert!(snapshot.methods.len() == 100 && text.len() > 100_000);
        }
        println!("a scrape of 100 methods and 1,000 connections: {best:?}");
        assert!(best < Duration::from_millis(5));
    }
}
