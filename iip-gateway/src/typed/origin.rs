//! Cross-origin calls from scripts of web pages (CORS).

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HOST, HeaderMap, HeaderValue, ORIGIN,
    VARY,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::headers;
use super::options::TypedOptions;
use crate::body::ReplyBody;
use crate::failure::Failure;

/// The headers that a script may set, in addition to those that become metadata.
const ALLOWED_HEADERS: &str = "content-type, accept, idempotency-key, last-event-id, \
                               request-timeout, traceparent, tracestate";

/// The time for which a browser caches the reply to a preflight request, in seconds.
const MAX_AGE: &str = "600";

/// Returns the origin of a request if it is listed, as the value for the reply.
pub(super) fn allowed(options: &TypedOptions, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let is_listed = options
        .origins
        .iter()
        .any(|listed| listed == "*" || origin == listed);
    is_listed.then(|| origin.clone())
}

/// Adds the headers that let a script read the reply.
pub(super) fn allow(headers: &mut HeaderMap, options: &TypedOptions, allowed: Option<HeaderValue>) {
    if options.origins.is_empty() {
        return;
    }
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static("retry-after");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

/// Returns the reply to a preflight request.
pub(super) fn preflight(options: &TypedOptions) -> Response<ReplyBody> {
    let mut allowed = ALLOWED_HEADERS.to_owned();
    for name in &options.metadata {
        allowed.push_str(", ");
        allowed.push_str(name.as_str());
    }
    let mut response = headers::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    // Names of headers are valid header values.
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

/// Returns `true` if a browser makes the request for a page of another origin. Not all such
/// requests have a preflight request, so a page could make calls in the name of its user.
pub(super) fn is_foreign(parts: &Parts) -> bool {
    let headers = &parts.headers;
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(b"same-origin" | b"none") => return false,
        Some(_) => return true,
        None => {}
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = authority.or(host).unwrap_or_default();
    let from = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    !from.is_some_and(|(_, host)| host.eq_ignore_ascii_case(own))
}

pub(super) fn refused() -> Failure {
    Failure::refused(
        StatusCode::FORBIDDEN,
        "PERMISSION_DENIED",
        "pages of this origin may not make calls (option origins)",
    )
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/a").header("host", "api.example:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn requests_of_other_origins_are_told_apart() {
        for (headers, foreign) in [
            (&[][..], false),
            (&[("origin", "http://api.example:8080")], false),
            (&[("origin", "http://API.example:8080")], false),
            (&[("origin", "http://api.example")], true),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "null")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "none")], false),
            (
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "https://seen.outside"),
                ],
                false,
            ),
        ] {
            assert_eq!(is_foreign(&parts(headers)), foreign, "{headers:?}");
        }
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        let headers = parts(&[("origin", "https://a.example")]).headers;
        let options = TypedOptions::new();
        assert_eq!(allowed(&options, &headers), None);
        let listed = options.origin("https://b.example");
        assert_eq!(allowed(&listed, &headers), None);
        let listed = listed.origin("https://a.example");
        assert_eq!(allowed(&listed, &headers).unwrap(), "https://a.example");
        let all = TypedOptions::new().origin("*");
        assert_eq!(allowed(&all, &headers).unwrap(), "https://a.example");
    }
}
