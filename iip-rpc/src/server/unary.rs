//! Methods with one request and one reply.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Context;

use iip_core::Body;
use serde::Serialize;

use super::method::{Call, Kind, MethodBody};
use super::reply::Reply;
use crate::arguments::FromArguments;
use crate::context::CallContext;
use crate::payload::ByValue;
use crate::status::{MethodError, Status};

/// A typed method.
pub(super) struct UnaryMethod<S, A, T, E, F> {
    pub(super) service: Arc<S>,
    pub(super) call: F,
    pub(super) types: PhantomData<fn(A) -> Result<T, E>>,
}

impl<S, A, T, E, F: Clone> Clone for UnaryMethod<S, A, T, E, F> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            call: self.call.clone(),
            types: PhantomData,
        }
    }
}

impl<S, A, T, E, F, Fut> MethodBody for UnaryMethod<S, A, T, E, F>
where
    S: Send + Sync + 'static,
    A: FromArguments,
    T: Serialize + Send + 'static,
    E: MethodError,
    F: Fn(Arc<S>, &CallContext, A) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    const KIND: Kind = Kind::Unary;

    type Future = Fut;

    fn start(self, call: &mut Call, _: &Context<'_>) -> Result<Fut, Status> {
        // Without `?`: see `Running`.
        match call.decode() {
            Ok(args) => Ok((self.call)(self.service, call.context(), args)),
            Err(status) => Err(status),
        }
    }

    fn reply(result: Result<T, E>, call: &Call) -> Reply {
        match result {
            // The caller does not read the reply.
            Ok(_) if call.is_one_way() => Reply::new(Body::default()),
            Ok(value) => call.reply_form().value(&ByValue(value)),
            Err(error) => call.reply_with_error(&error),
        }
    }
}
