//! The state of one stream: what has arrived and was not taken, and what may be sent. Pure; the same for both sides.

use std::task::Waker;

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
    pub(crate) fn new(window: usize, credit: usize) -> Self {
        Self {
            parts: Parts::default(),
            ended: false,
            window,
            first_window: window,
            taken: 0,
            peer_starved: false,
            credit: i64::try_from(credit).unwrap_or(i64::MAX),
            said_starved: false,
            finished: false,
            reader: None,
            writer: None,
        }
    }

    /// A frame of the stream came.
    pub(crate) fn on_heard(&mut self, heard: Heard, wakers: &mut Vec<Waker>) {
        match heard {
            Heard::Data(part) => {
                self.parts.push(part);
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
    ) -> Option<Bytes> {
        let part = self.parts.pop()?;
        self.taken += part.len();
        if self.ended || self.taken < self.window / 2 {
            return Some(part);
        }
        // A reader that has nothing left, and a writer that had to wait: the window was too small for the way between them.
        let starved = std::mem::take(&mut self.peer_starved);
        if starved && self.parts.bytes() == 0 {
            self.taken += self.grow(proto);
        }
        let room = std::mem::take(&mut self.taken);
        proto.grant(channel, u32::try_from(room).unwrap_or(u32::MAX));
        Some(part)
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
