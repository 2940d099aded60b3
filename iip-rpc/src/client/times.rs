//! Deadlines of a call with streams: until it is accepted, and of the whole call.

use std::time::{Duration, Instant};

use iip_core::__rpc::{CallTimes, after, now};

use super::Client;
use crate::context::CallContext;
use crate::method::MethodDescriptor;

/// The deadlines of a call with streams.
pub(super) struct Times {
    /// Times of the phase until the call is accepted.
    pub(super) start: CallTimes,
    /// Deadline of the whole call, if it has one.
    pub(super) whole: Option<Instant>,
}

impl Times {
    pub(super) fn new(
        client: &Client,
        method: &MethodDescriptor,
        ctx: Option<&CallContext>,
    ) -> Self {
        let (start, _) = client.times(method, ctx);
        let policies = &client.settings.policies;
        let own = client.options.timeout.or_else(|| policies.timeout(method));
        let own = own.map(|own| after(start.started, own));
        let given = ctx.and_then(CallContext::deadline);
        let inherited = CallContext::current_deadline();
        Self {
            start,
            whole: own.into_iter().chain(given).chain(inherited).min(),
        }
    }

    /// Time that the whole call has left.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let whole = self.whole?;
        Some(whole.saturating_duration_since(self.start.connected))
    }

    pub(super) async fn pause(&mut self, pause: Duration) {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.start.connected = now();
    }
}
