//! A request for an API.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hyper::body::Incoming;
use hyper::http::request::Parts;

use crate::limits::Limits;
use crate::request::Checked;
use crate::request_body::Buffered;
use crate::trace::Trace;

/// Completes when a shutdown begins.
pub(crate) type ShuttingDown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request that has passed the checks, without the headers of its connection.
pub(crate) struct ApiRequest<'a> {
    pub(crate) checked: Checked,
    pub(crate) parts: Parts,
    pub(crate) body: Incoming,
    /// The key that chooses the backend, for policies that hash.
    pub(crate) hash_key: Option<Vec<u8>>,
    pub(crate) limits: &'a Limits,
    pub(crate) buffered: &'a Arc<Buffered>,
    /// A function that returns a future, which completes when the HTTP server begins to shut down.
    pub(crate) shutting_down: &'a (dyn Fn() -> ShuttingDown + Sync),
    /// The number of bytes of the body that have been received so far.
    pub(crate) received: Arc<AtomicUsize>,
    pub(crate) trace: &'a Trace,
}
