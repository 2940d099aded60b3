//! The state of one stream: what has arrived and was not taken, and what may be sent. Pure; the same for both sides.

use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::frame::ChannelId;
use crate::parts::Parts;
use crate::proto::{self, Heard};

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
    /// Since when the reader has waited for bytes.
    idle_since: Option<Instant>,
    /// How long it has waited since the peer was last told of room, and when that was.
    idle: Duration,
    told_at: Instant,
    /// Bytes that may be sent; the last of them may be the first of a part.
    credit: i64,
    /// The peer was told that this side waits for room.
    said_starved: bool,
    /// Nothing more is to be sent; the peer is told once the call has its channel.
    pub(crate) finished: bool,
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
            idle_since: None,
            idle: Duration::ZERO,
            told_at: now,
            credit: i64::try_from(credit).unwrap_or(i64::MAX),
            said_starved: false,
            finished: false,
            reader: None,
            writer: None,
        }
    }

    /// A frame of the stream came.
    pub(crate) fn on_heard(&mut self, heard: Heard, now: Instant, wakers: &mut Vec<Waker>) {
        match heard {
            Heard::Data(part) => {
                self.parts.push(part);
                if let Some(since) = self.idle_since.take() {
                    self.idle += now.saturating_duration_since(since);
                }
                wakers.extend(self.reader.take());
            }
            Heard::End => {
                self.ended = true;
                wakers.extend(self.reader.take());
            }
            Heard::Starved => self.peer_starved = true,
            Heard::Grant(bytes) => {
                self.credit = self.credit.saturating_add(i64::from(bytes));
                self.said_starved = false;
                wakers.extend(self.writer.take());
            }
        }
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

    /// The next bytes. Taking them makes room, which the peer is told of once it is half a window.
    pub(crate) fn take_part(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        clock: fn() -> Instant,
    ) -> Option<Bytes> {
        let Some(part) = self.parts.pop() else {
            if self.idle_since.is_none() {
                self.idle_since = Some(clock());
            }
            return None;
        };
        self.taken += part.len();
        if self.taken >= self.window / 2 && !self.ended {
            self.tell_room(proto, channel, clock());
        }
        Some(part)
    }

    fn tell_room(&mut self, proto: &mut proto::Connection, channel: ChannelId, now: Instant) {
        // The writer waited for room, and the reader for bytes: the window is too small for the way between them. A reader
        // that is slow itself does not wait.
        let span = now.saturating_duration_since(self.told_at);
        if self.peer_starved && self.idle > span / 4 {
            self.taken += self.grow(proto);
        }
        (self.peer_starved, self.idle, self.told_at) = (false, Duration::ZERO, now);
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

    /// A part was sent.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        self.credit -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }
}
