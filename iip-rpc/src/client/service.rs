//! A client as a tower service.

use std::borrow::Cow;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use iip_core::__rpc::now;
use tower_service::Service;

use super::Client;
use super::failure::{call_status, phases};
use crate::boxed::BoxFuture;
use crate::context::CallContext;
use crate::envelope::PlainError;
use crate::status::Status;

/// A call of raw bytes, for a [`ClientService`].
///
/// Needs the feature `tower`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRequest {
    path: Cow<'static, str>,
    body: Bytes,
}

impl RawRequest {
    /// Creates a call of `path`, which may have a query, with `body`. IIP has no empty data: a call
    /// with an empty `body` fails as INVALID_ARGUMENT.
    #[must_use]
    pub fn new(path: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Self {
        Self {
            path: path.into(),
            body: body.into(),
        }
    }

    /// The path, with its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The data.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// A [`Client`] as a tower service: raw bytes to a path, and the bytes of the reply. For balancers,
/// and for stacks with layers that need no more than a service, such as `tower::retry`.
///
/// A call has the timeout of the client's calls, bounded by the deadline of the call being handled.
/// The in-band errors of IIP become statuses, as with [`Client::unary_raw`]. The client's
/// interceptors, metadata and retries do not apply to raw calls.
///
/// It is always ready: a call waits within its timeout for a connection and a channel. Use a layer
/// to limit the number of concurrent calls.
///
/// A typed method does not need an adapter to be a service: `tower::service_fn` turns the generated
/// client into one.
///
/// Needs the feature `tower`.
#[derive(Clone, Debug)]
pub struct ClientService {
    client: Client,
}

impl ClientService {
    /// Creates a service from `client`. Clones share its connections.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn timeout(&self) -> Duration {
        let own = self.client.options.timeout;
        let own = own.unwrap_or(self.client.settings.timeout);
        match CallContext::current_deadline() {
            Some(deadline) => own.min(deadline.saturating_duration_since(now())),
            None => own,
        }
    }
}

impl Service<RawRequest> for ClientService {
    type Response = Bytes;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Bytes, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    fn call(&mut self, RawRequest { path, body }: RawRequest) -> Self::Future {
        let core = self.client.core.clone();
        let options = iip_core::CallOptions::new().timeout(self.timeout());
        let started = now();
        Box::pin(async move {
            let reply = core.request_with(&path, body, options).await;
            let reply = reply.map_err(|error| call_status(&error, None))?;
            match PlainError::read(&reply).filter(PlainError::is_in_band) {
                Some(error) => Err(error.into_status().with_phases(phases(started, None))),
                None => Ok(reply),
            }
        })
    }
}
