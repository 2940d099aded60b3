//! Layers and services of `tower`, on both sides.
//!
//! | you have | and want | use |
//! |---|---|---|
//! | a tower layer, or a stack of them | it to see the calls of a server, a service or a client | [`LayerInterceptor`], which is an interceptor |
//! | an [interceptor](crate::interceptor) | it in such a stack, between layers | [`InterceptorLayer`] |
//! | a [`Client`](crate::Client) | a tower service of raw bytes: for balancers, retries, stacks of your own | [`ClientService`] |
//! | a tower service | it to answer a path of a server | [`ServiceHandler`] |
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
//! A service of [`Request`]s, each a call and the way behind it, that answers with a [`Completion`]
//! when the call has ended well and with [`CallFailed`] when it has not. Of a call with streams
//! that is when its last message is through: a timeout is one of the whole stream, and a
//! concurrency limit counts it until then. Arguments, results and messages are not seen.
//!
//! The service is made once, by [`LayerInterceptor::new`], and cloned for each call; what its
//! clones share (the permits of a concurrency limit, the queue of a buffer) is shared by all calls.
//! A call goes on when its clone is ready. It waits for that no longer than its deadline allows.
//!
//! A request can go through once, so it is not `Clone`: a layer that makes calls again, such as
//! `tower::retry`, belongs around a [`ClientService`], and clients repeat typed calls [by
//! themselves](crate::RetryPolicy).
//!
//! A layer that is not `Clone`, such as a rate limit, needs a buffer in front of it, as everywhere
//! in tower: `ServiceBuilder::new().buffer(1024).rate_limit(..)`. A buffer starts a task, so
//! `LayerInterceptor::new` has to be called in a runtime then.
//!
//! # What errors of layers become
//!
//! [`status_of`] makes a status of them; [`LayerInterceptor::map_error`] puts another function in
//! its place. A layer can also fail with a [`Status`] of its own. Whether the call may have been
//! executed follows from when the layer failed, and cannot be said by it: before the call was let
//! through, its caller reads that it was not executed (of a client: not sent), and after that it
//! may have been.

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
use crate::__private::BoxFuture;
pub use crate::client::{ClientService, RawRequest};
use crate::interceptor::{
    ClientCall, ClientInterceptor, Completion, Next, Outcome, ServerCall, ServerInterceptor,
};
pub use crate::server::ServiceHandler;
use crate::status::Status;

/// A call on its way through layers: a [`ServerCall`] or a [`ClientCall`], and what comes behind.
///
/// Dropping it, and the future it was given to, gives the call up.
#[derive(Debug)]
pub struct Request<C> {
    call: C,
    next: Next<C>,
}

impl<C> Request<C> {
    /// The call.
    #[must_use]
    pub fn call(&self) -> &C {
        &self.call
    }

    /// The call, to change it: the metadata of a [`ClientCall`].
    #[must_use]
    pub fn call_mut(&mut self) -> &mut C {
        &mut self.call
    }
}

/// A call has been through, and did not end well. The caller still gets its own error, whatever a
/// layer makes of this one, unless the layer hides it: it has to be found by [`Error::source`].
pub struct CallFailed(Completion);

impl CallFailed {
    /// How the call ended; never [`Outcome::Ok`].
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        self.0.outcome()
    }

    /// The status, if the call ended with one, and not with the method's own error.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        self.outcome().status()
    }

    /// What an interceptor gives back for it.
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

/// The service that layers are put around: it lets calls through.
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
/// See the [module](self) for what the layers see. Clones share what clones of the service share:
/// one `LayerInterceptor` can limit several servers or clients together.
#[derive(Clone, Debug)]
pub struct LayerInterceptor<S> {
    service: S,
    errors: Errors,
}

impl<S> LayerInterceptor<S> {
    /// `layer` as an interceptor. Layers one above the other come from `tower::ServiceBuilder`: the
    /// first one sees a call first.
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

    /// What the caller is told of an error that a layer made itself. Default: [`status_of`]. Not
    /// asked when the call itself has failed, nor when the error is a [`Status`] already.
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
    let answer = service.call(request);
    drop(service);
    answer.await
}
