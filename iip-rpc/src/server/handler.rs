//! Methods as handlers of the core server: the gate, and the way that each kind of call takes.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use iip_core::{
    Body, Handler, HandlerFuture, OnCancel, Places, RejectReason, Request, RequestMode, Response,
};

use super::method::{CallExtras, Kind, Method, RequestForm};
use super::reply::{is_plain, reject, rejected, status_reply};
use super::{intercept, stream};
use crate::overload::{Gate, Permit};
use crate::status::Status;

/// A registered method, as a handler of the core server.
pub(super) struct MethodHandler(Arc<Method>);

impl MethodHandler {
    pub(super) fn new(method: Method) -> Self {
        Self(Arc::new(method))
    }
}

impl Handler for MethodHandler {
    fn rpc_method(&self) -> Option<String> {
        Some(self.0.descriptor.rpc_method())
    }

    fn call(&self, mut request: Request) -> HandlerFuture {
        let method = &self.0;
        let permit = match method.gate.as_ref().map(Gate::enter).transpose() {
            Ok(permit) => permit,
            // The arguments of such a call are not read.
            Err(full) => {
                let (status, plain) = (full.status(), is_plain(request.body()));
                let body = rejected(&status, plain, method.kind == Kind::Raw);
                let response = Response::from(body).with_status_code(status.code().as_u8());
                return Box::pin(ready(Ok(response)));
            }
        };
        if method.kind == Kind::Stream {
            return Box::pin(stream::run(Arc::clone(method), request, permit));
        }
        // The form is needed for an error, after the data has been taken.
        let form = RequestForm::of(&request);
        let message = request.take_body();
        let head = match method.head(&request, message) {
            Ok(head) => head,
            Err(status) => {
                permit.into_iter().for_each(Permit::end);
                return Box::pin(ready(method.failed(status, form)));
            }
        };
        if method.interceptors.active(head.ctx.metadata()).is_some() {
            let call = intercept::run(Arc::clone(method), request, head, permit, form);
            return Box::pin(call);
        }
        let extras = CallExtras {
            permit: permit.map(Box::new),
            ..CallExtras::default()
        };
        method.body.new_call(method, request, head, extras)
    }

    fn on_cancel(&self) -> OnCancel {
        self.0.descriptor.cancel_policy()
    }

    fn request_mode(&self) -> RequestMode {
        match self.0.kind {
            Kind::Stream => RequestMode::Stream,
            Kind::Unary | Kind::Raw => RequestMode::Whole,
        }
    }

    /// A method with streams runs once its arguments have arrived.
    fn starts_late(&self) -> bool {
        self.0.kind == Kind::Stream
    }

    fn places(&self) -> Option<&Arc<Places>> {
        self.0.places.as_ref()
    }

    fn max_concurrency(&self) -> Option<u32> {
        self.0.gate.as_ref()?.method_limit()
    }

    /// The records of typed calls have a trace and the text of the status.
    fn records_calls(&self) -> bool {
        true
    }

    fn reject(&self, reason: &RejectReason, plain: bool) -> Body {
        reject(reason, plain, self.0.kind == Kind::Raw)
    }

    /// Returns `true` if the caller sent plain JSON.
    fn tag(&self, body: &Bytes) -> bool {
        is_plain(body)
    }

    fn on_panic(&self, plain: bool) -> Body {
        if self.0.kind == Kind::Raw {
            return r#"{"code":101,"message":"handle no response"}"#.into();
        }
        status_reply(&Status::internal("the handler panicked"), plain)
    }
}
