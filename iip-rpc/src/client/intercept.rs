//! Calls of a client with interceptors.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::body::{Failure, outcome};
use super::call::{CallSpec, Kind};
use super::failure::not_sent;
use super::times::Times;
use super::{CallOptions, Client};
use crate::context::CallContext;
use crate::interceptor::{CalledBackend, ClientCall, InterceptorChain, Layers, Outcome};
use crate::method::MethodDescriptor;
use crate::status::Status;

impl Client {
    /// Like [`run`](Self::run), through interceptors.
    pub(super) async fn intercepted(
        &self,
        interceptors: &Layers<ClientCall>,
        spec: &mut CallSpec<'_>,
        kind: Kind<'_>,
    ) -> Result<(), Failure> {
        let (method, ctx) = (spec.method, spec.ctx);
        // A call with a stream has two times: one by which it must be accepted, and that of the
        // whole call, if it has one.
        let (until, deadline) = if matches!(kind, Kind::Upload(_)) {
            let times = Times::new(self, method, ctx);
            (times.start.deadline, times.whole)
        } else {
            let until = self.times(method, ctx).0.deadline;
            (until, Some(until))
        };
        let entering = self.enter(interceptors, method, ctx, until, deadline);
        let (mut intercepted, client, ctx) = entering.await?;
        let result = intercepted
            .run(client.run(&mut spec.in_context(&ctx), kind))
            .await?;
        match intercepted.leave(outcome(spec.body, &result)).await {
            Some(status) => Err(status.into()),
            None => result,
        }
    }

    /// Passes a call through its interceptors, within the time it has until it has to be accepted.
    /// Returns what the call is then made with: the same client without interceptors, whose
    /// metadata is what they have left to send, and the context.
    pub(super) async fn enter(
        &self,
        interceptors: &Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        until: Instant,
        deadline: Option<Instant>,
    ) -> Result<(InterceptedCall, Self, CallContext), Status> {
        let metadata = self.options.metadata.clone();
        let ctx = ctx.cloned().unwrap_or_default().with_deadline(deadline);
        let called = if self.core.is_balanced() {
            CalledBackend::balanced()
        } else {
            CalledBackend::default()
        };
        let call = ClientCall::new(method, metadata, ctx, called.clone());
        // The interceptors of a client need no context around them: they get that of the call by
        // value.
        let mut chain = InterceptorChain::new(interceptors, call, |futures| futures);
        let call = match tokio::time::timeout_at(until.into(), chain.enter()).await {
            Ok(call) => call.map_err(not_sent)?,
            Err(_) => {
                let text = format!(
                    "{method}: an interceptor did not let the call proceed in time (option \
                     timeout of the client, of its CallOptions, or of the method)"
                );
                return Err(not_sent(Status::deadline_exceeded(text)));
            }
        };
        let (metadata, ctx) = call.into_parts();
        let client = Self {
            core: self.core.clone(),
            settings: Arc::clone(&self.settings),
            options: Arc::new(CallOptions {
                metadata,
                called,
                ..CallOptions::clone(&self.options)
            }),
            interceptors: Layers::default(),
        };
        Ok((InterceptedCall { chain, deadline }, client, ctx))
    }
}

/// A call that its interceptors have admitted, until they have seen its outcome.
pub(super) struct InterceptedCall {
    chain: InterceptorChain<ClientCall>,
    deadline: Option<Instant>,
}

impl InterceptedCall {
    /// Runs the call, or a part of it, unless an interceptor ends it first.
    pub(super) async fn run<F: Future>(&mut self, call: F) -> Result<F::Output, Status> {
        self.chain.run(call).await
    }

    /// Returns the status with which an interceptor ends a running call.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.chain.poll_ended(cx)
    }

    /// Waits until the interceptors have seen the outcome. Returns a status if one of them replaced
    /// it.
    pub(super) async fn leave(mut self, outcome: Outcome) -> Option<Status> {
        let leaving = pin!(self.chain.leave(outcome));
        match self.deadline {
            None => leaving.await,
            // An interceptor that has not finished by the deadline is dropped.
            Some(deadline) => {
                let left = tokio::time::timeout_at(deadline.into(), leaving).await;
                left.unwrap_or_default()
            }
        }
    }
}
