//! Interceptors: code that sees every call before it is sent or run, and its outcome.
//!
//! An interceptor gets the call and the rest of the chain, [`Next`]. It passes the call on with
//! [`Next::run`], which completes when the call has ended (for a stream, after its last message).
//! To reject the call, it returns a [`Status`] instead; then the rest of the chain does not run.
//!
//! ```
//! use std::time::Instant;
//! use iip_rpc::interceptor::{Completion, Next, ServerCall, ServerInterceptor};
//! use iip_rpc::Status;
//!
//! struct Log;
//!
//! impl ServerInterceptor for Log {
//!     async fn intercept(
//!         &self,
//!         call: ServerCall,
//!         next: Next<ServerCall>,
//!     ) -> Result<Completion, Status> {
//!         let (method, start) = (call.method(), Instant::now());
//!         let reply = next.run(call).await;
//!         println!("{method}: {} in {:?}", reply.outcome(), start.elapsed());
//!         Ok(reply)
//!     }
//! }
//! ```
//!
//! The interceptor that was added first is the outermost one: it sees a call first, and its outcome
//! last. Those of a server come before those of a service ([`Intercepted`]).
//!
//! At a server, interceptors see the calls of methods with their metadata, before the arguments are
//! decoded. They do not see calls that are rejected earlier: at capacity (`max_concurrency`), after
//! the deadline, or because the request cannot be read; nor do they see raw routes. At a client
//! they see a call once, like its caller, no matter how often it is retried or hedged.
//!
//! # Cancel safety
//!
//! When a call is cancelled, the futures of its interceptors are dropped at their current `await`:
//! at a client together with the call's future or stream; at a server when the caller has gone,
//! unless the method's `on_cancel` says otherwise, and when the handler panics. Put cleanup that
//! has to happen in any case into the `Drop` implementation of a value.
//!
//! The deadline of a call also applies to its interceptors. If it passes before an interceptor has
//! passed the call on, the call fails with DEADLINE_EXCEEDED. If it passes after the call has
//! ended, an interceptor that still runs is dropped, and the call keeps its outcome.

mod called;
mod chain;
mod intercepted;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iip_core::__rpc::now;
use iip_core::Peer;

pub use self::called::CalledBackend;
pub use self::chain::Next;
pub(crate) use self::chain::{InterceptorChain, Layer, Layers};
pub use self::intercepted::Intercepted;
use crate::boxed::BoxFuture;
use crate::context::CallContext;
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::status::{Code, MethodError, Status};

/// Sees the calls of a server or of one service, see the [module](self).
///
/// Added with [`ServerBuilder::interceptor`](crate::ServerBuilder::interceptor) or
/// [`Intercepted::new`].
pub trait ServerInterceptor: Send + Sync + 'static {
    /// Handles one call: lets it through, or replies to it.
    ///
    /// # Errors
    ///
    /// The status with which the call fails. If it was not let through, the caller sees it as not
    /// executed.
    fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> impl Future<Output = Result<Completion, Status>> + Send;

    /// Returns `true` if the interceptor would currently let a call with this metadata through and
    /// do nothing else. Called before each call, so it should take no time. While all interceptors
    /// are idle, they add no cost to a call. Default: `false`.
    fn is_idle(&self, metadata: &Metadata) -> bool {
        let _ = metadata;
        false
    }
}

/// Sees the calls of a client, see the [module](self).
///
/// Added with [`ClientBuilder::interceptor`](crate::ClientBuilder::interceptor) or
/// [`Client::with_interceptor`](crate::Client::with_interceptor).
pub trait ClientInterceptor: Send + Sync + 'static {
    /// Handles one call: lets it through, or fails it.
    ///
    /// # Errors
    ///
    /// The status with which the call fails. If it was not let through, its caller sees it as not
    /// sent.
    fn intercept(
        &self,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> impl Future<Output = Result<Completion, Status>> + Send;

    /// Returns `true` if the interceptor would currently let a call with this metadata through and
    /// do nothing else, like [`ServerInterceptor::is_idle`]. It is not called for calls that carry
    /// metadata in addition to that of the client.
    fn is_idle(&self, metadata: &Metadata) -> bool {
        let _ = metadata;
        false
    }
}

/// A call that a server is about to run.
#[derive(Clone, Debug)]
pub struct ServerCall {
    method: &'static MethodDescriptor,
    ctx: CallContext,
}

impl ServerCall {
    pub(crate) fn new(method: &'static MethodDescriptor, ctx: CallContext) -> Self {
        Self { method, ctx }
    }

