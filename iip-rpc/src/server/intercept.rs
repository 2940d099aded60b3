//! Calls that pass through the interceptors of a server.

use std::future::Future;

use super::until;
use crate::context::CallContext;
use crate::interceptor::{InterceptorChain, Layers, Outcome, ServerCall};
use crate::method::MethodDescriptor;
use crate::policy::Deadline;
use crate::status::{Execution, Status};

/// Passes a call through its interceptors: `run` runs after them, and returns the outcome of the
/// call and its reply.
pub(super) async fn call<T, Fut>(
    interceptors: &Layers<ServerCall>,
    method: &'static MethodDescriptor,
    ctx: CallContext,
    deadline: Deadline,
    run: impl FnOnce(CallContext) -> Fut,
) -> Result<T, Status>
where
    Fut: Future<Output = Result<(Outcome, T), Status>>,
{
    let policy = method.cancel_policy();
    let not_executed = |status: Status| status.with_execution(Execution::NotExecuted);
    let call = ServerCall::new(method, ctx.clone());
    let mut chain = InterceptorChain::new(interceptors, call, |futures| ctx.clone().scope(futures));
    let entered = until(deadline, policy, chain.enter()).await;
    entered.map_err(not_executed)?.map_err(not_executed)?;
    let handler = run(ctx.clone());
    #[cfg(feature = "tracing")]
    let handler = crate::observe::in_span(&ctx, handler);
    let (outcome, answer) = match chain.run(handler).await? {
        Ok((outcome, answer)) => (outcome, Ok(answer)),
        Err(status) => (Outcome::Status(status.clone()), Err(status)),
    };
    match until(deadline, policy, chain.leave(outcome)).await {
        Ok(Some(status)) => Err(status),
        // An interceptor that has not finished by the deadline is dropped.
        Ok(None) | Err(_) => answer,
    }
}
