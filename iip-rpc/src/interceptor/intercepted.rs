//! A service with interceptors of its own.

use super::ServerInterceptor;
use crate::server::{Methods, Service};

/// A service with an additional interceptor, which runs after those of the server.
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
///     async fn intercept(
///         &self,
///         _: ServerCall,
///         _: Next<ServerCall>,
///     ) -> Result<Completion, Status> {
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
    /// Creates a service whose calls pass through `interceptor`.
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
        methods.within(self.interceptor, |methods| {
            self.service.register(methods);
        });
    }
}
