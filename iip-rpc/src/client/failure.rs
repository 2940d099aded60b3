//! Conversion of failures below the typed layer to statuses.

use std::time::{Duration, Instant};

use iip_core::__rpc::{CallTracker, now, outcome_of};
use iip_core::balance::Outcome;
use iip_core::{CallError, CallErrorKind};

use crate::envelope::{PlainError, ServerTiming};
use crate::limits::ENVELOPE_BYTES;
use crate::method::MethodDescriptor;
use crate::pushback::Pushback;
use crate::retry::Attempts;
use crate::status::{Code, Execution, Phases, Status};

/// Records that a call has failed with `status` after the backend had replied, or with `error`
/// before.
#[cold]
pub(super) fn track_failure(
    tracker: Option<&mut CallTracker>,
    connected: Instant,
    status: &Status,
    error: Option<&CallError>,
    attempts: &mut Attempts,
) {
    let Some(tracker) = tracker else {
        return;
    };
    let outcome = match error {
        Some(error) => outcome_of(error),
        None => status_outcome(status, tracker),
    };
    tracker.end(connected, outcome);
    add_tried(tracker, status, attempts);
}

/// Adds the backend to those that a call was sent to without success.
pub(super) fn add_tried(tracker: &CallTracker, status: &Status, attempts: &mut Attempts) {
    let phases = status.phases().copied().unwrap_or_default();
    let text = format!("{}: {}", status.code(), status.message());
    attempts
        .tried
        .add(tracker, text, status.execution(), phases);
}

/// Returns what a status in a reply says about the backend.
pub(super) fn status_outcome(status: &Status, tracker: &CallTracker) -> Outcome {
    let has_not_run = status.execution() == Execution::NotExecuted;
    match (status.code(), status.pushback()) {
        // A server that is shutting down rejects calls that cross its notice.
        (Code::Unavailable, _) if has_not_run && !tracker.is_connected() => Outcome::Cancelled,
        (Code::ResourceExhausted, Some(Pushback::After(pushback))) if has_not_run => {
            Outcome::Rejected { pushback }
        }
        (
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::DeadlineExceeded,
            pushback,
        ) => Outcome::Failure {
            pushback: pushback.map(|pushback| match pushback {
                Pushback::After(pause) => pause,
                Pushback::Never => Duration::ZERO,
            }),
        },
        (Code::Cancelled, _) => Outcome::Cancelled,
        // The status blames the call.
        _ => Outcome::Success,
    }
}

/// The phases of a call to which the server replied with a failure.
pub(super) fn phases(started: Instant, timing: Option<ServerTiming>) -> Phases {
    let mut phases = Phases::default();
    phases.reply = now().saturating_duration_since(started);
    phases.server_queue = timing.map(|timing| timing.queue);
    phases.server_handler = timing.map(|timing| timing.handler);
    phases
}

/// Adds the method and the phases to `status`, which describes a malformed reply of `method`.
#[cold]
pub(super) fn bad_reply(
    method: &MethodDescriptor,
    started: Instant,
    timing: Option<ServerTiming>,
    status: Status,
) -> Status {
    status
        .in_method(method)
        .with_phases(phases(started, timing))
}

/// Converts an error in plain JSON to a status for the caller of `method`.
#[cold]
pub(super) fn plain_failure(
    method: &MethodDescriptor,
    error: PlainError,
    started: Instant,
) -> Status {
    let unknown_path = error.is_unknown_path();
    let mut status = error.into_status();
    if unknown_path {
        // The text of IIP itself does not contain the path.
        let text = format!(
            "no method is registered under {:?} (code 102: {})",
            method.path(),
            status.message()
        );
        status = status.reworded(text).in_method(method);
    }
    status.with_phases(phases(started, None))
}

#[cold]
pub(super) fn request_too_large(method: &MethodDescriptor, size: usize, limit: usize) -> Status {
    not_sent(Status::resource_exhausted(format!(
        "{method}: a message of {size} bytes exceeds the limit of {limit} bytes (option \
         max_message_bytes)"
    )))
}

pub(super) fn not_sent(status: Status) -> Status {
    status.with_execution(Execution::NotSent)
}

/// Converts a failure below the typed layer to a status.
pub(super) fn call_status(error: &CallError, method: Option<&MethodDescriptor>) -> Status {
    let code = Code::from_u8(error.kind().status_code()).unwrap_or(Code::Unavailable);
    let what = match error.kind() {
        CallErrorKind::Timeout => {
            "no reply in time (option timeout of the client, of its CallOptions, or of the method)"
                .to_owned()
        }
        // The limit as it was set, which does not count the envelope.
        &CallErrorKind::MessageTooLarge { size, limit } => CallErrorKind::MessageTooLarge {
            size,
            limit: limit.saturating_sub(ENVELOPE_BYTES),
        }
        .to_string(),
        kind => kind.to_string(),
    };
    let mut text = match method {
        Some(method) => format!("{method}: {what}"),
        None => what,
    };
    // A status that is sent on, or displayed without its sources, should still name the cause.
    let mut source = std::error::Error::source(error.kind());
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let pushback = match error.kind() {
        CallErrorKind::Recovering { retry_after } => Some(*retry_after),
        _ => None,
    };
    let mut status = Status::new(code, text);
    if let Some(pause) = pushback {
        status = status.with_retry_after(pause);
    }
    status
        .with_execution(error.execution())
        .with_phases(error.phases())
        .with_told_source(error.clone())
}
