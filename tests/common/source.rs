//! A source of backends that a test controls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use iip_core::balance::BackendInfo;
use iip_core::discover::{
    Discover, DiscoverError, Snapshot, SnapshotSender, SnapshotStream, channel,
};
use tokio::runtime::Handle;

type Item = Result<Snapshot, DiscoverError>;

/// A source that delivers what [`send`](Self::send) is given. Clones are the same source.
#[derive(Clone, Default)]
pub(crate) struct TestSource {
    state: Arc<Mutex<State>>,
    refreshed: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    last: Option<Item>,
    watchers: Vec<SnapshotSender>,
}

impl TestSource {
    /// A source with a first snapshot of these addresses.
    pub(crate) fn of<A: ToString>(addresses: &[A]) -> Self {
        let source = Self::default();
        source.send(Ok(snapshot(addresses)));
        source
    }

    pub(crate) fn send(&self, item: Item) {
        let mut state = self.state.lock().expect("no test panics with it");
        for watcher in &state.watchers {
            let (watcher, item) = (watcher.clone(), item.clone());
            Handle::current().spawn(async move { watcher.send(item).await });
        }
        state.last = Some(item);
    }

    /// The number of hints to look for changes.
    pub(crate) fn refreshed(&self) -> usize {
        self.refreshed.load(Ordering::Relaxed)
    }
}

/// A snapshot of these addresses, whose ids are `b0`, `b1` and so on.
pub(crate) fn snapshot<A: ToString>(addresses: &[A]) -> Snapshot {
    let infos = addresses.iter().enumerate().map(|(index, address)| {
        let endpoint = address.to_string().parse().expect("an address");
        BackendInfo::new(endpoint).id(format!("b{index}"))
    });
    Snapshot::new(infos.collect::<Vec<_>>()).revision("test")
}

impl Discover for TestSource {
    fn watch(&self) -> SnapshotStream {
        let (watcher, snapshots) = channel();
        let mut state = self.state.lock().expect("no test panics with it");
        if let Some(last) = state.last.clone() {
            let watcher = watcher.clone();
            Handle::current().spawn(async move { watcher.send(last).await });
        }
        state.watchers.push(watcher);
        snapshots
    }

    fn refresh(&self) {
        self.refreshed.fetch_add(1, Ordering::Relaxed);
    }

    fn describe(&self) -> String {
        "test source".to_owned()
    }
}
