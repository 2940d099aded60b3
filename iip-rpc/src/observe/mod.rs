//! What operators see of calls: figures per method, and spans. All of it is interceptors, on both
//! sides.
//!
//! | you want | add |
//! |---|---|
//! | figures, in your own way | [`MetricsInterceptor`] with a [`Recorder`] of yours |
//! | figures through the `metrics` crate | `MetricsInterceptor::new(MetricsFacade::new())` (feature `metrics`) |
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
//!     fn call_ended(&self, _: Side, method: &'static MethodDescriptor, code: Code, took: Duration) {
//!         println!("{method}: {code} after {took:?}");
//!     }
//! }
//!
//! let server = Server::builder().interceptor(MetricsInterceptor::new(Print));
//! ```

#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "tracing")]
mod spans;

use std::fmt;
use std::time::{Duration, Instant};

#[cfg(feature = "metrics")]
pub use self::facade::MetricsFacade;
#[cfg(feature = "tracing")]
pub(crate) use self::spans::in_span;
#[cfg(feature = "tracing")]
pub use self::spans::{TraceContext, TracingInterceptor};
use crate::context::now;
use crate::interceptor::{
    ClientCall, ClientInterceptor, Completion, Next, ServerCall, ServerInterceptor,
};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::status::{Code, Status};

/// Where a call was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// By the one who made it.
    Client,
    /// By the one who ran it.
    Server,
}

/// `client` or `server`.
impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Takes figures of calls, see [`MetricsInterceptor`]. Runs on the call's way: it should be quick
/// and must not block.
pub trait Recorder: Send + Sync + 'static {
    /// A call begins. Every one that begins also ends. Does nothing unless implemented.
    fn call_started(&self, side: Side, method: &'static MethodDescriptor) {
        let _ = (side, method);
    }

    /// A call has ended after `took`: of a method with streams, when they have ended.
    ///
    /// `code` is that of the status; [`Code::Unknown`] for the method's own error;
    /// [`Code::Cancelled`] for a call that was given up.
    fn call_ended(&self, side: Side, method: &'static MethodDescriptor, code: Code, took: Duration);

    /// Returns `true` if nobody takes its figures at the moment. Calls that begin meanwhile are not
    /// told. Asked before each call, so it should take no time. Default: no.
    fn is_idle(&self) -> bool {
        false
    }
}

/// An interceptor of either side that hands figures of every call it sees to a [`Recorder`].
///
/// Where it stands among other interceptors decides what it sees: as the first one it counts what
/// they refuse, too.
#[derive(Debug, Clone)]
pub struct MetricsInterceptor<R>(R);

impl<R: Recorder> MetricsInterceptor<R> {
    /// Hands figures to `recorder`.
    #[must_use]
    pub fn new(recorder: R) -> Self {
        Self(recorder)
    }

    fn begin(&self, side: Side, method: &'static MethodDescriptor) -> Running<'_, R> {
        self.0.call_started(side, method);
        Running {
            recorder: &self.0,
            side,
            method,
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
        let mut running = self.begin(Side::Server, call.method());
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
        let mut running = self.begin(Side::Client, call.method());
        let reply = next.run(call).await;
        running.code = reply.outcome().code();
        Ok(reply)
    }

    fn is_idle(&self, _: &Metadata) -> bool {
        self.0.is_idle()
    }
}

/// A call that was begun; it ends in any case, also when it is given up.
struct Running<'a, R: Recorder> {
    recorder: &'a R,
    side: Side,
    method: &'static MethodDescriptor,
    started: Instant,
    code: Code,
}

impl<R: Recorder> Drop for Running<'_, R> {
    fn drop(&mut self) {
        let took = now().saturating_duration_since(self.started);
        let (side, method) = (self.side, self.method);
        self.recorder.call_ended(side, method, self.code, took);
    }
}

/// The name of a method in OpenTelemetry's words.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn otel_method(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.service(), method.name())
}

/// What `rpc.system.name` says.
#[cfg(any(feature = "metrics", feature = "tracing"))]
const SYSTEM: &str = "iip";
