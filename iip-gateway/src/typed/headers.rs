//! Headers of requests that concern a call, and those of replies.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use iip_rpc::Position;
use iip_rpc::metadata::{Metadata, MetadataError};

use super::options::TypedOptions;
use crate::body::ReplyBody;
use crate::failure::Failure;
use crate::page;

const REQUEST_TIMEOUT: &str = "request-timeout";

/// Reads `Request-Timeout`, a number of seconds.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(REQUEST_TIMEOUT) else {
        return Ok(None);
    };
    let seconds = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse::<f64>().ok());
    let timeout = seconds.filter(|seconds| *seconds > 0.0);
    let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match timeout {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Failure::invalid(
            "Request-Timeout is not a positive number of seconds",
        )),
    }
}

/// Returns the position after which a subscription resumes, if the client sends one.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<Position>, Failure> {
    let value = headers.get("last-event-id").map(HeaderValue::as_bytes);
    match value {
        None | Some(b"") => Ok(None),
        Some(value) => {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let position = text.parse();
            let invalid = |error| Failure::invalid(format!("Last-Event-ID: {error}"));
            position.map(Some).map_err(invalid)
        }
    }
}

/// Returns the headers that become metadata.
pub(super) fn metadata(
    options: &TypedOptions,
    headers: &HeaderMap,
) -> Result<Metadata, MetadataError> {
    let mut metadata = Metadata::new();
    for (name, value) in options.metadata_of(headers) {
        metadata.append(name, Bytes::copy_from_slice(value))?;
    }
    Ok(metadata)
}

/// Sets the headers that every reply has.
pub(super) fn protect(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let store = headers.entry(CACHE_CONTROL);
    store.or_insert(HeaderValue::from_static("no-store"));
}

/// Returns a reply with status 200.
pub(super) fn reply(
    body: Bytes,
    content_type: &'static str,
    cache_control: &'static str,
) -> Response<ReplyBody> {
    with(ReplyBody::new(body), content_type, cache_control)
}

/// Returns a reply with status 200 and this body.
pub(super) fn with(
    body: ReplyBody,
    content_type: &'static str,
    cache_control: &'static str,
) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control));
    protect(headers);
    response
}

/// Returns the documentation page.
pub(super) fn page() -> Response<ReplyBody> {
    let text = Bytes::from_static(page::PAGE.as_bytes());
    let mut response = reply(text, "text/html; charset=utf-8", "no-cache");
    page::protect(response.headers_mut());
    response
}

/// Returns a redirect to another place, relative to the path of the request.
pub(super) fn moved(place: &'static str) -> Response<ReplyBody> {
    let mut response = empty(StatusCode::PERMANENT_REDIRECT);
    let place = HeaderValue::from_static(place);
    response.headers_mut().insert(LOCATION, place);
    response
}

/// Returns a reply without a body.
pub(super) fn empty(status: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::default());
    *response.status_mut() = status;
    protect(response.headers_mut());
    response
}

/// Returns the failure of a request with an HTTP method that its target does not accept.
pub(crate) fn not_allowed(methods: &'static str) -> Failure {
    let failure = Failure::refused(
        StatusCode::METHOD_NOT_ALLOWED,
        "UNIMPLEMENTED",
        format!("this path accepts {methods}"),
    );
    failure.with_header(ALLOW, HeaderValue::from_static(methods))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_timeout_is_a_positive_number_of_seconds() {
        let read = |text: &str| timeout(&headers(REQUEST_TIMEOUT, text)).map_err(|_| ());
        assert_eq!(read("2"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(read("0.25"), Ok(Some(Duration::from_millis(250))));
        for text in ["", "0", "-1", "1s", "NaN", "inf", "1e300"] {
            assert_eq!(read(text), Err(()), "{text:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()).map_err(|_| ()), Ok(None));
    }
}
