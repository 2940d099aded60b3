//! Calls with a stream of bytes in each direction, each limited to the credit that its receiver has
//! granted. Pure.
//!
//! The data of every frame of such a call begins with a mark, which no JSON text, no other UTF-8
//! text and no envelope begins with. The request stays open for the life of the call: window
//! updates, the end of the bytes and a cancellation are sent in it. The reply is that of an
//! ordinary call, after the bytes: the first frame without a mark begins it. `docs/wire.md` has the
//! format.
//!
//! Other data may begin with any byte. A request of several frames is a stream only if the client
//! has said hello with a window and the first frame is [`DATA`] followed by at least one byte; see
//! [`looks_like_stream`] for messages that happen to begin like that.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Connection;
use super::channel::{Arrival, Assembly, Channel, Incoming, IncomingStream, OpenRequest};
use super::control::Exchange;
use super::event::{ClientEvent, ServerEvent, StreamFrame, StreamKey};
use super::request_path::RequestPath;
use crate::body::Body;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, FRAME_OVERHEAD, Side};
use std::sync::Arc;

/// Bytes of the stream.
pub(crate) const DATA: u8 = 0xF8;
/// Number of further bytes that the other side may send: a u32, big-endian.
const WINDOW_UPDATE: u8 = 0xF9;
/// This side has more to send than its credit.
const BLOCKED: u8 = 0xFA;
/// Like [`DATA`], but no bytes follow.
const LAST: u8 = 0xFB;
/// Client, in its last frame: the caller no longer waits for the reply.
const CANCEL: u8 = 0xFC;
/// Client, in its last frame: the reply has arrived.
const OVER: u8 = 0xFD;

/// Number of bytes of the frame that ends the request of a stream.
pub(super) const END_BYTES: usize = FRAME_OVERHEAD + 1;

/// Maximum number of bytes of a stream in one frame: more would delay the frames of other channels
/// and exceed the credit further. Sending more is a protocol error.
const PART_BYTES: usize = 64 * 1024;

/// Server: the rest of this frame, and all that follow, are the reply.
pub(super) const REPLY: u8 = 0xFE;

/// Returns `true` if this is the data of a frame of a stream.
#[inline]
fn is_marked(data: &[u8]) -> bool {
    data.first().is_some_and(|&byte| byte >= DATA)
}

/// What a frame of a stream has, for tools that look at the frames of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamMark {
    /// Bytes of the stream.
    Data,
    /// The last bytes of the client's stream, or none.
    Last,
    /// The caller has gone.
    Cancel,
    /// The first bytes of the reply.
    Reply,
    /// What does not concern the layers above, such as credit.
    Other,
}

impl StreamMark {
    /// Takes the mark at the front of a frame; `None` if the frame has none.
    pub fn take(body: &mut Bytes) -> Option<Self> {
        if !is_marked(body) {
            return None;
        }
        Some(match body.get_u8() {
            DATA => Self::Data,
            LAST => Self::Last,
            CANCEL => Self::Cancel,
            REPLY => Self::Reply,
            _ => Self::Other,
        })
    }
}

/// Returns `true` if a request of several frames that begins with this data begins a stream.
#[must_use]
pub fn begins_stream(data: &[u8]) -> bool {
    data.len() > 1 && data[0] == DATA
}

/// Returns `true` if a message sent in chunks would be taken for a stream. Then its first byte is
/// sent in a frame of its own, which never happens in a stream.
pub(super) fn looks_like_stream(body: &Body) -> bool {
    body.first() == Some(DATA)
}

impl Connection {
    /// Returns the window that the peer grants to each stream from the start; `None` if it does not
    /// support streams.
    pub(crate) fn peer_stream_window(&self) -> Option<usize> {
        self.peer_stream_window
    }

