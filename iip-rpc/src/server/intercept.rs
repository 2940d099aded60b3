//! Calls that pass through the interceptors of a server.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;

use iip_core::{HandlerError, Request, Response};

use super::method::{CallExtras, CallHead, Method, RequestForm, TypedCall};
use super::reply::Reply;
use crate::interceptor::{InterceptorChain, ServerCall};
use crate::method::OnCancel;
use crate::overload::Permit;
use crate::policy::Deadline;
use crate::status::{Execution, Status};

/// Runs a call with interceptors.
pub(super) async fn run(
    method: Arc<Method>,
    request: Request,
    head: CallHead,
    permit: Option<Permit>,
    form: RequestForm,
) -> Result<Response, HandlerError> {
    let extras = CallExtras {
        has_task: true,
        ..CallExtras::default()
    };
    let reply = reply(&method, request, head, extras).await;
    permit.into_iter().for_each(Permit::end);
    match reply {
        Ok(reply) => method.respond(reply, form),
        Err(status) => method.failed(status, form),
    }
}

/// Passes a call through those interceptors of its method that are not idle, and runs it.
pub(super) async fn reply(
    method: &Arc<Method>,
    request: Request,
    head: CallHead,
    extras: CallExtras,
) -> Result<Reply, Status> {
    let (ctx, deadline) = (head.ctx.clone(), head.deadline);
    let call = method.body.new_call(method, request, head, extras);
    // Calls with streams come here whether they have interceptors or not.
    let Some(interceptors) = method.interceptors.active(ctx.metadata()) else {
        return Ok(finish(call).await);
    };
    let policy = method.descriptor.cancel_policy();
    let not_executed = |status: Status| status.with_execution(Execution::NotExecuted);
    let server_call = ServerCall::new(method.descriptor, ctx.clone());
    // The interceptors see the context of the call, like the handler.
    let around = |futures| ctx.clone().scope(futures);
    let mut chain = InterceptorChain::new(interceptors, server_call, around);
    let entered = until(deadline, policy, chain.enter()).await;
    entered.map_err(not_executed)?.map_err(not_executed)?;
    let handler = finish(call);
    #[cfg(feature = "tracing")]
    let handler = crate::observe::in_span(&ctx, handler);
    let reply = chain.run(handler).await?;
    match until(deadline, policy, chain.leave(reply.outcome.clone())).await {
        Ok(Some(status)) => Err(status),
        // An interceptor that has not finished by the deadline is dropped.
        Ok(None) | Err(_) => Ok(reply),
    }
}

async fn finish(mut call: Pin<Box<dyn TypedCall>>) -> Reply {
    poll_fn(|cx| call.as_mut().poll_reply(cx)).await
}

/// Runs `call` until its deadline, if the policy lets the deadline end it.
async fn until<Fut: Future>(
    deadline: Deadline,
    policy: OnCancel,
    call: Fut,
) -> Result<Fut::Output, Status> {
    match deadline.at.filter(|_| policy == OnCancel::Abort) {
        None => Ok(call.await),
        Some(at) => tokio::time::timeout_at(at.into(), call)
            .await
            .map_err(|_| deadline.over()),
    }
}
