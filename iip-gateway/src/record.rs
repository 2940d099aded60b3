//! The record of a request for the access log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::http::request::Parts;
use tokio::time::Instant;

use crate::access_log::{AccessLog, Entry};
use crate::trace::Trace;

/// The status in the log for a request whose client has disconnected.
const CLIENT_GONE: u16 = 499;

/// The line of the access log for a request. It is written when the reply is ready or the client
/// disconnects; for a stream, when the stream has ended.
#[derive(Debug)]
pub(crate) struct Record {
    log: AccessLog,
    peer: Option<SocketAddr>,
    method: hyper::Method,
    host: String,
    target: String,
    version: hyper::Version,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) status: u16,
    /// Shared with a body that is received while the reply is sent.
    pub(crate) received: Arc<AtomicUsize>,
    pub(crate) sent: usize,
    since: Instant,
    trace_id: Box<str>,
    pub(crate) cause: Option<String>,
}

impl Record {
    pub(crate) fn new(
        log: AccessLog,
        peer: Option<SocketAddr>,
        parts: &Parts,
        trace: &Trace,
    ) -> Self {
        let host = parts.headers.get(hyper::header::HOST);
        let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let authority = parts.uri.authority().map(ToString::to_string);
        let target = parts.uri.path_and_query();
        Self {
            log,
            peer,
            method: parts.method.clone(),
            host: authority.or(host).unwrap_or_default(),
            target: target.map_or_else(String::new, ToString::to_string),
            version: parts.version,
            group: None,
            status: CLIENT_GONE,
            received: Arc::default(),
            sent: 0,
            since: Instant::now(),
            trace_id: trace.id(),
            cause: None,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.log.add(&Entry {
            peer: self.peer,
            method: &self.method,
            host: &self.host,
            target: &self.target,
            version: self.version,
            group: self.group.as_deref(),
            status: self.status,
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent,
            time: self.since.elapsed(),
            trace_id: &self.trace_id,
            cause: self.cause.as_deref(),
        });
    }
}
