//! The reports of a subchannel to the balanced client that it belongs to.

use std::sync::Weak;

use tokio::runtime::Handle;

use super::balanced::Balanced;
use super::subchannel::Owner;
use crate::balance::{BackendId, Notice};

/// The balanced client of a subchannel, with the backend that the subchannel connects to.
pub(super) struct BalancedOwner {
    pub(super) balanced: Weak<Balanced>,
    pub(super) id: BackendId,
}

impl Owner for BalancedOwner {
    fn notice(&self, id: BackendId, notice: Notice) {
        let Some(balanced) = self.balanced.upgrade() else {
            return;
        };
        balanced.update(|balancer, now| match notice {
            Notice::None => false,
            Notice::Failing => balancer.failing(id, now),
            Notice::Trial(success) => balancer.trial_ended(id, now, success),
        });
    }

    fn connected(&self) {
        let Some(balanced) = self.balanced.upgrade() else {
            return;
        };
        let mut is_first = false;
        let changed = balanced.update(|balancer, now| {
            is_first = !balancer.has_usable();
            balancer.connected(self.id, now)
        });
        balanced.notify_unless(changed);
        if is_first && let Ok(runtime) = Handle::try_current() {
            // After an outage of all, this one is back, and the others probably are.
            let spread = balanced.config.balance.get_connect_spread();
            balanced.end_pauses(&runtime, spread);
        }
    }

    fn refused(&self) {
        let Some(balanced) = self.balanced.upgrade() else {
            return;
        };
        let first = balanced.update(|balancer, now| balancer.refused(self.id, now));
        if first {
            balanced.source.refresh();
        }
        balanced.notify_unless(first);
    }

    fn cancelled(&self) {
        if let Some(balanced) = self.balanced.upgrade() {
            balanced.wake_waiting_calls();
        }
    }

    fn lost(&self) {
        if let Some(balanced) = self.balanced.upgrade()
            && !balanced.is_closed()
        {
            // The server may be gone. If it is not, the next call connects again.
            balanced.source.refresh();
        }
    }

    fn has_waiting_calls(&self) -> bool {
        let balanced = self.balanced.upgrade();
        balanced.is_some_and(|balanced| balanced.demand.is_recent())
    }
}
