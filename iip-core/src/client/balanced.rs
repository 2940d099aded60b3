//! The backends of a client: where they come from, which of them a call uses, and what happens when
//! one of them has no connection.
//!
//! One task for each client watches the source, applies what time changes, and prepares the next
//! [`Picker`]. Calls only read the current one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::builder::ClientBuilder;
use super::demand::Demand;
use super::subchannel::Subchannel;
use crate::balance::{
    Backend, BackendExplanation, BackendId, BackendInfo, Balancer, PickHint, Picker,
};
use crate::clock;
use crate::connection::{Closing, Connection, Shared};
use crate::discover::{Discover, DiscoverError};
use crate::error::ConfigError;
use crate::random;
use crate::stats::Registry;
use crate::transport::Connector;

pub(super) type ClientBackend = Arc<Backend<Arc<Subchannel>>>;
/// Makes the connector of a backend.
pub(super) type MakeConnector = dyn Fn(&BackendInfo) -> Arc<dyn Connector> + Send + Sync;

/// The backends of a client.
pub(super) struct Balanced {
    pub(super) config: Arc<ClientBuilder>,
    pub(super) source: Arc<dyn Discover>,
    pub(super) stats: Arc<Registry>,
    pub(super) make_connector: Box<MakeConnector>,
    pub(super) picker: ArcSwap<Picker<Arc<Subchannel>>>,
    state: Mutex<State>,
    /// Notified when calls that wait for a connection should look again.
    pub(super) changed: Notify,
    /// Wakes the task.
    pub(super) work: Arc<Notify>,
    pub(super) has_task: AtomicBool,
    closed: AtomicBool,
    pub(super) demand: Demand,
}

pub(super) struct State {
    pub(super) balancer: Balancer<Arc<Subchannel>>,
    pub(super) discovery: Discovery,
    /// Backends that are being pinged.
    pinging: Vec<BackendId>,
    /// The connections of removed backends, which end with their calls.
    pub(super) leaving: Vec<Weak<Shared>>,
}

/// The latest reports of the source.
#[derive(Clone, Default)]
pub(super) struct Discovery {
    /// The revision of the last snapshot; `None` before the first.
    pub(super) revision: Option<String>,
    /// The error since the last snapshot.
    pub(super) error: Option<DiscoverError>,
}

