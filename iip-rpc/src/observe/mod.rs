//! Observability: metrics per method, and a span per call. Both are interceptors, for clients and
//! servers.
//!
//! | you want | add |
//! |---|---|
//! | metrics recorded by your own code | [`MetricsInterceptor`] with your own [`Recorder`] |
//! | metrics through the `metrics` crate | `MetricsInterceptor::new(MetricsFacade::new())` (feature `metrics`) |
//! | spans of the `tracing` crate, with W3C trace context | `TracingInterceptor::new()` (feature `tracing`) |
//!
//! Names are those of OpenTelemetry's conventions for RPC.
//!
//! ```
//! use std::time::Duration;
//! use iip_rpc::observe::{MetricsInterceptor, Recorder, Side};
//! use iip_rpc::{Code, MethodDescriptor, Server};
//!
//! struct Print;
//!
//! impl Recorder for Print {
//!     fn call_ended(
//!         &self,
//!         _: Side,
//!         method: &'static MethodDescriptor,
//!         code: Code,
//!         took: Duration,
//!     ) {
//!         println!("{method}: {code} after {took:?}");
//!     }
//! }
//!
//! let server = Server::builder().interceptor(MetricsInterceptor::new(Print));
//! ```

#[cfg(any(feature = "metrics", feature = "tracing"))]
mod address;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "tracing")]
mod spans;

use std::fmt;
use std::time::{Duration, Instant};

use iip_core::__rpc::now;
use iip_core::balance::BackendInfo;

#[cfg(feature = "metrics")]
pub use self::facade::MetricsFacade;
#[cfg(feature = "metrics")]
pub(crate) use self::facade::count_codec_fallback;
#[cfg(feature = "tracing")]
pub(crate) use self::spans::in_span;
#[cfg(feature = "tracing")]
pub use self::spans::{TraceContext, TracingInterceptor};
use crate::interceptor::{
    CalledBackend, ClientCall, ClientInterceptor, Completion, Next, ServerCall, ServerInterceptor,
};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::status::{Code, Status};

/// The side that saw a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The side that made it.
    Client,
    /// The side that ran it.
    Server,
}

/// Writes `client` or `server`.
impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Records metrics of calls, see [`MetricsInterceptor`]. It runs in the path of the call, so it
/// should be quick and must not block.
pub trait Recorder: Send + Sync + 'static {
    /// Called when a call begins. Every call that begins also ends. Does nothing by default.
    fn call_started(&self, side: Side, method: &'static MethodDescriptor) {
        let _ = (side, method);
    }

    /// Called when a call has ended after `took`; a call with streams ends when they have ended.
    ///
    /// `code` is that of the status; [`Code::Unknown`] for the method's own error;
    /// [`Code::Cancelled`] for a call that was cancelled.
    fn call_ended(&self, side: Side, method: &'static MethodDescriptor, code: Code, took: Duration);

    /// Called when a call has ended, with the backend it was sent to: that of the last attempt, or
    /// of the one whose reply counts if the call was hedged. `None` at a server, at a client with a
    /// single address, and if no backend was found.
    ///
    /// Calls [`call_ended`](Self::call_ended) by default; an implementation replaces that call.
    fn call_ended_on(
        &self,
        side: Side,
        method: &'static MethodDescriptor,
        code: Code,
        took: Duration,
        backend: Option<&BackendInfo>,
    ) {
        let _ = backend;
        self.call_ended(side, method, code, took);
    }

    /// Returns `true` if the metrics are currently not used. Calls that begin in the meantime are
    /// not reported. Called before each call, so it should take no time. Default: `false`.
    fn is_idle(&self) -> bool {
        false
    }
}

/// An interceptor of either side that reports every call it sees to a [`Recorder`].
///
/// Its position among other interceptors determines what it sees: as the first one it also counts
/// the calls that they reject.
#[derive(Debug, Clone)]
pub struct MetricsInterceptor<R>(R);

impl<R: Recorder> MetricsInterceptor<R> {
    /// Reports calls to `recorder`.
    #[must_use]
    pub fn new(recorder: R) -> Self {
        Self(recorder)
    }

    fn begin(
        &self,
        side: Side,
        method: &'static MethodDescriptor,
        called: CalledBackend,
    ) -> Running<'_, R> {
        self.0.call_started(side, method);
        Running {
            recorder: &self.0,
            side,
            method,
            called,
            started: now(),
            code: Code::Cancelled,
        }
    }
}

impl<R: Recorder> ServerInterceptor for MetricsInterceptor<R> {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        let mut running = self.begin(Side::Server, call.method(), CalledBackend::default());
        let reply = next.run(call).await;
        running.code = reply.outcome().code();
        Ok(reply)
    }

    fn is_idle(&self, _: &Metadata) -> bool {
        self.0.is_idle()
    }
}

impl<R: Recorder> ClientInterceptor for MetricsInterceptor<R> {
    async fn intercept(
        &self,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        let mut running = self.begin(Side::Client, call.method(), call.called());
        let reply = next.run(call).await;
        running.code = reply.outcome().code();
        Ok(reply)
    }

    fn is_idle(&self, _: &Metadata) -> bool {
        self.0.is_idle()
    }
}

/// A call that has begun; dropping it reports its end, also when it was cancelled.
struct Running<'a, R: Recorder> {
    recorder: &'a R,
    side: Side,
    method: &'static MethodDescriptor,
    called: CalledBackend,
    started: Instant,
    code: Code,
}

impl<R: Recorder> Drop for Running<'_, R> {
    fn drop(&mut self) {
        let took = now().saturating_duration_since(self.started);
        let backend = self.called.get();
        self.recorder
            .call_ended_on(self.side, self.method, self.code, took, backend.as_deref());
    }
}
