//! Calls with a stream of bytes each way: what callers and handlers send to and read from. The same
//! for both sides.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::call::Call;
use crate::clock;
use crate::connection::{Shared, State, WriteWaiter};
use crate::error::CallError;
use crate::flow::{Flow, LARGE_BYTES};
use crate::frame::ChannelId;
use crate::proto;
use crate::running::running_mut;

/// The reason why a stream cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The call has ended: nobody takes what is sent. At a client, [`RecvStream::answer`] tells
    /// how.
    #[error("the call has ended")]
    Over,
    /// The peer, or the connection, went away before it had ended its stream: what has arrived is
    /// not all.
    #[error("the stream was cut off")]
    Cut,
    /// This side has said that nothing follows, see [`SendStream::finish`].
    #[error("the stream was finished")]
    Finished,
    /// The peer has left the last piece unread for
    /// [`progress_timeout`](crate::Limits::progress_timeout) while large pieces of this
    /// connection's streams took [`max_buffered_bytes`](crate::Limits::max_buffered_bytes).
    #[error("the peer does not read the stream (options progress_timeout and max_buffered_bytes)")]
    Unread,
}

/// Whose stream it is. The serial tells it from those that had its place before.
#[derive(Clone, Copy, Debug)]
enum StreamOwner {
    Call { token: usize, serial: u64 },
    Handler { channel: ChannelId, serial: u64 },
}

#[derive(Clone)]
struct StreamHandle {
    shared: Arc<Shared>,
    place: StreamOwner,
}

