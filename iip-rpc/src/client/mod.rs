//! The typed client: from arguments to a message, and from the reply to a value.
//!
//! To follow one call, begin at [`Client::unary`].

mod body;
mod builder;
mod call;
mod compatibility;
mod describe;
mod failure;
mod hedge;
mod intercept;
mod json;
mod options;
#[cfg(feature = "tower")]
mod service;
mod stream;
mod streamed;
mod subscribe;
mod times;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use iip_core::Explanation;
use iip_core::balance::ToTarget;
use iip_core::stats::Snapshot;
use serde::de::DeserializeOwned;

use self::body::{RawReply, TypedBody};
pub use self::builder::ClientBuilder;
use self::builder::Settings;
use self::call::{CallSpec, Kind, Single};
pub use self::json::{JsonCall, JsonError, JsonText};
pub use self::options::{CallOptions, ReplyMetadata};
#[cfg(feature = "tower")]
pub use self::service::{ClientService, RawRequest};
use crate::arguments::Arguments;
use crate::context::CallContext;
use crate::interceptor::{ClientCall, ClientInterceptor, Layers};
use crate::method::MethodDescriptor;
use crate::raw::RawBody;
use crate::status::{MethodError, Status};

/// Client for the services of one server. Cheap to clone; all clones share the connections.
///
/// Generated clients hold one: `GreeterClient::new(client)`. Several services can share it;
/// `GreeterClient::connect(target)` creates one with the defaults.
///
/// Lost connections are replaced when the next call is made. A typed call that was not sent or not
/// executed, because its connection was lost or the server is going away, is retried within its
/// deadline, up to five times. A call that may have run is retried according to its
/// [`RetryPolicy`] if its method is idempotent. Arguments of more than 64 KiB are not kept for
/// retries. A call fails by its deadline, with a [`Status`] that contains the error, the time spent
/// in each phase, and whether the call may have run.
///
/// [`RetryPolicy`]: crate::RetryPolicy
#[derive(Clone, Debug)]
pub struct Client {
    core: iip_core::Client,
    settings: Arc<Settings>,
    options: Arc<CallOptions>,
    interceptors: Layers<ClientCall>,
}

impl Client {
    /// Creates a builder for a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Connects with the defaults to a server, such as `host:port` or a
    /// [`SocketAddr`](std::net::SocketAddr), or to several, such as
    /// `static:10.0.0.1:7000,10.0.0.2:7000`; see [`Target`](iip_core::balance::Target) for all forms.
    ///
    /// # Errors
    ///
    /// Like [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub async fn connect(target: impl ToTarget) -> Result<Self, Status> {
        Self::builder().connect(target).await
    }

    /// Returns what the client knows of its backends: their states, scores and reasons, and the
    /// state of the source of addresses. Its text is for people.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        self.core.explain()
    }

    /// Returns what the client has counted since it was made: calls by method and code, their
    /// durations, bytes, and connections. All clones count together; see
    /// [`iip_core::Client::stats`] for the cost.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        self.core.stats()
    }

    fn over(core: iip_core::Client, settings: Settings, interceptors: Layers<ClientCall>) -> Self {
        Self {
            core,
            settings: Arc::new(settings),
            options: Arc::default(),
            interceptors,
        }
    }

    /// Returns the same client with options for the calls made through it. Options of this client
    /// that `options` does not set stay as they are; metadata is added, and replaces values of the
    /// same key. If all metadata together exceeds 16 KiB, the calls fail.
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Self {
        Self {
            options: Arc::new(self.options.merge(options)),
            ..self.clone()
        }
    }

    /// Returns the same client with one more interceptor, after the existing ones, for the calls
    /// made through it. See [`interceptor`](mod@crate::interceptor).
    #[must_use]
    pub fn with_interceptor(&self, interceptor: impl ClientInterceptor) -> Self {
        let mut client = self.clone();
        client.interceptors.push(interceptor);
        client
    }

    /// The underlying client: raw calls on the same connections.
    #[must_use]
    pub fn raw(&self) -> &iip_core::Client {
        &self.core
    }

    /// Closes all connections once their calls have received their replies, at the latest after
    /// `limit`. Later calls fail.
    ///
    /// # Cancel safety
    ///
    /// Closing continues when the future is dropped.
    pub fn close(&self, limit: Duration) -> impl Future<Output = ()> + Send {
        async move {
            self.core.close(limit).await;
        }
    }

    /// Calls a method; generated clients use it.
    ///
    /// # Errors
    ///
    /// The method's own error, or a [`Status`] converted to its type.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    pub fn unary<A, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        A: Arguments + Send,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        async move {
            let mut body = TypedBody::new(args);
            let mut spec = CallSpec::new(method, ctx, &mut body);
            let outcome = self.run(&mut spec, Kind::Single(Single::Unary)).await;
            body.into_result(outcome)
        }
    }

    /// Calls a one-way method; generated clients use it.
    ///
    /// Completes once the call is queued to be written, within the timeout of the call; see
    /// [`send`](iip_core::Client::send) of the underlying client for how servers treat it. The
    /// caller does not learn the outcome of the method. A call that could not be sent is retried
    /// like any other that has not run.
    ///
    /// # Errors
    ///
    /// The reason why it was not sent: a [`Status`] converted to the type of the method's error.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it completes, the call was not sent.
    pub fn one_way<A, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> impl Future<Output = Result<(), E>> + Send
    where
        A: Arguments + Send,
        E: MethodError,
    {
        async move {
            let mut body = TypedBody::<A, (), E>::new(args);
            let mut spec = CallSpec::new(method, ctx, &mut body);
            match self.run(&mut spec, Kind::Single(Single::OneWay)).await {
                Ok(()) => Ok(()),
                failed => body.into_result(failed),
            }
        }
    }

    /// Calls a method bound to raw bytes: `body` and the reply are passed through unchanged.
    ///
    /// The in-band errors of IIP (codes -1, 101, 102, 106) become statuses: nothing else
    /// distinguishes them from data.
    ///
    /// # Errors
    ///
    /// Like [`unary`](Self::unary).
    ///
    /// # Cancel safety
    ///
    /// Like [`unary`](Self::unary).
    pub fn unary_raw<B, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: B,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        B: RawBody + Send,
        T: From<Bytes> + Send,
        E: MethodError,
    {
        async move {
            let body = body.into_body();
            let kind = Kind::Single(Single::Raw(&body));
            let mut reply = RawReply::default();
            let mut spec = CallSpec::new(method, ctx, &mut reply);
            match self.run(&mut spec, kind).await {
                Ok(()) => Ok(reply.into_bytes().into()),
                Err(failure) => Err(failure.into_status().into()),
            }
        }
    }
}