    /// Server: handles a request that begins as a stream. It is open from now on.
    pub(super) fn begin_stream(
        &mut self,
        id: ChannelId,
        path: &Bytes,
        body: Bytes,
    ) -> Result<(), ProtocolError> {
        let path = RequestPath::read(path);
        // A stream cannot wait: its frames would have to be kept. So it is opened in any case,
        // counted like every open call, and rejected by the layer above.
        let is_busy = self.server.open_calls >= self.limits.get_max_calls();
        let window = self.limits.get_stream_window();
        let channel = self.channels.get_or_insert(id);
        // Clients of this library begin streams on free channels only, and never on paths of the
        // protocol itself.
        if !path.is_for_handlers() || !channel.is_next() {
            return Err(ProtocolError::BadStream(id));
        }
        let incoming = Incoming::Stream(IncomingStream::new(window));
        let path = Arc::new(path);
        channel.assembly = Some(Box::new(Assembly::new(incoming, path.raw.clone())));
        let begun = self.timers.batch();
        channel.open = Some(OpenRequest::new(
            Arc::clone(&path),
            Arrival::Stream,
            begun,
            0,
        ));
        self.stats.begun(&path.label);
        self.server.open_calls += 1;
        self.server.streamed += 1;
        self.server.events.push_back(ServerEvent::StreamBegun {
            channel: id,
            path,
            is_busy,
        });
        self.on_stream_frame(id, StreamKey::Channel(id), body, false)
    }

    /// Handles a frame of a stream that has begun.
    pub(super) fn on_stream_frame(
        &mut self,
        id: ChannelId,
        key: StreamKey,
        mut body: Bytes,
        ends: bool,
    ) -> Result<(), ProtocolError> {
        let bad = Err(ProtocolError::BadStream(id));
        // The decoder rejects frames without data, so there is a mark.
        let mark = body.get_u8();
        let frame = match mark {
            DATA | LAST if !ends => {
                let Some(stream) = self.incoming_stream(id) else {
                    return bad;
                };
                // A frame may begin with the last byte allowed and exceed the credit.
                let is_within = body.is_empty() || stream.allowed > 0;
                if stream.ended || body.len() > PART_BYTES || !is_within {
                    return bad;
                }
                stream.allowed -= i64::try_from(body.len()).unwrap_or(i64::MAX);
                stream.ended = mark == LAST;
                if !body.is_empty() {
                    self.push_stream_frame(key, StreamFrame::Data(body));
                }
                if mark == DATA {
                    return Ok(());
                }
                // `LAST` may carry data, and is then two events.
                StreamFrame::End
            }
            WINDOW_UPDATE if !ends && body.len() == 4 => StreamFrame::WindowUpdate(body.get_u32()),
            BLOCKED if !ends && body.is_empty() => StreamFrame::Blocked,
            CANCEL | OVER if ends && self.side == Side::Server => {
                // If the request ends before the reply, the caller no longer waits for the reply. A
                // stream is cancelled once, which is not counted, as for any other call.
                if self.channels.get(id).is_some_and(Channel::is_arriving) {
                    self.cancel_open(id);
                }
                return Ok(());
            }
            _ => return bad,
        };
        self.push_stream_frame(key, frame);
        Ok(())
    }

    fn push_stream_frame(&mut self, key: StreamKey, frame: StreamFrame) {
        match key {
            StreamKey::Call(call) => {
                let event = ClientEvent::Stream { call, frame };
                self.client.events.push_back(event);
            }
            StreamKey::Channel(channel) => {
                let event = ServerEvent::Stream { channel, frame };
                self.server.events.push_back(event);
            }
        }
    }

