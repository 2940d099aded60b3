//! Calls with a stream of bytes in each direction: the sending and receiving halves of callers and
//! handlers. The same for both sides.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::call::Call;
use super::running::running_mut;
use super::shared::{Shared, State, WriteWaiter};
use crate::body::Body;
use crate::client::CallTracker;
use crate::clock;
use crate::error::CallError;
use crate::frame::ChannelId;
use crate::proto;
use crate::proto::slots::CallId;
use crate::proto::stream_state::{LARGE_BYTES, StreamState};

/// The reason why a stream cannot continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The call has ended: data is no longer accepted. On a client, [`RecvStream::reply`] returns
    /// its outcome.
    #[error("the call has ended")]
    Over,
    /// The peer or the connection went away before the peer had ended its stream: the data that has
    /// arrived is incomplete.
    #[error("the stream was cut off")]
    Cut,
    /// This side has ended its stream, see [`SendStream::finish`].
    #[error("the stream was finished")]
    Finished,
    /// The peer has left the last piece unread for
    /// [`progress_timeout`](crate::Limits::progress_timeout) while large pieces of this
    /// connection's streams took [`max_buffered_bytes`](crate::Limits::max_buffered_bytes).
    #[error("the peer does not read the stream (options progress_timeout and max_buffered_bytes)")]
    Unread,
}

/// The owner of a stream. The serial distinguishes a handler from earlier ones of its channel.
#[derive(Clone, Copy, Debug)]
enum StreamOwner {
    /// `None` if the call could not be started.
    Call(Option<CallId>),
    Handler {
        channel: ChannelId,
        serial: u64,
    },
}

#[derive(Clone)]
struct StreamHandle {
    shared: Arc<Shared>,
    place: StreamOwner,
}

impl StreamHandle {
    /// Runs `work` with the state of the stream and its channel, if it has one already; returns
    /// `None` if the call has ended.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut proto::Connection, &mut StreamState, Option<ChannelId>) -> T,
    ) -> Option<T> {
        self.shared.stream_command(|state| self.on(state, work))
    }

    fn on<T>(
        &self,
        state: &mut State,
        work: impl FnOnce(&mut proto::Connection, &mut StreamState, Option<ChannelId>) -> T,
    ) -> Option<T> {
        let (flow, channel) = match self.place {
            StreamOwner::Call(call) => state.calls.flow(call?)?,
            // Once the caller has gone, the handler may still read what has arrived, but its
            // channel may have another call.
            StreamOwner::Handler { channel, serial } => {
                let alive = state.is_running(channel, serial);
                let (running, orphans) = (&mut state.running, &mut state.orphans);
                let running = running_mut(running, orphans, channel, serial)?;
                (running.flow.as_deref_mut()?, alive.then_some(channel))
            }
        };
        Some(work(&mut state.proto, flow, channel))
    }
}

/// The sending half of a stream.
///
/// Data is held in memory only until the connection has room for it and the peer has granted
/// credit. The sender waits until then, and thereby keeps pace with the reader.
///
/// On a client, dropping it before it was [finished](Self::finish) ends the call: its handler gets
/// an error for the cut stream, and [`RecvStream::reply`] is
/// [`CallErrorKind::Unfinished`](crate::CallErrorKind::Unfinished). On a handler, dropping it has
/// no effect: the stream ends with the reply. Data that a handler has given and the connection has
/// not taken by then is lost, so wait for [`send`](Self::send) before the reply.
pub struct SendStream {
    link: StreamHandle,
    /// The unsent rest of the last piece.
    rest: Body,
    waiter: WriteWaiter,
    ended: bool,
    /// The last piece was small: the next one probably is as well, and need not wait for large
    /// pieces of other streams.
    sends_small: bool,
    /// The last piece is counted among the data that was not handed over.
    is_counted: bool,
}

