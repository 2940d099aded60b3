//! The end of a call: every call ends in [`CallTable::complete`], [`CallTable::fail`] or
//! [`CallTable::abandon`].

use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::CallTable;
use super::slot::{Slot, SlotState};
use crate::error::{CallError, CallErrorKind, ConnectionError, Execution, Phases};
use crate::proto;
use crate::proto::slots::CallId;
use crate::stats::{CANCELLED, OK};

impl CallTable {
    pub(crate) fn on_reply(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        result: Result<Bytes, CallErrorKind>,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get(call) else {
            return;
        };
        let channel = slot.channel;
        let skipped = result.is_err();
        match result {
            Ok(body) => self.complete(call, body, wakers),
            Err(kind) => self.fail(proto, call, kind, Execution::MayHaveExecuted, now, wakers),
        }
        // The rest of a reply that is too large is still to come; the channel is free after it.
        if !(skipped && proto.awaits_reply(channel)) {
            self.on_channel_idle(proto, channel, now, wakers);
        }
    }

    pub(crate) fn on_part(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        body: Bytes,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get_mut(call) else {
            return;
        };
        let parts = slot.parts.get_or_insert_default();
        let (held, more) = (parts.bytes(), body.len());
        let (size, limit) = (held + more, proto.limits().get_max_message_bytes());
        // Parts that were taken count no more, so this limits a reply that is not read, and not its
        // length.
        let kind = if size > limit {
            CallErrorKind::MessageTooLarge { size, limit }
        } else if let Some(kind) = proto.buffer_full(held, more) {
            kind
        } else {
            parts.push(body);
            proto.hold(more);
            wakers.extend(slot.waker.take());
            return;
        };
        // The parts that have arrived before may still be taken.
        let channel = slot.channel;
        proto.abandon(channel, call);
        self.fail(proto, call, kind, Execution::MayHaveExecuted, now, wakers);
    }

    /// Completes a call. All calls that succeed end here.
    #[inline]
    pub(crate) fn complete(&mut self, call: CallId, body: Bytes, wakers: &mut Vec<Waker>) {
        // A call that has failed before, for example at its deadline, keeps its error.
        if let Some(slot) = self.slots.get_mut(call)
            && matches!(slot.state, SlotState::Sent)
        {
            slot.state = SlotState::Done(Ok(body));
            self.in_flight -= 1;
            self.replies.add(slot.method, slot.started);
            if let Some(waker) = slot.waker.take() {
                wakers.push(waker);
            }
            if let Some(flow) = &mut slot.flow {
                flow.on_call_ended(wakers);
            }
        }
    }

    /// Completes a one-way call, which counts as one that took no time.
    pub(super) fn complete_one_way(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        wakers: &mut Vec<Waker>,
    ) {
        if let Some(slot) = self.slots.get_mut(call) {
            let method = slot.method.take();
            proto.stats.ended_by(method, Duration::ZERO, OK);
        }
        self.complete(call, Bytes::new(), wakers);
    }

    /// Fails a call. All calls that fail end here.
    pub(super) fn fail(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        kind: CallErrorKind,
        execution: Execution,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get_mut(call) else {
            return;
        };
        match slot.state {
            SlotState::Queued { position } => {
                self.waiting -= 1;
                self.left.extend(self.queue.abandon(position));
            }
            SlotState::Sent => {}
            _ => return,
        }
        self.in_flight -= 1;
        let took = now.saturating_duration_since(slot.started.unwrap_or(now));
        proto.stats.ended_by(slot.method, took, kind.status_code());
        // A call that was never sent has waited until now.
        let sent = slot.sent_at.unwrap_or(now);
        let mut phases = Phases {
            wait_for_channel: sent.saturating_duration_since(slot.started.unwrap_or(sent)),
            ..Phases::default()
        };
        match execution {
            Execution::NotSent => phases.write = now.saturating_duration_since(sent),
            _ => phases.reply = now.saturating_duration_since(sent),
        }
        slot.state = SlotState::Done(Err(CallError::new(kind, execution, phases)));
        wakers.extend(slot.waker.take());
        if let Some(flow) = &mut slot.flow {
            flow.on_call_ended(wakers);
        }
    }

    /// Ends the calls whose deadline has passed. Returns `true` if the connection is retired from
    /// now on.
    #[inline]
    pub(crate) fn expire(
        &mut self,
        proto: &mut proto::Connection,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        if self.next_deadline.is_none_or(|next| next > now) {
            return false;
        }
        // The check may schedule the next one, so it comes after `next_deadline` was set.
        self.expire_now(proto, now, wakers);
        self.check_stall(proto, now, wakers)
    }

