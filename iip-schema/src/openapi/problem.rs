//! The parts that all methods share: failures and headers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The key of the schema of failures.
pub(super) const SCHEMA: &str = "IipProblem";

/// An HTTP status, the key of its response, and the status codes that it stands for.
type Status = (u16, &'static str, &'static str);

const STATUSES: [Status; 11] = [
    (
        400,
        "BadRequest",
        "INVALID_ARGUMENT, FAILED_PRECONDITION or OUT_OF_RANGE",
    ),
    (401, "Unauthorized", "UNAUTHENTICATED"),
    (403, "Forbidden", "PERMISSION_DENIED"),
    (404, "NotFound", "NOT_FOUND"),
    (409, "Conflict", "ALREADY_EXISTS or ABORTED"),
    (429, "TooManyRequests", "RESOURCE_EXHAUSTED"),
    (499, "ClientClosedRequest", "CANCELLED"),
    (500, "InternalServerError", "UNKNOWN, INTERNAL or DATA_LOSS"),
    (501, "NotImplemented", "UNIMPLEMENTED"),
    (503, "ServiceUnavailable", "UNAVAILABLE"),
    (504, "GatewayTimeout", "DEADLINE_EXCEEDED"),
];

const CODES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The status of a failure that no other status stands for, and of errors of a method.
const UNKNOWN: u16 = 500;

/// The header with the position after which a subscription goes on.
pub(super) const LAST_EVENT_ID: &str = "LastEventId";

fn problem(schema: &Value) -> Value {
    json!({"application/problem+json": {"schema": schema}})
}

fn reference() -> Value {
    json!({"$ref": format!("#/components/schemas/{SCHEMA}")})
}

/// The schema of failures.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "A failed call (RFC 9457).",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": {"type": "string", "description": "A URI reference of the kind of problem."},
            "title": {"type": "string", "description": "The name of the HTTP status."},
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": {"type": "string", "description": "What went wrong."},
            "code": {
                "type": "string",
                "enum": CODES,
                "description": "The status code, with the names of gRPC.",
            },
            "retryable": {
                "type": "boolean",
                "description": "`true` if the call may succeed when it is repeated.",
            },
            "executed": {
                "type": "string",
                "enum": ["no", "maybe", "yes"],
                "description": "Whether the handler ran. After `no`, a repetition is safe.",
            },
            "variant": {
                "type": "string",
                "description": "The name of the variant of `error`, if its type is an enum.",
            },
            "trace_id": {
                "type": "string",
                "pattern": "^[0-9a-f]{32}$",
                "description": "The trace that the call belongs to.",
            },
        },
    })
}

/// The schema of failures with an error of a method in them.
pub(super) fn own(error: Value) -> Value {
    json!({"allOf": [reference(), {"type": "object", "properties": {"error": error}}]})
}

/// The responses that operations refer to.
pub(super) fn responses() -> Value {
    let responses = STATUSES.iter().map(|(status, key, codes)| {
        let mut response = json!({
            "description": format!("{codes}."),
            "content": problem(&reference()),
        });
        if matches!(status, 429 | 503) {
            response["headers"] = json!({
                "Retry-After": {
                    "description": "Seconds after which the call may be repeated.",
                    "schema": {"type": "integer", "minimum": 0},
                },
            });
        }
        ((*key).to_owned(), response)
    });
    responses.collect::<Map<_, _>>().into()
}

/// Adds the failures of a method. `error` is the schema of its own errors, and `own_statuses` are
/// the statuses that variants of them have, with the names of these variants.
pub(super) fn add_failures(
    responses: &mut Map<String, Value>,
    error: Option<Value>,
    own_statuses: &BTreeMap<u16, Vec<&str>>,
) {
    for (status, key, _) in STATUSES {
        let response = json!({"$ref": format!("#/components/responses/{key}")});
        responses.insert(status.to_string(), response);
    }
    let Some(error) = error else {
        return;
    };
    let own = own(error);
    let response = |text: &str| json!({"description": text, "content": problem(&own)});
    responses.insert(
        UNKNOWN.to_string(),
        response("An error of the method itself, in `error`; or UNKNOWN, INTERNAL or DATA_LOSS."),
    );
    responses.insert(
        "default".to_owned(),
        response("An error of the method itself, in `error`."),
    );
    for (status, variants) in own_statuses {
        let variants: Vec<String> = variants.iter().map(|name| format!("`{name}`")).collect();
        let variants = variants.join(" or ");
        let mut text = format!("The error {variants} of the method itself, in `error`");
        if let Some((_, _, codes)) = STATUSES.iter().find(|(known, ..)| known == status) {
            text = format!("{text}; or {codes}");
        }
        responses.insert(status.to_string(), response(&format!("{text}.")));
    }
}

/// The headers that operations refer to.
pub(super) fn parameters() -> Value {
    json!({
        "RequestTimeout": {
            "name": "Request-Timeout",
            "in": "header",
            "description": "The timeout of the call in seconds. The server may set less.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        },
        "TraceParent": {
            "name": "traceparent",
            "in": "header",
            "description": "The trace that the call belongs to (W3C Trace Context).",
            "schema": {
                "type": "string",
                "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
            },
        },
        LAST_EVENT_ID: {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The `id` of the last event that was received, to go on after it.",
            "schema": {"type": "string"},
        },
    })
}

/// A reference to one of the [`parameters`].
pub(super) fn parameter(key: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{key}")})
}
