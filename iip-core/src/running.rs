//! The calls under way on a server: the state of each call whose handler had to wait, and the
//! interfaces through which such a handler reads and writes. A call ends in [`State::answer`] or
//! [`State::forget`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::body::Body;
use crate::clock;
use crate::connection::{Shared, State, WriteWaiter};
use crate::decoder::SHARE_MIN_BYTES;
use crate::deferred::Deferred;
use crate::flow::Flow;
use crate::frame::ChannelId;
use crate::handler::{HandlerError, OnCancel, RejectReason, Request, Streams};
use crate::parts::Parts;
use crate::proto::{StreamFrame, StreamKey, control};
use crate::serve::or_no_response;
use crate::stream;
use crate::totals::Counted;

/// The state of a handler that had to wait.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) serial: u64,
    pub(crate) policy: OnCancel,
    pub(crate) task: Option<AbortHandle>,
    pub(crate) cancel: Option<CancelToken>,
    /// The parts of the request, for a handler that takes parts.
    pub(crate) parts: Option<PartQueue>,
    /// The stream state of a call with streams.
    pub(crate) flow: Option<Box<Flow>>,
}

impl Running {
    pub(crate) fn new(serial: u64, policy: OnCancel, cancel: Option<CancelToken>) -> Self {
        Self {
            serial,
            policy,
            task: None,
            cancel,
            parts: None,
            flow: None,
        }
    }

    /// Applies the handler's policy for a caller that has gone.
    fn cancel(self, deferred: &mut Deferred) {
        self.tell(deferred);
        if let Some(task) = self.task
            && self.policy == OnCancel::Abort
        {
            deferred.abort(task);
        }
    }

    fn tell(&self, deferred: &mut Deferred) {
        if let Some(cancel) = &self.cancel
            && self.policy == OnCancel::Token
        {
            deferred.cancel(cancel.clone());
        }
    }

    /// Wakes the tasks that wait for the rest of the request, or for room, because the call is
    /// over.
    fn end(&mut self, deferred: &mut Deferred) {
        if let Some(queue) = &mut self.parts {
            deferred.wake(queue.waker.take());
        }
        if let Some(flow) = &mut self.flow {
            flow.end(deferred);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct PartQueue {
    pub(crate) parts: Parts,
    pub(crate) ended: bool,
    pub(crate) waker: Option<Waker>,
}

/// A token that notifies a handler when its caller has gone. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Option<Arc<CancelState>>);

#[derive(Debug, Default)]
struct CancelState {
    cancelled: AtomicBool,
    notify: Notify,
}

impl CancelToken {
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    pub(crate) fn cancel(&self) {
        if let Some(state) = &self.0 {
            state.cancelled.store(true, Ordering::Release);
            state.notify.notify_waiters();
        }
    }

    /// Returns `true` if the caller has gone.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|state| state.cancelled.load(Ordering::Acquire))
    }

    /// Waits until the caller has gone; never completes if the handler's policy is not
    /// [`OnCancel::Token`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn cancelled(&self) {
        let Some(state) = &self.0 else {
            return std::future::pending().await;
        };
        let mut notified = std::pin::pin!(state.notify.notified());
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }
}

/// The parts of a request, as they arrive. A request of one frame has one part.
#[derive(Debug)]
pub struct RequestParts {
    shared: Arc<Shared>,
    channel: ChannelId,
    serial: u64,
    ended: bool,
}

impl RequestParts {
    /// Returns the next part; `None` after the last.
    ///
    /// # Errors
    ///
    /// Fails if the connection ended, or the caller went away, before the request was complete: the
    /// upload was cut, not finished.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; no part is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, HandlerError>> {
        if self.ended {
            return None;
        }
        let next = std::future::poll_fn(|cx| self.poll_next(cx)).await;
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, HandlerError>>> {
        self.shared.command(|state| {
            let cut = || Poll::Ready(Some(Err(HandlerError::new("the request was cut off"))));
            let lost = state.ended.is_some();
            let cancelled = !state.is_running(self.channel, self.serial);
            let (running, orphans) = (&mut state.running, &mut state.orphans);
            let running = running_mut(running, orphans, self.channel, self.serial);
            let Some(queue) = running.and_then(|running| running.parts.as_mut()) else {
                return cut();
            };
            match queue.parts.pop() {
                Some(part) => {
                    state.proto.unbuffer(part.len());
                    Poll::Ready(Some(Ok(part)))
                }
                None if queue.ended => Poll::Ready(None),
                None if lost || cancelled => cut(),
                None => {
                    let deferred = &mut state.proto.deferred;
                    deferred.keep_waker(&mut queue.waker, cx.waker());
                    Poll::Pending
                }
            }
        })
    }
}

/// The sender of a handler's reply in parts.
///
/// Each part is sent as a frame. A reply that was begun must be finished: if this is dropped before
/// [`finish`](Self::finish), the connection is closed, so that the caller does not take an
/// incomplete reply for a complete one.
#[derive(Debug)]
pub struct ReplyStream {
    shared: Arc<Shared>,
    channel: ChannelId,
    serial: u64,
    waiter: WriteWaiter,
    begun: bool,
    finished: bool,
}

impl ReplyStream {
    /// Sends a part that is not the last, once there is room for it. A part without data is not
    /// sent.
    ///
    /// # Errors
    ///
    /// Fails if the caller has gone.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the part is not sent.
    pub async fn send(&mut self, part: impl Into<Bytes>) -> Result<(), HandlerError> {
        let part = part.into();
        if part.is_empty() {
            return Ok(());
        }
        std::future::poll_fn(|cx| {
            self.shared.command(|state| {
                if !state.is_running(self.channel, self.serial) {
                    return Poll::Ready(Err(HandlerError::new("the caller has gone")));
                }
                if !state.proto.has_room() {
                    state.wait_to_write(&mut self.waiter, cx.waker());
                    return Poll::Pending;
                }
                state
                    .proto
                    .reply(self.channel, &mut part.clone().into(), false);
                Poll::Ready(Ok(()))
            })
        })
        .await?;
        self.begun = true;
        Ok(())
    }

