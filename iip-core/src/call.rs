//! The futures and handles of callers: a call, the parts of its reply, a leased channel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::{Body, Data};
use crate::client::{Client, Moves};
use crate::clock;
use crate::connection::{Connection, Shared, check_path};
use crate::error::{CallError, CallErrorKind, Phases};
use crate::frame::ChannelId;
use crate::proto::calls::{Slot, Start};
use crate::proto::slots::CallId;
use crate::proto::{self, Mode};

/// The times of one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "callers that make a deadline of their own fill it in"
)]
pub struct CallTimes {
    /// The time from which the call has needed a connection.
    pub started: Instant,
    /// The time at which it had a connection, which is the current time.
    pub connected: Instant,
    /// The time by which the call must end.
    pub deadline: Instant,
}

/// Runs `start` with the context of the task that awaits this, in its next poll; see
/// [`Connection::start_encoded`].
pub async fn with_context<T>(start: impl FnOnce(&Context<'_>) -> T) -> T {
    let mut start = Some(start);
    std::future::poll_fn(|cx| match start.take() {
        Some(start) => Poll::Ready(start(cx)),
        None => Poll::Pending,
    })
    .await
}

/// A raw call from its beginning; returned by [`Client::request`].
pub(crate) struct Request<'a> {
    client: &'a Client,
    path: &'a str,
    body: Body,
    timeout: Option<Duration>,
    moves: Moves,
    state: RequestState<'a>,
}

enum RequestState<'a> {
    /// The call has not been polled.
    New,
    /// The call waits for a connection.
    Connecting(Connecting<'a>),
    /// The call runs on its connection, unless that is lost before the request is sent.
    Started { call: Call, deadline: Instant },
}

/// The future that waits for a connection. Boxed, because calls rarely have to wait and their
/// future stays small.
type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Connection, CallTimes), CallError>> + Send + 'a>>;

impl<'a> Request<'a> {
    pub(crate) fn new(
        client: &'a Client,
        path: &'a str,
        body: Body,
        timeout: Option<Duration>,
    ) -> Self {
        Self {
            client,
            path,
            body,
            timeout,
            moves: Moves::default(),
            state: RequestState::New,
        }
    }

    fn start(&mut self, cx: &Context<'_>, connection: Connection, times: &CallTimes) {
        let path = check_path(self.path);
        let call = connection.start_now(cx, path, &mut Kept::new(&mut self.body), times);
        let deadline = times.deadline;
        self.state = RequestState::Started { call, deadline };
    }

    #[cold]
    fn connect(&mut self, times: CallTimes) {
        let client = self.client;
        self.state = RequestState::Connecting(Box::pin(async move {
            let mut times = times;
            let connection = client.connection_for(&mut times).await?;
            Ok((connection, times))
        }));
    }
}

impl Future for Request<'_> {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                RequestState::New => {
                    let times = this.client.times(this.timeout);
                    match this.client.ready_connection() {
                        Some(connection) => this.start(cx, connection, &times),
                        None => this.connect(times),
                    }
                }
                RequestState::Connecting(connecting) => {
                    let (connection, times) = ready!(connecting.as_mut().poll(cx))?;
                    this.start(cx, connection, &times);
                }
                RequestState::Started { call, deadline } => {
                    let unbegun = call.failure().is_some();
                    let error = match ready!(Pin::new(&mut *call).poll(cx)) {
                        Ok(answer) => return Poll::Ready(Ok(answer)),
                        Err(error) => error,
                    };
                    let mut times = CallTimes {
                        started: call.started,
                        connected: call.connected,
                        deadline: *deadline,
                    };
                    // An empty body means that it was too large to be kept for a retry.
                    let kept = !this.body.is_empty();
                    if !(kept && this.moves.goes_on(&error, unbegun, &mut times)) {
                        return Poll::Ready(Err(error));
                    }
                    this.connect(times);
                }
            }
        }
    }
}

