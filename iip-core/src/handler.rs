//! Handlers: the interface between a connection and the user code that it runs.
//!
//! Requests and replies are bytes on this interface.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::cancel::{CancelToken, OnCancel};
use crate::clock;
use crate::connection::running::{PartQueue, Running};
use crate::connection::{
    Peer, RecvStream, ReplyStream, RequestParts, RunningCall, SendStream, Shared, of_handler,
};
use crate::frame::ChannelId;
use crate::handler_error::{HandlerError, RejectReason};
use crate::path::Query;
use crate::proto::parts::Parts;
use crate::proto::stream_state::StreamState;
use crate::proto::{RequestPath, control};
use crate::totals::{Counted, Places, Share};

/// The future returned by a [`Handler`].
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Response, HandlerError>> + Send>>;

/// Handles the requests of one path.
///
/// A handler is first polled by the task that read its request, and moves to a task of its own only
/// if it has to wait. A handler that is ready at once therefore costs no task, but one that
/// computes for long before its first `await` blocks its connection: use
/// [`tokio::task::spawn_blocking`] there.
///
/// Most handlers are closures, see [`handler_fn`].
pub trait Handler: Send + Sync + 'static {
    /// Handles one request. A panic is caught, and the reply is then made by
    /// [`on_panic`](Self::on_panic).
    fn call(&self, request: Request) -> HandlerFuture;

    /// Returns the policy for a running call whose caller has gone. Default: [`OnCancel::Abort`].
    fn on_cancel(&self) -> OnCancel {
        OnCancel::Abort
    }

    /// Returns the form in which the handler takes requests. Default: [`RequestMode::Whole`].
    fn request_mode(&self) -> RequestMode {
        RequestMode::Whole
    }

    /// Returns `true` if a call with streams counts against the server's limit of running calls
    /// only from [`Request::start`] on, instead of from its first frame. Default: `false`.
    fn starts_late(&self) -> bool {
        false
    }

    /// Returns the counter for the handler's running calls, if they do not count against
    /// `max_running_calls`. Default: `None`.
    ///
    /// For calls that wait for a long time by design, such as watches, so that they do not use up
    /// the limit of other calls. Called once for each path of a connection.
    fn places(&self) -> Option<&Arc<Places>> {
        None
    }

    /// Returns the maximum number of calls that the handler runs at the same time, for those who
    /// watch the server: the handler itself rejects calls beyond it. Called by
    /// [`Server::stats`](crate::Server::stats). Default: `None`, no limit.
    fn max_concurrency(&self) -> Option<u32> {
        None
    }

    /// Returns `true` if the handler records its calls that fail or are slow itself, with
    /// [`Peer::record_call`], instead of the server. Default: `false`.
    #[doc(hidden)]
    fn records_calls(&self) -> bool {
        false
    }

    /// Returns the name of the method in [metrics](crate::stats::Snapshot::to_metrics), such as
    /// `shop.v1.Orders/find`. Called once, when the server starts. Default: `None`; the name is then
    /// the path without its first `/`.
    fn rpc_method(&self) -> Option<String> {
        None
    }

    /// Returns the reply to a request that is rejected, or whose own reply cannot be sent. `tag` is
    /// the tag of the request, or that of a request without data if it was skipped because of its
    /// size.
    fn reject(&self, reason: &RejectReason, tag: bool) -> Body {
        let _ = tag;
        control::handler_failure(&reason.to_string()).into()
    }

    /// Returns the information about a request that [`reject`](Self::reject) and
    /// [`on_panic`](Self::on_panic) need. Called before the handler runs. Default: `false`, no
    /// information.
    fn tag(&self, body: &Bytes) -> bool {
        let _ = body;
        false
    }

    /// Returns the reply to a request whose handler panicked. Default: the in-band error 101, which
    /// a Go server sends as well.
    fn on_panic(&self, tag: bool) -> Body {
        let _ = tag;
        control::NO_RESPONSE.into()
    }
}

/// The form in which a handler takes its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum RequestMode {
    /// The handler is called once, with the whole request.
    #[default]
    Whole,
    /// The handler gets the parts of a request as they arrive, see [`Request::parts`].
    Parts,
    /// The handler exchanges messages with callers that open a stream in each direction, see
    /// [`Request::stream`]. It gets the requests of other callers whole.
    Stream,
}

/// The reply of a handler.
#[derive(Debug)]
pub struct Response {
    pub(crate) kind: ResponseKind,
    /// The number of the status code that the call counts with.
    pub(crate) code: u8,
}

#[derive(Debug)]
pub(crate) enum ResponseKind {
    Whole(Body),
    Streamed,
}