    /// Returns the method that is called, with the settings from its attributes.
    #[must_use]
    pub fn method(&self) -> &'static MethodDescriptor {
        self.method
    }

    /// Returns the metadata that the caller sent; empty if it speaks plain JSON or raw bytes.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        self.ctx.metadata()
    }

    /// Returns the caller: its address and verified certificates.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.ctx.peer()
    }

    /// Returns the time at which the caller stops waiting; `None` if it did not give one.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.ctx.deadline()
    }

    /// Returns the value of this type that an earlier interceptor has inserted.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.ctx.extension()
    }

    /// Passes `value` to the later interceptors and to the handler, which find it by its type with
    /// [`CallContext::extension`]. Returns the value of this type that it replaces.
    pub fn insert_extension<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.ctx.insert_extension(value)
    }

    /// Returns the context that the handler will see. Metadata for the reply can be set here until
    /// the handler ends.
    #[must_use]
    pub fn context(&self) -> &CallContext {
        &self.ctx
    }
}

/// A call that a client is about to make.
#[derive(Clone, Debug)]
pub struct ClientCall {
    method: &'static MethodDescriptor,
    metadata: Metadata,
    ctx: CallContext,
    called: CalledBackend,
}

impl ClientCall {
    pub(crate) fn new(
        method: &'static MethodDescriptor,
        metadata: Metadata,
        ctx: CallContext,
        called: CalledBackend,
    ) -> Self {
        Self {
            method,
            metadata,
            ctx,
            called,
        }
    }

    /// Returns the method that is called, with the settings from its attributes.
    #[must_use]
    pub fn method(&self) -> &'static MethodDescriptor {
        self.method
    }

    /// Returns the metadata to send: from the client's options, and from earlier interceptors.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the metadata to send, for changes. Methods with raw bytes or plain JSON send none.
    #[must_use]
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Returns the time at which the call fails without a reply; `None` for a call with streams
    /// that has no deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.ctx.deadline()
    }

    /// Returns the time left until the deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_duration_since(now()))
    }

    /// Returns the value of this type that an earlier interceptor has inserted, or that is in the
    /// context the call is made with.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.ctx.extension()
    }

    /// Passes `value` to the later interceptors, which find it by its type; it is not sent. Returns
    /// the value of this type that it replaces.
    pub fn insert_extension<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.ctx.insert_extension(value)
    }

    /// Returns a handle to the backend that the call is sent to, which is known once the call was
    /// passed on.
    #[must_use]
    pub fn called(&self) -> CalledBackend {
        self.called.clone()
    }

    /// Returns the metadata to send, and the context to make the call in.
    pub(crate) fn into_parts(self) -> (Metadata, CallContext) {
        (self.metadata, self.ctx)
    }
}

/// Proof that a call went through, with its outcome. [`Next::run`] returns it, and an interceptor
/// returns it in turn.
#[derive(Debug)]
#[must_use = "an interceptor gives it back"]
pub struct Completion {
    outcome: Outcome,
    /// Set if the outcome is that of the call: no interceptor has replied in its place.
    passed: bool,
}

impl Completion {
    fn of(outcome: Outcome, passed: bool) -> Self {
        Self { outcome, passed }
    }

    /// Returns a copy for the same call.
    #[cfg(feature = "tower")]
    pub(crate) fn copy(&self) -> Self {
        Self::of(self.outcome.clone(), self.passed)
    }

    /// Returns the outcome of the call.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A value, or the end of the stream.
    Ok,
    /// The method's own error, as text.
    Error(String),
    /// A status.
    Status(Status),
}

impl Outcome {
    pub(crate) fn of_error<E: MethodError>(error: &E) -> Self {
        match error.as_status() {
            Some(status) => Self::Status(status.clone()),
            None => Self::Error(error.to_string()),
        }
    }

    /// Returns `true` if the call succeeded.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok)
    }

    /// Returns the status, if the call ended with one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            Self::Ok | Self::Error(_) => None,
        }
    }

    /// Returns the code: OK, that of the status, or UNKNOWN for the method's own error, as plain
    /// peers see it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Ok => Code::Ok,
            Self::Error(_) => Code::Unknown,
            Self::Status(status) => status.code(),
        }
    }
}

/// Writes `ok`, or the text of the error.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Error(text) => f.write_str(text),
            Self::Status(status) => status.fmt(f),
        }
    }
}

/// Implements [`Layer`] for the interceptors of a side.
macro_rules! layers {
    ($($interceptor:ident $call:ident)*) => { $(
        impl<I: $interceptor> Layer<$call> for I {
            fn intercept(
                self: Arc<Self>,
                call: $call,
                next: Next<$call>,
            ) -> BoxFuture<'static, Result<Completion, Status>> {
                Box::pin(async move { $interceptor::intercept(&*self, call, next).await })
            }

            fn is_idle(&self, metadata: &Metadata) -> bool {
                $interceptor::is_idle(self, metadata)
            }
        }
    )* };
}

layers! {
    ServerInterceptor ServerCall
    ClientInterceptor ClientCall
}
