//! Interceptors as tower layers.

use std::mem;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::error::{failed, status_of_ref};
use super::{BoxError, Request};
use crate::boxed::BoxFuture;
use crate::interceptor::{
    ClientCall, ClientInterceptor, Completion, InterceptorChain, Layers, Outcome, ServerCall,
    ServerInterceptor,
};

/// An interceptor as a tower layer, for a stack that is given to
/// [`LayerInterceptor`](super::LayerInterceptor). The interceptor can then be placed between
/// layers, and a stack is built in one place.
///
/// It sees the error of a later layer as the status that [`status_of`](super::status_of) returns
/// for it, and the earlier layers see the error itself.
#[derive(Clone, Debug)]
pub struct InterceptorLayer<C>(Layers<C>);

impl InterceptorLayer<ServerCall> {
    /// Creates a layer from an interceptor of a server.
    #[must_use]
    pub fn server(interceptor: impl ServerInterceptor) -> Self {
        let mut layers = Layers::default();
        layers.push(interceptor);
        Self(layers)
    }
}

impl InterceptorLayer<ClientCall> {
    /// Creates a layer from an interceptor of a client.
    #[must_use]
    pub fn client(interceptor: impl ClientInterceptor) -> Self {
        let mut layers = Layers::default();
        layers.push(interceptor);
        Self(layers)
    }
}

impl<S, C> Layer<S> for InterceptorLayer<C> {
    type Service = Intercept<S, C>;

    fn layer(&self, service: S) -> Intercept<S, C> {
        Intercept {
            service,
            interceptors: self.0.clone(),
        }
    }
}

/// A service with an interceptor in front of it. Created by [`InterceptorLayer`].
#[derive(Clone, Debug)]
pub struct Intercept<S, C> {
    service: S,
    interceptors: Layers<C>,
}

impl<S, C> Service<Request<C>> for Intercept<S, C>
where
    S: Service<Request<C>, Response = Completion> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    C: Send + 'static,
{
    type Response = Completion;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Completion, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, Request { call, next }: Request<C>) -> Self::Future {
        let other = self.service.clone();
        // The service that was polled is ready, its clone need not be.
        let mut service = mem::replace(&mut self.service, other);
        let mut chain = InterceptorChain::new(&self.interceptors, call, |interceptor| interceptor);
        Box::pin(async move {
            let call = chain.enter().await?;
            let behind = service.call(Request { call, next });
            drop(service);
            let result = chain.run(behind).await?.map_err(Into::into);
            let outcome = match &result {
                Ok(reply) => reply.outcome().clone(),
                Err(error) => match failed(&**error) {
                    Some(failed) => failed.outcome().clone(),
                    None => Outcome::Status(status_of_ref(&**error)),
                },
            };
            match chain.leave(outcome).await {
                Some(status) => Err(status.into()),
                None => result,
            }
        })
    }
}
