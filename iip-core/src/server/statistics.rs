//! The paths on which a Go server tells its statistics, and one that tells everything.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, OnceLock, Weak};

use serde::Serialize;

use super::Inner;
use crate::connection::Peer;
use crate::handler::{Handler, HandlerFuture, Request, Response};
use crate::handler_error::HandlerError;
use crate::proto::control;
use crate::stats::go::{
    CONNECTION_STATIS, ConnectionStatis, PATH_COUNT, PATH_MEASURE, PATHS, SERVER_COUNT,
    SERVER_MEASURE, unit_of,
};
use crate::stats::json::SNAPSHOT;
use crate::stats::{MAX_LISTED_CONNECTIONS, PERMISSION_DENIED};

/// The statistics of a server, and the check of those who read them.
pub(super) struct Statistics {
    may_read: Box<dyn Fn(&Peer) -> bool + Send + Sync>,
    inner: OnceLock<Weak<Inner>>,
}

impl Statistics {
    pub(super) fn new(may_read: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            may_read: Box::new(may_read),
            inner: OnceLock::new(),
        })
    }

    /// Sets the server, once.
    pub(super) fn begin(&self, inner: &Arc<Inner>) {
        let _ = self.inner.set(Arc::downgrade(inner));
    }

    /// Returns the handlers, by their paths.
    pub(super) fn handlers(self: &Arc<Self>) -> impl Iterator<Item = (&'static str, PathHandler)> {
        PATHS.into_iter().chain([SNAPSHOT]).map(|path| {
            let statistics = Arc::clone(self);
            (path, PathHandler { path, statistics })
        })
    }

    fn reply(&self, path: &str, request: &Request) -> Result<Response, HandlerError> {
        if !(self.may_read)(request.peer()) {
            // As if there were no such path.
            let response = Response::from(control::NO_HANDLER);
            return Ok(response.with_status_code(PERMISSION_DENIED));
        }
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else {
            return Err(HandlerError::new("the server has ended"));
        };
        // Everything that connections have counted is added to the counters first.
        let connections = inner.connection_stats();
        let stats = &inner.stats;
        let asked = Some(&request.body()[..]);
        let reply = match path {
            SERVER_COUNT => stats.go_count(None).and_then(|count| json(&count)),
            SERVER_MEASURE => stats.go_measure(None),
            PATH_COUNT => stats.go_count(asked).and_then(|count| json(&count)),
            PATH_MEASURE => stats.go_measure(asked),
            CONNECTION_STATIS => json(&inner.connection_statis()),
            SNAPSHOT => {
                let calls = stats.notable().list();
                stats
                    .snapshot(connections)
                    .to_json(&calls, inner.is_ready())
            }
            _ => stats.go_report(unit_of(request.body())),
        };
        match reply {
            Some(reply) => Ok(reply.into()),
            // Source: recording `sys_path_count`.
            None => Err(HandlerError::new(format!("path [{path}] not support")).already_logged()),
        }
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").finish_non_exhaustive()
    }
}

/// The handler of one path.
pub(super) struct PathHandler {
    path: &'static str,
    statistics: Arc<Statistics>,
}

impl Handler for PathHandler {
    fn call(&self, request: Request) -> HandlerFuture {
        Box::pin(ready(self.statistics.reply(self.path, &request)))
    }
}

impl Inner {
    fn connection_statis(&self) -> ConnectionStatis {
        let mut connections = BTreeMap::new();
        for shared in self.all_shared().into_iter().take(MAX_LISTED_CONNECTIONS) {
            if let (Some(peer), Some(count)) = (shared.peer.addr(), shared.lock().proto.frames()) {
                connections.insert(peer.to_string(), count);
            }
        }
        connections
    }
}

fn json(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}
