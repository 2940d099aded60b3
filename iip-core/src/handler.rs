//! The only door between the connection and what runs on it: bytes in, bytes out.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::connection::{Peer, Shared};
use crate::path::Query;
use crate::proto::{RequestPath, control};
use crate::running::{CancelToken, ReplyStream, RequestParts};
use crate::stream::{RecvStream, SendStream};
use crate::totals::{Counted, RunningCall, Share};

/// What a [`Handler`] returns.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Response, HandlerError>> + Send>>;

/// Answers the requests of one path.
///
/// A handler is polled once where its request was read; only if it has to wait does it move to a
/// task of its own. So a handler that is ready at once costs no task, and one that computes for
/// long before its first `await` holds up its connection: use [`tokio::task::spawn_blocking`]
/// there.
///
/// Most handlers are closures, see [`handler_fn`].
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. A panic is caught and answered by [`on_panic`](Self::on_panic).
    fn call(&self, request: Request) -> HandlerFuture;

    /// What happens to a running call whose caller has gone. Default: [`OnCancel::Abort`].
    fn on_cancel(&self) -> OnCancel {
        OnCancel::Abort
    }

    /// How the handler takes requests. Default: [`RequestMode::Whole`].
    fn request_mode(&self) -> RequestMode {
        RequestMode::Whole
    }

    /// Returns `true` if a call with streams counts against the server's limit of running calls
    /// only from [`Request::start`] on, and not from its first frame. Default: no.
    fn starts_late(&self) -> bool {
        false
    }

    /// Where its running calls are counted, if not among those of `max_running_calls`. Default:
    /// `None`.
    ///
    /// For calls that wait by nature and for long, such as watches: so they cannot take the places
    /// of others. Asked once for each path of a connection.
    fn places(&self) -> Option<&Arc<Places>> {
        None
    }

    /// The answer to a request that is not run, or whose own answer cannot be sent. `tag` is that
    /// of the request; that of one without data when it was skipped for its size.
    fn reject(&self, reason: &RejectReason, tag: bool) -> Body {
        let _ = tag;
        control::handler_failure(&reason.to_string()).into()
    }

    /// What [`reject`](Self::refuse) and [`on_panic`](Self::on_panic) have to know of a request;
    /// asked before the handler runs. Default: nothing.
    fn tag(&self, body: &Bytes) -> bool {
        let _ = body;
        false
    }

    /// The answer to a request whose handler panicked. Default: the in-band error 101, as a Go
    /// server sends it.
    fn on_panic(&self, tag: bool) -> Body {
        let _ = tag;
        control::NO_RESPONSE.into()
    }
}

/// Places for running calls that are counted apart from all others, see [`Handler::places`].
#[derive(Debug)]
pub struct Places {
    option: &'static str,
    limit: usize,
    pub(crate) taken: AtomicUsize,
}

impl Places {
    /// As many calls as `limit`; further ones are refused, naming `option` as what to change.
    #[must_use]
    pub fn new(option: &'static str, limit: usize) -> Self {
        Self {
            option,
            limit,
            taken: AtomicUsize::new(0),
        }
    }

    pub(crate) fn reject_reason(&self) -> Option<RejectReason> {
        let &Self { option, limit, .. } = self;
        (self.taken.load(Ordering::Relaxed) >= limit)
            .then_some(RejectReason::NoPlace { option, limit })
    }
}

/// How a handler takes its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum RequestMode {
    /// It is called once, with the whole request.
    #[default]
    Whole,
    /// It gets the parts of a request as they arrive, see [`Request::parts`].
    Parts,
    /// It talks with callers that open a stream each way, see [`Request::stream`]. The requests of
    /// others are whole.
    Stream,
}

/// What happens to a running call whose caller has gone: gave up, ran out of time, or lost its
/// connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnCancel {
    /// Its future is dropped at the `await` where it stands.
    #[default]
    Abort,
    /// It runs on and is told through [`Request::cancelled`].
    Token,
    /// It runs to its end.
    RunToEnd,
}

