//! A tower service as a handler.

use iip_core::{Handler, HandlerError, HandlerFuture, Request, Response};
use tower_service::Service;

use super::reply::status_response;
use crate::envelope;
use crate::status::{Execution, Status};
use crate::tower::{BoxError, Errors, oneshot};

/// A tower service of raw [`Request`]s as a [`Handler`], for a path of a server: see
/// [`ServerBuilder::route`](crate::ServerBuilder::route).
///
/// It is cloned for each request, which waits until its clone is ready; requests of callers that
/// have gone away are dropped. Replies are [`Response`]s or types that convert to one, such as
/// `Bytes`.
///
/// A failure is sent to callers of typed methods as a status
/// ([`status_of`](crate::tower::status_of)), and to all others as IIP's in-band error of a handler
/// that failed, with its text. The text of a [`HandlerError`] is sent unchanged.
///
/// Needs the feature `tower`.
#[derive(Clone, Debug)]
pub struct ServiceHandler<S> {
    service: S,
    errors: Errors,
}

impl<S> ServiceHandler<S> {
    /// Creates a handler from `service`.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self {
            service,
            errors: Errors::default(),
        }
    }

    /// Sets the conversion of an error to the status that the caller gets. Default:
    /// [`status_of`](crate::tower::status_of). Not called for an error that is a [`Status`] or a
    /// [`HandlerError`].
    #[must_use]
    pub fn map_error(mut self, map: impl Fn(BoxError) -> Status + Send + Sync + 'static) -> Self {
        self.errors = Errors::mapped(map);
        self
    }
}

impl<S> Handler for ServiceHandler<S>
where
    S: Service<Request> + Clone + Send + Sync + 'static,
    S::Response: Into<Response>,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    fn call(&self, request: Request) -> HandlerFuture {
        let Self { service, errors } = self.clone();
        Box::pin(async move {
            // For a one-way call no caller reads a status, but an error is logged.
            let is_typed = envelope::is_envelope(request.body()) && !request.is_one_way();
            let error = match oneshot(service, request).await {
                Ok(reply) => return Ok(reply.into()),
                Err(error) => error.into(),
            };
            let status = match error.downcast::<HandlerError>() {
                Ok(error) => Status::unknown(error.to_string()),
                Err(error) => status(&errors, error),
            };
            if is_typed {
                Ok(status_response(&status, false))
            } else {
                let error = HandlerError::new(status.message());
                Err(error.with_status_code(status.code().as_u8()))
            }
        })
    }
}

/// The status of a failed service. The mark that it has not run is trusted only if the service set
/// it itself: not if it comes from a call that the service made, nor if it was derived from an
/// error.
fn status(errors: &Errors, error: BoxError) -> Status {
    let own = error.downcast_ref::<Status>();
    let is_own = own.is_some_and(|status| !status.is_of_a_call());
    let status = errors.status(error);
    if is_own {
        status
    } else {
        status.with_execution(Execution::MayHaveExecuted)
    }
}
