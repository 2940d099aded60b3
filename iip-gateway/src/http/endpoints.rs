//! Probes of an orchestrator or load balancer, and metrics.

use bytes::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use iip_core::ServerHandle;
use iip_core::stats::MetricsFormat;

use crate::body::ReplyBody;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::typed::headers::not_allowed;

/// Returns the reply to a liveness probe.
pub(super) fn liveness(exchange: &Exchange<'_>) -> Result<Response<ReplyBody>, Failure> {
    reply(exchange, StatusCode::OK, "ok\n")
}

/// Returns the reply to a readiness probe.
pub(super) fn readiness(
    exchange: &Exchange<'_>,
    is_ready: bool,
) -> Result<Response<ReplyBody>, Failure> {
    match is_ready {
        true => reply(exchange, StatusCode::OK, "ready\n"),
        false => reply(exchange, StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

/// Returns the reply with the counters of the server.
pub(super) fn metrics(
    exchange: &Exchange<'_>,
    server: &ServerHandle,
) -> Result<Response<ReplyBody>, Failure> {
    let accept = exchange.parts.headers.get(ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let format = MetricsFormat::accepted(accept.unwrap_or_default());
    let mut response = reply(exchange, StatusCode::OK, server.stats().to_metrics(format))?;
    let content_type = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

fn reply(
    exchange: &Exchange<'_>,
    status: StatusCode,
    text: impl Into<Bytes>,
) -> Result<Response<ReplyBody>, Failure> {
    if !matches!(exchange.parts.method, Method::GET | Method::HEAD) {
        return Err(not_allowed("GET, HEAD"));
    }
    let mut response = Response::new(ReplyBody::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