impl Balanced {
    pub(super) fn new(
        config: Arc<ClientBuilder>,
        source: Arc<dyn Discover>,
        make_connector: Box<MakeConnector>,
    ) -> Result<Arc<Self>, ConfigError> {
        let mut options = config.balance.clone();
        options.set_random_client_id();
        let balancer = Balancer::new(options, clock::now(), random::random_id())?;
        Ok(Arc::new(Self {
            config,
            source,
            stats: Registry::of_client(),
            make_connector,
            picker: ArcSwap::new(Arc::clone(balancer.picker())),
            state: Mutex::new(State {
                balancer,
                discovery: Discovery::default(),
                pinging: Vec::new(),
                leaving: Vec::new(),
            }),
            changed: Notify::new(),
            work: Arc::new(Notify::new()),
            has_task: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            demand: Demand::new(),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Changes the state of backends, and returns what `change` does: `true` if the task must
    /// prepare the next picker.
    pub(super) fn update(
        &self,
        change: impl FnOnce(&mut Balancer<Arc<Subchannel>>, Instant) -> bool,
    ) -> bool {
        let changed = change(&mut self.lock().balancer, clock::now());
        if changed {
            self.work.notify_one();
        }
        changed
    }

    /// Wakes the calls that wait for a connection, unless the state of the backends has changed:
    /// those calls must not look before there is a picker of the new state, which throttles them
    /// after an outage. The task wakes them then.
    pub(super) fn notify_unless(&self, changed: bool) {
        if !changed {
            self.changed.notify_waiters();
        }
    }

    /// Lets the calls that wait for a connection look again.
    pub(super) fn wake_waiting_calls(&self) {
        self.changed.notify_waiters();
    }

    /// Prepares the next picker. Returns the time at which it must be done again.
    pub(super) fn refresh(&self) -> Option<Instant> {
        let mut state = self.lock();
        let next = state.balancer.refresh(clock::now());
        self.picker.store(Arc::clone(state.balancer.picker()));
        drop(state);
        self.changed.notify_waiters();
        next
    }

    pub(super) fn has_backends(&self) -> bool {
        !self.lock().balancer.set().is_empty()
    }

    /// Pings the backends whose ejection is over.
    pub(super) fn ping_due(self: &Arc<Self>) {
        let mut state = self.lock();
        let due: Vec<_> = state.balancer.due_pings().cloned().collect();
        for backend in due {
            if state.pinging.contains(&backend.id()) {
                continue;
            }
            state.pinging.push(backend.id());
            let balanced = Arc::downgrade(self);
            let limit = self.config.connect_timeout;
            drop(tokio::spawn(async move {
                let success = backend.data().ping(limit).await;
                if let Some(balanced) = balanced.upgrade() {
                    let id = backend.id();
                    balanced.lock().pinging.retain(|other| *other != id);
                    balanced.update(|balancer, now| balancer.pinged(id, now, success));
                }
            }));
        }
    }

    /// Connects to the backends that get no calls before they are connected. Their attempts may
    /// have ended with the runtime of the last task.
    pub(super) fn reconnect(&self, runtime: &Handle) {
        let backends: Vec<_> = self.lock().balancer.unreachable().cloned().collect();
        for backend in &backends {
            connect_after(runtime, backend, Duration::ZERO);
        }
    }

    /// Connects to all unreachable backends within `spread`, although their last attempts have
    /// failed.
    pub(super) fn end_pauses(&self, runtime: &Handle, spread: Duration) {
        let backends: Vec<_> = self.lock().balancer.unreachable().cloned().collect();
        for backend in &backends {
            let delay = spread.mul_f64(random::random_fraction());
            backend.data().end_pause(delay);
            connect_after(runtime, backend, delay);
        }
    }

    /// Returns the connections that have not ended.
    pub(super) fn all_shared(&self) -> Vec<Arc<Shared>> {
        let state = self.lock();
        let backends = state.balancer.set().iter();
        let mut all: Vec<_> = backends
            .flat_map(|(backend, _)| backend.data().pool.all_shared())
            .collect();
        let leaving = state.leaving.iter().filter_map(Weak::upgrade);
        all.extend(leaving.filter(|shared| shared.lock().ended.is_none()));
        all
    }

    /// Returns what a pick would see of each backend.
    pub(super) fn explain(&self) -> (Vec<BackendExplanation>, Discovery) {
        let state = self.lock();
        let backends = state.balancer.explain(&PickHint::new(), clock::now());
        (backends, state.discovery.clone())
    }

    /// Rejects further calls. Returns the connections, which end with their calls.
    pub(super) fn close(&self) -> Vec<Connection> {
        self.closed.store(true, Ordering::Release);
        let state = self.lock();
        let mut connections = Vec::new();
        for (backend, _) in state.balancer.set().iter() {
            connections.extend(backend.data().close());
        }
        for shared in state.leaving.iter().filter_map(Weak::upgrade) {
            shared.close(Closing::Drain);
            connections.push(Connection { shared });
        }
        drop(state);
        self.changed.notify_waiters();
        self.work.notify_one();
        connections
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Balanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced")
            .field("source", &self.source.describe())
            .finish_non_exhaustive()
    }
}

/// Connects to a backend after a delay.
pub(super) fn connect_after(runtime: &Handle, backend: &ClientBackend, delay: Duration) {
    if delay.is_zero() {
        // An error means that the last attempt has failed, and is repeated after its pause.
        let _pausing = backend.data().ensure_attempt(runtime);
        return;
    }
    let backend = Arc::downgrade(backend);
    drop(runtime.spawn(async move {
        tokio::time::sleep(delay).await;
        if let (Some(backend), Ok(runtime)) = (backend.upgrade(), Handle::try_current()) {
            let _pausing = backend.data().ensure_attempt(&runtime);
        }
    }));
}
