//! Calls of backends with the path, headers and body of a request, as in Go's HTTP adapter.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode, Version};
use iip_core::CallOptions;
use iip_core::path::label_and_query;

use crate::body::ReplyBody;
use crate::builder::Config;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::group::RawBackends;
use crate::header_map::append_packed;
use crate::large_reply::{self, LargeReply};
use crate::record::Record;
use crate::request::{HEADERS_PARAMETER, METHOD_PARAMETER};
use crate::request_body;
use crate::worker::Worker;

/// Maximum length of an IIP path, in bytes.
const MAX_PATH_BYTES: usize = 2048;

/// The body of a request without one: an IIP request has at least one byte.
const EMPTY_BODY: &[u8] = b"{}";

/// Number of bytes of a reply from which its type is detected, as in Go's `net/http`.
const SNIFFED_BYTES: usize = 512;

/// Calls a backend.
pub(crate) async fn call(
    exchange: Exchange<'_>,
    worker: &Worker,
    config: &Config,
    backends: &RawBackends,
    record: &mut Option<Record>,
) -> Result<Response<ReplyBody>, Failure> {
    let (peer, parts) = (exchange.peer, &exchange.parts);
    let options = CallOptions::new().timeout(backends.group.call_timeout());
    let options = match backends.group.hash_key_of(peer.addr, &parts.headers) {
        Some(key) => options.hash_key(key),
        None => options,
    };
    let are_ours = backends.are_ours().await;
    let path = path_of(parts, are_ours)?;
    if !backends.group.reserved_paths && is_reserved(&path) {
        return Err(Failure::not_found(
            "paths under /sys/ are not passed on (option reserved_paths of the group)",
        ));
    }

    let body = request_body::collect(exchange.body, &config.limits, &worker.buffered).await?;
    if let Some(record) = record {
        record.received.store(body.len(), Ordering::Relaxed);
    }
    let body = if body.is_empty() {
        Bytes::from_static(EMPTY_BODY)
    } else {
        body
    };
    let failed = |error| Failure::of_call(&error);
    // HTTP/1.0 ends a body of unknown length by closing the connection, so a truncated body would
    // look complete.
    if parts.version < Version::HTTP_11 {
        let reply = backends.client.request_with(&path, body, options).await;
        return whole(reply.map_err(failed)?, are_ours);
    }
    let reply = backends.client.stream_with(&path, body, options).await;
    let mut reply = reply.map_err(failed)?;
    let begun = large_reply::beginning(&mut reply).await.map_err(failed)?;
    if reply.is_ended() {
        return whole(begun, are_ours);
    }
    let content_type = type_of(&begun);
    let rest = LargeReply::new(reply, backends.group.call_timeout());
    Ok(response_of(ReplyBody::begun(begun, rest), content_type))
}

/// Returns a reply that has arrived completely, or the failure that it contains.
fn whole(reply: Bytes, are_ours: bool) -> Result<Response<ReplyBody>, Failure> {
    if are_ours && let Some(failure) = Failure::of_reply(&reply) {
        return Err(failure);
    }
    let content_type = type_of(&reply);
    Ok(response_of(ReplyBody::new(reply), content_type))
}

/// Returns `true` if the backend would take this path for a reserved path of the protocol.
fn is_reserved(path: &str) -> bool {
    label_and_query(path.as_bytes()).label.starts_with(b"/sys/")
}

/// Returns the IIP path: the target as it was received, with the headers as a parameter and, for
/// backends of this project, the method.
fn path_of(parts: &Parts, are_ours: bool) -> Result<String, Failure> {
    let mut path = String::with_capacity(512);
    path.push_str(parts.uri.path());
    // Go's adapter sends `??` for targets that end in `?`, and the server then finds no headers.
    match parts.uri.query() {
        None | Some("") => path.push('?'),
        Some(query) => {
            path.push('?');
            path.push_str(query);
            path.push('&');
        }
    }
    if are_ours {
        path.push_str(METHOD_PARAMETER);
        path.push('=');
        path.push_str(parts.method.as_str());
        path.push('&');
    }
    path.push_str(HEADERS_PARAMETER);
    path.push('=');
    let target = path.len();
    if target + 4 > MAX_PATH_BYTES {
        return Err(Failure::refused(
            StatusCode::URI_TOO_LONG,
            "INVALID_ARGUMENT",
            "the target is too long: a path of IIP has at most 2048 bytes, headers included",
        ));
    }
    append_packed(&parts.headers, |name| name != HOST, &mut path);
    if path.len() > MAX_PATH_BYTES {
        let headers = path.len() - target;
        return Err(Failure::refused(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "INVALID_ARGUMENT",
            format!(
                "the headers take {headers} bytes as base64: with the target, a path of IIP has \
                 at most {MAX_PATH_BYTES} bytes"
            ),
        ));
    }
    Ok(path)
}

fn response_of(body: ReplyBody, content_type: &'static str) -> Response<ReplyBody> {
    const TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns text or binary, as detected by Go's `net/http`. Other types are not detected: otherwise,
/// a client that can choose the beginning of a reply could make it HTML in a browser.
fn type_of(reply: &[u8]) -> &'static str {
    let first = reply.get(..SNIFFED_BYTES).unwrap_or(reply);
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if first.iter().any(is_binary) {
        "application/octet-stream"
    } else {
        "text/plain; charset=utf-8"
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn path(target: &str, headers: &[(&str, &str)], are_ours: bool) -> Result<String, u16> {
        let mut request = Request::delete(target).header("host", "a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        path_of(&parts, are_ours).map_err(|failure| failure.status.as_u16())
    }

    #[test]
    fn the_headers_are_a_parameter() {
        for (target, expected) in [
            ("/a", "/a?__http_hdr__=e30="),
            ("/a?", "/a?__http_hdr__=e30="),
            ("/a?x=1&y=a%20b", "/a?x=1&y=a%20b&__http_hdr__=e30="),
            ("/%61/../b", "/%61/../b?__http_hdr__=e30="),
        ] {
            assert_eq!(path(target, &[], false).unwrap(), expected);
        }
        assert_eq!(
            path("/a", &[], true).unwrap(),
            "/a?__http_method__=DELETE&__http_hdr__=e30="
        );
    }

    #[test]
    fn nothing_is_cut() {
        let fits = format!("/{}", "a".repeat(2048 - 1 - "?__http_hdr__=e30=".len()));
        assert_eq!(path(&fits, &[], false).unwrap().len(), 2048);
        assert_eq!(path(&format!("{fits}a"), &[], false), Err(414));
        assert_eq!(path(&fits, &[("a", "b")], false), Err(431));
        assert_eq!(
            path("/a", &[("cookie", &"c".repeat(2000))], false),
            Err(431)
        );
    }

    #[test]
    fn types_are_text_or_binary() {
        assert_eq!(type_of(b"<html>"), "text/plain; charset=utf-8");
        assert_eq!(type_of(b"a\0"), "application/octet-stream");
    }
}
