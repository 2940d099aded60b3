//! The reports of the source of a balanced client: a snapshot replaces the backends, and an error
//! leaves them as they are.

use std::sync::Arc;

use super::balanced::{Balanced, Discovery};
use super::owner::BalancedOwner;
use super::subchannel::Subchannel;
use crate::clock;
use crate::discover::{DiscoverError, Snapshot};

impl Balanced {
    /// Replaces the backends.
    pub(super) fn apply(self: &Arc<Self>, snapshot: &Snapshot) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let change = state
            .balancer
            .apply(&snapshot.backends, clock::now(), |id, info| {
                let owner = BalancedOwner {
                    balanced: Arc::downgrade(self),
                    id,
                };
                let connector = (self.make_connector)(info);
                let (config, stats) = (Arc::clone(&self.config), Arc::clone(&self.stats));
                Arc::new(Subchannel::new(
                    config,
                    connector,
                    stats,
                    Some(Box::new(owner)),
                ))
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
}
