//! The channels of a client connection: each is free, or has a call, or is leased to an owner.
//! Calls without a channel wait for one in order.

use std::task::Waker;
use std::time::Instant;

use super::slot::{Slot, SlotState};
use super::stall::MANY_ABANDONED;
use super::{CallTable, check_time};
use crate::error::{CallError, CallErrorKind, Execution};
use crate::frame::{ChannelId, FRAME_OVERHEAD};
use crate::proto::queue::{Queue, QueueEntry};
use crate::proto::slots::{CallId, Slots};
use crate::proto::{self, Mode};

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) channel: ChannelId,
    /// The owner has gone.
    pub(super) returning: bool,
}

impl CallTable {
    /// Requests the first channel together with the hello.
    pub(crate) fn open_first(&mut self, proto: &mut proto::Connection) {
        self.opening += 1;
        proto.open_channel();
    }

    /// Gives a slot to a caller that wants to lease a channel.
    pub(crate) fn start_lease(
        &mut self,
        proto: &mut proto::Connection,
        now: Instant,
        deadline: Instant,
    ) -> Result<CallId, CallError> {
        check_time(now, deadline)?;
        let channel = self.free.pop();
        if channel.is_none() {
            self.check_queue(proto, now)?;
        }
        let call = self.take_slot(None, now, deadline, None);
        match channel {
            Some(channel) => {
                self.lease(call, channel);
            }
            None => {
                let position = self.queue.push_lease(call);
                self.on_queued(proto, call, position, now);
            }
        }
        Ok(call)
    }

    /// Checks that one more call may wait for a channel. Retires the connection if its server is
    /// not notified of cancelled calls, and therefore probably runs only calls that were given up.
    #[cold]
    pub(super) fn check_queue(
        &mut self,
        proto: &proto::Connection,
        now: Instant,
    ) -> Result<(), CallError> {
        let sent = self.in_flight - self.waiting;
        // This also counts leased channels; `retire_stalled` counts exactly.
        let abandoned = self.opened.saturating_sub(self.free.len() + sent);
        if abandoned >= MANY_ABANDONED
            && !proto.tells_cancels()
            && let Some(error) = self.retire_stalled(now)
        {
            let kind = CallErrorKind::ConnectionLost(error);
            return Err(CallError::not_sent(kind));
        }
        if let Some(retired) = &self.stall.retired {
            let (error, _) = &**retired;
            let kind = CallErrorKind::ConnectionLost(error.clone());
            return Err(CallError::not_sent(kind));
        }
        if self.waiting >= self.max_queued {
            let limit = self.max_queued;
            return Err(CallError::not_sent(CallErrorKind::QueueFull { limit }));
        }
        Ok(())
    }

    /// Records that a caller waits for a channel, and requests one more if the limits allow it.
    pub(super) fn on_queued(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        position: u64,
        now: Instant,
    ) {
        self.waiting += 1;
        if let Some(slot) = self.slots.get_mut(call) {
            slot.state = SlotState::Queued { position };
        }
        let slots = &self.slots;
        self.queue
            .sweep(self.waiting, |call| is_waiting(slots, call));
        // Each call that waits requests at most one channel. Rule C1: any number of requests may be
        // under way.
        let limit = self.max_channels.min(proto.peer_channels());
        if self.opening < self.waiting && self.opened + self.opening < limit {
            self.opening += 1;
            proto.open_channel();
        }
        self.watch_channels(now);
    }

    /// Takes the call that has waited longest, and its request.
    pub(super) fn next_waiting(&mut self) -> Option<(CallId, QueueEntry)> {
        while let Some((call, want)) = self.queue.pop() {
            if is_waiting(&self.slots, call) {
                return Some((call, want));
            }
        }
        None
    }

    /// Completes a lease: the caller has its channel.
    fn lease(&mut self, call: CallId, channel: ChannelId) -> Option<Waker> {
        let slot = self.slots.get_mut(call)?;
        slot.state = SlotState::Leased;
        slot.channel = channel;
        self.in_flight -= 1;
        self.leased.push(Lease {
            channel,
            returning: false,
        });
        slot.waker.take()
    }

    /// Gives a free channel to the call that has waited longest.
    #[inline]
    pub(super) fn release(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        // A channel has become free, so the connection has not stalled.
        self.stall.check_at = None;
        match self.next_waiting() {
            None => self.free.push(channel),
            Some((call, want)) => {
                self.waiting -= 1;
                self.watch_channels(now);
                match want {
                    QueueEntry::Call {
                        path,
                        mut body,
                        mode,
                    } => {
                        self.on_sent(call, channel, now);
                        // A small body is a part of the queue's own buffer. A large one belongs to
                        // the caller, and its drop may run code of the caller.
                        let is_large = Queue::is_large(&path, &body);
                        let bytes = FRAME_OVERHEAD + path.len() + body.len();
                        if proto.start_call(channel, &path, &mut body, call, mode) {
                            proto.stats.sent(&path, bytes, true);
                        }
                        if is_large {
                            proto.deferred.drop_body(body);
                        }
                        if mode == Mode::OneWay {
                            self.complete_one_way(proto, call, wakers);
                        }
                        self.on_stream_sent(proto, call, channel, wakers);
                    }
                    QueueEntry::Lease => wakers.extend(self.lease(call, channel)),
                }
            }
        }
    }

    pub(crate) fn on_channel_opened(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        self.opening = self.opening.saturating_sub(1);
        // A channel that was requested before the server said how many it accepts. It is left
        // unused.
        if self.opened >= proto.peer_channels() {
            return;
        }
        self.opened += 1;
        self.release(proto, channel, now, wakers);
    }

    pub(crate) fn on_channel_rejected(
        &mut self,
        proto: &mut proto::Connection,
        code: i64,
        message: &str,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        self.opening = self.opening.saturating_sub(1);
        self.refused = true;
        // From now on the limit of the server applies on this side.
        self.max_channels = self.opened.max(1);
        // With no channel, and none requested, the calls would wait until their deadlines.
        if self.opened + self.opening == 0 {
            while let Some((call, _)) = self.next_waiting() {
                let kind = CallErrorKind::ChannelRejected {
                    code,
                    message: message.to_owned(),
                };
                self.fail(proto, call, kind, Execution::NotSent, now, wakers);
            }
        }
    }

    /// Returns `channel` to the pool after the end of a reply, unless it is leased.
    #[inline]
    pub(crate) fn on_channel_idle(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        if let Some(index) = self
            .leased
            .iter()
            .position(|lease| lease.channel == channel)
        {
            // A leased channel may have several calls in flight; it is free after the last reply.
            if !self.leased[index].returning || proto.awaits_reply(channel) {
                return;
            }
            self.leased.swap_remove(index);
        }
        self.release(proto, channel, now, wakers);
    }

    /// Returns a leased channel whose owner has gone.
    pub(crate) fn return_lease(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
    ) {
        if let Some(lease) = self
            .leased
            .iter_mut()
            .find(|lease| lease.channel == channel)
        {
            lease.returning = true;
            self.release_now(proto, channel, now);
        }
    }

    pub(super) fn release_now(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
    ) {
        let mut wakers = Vec::new();
        self.on_channel_idle(proto, channel, now, &mut wakers);
        proto.deferred.wake(wakers);
    }
}

/// Returns `true` if the call still waits for a channel. Its caller may have gone, and its slot may
/// belong to another call.
fn is_waiting(slots: &Slots<Slot>, call: CallId) -> bool {
    let slot = slots.get(call);
    slot.is_some_and(|slot| matches!(slot.state, SlotState::Queued { .. }))
}