/// Maximum size of a body that is kept while its call is under way, so that the call can be retried
/// on another connection.
const KEPT_BYTES: usize = 64 * 1024;

/// A body that its call may need for a retry. It stays in place and shares its memory with the data
/// that is sent. A large body is not kept: it is empty afterwards.
pub(crate) struct Kept<'a> {
    body: &'a mut Body,
    is_large: bool,
}

impl<'a> Kept<'a> {
    pub(crate) fn new(body: &'a mut Body) -> Self {
        let is_large = body.len() > KEPT_BYTES;
        Self { body, is_large }
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if self.is_large {
            *self.body = Body::default();
        }
    }
}

impl Data for Kept<'_> {
    const COPIED_BYTES: usize = Body::COPIED_BYTES;

    #[inline]
    fn pieces(&self) -> [&[u8]; 2] {
        self.body.pieces()
    }

    fn take(&mut self) -> Body {
        if self.is_large {
            self.body.take()
        } else {
            self.body.clone()
        }
    }

    fn take_piece(&mut self, index: usize) -> Bytes {
        if self.is_large {
            self.body.take_piece(index)
        } else {
            self.body.clone().take_piece(index)
        }
    }
}

/// A call under way, see [`Connection::call`]. Dropping it cancels the call.
pub struct Call {
    shared: Arc<Shared>,
    /// The slot of the call, until the outcome was taken.
    id: Option<CallId>,
    /// The error of a call that failed before it had a slot.
    failed: Option<CallError>,
    /// The time from which the call has needed a connection, and the time at which it had one.
    started: Instant,
    connected: Instant,
    /// The waker was registered when the call was started, in this very poll.
    registered: bool,
}

impl Call {
    #[inline]
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: Result<CallId, CallError>,
        times: &CallTimes,
        registered: bool,
    ) -> Self {
        let (id, failed) = match id {
            Ok(id) => (Some(id), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            registered: registered && id.is_some(),
            shared,
            id,
            failed,
            started: times.started,
            connected: times.connected,
        }
    }

    #[cold]
    fn explain(&self, error: CallError) -> CallError {
        let phases = Phases {
            connect: self.connected.saturating_duration_since(self.started),
            ..error.phases()
        };
        error.with_phases(phases)
    }

    /// Polls the slot: `Ready` with the value found by `take`, or `Pending` with the waker stored.
    /// `take` also returns whether its value is the last one.
    #[inline]
    fn poll_slot<T>(
        &mut self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut proto::Connection, &mut Slot) -> Option<(T, bool)>,
    ) -> Poll<Result<T, CallError>> {
        let Some(id) = self.id else {
            let error = self.failed.take();
            let error = error.unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed));
            return Poll::Ready(Err(self.explain(error)));
        };
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let found = state
            .calls
            .poll_slot(&mut state.proto, id, cx.waker(), take);
        drop(guard);
        match found {
            Some((value, last)) => {
                if last {
                    self.id = None;
                }
                Poll::Ready(Ok(value))
            }
            None => Poll::Pending,
        }
    }
}

impl Call {
    /// Returns the reason why the call could not be started.
    pub(crate) fn failure(&self) -> Option<&CallError> {
        self.failed.as_ref()
    }

    /// Returns the id of the call, until the outcome was taken.
    pub(crate) fn id(&self) -> Option<CallId> {
        self.id
    }

    /// Polls for the next bytes of the call's stream, or the reply after them.
    pub(crate) fn poll_stream(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Result<Bytes, Result<Bytes, CallError>>> {
        let Some(id) = self.id else {
            let error = self.failed.take();
            let error = error.unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed));
            return Poll::Ready(Err(Err(self.explain(error))));
        };
        let found = self.shared.stream_command(|state| {
            let take =
                |proto: &mut proto::Connection, slot: &mut Slot| match slot.take_stream(proto) {
                    Some(part) => Some((Ok(part), false)),
                    None => slot.take_outcome().map(|outcome| (Err(outcome), true)),
                };
            let calls = &mut state.calls;
            calls.poll_slot(&mut state.proto, id, cx.waker(), take)
        });
        match found {
            None => Poll::Pending,
            Some((Ok(part), _)) => Poll::Ready(Ok(part)),
            Some((Err(outcome), _)) => {
                self.id = None;
                Poll::Ready(Err(outcome.map_err(|error| self.explain(error))))
            }
        }
    }
}

