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
use super::pick::{CallTracker, NotPicked, PickArgs, Picked, Tried, with_causes};
use super::subchannel::Subchannel;
use crate::balance::{
    Backend, BackendExplanation, BackendId, BackendInfo, Balancer, Notice, PickHint, Picker,
};
use crate::clock;
use crate::connection::{Closing, Connection, Shared};
use crate::discover::{Discover, DiscoverError, Snapshot};
use crate::error::{CallError, CallErrorKind, ConfigError};
use crate::random;
use crate::transport::Connector;

/// The maximum number of backends without a connection that one call tries to connect to at a time.
const MAX_PARALLEL: usize = 8;

pub(super) type ClientBackend = Arc<Backend<Arc<Subchannel>>>;
/// Makes the connector of a backend.
pub(super) type MakeConnector = dyn Fn(&BackendInfo) -> Arc<dyn Connector> + Send + Sync;

/// The backends of a client.
pub(super) struct Balanced {
    pub(super) config: Arc<ClientBuilder>,
    pub(super) source: Arc<dyn Discover>,
    make_connector: Box<MakeConnector>,
    picker: ArcSwap<Picker<Arc<Subchannel>>>,
    state: Mutex<State>,
    /// Notified when calls that wait for a connection should look again.
    changed: Notify,
    /// Wakes the task.
    pub(super) work: Arc<Notify>,
    has_task: AtomicBool,
    closed: AtomicBool,
}

struct State {
    balancer: Balancer<Arc<Subchannel>>,
    discovery: Discovery,
    /// Backends that are being pinged.
    pinging: Vec<BackendId>,
    /// The connections of removed backends, which end with their calls.
    leaving: Vec<Weak<Shared>>,
}

/// What the source has told.
#[derive(Clone, Default)]
pub(super) struct Discovery {
    /// The revision of the last snapshot; `None` before the first.
    pub(super) revision: Option<String>,
    /// The error since the last snapshot.
    pub(super) error: Option<DiscoverError>,
}

/// The way from a subchannel to its client.
pub(super) struct Owner {
    balanced: Weak<Balanced>,
    id: BackendId,
}

impl Owner {
    /// A call has told something about its backend.
    pub(super) fn notice(&self, id: BackendId, notice: Notice) {
        let Some(balanced) = self.balanced.upgrade() else {
            return;
        };
        balanced.update(|balancer, now| match notice {
            Notice::None => false,
            Notice::Failing => balancer.failing(id, now),
            Notice::Trial(success) => balancer.trial_ended(id, now, success),
        });
    }

    /// An attempt to connect has succeeded.
    pub(super) fn connected(&self, subchannel: &Arc<Subchannel>, connection: Connection) {
        let Some(balanced) = self.balanced.upgrade() else {
            return;
        };
        let mut is_first = false;
        let changed = balanced.update(|balancer, now| {
            is_first = !balancer.has_usable();
            balancer.connected(self.id, now)
        });
        balanced.notify_unless(changed);
        if let Ok(runtime) = Handle::try_current() {
            if is_first {
                balanced.end_pauses(&runtime);
            }
            let (balanced, subchannel) = (Arc::downgrade(&balanced), Arc::downgrade(subchannel));
            drop(runtime.spawn(async move {
                connection.closed().await;
                drop(connection);
                if let (Some(balanced), Some(subchannel)) =
                    (balanced.upgrade(), subchannel.upgrade())
                    && !balanced.is_closed()
                    && !subchannel.pool.is_connected()
                {
                    // The server may be gone. If it is not, the next call connects again.
                    balanced.source.refresh();
                }
            }));
        }
    }

    /// An attempt to connect has failed, and is repeated after `pause`.
    pub(super) fn refused(&self, subchannel: &Arc<Subchannel>, slot: usize, pause: Duration) {
        let Some(balanced) = self.balanced.upgrade() else {
            return;
        };
        let first = balanced.update(|balancer, now| balancer.refused(self.id, now));
        if first {
            balanced.source.refresh();
        }
        balanced.notify_unless(first);
        if let Ok(runtime) = Handle::try_current() {
            let subchannel = Arc::downgrade(subchannel);
            let retry = async move {
                tokio::time::sleep(pause).await;
                if let (Some(subchannel), Ok(runtime)) =
                    (subchannel.upgrade(), Handle::try_current())
                {
                    subchannel.attempt(&runtime, slot);
                }
            };
            drop(runtime.spawn(retry));
        }
    }

