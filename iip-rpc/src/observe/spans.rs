//! Spans of the `tracing` crate, and the W3C trace context that connects those of both sides.

use std::fmt;
use std::future::Future;

use iip_core::__rpc::{random_id, random_wide_id};
use iip_core::stats::names;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

use super::address::{SERVER_ADDRESS, SERVER_PORT, address_and_port};
use crate::context::CallContext;
use crate::interceptor::{
    CalledBackend, ClientCall, ClientInterceptor, Completion, Next, Outcome, ServerCall,
    ServerInterceptor,
};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::status::{Code, Status};

/// Metadata key of the trace context.
const TRACEPARENT: &str = "traceparent";

/// The position of a call in a trace, as in W3C's `traceparent`: the trace, the span of the caller,
/// and whether the trace is recorded.
///
/// In a handler that runs after [`TracingInterceptor`], [`CallContext::extension`] returns that of
/// the call, for example to attach an exporter.
///
/// Needs the feature `tracing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// Begins a trace with random ids, which is sampled.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            trace: random_wide_id(),
            span: random_id(),
            flags: 1,
        }
    }

    /// Returns a new span of the same trace.
    fn child(self) -> Self {
        Self {
            span: random_id(),
            ..self
        }
    }

    /// Parses the value of `traceparent`; `None` if the recommendation does not allow it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |part: &str| {
            part.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        let has_more = parts.next().is_some();
        let lengths = [version, trace, span, flags].map(str::len);
        let fits =
            lengths == [2, 32, 16, 2] && [version, trace, span, flags].into_iter().all(is_hex);
        // Later versions may append fields, version 00 may not, and ff is not a version.
        if !fits || version == "ff" || (version == "00" && has_more) {
            return None;
        }
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// Returns the trace: 16 bytes, not 0.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        self.trace
    }

    /// Returns the span: 8 bytes, not 0.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.span
    }

    /// Returns `true` if the service that began the trace samples it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    fn of(metadata: &Metadata) -> Option<Self> {
        metadata.text(TRACEPARENT).and_then(Self::parse)
    }
}

/// Writes the value of `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the flags, only this one has a meaning in version 00.
        let flags = self.flags & 1;
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// An interceptor of either side that opens a span for every call it sees.
///
/// The span is named `rpc`, has the target `iip::client` or `iip::server` and the level INFO, and
/// lasts until the call has ended, for a method with streams until they have ended. A server's span
/// encloses the handler; a client's has the caller's span as its parent. Its fields have the names
/// of OpenTelemetry's conventions:
///
/// | field | value |
/// |---|---|
/// | `otel.name` | `Service/method` |
/// | `otel.kind` | `client` or `server` |
/// | `rpc.system.name` | `iip` |
/// | `rpc.method` | `Service/method` |
/// | `rpc.response.status_code` | set when the call has ended: `OK`, `NOT_FOUND`, ...; `CANCELLED` if it was cancelled |
/// | `error.type` | the same, if the call failed |
/// | `otel.status_code` | `ERROR` if the call failed, at a server only if that is the server's fault |
/// | `server.address`, `server.port` | at a client that balances its calls: host and port of the backend, set when the call has ended; for a Unix socket, the path and no port |
/// | `iip.backend.id` | at a client that balances its calls: the id of the backend, set when the call has ended |
/// | `trace_id`, `span_id` | as in `traceparent` |
///
/// The backend is that of the last attempt, or of the one whose reply counts if the call was
/// hedged. A client with a single address sets none.
///
/// The trace is sent as W3C's `traceparent` in the metadata: a client continues the trace that is
/// already in the metadata, or that of the call being handled, or begins one; a server continues
/// it, and passes it to the handler as a [`TraceContext`]. Methods with raw bytes or plain JSON do
/// not carry it.
///
/// While no subscriber takes spans of the level INFO, a trace that has begun is continued, and none
/// is begun: it adds no cost to other calls.
///
/// Needs the feature `tracing`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TracingInterceptor;

impl TracingInterceptor {
    /// Creates an interceptor that opens a span for every call.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

/// Returns `true` if no subscriber of this process takes spans of the level INFO.
fn nobody_listens() -> bool {
    LevelFilter::current() < LevelFilter::INFO
}

macro_rules! span {
    ($target:literal, $kind:literal, $method:expr, $context:expr $(, $later:literal)*) => {{
        let (method, context): (&MethodDescriptor, TraceContext) = ($method, $context);
        let name = method.rpc_method();
        tracing::info_span!(
            target: $target,
            "rpc",
            "otel.name" = name.as_str(),
            "otel.kind" = $kind,
            "otel.status_code" = Empty,
            { names::SYSTEM_NAME } = names::SYSTEM,
            { names::METHOD } = name.as_str(),
            { names::STATUS_CODE } = Empty,
            { names::ERROR_TYPE } = Empty,
            $($later = Empty,)*
            trace_id = format_args!("{:032x}", context.trace),
            span_id = format_args!("{:016x}", context.span),
        )
    }};
}

impl ServerInterceptor for TracingInterceptor {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        let caller = TraceContext::of(call.metadata());
        let context = caller.map_or_else(TraceContext::begin, TraceContext::child);
        call.insert_extension(context);
        let span = span!("iip::server", "server", call.method(), context);
        call.insert_extension(HandlerSpan(span.clone()));
        let ending = Ending::new(span, is_server_fault, CalledBackend::default());
        ending.run(next, call).await
    }

