//! Calls of unknown methods.

use std::sync::Arc;

use bytes::Bytes;
use iip_core::{Body, Handler, HandlerFuture, RejectReason, Request, Response};

use super::reply::{is_plain, reject, status_reply};
use crate::envelope;
use crate::method::MethodDescriptor;
use crate::status::{Code, Execution, Status};

/// Handler for calls of unknown methods.
pub(super) struct NoMethod {
    /// The paths of the methods that are served.
    paths: Vec<&'static str>,
}

impl NoMethod {
    pub(super) fn beside(handlers: &[(&'static MethodDescriptor, Arc<dyn Handler>)]) -> Self {
        Self {
            paths: handlers.iter().map(|(method, _)| method.path()).collect(),
        }
    }

    #[cold]
    fn status(&self, path: &str) -> Status {
        let mut text = format!("no method is registered under {path:?}");
        if let Some(closest) = iip_schema::__private::closest_path(path, &self.paths) {
            text.push_str(&format!("; the closest is {closest:?}"));
        }
        Status::unimplemented(text).with_execution(Execution::NotExecuted)
    }
}

impl Handler for NoMethod {
    /// Such calls are only counted, like others that do not run.
    fn records_calls(&self) -> bool {
        true
    }

    fn reject(&self, reason: &RejectReason, plain: bool) -> Body {
        reject(reason, plain, false)
    }

    fn tag(&self, body: &Bytes) -> bool {
        is_plain(body)
    }

    fn call(&self, request: Request) -> HandlerFuture {
        let reply = if envelope::is_envelope(request.body()) {
            status_reply(&self.status(request.path()), false)
        } else {
            // Source: recording unknown_path.
            r#"{"code":102,"message":"handle error"}"#.into()
        };
        let response = Response::from(reply).with_status_code(Code::Unimplemented.as_u8());
        Box::pin(async move { Ok(response) })
    }
}
