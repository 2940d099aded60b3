//! The state of one stream: data that has arrived and was not taken, and credit to send. Pure; the
//! same for both sides.

use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::clock;
use crate::deferred::Deferred;
use crate::frame::ChannelId;
use crate::proto::parts::Parts;
use crate::proto::{self, StreamFrame};

/// Smallest grant that resets the blocked state. Peers of this implementation grant about half a
/// window at a time, and the smallest window has 1 KiB.
const LEAST_GRANT: u32 = 256;

/// Size of a window that is large enough if half of it is taken within [`QUICK`]: a larger one
/// would not increase the throughput at any distance, and data in transit delays other calls.
const ENOUGH_BYTES: usize = 512 * 1024;
const QUICK: Duration = Duration::from_millis(1);

/// Minimum size of a large message; smaller ones count as small.
pub(crate) const LARGE_BYTES: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) struct StreamState {
    parts: Parts,
    /// The peer sends no further bytes.
    ended: bool,
    /// The credit that the peer has when no data waits here.
    window: usize,
    first_window: usize,
    /// Number of bytes taken since the last window update.
    taken: usize,
    /// The peer has reported that it is blocked.
    peer_blocked: bool,
    /// The time of the last window update, and the total time that the connection had been idle by
    /// then.
    told_at: Instant,
    read_idle: Duration,
    /// The credit in bytes. A part may be sent while it is positive, and may exceed it.
    credit: i64,
    /// The peer was notified that this side is blocked.
    sent_blocked: bool,
    /// Number of bytes of an unfinished message that the reader holds.
    held: usize,
    /// Credit is withheld because the calls of the connection hold too much.
    withheld: bool,
    /// Number of bytes of a large message that were not handed over, and the time since which none
    /// of them was.
    unsent: usize,
    unsent_since: Instant,
    /// The peer has left a large message unread for too long.
    pub(crate) unread: bool,
    /// The last data of the stream; it is sent automatically as the peer grants credit.
    pub(crate) ending: Option<Body>,
    /// The peer has gone: it neither sends nor accepts data.
    pub(crate) cut: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

impl StreamState {
    /// Creates the state of a stream. `window` is the first window of this side, `credit` that of
    /// the peer.
    pub(crate) fn new(window: usize, credit: usize, now: Instant) -> Self {
        Self {
            parts: Parts::default(),
            ended: false,
            window,
            first_window: window,
            taken: 0,
            peer_blocked: false,
            told_at: now,
            read_idle: Duration::ZERO,
            credit: i64::try_from(credit).unwrap_or(i64::MAX),
            sent_blocked: false,
            held: 0,
            withheld: false,
            unsent: 0,
            unsent_since: now,
            unread: false,
            ending: None,
            cut: false,
            reader: None,
            writer: None,
        }
    }

    /// Handles a frame of the stream. Returns `true` if it is the first one whose data remains in
    /// the memory it was read into, see [`detach`](Self::detach).
    pub(crate) fn on_stream_frame(&mut self, heard: StreamFrame, wakers: &mut Vec<Waker>) -> bool {
        match heard {
            StreamFrame::Data(part) => {
                // A peer cannot send more than its credit, so the window bounds the parts.
                wakers.extend(self.reader.take());
                return self.parts.push(part);
            }
            StreamFrame::End => {
                self.ended = true;
                wakers.extend(self.reader.take());
            }
            StreamFrame::Blocked => self.peer_blocked = true,
            StreamFrame::WindowUpdate(bytes) => {
                self.credit = self.credit.saturating_add(i64::from(bytes));
                // A peer that repeatedly grants very little is not notified each time.
                if bytes >= LEAST_GRANT {
                    self.sent_blocked = false;
                }
                wakers.extend(self.writer.take());
            }
        }
        false
    }

    /// Copies waiting data out of the memory that it was read into.
    pub(crate) fn detach(&mut self) {
        self.parts.copy_out();
    }

    /// Handles a peer that has gone before the call has ended.
    pub(crate) fn on_reset(&mut self, wakers: &mut Vec<Waker>) {
        self.cut = true;
        self.on_call_ended(wakers);
    }

    /// Wakes the waiting tasks because the call has ended.
    pub(crate) fn on_call_ended(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }

    /// Returns `true` if all bytes of the peer have been taken.
    pub(crate) fn is_at_end(&self) -> bool {
        self.ended && self.parts.bytes() == 0
    }

    /// Takes the next bytes. This frees room, and a window update is sent once it is half a window.
    /// `channel` is that of the call until the call has ended: afterwards it may belong to another
    /// call.
    pub(crate) fn take_part(
        &mut self,
        proto: &mut proto::Connection,
        channel: Option<ChannelId>,
        clock: fn() -> Instant,
    ) -> Option<Bytes> {
        let part = self.parts.pop()?;
        // A peer that sends no further bytes needs no credit.
        let Some(channel) = channel.filter(|_| !self.ended && !self.cut) else {
            return Some(part);
        };
        self.taken += part.len();
        if self.taken >= self.window / 2 && self.may_grant(proto, channel) {
            self.send_window_update(proto, channel, clock());
        }
        Some(part)
    }

    /// Returns `true` if a window update may be sent. An incomplete message waits while those of
    /// the connection take too much memory; one of them continues.
    fn may_grant(&mut self, proto: &mut proto::Connection, channel: ChannelId) -> bool {
        // A reader without an incomplete message is bounded by its window. More data of an
        // incomplete message would only add to what is held.
        if self.held == 0 || proto.may_grant(channel) {
            return true;
        }
        // The queue of the connection has each stream at most once.
        if !std::mem::replace(&mut self.withheld, true) {
            proto.withhold(channel);
        }
        false
    }

    /// Sends a withheld window update if there is room for more of an unfinished message.
    pub(crate) fn grant_withheld(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
    ) {
        if std::mem::take(&mut self.withheld)
            && !self.ended
            && !self.cut
            && self.may_grant(proto, channel)
        {
            self.send_window_update(proto, channel, now);
        }
    }

    /// Sets the number of bytes of an incomplete message that the reader holds.
    pub(crate) fn set_held(
        &mut self,
        proto: &mut proto::Connection,
        channel: Option<ChannelId>,
        bytes: usize,
    ) {
        proto.release(std::mem::replace(&mut self.held, bytes));
        proto.hold(bytes);
        if bytes == 0
            && let Some(channel) = channel
        {
            proto.end_overdraft(channel);
        }
    }

    /// Counts the data that has arrived as held, because the caller has gone and the handler still
    /// reads.
    pub(crate) fn hold_arrived(&mut self, proto: &mut proto::Connection) {
        // It was bounded by the window so far, and the window has gone with the caller.
        let bytes = self.held + self.parts.bytes();
        self.set_held(proto, None, bytes);
    }

    /// Sets the number of bytes of a message that were not handed over. Small messages are not
    /// counted: their number is bounded by the number of calls.
    pub(crate) fn set_unsent(
        &mut self,
        proto: &mut proto::Connection,
        bytes: usize,
        clock: fn() -> Instant,
    ) {
        let bytes = if bytes < LARGE_BYTES { 0 } else { bytes };
        // The time counts from the last change: a message that moves is being read.
        if bytes != self.unsent {
            proto.set_unsent(std::mem::replace(&mut self.unsent, bytes), bytes);
            self.unsent_since = clock();
        }
    }

    /// Gives up a stream whose message has not moved for `limit`, while data that the peer does not
    /// read takes too much memory. Returns the time of the next check.
    pub(crate) fn check_unread(
        &mut self,
        now: Instant,
        limit: Duration,
        wakers: &mut Vec<Waker>,
    ) -> Option<Instant> {
        if self.unsent == 0 || self.unread {
            return None;
        }
        let at = self.unsent_since.checked_add(limit)?;
        if at > now {
            return Some(at);
        }
        self.unread = true;
        wakers.extend(self.writer.take());
        None
    }

    fn send_window_update(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
    ) {
        // The writer was blocked, and the connection was idle in the meantime: the window is too
        // small for the distance. If this side were the slow one, data would always be waiting on
        // the connection.
        let span = now.saturating_duration_since(self.told_at);
        let read_idle = proto.timers().read_idle();
        let waited = read_idle.saturating_sub(self.read_idle);
        let quick = span < QUICK;
        if self.peer_blocked && waited > span / 4 && !(quick && self.window >= ENOUGH_BYTES) {
            // The growth is granted together with what was taken.
            self.taken += self.grow(proto);
        } else if self.peer_blocked && waited < span / 16 || quick && self.window > ENOUGH_BYTES {
            // Data that waits in transit to a busy reader has no benefit, and delays other calls.
            self.taken -= self.shrink(proto);
        }
        (self.peer_blocked, self.read_idle, self.told_at) = (false, read_idle, now);
        let room = std::mem::take(&mut self.taken);
        proto.grant(channel, u32::try_from(room).unwrap_or(u32::MAX));
    }

    /// Doubles the window within the limits. Returns its growth.
    fn grow(&mut self, proto: &mut proto::Connection) -> usize {
        let limits = proto.limits();
        // The first window may already be larger than the maximum, so the difference below is not
        // negative.
        let most = limits.get_max_stream_window().max(self.window);
        let more = self.window.min(most - self.window);
        // All windows of the connection together grow by at most `max_buffered_bytes`.
        let left = limits
            .get_max_buffered_bytes()
            .saturating_sub(proto.window_growth);
        let more = more.min(left);
        self.window += more;
        proto.window_growth += more;
        more
    }

    /// Shrinks a window that has grown. Returns the difference, which is not more than was taken.
    fn shrink(&mut self, proto: &mut proto::Connection) -> usize {
        // A window update is due when half of the window was taken, so an eighth is always there.
        let less = (self.window / 8).min(self.window - self.first_window);
        self.window -= less;
        proto.window_growth -= less;
        less
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// Ends the stream of a call that has ended: waiting tasks are woken, and unsent data is
    /// dropped.
    pub(crate) fn end(&mut self, deferred: &mut Deferred) {
        deferred.wake(self.reader.take());
        deferred.wake(self.writer.take());
        deferred.drop_body(self.ending.take().unwrap_or_default());
    }

    /// Returns the resources of the connection that the stream has used.
    pub(crate) fn release(&self, proto: &mut proto::Connection, channel: Option<ChannelId>) {
        // A window never becomes smaller than the first one.
        proto.window_growth -= self.window - self.first_window;
        proto.release(self.held);
        proto.set_unsent(self.unsent, 0);
        if let Some(channel) = channel {
            proto.end_overdraft(channel);
        }
    }

    /// Returns `true` if a part may be sent. If credit is missing, reports to the peer once that
    /// this side is blocked.
    pub(crate) fn has_credit(&mut self, proto: &mut proto::Connection, channel: ChannelId) -> bool {
        if self.credit > 0 {
            return true;
        }
        if !std::mem::replace(&mut self.sent_blocked, true) {
            proto.send_blocked(channel);
        }
        false
    }

    /// Sends the last data as far as the credit allows, and ends the stream once all of it was
    /// sent.
    pub(crate) fn send_ending(&mut self, proto: &mut proto::Connection, channel: ChannelId) {
        while let Some(mut rest) = self.ending.take() {
            if !rest.is_empty() && !self.has_credit(proto, channel) {
                self.ending = Some(rest);
                return;
            }
            // Only the credit limits this: no task waits for room in the output on behalf of a
            // stream that was finished.
            let mut part = rest.split_to(proto.stream_part_bytes().min(rest.len()));
            self.on_sent(part.len());
            self.set_unsent(proto, rest.len(), clock::now);
            proto.send_stream(channel, &mut part, rest.is_empty());
            proto.deferred.drop_body(part);
            self.ending = Some(rest).filter(|rest| !rest.is_empty());
        }
    }

    /// Records that a part was sent.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        // If the credit is used up again, the peer is notified again.
        self.sent_blocked = false;
        self.credit -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }
}