impl Response {
    /// Creates a response for a reply that was or will be sent through the [`ReplyStream`] of this
    /// request.
    #[must_use]
    pub fn streamed() -> Self {
        Self {
            kind: ResponseKind::Streamed,
            code: 0,
        }
    }

    /// Creates a reply without data. The caller gets the in-band error 101, as from a Go server.
    #[must_use]
    pub fn empty() -> Self {
        Body::default().into()
    }

    /// Sets the number of the status code with which the statistics count the call. Default: 0, OK.
    /// It does not change the reply. A number above 16 counts as OK.
    #[must_use]
    pub fn with_status_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl<B: Into<Body>> From<B> for Response {
    fn from(body: B) -> Self {
        Self {
            kind: ResponseKind::Whole(body.into()),
            code: 0,
        }
    }
}

/// A request as passed to a handler.
pub struct Request {
    pub(crate) path: Arc<RequestPath>,
    pub(crate) body: Bytes,
    pub(crate) shared: Arc<Shared>,
    pub(crate) received_at: Instant,
    pub(crate) waited: Duration,
    pub(crate) one_way: bool,
    pub(crate) cancel: Option<CancelToken>,
    /// Set for a handler that does not take whole requests. Boxed, because every call moves its
    /// request.
    pub(crate) streams: Option<Box<Streams>>,
}

/// The parts and streams that a handler reads from and writes to.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) parts: Option<RequestParts>,
    pub(crate) reply: Option<ReplyStream>,
    pub(crate) stream: Option<(SendStream, RecvStream)>,
    /// The way the call is counted once its handler calls [`Request::start`]; `None` if it counts
    /// already.
    pub(crate) counts_at_start: Option<Counted>,
}

impl Request {
    /// Returns the path of the request, decoded and without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        // Only paths that are valid UTF-8 reach a handler.
        std::str::from_utf8(&self.path.label).unwrap_or_default()
    }

    /// Returns the parameters after the `?` of the path, parsed on access.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        Query::new(&self.path.query)
    }

    /// Returns the first value of a query parameter.
    #[must_use]
    pub fn query_param(&self, key: &str) -> Option<Cow<'_, str>> {
        self.query().get(key)
    }

    /// Returns the data. It shares the buffer it was read into: copy what is kept for long.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the data, by value.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// Takes the data out; the request has no data from then on.
    #[must_use]
    pub fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.body)
    }

    /// Returns the peer that sent the request.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.shared.peer
    }

    /// Counts `bytes` more bytes as held by the call, such as its data once it is decompressed,
    /// until the returned value is dropped.
    ///
    /// # Errors
    ///
    /// Fails if the calls of the connection would hold more than
    /// [`max_buffered_bytes`](crate::Limits::max_buffered_bytes).
    pub fn hold(&self, bytes: usize) -> Result<RunningCall, RejectReason> {
        let fits = self.shared.command(|state| {
            let fits = state.proto.fits(bytes);
            if fits {
                state.proto.hold(bytes);
            }
            fits
        });
        if !fits {
            return Err(RejectReason::OutOfMemory { size: bytes });
        }
        let shared = Arc::clone(&self.shared);
        Ok(RunningCall::new(shared, Counted::Late, bytes))
    }

    /// Marks a call with streams as running, once it has everything that its handler needs. It
    /// counts as running until the returned value is dropped; see [`Handler::starts_late`].
    ///
    /// # Errors
    ///
    /// Fails if the server is at capacity.
    pub fn start(&self) -> Result<RunningCall, RejectReason> {
        let streams = self.streams.as_ref();
        let counted = streams.and_then(|streams| streams.counts_at_start.clone());
        let reason = match &counted {
            Some(Counted::Now) => self.shared.share.as_ref().and_then(Share::reject_reason),
            Some(Counted::Apart(places)) => places.reject_reason(),
            Some(Counted::Late) | None => None,
        };
        match reason {
            Some(reason) => Err(reason),
            None => {
                let counted = counted.unwrap_or(Counted::Late);
                Ok(RunningCall::new(Arc::clone(&self.shared), counted, 0))
            }
        }
    }

    /// Returns the time at which the batch with this request was read.
    #[must_use]
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Returns the time the request has waited since then for other requests of its channel, or for
    /// a connection that is at capacity. Usually zero.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns `true` if the caller does not wait for the reply, see
    /// [`Client::send`](crate::Client::send): the reply is then discarded.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.one_way
    }

    /// Returns a token that completes once the caller has gone. It never completes unless the
    /// handler's [`Handler::on_cancel`] is [`OnCancel::Token`].
    #[must_use]
    pub fn cancelled(&self) -> CancelToken {
        self.cancel.clone().unwrap_or_default()
    }

    /// Returns the parts of the request as they arrive, on the first call only; only for a handler
    /// with [`RequestMode::Parts`].
    pub fn parts(&mut self) -> Option<RequestParts> {
        self.streams.as_mut()?.parts.take()
    }

    /// Returns the sender of a reply in parts, on the first call only; only for a handler with
    /// [`RequestMode::Parts`]. The handler then returns [`Response::streamed`].
    pub fn reply(&mut self) -> Option<ReplyStream> {
        self.streams.as_mut()?.reply.take()
    }

    /// Returns the stream in each direction, on the first call only, if the caller has opened one;
    /// only for a handler with [`RequestMode::Stream`]. The handler's response is the reply after
    /// its stream.
    pub fn stream(&mut self) -> Option<(SendStream, RecvStream)> {
        self.streams.as_mut()?.stream.take()
    }
}

