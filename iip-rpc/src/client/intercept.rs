//! Calls of a client with interceptors. They are rare enough to be allocated on the heap.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::not_sent;
use super::streaming::Times;
use super::{CallOptions, Client};
use crate::__private::BoxFuture;
use crate::arguments::Arguments;
use crate::context::CallContext;
use crate::interceptor::{ClientCall, InterceptorChain, Layers, Outcome};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::raw::RawBody;
use crate::status::{MethodError, Status};
use crate::streaming::Streaming;

impl Client {
    /// Like [`unary`](Self::unary).
    #[cold]
    pub(super) fn intercepted_unary<'a, A, T, E>(
        &'a self,
        interceptors: &'a Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&'a CallContext>,
        args: A,
    ) -> BoxFuture<'a, Result<T, E>>
    where
        A: Arguments + Send + 'a,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        Box::pin(async move {
            let until = self.times(method, ctx).0.deadline;
            let entering = self.enter(interceptors, method, ctx, until, Some(until));
            let (way, client, ctx) = entering.await?;
            way.run(client.unary(method, Some(&ctx), args)).await
        })
    }

    /// Like [`one_way`](Self::one_way).
    #[cold]
    pub(super) fn intercepted_one_way<'a, A, E>(
        &'a self,
        interceptors: &'a Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&'a CallContext>,
        args: A,
    ) -> BoxFuture<'a, Result<(), E>>
    where
        A: Arguments + Send + 'a,
        E: MethodError,
    {
        Box::pin(async move {
            let until = self.times(method, ctx).0.deadline;
            let entering = self.enter(interceptors, method, ctx, until, Some(until));
            let (way, client, ctx) = entering.await?;
            way.run(client.one_way(method, Some(&ctx), args)).await
        })
    }

    /// Like [`unary_raw`](Self::unary_raw).
    #[cold]
    pub(super) fn intercepted_raw<'a, B, T, E>(
        &'a self,
        interceptors: &'a Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&'a CallContext>,
        body: B,
    ) -> BoxFuture<'a, Result<T, E>>
    where
        B: RawBody + Send + 'a,
        T: From<Bytes> + Send + 'a,
        E: MethodError,
    {
        Box::pin(async move {
            let until = self.times(method, ctx).0.deadline;
            let entering = self.enter(interceptors, method, ctx, until, Some(until));
            let (way, client, ctx) = entering.await?;
            way.run(client.unary_raw(method, Some(&ctx), body)).await
        })
    }

    /// Like [`client_stream`](Self::client_stream).
    #[cold]
    pub(super) fn intercepted_client_stream<'a, A, U, T, E>(
        &'a self,
        interceptors: &'a Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&'a CallContext>,
        args: A,
        messages: Streaming<U>,
    ) -> BoxFuture<'a, Result<T, E>>
    where
        A: Arguments + Send + 'a,
        U: Serialize + Send + 'static,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        Box::pin(async move {
            let times = Times::new(self, method, ctx);
            let entering = self.enter(interceptors, method, ctx, times.start.deadline, times.whole);
            let (way, client, ctx) = entering.await?;
            way.run(client.client_stream(method, Some(&ctx), args, messages))
                .await
        })
    }

    /// Like [`server_stream`](Self::server_stream).
    #[cold]
    pub(super) fn intercepted_server_stream<'a, A, T, I, E>(
        &'a self,
        interceptors: &'a Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&'a CallContext>,
        args: A,
    ) -> BoxFuture<'a, Result<Streaming<T, I>, E>>
    where
        A: Arguments + Send + 'a,
        T: DeserializeOwned + Send + 'static,
        I: MethodError,
        E: MethodError,
    {
        Box::pin(async move {
            let times = Times::new(self, method, ctx);
            let entering = self.enter(interceptors, method, ctx, times.start.deadline, times.whole);
            let (way, client, ctx) = entering.await?;
            way.into_stream(client.server_stream(method, Some(&ctx), args))
                .await
        })
    }

    /// Like [`bidi_stream`](Self::bidi_stream).
    #[cold]
    pub(super) fn intercepted_bidi_stream<'a, A, U, T, I, E>(
        &'a self,
        interceptors: &'a Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&'a CallContext>,
        args: A,
        messages: Streaming<U>,
    ) -> BoxFuture<'a, Result<Streaming<T, I>, E>>
    where
        A: Arguments + Send + 'a,
        U: Serialize + Send + 'static,
        T: DeserializeOwned + Send + 'static,
        I: MethodError,
        E: MethodError,
    {
        Box::pin(async move {
            let times = Times::new(self, method, ctx);
            let entering = self.enter(interceptors, method, ctx, times.start.deadline, times.whole);
            let (way, client, ctx) = entering.await?;
            way.into_stream(client.bidi_stream(method, Some(&ctx), args, messages))
                .await
        })
    }

    /// Passes a call through its interceptors, within the time it has until it has to be accepted.
    /// Returns what the call is then made with: the same client without interceptors, and the
    /// context that they have left.
    async fn enter(
        &self,
        interceptors: &Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        until: Instant,
        deadline: Option<Instant>,
    ) -> Result<(InterceptedCall, Self, CallContext), Status> {
        let mut metadata = self.options.metadata.clone();
        if let Some(own) = ctx.and_then(CallContext::outgoing_metadata) {
            metadata
                .append_all(own)
                .map_err(|error| not_sent(error.into()))?;
        }
        let ctx = ctx.cloned().unwrap_or_default().with_deadline(deadline);
        let call = ClientCall::new(method, metadata, ctx);
        let mut chain = InterceptorChain::new(interceptors, call, |futures| futures);
        let call = match tokio::time::timeout_at(until.into(), chain.enter()).await {
            Ok(call) => call.map_err(not_sent)?,
            Err(_) => {
                let text = format!(
                    "{method}: an interceptor did not let the call through in time (option timeout of the client, of its \
                     CallOptions, or of the method)"
                );
                return Err(not_sent(Status::deadline_exceeded(text)));
            }
        };
        let client = Self {
            core: self.core.clone(),
            settings: Arc::clone(&self.settings),
            options: Arc::new(CallOptions {
                metadata: Metadata::new(),
                ..CallOptions::clone(&self.options)
            }),
            interceptors: Layers::default(),
        };
        Ok((
            InterceptedCall { chain, deadline },
            client,
            call.into_context(),
        ))
    }
}

