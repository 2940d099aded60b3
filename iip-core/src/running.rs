//! A server's calls under way: what is kept of one whose handler had to wait, and what such a handler reads from and writes
//! to. A call ends in [`State::answer`] or [`State::forget`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::body::Body;
use crate::clock;
use crate::connection::{RoomPlace, Shared, State};
use crate::deferred::Deferred;
use crate::flow::Flow;
use crate::frame::ChannelId;
use crate::handler::{HandlerError, OnCancel, Request, Streams};
use crate::parts::Parts;
use crate::proto::{Heard, StreamKey, control};
use crate::serve::or_no_response;
use crate::stream;

/// A handler that had to wait.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) serial: u64,
    pub(crate) policy: OnCancel,
    pub(crate) task: Option<AbortHandle>,
    pub(crate) cancel: Option<CancelToken>,
    /// For a handler that streams: the parts of its request.
    pub(crate) parts: Option<PartQueue>,
    /// Of a call with a stream each way.
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

    /// Whoever waits for the rest of the request, or for room, finds out that the call is over.
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

/// Tells a handler that its caller has gone. Cheap to clone.
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

    /// Has the caller gone?
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|state| state.cancelled.load(Ordering::Acquire))
    }

    /// Waits until the caller has gone; for ever if the handler's policy is not [`OnCancel::Token`].
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

/// The parts of a request, as they arrive. For a request in one frame that is one part.
#[derive(Debug)]
pub struct RequestParts {
    shared: Arc<Shared>,
    channel: ChannelId,
    serial: u64,
    ended: bool,
}

impl RequestParts {
    /// The next part; `None` after the last.
    ///
    /// # Errors
    ///
    /// The connection ended, or the caller went away, before the request was complete: the upload was cut, not finished.
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
            let Some(running) = state.running.get_mut(&self.channel) else {
                return cut();
            };
            let Some(queue) = running
                .parts
                .as_mut()
                .filter(|_| running.serial == self.serial)
            else {
                return cut();
            };
            match queue.parts.pop() {
                Some(part) => {
                    state.proto.unbuffer(part.len());
                    Poll::Ready(Some(Ok(part)))
                }
                None if queue.ended => Poll::Ready(None),
                None if lost => cut(),
                None => {
                    let deferred = &mut state.proto.deferred;
                    deferred.keep_waker(&mut queue.waker, cx.waker());
                    Poll::Pending
                }
            }
        })
    }
}

/// Where a handler sends its answer in parts.
///
/// Each part leaves as a frame of its own. An answer that was begun must be finished: if this is dropped before
/// [`finish`](Self::finish), the connection is closed, so that the caller cannot take what it has for the whole.
#[derive(Debug)]
pub struct ReplyStream {
    shared: Arc<Shared>,
    channel: ChannelId,
    serial: u64,
    room: RoomPlace,
    begun: bool,
    finished: bool,
}

impl ReplyStream {
    /// Sends a part that is not the last, when there is room for it. A part without data is not sent.
    ///
    /// # Errors
    ///
    /// The caller has gone; there is nobody to send to.
    ///
    /// # Cancel safety
    ///
    /// When dropped before it is ready, the part was not sent.
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
                    state.wait_for_room(&mut self.room, cx.waker());
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

    /// Sends the last part, which must have data unless it is the only one; an empty only part becomes the in-band error
    /// 101.
    ///
    /// # Errors
    ///
    /// The caller has gone, or the last part of several has no data.
    pub fn finish(mut self, last: impl Into<Body>) -> Result<(), HandlerError> {
        let last = last.into();
        if last.is_empty() && self.begun {
            return Err(HandlerError::new("the last part of an answer needs data"));
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
            tracing::error!("a streamed answer was dropped unfinished; closing its connection");
        }
    }
}

impl State {
    pub(crate) fn is_running(&self, channel: ChannelId, serial: u64) -> bool {
        self.running
            .get(&channel)
            .is_some_and(|running| running.serial == serial)
    }

    /// Ends a call that had to wait, once: later answers to it are dropped.
    pub(crate) fn answer(&mut self, channel: ChannelId, serial: u64, body: &mut Body) -> bool {
        self.leave(channel, serial) && self.reply(channel, body)
    }