/// The reason why a request gets another answer than that of its handler.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The server is shutting down.
    #[error("server is shutting down")]
    ShuttingDown,
    /// The server runs as many calls as it may.
    #[error("server runs {limit} calls already (option max_running_calls)")]
    Overloaded {
        /// The limit in force.
        limit: usize,
    },
    /// The server runs many calls, and most of them for this peer.
    #[error(
        "this peer runs most of the {limit} calls that the server may run (option \
         max_running_calls)"
    )]
    ShareTaken {
        /// The limit of all peers together.
        limit: usize,
    },
    /// The server runs as many calls of this kind as it may, see [`Places`].
    #[error("server runs {limit} calls of this kind already (option {option})")]
    NoPlace {
        /// The option to change.
        option: &'static str,
        /// The limit in force.
        limit: usize,
    },
    /// The connection runs as many calls as it may.
    #[error("the connection runs {limit} calls already (option max_calls)")]
    ConnectionBusy {
        /// The limit in force.
        limit: usize,
    },
    /// The calls of the connection hold as many bytes as they may.
    #[error(
        "the calls of the connection hold too much for {size} bytes more (option \
         max_buffered_bytes)"
    )]
    OutOfMemory {
        /// What would have been held for this call, in bytes.
        size: usize,
    },
    /// The handler has run and its answer was dropped: the peer does not read those before it.
    #[error(
        "an answer of {size} bytes was dropped because the caller has not read {unread} bytes \
         before it (option max_buffered_bytes)"
    )]
    Unread {
        /// The size of the answer, in bytes.
        size: usize,
        /// What waited for the caller to read, in bytes.
        unread: usize,
    },
    /// The caller opened a stream to a method that takes none.
    #[error("this method takes no stream")]
    NoStream,
    /// The request exceeds the limit.
    #[error(
        "request of {size} bytes or more exceeds the limit of {limit} bytes (option \
         max_message_bytes)"
    )]
    TooLarge {
        /// How much of it had arrived when it was refused, in bytes.
        size: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
}

/// A handler's failure; its text goes to the caller as `{"code":-1,"message":"handler fail:TEXT"}`.
///
/// Only text that was put here goes to the peer. Source of the format: recording `handler_error`.
/// The server logs it, see [`ServerConfig::log_failures`](crate::ServerConfig::log_failures).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct HandlerError {
    text: String,
    logged: bool,
}

impl HandlerError {
    /// A failure with this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            logged: false,
        }
    }

    /// The same for a failure that stands in the log already, by [`Peer::log_failure`].
    #[must_use]
    pub fn already_logged(mut self) -> Self {
        self.logged = true;
        self
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.logged
    }
}

impl From<String> for HandlerError {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for HandlerError {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// What a handler answers.
#[derive(Debug)]
pub struct Response(pub(crate) ResponseKind);

#[derive(Debug)]
pub(crate) enum ResponseKind {
    Whole(Body),
    Streamed,
}

impl Response {
    /// The answer was or will be sent through the [`ReplyStream`] of this request.
    #[must_use]
    pub fn streamed() -> Self {
        Self(ResponseKind::Streamed)
    }

