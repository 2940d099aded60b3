//! The state of a server for those who watch it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Inner, Server};
use crate::stats::{Connections, RecentCall, Registry, Snapshot};

/// Reads what a server counts, for those who watch it. Cheap to clone. It does not keep the server.
#[derive(Clone, Debug)]
pub struct ServerObserver {
    stats: Arc<Registry>,
    inner: Weak<Inner>,
}

impl Server {
    /// Returns an observer of the server, which other parts of the program can keep.
    #[must_use]
    pub fn observer(&self) -> ServerObserver {
        ServerObserver {
            stats: Arc::clone(&self.inner.stats),
            inner: Arc::downgrade(&self.inner),
        }
    }
}

impl ServerObserver {
    /// Returns what the server has counted, see [`Server::stats`].
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        match self.inner.upgrade() {
            Some(inner) => inner.stats(),
            None => self.stats.snapshot(Connections::default()),
        }
    }

    /// Returns the last calls that failed or were slow, the latest first: at most
    /// [`MAX_RECENT_CALLS`](crate::stats::MAX_RECENT_CALLS). Calls that were rejected before they
    /// ran, and those whose callers went away, are not among them. A handler that is ready at once
    /// is never slow.
    #[must_use]
    pub fn recent_calls(&self) -> Vec<RecentCall> {
        self.stats.notable().list()
    }

    /// Sets the time from which a call that succeeds is slow. Default: 1 s; at least 1 ms.
    pub fn set_slow_call(&self, slow: Duration) {
        self.stats.notable().set_slow(slow);
    }
}
