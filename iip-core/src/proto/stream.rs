//! Calls with a stream of bytes in each direction, each held to the room that its receiver has
//! granted. Pure.
//!
//! The data of every frame of such a call begins with a mark, which no JSON text, no other UTF-8
//! text and no envelope begins with. The request stays open for the life of the call: what is
//! granted, the end of the bytes and a cancellation travel in it. The answer is that of an ordinary
//! call, behind the bytes: the first frame without a mark begins it. `docs/wire.md` has the format.
//!
//! Other data may begin with any byte. A request in several frames is a stream only if the client
//! has said hello with a window and the first frame is [`DATA`] with something behind it; see
//! [`looks_like_stream`] for messages that happen to begin so.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::channel::{Assembly, Incoming};
use super::control::Exchange;
use super::server::RequestPath;
use super::{Connection, Event};
use crate::body::Body;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, Side};
use std::sync::Arc;

/// Bytes of the stream.
pub(crate) const DATA: u8 = 0xF8;
/// How many further bytes the other side may send: a u32, big-endian.
const WINDOW_UPDATE: u8 = 0xF9;
/// This side has more to send than it may.
const BLOCKED: u8 = 0xFA;
/// Like [`DATA`], and nothing follows.
const LAST: u8 = 0xFB;
/// Client, in its last frame: nobody waits for the answer.
const CANCEL: u8 = 0xFC;
/// Client, in its last frame: the answer has arrived.
const OVER: u8 = 0xFD;

/// The most bytes of a stream in one frame: more would keep the frames of other channels waiting,
/// and go further beyond what was granted. A peer that sends more is refused.
const PART_BYTES: usize = 64 * 1024;

/// Server: the rest of this frame, and all that follow, are the answer.
pub(super) const ANSWER: u8 = 0xFE;

/// Returns `true` if this is the data of a frame of such a call.
#[inline]
fn is_marked(data: &[u8]) -> bool {
    data.first().is_some_and(|&byte| byte >= DATA)
}

/// Returns `true` if a request of several frames that begins with this data begins a stream.
pub(super) fn begins_stream(data: &[u8]) -> bool {
    data.len() > 1 && data[0] == DATA
}

/// Would a message that is cut be taken for a stream? Then its first byte goes in a frame of its
/// own, as a stream's never does.
pub(super) fn looks_like_stream(body: &Body) -> bool {
    body.first() == Some(DATA)
}

/// What a frame of a stream says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StreamFrame {
    /// Bytes.
    Data(Bytes),
    /// So many further bytes may be sent.
    WindowUpdate(u32),
    /// The peer has more to send than it may.
    Blocked,
    /// The peer sends no further bytes.
    End,
}

/// Who a stream belongs to: the caller's token at a client, the channel at a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StreamKey {
    Call(usize),
    Channel(ChannelId),
}

impl Connection {
    /// The room that the peer grants to each stream from the start; `None` if it knows no streams.
    pub(crate) fn peer_stream_window(&self) -> Option<usize> {
        self.peer_stream_window
    }

    /// Server: a request has begun as a stream. It is open from now on.
    pub(super) fn begin_stream(
        &mut self,
        id: ChannelId,
        path: &Bytes,
        body: Bytes,
    ) -> Result<(), ProtocolError> {
        let path = RequestPath::read(path);
        let is_busy = self.open_calls >= self.limits.calls();
        let window = self.limits.window();
        let channel = self.channels.get_or_insert(id);
        if !path.is_for_handlers() || channel.open.is_some() || !channel.waiting.is_empty() {
            return Err(ProtocolError::BadStream(id));
        }
        let mut assembly = Assembly::new(Incoming::Stream, Bytes::new());
        assembly.allowed = i64::try_from(window).unwrap_or(i64::MAX);
        let path = Arc::new(path);
        channel.assembly = Some(Box::new(assembly));
        channel.open = Some(Arc::clone(&path));
        channel.begun = true;
        channel.is_stream = true;
        self.open_calls += 1;
        self.streamed += 1;
        self.events.push_back(Event::StreamBegun {
            channel: id,
            path,
            is_busy,
        });
        self.on_stream_frame(id, StreamKey::Channel(id), body, false)
    }

