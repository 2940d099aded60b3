//! Requests that are not answered, on a channel of their own: the client says on the control stream
//! which one that is. Pure.
//!
//! At the server each of them gets a channel that no peer can name, so that it is a call like any
//! other from there on, and holds up none behind it; what is sent on such a channel goes nowhere.

use std::time::Instant;

use super::Connection;
use super::control::{self, ControlMessage, Exchange};
use crate::body::Data;
use crate::frame::{ChannelId, Side};

/// The highest channel that is granted. Those above are the server's own, for requests without
/// answers.
pub(super) const MAX_GRANTED: u32 = u32::MAX / 2;

/// Returns `true` if calls on this channel are one-way.
#[inline]
pub(crate) fn is_one_way(channel: ChannelId) -> bool {
    channel.0 > MAX_GRANTED
}

#[derive(Debug, Default)]
pub(super) struct OneWay {
    /// Client: the server takes such requests.
    pub(super) peer_takes_it: bool,
    /// Client: the channel was asked for, and the server has not refused it since.
    asked: bool,
    /// The channel.
    channel: Option<ChannelId>,
    /// Client: when the last such request was sent.
    sent_at: Option<Instant>,
    /// Server: so many were taken.
    count: u32,
}

impl Connection {
    /// Client: the channel for requests without answers. Asks for it the first time; until it is
    /// there, and with a server that knows none, such a request is an ordinary one whose answer
    /// nobody waits for.
    pub(crate) fn one_way_channel(&mut self) -> Option<ChannelId> {
        let is_needed = self.one_way.peer_takes_it && !self.one_way.asked;
        if is_needed && self.control.is_some() {
            self.one_way.asked = true;
            self.request_channel(Exchange::NewOneWayChannel);
        }
        self.one_way.channel
    }

    /// Client: is there room for one more request without an answer? Nothing else slows down who
    /// sends them.
    pub(crate) fn has_one_way_room(&self) -> bool {
        match self.one_way.channel {
            Some(channel) => self.has_stream_room(channel),
            None => true,
        }
    }

    /// Client: the channel was granted.
    pub(super) fn on_one_way_channel(&mut self, id: ChannelId) {
        let Some(control) = self.control else { return };
        let body = ControlMessage::OneWay(id).encode();
        self.send(control, control::CONTROL.as_bytes(), body, false, false);
        self.one_way.channel = Some(id);
    }

    /// Client: sends a request on the channel for those without answers.
    pub(crate) fn send_one_way(
        &mut self,
        id: ChannelId,
        path: &[u8],
        data: &mut impl Data,
        now: Instant,
    ) {
        self.one_way.sent_at = Some(now);
        self.outbox.push(id, path, data, true, true);
    }

    /// Client: was such a request sent after `heard_at`? Nothing that comes would tell that the
    /// server has it.
    pub(super) fn has_sent_one_way_since(&self, heard_at: Instant) -> bool {
        self.one_way
            .sent_at
            .is_some_and(|sent_at| sent_at > heard_at)
    }

    /// Server: the client says which channel has requests without answers. One that says so again
    /// moves it.
    pub(super) fn on_one_way(&mut self, id: ChannelId) {
        let is_free = self
            .channels
            .get(id)
            .is_none_or(|channel| channel.is_at_rest());
        if id != ChannelId::ZERO && id.0 <= self.granted && is_free {
            self.one_way.channel = Some(id);
        }
    }

    /// Server: the channel that a request which came on `id` is answered on.
    #[inline]
    pub(super) fn channel_of_request(&mut self, id: ChannelId) -> ChannelId {
        if self.one_way.channel == Some(id) {
            self.next_one_way()
        } else {
            id
        }
    }

    fn next_one_way(&mut self) -> ChannelId {
        loop {
            self.one_way.count = self.one_way.count.wrapping_add(1);
            let id = ChannelId(self.one_way.count | (MAX_GRANTED + 1));
            // After two thousand million others one may still run.
            if self
                .channels
                .get(id)
                .is_none_or(|channel| channel.is_at_rest())
            {
                return id;
            }
        }
    }

    /// Server: the channels that such requests were given.
    #[cfg(any(test, fuzzing))]
    pub(super) fn one_way_channels(&self) -> impl Iterator<Item = ChannelId> {
        (1..=self.one_way.count).map(|count| ChannelId(count | (MAX_GRANTED + 1)))
    }

    /// Server: whether requests on this channel are one-way.
    #[inline]
    pub(super) fn is_silent(&self, id: ChannelId) -> bool {
        self.side == Side::Server && (is_one_way(id) || self.one_way.channel == Some(id))
    }
}
