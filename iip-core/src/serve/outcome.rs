//! The outcome of a call: its status code and reply, and what is logged and recorded of it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::catch_panic::dispose;
use super::incoming::Received;
use crate::body::Body;
use crate::connection::Shared;
use crate::handler::{Handler, Response, ResponseKind};
use crate::handler_error::HandlerError;
use crate::proto::{RequestPath, control};
use crate::stats::{INTERNAL, RecentCall};

/// Returns the number of the status code that a call counts with.
#[inline]
pub(super) fn code_of(result: &Result<Response, HandlerError>) -> u8 {
    match result {
        Ok(response) => response.code,
        Err(error) => error.status_code(),
    }
}

/// Returns the bytes of a reply; `None` if it was or will be sent in parts.
#[inline]
pub(super) fn reply_of(result: Result<Response, HandlerError>) -> Option<Body> {
    match result.map(|response| response.kind) {
        Ok(ResponseKind::Whole(body)) => Some(control::or_no_response(body)),
        Ok(ResponseKind::Streamed) => None,
        Err(error) => Some(control::handler_failure(&error.to_string()).into()),
    }
}

/// Logs that a one-way call was not run, or has failed: its caller gets no reply.
#[cold]
pub(super) fn on_lost(shared: &Shared, path: &RequestPath, why: &dyn fmt::Display) {
    if let Some(logs) = shared.peer.logs() {
        logs.one_way(shared.peer.addr(), &path.label, why);
    }
}

/// Logs the failure of a call.
#[inline]
pub(super) fn on_failed(
    shared: &Shared,
    path: &RequestPath,
    result: &Result<Response, HandlerError>,
    one_way: bool,
) {
    let Err(error) = result else { return };
    if one_way {
        on_lost(shared, path, error);
    } else if !error.is_logged() {
        let path = String::from_utf8_lossy(&path.label);
        shared.peer.log_failure(&path, error, false);
    }
}

/// Records a call that has failed, or may be slow, unless its handler does.
#[cold]
pub(super) fn record(
    shared: &Shared,
    handler: &dyn Handler,
    path: &RequestPath,
    received: Received,
    result: &Result<Response, HandlerError>,
) {
    if handler.records_calls() {
        return;
    }
    let text = result.as_ref().err().map(HandlerError::to_string);
    record_call(
        shared,
        path,
        received,
        code_of(result),
        text.unwrap_or_default(),
    );
}

fn record_call(shared: &Shared, path: &RequestPath, received: Received, code: u8, message: String) {
    let path = String::from_utf8_lossy(&path.label);
    let mut call = RecentCall::at_server(&path, code, received.at, received.waited);
    call.message = message;
    shared.peer.record_call(call);
}

/// Logs and records the panic of a handler. Returns the reply.
pub(super) fn on_panic(
    shared: &Shared,
    handler: &dyn Handler,
    path: &RequestPath,
    received: Received,
    panic: Box<dyn Any + Send>,
    tag: bool,
) -> Body {
    if let Some(logs) = shared.peer.logs() {
        logs.panic(shared.peer.addr(), &path.label, &*panic);
    }
    dispose(panic);
    record_call(
        shared,
        path,
        received,
        INTERNAL,
        "the handler panicked".to_owned(),
    );
    catch_unwind(AssertUnwindSafe(|| handler.on_panic(tag))).unwrap_or_else(|panic| {
        dispose(panic);
        control::NO_RESPONSE.into()
    })
}