    /// An attempt to connect was cancelled with its runtime.
    pub(super) fn cancelled(&self) {
        if let Some(balanced) = self.balanced.upgrade() {
            balanced.changed.notify_waiters();
        }
    }
}

/// What a call that needs a connection has found.
enum Found {
    Ready(Picked),
    /// Attempts to connect are under way.
    Connecting,
    /// Nothing is under way: the call fails.
    Failed(CallError),
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
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns a backend with a connection for a call at `now`, if there is one.
    #[inline]
    pub(super) fn pick(
        self: &Arc<Self>,
        args: &PickArgs<'_>,
        now: Instant,
    ) -> Result<Picked, NotPicked> {
        let (picker, policy) = (self.picker.load(), self.config.balance.get_policy());
        let choice = args.choice(policy);
        let hint = args.hint(policy).choice(choice.as_ref());
        let picked = picker
            .pick(&hint, now, random::random_id())
            .map_err(|error| NotPicked::new(error, hint.choice))?;
        if picked.stale {
            self.wake_task();
        }
        let tracker = CallTracker::new(&picked);
        match picked.backend.data().ready_connection() {
            Some(connection) => Ok(Picked {
                connection,
                tracker: Some(tracker),
            }),
            None => {
                let other = self.pick_other(&picker, &hint, picked.backend, now);
                other.ok_or_else(NotPicked::default)
            }
        }
    }

    /// Wakes the task, or starts it if it has ended with its runtime.
    #[cold]
    fn wake_task(self: &Arc<Self>) {
        match Handle::try_current() {
            Ok(runtime) if !self.is_closed() => self.ensure_task(&runtime),
            _ => {}
        }
        self.work.notify_one();
    }

    /// Returns another backend than one that has no connection, and connects to that one.
    #[cold]
    fn pick_other(
        self: &Arc<Self>,
        picker: &Picker<Arc<Subchannel>>,
        hint: &PickHint<'_>,
        first: &ClientBackend,
        now: Instant,
    ) -> Option<Picked> {
        let runtime = Handle::try_current().ok()?;
        if self.is_closed() {
            return None;
        }
        self.ensure_task(&runtime);
        let mut missing = vec![first];
        let found = self.search(picker, hint, now, &mut missing);
        for backend in missing {
            let spread = found.is_some() && !backend.data().pool.was_used();
            self.disconnected(backend);
            let delay = self
                .config
                .balance
                .connect_delay(spread, random::random_fraction());
            connect_after(&runtime, backend, delay);
        }
        found
    }

