//! The chunks of a request and of a reply, for a handler that takes and sends them one by one.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::running::running_mut;
use super::shared::{Closing, Shared, WriteWaiter};
use crate::body::Body;
use crate::frame::ChannelId;
use crate::handler_error::HandlerError;
use crate::proto::control;
use crate::stats::OK;

/// The parts of a request, as they arrive. A request of one frame has one part.
#[derive(Debug)]
pub struct RequestParts {
    shared: Arc<Shared>,
    channel: ChannelId,
    serial: u64,
    ended: bool,
}

impl RequestParts {
    pub(crate) fn new(shared: &Arc<Shared>, channel: ChannelId, serial: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            channel,
            serial,
            ended: false,
        }
    }

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
        // The driver is woken in any case: with the part, the connection may have room to read
        // again.
        self.shared.command(|state| {
            let cut = || Poll::Ready(Some(Err(HandlerError::new("the request was cut off"))));
            let lost = state.ended.is_some();
            // The parts that have arrived are still returned after the caller has gone.
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
                // A request that has arrived completely was not cut, even if the caller has gone
                // since.
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
    pub(crate) fn new(shared: &Arc<Shared>, channel: ChannelId, serial: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            channel,
            serial,
            waiter: WriteWaiter::default(),
            begun: false,
            finished: false,
        }
    }

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
                // If the caller goes meanwhile, the write of the reply that ends the call wakes
                // this task.
                if !state.proto.has_room() {
                    state.wait_to_write(&mut self.waiter, cx.waker());
                    return Poll::Pending;
                }
                // A clone is sent, so that the part itself is dropped without the lock.
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
        // From here on a drop must not close the connection: the call ends now, or has ended.
        self.finished = true;
        let mut last = control::or_no_response(last);
        if self
            .shared
            .command(|state| state.end_with(self.channel, self.serial, OK, &mut last))
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
            // A call that was cancelled, or whose handler has replied otherwise, has its complete
            // reply.
            let cuts = begun && state.is_running(self.channel, self.serial);
            if cuts {
                // The protocol has no way to cut a reply off: only the end of the connection shows
                // it.
                state.closing = Some(Closing::Force);
            }
            cuts
        });
        if cuts {
            tracing::error!("a streamed reply was dropped unfinished; closing its connection");
        }
    }
}
