//! Replies that do not come from a handler: the table of statuses and `application/problem+json`.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode, Version};
use iip_core::stats::CODE_NAMES;
use iip_core::{CallError, CallErrorKind, Execution};
use iip_rpc::schema::Variant;
use iip_rpc::{Pushback, Status};
use serde_json::{Value, json};

use crate::body::ReplyBody;

/// The statuses of replies that do not come from a handler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Statuses {
    /// Specific HTTP statuses, with a body of type `application/problem+json`.
    #[default]
    Http,
    /// The statuses of Go's HTTP adapter, with an empty body: 501 if there is no route, 500 if a
    /// backend has failed or timed out. Requests that Go's adapter would not have rejected get the
    /// same statuses as with [`Http`](Self::Http).
    Go,
}

/// Indicates whether a handler has run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Executed {
    No,
    Maybe,
    Yes,
}

/// A reply that does not come from a handler.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    /// The name of the gRPC status code.
    pub(crate) code: &'static str,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) executed: Executed,
    pub(crate) retry_after: Option<Duration>,
    /// Fields that most failures do not have.
    pub(crate) more: Option<Box<More>>,
    /// Set if nothing more is read from an HTTP/1 connection.
    pub(crate) closes: bool,
    /// The cause, with internal addresses; it is not sent to clients.
    pub(crate) cause: Option<String>,
    /// The status of Go's adapter.
    pub(crate) go: Option<StatusCode>,
}

