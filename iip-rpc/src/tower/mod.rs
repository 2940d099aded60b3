//! Layers and services of `tower`, on both sides.
//!
//! | you have | and want | use |
//! |---|---|---|
//! | a tower layer, or a stack of them | it to see the calls of a server, a service or a client | [`Layered`], which is an interceptor |
//! | an [interceptor](crate::interceptor) | it in such a stack, between layers | [`InterceptorLayer`] |
//! | a [`Client`](crate::Client) | a tower service of raw bytes: for balancers, retries, stacks of your own | [`ClientService`] |
//! | a tower service | it to answer a path of a server | [`ServiceHandler`] |
//!
//! ```
//! use std::time::Duration;
//! use iip_rpc::tower::Layered;
//! use iip_rpc::Server;
//! use tower::ServiceBuilder;
//!
//! let stack = ServiceBuilder::new()
//!     .load_shed()
//!     .concurrency_limit(100)
//!     .timeout(Duration::from_secs(2));
//! let server = Server::builder().interceptor(Layered::new(stack));
//! ```
//!
//! # What layers see
//!
//! A service of [`Request`]s, each a call and the way behind it, that answers with a [`Reply`] when the call has ended well and
//! with [`Failed`] when it has not. Of a call with streams that is when its last message is through: a timeout is one of the whole
//! stream, and a concurrency limit counts it until then. Arguments, results and messages are not seen.
//!
//! The service is made once, by [`Layered::new`], and cloned for each call; what its clones share (the permits of
//! a concurrency limit, the queue of a buffer) is shared by all calls. A call goes on when its clone is ready. It waits for that no
//! longer than its deadline allows.
//!
//! A request can go through once, so it is not `Clone`: a layer that makes calls again, such as `tower::retry`, belongs around
//! a [`ClientService`], and clients repeat typed calls [by themselves](crate::RetryPolicy).
//!
//! A layer that is not `Clone`, such as a rate limit, needs a buffer in front of it, as everywhere in tower:
//! `ServiceBuilder::new().buffer(1024).rate_limit(..)`. A buffer starts a task, so `Layered::new` has to be called in a runtime then.
//!
//! # What errors of layers become
//!
//! [`status_of`] makes a status of them; [`Layered::map_error`] puts another function in its place. A layer can also fail with a
//! [`Status`] of its own. Whether the call may have been executed follows from when the layer failed, and cannot be said by
//! it: before the call was let through, its caller reads that it was not executed (of a client: not sent), and after
//! that it may have been.

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
    ClientCall, ClientInterceptor, Next, Outcome, Reply, ServerCall, ServerInterceptor,
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

/// A call has been through, and did not end well. The caller still gets its own error, whatever a layer makes of this one, unless
/// the layer hides it: it has to be found by [`Error::source`].
pub struct Failed(Reply);

impl Failed {
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
    fn reply(&self) -> Reply {
        self.0.copy()
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failed").field(self.outcome()).finish()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outcome().fmt(f)
    }
}

impl Error for Failed {}

/// The service that layers are put around: it lets calls through.
#[derive(Clone, Copy, Debug)]
pub struct CallService(());

impl<C: Send + 'static> Service<Request<C>> for CallService {
    type Response = Reply;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Reply, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Request { call, next }: Request<C>) -> Self::Future {
        Box::pin(async move {
            let reply = next.run(call).await;
            if reply.outcome().is_ok() {
                Ok(reply)
            } else {
                Err(Failed(reply))
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
/// See the [module](self) for what the layers see. Clones share what clones of the service share: one `Layered` can limit
/// several servers or clients together.
#[derive(Clone, Debug)]
pub struct Layered<S> {
    service: S,
    errors: Errors,
}

impl<S> Layered<S> {
    /// `layer` as an interceptor. Layers one above the other come from `tower::ServiceBuilder`: the first one sees a call first.
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

    /// What the caller is told of an error that a layer made itself. Default: [`status_of`]. Not asked when the call itself has failed, nor when
    /// the error is a [`Status`] already.
    #[must_use]
    pub fn map_error(mut self, map: impl Fn(BoxError) -> Status + Send + Sync + 'static) -> Self {
        self.errors = Errors::mapped(map);
        self
    }

    async fn run<C>(&self, call: C, next: Next<C>) -> Result<Reply, Status>
    where
        S: Service<Request<C>, Response = Reply, Error: Into<BoxError>> + Clone,
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

impl<S> ServerInterceptor for Layered<S>
where
    S: Service<Request<ServerCall>, Response = Reply> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn intercept(&self, call: ServerCall, next: Next<ServerCall>) -> Result<Reply, Status> {
        self.run(call, next).await
    }
}

impl<S> ClientInterceptor for Layered<S>
where
    S: Service<Request<ClientCall>, Response = Reply> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn intercept(&self, call: ClientCall, next: Next<ClientCall>) -> Result<Reply, Status> {
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