    /// Sends the last part, which must have data unless it is the only one; if the only part is
    /// empty, the in-band error 101 is sent.
    ///
    /// # Errors
    ///
    /// Fails if the caller has gone, or the last part of several has no data.
    pub fn finish(mut self, last: impl Into<Body>) -> Result<(), HandlerError> {
        let last = last.into();
        if last.is_empty() && self.begun {
            return Err(HandlerError::new("the last chunk of a reply needs data"));
        }
        self.finished = true;
        let mut last = or_no_response(last);
        if self
            .shared
            .command(|state| state.answer(self.channel, self.serial, &mut last))
        {
            Ok(())
        } else {
            Err(HandlerError::new("the caller has gone"))
        }
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let begun = self.begun;
        let cuts = self.shared.command(|state| {
            let cuts = begun && state.is_running(self.channel, self.serial);
            if cuts {
                state.closing = Some(crate::connection::Closing::Force);
            }
            cuts
        });
        if cuts {
            tracing::error!("a streamed reply was dropped unfinished; closing its connection");
        }
    }
}

impl State {
    pub(crate) fn is_running(&self, channel: ChannelId, serial: u64) -> bool {
        self.running
            .get(&channel)
            .is_some_and(|running| running.serial == serial)
    }

    /// Ends a call that had to wait, once: later replies to it are dropped.
    pub(crate) fn answer(&mut self, channel: ChannelId, serial: u64, body: &mut Body) -> bool {
        self.leave(channel, serial) && self.reply(channel, body)
    }

    /// Returns the reason why a reply of this size cannot be sent, if there is one. Small replies
    /// are always sent: their number is bounded by the number of running calls.
    pub(crate) fn reason_to_drop(&self, size: usize) -> Option<RejectReason> {
        let unread = self.proto.outgoing();
        let is_small = size < SHARE_MIN_BYTES;
        (!is_small && self.proto.is_unread()).then_some(RejectReason::Unread { size, unread })
    }

    /// Removes a handler that has ended and whose reply is sent next. Returns `false` if the call
    /// was replied to before.
    pub(crate) fn leave(&mut self, channel: ChannelId, serial: u64) -> bool {
        if self.is_running(channel, serial) {
            return self.forget(channel).is_some();
        }
        if let Some(mut orphan) = self.orphans.remove(&serial) {
            self.let_go(&mut orphan, None);
        }
        false
    }

    pub(crate) fn forget(&mut self, channel: ChannelId) -> Option<Running> {
        let mut running = self.running.remove(&channel)?;
        self.let_go(&mut running, Some(channel));
        Some(running)
    }