impl StreamHandle {
    /// Runs `work` with the stream's state and its channel, if it has one by now; `None` if the
    /// call has ended.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut proto::Connection, &mut Flow, Option<ChannelId>) -> T,
    ) -> Option<T> {
        self.shared.stream_command(|state| self.on(state, work))
    }

    fn on<T>(
        &self,
        state: &mut State,
        work: impl FnOnce(&mut proto::Connection, &mut Flow, Option<ChannelId>) -> T,
    ) -> Option<T> {
        let (flow, channel) = match self.place {
            StreamOwner::Call { token, serial } => state.calls.flow(token, serial)?,
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

/// Where one side of a call sends its stream.
///
/// What is sent lies in memory only until the connection has room for it and the peer has granted
/// it: whoever sends waits until then, and so keeps pace with the reader.
///
/// At a client, dropping it before it was [finished](Self::finish) ends the call: its handler reads
/// that the stream was cut, and [`RecvStream::answer`] is
/// [`CallErrorKind::Unfinished`](crate::CallErrorKind::Unfinished). At a handler, dropping it means
/// nothing: the stream ends with the answer. What a handler gave and the connection had not taken
/// by then is lost, so wait for [`send`](Self::send) before the answer.
pub struct SendStream {
    link: StreamHandle,
    /// What was not sent of the last piece.
    rest: Body,
    waiter: WriteWaiter,
    ended: bool,
    /// The last piece was small: the next is likely to be, and need not wait for large ones of
    /// other streams.
    sends_small: bool,
    /// The last piece is counted among what was not handed over.
    is_counted: bool,
}

impl SendStream {
    /// Waits until everything given so far was handed to the connection, and there is room for
    /// more: while pieces that the peer does not read take
    /// [`max_buffered_bytes`](crate::Limits::max_buffered_bytes), streams whose last piece was
    /// small go on.
    ///
    /// # Errors
    ///
    /// The call has ended; nobody takes it.
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

    /// Waits until a piece may be made.
    fn poll_begin(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let (link, waiter) = (&self.link, &mut self.waiter);
        link.shared.stream_command(|state| {
            if !state.proto.is_unread() {
                return Poll::Ready(Ok(()));
            }
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

    /// Gives the connection more to send, and hands over what it takes now. Call it only when
    /// [`poll_ready`](Self::poll_ready) is ready; what was not taken then is sent first by the next
    /// one.
    ///
    /// # Errors
    ///
    /// The call has ended; nobody takes it. Or this side has [finished](Self::finish).
    ///
    /// # Panics
    ///
    /// When the last piece was not taken yet.
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
    /// The call has ended; nobody takes it. Or this side has [finished](Self::finish).
    ///
    /// # Cancel safety
    ///
    /// When dropped before it is ready, the data is sent all the same, before what is sent next;
    /// but not if it still waited for what had been given before it, see
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

    /// Tells the peer that nothing follows. Only a caller does this: a handler's stream ends with
    /// its answer.
    ///
    /// What was given and not taken yet goes first, by itself, as the peer takes it.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            // Dropped without the lock if the call has ended.
            let mut rest = Some(std::mem::take(&mut self.rest));
            self.is_counted = false;
            self.link.with(|proto, flow, channel| {
                flow.ending = rest.take();
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
        if let StreamOwner::Call { token, serial } = self.link.place
            && !self.ended
        {
            self.link.shared.command(|state| {
                state
                    .calls
                    .cut_stream(&mut state.proto, token, serial, clock::now());
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

/// Where one side of a call reads the other's stream.
///
/// A reader that stands still holds up its own call and nothing else: the peer may only send what
/// it is granted, see [`Limits::stream_window`](crate::Limits::stream_window).
///
/// At a client, dropping it cancels the call.
pub struct RecvStream {
    link: StreamHandle,
    /// Client: the call.
    call: Option<Call>,
    answer: Option<Result<Bytes, CallError>>,
    ended: bool,
}

impl RecvStream {
    /// The next bytes, as [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match &mut self.call {
            None => self.poll_request(cx),
            Some(_) => self.poll_reply(cx).map(|part| part.map(Ok)),
        };
        self.ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }

    /// The reader holds `bytes` of a message that is not complete; 0 once it is. They count in
    /// [`max_buffered_bytes`](crate::Limits::max_buffered_bytes): beyond it the peer is granted no
    /// more, but for one stream of the connection at a time.
    pub fn hold(&mut self, bytes: usize) {
        self.link.shared.command(|state| {
            self.link.on(state, |proto, flow, channel| {
                flow.set_held(proto, channel, bytes);
            })
        });
    }

    /// How long a peer may take for the next bytes of a message that it has begun:
    /// [`progress_timeout`](crate::Limits::progress_timeout).
    #[must_use]
    pub fn progress_timeout(&self) -> Duration {
        self.link.shared.lock().proto.limits().progress()
    }

    /// The next bytes; `None` once the peer has ended its stream.
    ///
    /// What one send gave may come in several pieces, and several in one.
    ///
    /// # Errors
    ///
    /// At a handler: the caller went away before it had ended its stream. At a client a stream that
    /// was cut ends as any other; [`answer`](Self::answer) tells.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Client: the answer behind the stream, once [`next`](Self::next) has given `None`. Only the
    /// first time.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`](crate::CallErrorKind).
    pub fn answer(&mut self) -> Option<Result<Bytes, CallError>> {
        self.answer.take()
    }

    /// Client: why the call could not be begun.
    pub(crate) fn failure(&self) -> Option<&CallError> {
        self.call.as_ref()?.failure()
    }

    /// Client: from now on the call has until `deadline`.
    pub fn set_deadline(&mut self, deadline: Instant) {
        if let Some(token) = self.call.as_ref().and_then(Call::token) {
            self.link
                .shared
                .command(|state| state.calls.set_deadline(token, deadline));
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
        next.unwrap_or(Poll::Ready(Some(Err(StreamError::Cut))))
    }

    fn poll_reply(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let Some(call) = &mut self.call else {
            return Poll::Ready(None);
        };
        let next = call.poll_stream(cx);
        match next {
            Poll::Ready(Ok(part)) => Poll::Ready(Some(part)),
            Poll::Ready(Err(answer)) => {
                self.answer = Some(answer);
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

/// Both ends of a call's stream at its caller; `rest` is what did not fit behind the request's
/// beginning.
pub(crate) fn of_call(
    shared: &Arc<Shared>,
    call: Call,
    serial: u64,
    rest: Body,
) -> (SendStream, RecvStream) {
    let token = call.token().unwrap_or(usize::MAX);
    ends(
        shared,
        StreamOwner::Call { token, serial },
        rest,
        Some(call),
    )
}

/// Both ends of a call's stream at its handler.
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
        sends_small: rest.len() < LARGE_BYTES && !rest.is_empty(),
        is_counted: false,
        rest,
        waiter: WriteWaiter::default(),
        ended: false,
    };
    let recv = RecvStream {
        link,
        call,
        answer: None,
        ended: false,
    };
    (send, recv)
}

/// Hands over as much of `rest` as the connection and the peer take.
fn send_rest(
    link: &StreamHandle,
    rest: &mut Body,
    waiter: &mut WriteWaiter,
    spent: &mut Spent,
    state: &mut State,
    cx: &Context<'_>,
) -> Poll<Result<(), StreamError>> {
    while !rest.is_empty() {
        let sent = link.on(state, |proto, flow, channel| {
            if flow.cut {
                return Err(StreamError::Over);
            }
            if flow.unread {
                return Err(StreamError::Unread);
            }
            let Some(channel) = channel.filter(|&channel| flow.has_credit(proto, channel)) else {
                proto.deferred.keep_waker(&mut flow.writer, cx.waker());
                return Ok(None);
            };
            let has_room = proto.has_stream_room(channel);
            if has_room {
                let mut part = rest.split_to(proto.stream_part_bytes().min(rest.len()));
                flow.on_sent(part.len());
                proto.send_stream(channel, &mut part, false);
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

/// What was copied of the parts that were sent; mostly of one.
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
