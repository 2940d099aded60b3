//! The calls of a server's connection: their replies, their streams, and their ends.

use std::task::Waker;

use super::running::Running;
use super::shared::State;
use crate::body::Body;
use crate::cancel::OnCancel;
use crate::clock;
use crate::decoder::SHARE_MIN_BYTES;
use crate::frame::ChannelId;
use crate::handler_error::RejectReason;
use crate::proto::{StreamFrame, StreamKey, control};
use crate::stats::{CANCELLED, OK, RESOURCE_EXHAUSTED};

impl State {
    pub(crate) fn is_running(&self, channel: ChannelId, serial: u64) -> bool {
        self.running
            .get(&channel)
            .is_some_and(|running| running.serial == serial)
    }

    /// Ends a call that had to wait, once: later replies to it are dropped. It counts with this
    /// status code.
    pub(crate) fn end_with(
        &mut self,
        channel: ChannelId,
        serial: u64,
        code: u8,
        body: &mut Body,
    ) -> bool {
        // The serial distinguishes this call from the next one of its channel.
        self.leave(channel, serial) && {
            self.proto.stats.set_now(clock::now());
            if code != OK {
                self.proto.count_failure(channel, code);
            }
            self.reply(channel, body)
        }
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
        // The caller had gone, and its call got the reply "cancelled" then.
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
        // What the handler has not taken is not taken any more.
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
        let limit = self.proto.limits().get_max_message_bytes();
        // The caller gets an error instead, because the order of the channel requires a reply.
        if body.len() > limit {
            let size = body.len();
            let text = format!(
                "a reply of {size} bytes exceeds the limit of {limit} bytes (option \
                 max_message_bytes)"
            );
            let mut failure = control::handler_failure(&text).into();
            self.proto.count_failure(channel, RESOURCE_EXHAUSTED);
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
            // A window update may let the last data continue that waits for credit.
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
            // The channel gets its next call, so the handler is found by its serial from now on.
            if let Some(mut running) = self.running.remove(&channel) {
                running.tell(&mut self.proto.deferred);
                if let Some(flow) = &mut running.flow {
                    // Nothing more arrives, so another stream may have the overdraft. The data that
                    // waits is counted until the handler ends.
                    self.proto.end_overdraft(channel);
                    flow.hold_arrived(&mut self.proto);
                }
                self.orphans.insert(running.serial, running);
            }
        } else if let Some(running) = self.forget(channel) {
            running.cancel(&mut self.proto.deferred);
        }
        self.proto.stats.set_now(clock::now());
        self.proto.count_failure(channel, CANCELLED);
        // The caller does not read it, but the order of the channel requires a reply.
        let mut reply = control::handler_failure("cancelled").into();
        self.proto.reply(channel, &mut reply, true);
    }

    /// Ends the calls of a connection that is gone: their handlers are aborted, notified, or left
    /// to end.
    pub(crate) fn cancel_all(&mut self) {
        // The table is empty from here on, so that later replies find no call.
        let mut running: Vec<_> = std::mem::take(&mut self.running).into_iter().collect();
        // In the order of the channels, so that a run with the same input ends the same way.
        running.sort_unstable_by_key(|&(channel, _)| channel);
        for (channel, mut running) in running {
            self.let_go(&mut running, Some(channel));
            running.cancel(&mut self.proto.deferred);
        }
    }
}