impl Future for Call {
    type Output = Result<Bytes, CallError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.registered) {
            return Poll::Pending;
        }
        match self.poll_slot(cx, |_, slot| {
            slot.take_outcome().map(|outcome| (outcome, true))
        }) {
            Poll::Ready(Ok(Ok(body))) => Poll::Ready(Ok(body)),
            Poll::Ready(Ok(Err(error)) | Err(error)) => Poll::Ready(Err(self.explain(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared
                .command(|state| state.calls.abandon(&mut state.proto, id));
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// The parts of a streamed reply, in order. Dropping it cancels the call.
///
/// Parts that are not taken are held in memory, up to the option `max_message_bytes` of
/// [`Limits`](crate::Limits).
#[derive(Debug)]
pub struct ReplyParts {
    call: Call,
    ended: bool,
}

impl ReplyParts {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, ended: false }
    }

    /// Returns the next part; `None` after the last.
    ///
    /// Parts correspond to the frames of the reply; the sender decides how a message is cut into
    /// frames.
    ///
    /// # Errors
    ///
    /// See [`Connection::call`]; nothing follows an error.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; no part is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        if self.ended {
            return None;
        }
        let next = std::future::poll_fn(|cx| {
            self.call.poll_slot(cx, |proto, slot| {
                if let Some(part) = slot.take_part(proto) {
                    return Some(((Ok(part), false), false));
                }
                slot.take_outcome().map(|outcome| ((outcome, true), true))
            })
        });
        let (part, last) = match next.await {
            Ok(next) => next,
            Err(error) => (Err(error), true),
        };
        self.ended = last;
        Some(part.map_err(|error| self.call.explain(error)))
    }
}

/// A channel leased to one caller: requests sent on it are answered in order.
///
/// The server handles one of them at a time. Dropping the channel returns it to the pool of the
/// connection once every reply has arrived.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = iip_core::Client::connect("127.0.0.1:9000").await?;
/// let channel = client.open_channel().await?;
/// let (first, second) = (channel.request("/echo", "one"), channel.request("/echo", "two"));
/// assert_eq!(&first.await?[..], b"one");
/// assert_eq!(&second.await?[..], b"two");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Channel {
    connection: Connection,
    id: ChannelId,
    timeout: Duration,
}

impl Channel {
    /// Waits for the channel that `call` requests on this connection.
    pub(crate) async fn leased(
        connection: Connection,
        mut call: Call,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        let id = std::future::poll_fn(|cx| {
            call.poll_slot(cx, |_, slot| match slot.leased() {
                Some(channel) => Some((Ok(channel), true)),
                None => slot.take_outcome().map(|outcome| (Err(outcome), true)),
            })
        })
        .await?;
        match id {
            Ok(id) => Ok(Self {
                connection,
                id,
                timeout,
            }),
            Err(result) => Err(result
                .err()
                .unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed))),
        }
    }

    /// Returns the number of the channel on the wire.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Sends a request after the previous ones; several may be under way. The timeout is the
    /// client's `call_timeout`.
    ///
    /// The request is queued when this function is called, not when the future is polled.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the reply; the order of the other replies does not change.
    pub fn request(&self, path: &str, body: impl Into<Body>) -> Call {
        let now = clock::now();
        let start = Start {
            now,
            deadline: clock::after(now, self.timeout),
            on: Some(self.id),
            mode: Mode::Whole,
        };
        let (connection, path) = (self.connection.clone(), check_path(path));
        connection.start(path, &start, now, &mut body.into(), None)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection
            .shared
            .command(|state| state.calls.return_lease(&mut state.proto, self.id));
    }
}
