//! Methods bound to raw bytes.

use std::future::Future;
use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;

use super::failures;
use super::method::{Call, Kind, MethodBody};
use super::reply::{Reply, reply_too_large};
use crate::context::CallContext;
use crate::interceptor::Outcome;
use crate::raw::RawBody;
use crate::status::{MethodError, Status};

/// A method bound to raw bytes.
pub(super) struct RawMethod<S, F> {
    pub(super) service: Arc<S>,
    pub(super) call: F,
}

impl<S, F: Clone> Clone for RawMethod<S, F> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            call: self.call.clone(),
        }
    }
}

impl<S, T, E, F, Fut> MethodBody for RawMethod<S, F>
where
    S: Send + Sync + 'static,
    T: RawBody + Send + 'static,
    E: MethodError,
    F: Fn(Arc<S>, &CallContext, Bytes) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    const KIND: Kind = Kind::Raw;

    type Future = Fut;

    fn start(self, call: &mut Call, _: &Context<'_>) -> Result<Fut, Status> {
        // Without `?`: see `Running`.
        match call.raw_body() {
            Ok(body) => Ok((self.call)(self.service, call.context(), body)),
            Err(status) => Err(status),
        }
    }

    fn reply(result: Result<T, E>, call: &Call) -> Reply {
        match result {
            Ok(data) => {
                let data = data.into_body();
                if data.len() > call.limits().body_bytes() {
                    return Reply::failed(reply_too_large(data.len(), call.limits()));
                }
                Reply {
                    timing: call.timing(),
                    ..Reply::new(data)
                }
            }
            Err(error) => {
                failures::log(call.context(), error.as_status(), &error);
                Reply {
                    outcome: Outcome::of_error(&error),
                    body: Err(match error.as_status() {
                        Some(status) => status.clone(),
                        None => Status::unknown(error.to_string()),
                    }),
                    is_logged: true,
                    timing: None,
                }
            }
        }
    }
}