    /// Returns the stream that is being received on a channel.
    fn incoming_stream(&mut self, id: ChannelId) -> Option<&mut IncomingStream> {
        let channel = self.channels.get_mut(id)?;
        match &mut channel.assembly.as_mut()?.incoming {
            Incoming::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// Client: removes the mark of a frame that begins the reply to a stream. Returns `true` if the
    /// frame begins the reply.
    pub(super) fn begins_reply(body: &mut Bytes) -> bool {
        if body.first() == Some(&REPLY) {
            body.advance(1);
            return true;
        }
        // A peer that rejected the call may not have known that it was a stream.
        !is_marked(body)
    }

    // ---- commands

    /// Returns `true` if the peer may be granted more of a message that is not complete: either
    /// there is room, or this stream is the one that may exceed the allowance.
    pub(crate) fn may_grant(&mut self, channel: ChannelId) -> bool {
        // If no stream got more, streams with incomplete messages would wait for each other.
        !self.is_over_budget() || *self.overdraft.get_or_insert(channel) == channel
    }

    /// Queues the stream on a channel until there is room to grant it more.
    pub(crate) fn withhold(&mut self, channel: ChannelId) {
        self.withheld.push_back(channel);
    }

    /// Removes and returns the next stream that waits for room, if it may be granted more.
    pub(crate) fn next_withheld(&mut self) -> Option<ChannelId> {
        // Over budget, one stream is returned as long as none has the overdraft, which it then
        // takes unless it has ended.
        if self.withheld.is_empty() || (self.is_over_budget() && self.overdraft.is_some()) {
            return None;
        }
        self.withheld.pop_front()
    }

    /// Ends the overdraft of a stream whose message is complete, or which has ended.
    pub(crate) fn end_overdraft(&mut self, channel: ChannelId) {
        self.overdraft.take_if(|overdraft| *overdraft == channel);
    }

    /// Returns the owner of the stream on a channel.
    pub(crate) fn stream_on(&self, channel: ChannelId) -> Option<StreamKey> {
        match self.side {
            Side::Server => Some(StreamKey::Channel(channel)),
            Side::Client => match self.channels.get(channel)?.sent.oldest()?.exchange {
                Exchange::Call(call) => Some(StreamKey::Call(call)),
                _ => None,
            },
        }
    }

    /// Returns the maximum number of bytes in one frame of a stream.
    pub(crate) fn stream_part_bytes(&self) -> usize {
        // The mark takes one byte of the frame.
        PART_BYTES.min(self.outbox.chunk() - 1)
    }

    /// Sends bytes of a stream, at most [`stream_part_bytes`](Self::stream_part_bytes); `last` is
    /// `true` if none follow. Bytes of `part` that were copied stay there.
    pub(crate) fn send_stream(&mut self, id: ChannelId, part: &mut Body, last: bool) {
        let mut marked = part.marked(if last { LAST } else { DATA });
        self.push_stream(id, &mut marked);
        part.unmark(marked);
    }

    /// Sends a window update: the peer may send `bytes` more.
    pub(crate) fn grant(&mut self, id: ChannelId, bytes: u32) {
        // Without one, the peer has ended its direction.
        let Some(stream) = self.incoming_stream(id).filter(|stream| !stream.ended) else {
            return;
        };
        // Only bytes that were taken and the growth of the window are granted, so the sum stays far
        // below the limit of the type.
        stream.allowed += i64::from(bytes);
        let mut body = BytesMut::with_capacity(5);
        body.put_u8(WINDOW_UPDATE);
        body.put_u32(bytes);
        self.push_stream(id, &mut body.freeze().into());
    }

    /// Notifies the peer that this side is blocked: it has more to send than its credit.
    pub(crate) fn send_blocked(&mut self, id: ChannelId) {
        self.credit_stalls += 1;
        if let Some(channel) = self.channels.get(id) {
            let path = match &channel.open {
                Some(open) => &open.path.label[..],
                None => channel.sent.oldest_path(),
            };
            self.stats.credit_stalled(path);
        }
        self.push_stream(id, &mut Bytes::from_static(&[BLOCKED]).into());
    }

    /// Client: ends the request of a stream.
    pub(super) fn end_stream_request(&mut self, id: ChannelId, cancelled: bool) {
        let body: &'static [u8] = if cancelled { &[CANCEL] } else { &[OVER] };
        self.send(id, b"", Bytes::from_static(body), false, true);
    }

    /// Sends a frame of a stream. The frames of a client have no path, because only that of the
    /// first frame counts.
    fn push_stream(&mut self, id: ChannelId, body: &mut Body) {
        match self.side {
            Side::Client => {
                if let Some(channel) = self.channels.get(id) {
                    let bytes = FRAME_OVERHEAD + body.len();
                    self.stats.sent(channel.sent.oldest_path(), bytes, false);
                }
                self.outbox.push(id, b"", body, false, false);
            }
            Side::Server => {
                self.reply(id, body, false);
            }
        }
    }
}
