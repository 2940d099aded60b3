//! Code that sees every call: before it is made or run, and how it ended.
//!
//! An interceptor gets the call and what comes [`Next`]. It lets the call through with
//! [`Next::run`], which is ready when the call has ended, of a stream when its last message is
//! through; or it answers by itself with a [`Status`], and what is behind it does not run.
//!
//! ```
//! use std::time::Instant;
//! use iip_rpc::interceptor::{Completion, Next, ServerCall, ServerInterceptor};
//! use iip_rpc::Status;
//!
//! struct Log;
//!
//! impl ServerInterceptor for Log {
//!     async fn intercept(&self, call: ServerCall, next: Next<ServerCall>) -> Result<Completion, Status> {
//!         let (method, start) = (call.method(), Instant::now());
//!         let reply = next.run(call).await;
//!         println!("{method}: {} in {:?}", reply.outcome(), start.elapsed());
//!         Ok(reply)
//!     }
//! }
//! ```
//!
//! The first interceptor that was added is the outermost one: it sees a call first, and its end
//! last. Those of a server come before those of a service ([`Intercepted`]).
//!
//! At a server, interceptors see the calls of methods with their metadata, before the arguments are
//! decoded. They do not see what is refused before: for want of room (`max_concurrency`), after its
//! deadline, or because it cannot be read; nor raw routes. At a client they see a call as its
//! caller does: once, however often it is made again or hedged.
//!
//! # Cancel safety
//!
//! When a call is given up, the futures of its interceptors are dropped where they wait: at a
//! client with the call's future or stream; at a server when the caller has gone, unless the
//! method's `on_cancel` says otherwise, and when the handler panics. What has to happen in any case
//! belongs into a value with a `Drop`.
//!
//! The time of a call bounds its interceptors as well: before the call is let through, they are
//! stopped at its deadline, and it fails with DEADLINE_EXCEEDED. One that still waits for something
//! of its own after the call's end, when its deadline is over, is dropped, and the call has the
//! outcome it had.

mod chain;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iip_core::Peer;

pub use self::chain::Next;
pub(crate) use self::chain::{InterceptorChain, Layer, Layers};
use crate::__private::BoxFuture;
use crate::context::{CallContext, now};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::server::{Methods, Service};
use crate::status::{Code, MethodError, Status};

/// Sees the calls of a server, or of one service, see the [module](self).
///
/// Added with [`ServerBuilder::interceptor`](crate::ServerBuilder::interceptor) or
/// [`Intercepted::new`].
pub trait ServerInterceptor: Send + Sync + 'static {
    /// Handles one call: lets it through, or answers it.
    ///
    /// # Errors
    ///
    /// The status with which the call is answered. If it was not let through, the caller reads it
    /// as not executed.
    fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> impl Future<Output = Result<Completion, Status>> + Send;

    /// Would it let a call with this metadata through at the moment, and do nothing else? Asked
    /// before each call, so it should take no time. While all interceptors are idle, a call costs
    /// what it costs without them. Default: no.
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
    /// The status with which the call fails. If it was not let through, its caller reads it as not
    /// sent.
    fn intercept(
        &self,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> impl Future<Output = Result<Completion, Status>> + Send;

    /// Would it let a call with this metadata through at the moment, and do nothing else? As
    /// [`ServerInterceptor::is_idle`]. Calls with metadata of their own, beside those of the
    /// client, are not asked about.
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

    /// The method that is called, with what its attributes say.
    #[must_use]
    pub fn method(&self) -> &'static MethodDescriptor {
        self.method
    }

    /// What the caller sent beside the arguments; nothing, if it speaks plain JSON or raw bytes.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        self.ctx.metadata()
    }

    /// Who calls: address and verified certificates.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.ctx.peer()
    }

    /// When the caller stops waiting; `None` if it did not say.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.ctx.deadline()
    }

    /// The value of this type that an interceptor before this one has put in.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.ctx.extension()
    }

    /// Hands `value` to the interceptors behind this one and to the handler, which find it by its
    /// type with [`CallContext::extension`]. Returns the value of this type that it replaces.
    pub fn insert_extension<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.ctx.insert_extension(value)
    }

    /// The context that the handler will see. Metadata for the answer can be set here, until the
    /// handler ends.
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
}

impl ClientCall {
    pub(crate) fn new(
        method: &'static MethodDescriptor,
        metadata: Metadata,
        ctx: CallContext,
    ) -> Self {
        Self {
            method,
            metadata,
            ctx,
        }
    }