    /// A frame of a stream that has begun.
    pub(super) fn on_stream_frame(
        &mut self,
        id: ChannelId,
        key: StreamKey,
        mut body: Bytes,
        ends: bool,
    ) -> Result<(), ProtocolError> {
        let bad = Err(ProtocolError::BadStream(id));
        let mark = body.get_u8();
        let heard = match mark {
            DATA | LAST if !ends => {
                let Some(assembly) = self
                    .channels
                    .get_mut(id)
                    .and_then(|channel| channel.assembly.as_mut())
                else {
                    return bad;
                };
                // The last byte allowed may be the first of a part.
                let is_within = body.is_empty() || assembly.allowed > 0;
                if assembly.ended || body.len() > PART_BYTES || !is_within {
                    return bad;
                }
                assembly.allowed -= i64::try_from(body.len()).unwrap_or(i64::MAX);
                assembly.ended = mark == LAST;
                if !body.is_empty() {
                    let heard = StreamFrame::Data(body);
                    self.events.push_back(Event::Stream { key, heard });
                }
                if mark == DATA {
                    return Ok(());
                }
                StreamFrame::End
            }
            WINDOW_UPDATE if !ends && body.len() == 4 => StreamFrame::WindowUpdate(body.get_u32()),
            BLOCKED if !ends && body.is_empty() => StreamFrame::Blocked,
            CANCEL | OVER if ends && self.side == Side::Server => {
                // Before it is answered, its end says that nobody waits for the answer.
                // A stream is cancelled once, which is free as for any other call.
                if self
                    .channels
                    .get(id)
                    .is_some_and(|channel| channel.begun && channel.open.is_some())
                {
                    self.cancel_open(id);
                }
                return Ok(());
            }
            _ => return bad,
        };
        self.events.push_back(Event::Stream { key, heard });
        Ok(())
    }

    /// Client: takes the mark off what may be the beginning of the answer to a stream. `true` if it
    /// is that.
    pub(super) fn begins_answer(body: &mut Bytes) -> bool {
        if body.first() == Some(&ANSWER) {
            body.advance(1);
            return true;
        }
        // Whoever refused the call may not have known that it was a stream.
        !is_marked(body)
    }

    // ---- commands

    /// Returns `true` if the peer may be granted more of a message that is not complete: there is
    /// room, or this is the one that goes on without.
    pub(crate) fn may_grant(&mut self, channel: ChannelId) -> bool {
        !self.is_over_budget() || *self.overdraft.get_or_insert(channel) == channel
    }

    /// The stream on a channel waits for room to be granted more.
    pub(crate) fn withhold(&mut self, channel: ChannelId) {
        self.withheld.push_back(channel);
    }

    /// The next of the streams that wait for room, if there is some.
    pub(crate) fn next_withheld(&mut self) -> Option<ChannelId> {
        if self.withheld.is_empty() || (self.is_over_budget() && self.overdraft.is_some()) {
            return None;
        }
        self.withheld.pop_front()
    }

    /// The message of the stream on a channel is complete, or the stream has ended.
    pub(crate) fn end_overdraft(&mut self, channel: ChannelId) {
        self.overdraft.take_if(|overdraft| *overdraft == channel);
    }

    /// Whose stream there is on a channel.
    pub(crate) fn stream_on(&self, channel: ChannelId) -> Option<StreamKey> {
        match self.side {
            Side::Server => Some(StreamKey::Channel(channel)),
            Side::Client => match self.channels.get(channel)?.sent.oldest()?.exchange {
                Exchange::Call { token } => Some(StreamKey::Call(token)),
                _ => None,
            },
        }
    }

    /// The most bytes that go in one frame of a stream.
    pub(crate) fn stream_part_bytes(&self) -> usize {
        PART_BYTES.min(self.outbox.chunk() - 1)
    }

    /// Sends bytes of a stream, at most [`stream_part_bytes`](Self::stream_part_bytes); `last` says
    /// that none follow. What was copied of `part` stays there.
    pub(crate) fn send_stream(&mut self, id: ChannelId, part: &mut Body, last: bool) {
        let mut marked = part.marked(if last { LAST } else { DATA });
        self.push_stream(id, &mut marked);
        part.unmark(marked);
    }

    /// Tells the peer that it may send so many further bytes.
    pub(crate) fn grant(&mut self, id: ChannelId, bytes: u32) {
        let Some(assembly) = self
            .channels
            .get_mut(id)
            .and_then(|channel| channel.assembly.as_mut())
        else {
            // The peer has ended its direction.
            return;
        };
        if assembly.incoming != Incoming::Stream || assembly.ended {
            return;
        }
        assembly.allowed += i64::from(bytes);
        let mut body = BytesMut::with_capacity(5);
        body.put_u8(WINDOW_UPDATE);
        body.put_u32(bytes);
        self.push_stream(id, &mut body.freeze().into());
    }

    /// Tells the peer that there is more to send than it allows.
    pub(crate) fn say_starved(&mut self, id: ChannelId) {
        self.push_stream(id, &mut Bytes::from_static(&[BLOCKED]).into());
    }

    /// Client: ends a request that was a stream.
    pub(super) fn end_stream_request(&mut self, id: ChannelId, cancelled: bool) {
        let body: &'static [u8] = if cancelled { &[CANCEL] } else { &[OVER] };
        self.send(id, b"", Bytes::from_static(body), false, true);
    }

    fn push_stream(&mut self, id: ChannelId, body: &mut Body) {
        match self.side {
            Side::Client => {
                self.outbox.push(id, b"", body, false, false);
            }
            Side::Server => {
                self.reply(id, body, false);
            }
        }
    }
}