    /// Returns the resources of the connection that a call has used.
    fn let_go(&mut self, running: &mut Running, channel: Option<ChannelId>) {
        if let Some(queue) = &running.parts {
            self.proto.unbuffer(queue.parts.bytes());
        }
        if let Some(flow) = &running.flow {
            flow.release(&mut self.proto, channel);
        }
        running.end(&mut self.proto.deferred);
    }

    /// Replies to an open request. If data of `body` was copied, the original stays there, to be
    /// dropped without the lock.
    #[inline]
    pub(crate) fn reply(&mut self, channel: ChannelId, body: &mut Body) -> bool {
        let limit = self.proto.limits().message_bytes();
        if body.len() > limit {
            let size = body.len();
            let text = format!(
                "a reply of {size} bytes exceeds the limit of {limit} bytes (option \
                 max_message_bytes)"
            );
            let mut failure = control::handler_failure(&text).into();
            return self.proto.reply(channel, &mut failure, true);
        }
        self.proto.reply(channel, body, true)
    }

    /// Handles a frame of a handler's stream.
    pub(crate) fn on_stream_frame(
        &mut self,
        channel: ChannelId,
        heard: StreamFrame,
        wakers: &mut Vec<Waker>,
    ) {
        let running = self.running.get_mut(&channel);
        if let Some(flow) = running.and_then(|running| running.flow.as_mut()) {
            if flow.on_stream_frame(heard, wakers) {
                self.sharing_streams.push(StreamKey::Channel(channel));
            }
            flow.send_ending(&mut self.proto, channel);
        }
    }

    /// Ends a call whose caller has gone, and frees its channel. Its handler is aborted, notified,
    /// or left to end. From then on it counts only against the server's limit, and its reply is
    /// discarded.
    pub(crate) fn on_cancelled(&mut self, channel: ChannelId) {
        let Some(running) = self.running.get_mut(&channel) else {
            return;
        };
        if let Some(flow) = &mut running.flow {
            let mut wakers = Vec::new();
            flow.on_reset(&mut wakers);
            self.proto.deferred.wake(wakers);
        }
        let reads_on = running.flow.is_some() || running.parts.is_some();
        if reads_on && running.policy != OnCancel::Abort {
            if let Some(mut running) = self.running.remove(&channel) {
                running.tell(&mut self.proto.deferred);
                if let Some(flow) = &mut running.flow {
                    self.proto.end_overdraft(channel);
                    flow.hold_arrived(&mut self.proto);
                }
                self.orphans.insert(running.serial, running);
            }
        } else if let Some(running) = self.forget(channel) {
            running.cancel(&mut self.proto.deferred);
        }
        // The caller does not read it, but the order of the channel requires a reply.
        let mut answer = control::handler_failure("cancelled").into();
        self.proto.reply(channel, &mut answer, true);
    }

    /// Ends the calls of a connection that is gone: their handlers are aborted, notified, or left
    /// to end.
    pub(crate) fn cancel_all(&mut self) {
        for (channel, mut running) in std::mem::take(&mut self.running) {
            self.let_go(&mut running, Some(channel));
            running.cancel(&mut self.proto.deferred);
        }
    }
}

/// Returns a handler that waits, or that still reads although its caller has gone.
pub(crate) fn running_mut<'a>(
    running: &'a mut HashMap<ChannelId, Running>,
    orphans: &'a mut HashMap<u64, Running>,
    channel: ChannelId,
    serial: u64,
) -> Option<&'a mut Running> {
    match running.get_mut(&channel) {
        Some(running) if running.serial == serial => Some(running),
        _ if orphans.is_empty() => None,
        _ => orphans.get_mut(&serial),
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
        let window = state.proto.limits().window();
        running.flow = Some(Box::new(Flow::new(window, credit, clock::now())));
        state.running.insert(channel, running);
        drop(state);
        self.streams = Some(Box::new(Streams {
            stream: Some(stream::of_handler(shared, channel, serial)),
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
        let parts = RequestParts {
            shared: Arc::clone(shared),
            channel,
            serial,
            ended: false,
        };
        let reply = ReplyStream {
            shared: Arc::clone(shared),
            channel,
            serial,
            waiter: WriteWaiter::default(),
            begun: false,
            finished: false,
        };
        self.streams = Some(Box::new(Streams {
            parts: Some(parts),
            reply: Some(reply),
            ..Streams::default()
        }));
    }
}