    /// Picks until there is a backend with a connection. Adds those without one to `missing`.
    fn search<'a>(
        &self,
        picker: &'a Picker<Arc<Subchannel>>,
        hint: &PickHint<'_>,
        now: Instant,
        missing: &mut Vec<&'a ClientBackend>,
    ) -> Option<Picked> {
        let mut excluded = hint.excluded.to_vec();
        excluded.extend(missing.iter().map(|backend| backend.id()));
        while missing.len() < MAX_PARALLEL {
            let hint = PickHint {
                excluded: &excluded,
                ..*hint
            };
            let picked = picker.pick(&hint, now, random::random_id()).ok()?;
            let tracker = CallTracker::new(&picked);
            if let Some(connection) = picked.backend.data().ready_connection() {
                return Some(Picked {
                    connection,
                    tracker: Some(tracker),
                });
            }
            let id = picked.backend.id();
            // All are excluded, so that one of them is picked again.
            if missing.iter().any(|backend| backend.id() == id) {
                return None;
            }
            missing.push(picked.backend);
            excluded.push(id);
        }
        None
    }

    /// Records that a backend has no connection.
    fn disconnected(&self, backend: &ClientBackend) {
        let changed = self.update(|balancer, now| {
            let changed = balancer.going_away(backend.id(), now);
            // A connection that was made meanwhile has been recorded before this.
            if backend.data().ready_connection().is_some() {
                balancer.connected(backend.id(), now);
            }
            changed
        });
        if changed && backend.data().pool.was_used() {
            self.source.refresh();
        }
    }

    /// Returns a connection for a call that began at `started`, and the time at which it had it.
    /// `not_picked` is the reason why it had none then.
    pub(super) async fn wait(
        self: &Arc<Self>,
        args: &PickArgs<'_>,
        not_picked: NotPicked,
        started: Instant,
        deadline: Instant,
    ) -> Result<(Picked, Instant), CallError> {
        let fail = |error: CallError| {
            let mut phases = error.phases();
            phases.connect = clock::now().saturating_duration_since(started);
            error.with_phases(phases)
        };
        let runtime = Handle::try_current()
            .map_err(|_| fail(CallError::not_sent(CallErrorKind::NoRuntime)))?;
        if let Some(error) = not_picked.into_error()
            && !self.is_closed()
        {
            // Without the task, the reason would stay.
            self.ensure_task(&runtime);
            return Err(fail(error));
        }
        let policy = self.config.balance.get_policy();
        // Once, although the backends are looked for after each change of them.
        let choice = args.choice(policy);
        let hint = args.hint(policy).choice(choice.as_ref());
        loop {
            // Enabled before the state is looked at, so that a change in between is not missed.
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.is_closed() {
                return Err(CallError::not_sent(CallErrorKind::Closed));
            }
            self.ensure_task(&runtime);
            match self.find(&runtime, &hint) {
                Found::Ready(picked) => return Ok((picked, clock::now())),
                Found::Failed(error) => return Err(fail(error)),
                Found::Connecting => {}
            }
            let waited = tokio::time::timeout_at(deadline.into(), changed).await;
            if waited.is_err() {
                return Err(fail(CallError::not_sent(self.timeout())));
            }
        }
    }

    /// Returns why there was no connection in time.
    fn timeout(&self) -> CallErrorKind {
        let discovery = self.lock().discovery.clone();
        match discovery.revision {
            Some(_) => CallErrorKind::Timeout,
            None => CallErrorKind::NoBackend {
                target: self.source.describe(),
                source: discovery.error,
            },
        }
    }

    fn find(self: &Arc<Self>, runtime: &Handle, hint: &PickHint<'_>) -> Found {
        let (picker, now) = (self.picker.load_full(), clock::now());
        let first = match picker.pick(hint, now, random::random_id()) {
            Ok(picked) => picked,
            Err(error) => {
                let error = NotPicked::new(error, hint.choice).into_error();
                return error.map_or_else(|| self.no_backend(), Found::Failed);
            }
        };
        let tracker = CallTracker::new(&first);
        if let Some(connection) = first.backend.data().ready_connection() {
            return Found::Ready(Picked {
                connection,
                tracker: Some(tracker),
            });
        }
        drop(tracker);
        let mut missing = vec![first.backend];
        if let Some(picked) = self.search(&picker, hint, now, &mut missing) {
            return Found::Ready(picked);
        }
        let (mut tried, mut last, mut connecting) = (Tried::new(), None, false);
        for backend in missing {
            self.disconnected(backend);
            match backend.data().ensure_attempt(runtime) {
                Ok(()) => connecting = true,
                Err(error) => {
                    let text = with_causes(error.kind());
                    tried.add_backend(backend, text, error.execution(), error.phases());
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if !connecting => Found::Failed(error.with_tried(tried.take())),
            _ => Found::Connecting,
        }
    }

    #[cold]
    fn no_backend(&self) -> Found {
        let discovery = self.lock().discovery.clone();
        if discovery.revision.is_none() && discovery.error.is_none() {
            // The source has not told anything yet.
            return Found::Connecting;
        }
        let kind = CallErrorKind::NoBackend {
            target: self.source.describe(),
            source: discovery.error,
        };
        Found::Failed(CallError::not_sent(kind))
    }

    /// Changes the state of backends, and returns what `change` does: `true` if the task must
    /// prepare the next picker.
    fn update(&self, change: impl FnOnce(&mut Balancer<Arc<Subchannel>>, Instant) -> bool) -> bool {
        let changed = change(&mut self.lock().balancer, clock::now());
        if changed {
            self.work.notify_one();
        }
        changed
    }

    /// Wakes the calls that wait for a connection, unless the state of the backends has changed:
    /// those calls must not look before there is a picker of the new state, which throttles them
    /// after an outage. The task wakes them then.
    fn notify_unless(&self, changed: bool) {
        if !changed {
            self.changed.notify_waiters();
        }
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

    /// Replaces the backends.
    pub(super) fn apply(self: &Arc<Self>, snapshot: &Snapshot) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let change = state
            .balancer
            .apply(&snapshot.backends, clock::now(), |id, info| {
                let owner = Owner {
                    balanced: Arc::downgrade(self),
                    id,
                };
                let connector = (self.make_connector)(info);
                let config = Arc::clone(&self.config);
                Arc::new(Subchannel::new(config, connector, Some(owner)))
            });
        state.leaving.retain(|shared| shared.strong_count() > 0);
        for backend in &change.removed {
            let connections = backend.data().close().into_iter();
            let weak = connections.map(|connection| Arc::downgrade(&connection.shared));
            state.leaving.extend(weak);
        }
        state.discovery = Discovery {
            revision: Some(snapshot.revision.clone()),
            error: None,
        };
        // A client that was closed meanwhile has not seen these.
        if self.is_closed() {
            for (backend, _) in state.balancer.set().iter() {
                backend.data().pool.close();
            }
        }
        drop(guard);
        if !change.is_empty() {
            tracing::debug!(
                source = %self.source.describe(),
                revision = %snapshot.revision,
                kept = change.kept,
                added = change.added.len(),
                removed = change.removed.len(),
                changed = change.changed.len(),
                "backends changed"
            );
        }
    }

    /// Records an error of the source. The backends stay as they are.
    pub(super) fn failed(&self, error: DiscoverError) {
        let mut state = self.lock();
        let text = error.to_string();
        let known = state.discovery.error.as_ref();
        let is_new = known.is_none_or(|known| known.to_string() != text);
        state.discovery.error = Some(error);
        let backends = state.balancer.set().len();
        drop(state);
        if is_new {
            tracing::warn!(
                source = %self.source.describe(),
                error = text,
                backends,
                "discovery failed: the known backends are kept"
            );
        }
        self.changed.notify_waiters();
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

    /// Connects to all unreachable backends, although their last attempts have failed: after an
    /// outage of all, the first one is back, and the others probably are.
    fn end_pauses(&self, runtime: &Handle) {
        let backends: Vec<_> = self.lock().balancer.unreachable().cloned().collect();
        for backend in &backends {
            let random = random::random_fraction();
            let delay = self.config.balance.connect_delay(true, random);
            backend.data().end_pause();
            connect_after(runtime, backend, delay);
        }
    }

    /// Starts the task unless it runs. It ends with its runtime, and the next call that needs it
    /// starts it in its own.
    fn ensure_task(self: &Arc<Self>, runtime: &Handle) {
        if !self.has_task.swap(true, Ordering::AcqRel) {
            let running = Running(Arc::downgrade(self));
            drop(runtime.spawn(super::watch::run(running, Arc::clone(&self.source))));
        }
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

/// The mark that the task runs. It is removed when the task ends, even with its runtime.
pub(super) struct Running(pub(super) Weak<Balanced>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(balanced) = self.0.upgrade() {
            balanced.has_task.store(false, Ordering::Release);
            // A call that waits starts it again.
            balanced.changed.notify_waiters();
        }
    }
}

/// Connects to a backend after a delay.
fn connect_after(runtime: &Handle, backend: &ClientBackend, delay: Duration) {
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