    /// An answer without data. The caller gets the in-band error 101, as from a Go server.
    #[must_use]
    pub fn empty() -> Self {
        Self(ResponseKind::Whole(Body::default()))
    }
}

impl<B: Into<Body>> From<B> for Response {
    fn from(body: B) -> Self {
        Self(ResponseKind::Whole(body.into()))
    }
}

/// A request as a handler sees it.
pub struct Request {
    pub(crate) path: Arc<RequestPath>,
    pub(crate) body: Bytes,
    pub(crate) shared: Arc<Shared>,
    pub(crate) received_at: Instant,
    pub(crate) waited: Duration,
    pub(crate) one_way: bool,
    pub(crate) cancel: Option<CancelToken>,
    /// For a handler that takes more than whole requests. In a box, because every call moves its
    /// request.
    pub(crate) streams: Option<Box<Streams>>,
}

/// What a handler reads from and writes to.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) parts: Option<RequestParts>,
    pub(crate) reply: Option<ReplyStream>,
    pub(crate) stream: Option<(SendStream, RecvStream)>,
    /// What the call counts as from the moment that its handler says so; `None` if it counts
    /// already.
    pub(crate) counts_at_start: Option<Counted>,
}

impl Request {
    /// The path it was sent to: decoded, without query.
    #[must_use]
    pub fn path(&self) -> &str {
        // Only paths that are text reach a handler.
        std::str::from_utf8(&self.path.label).unwrap_or_default()
    }

    /// The parameters behind the `?` of the path, read when they are asked for.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        Query::new(&self.path.query)
    }

    /// The first value of a query parameter.
    #[must_use]
    pub fn query_param(&self, key: &str) -> Option<Cow<'_, str>> {
        self.query().get(key)
    }

    /// The data. It shares the buffer it was read into: copy what is kept for long.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The data, by value.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// Takes the data out; the request has none from then on.
    #[must_use]
    pub fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.body)
    }

    /// Who sent it.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.shared.peer
    }

    /// Counts `bytes` more that the call holds, such as its data once it is decompressed, until
    /// what this returns is dropped.
    ///
    /// # Errors
    ///
    /// The calls of the connection would hold more than
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

    /// A call with streams has everything that its handler needs, and counts as running until what
    /// this returns is dropped; see [`Handler::starts_late`].
    ///
    /// # Errors
    ///
    /// The server runs as many calls as it may.
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

    /// When the batch it came in was read.
    #[must_use]
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// How long it has waited for its turn since then: behind other requests of its channel, or of
    /// a connection that runs as many calls as it may. Mostly zero.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns `true` if nobody waits for the answer, see [`Client::send`](crate::Client::send): it
    /// goes nowhere.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.one_way
    }

    /// Waits until the caller has gone. Never, unless the handler's [`Handler::on_cancel`] is
    /// [`OnCancel::Token`].
    #[must_use]
    pub fn cancelled(&self) -> CancelToken {
        self.cancel.clone().unwrap_or_default()
    }

    /// The parts of the request as they arrive, once; only for a handler with
    /// [`RequestMode::Parts`].
    pub fn parts(&mut self) -> Option<RequestParts> {
        self.streams.as_mut()?.parts.take()
    }

    /// Where to send the answer in parts, once; only for a handler with [`RequestMode::Parts`]. The
    /// handler then returns [`Response::streamed`].
    pub fn reply(&mut self) -> Option<ReplyStream> {
        self.streams.as_mut()?.reply.take()
    }

    /// The stream each way, once, if the caller has opened one; only for a handler with
    /// [`RequestMode::Stream`]. The handler's response is the answer behind its stream.
    pub fn stream(&mut self) -> Option<(SendStream, RecvStream)> {
        self.streams.as_mut()?.stream.take()
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

/// A [`Handler`] from an async closure.
///
/// ```
/// use iip_core::{HandlerError, Request, Response, handler_fn};
///
/// let echo = handler_fn(|request: Request| async move { Ok::<_, HandlerError>(Response::from(request.into_body())) });
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

/// What [`handler_fn`] returns.
#[derive(Clone, Copy)]
pub struct HandlerFn<F> {
    call: F,
    on_cancel: OnCancel,
    request_mode: RequestMode,
}

impl<F> HandlerFn<F> {
    /// What happens when the caller has gone. Default: [`OnCancel::Abort`].
    #[must_use]
    pub fn on_cancel(mut self, policy: OnCancel) -> Self {
        self.on_cancel = policy;
        self
    }

    /// How it takes requests. Default: [`RequestMode::Whole`].
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
