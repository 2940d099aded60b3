//! The state of one stream: what has arrived and was not taken, and what may be sent. Pure; the
//! same for both sides.

use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::clock;
use crate::deferred::Deferred;
use crate::frame::ChannelId;
use crate::parts::Parts;
use crate::proto::{self, StreamFrame};

/// Peers of ours grant more at a time: about half a window, of which the least has 1 KiB.
const LEAST_GRANT: u32 = 256;

/// A window of this size is enough where half of it is taken within [`QUICK`]: no way is so long
/// that it could bring more, and what is on the way keeps other calls waiting behind it.
const ENOUGH_BYTES: usize = 512 * 1024;
const QUICK: Duration = Duration::from_millis(1);

/// Messages of less count as small.
pub(crate) const LARGE_BYTES: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) struct Flow {
    parts: Parts,
    /// The peer sends no further bytes.
    ended: bool,
    /// The room that the peer has when nothing waits here.
    window: usize,
    first_window: usize,
    /// Bytes that were taken since the peer was last told.
    taken: usize,
    /// The peer has said that it waits for room.
    peer_blocked: bool,
    /// When the peer was last told of room, and for how long the connection had brought nothing by
    /// then.
    told_at: Instant,
    read_idle: Duration,
    /// Bytes that may be sent; the last of them may be the first of a part.
    credit: i64,
    /// The peer was told that this side waits for room.
    sent_blocked: bool,
    /// Bytes of an unfinished message that the reader holds.
    held: usize,
    /// The peer is not told of room because the calls of the connection hold too much.
    withheld: bool,
    /// Bytes of a large message that were not handed over, and since when nothing of it was.
    unsent: usize,
    unsent_since: Instant,
    /// The peer has left a large message unread for too long.
    pub(crate) unread: bool,
    /// Nothing is to be sent behind this; it goes by itself, as the peer grants it.
    pub(crate) ending: Option<Body>,
    /// The peer has gone: it sends nothing more and takes nothing more.
    pub(crate) cut: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

impl Flow {
    /// `window` is this side's first one, `credit` the peer's.
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

    /// A frame of the stream came. `true` if it is the first of those that lie where they were
    /// read, see [`detach`](Self::detach).
    pub(crate) fn on_stream_frame(&mut self, heard: StreamFrame, wakers: &mut Vec<Waker>) -> bool {
        match heard {
            StreamFrame::Data(part) => {
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
                // A peer that grants next to nothing, again and again, is not told each time.
                if bytes >= LEAST_GRANT {
                    self.sent_blocked = false;
                }
                wakers.extend(self.writer.take());
            }
        }
        false
    }

    /// Copies what waits out of the memory that it was read into.
    pub(crate) fn detach(&mut self) {
        self.parts.copy_out();
    }

    /// The peer has gone before the call has ended.
    pub(crate) fn on_reset(&mut self, wakers: &mut Vec<Waker>) {
        self.cut = true;
        self.on_call_ended(wakers);
    }

    /// The call has ended: whoever waits finds out.
    pub(crate) fn on_call_ended(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }

    /// Returns `true` if all bytes of the peer have been taken.
    pub(crate) fn is_at_end(&self) -> bool {
        self.ended && self.parts.bytes() == 0
    }

    /// The next bytes. Taking them makes room, which the peer is told of once it is half a window.
    /// `channel` is that of the call until it has ended: afterwards it may be another's.
    pub(crate) fn take_part(
        &mut self,
        proto: &mut proto::Connection,
        channel: Option<ChannelId>,
        clock: fn() -> Instant,
    ) -> Option<Bytes> {
        let part = self.parts.pop()?;
        let Some(channel) = channel.filter(|_| !self.ended && !self.cut) else {
            return Some(part);
        };
        self.taken += part.len();
        if self.taken >= self.window / 2 && self.may_grant(proto, channel) {
            self.send_window_update(proto, channel, clock());
        }
        Some(part)
    }

    /// Returns `true` if the peer may be told of room. A message that is not complete waits while
    /// those of the connection take too much; one of them goes on.
    fn may_grant(&mut self, proto: &mut proto::Connection, channel: ChannelId) -> bool {
        if self.held == 0 || proto.may_grant(channel) {
            return true;
        }
        if !std::mem::replace(&mut self.withheld, true) {
            proto.withhold(channel);
        }
        false
    }

    /// There may be room for more of an unfinished message.
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

    /// The reader holds so many bytes of a message that is not complete.
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

    /// The caller has gone and the handler reads on: what has arrived counts as held.
    pub(crate) fn hold_arrived(&mut self, proto: &mut proto::Connection) {
        let bytes = self.held + self.parts.bytes();
        self.set_held(proto, None, bytes);
    }

    /// So many bytes of a message were not handed over. Small ones are not counted: as many may
    /// wait as there may be calls.
    pub(crate) fn set_unsent(
        &mut self,
        proto: &mut proto::Connection,
        bytes: usize,
        clock: fn() -> Instant,
    ) {
        let bytes = if bytes < LARGE_BYTES { 0 } else { bytes };
        if bytes != self.unsent {
            proto.set_unsent(std::mem::replace(&mut self.unsent, bytes), bytes);
            self.unsent_since = clock();
        }
    }

    /// While what the peer does not read takes too much: a stream whose message has not moved for
    /// `limit` is given up. When to look again.
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
        // The writer waited for room, and the connection brought nothing meanwhile: the window is
        // too small for the way between them. Where this side is the slow one, the connection
        // always has something.
        let span = now.saturating_duration_since(self.told_at);
        let read_idle = proto.timers().read_idle();
        let waited = read_idle.saturating_sub(self.read_idle);
        let quick = span < QUICK;
        if self.peer_blocked && waited > span / 4 && !(quick && self.window >= ENOUGH_BYTES) {
            self.taken += self.grow(proto);
        } else if self.peer_blocked && waited < span / 16 || quick && self.window > ENOUGH_BYTES {
            // What waits on the way to a reader that is busy helps nobody, and keeps other calls
            // waiting behind it.
            self.taken -= self.shrink(proto);
        }
        (self.peer_blocked, self.read_idle, self.told_at) = (false, read_idle, now);
        let room = std::mem::take(&mut self.taken);
        proto.grant(channel, u32::try_from(room).unwrap_or(u32::MAX));
    }

    /// Doubles the window within the limits. By how much it has grown.
    fn grow(&mut self, proto: &mut proto::Connection) -> usize {
        let limits = proto.limits();
        let most = limits.max_window().max(self.window);
        let more = self.window.min(most - self.window);
        let left = limits.buffered_bytes().saturating_sub(proto.window_growth);
        let more = more.min(left);
        self.window += more;
        proto.window_growth += more;
        more
    }

    /// Makes a window that has grown smaller. By how much, which is no more than was taken.
    fn shrink(&mut self, proto: &mut proto::Connection) -> usize {
        let less = (self.window / 8).min(self.window - self.first_window);
        self.window -= less;
        proto.window_growth -= less;
        less
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// The call has ended and forgets its stream: whoever waits finds out, and what was not sent is
    /// dropped.
    pub(crate) fn end(&mut self, deferred: &mut Deferred) {
        deferred.wake(self.reader.take());
        deferred.wake(self.writer.take());
        deferred.drop_body(self.ending.take().unwrap_or_default());
    }

    /// Gives back what the stream has taken of the connection.
    pub(crate) fn release(&self, proto: &mut proto::Connection, channel: Option<ChannelId>) {
        proto.window_growth -= self.window - self.first_window;
        proto.release(self.held);
        proto.set_unsent(self.unsent, 0);
        if let Some(channel) = channel {
            proto.end_overdraft(channel);
        }
    }

    /// Returns `true` if a part may be sent. Tells the peer once if its window is what is missing.
    pub(crate) fn has_credit(&mut self, proto: &mut proto::Connection, channel: ChannelId) -> bool {
        if self.credit > 0 {
            return true;
        }
        if !std::mem::replace(&mut self.sent_blocked, true) {
            proto.say_starved(channel);
        }
        false
    }

    /// Sends what may be sent of the end that was given, and tells the peer of it once that is all.
    pub(crate) fn send_ending(&mut self, proto: &mut proto::Connection, channel: ChannelId) {
        while let Some(mut rest) = self.ending.take() {
            if !rest.is_empty() && !self.has_credit(proto, channel) {
                self.ending = Some(rest);
                return;
            }
            let mut part = rest.split_to(proto.stream_part_bytes().min(rest.len()));
            self.on_sent(part.len());
            self.set_unsent(proto, rest.len(), clock::now);
            proto.send_stream(channel, &mut part, rest.is_empty());
            proto.deferred.drop_body(part);
            self.ending = Some(rest).filter(|rest| !rest.is_empty());
        }
    }

    /// A part was sent.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        self.sent_blocked = false;
        self.credit -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }
}
