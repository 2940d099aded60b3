//! Finds the connection for a call of a balanced client: from a picked backend, or by waiting until
//! one is connected.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use super::attempt::MAX_BACKOFF_IN_DEMAND;
use super::balanced::{Balanced, ClientBackend, connect_after};
use super::pick::{CallTracker, NotPicked, PickArgs, Picked, Tried, with_causes};
use super::subchannel::Subchannel;
use crate::balance::{PickHint, Picker};
use crate::clock;
use crate::error::{CallError, CallErrorKind};
use crate::random;

/// The maximum number of backends without a connection that one call tries to connect to at a time.
const MAX_PARALLEL: usize = 8;

/// The result of a search for the connection of a call.
enum Found {
    Ready(Picked),
    /// Attempts to connect are under way.
    Connecting,
    /// Nothing is under way: the call fails.
    Failed(CallError),
}

impl Balanced {
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
                return error.map_or_else(|| self.no_backend(&picker), Found::Failed);
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
        if self.demand.note() {
            self.end_pauses(runtime, MAX_BACKOFF_IN_DEMAND);
        }
        match last {
            Some(error) if !connecting => Found::Failed(error.with_tried(tried.take())),
            _ => Found::Connecting,
        }
    }

    #[cold]
    fn no_backend(&self, picker: &Picker<Arc<Subchannel>>) -> Found {
        let state = self.lock();
        let discovery = state.discovery.clone();
        let is_current = Arc::ptr_eq(picker.set(), state.balancer.set());
        drop(state);
        if !is_current || discovery.revision.is_none() && discovery.error.is_none() {
            // The next picker has other backends, or the source has not returned any yet. Both
            // wake this call.
            return Found::Connecting;
        }
        let kind = CallErrorKind::NoBackend {
            target: self.source.describe(),
            source: discovery.error,
        };
        Found::Failed(CallError::not_sent(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;
    use crate::balance::BackendInfo;
    use crate::discover::{Snapshot, StaticList};
    use crate::transport::Connector;

    #[tokio::test]
    async fn a_call_between_a_snapshot_and_its_picker_waits_for_the_picker() {
        let never = |_: &BackendInfo| -> Arc<dyn Connector> { unreachable!("no call connects") };
        let source = Arc::new(StaticList::new([]));
        let config = Arc::new(Client::builder());
        let balanced = Balanced::new(config, source, Box::new(never)).unwrap();
        let find = || balanced.find(&Handle::current(), &PickHint::new());
        assert!(matches!(find(), Found::Connecting));
        let before = balanced.picker.load_full();

        balanced.apply(&Snapshot::new([]));
        assert!(matches!(find(), Found::Connecting));
        balanced.refresh();
        assert!(matches!(find(), Found::Failed(_)));
        assert!(matches!(balanced.no_backend(&before), Found::Connecting));
    }
}