    fn is_idle(&self, metadata: &Metadata) -> bool {
        nobody_listens() && metadata.get(TRACEPARENT).is_none()
    }
}

impl ClientInterceptor for TracingInterceptor {
    async fn intercept(
        &self,
        mut call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        let handled = || {
            let context = CallContext::current()?.extension::<TraceContext>()?;
            Some(*context)
        };
        let parent = TraceContext::of(call.metadata()).or_else(handled);
        let context = parent.map_or_else(TraceContext::begin, TraceContext::child);
        let metadata = call.metadata_mut();
        metadata.insert_text(TRACEPARENT, &context.to_string())?;
        let span = span!(
            "iip::client",
            "client",
            call.method(),
            context,
            "server.address",
            "server.port",
            "iip.backend.id"
        );
        let ending = Ending::new(span, |_| true, call.called());
        ending.run(next, call).await
    }

    fn is_idle(&self, metadata: &Metadata) -> bool {
        let handled = || CallContext::current()?.extension::<TraceContext>();
        nobody_listens() && metadata.get(TRACEPARENT).is_none() && handled().is_none()
    }
}

/// Records the outcome of a call and its backend in its span, also when the call was cancelled.
struct Ending {
    span: Span,
    called: CalledBackend,
    code: Code,
    is_fault: bool,
    judge: fn(Code) -> bool,
}

impl Ending {
    fn new(span: Span, judge: fn(Code) -> bool, called: CalledBackend) -> Self {
        Self {
            span,
            called,
            code: Code::Cancelled,
            is_fault: judge(Code::Cancelled),
            judge,
        }
    }

    /// Runs the call in the span.
    async fn run<C: Send + 'static>(
        mut self,
        next: Next<C>,
        call: C,
    ) -> Result<Completion, Status> {
        let reply = next.run(call).instrument(self.span.clone()).await;
        let outcome = reply.outcome();
        self.code = outcome.code();
        // A method's own error is a reply that the method foresaw: only the caller may treat it as
        // a failure.
        self.is_fault = match outcome {
            Outcome::Ok => false,
            Outcome::Error(_) => (self.judge)(Code::InvalidArgument),
            Outcome::Status(status) => (self.judge)(status.code()),
        };
        Ok(reply)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (span, code) = (&self.span, self.code.name());
        span.record(names::STATUS_CODE, code);
        if self.is_fault {
            span.record(names::ERROR_TYPE, code);
            span.record("otel.status_code", "ERROR");
        }
        if let Some(backend) = self.called.get() {
            let (address, port) = address_and_port(&backend.endpoint);
            span.record(SERVER_ADDRESS, &*address);
            if let Some(port) = port {
                span.record(SERVER_PORT, port);
            }
            span.record("iip.backend.id", &*backend.id);
        }
    }
}

/// Returns `true` if `code` is the server's fault; a caller's mistakes are not errors at a server.
fn is_server_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The span that a handler runs in.
struct HandlerSpan(Span);

/// Runs a handler in the span of its call, if it has one.
pub(crate) async fn in_span<F: Future>(ctx: &CallContext, handler: F) -> F::Output {
    let span = ctx.extension::<HandlerSpan>();
    let span = span.map_or_else(Span::none, |span| span.0.clone());
    handler.instrument(span).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_and_written_as_w3c_defines_it() {
        let context = TraceContext::parse(TEXT).unwrap();
        assert_eq!(
            context.trace_id(),
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
        );
        assert_eq!(context.span_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), TEXT);
        let later = TEXT.replacen("00", "01", 1) + "-more";
        assert_eq!(TraceContext::parse(&later), Some(context));
        let child = context.child();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child.span_id(), context.span_id());
        let unsampled = TraceContext::parse(&TEXT.replace("-01", "-00")).unwrap();
        assert!(!unsampled.is_sampled());
    }

    #[test]
    fn an_invalid_context_is_ignored() {
        let zero_trace = TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = TEXT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let cases = [
            String::new(),
            TEXT[1..].to_owned(),
            TEXT.to_uppercase(),
            TEXT.replacen("00", "ff", 1),
            format!("{TEXT}-more"),
            TEXT.replace("4bf9", "+bf9"),
            zero_trace,
            zero_span,
        ];
        for case in cases {
            assert_eq!(TraceContext::parse(&case), None, "{case:?}");
        }
    }
}