    /// The method that is called, with what its attributes say.
    #[must_use]
    pub fn method(&self) -> &'static MethodDescriptor {
        self.method
    }

    /// What is sent beside the arguments: of the client's options, of the context the call is made
    /// with, and of the interceptors before this one.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What is sent beside the arguments, to change it. Methods with raw bytes or plain JSON send
    /// none.
    #[must_use]
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// When the call fails for want of an answer; `None` for a call with streams that has no limit.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.ctx.deadline()
    }

    /// How much time is left until the deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_duration_since(now()))
    }

    /// The value of this type that an interceptor before this one has put in, or the context that
    /// the call is made with has.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.ctx.extension()
    }

    /// Hands `value` to the interceptors behind this one, which find it by its type; it is not
    /// sent. Returns the value of this type that it replaces.
    pub fn insert_extension<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.ctx.insert_extension(value)
    }

    pub(crate) fn into_context(self) -> CallContext {
        self.ctx.with_metadata(self.metadata)
    }
}

/// That a call has been through, and how it ended. Comes from [`Next::run`]; an interceptor gives
/// it back.
#[derive(Debug)]
#[must_use = "an interceptor gives it back"]
pub struct Completion {
    outcome: Outcome,
    /// It is the call's own: no interceptor has answered in its place.
    passed: bool,
}

impl Completion {
    fn of(outcome: Outcome, passed: bool) -> Self {
        Self { outcome, passed }
    }

    /// Another of the same call.
    #[cfg(feature = "tower")]
    pub(crate) fn copy(&self) -> Self {
        Self::of(self.outcome.clone(), self.passed)
    }

    /// How the call ended.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// With a value, or with the end of its stream.
    Ok,
    /// With the method's own error; this is its text.
    Error(String),
    /// With a status.
    Status(Status),
}

impl Outcome {
    pub(crate) fn of<T, E: MethodError>(result: &Result<T, E>) -> Self {
        result.as_ref().map_or_else(Self::of_error, |_| Self::Ok)
    }

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

    /// The status, if the call ended with one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            Self::Ok | Self::Error(_) => None,
        }
    }

    /// The code: OK, that of the status, and UNKNOWN for the method's own error, as plain peers
    /// read it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Ok => Code::Ok,
            Self::Error(_) => Code::Unknown,
            Self::Status(status) => status.code(),
        }
    }
}

/// `ok`, or the text of the error.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Error(text) => f.write_str(text),
            Self::Status(status) => status.fmt(f),
        }
    }
}

/// A service with an interceptor of its own, behind those of the server.
///
/// ```
/// # use iip_rpc::interceptor::{Completion, Intercepted, Next, ServerCall, ServerInterceptor};
/// # use iip_rpc::{Server, Status, service};
/// # #[service]
/// # pub trait Admin { async fn stop(&self) -> Result<(), Status>; }
/// # struct Here;
/// # impl Admin for Here { async fn stop(&self) -> Result<(), Status> { Ok(()) } }
/// struct Closed;
///
/// impl ServerInterceptor for Closed {
///     async fn intercept(&self, _: ServerCall, _: Next<ServerCall>) -> Result<Completion, Status> {
///         Err(Status::permission_denied("not here"))
///     }
/// }
///
/// let server = Server::builder().service(Intercepted::new(AdminServer::new(Here), Closed));
/// ```
///
/// To add several, wrap again: the outermost one sees a call first.
#[derive(Debug)]
pub struct Intercepted<S, I> {
    service: S,
    interceptor: I,
}

impl<S, I> Intercepted<S, I> {
    /// `service`, with its calls seen by `interceptor`.
    #[must_use]
    pub fn new(service: S, interceptor: I) -> Self {
        Self {
            service,
            interceptor,
        }
    }
}

impl<S: Service, I: ServerInterceptor> Service for Intercepted<S, I> {
    fn register(self, methods: &mut Methods) {
        methods.within(at_server(self.interceptor), |methods| {
            self.service.register(methods);
        });
    }
}

/// A server's interceptor as an object.
pub(crate) fn at_server(interceptor: impl ServerInterceptor) -> Arc<dyn Layer<ServerCall>> {
    Arc::new(AtServer(interceptor))
}

/// A client's interceptor as an object.
pub(crate) fn at_client(interceptor: impl ClientInterceptor) -> Arc<dyn Layer<ClientCall>> {
    Arc::new(AtClient(interceptor))
}

struct AtServer<I>(I);

impl<I: ServerInterceptor> Layer<ServerCall> for AtServer<I> {
    fn intercept(
        self: Arc<Self>,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> BoxFuture<'static, Result<Completion, Status>> {
        Box::pin(async move { self.0.intercept(call, next).await })
    }

    fn is_idle(&self, metadata: &Metadata) -> bool {
        self.0.is_idle(metadata)
    }
}

struct AtClient<I>(I);

impl<I: ClientInterceptor> Layer<ClientCall> for AtClient<I> {
    fn intercept(
        self: Arc<Self>,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> BoxFuture<'static, Result<Completion, Status>> {
        Box::pin(async move { self.0.intercept(call, next).await })
    }

    fn is_idle(&self, metadata: &Metadata) -> bool {
        self.0.is_idle(metadata)
    }
}