    #[cold]
    fn expire_now(&mut self, proto: &mut proto::Connection, now: Instant, wakers: &mut Vec<Waker>) {
        let mut next = None;
        let mut expired = Vec::new();
        for (call, slot) in self.slots.iter() {
            let sent = matches!(slot.state, SlotState::Sent);
            let waits = matches!(slot.state, SlotState::Queued { .. });
            let Some(deadline) = slot.deadline.filter(|_| sent || waits) else {
                continue;
            };
            if deadline <= now {
                expired.push((call, sent, slot.channel));
            } else {
                next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            }
        }
        self.next_deadline = next;
        // Waiting calls fail first: a channel that becomes free must not be given to a call whose
        // deadline has passed.
        expired.sort_by_key(|&(_, sent, _)| sent);
        for (call, sent, channel) in expired {
            // A long request of which nothing was sent is taken back, and has certainly not run.
            let withdrawn = sent && proto.abandon(channel, call);
            let sent = sent && !withdrawn;
            if withdrawn {
                self.on_channel_idle(proto, channel, now, wakers);
            }
            let execution = if sent {
                Execution::MayHaveExecuted
            } else {
                Execution::NotSent
            };
            self.fail(proto, call, CallErrorKind::Timeout, execution, now, wakers);
        }
    }

    /// Ends all calls of a connection that is gone.
    pub(crate) fn fail_all(
        &mut self,
        proto: &mut proto::Connection,
        error: &ConnectionError,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        // A server of this library sends status 8 after the reply to the last call that it has
        // started, so calls without a reply have not run (compare defect D22).
        let promised = matches!(error, ConnectionError::Ended) && proto.peer_replies_before_end();
        let execution = |(call, slot): (CallId, &Slot)| match slot.state {
            SlotState::Sent if !proto.was_sent(slot.channel, call) => (call, Execution::NotSent),
            SlotState::Sent if promised => (call, Execution::NotExecuted),
            SlotState::Sent => (call, Execution::MayHaveExecuted),
            _ => (call, Execution::NotSent),
        };
        let calls: Vec<(CallId, Execution)> = self.slots.iter().map(execution).collect();
        for (call, execution) in calls {
            let kind = CallErrorKind::ConnectionLost(error.clone());
            self.fail(proto, call, kind, execution, now, wakers);
        }
        // Only entries of calls that have ended are left.
        self.queue.clear();
        self.stall = super::Stall::default();
    }

    /// Ends a call whose caller has gone. Asks for the time only if the call is under way, because
    /// every call comes here when its caller has its outcome.
    pub(crate) fn abandon(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        now: impl FnOnce() -> Instant,
    ) {
        let Some(slot) = self.slots.get_mut(call) else {
            return;
        };
        let (channel, method, started) = (slot.channel, slot.method, slot.started);
        let count = |proto: &mut proto::Connection, now: Instant| {
            let took = now.saturating_duration_since(started.unwrap_or(now));
            proto.stats.ended_by(method, took, CANCELLED);
        };
        match self.free_slot(proto, call) {
            SlotState::Queued { position } => {
                count(proto, now());
                self.in_flight -= 1;
                self.waiting -= 1;
                self.left.extend(self.queue.abandon(position));
            }
            SlotState::Sent => {
                let now = now();
                count(proto, now);
                self.in_flight -= 1;
                if proto.abandon(channel, call) {
                    self.release_now(proto, channel, now);
                }
            }
            // The caller has gone before it took the channel.
            SlotState::Leased => self.return_lease(proto, channel, now()),
            SlotState::Free | SlotState::Done(_) | SlotState::Taken => {}
        }
    }

    /// Releases a slot and returns the state it had.
    #[inline]
    pub(super) fn free_slot(&mut self, proto: &mut proto::Connection, call: CallId) -> SlotState {
        let Some(slot) = self.slots.get_mut(call) else {
            return SlotState::Free;
        };
        let state = std::mem::take(&mut slot.state);
        // The drop of a waker may run code of the caller, so it waits until the lock is released.
        if let waker @ Some(_) = slot.waker.take() {
            proto.deferred.drop_waker(waker);
        }
        if let Some(parts) = slot.parts.take() {
            proto.release(parts.bytes());
        }
        if let Some(mut flow) = slot.flow.take() {
            flow.release(proto, Some(slot.channel));
            flow.end(&mut proto.deferred);
        }
        if !matches!(state, SlotState::Free) {
            self.slots.give_back(call);
        }
        state
    }

    /// Cuts the caller's stream before its end, which also ends the call if it is still under way.
    pub(crate) fn cut_stream(&mut self, proto: &mut proto::Connection, call: CallId, now: Instant) {
        let Some((_, channel)) = self.flow(call) else {
            return;
        };
        let execution = match channel {
            Some(channel) => {
                // A stream is never taken back, so its channel is not free yet.
                proto.abandon(channel, call);
                Execution::MayHaveExecuted
            }
            None => Execution::NotSent,
        };
        let mut wakers = Vec::new();
        let kind = CallErrorKind::Unfinished;
        self.fail(proto, call, kind, execution, now, &mut wakers);
        proto.deferred.wake(wakers);
    }
}
