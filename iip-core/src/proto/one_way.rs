//! One-way calls, on a separate channel that the client names on the control stream. Pure.
//!
//! The server assigns each of them a channel id that no peer can name, so that it is handled like
//! any other call and does not delay those after it; whatever is sent on such a channel is
//! discarded.

use std::time::Instant;

use super::Connection;
use super::channel::MAX_GRANTED;
use super::control::{self, ControlMessage, Exchange};
use super::{STREAM_ROOM_BYTES, is_one_way};
use crate::body::Data;
use crate::frame::{ChannelId, Side};

#[derive(Debug, Default)]
pub(super) struct OneWay {
    /// Client: the server accepts one-way calls.
    pub(super) peer_takes_it: bool,
    /// Client: the channel was requested. A rejected request is not repeated.
    asked: bool,
    /// The channel for one-way calls.
    channel: Option<ChannelId>,
    /// Client: time at which the last one-way call was sent.
    sent_at: Option<Instant>,
    /// Server: number of one-way calls that were received.
    count: u32,
}

impl Connection {
    /// Client: returns the channel for one-way calls. Requests it the first time. Until the channel
    /// is granted, and with a server that does not support it, such a call is sent as an ordinary
    /// one whose reply is discarded.
    pub(crate) fn one_way_channel(&mut self) -> Option<ChannelId> {
        // The channel is named on the control stream, so it is of no use before that exists.
        let is_needed = self.one_way.peer_takes_it && !self.one_way.asked;
        if is_needed && self.control.is_some() {
            self.one_way.asked = true;
            self.request_channel(Exchange::NewOneWayChannel);
        }
        self.one_way.channel
    }

    /// Client: returns `true` if there is room for one more one-way call. Nothing else slows down
    /// the sender.
    pub(crate) fn has_one_way_room(&self) -> bool {
        match self.one_way.channel {
            Some(channel) => self.has_stream_room(channel),
            // Each call has a channel of its own, so long messages on all of them count.
            None => self.outbox.unsent() < STREAM_ROOM_BYTES,
        }
    }

    /// Client: announces the channel to the server after it was granted.
    pub(super) fn on_one_way_channel(&mut self, id: ChannelId) {
        let Some(control) = self.control else { return };
        // This is queued before the first request on the channel, so the server learns of it first.
        let body = ControlMessage::OneWay(id).encode();
        self.send(control, control::CONTROL.as_bytes(), body, false, false);
        self.one_way.channel = Some(id);
    }

    /// Client: sends a request on the channel for one-way calls. Returns `true` if it is sent in one
    /// frame.
    pub(crate) fn send_one_way(
        &mut self,
        id: ChannelId,
        path: &[u8],
        data: &mut impl Data,
        now: Instant,
    ) -> bool {
        self.one_way.sent_at = Some(now);
        // The request is not recorded as sent, because no reply will come.
        self.outbox.push(id, path, data, true, true).is_some()
    }

    /// Client: returns `true` if a one-way call was sent after `heard_at`. No reply would show that
    /// the server has it.
    pub(super) fn has_sent_one_way_since(&self, heard_at: Instant) -> bool {
        self.one_way
            .sent_at
            .is_some_and(|sent_at| sent_at > heard_at)
    }

    /// Server: sets the channel for one-way calls that the client named. A later message replaces
    /// it.
    pub(super) fn on_one_way(&mut self, id: ChannelId) {
        // A call that is in flight on the channel expects a reply.
        let is_free = self
            .channels
            .get(id)
            .is_none_or(|channel| channel.is_at_rest());
        if id != ChannelId::ZERO && id.0 <= self.server.granted && is_free {
            self.one_way.channel = Some(id);
        }
    }

    /// Server: returns the channel for the reply to a request that arrived on `id`.
    #[inline]
    pub(super) fn channel_of_request(&mut self, id: ChannelId) -> ChannelId {
        if self.one_way.channel == Some(id) {
            self.next_one_way()
        } else {
            id
        }
    }

    fn next_one_way(&mut self) -> ChannelId {
        // This ends, because far fewer than 2^31 channels can be in the table.
        loop {
            self.one_way.count = self.one_way.count.wrapping_add(1);
            let id = ChannelId(self.one_way.count | (MAX_GRANTED + 1));
            // The counter wraps after 2^31 calls, and one of the earlier ones may still run.
            if self
                .channels
                .get(id)
                .is_none_or(|channel| channel.is_at_rest())
            {
                return id;
            }
        }
    }

    /// Server: returns the channels that were assigned to one-way calls.
    #[cfg(any(test, fuzzing))]
    pub(super) fn one_way_channels(&self) -> impl Iterator<Item = ChannelId> {
        (1..=self.one_way.count).map(|count| ChannelId(count | (MAX_GRANTED + 1)))
    }

    /// Server: returns `true` if a one-way request is arriving in several frames.
    pub(super) fn receives_one_way(&self) -> bool {
        let channel = self.one_way.channel.and_then(|id| self.channels.get(id));
        channel.is_some_and(|channel| channel.assembly.is_some())
    }

    /// Server: returns `true` if requests on this channel are one-way.
    #[inline]
    pub(super) fn is_silent(&self, id: ChannelId) -> bool {
        self.side == Side::Server && (is_one_way(id) || self.one_way.channel == Some(id))
    }
}