    /// The handler has ended and is answered next. `false` if it was answered before.
    pub(crate) fn leave(&mut self, channel: ChannelId, serial: u64) -> bool {
        self.is_running(channel, serial) && self.forget(channel).is_some()
    }

    pub(crate) fn forget(&mut self, channel: ChannelId) -> Option<Running> {
        let mut running = self.running.remove(&channel)?;
        if let Some(queue) = &running.parts {
            self.proto.unbuffer(queue.parts.bytes());
        }
        if let Some(flow) = &running.flow {
            flow.release(&mut self.proto);
        }
        running.end(&mut self.proto.deferred);
        Some(running)
    }

    /// Answers an open request. What was copied of `body` stays there, to be dropped without the lock.
    #[inline]
    pub(crate) fn reply(&mut self, channel: ChannelId, body: &mut Body) -> bool {
        let limit = self.proto.limits().message_bytes();
        if body.len() > limit {
            let size = body.len();
            let text = format!(
                "an answer of {size} bytes exceeds the limit of {limit} bytes (option max_message_bytes)"
            );
            let mut failure = control::handler_failure(&text).into();
            return self.proto.reply(channel, &mut failure, true);
        }
        self.proto.reply(channel, body, true)
    }

    /// A frame of a handler's stream came.
    pub(crate) fn on_heard(&mut self, channel: ChannelId, heard: Heard, wakers: &mut Vec<Waker>) {
        let running = self.running.get_mut(&channel);
        if let Some(flow) = running.and_then(|running| running.flow.as_mut()) {
            if flow.on_heard(heard, wakers) {
                self.lent.push(StreamKey::Channel(channel));
            }
            flow.send_ending(&mut self.proto, channel);
        }
    }

    pub(crate) fn on_cancelled(&mut self, channel: ChannelId) {
        let Some(running) = self.running.get_mut(&channel) else {
            return;
        };
        if let Some(flow) = &mut running.flow {
            let mut wakers = Vec::new();
            flow.on_cut(&mut wakers);
            self.proto.deferred.wake(wakers);
        }
        match running.policy {
            OnCancel::Abort => {
                if let Some(task) = self.forget(channel).and_then(|running| running.task) {
                    self.proto.deferred.abort(task);
                }
                // Nobody reads it, but the channel's order wants an answer.
                let mut answer = control::handler_failure("cancelled").into();
                self.proto.reply(channel, &mut answer, true);
            }
            OnCancel::Token => {
                if let Some(cancel) = running.cancel.clone() {
                    self.proto.deferred.cancel(cancel);
                }
            }
            OnCancel::RunToEnd => {}
        }
    }

    /// The connection is gone: its handlers are aborted, told, or left to end.
    pub(crate) fn cancel_all(&mut self) {
        let deferred = &mut self.proto.deferred;
        for (_, mut running) in self.running.drain() {
            running.end(deferred);
            match (running.policy, running.task, running.cancel) {
                (OnCancel::Abort, Some(task), _) => deferred.abort(task),
                (OnCancel::Token, _, Some(cancel)) => deferred.cancel(cancel),
                _ => {}
            }
        }
    }
}

impl Request {
    /// Gives a handler a stream each way; it has a place before the handler runs.
    pub(crate) fn add_stream(
        &mut self,
        shared: &Arc<Shared>,
        channel: ChannelId,
        mut running: Running,
    ) {
        let serial = running.serial;
        let mut state = shared.lock();
        let credit = state.proto.peer_stream_window().unwrap_or(0);
        let window = state.proto.limits().window();
        running.flow = Some(Box::new(Flow::new(window, credit, clock::now())));
        state.running.insert(channel, running);
        drop(state);
        let (send, recv) = stream::of_handler(shared, channel, serial);
        self.streams = Some(Streams::Stream(Box::new((send, recv))));
    }

    /// Gives a handler the parts of its request; they have a place before it runs.
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
            room: RoomPlace::default(),
            begun: false,
            finished: false,
        };
        self.streams = Some(Streams::Parts(Box::new((Some(parts), Some(reply)))));
    }
}