impl SendStream {
    /// Waits until all data given so far was handed to the connection, and there is room for more.
    /// While pieces that the peer does not read take
    /// [`max_buffered_bytes`](crate::Limits::max_buffered_bytes), only streams whose last piece was
    /// small continue.
    ///
    /// # Errors
    ///
    /// Fails if the call has ended.
    #[inline]
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if !self.rest.is_empty() {
            std::task::ready!(self.poll_rest(cx))?;
        }
        if self.sends_small {
            return Poll::Ready(Ok(()));
        }
        self.poll_begin(cx)
    }

    /// Waits until a new piece may be started.
    fn poll_begin(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let (link, waiter) = (&self.link, &mut self.waiter);
        link.shared.stream_command(|state| {
            if !state.proto.is_unread() {
                return Poll::Ready(Ok(()));
            }
            // The task waits in two places, because the call may end before there is room.
            let over = link.on(state, |proto, flow, _| {
                proto.deferred.keep_waker(&mut flow.writer, cx.waker());
                flow.cut
            });
            if over.unwrap_or(true) {
                return Poll::Ready(Err(StreamError::Over));
            }
            state.wait_to_write(waiter, cx.waker());
            Poll::Pending
        })
    }

    fn poll_rest(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let (link, rest, waiter) = (&self.link, &mut self.rest, &mut self.waiter);
        let is_counted = &mut self.is_counted;
        // Dropped without the lock.
        let mut spent = Spent::default();
        link.shared.stream_command(|state| {
            let sent = send_rest(link, rest, waiter, &mut spent, state, cx);
            // Small pieces are not counted, which saves a second search for the stream.
            if *is_counted || rest.len() >= LARGE_BYTES {
                let left = rest.len();
                *is_counted = left > 0;
                link.on(state, |proto, flow, _| {
                    flow.set_unsent(proto, left, clock::now)
                });
            }
            sent
        })
    }

    /// Gives the connection more data to send, and hands over the part that it takes now. May only
    /// be called when [`poll_ready`](Self::poll_ready) is ready; the next
    /// [`poll_ready`](Self::poll_ready) sends the rest first.
    ///
    /// # Errors
    ///
    /// Fails if the call has ended, or this side has [finished](Self::finish).
    ///
    /// # Panics
    ///
    /// Panics if the last piece was not taken yet.
    pub fn start_send(
        &mut self,
        cx: &Context<'_>,
        data: impl Into<Body>,
    ) -> Result<(), StreamError> {
        assert!(self.rest.is_empty(), "poll_ready was not ready");
        self.check_unfinished()?;
        self.give(data.into());
        match self.poll_rest(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Sends `data` and waits until the connection has taken it.
    ///
    /// # Errors
    ///
    /// Fails if the call has ended, or this side has [finished](Self::finish).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the data is still sent, before any later data.
    /// It is not sent if the future still waited for earlier data, see
    /// [`poll_ready`](Self::poll_ready).
    pub async fn send(&mut self, data: impl Into<Body>) -> Result<(), StreamError> {
        self.check_unfinished()?;
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.give(data.into());
        std::future::poll_fn(|cx| self.poll_rest(cx)).await
    }

    fn give(&mut self, data: Body) {
        self.sends_small = data.len() < LARGE_BYTES;
        self.rest = data;
    }

    /// Ends the stream. Only a caller does this: a handler's stream ends with its reply.
    ///
    /// Data that was given and not taken yet is still sent first, automatically, as the peer grants
    /// credit.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            // Dropped without the lock if the call has ended.
            let mut rest = Some(std::mem::take(&mut self.rest));
            // From now on the stream counts the rest, while it sends it.
            self.is_counted = false;
            self.link.with(|proto, flow, channel| {
                flow.ending = rest.take();
                // A call that still waits for a channel does this when it is sent.
                if let Some(channel) = channel {
                    flow.send_ending(proto, channel);
                }
            });
        }
    }

    fn check_unfinished(&self) -> Result<(), StreamError> {
        if self.ended {
            return Err(StreamError::Finished);
        }
        Ok(())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // The handler must not take the data so far for all of the stream.
        if let StreamOwner::Call(Some(call)) = self.link.place
            && !self.ended
        {
            self.link.shared.command(|state| {
                state.calls.cut_stream(&mut state.proto, call, clock::now());
            });
        } else if self.is_counted {
            self.link
                .with(|proto, flow, _| flow.set_unsent(proto, 0, clock::now));
        }
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream")
            .field("place", &self.link.place)
            .finish_non_exhaustive()
    }
}

