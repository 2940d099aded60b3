//! Support for the layers and services of `tower`, on both sides.
//!
//! | you have | you want | use |
//! |---|---|---|
//! | a layer, or a stack of layers | to run it on the calls of a server, a service or a client | [`LayerInterceptor`], which is an interceptor |
//! | an [interceptor](crate::interceptor) | to put it between the layers of such a stack | [`InterceptorLayer`] |
//! | a [`Client`](crate::Client) | to use it as a service of raw bytes in a balancer, a retry layer or a stack of your own | [`ClientService`] |
//! | a service | to serve a path with it | [`ServiceHandler`] |
//!
//! ```
//! use std::time::Duration;
//! use iip_rpc::tower::LayerInterceptor;
//! use iip_rpc::Server;
//! use tower::ServiceBuilder;
//!
//! let stack = ServiceBuilder::new()
//!     .load_shed()
//!     .concurrency_limit(100)
//!     .timeout(Duration::from_secs(2));
//! let server = Server::builder().interceptor(LayerInterceptor::new(stack));
//! ```
//!
//! # What layers see
//!
//! Layers wrap a service that takes [`Request`]s. A request is a call with the rest of the chain.
//! The service returns a [`Completion`] when the call has succeeded, and [`CallFailed`] when it has
//! failed. A call with streams ends with its last message: a timeout applies to the whole stream,
//! and a concurrency limit counts the call until then. Arguments, results and messages are not
//! visible to layers.
//!
//! The service is created once, by [`LayerInterceptor::new`], and cloned for each call; state that
//! its clones share (the permits of a concurrency limit, the queue of a buffer) is shared by all
//! calls. A call proceeds when its clone is ready, and waits for that at most until its deadline.
//!
//! A request can be sent only once, so it is not `Clone`. A layer that retries calls, such as
//! `tower::retry`, therefore has to wrap a [`ClientService`]. Clients retry typed calls [by
//! themselves](crate::RetryPolicy).
//!
//! A layer that is not `Clone`, such as a rate limit, needs a buffer in front of it, as usual in
//! tower: `ServiceBuilder::new().buffer(1024).rate_limit(..)`. A buffer spawns a task, so
//! `LayerInterceptor::new` then has to be called within a runtime.
//!
//! # Errors of layers
//!
//! [`status_of`] converts the errors of layers to statuses; [`LayerInterceptor::map_error`] sets
//! another conversion. A layer can also fail with a [`Status`]. A layer cannot set the execution
//! state: a call that fails before the layers have passed it on was not executed (at a client: not
//! sent), and a call that fails later may have been executed.

mod error;
mod layer;

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

pub(crate) use self::error::Errors;
pub use self::error::{BoxError, status_of};
pub use self::layer::{Intercept, InterceptorLayer};
use crate::boxed::BoxFuture;
pub use crate::client::{ClientService, RawRequest};
use crate::interceptor::{
    ClientCall, ClientInterceptor, Completion, Next, Outcome, ServerCall, ServerInterceptor,
};
pub use crate::server::ServiceHandler;
use crate::status::Status;

/// A call on its way through layers: a [`ServerCall`] or a [`ClientCall`], and the rest of the
/// chain.
///
/// Dropping it, or the future it was given to, cancels the call.
#[derive(Debug)]
pub struct Request<C> {
    call: C,
    next: Next<C>,
}

impl<C> Request<C> {
    /// Returns the call.
    #[must_use]
    pub fn call(&self) -> &C {
        &self.call
    }

    /// Returns the call, for changes: to the metadata of a [`ClientCall`].
    #[must_use]
    pub fn call_mut(&mut self) -> &mut C {
        &mut self.call
    }
}

/// Error of a call that went through and failed. The caller still gets the call's own error,
/// whatever a layer turns this one into, unless the layer hides it: it has to be found by
/// [`Error::source`].
pub struct CallFailed(Completion);

impl CallFailed {
    /// Returns the outcome of the call; never [`Outcome::Ok`].
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        self.0.outcome()
    }

    /// Returns the status, if the call ended with one and not with the method's own error.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        self.outcome().status()
    }

    /// Returns the completion that an interceptor returns for it.
    fn reply(&self) -> Completion {
        self.0.copy()
    }
}

impl fmt::Debug for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallFailed").field(self.outcome()).finish()
    }
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outcome().fmt(f)
    }
}

impl Error for CallFailed {}

/// The innermost service, which layers wrap: it lets calls through.
#[derive(Clone, Copy, Debug)]
pub struct CallService(());

impl<C: Send + 'static> Service<Request<C>> for CallService {
    type Response = Completion;
    type Error = CallFailed;
    type Future = BoxFuture<'static, Result<Completion, CallFailed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Request { call, next }: Request<C>) -> Self::Future {
        Box::pin(async move {
            let reply = next.run(call).await;
            if reply.outcome().is_ok() {
                Ok(reply)
            } else {
                Err(CallFailed(reply))
            }
        })
    }
}

/// A tower layer, or a stack of them, as an interceptor: of a server with
/// [`ServerBuilder::interceptor`](crate::ServerBuilder::interceptor), of a service with
/// [`Intercepted`](crate::interceptor::Intercepted), of a client with
/// [`ClientBuilder::interceptor`](crate::ClientBuilder::interceptor) or
/// [`Client::with_interceptor`](crate::Client::with_interceptor).
///
/// See the [module](self) for what the layers see. Clones share the state that clones of the
/// service share: one `LayerInterceptor` can limit several servers or clients together.
#[derive(Clone, Debug)]
pub struct LayerInterceptor<S> {
    service: S,
    errors: Errors,
}

impl<S> LayerInterceptor<S> {
    /// Creates an interceptor from `layer`. Several layers are combined with
    /// `tower::ServiceBuilder`: the first one sees a call first.
    #[must_use]
    pub fn new<L>(layer: L) -> Self
    where
        L: Layer<CallService, Service = S>,
    {
        Self {
            service: layer.layer(CallService(())),
            errors: Errors::default(),
        }
    }

    /// Sets the function that converts an error of a layer to the status that the caller gets.
    /// Default: [`status_of`]. It is not called when the call itself has failed, nor when the error
    /// is a [`Status`] already.
    #[must_use]
    pub fn map_error(mut self, map: impl Fn(BoxError) -> Status + Send + Sync + 'static) -> Self {
        self.errors = Errors::mapped(map);
        self
    }

    async fn run<C>(&self, call: C, next: Next<C>) -> Result<Completion, Status>
    where
        S: Service<Request<C>, Response = Completion, Error: Into<BoxError>> + Clone,
    {
        let request = Request { call, next };
        match oneshot(self.service.clone(), request).await {
            Ok(reply) => Ok(reply),
            Err(error) => {
                let error = error.into();
                match error::failed(&*error) {
                    Some(failed) => Ok(failed.reply()),
                    None => Err(self.errors.status(error)),
                }
            }
        }
    }
}

impl<S> ServerInterceptor for LayerInterceptor<S>
where
    S: Service<Request<ServerCall>, Response = Completion> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        self.run(call, next).await
    }
}

impl<S> ClientInterceptor for LayerInterceptor<S>
where
    S: Service<Request<ClientCall>, Response = Completion> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn intercept(
        &self,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        self.run(call, next).await
    }
}

/// Calls a service once it is ready.
pub(crate) async fn oneshot<S: Service<R>, R>(
    mut service: S,
    request: R,
) -> Result<S::Response, S::Error> {
    poll_fn(|cx| service.poll_ready(cx)).await?;
    let reply = service.call(request);
    drop(service);
    reply.await
}
