//! The reports of a subchannel to the balanced client that it belongs to.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::balanced::Balanced;
use super::subchannel::Subchannel;
use crate::balance::{BackendId, Notice};
use crate::connection::Connection;

/// The way from a subchannel to its client.
pub(super) struct Owner {
    pub(super) balanced: Weak<Balanced>,
    pub(super) id: BackendId,
}

impl Owner {
    /// A call has changed the state of its backend.
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
                // After an outage of all, this one is back, and the others probably are.
                let spread = balanced.config.balance.get_connect_spread();
                balanced.end_pauses(&runtime, spread);
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

    /// Returns `true` if calls wait for a connection to any backend.
    pub(super) fn has_waiting_calls(&self) -> bool {
        let balanced = self.balanced.upgrade();
        balanced.is_some_and(|balanced| balanced.demand.is_recent())
    }

    /// An attempt to connect was cancelled with its runtime.
    pub(super) fn cancelled(&self) {
        if let Some(balanced) = self.balanced.upgrade() {
            balanced.wake_waiting_calls();
        }
    }
}