/// A call that its interceptors have admitted, until they have seen its outcome.
struct InterceptedCall {
    chain: InterceptorChain<ClientCall>,
    deadline: Option<Instant>,
}

impl InterceptedCall {
    /// Makes the call.
    async fn run<T, E: MethodError>(
        mut self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = self.chain.run(call).await?;
        self.end(result).await
    }

    /// Makes the call, and lets the interceptors wait for the end of its stream.
    async fn into_stream<T, I, E>(
        mut self,
        call: impl Future<Output = Result<Streaming<T, I>, E>>,
    ) -> Result<Streaming<T, I>, E>
    where
        T: Send + 'static,
        I: MethodError,
        E: MethodError,
    {
        match self.chain.run(call).await? {
            Ok(stream) => Ok(Streaming::new(InterceptedStream::Flowing(stream, self))),
            Err(error) => self.end(Err(error)).await,
        }
    }

    async fn end<T, E: MethodError>(mut self, result: Result<T, E>) -> Result<T, E> {
        let leaving = pin!(self.chain.leave(Outcome::of(&result)));
        let left = match self.deadline {
            None => Ok(leaving.await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), leaving).await,
        };
        match left {
            Ok(Some(status)) => Err(status.into()),
            // An interceptor that has not finished by the deadline is dropped.
            Ok(None) | Err(_) => result,
        }
    }
}

/// The stream of a call whose interceptors wait for its end.
enum InterceptedStream<T, I> {
    Flowing(Streaming<T, I>, InterceptedCall),
    /// The stream has ended, and the interceptors see its outcome.
    Leaving(BoxFuture<'static, Result<(), I>>),
    Over,
}

impl<T: Send + 'static, I: MethodError> Stream for InterceptedStream<T, I> {
    type Item = Result<T, I>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, I>>> {
        loop {
            let end = match &mut *self {
                Self::Flowing(stream, way) => {
                    if let Poll::Ready(status) = way.chain.poll_ended(cx) {
                        *self = Self::Over;
                        return Poll::Ready(Some(Err(status.into())));
                    }
                    match ready!(Pin::new(stream).poll_next(cx)) {
                        Some(Ok(message)) => return Poll::Ready(Some(Ok(message))),
                        Some(Err(error)) => Err(error),
                        None => Ok(()),
                    }
                }
                Self::Leaving(leaving) => {
                    let end = ready!(leaving.as_mut().poll(cx));
                    *self = Self::Over;
                    return Poll::Ready(end.err().map(Err));
                }
                Self::Over => return Poll::Ready(None),
            };
            if let Self::Flowing(_, way) = std::mem::replace(&mut *self, Self::Over) {
                *self = Self::Leaving(Box::pin(way.end(end)));
            }
        }
    }
}
