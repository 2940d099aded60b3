//! The calls of a client for those who watch it.

use std::time::Duration;

use super::Client;
use crate::error::CallError;
use crate::stats::RecentCall;

impl Client {
    /// Returns the last calls that failed or were slow, the latest first: at most
    /// [`MAX_RECENT_CALLS`](crate::stats::MAX_RECENT_CALLS). Only typed calls without streams, and
    /// those of [`request`](Self::request), are among them.
    #[must_use]
    pub fn recent_calls(&self) -> Vec<RecentCall> {
        self.registry().notable().list()
    }

    /// Sets the time from which a call that succeeds is slow. Default: 1 s; at least 1 ms.
    pub fn set_slow_call(&self, slow: Duration) {
        self.registry().notable().set_slow(slow);
    }

    /// Remembers a raw call that failed.
    #[cold]
    pub(super) fn record_failure(&self, path: &str, error: CallError) -> CallError {
        let phases = error.phases();
        let mut call = RecentCall::new(path, error.kind().status_code(), phases.total());
        call.peer = error.tried().last().map(|tried| tried.endpoint.to_string());
        call.message = error.kind().to_string();
        call.set_phases(&phases);
        self.record_call(call);
        error
    }

    /// Remembers a call that failed or was slow.
    #[doc(hidden)]
    #[cold]
    pub fn record_call(&self, call: RecentCall) {
        self.registry().notable().add(call);
    }
}