/// The receiving half of a stream.
///
/// A slow reader blocks only its own call: the peer may only send as much as its credit allows, see
/// [`Limits::stream_window`](crate::Limits::stream_window).
///
/// On a client, dropping it cancels the call.
pub struct RecvStream {
    link: StreamHandle,
    /// Client: the call.
    call: Option<Call>,
    reply: Option<Result<Bytes, CallError>>,
    ended: bool,
}

impl RecvStream {
    /// Accounts for the call with its backend.
    pub(crate) fn track(&mut self, tracker: Option<CallTracker>) {
        if let Some(call) = &mut self.call {
            call.track(tracker);
        }
    }

    /// Polls for the next bytes, like [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// See [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match &mut self.call {
            None => self.poll_request(cx),
            Some(_) => self.poll_reply(cx).map(|part| part.map(Ok)),
        };
        // Nothing follows an error, and the call of a client must not be polled after its outcome.
        self.ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }

    /// Sets the number of bytes of an incomplete message that the reader holds; 0 once it is
    /// complete. They count against [`max_buffered_bytes`](crate::Limits::max_buffered_bytes):
    /// beyond it the peer gets no more credit, except for one stream of the connection at a time.
    pub fn hold(&mut self, bytes: usize) {
        // This may leave room for streams whose credit was withheld. Granting it is the work of the
        // driver, which is woken although nothing waits to be written.
        self.link.shared.command(|state| {
            self.link.on(state, |proto, flow, channel| {
                flow.set_held(proto, channel, bytes);
            })
        });
    }

    /// Returns the maximum time that a peer may take for the next bytes of a message that it has
    /// begun: [`progress_timeout`](crate::Limits::progress_timeout).
    #[must_use]
    pub fn progress_timeout(&self) -> Duration {
        self.link
            .shared
            .lock()
            .proto
            .limits()
            .get_progress_timeout()
    }

    /// Returns the next bytes; `None` once the peer has ended its stream.
    ///
    /// The data of one send may arrive in several pieces, and that of several sends in one.
    ///
    /// # Errors
    ///
    /// On a handler: the caller went away before it had ended its stream. On a client, a cut stream
    /// ends like any other; [`reply`](Self::reply) returns the error.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Client: returns the reply after the stream, once [`next`](Self::next) has returned `None`.
    /// Only the first call returns it.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`](crate::CallErrorKind).
    pub fn reply(&mut self) -> Option<Result<Bytes, CallError>> {
        self.reply.take()
    }

    /// Client: returns the reason why the call could not be started.
    pub(crate) fn failure(&self) -> Option<&CallError> {
        self.call.as_ref()?.failure()
    }

    /// Client: sets the deadline of the call, which applies from now on.
    pub fn set_deadline(&mut self, deadline: Instant) {
        if let Some(call) = &self.call {
            call.set_deadline(deadline);
        }
    }

    fn poll_request(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        let next = self.link.with(|proto, flow, channel| {
            match flow.take_part(proto, channel, clock::now) {
                Some(part) => Poll::Ready(Some(Ok(part))),
                None if flow.is_at_end() => Poll::Ready(None),
                None if flow.cut => Poll::Ready(Some(Err(StreamError::Cut))),
                None => {
                    proto.deferred.keep_waker(&mut flow.reader, cx.waker());
                    Poll::Pending
                }
            }
        });
        // Without the state of the stream, the call or the connection has ended.
        next.unwrap_or(Poll::Ready(Some(Err(StreamError::Cut))))
    }

    fn poll_reply(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let Some(call) = &mut self.call else {
            return Poll::Ready(None);
        };
        let next = call.poll_stream(cx);
        match next {
            Poll::Ready(Ok(part)) => Poll::Ready(Some(part)),
            Poll::Ready(Err(reply)) => {
                self.reply = Some(reply);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream")
            .field("place", &self.link.place)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Creates both halves of a call's stream for its caller; `rest` is the data that did not fit into
/// the beginning of the request.
pub(crate) fn of_call(shared: &Arc<Shared>, call: Call, rest: Body) -> (SendStream, RecvStream) {
    ends(shared, StreamOwner::Call(call.id()), rest, Some(call))
}

/// Creates both halves of a call's stream for its handler.
pub(crate) fn of_handler(
    shared: &Arc<Shared>,
    channel: ChannelId,
    serial: u64,
) -> (SendStream, RecvStream) {
    let place = StreamOwner::Handler { channel, serial };
    ends(shared, place, Body::default(), None)
}

fn ends(
    shared: &Arc<Shared>,
    place: StreamOwner,
    rest: Body,
    call: Option<Call>,
) -> (SendStream, RecvStream) {
    let link = StreamHandle {
        shared: Arc::clone(shared),
        place,
    };
    let send = SendStream {
        link: link.clone(),
        // A new stream without a rest has sent nothing that was small, so it waits while large
        // pieces are not read.
        sends_small: rest.len() < LARGE_BYTES && !rest.is_empty(),
        is_counted: false,
        rest,
        waiter: WriteWaiter::default(),
        ended: false,
    };
    let recv = RecvStream {
        link,
        call,
        reply: None,
        ended: false,
    };
    (send, recv)
}

/// Hands over as much of `rest` as the connection and the peer accept.
fn send_rest(
    link: &StreamHandle,
    rest: &mut Body,
    waiter: &mut WriteWaiter,
    spent: &mut Spent,
    state: &mut State,
    cx: &Context<'_>,
) -> Poll<Result<(), StreamError>> {
    // One part at a time, because each uses up credit and room.
    while !rest.is_empty() {
        let sent = link.on(state, |proto, flow, channel| {
            if flow.cut {
                return Err(StreamError::Over);
            }
            if flow.unread {
                return Err(StreamError::Unread);
            }
            // Without a channel the call still waits for one, and its task is woken when it is
            // sent.
            let Some(channel) = channel.filter(|&channel| flow.has_credit(proto, channel)) else {
                proto.deferred.keep_waker(&mut flow.writer, cx.waker());
                return Ok(None);
            };
            let has_room = proto.has_stream_room(channel);
            if has_room {
                let mut part = rest.split_to(proto.stream_part_bytes().min(rest.len()));
                flow.on_sent(part.len());
                proto.send_stream(channel, &mut part, false);
                // What is left of a part that was copied is dropped without the lock.
                spent.add(part);
            } else {
                // The call may end before there is room.
                proto.deferred.keep_waker(&mut flow.writer, cx.waker());
            }
            Ok(Some(has_room))
        });
        match sent.unwrap_or(Err(StreamError::Over)) {
            Err(over) => {
                spent.add(std::mem::take(rest));
                return Poll::Ready(Err(over));
            }
            Ok(Some(true)) => {}
            Ok(Some(false)) => {
                state.wait_to_write(waiter, cx.waker());
                return Poll::Pending;
            }
            Ok(None) => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(()))
}

/// The originals of the parts that were copied and sent; mostly one.
#[derive(Default)]
struct Spent {
    first: Body,
    others: Vec<Body>,
}

impl Spent {
    fn add(&mut self, part: Body) {
        if self.first.is_empty() {
            self.first = part;
        } else if !part.is_empty() {
            self.others.push(part);
        }
    }
}