impl Request {
    /// Gives a handler a stream in each direction; it is registered before the handler runs.
    pub(crate) fn add_stream(
        &mut self,
        shared: &Arc<Shared>,
        channel: ChannelId,
        mut running: Running,
        counts_at_start: Option<Counted>,
    ) {
        let serial = running.serial;
        let mut state = shared.lock();
        let credit = state.proto.peer_stream_window().unwrap_or(0);
        let window = state.proto.limits().get_stream_window();
        running.flow = Some(Box::new(StreamState::new(window, credit, clock::now())));
        state.running.insert(channel, running);
        drop(state);
        self.streams = Some(Box::new(Streams {
            stream: Some(of_handler(shared, channel, serial)),
            counts_at_start,
            ..Streams::default()
        }));
    }

    /// Gives a handler the parts of its request; they are registered before the handler runs.
    pub(crate) fn add_parts(
        &mut self,
        shared: &Arc<Shared>,
        channel: ChannelId,
        mut running: Running,
        complete: bool,
    ) {
        let serial = running.serial;
        let mut parts = Parts::default();
        let first = std::mem::take(&mut self.body);
        if !first.is_empty() {
            parts.push(first);
        }
        let bytes = parts.bytes();
        running.parts = Some(PartQueue {
            parts,
            ended: complete,
            waker: None,
        });
        shared.command(|state| {
            state.proto.buffer(bytes);
            state.running.insert(channel, running);
        });
        let parts = RequestParts::new(shared, channel, serial);
        let reply = ReplyStream::new(shared, channel, serial);
        self.streams = Some(Box::new(Streams {
            parts: Some(parts),
            reply: Some(reply),
            ..Streams::default()
        }));
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("path", &self.path())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Creates a [`Handler`] from an async closure.
///
/// ```
/// use iip_core::{HandlerError, Request, Response, handler_fn};
///
/// let echo = handler_fn(|request: Request| async move {
///     Ok::<_, HandlerError>(Response::from(request.into_body()))
/// });
/// # let _ = echo;
/// ```
pub fn handler_fn<F, Fut>(call: F) -> HandlerFn<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, HandlerError>> + Send + 'static,
{
    HandlerFn {
        call,
        on_cancel: OnCancel::Abort,
        request_mode: RequestMode::Whole,
    }
}

/// The handler returned by [`handler_fn`].
#[derive(Clone, Copy)]
pub struct HandlerFn<F> {
    call: F,
    on_cancel: OnCancel,
    request_mode: RequestMode,
}

impl<F> HandlerFn<F> {
    /// Sets the policy for calls whose caller has gone. Default: [`OnCancel::Abort`].
    #[must_use]
    pub fn on_cancel(mut self, policy: OnCancel) -> Self {
        self.on_cancel = policy;
        self
    }

    /// Sets the form in which the handler takes requests. Default: [`RequestMode::Whole`].
    #[must_use]
    pub fn request_mode(mut self, request_mode: RequestMode) -> Self {
        self.request_mode = request_mode;
        self
    }
}

impl<F> fmt::Debug for HandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerFn")
            .field("on_cancel", &self.on_cancel)
            .finish_non_exhaustive()
    }
}

impl<F, Fut> Handler for HandlerFn<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, HandlerError>> + Send + 'static,
{
    fn call(&self, request: Request) -> HandlerFuture {
        Box::pin((self.call)(request))
    }

    fn on_cancel(&self) -> OnCancel {
        self.on_cancel
    }

    fn request_mode(&self) -> RequestMode {
        self.request_mode
    }
}