/// Fields that most failures do not have.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct More {
    /// The typed error of a method.
    pub(crate) error: Option<Value>,
    /// The name of its variant, if its type is an enum.
    pub(crate) variant: Option<Box<str>>,
    /// The trace of the request.
    pub(crate) trace_id: Option<Box<str>>,
    /// Further headers of the reply.
    pub(crate) headers: HeaderMap,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            executed: Executed::No,
            retry_after: None,
            more: None,
            closes: false,
            cause: None,
            go: None,
        }
    }

    /// Rejects a malformed request; its connection ends.
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", detail)
    }

    /// Rejects a request whose body may not have been read; its connection ends.
    pub(crate) fn refused(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let mut failure = Self::new(status, code, detail);
        failure.closes = true;
        failure
    }

    /// Rejects a request that was read to its end.
    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", detail)
    }

    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", detail)
    }

    pub(crate) fn no_route() -> Self {
        let mut failure = Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "no route of the gateway fits the request",
        );
        failure.go = Some(StatusCode::NOT_IMPLEMENTED);
        failure
    }

    /// Returns the failure for the error of a call, in the gateway or on the way to the backend.
    pub(crate) fn of_call(error: &CallError) -> Self {
        let (status, code, detail) = match error.kind() {
            CallErrorKind::Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "DEADLINE_EXCEEDED",
                "the backend did not reply in time",
            ),
            CallErrorKind::MessageTooLarge { .. } if error.execution() == Execution::NotSent => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "RESOURCE_EXHAUSTED",
                "the body is larger than a message to a backend may be",
            ),
            CallErrorKind::MessageTooLarge { .. } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "INTERNAL",
                "the reply of the backend is too large",
            ),
            CallErrorKind::EmptyBody | CallErrorKind::InvalidPath(_) => (
                StatusCode::BAD_REQUEST,
                "INVALID_ARGUMENT",
                "the request cannot be sent to a backend",
            ),
            CallErrorKind::RejectedByPolicy { .. } => (
                StatusCode::BAD_REQUEST,
                "FAILED_PRECONDITION",
                "the balancing policy rejected the request",
            ),
            CallErrorKind::QueueFull { .. } | CallErrorKind::BufferFull { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "UNAVAILABLE",
                "the gateway has too many calls to the backend",
            ),
            CallErrorKind::ConnectionLost(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "UNAVAILABLE",
                "the connection to the backend was lost",
            ),
            _ => (
                StatusCode::SERVICE_UNAVAILABLE,
                "UNAVAILABLE",
                "no backend can be reached",
            ),
        };
        let mut failure = Self::new(status, code, detail);
        failure.executed = match error.execution() {
            Execution::MayHaveExecuted => Executed::Maybe,
            _ => Executed::No,
        };
        if let CallErrorKind::Recovering { retry_after } = error.kind() {
            failure.retry_after = Some(*retry_after);
        }
        failure.cause = Some(format!("{error:?}"));
        failure.go = Some(StatusCode::INTERNAL_SERVER_ERROR);
        failure
    }

    /// Returns the failure for the status of a typed call. Only texts from the backend itself are
    /// sent to the client: the text of a failure on the way to the backend may contain addresses.
    pub(crate) fn of_status(status: &Status) -> Self {
        let error = status.cause().and_then(|cause| cause.downcast_ref());
        let mut failure = match error {
            Some(error) => Self::of_call(error),
            None => {
                let found = status_of(i64::from(status.code().as_u8()));
                let (http, code) = found.unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"));
                Self::new(http, code, status.own_message().to_owned())
            }
        };
        failure.executed = match status.execution() {
            Execution::MayHaveExecuted => Executed::Maybe,
            _ => Executed::No,
        };
        if let Some(Pushback::After(pause)) = status.pushback() {
            failure.retry_after = Some(pause);
        }
        failure.cause = Some(status.to_string());
        failure
    }

    /// Returns the failure for a method's own error, as JSON. The variant may have an HTTP status.
    pub(crate) fn of_method(error: Value, variant: Option<&Variant>) -> Self {
        let detail = match variant {
            Some(variant) => format!("the method failed with its error {}", variant.name),
            None => "the method failed with an error of its own".to_owned(),
        };
        let status = variant.and_then(Variant::http_status);
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut failure = Self::new(status, "UNKNOWN", detail);
        failure.executed = Executed::Yes;
        let more = failure.more();
        more.error = Some(error);
        more.variant = variant.map(|variant| variant.name.as_str().into());
        failure
    }

    /// Returns the fields that most failures do not have.
    pub(crate) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Adds a header to the reply.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more().headers.insert(name, value);
        self
    }

    /// Returns the failure that a reply of a backend of this project contains: an in-band IIP
    /// error, or the status of a typed method in plain mode. Sources: wire.md, plain mode;
    /// recordings `unknown_path`, `handler_error`.
    pub(crate) fn of_reply(reply: &[u8]) -> Option<Self> {
        // The most common replies are recognized without parsing.
        if !reply.starts_with(b"{\"code\":") || reply.starts_with(b"{\"code\":0") {
            return None;
        }
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(reply) else {
            return None;
        };
        let code = fields.remove("code")?.as_i64()?;
        let message = match fields.remove("message") {
            Some(Value::String(message)) => message,
            Some(_) => return None,
            None => String::new(),
        };
        let error = fields.remove("error");
        let (status, name) = status_of(code)?;
        if !fields.is_empty() {
            return None;
        }
        let mut failure = Self::new(status, name, message);
        failure.executed = match code {
            102 | 105..=107 | 12 | 16 => Executed::No,
            -1 | 101 => Executed::Yes,
            _ if error.is_some() => Executed::Yes,
            _ => Executed::Maybe,
        };
        if error.is_some() {
            failure.more().error = error;
        }
        Some(failure)
    }

    /// Returns `true` if a later attempt may succeed.
    fn is_retryable(&self) -> bool {
        matches!(self.status.as_u16(), 429 | 503)
            || (self.status == 504 && self.executed == Executed::No)
    }

    pub(crate) fn into_response(self, statuses: Statuses, version: Version) -> Response<ReplyBody> {
        let retry_after = self.retry_after.map(|time| {
            let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
            HeaderValue::from(seconds.max(1))
        });
        let go = self.go.filter(|_| statuses == Statuses::Go);
        let mut response = match go {
            Some(status) => {
                let mut response = Response::new(ReplyBody::default());
                *response.status_mut() = status;
                response
            }
            None => {
                let problem = self.problem().to_string();
                let mut response = Response::new(ReplyBody::new(Bytes::from(problem)));
                *response.status_mut() = self.status;
                let problem = HeaderValue::from_static("application/problem+json");
                response.headers_mut().insert(CONTENT_TYPE, problem);
                response
            }
        };
        if let Some(more) = self.more {
            response.headers_mut().extend(more.headers);
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if self.closes && version < Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    /// Returns the object of `application/problem+json`.
    pub(crate) fn problem(&self) -> Value {
        let executed = match self.executed {
            Executed::No => "no",
            Executed::Maybe => "maybe",
            Executed::Yes => "yes",
        };
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or(self.code),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "retryable": self.is_retryable(),
            "executed": executed,
        });
        if let Some(more) = &self.more {
            let texts = [("variant", &more.variant), ("trace_id", &more.trace_id)];
            for (name, text) in texts {
                if let Some(text) = text {
                    body[name] = (**text).into();
                }
            }
            if let Some(error) = &more.error {
                body["error"] = error.clone();
            }
        }
        body
    }
}

/// Returns the HTTP status for a gRPC code or an in-band IIP code, and the name of the code.
fn status_of(code: i64) -> Option<(StatusCode, &'static str)> {
    let code = match code {
        1..=16 => usize::try_from(code).ok()?,
        -1 | 100 | 101 | 104 => 13,
        102 | 105 => 5,
        103 => 4,
        106..=108 => 14,
        _ => return None,
    };
    let status = match code {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    Some((StatusCode::from_u16(status).ok()?, CODE_NAMES.get(code)?))
}

#[cfg(test)]
mod tests;
