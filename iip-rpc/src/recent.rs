//! Records of calls that failed or were slow. Calls that did neither do not come here.

use std::time::{Duration, Instant};

use iip_core::__rpc::now;
use iip_core::stats::{RecentCall, may_be_slow};

use crate::context::CallContext;
use crate::envelope::ServerTiming;
use crate::interceptor::Outcome;
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::status::Status;

/// The metadata that names the trace of a call, as W3C defines it.
const TRACEPARENT: &str = "traceparent";

impl ServerTiming {
    /// Returns `true` if a call with these times may be slow.
    #[inline]
    pub(crate) fn may_be_slow(&self) -> bool {
        may_be_slow(self.queue) || may_be_slow(self.handler)
    }

    fn phases(&self) -> [(&'static str, Duration); 2] {
        [("queue", self.queue), ("handler", self.handler)]
    }
}

/// Records a call at a server, which was received at a time and waited for its turn.
#[cold]
pub(crate) fn at_server(ctx: &CallContext, outcome: &Outcome, received: Instant, waited: Duration) {
    let (Some(method), Some(peer)) = (ctx.method(), ctx.peer()) else {
        return;
    };
    let code = outcome.code().as_u8();
    let mut call = RecentCall::at_server(method.path(), code, received, waited);
    call.trace = trace(ctx.metadata());
    call.message = match outcome {
        Outcome::Ok => String::new(),
        Outcome::Error(text) => text.clone(),
        Outcome::Status(status) => status.message().to_owned(),
    };
    peer.record_call(call);
}

/// Records a call that failed at a client.
#[cold]
pub(crate) fn failed_at_client(
    client: &iip_core::Client,
    method: &MethodDescriptor,
    metadata: &Metadata,
    status: &Status,
    started: Instant,
) {
    let took = now().saturating_duration_since(started);
    let mut call = RecentCall::new(method.path(), status.code().as_u8(), took);
    call.trace = trace(metadata);
    call.message = status.message().to_owned();
    if let Some(phases) = status.phases() {
        call.set_phases(phases);
    }
    client.record_call(call);
}

/// Records a call at a client whose server has taken long.
#[cold]
pub(crate) fn slow_at_client(
    client: &iip_core::Client,
    method: &MethodDescriptor,
    metadata: &Metadata,
    timing: &ServerTiming,
    started: Instant,
) {
    let took = now().saturating_duration_since(started);
    let mut call = RecentCall::new(method.path(), 0, took);
    call.trace = trace(metadata);
    call.phases.extend(timing.phases());
    client.record_call(call);
}

/// Returns the id of the trace, if it has the form that W3C defines.
fn trace(metadata: &Metadata) -> Option<String> {
    let value = std::str::from_utf8(metadata.get(TRACEPARENT)?).ok()?;
    let id = value.split('-').nth(1)?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}
