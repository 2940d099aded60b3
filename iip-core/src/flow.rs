//! The state of one stream: what has arrived and was not taken, and what may be sent. Pure; the same for both sides.

use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::deferred::Deferred;
use crate::frame::ChannelId;
use crate::parts::Parts;
use crate::proto::{self, Heard};

/// Peers of ours grant more at a time: about half a window, of which the least has 1 KiB.
const LEAST_GRANT: u32 = 256;

/// A window of this size is enough where half of it is taken within [`QUICK`]: no way is so long that it could bring more, and
/// what is on the way keeps other calls waiting behind it.
const ENOUGH_BYTES: usize = 512 * 1024;
const QUICK: Duration = Duration::from_millis(1);

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
    peer_starved: bool,
    /// When the peer was last told of room, and for how long the connection had brought nothing by then.
    told_at: Instant,
    dry: Duration,
    /// Bytes that may be sent; the last of them may be the first of a part.
    credit: i64,
    /// The peer was told that this side waits for room.
    said_starved: bool,
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
            peer_starved: false,
            told_at: now,
            dry: Duration::ZERO,
            credit: i64::try_from(credit).unwrap_or(i64::MAX),
            said_starved: false,
            ending: None,
            cut: false,
            reader: None,
            writer: None,
        }
    }

    /// A frame of the stream came. `true` if it is the first of those that lie where they were read, see
    /// [`detach`](Self::detach).
    pub(crate) fn on_heard(&mut self, heard: Heard, wakers: &mut Vec<Waker>) -> bool {
        match heard {
            Heard::Data(part) => {
                wakers.extend(self.reader.take());
                return self.parts.push(part);
            }
            Heard::End => {
                self.ended = true;
                wakers.extend(self.reader.take());
            }
            Heard::Starved => self.peer_starved = true,
            Heard::Grant(bytes) => {
                self.credit = self.credit.saturating_add(i64::from(bytes));
                // A peer that grants next to nothing, again and again, is not told each time.
                if bytes >= LEAST_GRANT {
                    self.said_starved = false;
                }
                wakers.extend(self.writer.take());
            }
        }
        false
    }

    /// Copies what waits out of the memory that it was read into.
    pub(crate) fn detach(&mut self) {
        self.parts.detach();
    }

    /// The peer has gone before the call has ended.
    pub(crate) fn on_cut(&mut self, wakers: &mut Vec<Waker>) {
        self.cut = true;
        self.on_over(wakers);
    }

    /// The call has ended: whoever waits finds out.
    pub(crate) fn on_over(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }

    /// Have all bytes of the peer been taken?
    pub(crate) fn is_at_end(&self) -> bool {
        self.ended && self.parts.bytes() == 0
    }

    /// The next bytes. Taking them makes room, which the peer is told of once it is half a window. `channel` is that of the call
    /// until it has ended: afterwards it may be another's.
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
        if self.taken >= self.window / 2 {
            self.tell_room(proto, channel, clock());
        }
        Some(part)
    }

    fn tell_room(&mut self, proto: &mut proto::Connection, channel: ChannelId, now: Instant) {
        // The writer waited for room, and the connection brought nothing meanwhile: the window is too small for the way between
        // them. Where this side is the slow one, the connection always has something.
        let span = now.saturating_duration_since(self.told_at);
        let dry = proto.timers().dry();
        let waited = dry.saturating_sub(self.dry);
        let quick = span < QUICK;
        if self.peer_starved && waited > span / 4 && !(quick && self.window >= ENOUGH_BYTES) {
            self.taken += self.grow(proto);
        } else if self.peer_starved && waited < span / 16 || quick && self.window > ENOUGH_BYTES {
            // What waits on the way to a reader that is busy helps nobody, and keeps other calls waiting behind it.
            self.taken -= self.shrink(proto);
        }
        (self.peer_starved, self.dry, self.told_at) = (false, dry, now);
        let room = std::mem::take(&mut self.taken);
        proto.grant(channel, u32::try_from(room).unwrap_or(u32::MAX));
    }

    /// Doubles the window within the limits. By how much it has grown.
    fn grow(&mut self, proto: &mut proto::Connection) -> usize {
        let limits = proto.limits();
        let most = limits.max_window().max(self.window);
        let more = self.window.min(most - self.window);
        let left = limits.buffered_bytes().saturating_sub(proto.grown);
        let more = more.min(left);
        self.window += more;
        proto.grown += more;
        more
    }

    /// Makes a window that has grown smaller. By how much, which is no more than was taken.
    fn shrink(&mut self, proto: &mut proto::Connection) -> usize {
        let less = (self.window / 8).min(self.window - self.first_window);
        self.window -= less;
        proto.grown -= less;
        less
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// The call has ended and forgets its stream: whoever waits finds out, and what was not sent is dropped.
    pub(crate) fn end(&mut self, deferred: &mut Deferred) {
        deferred.wake(self.reader.take());
        deferred.wake(self.writer.take());
        deferred.drop_body(self.ending.take().unwrap_or_default());
    }

    /// Gives back what the window has taken of the connection.
    pub(crate) fn release(&self, proto: &mut proto::Connection) {
        proto.grown -= self.window - self.first_window;
    }

    /// May a part be sent? Tells the peer once if it is its room that is missing.
    pub(crate) fn has_credit(&mut self, proto: &mut proto::Connection, channel: ChannelId) -> bool {
        if self.credit > 0 {
            return true;
        }
        if !std::mem::replace(&mut self.said_starved, true) {
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
            proto.send_stream(channel, &mut part, rest.is_empty());
            proto.deferred.drop_body(part);
            self.ending = Some(rest).filter(|rest| !rest.is_empty());
        }
    }

    /// A part was sent.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        self.said_starved = false;
        self.credit -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }
}
