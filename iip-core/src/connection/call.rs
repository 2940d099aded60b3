//! The future of a call that was started on a connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::task::coop::consume_budget;

use super::shared::Shared;
use super::{Connection, Peer};
use crate::balance::Outcome;
use crate::body::{Body, Data, Encoded};
use crate::client::{CallTracker, outcome_of};
use crate::clock;
use crate::error::{CallError, CallErrorKind, Phases};
use crate::path::StaticPath;
use crate::proto;
use crate::proto::Mode;
use crate::proto::calls::{Slot, Start};
use crate::proto::slots::CallId;

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

impl CallTimes {
    /// The times of a call that begins now and has its connection.
    #[inline]
    #[must_use]
    pub fn new(now: Instant, deadline: Instant) -> Self {
        Self {
            started: now,
            connected: now,
            deadline,
        }
    }
}

/// Runs `start` with the context of the task that awaits this, in its next poll; see
/// [`Call::start_encoded`].
pub fn with_context<T>(start: impl FnOnce(&Context<'_>) -> T) -> impl Future<Output = T> {
    let mut start = Some(start);
    // Not an `async fn`, whose future would have room for `start` twice.
    poll_fn(move |cx| match start.take() {
        Some(start) => Poll::Ready(start(cx)),
        None => Poll::Pending,
    })
}

/// A call under way, see [`Connection::call`]. Dropping it cancels the call.
pub struct Call {
    shared: Arc<Shared>,
    /// The slot of the call, until the outcome was taken.
    id: Option<CallId>,
    /// The error of a call that failed before it had a slot.
    failed: Option<CallError>,
    /// The time from which the call has needed a connection, and the time at which it had one.
    pub(crate) started: Instant,
    pub(crate) connected: Instant,
    /// The waker was registered when the call was started, in this very poll.
    registered: bool,
    /// The account of the call with the backend of a balanced client.
    tracker: Option<CallTracker>,
}

impl Call {
    /// Creates a call that must be started before it is awaited. It is started in its place, so
    /// that it is not moved through the functions that start it.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn new(connection: Connection, times: &CallTimes) -> Self {
        Self {
            shared: connection.shared,
            id: None,
            failed: None,
            started: times.started,
            connected: times.connected,
            registered: false,
            tracker: None,
        }
    }

    /// Accounts for the call with its backend.
    #[inline]
    pub(crate) fn track(&mut self, tracker: Option<CallTracker>) {
        self.tracker = tracker;
    }

    /// Returns the time at which the call had its connection.
    #[doc(hidden)]
    #[must_use]
    pub fn connected(&self) -> Instant {
        self.connected
    }

    pub(crate) fn tracker(&self) -> Option<&CallTracker> {
        self.tracker.as_ref()
    }

    /// Records that the call has ended.
    #[cold]
    pub(crate) fn end_tracking(&mut self, outcome: impl FnOnce() -> Outcome) {
        if let Some(tracker) = &mut self.tracker {
            tracker.end(self.connected, outcome());
        }
    }

    /// Creates a call that was started, or failed to start.
    #[inline]
    pub(super) fn started(
        connection: Connection,
        times: &CallTimes,
        id: Result<CallId, CallError>,
    ) -> Self {
        let mut call = Self::new(connection, times);
        call.set_started(id);
        call
    }

    #[inline]
    fn set_started(&mut self, id: Result<CallId, CallError>) {
        match id {
            Ok(id) => self.id = Some(id),
            Err(error) => self.failed = Some(error),
        }
    }

    /// The peer of the connection.
    #[doc(hidden)]
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.shared.peer
    }

    /// Starts the call with data that `encode` writes into a buffer, from which small data is
    /// copied directly to the frames that wait to be written; `encode` returns the piece that
    /// follows it, see [`Body::split`].
    ///
    /// The call must be awaited next, by the task of `cx`; see [`with_context`].
    ///
    /// # Errors
    ///
    /// Returns the error of `encode`.
    #[doc(hidden)]
    #[inline]
    pub fn start_encoded<E>(
        &mut self,
        cx: &Context<'_>,
        path: StaticPath,
        deadline: Instant,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<(), E> {
        Encoded::with(encode, |data| {
            self.start_now(cx, Ok(path.as_str()), Mode::Whole, data, deadline);
        })
    }

    /// Like [`start_encoded`](Self::start_encoded), but with data that is already encoded.
    #[doc(hidden)]
    pub fn start_body(
        &mut self,
        cx: &Context<'_>,
        path: StaticPath,
        deadline: Instant,
        body: impl Into<Body>,
    ) {
        let (path, body) = (Ok(path.as_str()), &mut body.into());
        self.start_now(cx, path, Mode::Whole, body, deadline);
    }

    /// Starts the call as a one-way request, see [`Client::send`](crate::Client::send): it ends
    /// when it is queued for writing. Wait for
    /// [room](crate::Connection::room_for_one_way) first.
    ///
    /// # Errors
    ///
    /// Returns the error of `encode`.
    #[doc(hidden)]
    pub fn start_one_way<E>(
        &mut self,
        path: StaticPath,
        deadline: Instant,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<(), E> {
        Encoded::with(encode, |data| {
            let start = Start::new(Mode::OneWay, self.connected, deadline);
            self.start(Ok(path.as_str()), &start, data, None);
        })
    }

    /// Starts the call in this very poll, with its waker: it must be awaited next.
    #[inline]
    pub(crate) fn start_now(
        &mut self,
        cx: &Context<'_>,
        path: Result<&str, CallErrorKind>,
        mode: Mode,
        data: &mut impl Data,
        deadline: Instant,
    ) {
        let start = Start::new(mode, self.connected, deadline);
        self.start(path, &start, data, Some(cx.waker()));
        // A call that failed at once has no slot, and thus no waker.
        self.registered = self.id.is_some();
    }

    #[inline]
    pub(crate) fn start(
        &mut self,
        path: Result<&str, CallErrorKind>,
        start: &Start,
        data: &mut impl Data,
        waker: Option<&Waker>,
    ) {
        // Both checks need no lock. IIP forbids messages without data.
        let id = match path {
            Err(kind) => Err(CallError::not_sent(kind)),
            Ok(_) if data.len() == 0 => Err(CallError::not_sent(CallErrorKind::EmptyBody)),
            Ok(path) => self.shared.command(|state| {
                state.check_alive()?;
                let (calls, proto) = (&mut state.calls, &mut state.proto);
                let started = calls.start(proto, path, start, data, waker);
                // A call that finds no place in the queue may have retired the connection.
                started.inspect_err(|_| self.shared.note_retired(state))
            }),
        };
        self.set_started(id);
    }

    #[cold]
    pub(crate) fn explain(&self, error: CallError) -> CallError {
        let phases = Phases {
            connect: self.connected.saturating_duration_since(self.started),
            ..error.phases()
        };
        error.with_phases(phases)
    }

    /// Polls the slot: `Ready` with the value found by `take`, or `Pending` with the waker stored.
    /// `take` also returns whether its value is the last one.
    #[inline]
    pub(crate) fn poll_slot<T>(
        &mut self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut proto::Connection, &mut Slot) -> Option<(T, bool)>,
    ) -> Poll<Result<T, CallError>> {
        let Some(id) = self.id else {
            ready!(poll_budget(cx));
            // A future that is polled after its end gets an error instead of a panic.
            let error = self.failed.take();
            let error = error.unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed));
            return Poll::Ready(Err(self.explain(error)));
        };
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let found = state
            .calls
            .poll_slot(&mut state.proto, id, cx.waker(), take);
        // The deferred work, such as the drop of a waker, is done here, without the lock.
        drop(guard);
        match found {
            Some((value, last)) => {
                // The slot was released with the last value.
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

    /// Sets the deadline of the call, which applies from now on.
    pub(crate) fn set_deadline(&self, deadline: Instant) {
        if let Some(id) = self.id {
            self.shared
                .command(|state| state.calls.set_deadline(id, deadline));
        }
    }

    /// Polls for the next part of a reply that is taken in parts. After the last one, or an error,
    /// the call has no [id](Self::id). `success` is the outcome if this is the last part.
    pub(crate) fn poll_part(
        &mut self,
        cx: &Context<'_>,
        success: Outcome,
    ) -> Poll<Result<Bytes, CallError>> {
        if std::mem::take(&mut self.registered) {
            return Poll::Pending;
        }
        let polled = self.poll_slot(cx, |proto, slot| {
            if let Some(part) = slot.take_part(proto) {
                return Some((Ok(part), false));
            }
            slot.take_outcome().map(|outcome| (outcome, true))
        });
        let part = ready!(polled).and_then(|part| part);
        if self.id.is_none() {
            self.end_tracking(|| part.as_ref().map_or_else(outcome_of, |_| success));
        }
        Poll::Ready(part.map_err(|error| self.explain(error)))
    }

    /// Polls for the next bytes of the call's stream, or the reply after them.
    pub(crate) fn poll_stream(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Result<Bytes, Result<Bytes, CallError>>> {
        let Some(id) = self.id else {
            ready!(poll_budget(cx));
            let error = self.failed.take();
            let error = error.unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed));
            self.end_tracking(|| outcome_of(&error));
            return Poll::Ready(Err(Err(self.explain(error))));
        };
        // Taking data may have queued a window update, which the driver must write.
        let found = self.shared.stream_command(|state| {
            let take = |proto: &mut proto::Connection, slot: &mut Slot| match slot
                .take_stream(proto, clock::now)
            {
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
                self.end_tracking(|| {
                    outcome
                        .as_ref()
                        .map_or_else(outcome_of, |_| Outcome::Untimed)
                });
                Poll::Ready(Err(outcome.map_err(|error| self.explain(error))))
            }
        }
    }
}

impl Future for Call {
    type Output = Result<Bytes, CallError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // This is the poll in which the call was started, with the waker of this task. If the reply
        // has arrived since, that waker was woken, and the next poll finds the reply.
        if std::mem::take(&mut self.registered) {
            return Poll::Pending;
        }
        match self.poll_slot(cx, |_, slot| {
            slot.take_outcome().map(|outcome| (outcome, true))
        }) {
            Poll::Ready(Ok(Ok(body))) => {
                if self.tracker.is_some() {
                    self.end_tracking(|| Outcome::Success);
                }
                Poll::Ready(Ok(body))
            }
            Poll::Ready(Ok(Err(error)) | Err(error)) => {
                self.end_tracking(|| outcome_of(&error));
                Poll::Ready(Err(self.explain(error)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Waits until the task may go on in this poll: a task that makes call after call, which all fail at
/// once, must give other tasks their turn, and let its runtime shut down.
fn poll_budget(cx: &Context<'_>) -> Poll<()> {
    pin!(consume_budget()).poll(&mut Context::from_waker(cx.waker()))
}

impl Drop for Call {
    fn drop(&mut self) {
        // The slot is released, and a call that is still under way is cancelled.
        if let Some(id) = self.id {
            self.shared
                .command(|state| state.calls.abandon(&mut state.proto, id, clock::now));
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}
