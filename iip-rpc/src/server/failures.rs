//! Log entries of methods that fail.

use std::error::Error;

use crate::context::CallContext;
use crate::status::{Code, Status};

/// Logs the failure of a method: with `status`, or with its own error.
#[cold]
pub(super) fn log(ctx: &CallContext, status: Option<&Status>, own: &dyn Error) {
    let (Some(method), Some(peer)) = (ctx.method(), ctx.peer()) else {
        return;
    };
    match status {
        Some(status) => peer.log_failure(method.path(), status, is_fault(status)),
        // An error of the method's own type is a normal reply of the application.
        None => peer.log_failure(method.path(), own, false),
    }
}

/// Returns `true` if the server's operator should know of it. The cause of a status is meant for
/// the log.
fn is_fault(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unknown | Code::Internal | Code::DataLoss
    ) || status.source().is_some()
}

/// The text of a status and its causes, for a log.
#[cold]
pub(super) fn with_causes(status: &Status) -> String {
    let mut text = status.to_string();
    let mut cause = status.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
