//! The connection as a pure state machine, for both sides: frames and commands in, events and bytes
//! out.
//!
//! It has no socket, task, lock or clock. Methods come in four families: getters; `handle_*` (from
//! the network and the clock); commands (from the application); `poll_event` and `take_output`
//! (out). **After every `handle_*` or command, drain the events and the output before sleeping.**
//!
//! What the server side does with requests stands in `server.rs`, what the client side does with
//! replies in `client.rs`; everything else is the same for both.

mod channel;
mod client;
pub(crate) mod control;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod one_way;
mod outbox;
mod server;
pub(crate) mod stream;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

pub(crate) use self::channel::Mode;
use self::channel::{Assembly, Channel, ChannelTable, Incoming};
use self::control::Hello;
use self::one_way::OneWay;
pub(crate) use self::one_way::is_one_way;
use self::outbox::Outbox;
pub(crate) use self::server::RequestPath;
pub(crate) use self::stream::StreamFrame;
pub(crate) use self::stream::StreamKey;
use self::timers::Rate;
pub(crate) use self::timers::{Timers, not_read};
use crate::body::Body;
use crate::decoder::{BULK_READ_BYTES, FrameHead, Partial};
use crate::deferred::Deferred;
use crate::error::{CallErrorKind, ConnectionError, ProtocolError};
use crate::frame::{ChannelId, FrameRef, FrameStatus, MAX_FRAME_BYTES, Side};
use crate::limits::Limits;

/// Bodies up to this size are copied when they have to wait, so that they do not pin the buffer
/// they were read into.
const COPY_WAITING_BYTES: usize = 16 * 1024;

/// As many channels at rest are worth keeping while a connection is busy.
const FORGET_AT_LEAST: usize = 64;

/// Streams wait while this much waits to be written.
const STREAM_ROOM_BYTES: usize = 256 * 1024;

/// What a waiting request costs beside its bytes: its place in the queue, and the channel's in the
/// table.
const WAITING_COST: usize = 768;

/// Calls of the library's own services, such as health checks, that run beside `max_calls` others.
const SPARE_CALLS: usize = 16;

/// The longest frame of the control stream. Peers of ours send 6 bytes at a time.
const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// What the machine tells the layer above.
#[derive(Debug)]
pub(crate) enum Event {
    /// Server: a complete request whose turn it is.
    Request {
        channel: ChannelId,
        path: Arc<RequestPath>,
        body: Bytes,
        /// When it had arrived; it may have waited since.
        received_at: Instant,
    },
    /// Server: a request in several frames whose turn it is has begun. `stream_request` makes its
    /// parts visible; otherwise it comes as `Request` when it is complete.
    RequestBegun {
        channel: ChannelId,
        path: Arc<RequestPath>,
    },
    /// Server: a part of a request that is streamed.
    RequestPart {
        channel: ChannelId,
        body: Bytes,
        ends: bool,
    },
    /// Server: the open request was larger than the limit; it was skipped and waits for an answer.
    RequestTooLarge {
        channel: ChannelId,
        path: Arc<RequestPath>,
        size: usize,
    },
    /// Server: a request whose turn it is has begun as a stream.
    StreamBegun {
        channel: ChannelId,
        path: Arc<RequestPath>,
        /// As many calls run as may.
        is_busy: bool,
    },
    /// A frame of a stream.
    Stream { key: StreamKey, heard: StreamFrame },
    /// Server: the caller of the open request has gone.
    Cancelled { channel: ChannelId },
    /// Client: the answer to a call is complete, or cannot be taken.
    Reply {
        token: usize,
        result: Result<Bytes, CallErrorKind>,
    },
    /// Client: a part of an answer that is streamed, not the last.
    ReplyPart { token: usize, body: Bytes },
    /// Client: the answer to an abandoned call was swallowed; the channel is free again.
    Swallowed { channel: ChannelId },
    /// Client: a channel for calls was granted.
    ChannelOpened(ChannelId),
    /// Client: the server refused a channel.
    ChannelRefused { code: i64, message: String },
    /// Client: the server takes no further calls on this connection.
    GoingAway,
    /// What the peer said about itself, JSON; `None` from a client's peer that knows no hello.
    PeerHello(Option<Bytes>),
}

/// One end of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    side: Side,
    limits: Limits,
    announce: Value,
    channels: ChannelTable,
    outbox: Outbox,
    events: VecDeque<Event>,
    timers: Timers,
    /// Server: how many channels were granted. Every id up to it is valid for ever, whatever was
    /// deleted (rule S1). Client: the highest id that was granted.
    granted: u32,
    /// The channel of the control stream.
    control: Option<ChannelId>,
    /// Client: the channel of the control stream was asked for.
    control_is_coming: bool,
    /// Client: channels of calls that were given up before the control stream was there.
    cancel_later: Vec<ChannelId>,
    /// Server: channels whose next request waits because `max_calls` handlers run.
    call_queue: VecDeque<ChannelId>,
    /// Server: the path field that was read last.
    last_path: Arc<RequestPath>,
    /// Server: requests shown to handlers and not answered.
    open_calls: usize,
    /// Server: those of them whose request is still arriving.
    streamed: usize,
    /// Server: with more channels in the table, those at rest are forgotten.
    forget_at: usize,
    /// Server: requests of the protocol itself.
    control_rate: Rate,
    /// Bytes of unfinished messages and of requests that wait their turn.
    buffered: usize,
    /// Bytes that the layers above hold of what the peer sent: arguments of handlers that wait,
    /// what was decompressed for them, messages of streams that are not complete.
    held: usize,
    /// Bytes of streams' messages that the layers above have begun to send and not handed over.
    unsent: usize,
    /// What may be buffered and held now: the limit of this connection, or less where other
    /// connections hold much.
    allowance: usize,
    /// With that used up: the one stream that is granted more all the same, so that its message can
    /// end.
    overdraft: Option<ChannelId>,
    /// Server: no unfinished message has rested for too long before this.
    stalled_at: Option<Instant>,
    /// Server: since that time was set, the connection was not read for a while.
    was_held_back: bool,
    /// Streams that were not granted what their readers have taken.
    withheld: VecDeque<ChannelId>,
    peer_knows_hello: bool,
    peer_stream_window: Option<usize>,
    peer_answers_pings: bool,
    /// Client: when the ping was sent whose answer is due.
    pinged_at: Option<Instant>,
    /// The peer wants to be told that this side is going away.
    peer_wants_notice: bool,
    /// Server: the peer was told that this side is going away. Client: the server has said so.
    sent_going_away: bool,
    /// Server: something was sent on the control stream.
    control_has_begun: bool,
    /// The channel of requests without answers.
    one_way: OneWay,
    /// What the windows of all streams have grown by, together.
    pub(crate) window_growth: usize,
    /// To be done once the lock is free.
    pub(crate) deferred: Deferred,
}

impl Connection {
    pub(crate) fn new(side: Side, limits: Limits, announce: Value, now: Instant) -> Self {
        let mut channels = ChannelTable::default();
        if side == Side::Client {
            channels.get_or_insert(ChannelId::ZERO);
        }
        Self {
            side,
            channels,
            // A Go peer's callbacks run once per frame: only a peer that said hello gets messages
            // in pieces.
            outbox: Outbox::new(side, MAX_FRAME_BYTES),
            events: VecDeque::new(),
            timers: Timers::new(now),
            granted: 0,
            control: None,
            control_is_coming: false,
            cancel_later: Vec::new(),
            call_queue: VecDeque::new(),
            last_path: Arc::default(),
            open_calls: 0,
            streamed: 0,
            forget_at: limits.channels().min(FORGET_AT_LEAST),
            control_rate: Rate::new(limits.control_requests(), now),
            buffered: 0,
            held: 0,
            unsent: 0,
            allowance: limits.buffered_bytes(),
            overdraft: None,
            stalled_at: None,
            was_held_back: false,
            withheld: VecDeque::new(),
            peer_knows_hello: false,
            peer_stream_window: None,
            peer_answers_pings: false,
            pinged_at: None,
            peer_wants_notice: false,
            sent_going_away: false,
            control_has_begun: false,
            one_way: OneWay::default(),
            window_growth: 0,
            deferred: Deferred::default(),
            limits,
            announce,
        }
    }

    // ---- getters

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Should the socket be read? A server stops while the peer has enough of its work in hand; a
    /// client never does, or two full sides would wait for each other.
    pub(crate) fn wants_read(&self) -> bool {
        match self.side {
            Side::Client => true,
            // With all handlers busy, requests wait within the budget, so that cancellations, pings
            // and grants behind them are seen.
            Side::Server => {
                self.control_rate.has_room() && !self.is_over_budget() && self.has_room()
            }
        }
    }

    /// Returns `true` if the peer's messages take as much memory as they may.
    #[inline]
    pub(crate) fn is_over_budget(&self) -> bool {
        self.buffered + self.held >= self.allowance
    }

    /// Returns `true` if messages that the peer has to complete, or to wait for, take as much as
    /// they may.
    pub(crate) fn is_full(&self) -> bool {
        self.buffered >= self.allowance
    }

    /// Bytes that calls of this connection hold, in both directions.
    pub(crate) fn memory(&self) -> usize {
        self.buffered + self.held + self.outgoing()
    }

    /// Returns `true` if the layers above may hold so many bytes more.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.buffered + self.held + bytes <= self.allowance
    }

    /// Client: whether a message of which `own` bytes are counted may grow by `more`. One that is
    /// alone always may.
    pub(crate) fn fits_beside_others(&self, own: usize, more: usize) -> bool {
        let others = self.buffered + self.held - own;
        others == 0 || others + own + more <= self.allowance
    }

    /// Bytes that wait for the peer to read.
    pub(crate) fn outgoing(&self) -> usize {
        self.outbox.unsent() + self.unsent
    }

    /// Returns `true` if what the peer does not read takes as much memory as it may.
    pub(crate) fn is_unread(&self) -> bool {
        self.outgoing() >= self.allowance
    }

    /// Returns `true` if less is allowed than the connection's own limit.
    pub(crate) fn is_confined(&self) -> bool {
        self.allowance < self.limits.buffered_bytes()
    }

    /// Returns `true` if nothing is being received, answered or written.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.open_calls == 0 && self.is_quiet()
    }

    /// Returns `true` if nothing waits to be handed on or written. Calls may be open.
    pub(crate) fn is_quiet(&self) -> bool {
        self.buffered == 0 && self.outbox.is_empty() && self.events.is_empty()
    }

    /// Server: requests shown to handlers and not answered.
    pub(crate) fn open_calls(&self) -> usize {
        self.open_calls
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Server: do as many handlers run as may? Those whose request is still arriving do not count.
    fn is_busy(&self) -> bool {
        self.open_calls - self.streamed >= self.limits.calls()
    }

    /// Returns `true` if a message has begun and not ended. A stream is none: between two of its
    /// frames nothing is missing.
    pub(crate) fn has_unfinished_message(&self) -> bool {
        self.channels.any(|channel| {
            let assembly = channel.assembly.as_ref();
            assembly.is_some_and(|assembly| {
                matches!(assembly.incoming, Incoming::Collect | Incoming::Parts)
            })
        })
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Returns `true` if the output's byte before `position` has been written.
    pub(crate) fn has_written(&self, position: u64) -> bool {
        self.outbox.has_written(position)
    }

    pub(crate) fn timers(&mut self) -> &mut Timers {
        &mut self.timers
    }

    /// How many bytes of streams may be sent now. Less waits than of answers: other calls should
    /// not wait behind it for long. Long messages have their turns beside it.
    pub(crate) fn stream_room(&self) -> usize {
        let most = STREAM_ROOM_BYTES.min(self.limits.unsent_bytes());
        most.saturating_sub(self.outbox.in_between())
    }

    /// Returns `true` if bytes of the stream on this channel may be sent now.
    pub(crate) fn has_stream_room(&self, id: ChannelId) -> bool {
        // Behind a long message, such as a request that was answered before its end, there is no
        // telling how much would wait.
        self.stream_room() > 0 && !self.outbox.is_behind(id)
    }

    /// Returns `true` if further answers may be sent without exceeding `max_unsent_bytes`.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.has_room(self.limits.unsent_bytes())
    }

    // ---- from the network and the clock

    /// Judges a frame of which only the head has arrived, before its body is waited for.
    #[inline]
    pub(crate) fn check_head(&self, head: FrameHead) -> Result<(), ProtocolError> {
        let FrameHead { status, channel } = head;
        let receiving = match self.side {
            Side::Server if channel.0 > self.granted => {
                return Err(ProtocolError::UnknownChannel(channel));
            }
            Side::Server => self
                .channels
                .get(channel)
                .is_some_and(|channel| channel.assembly.is_some()),
            Side::Client => match self.channels.get(channel) {
                Some(state) => state.assembly.is_some(),
                None => return Err(ProtocolError::UnknownChannel(channel)),
            },
        };
        // Go: protocol.go, the two transition tables; transcripts bad_c2s_0_then_0, bad_s2c_seq_4_4
        // and their kin.
        if status.begins() == receiving {
            return Err(ProtocolError::StatusOrder { channel, status });
        }
        Ok(())
    }

    /// Takes one frame. An error means: close without a frame, every call is lost.
    #[inline]
    pub(crate) fn handle_frame(&mut self, frame: FrameRef<'_>) -> Result<(), ConnectionError> {
        match self.side {
            Side::Client => self.handle_reply(frame.into()),
            Side::Server if frame.status == FrameStatus::Close => Err(ConnectionError::Ended),
            Side::Server => Ok(self.on_request_frame(frame)?),
        }
    }

    /// Checks the time limits against `now`.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        partial: Partial,
    ) -> Result<(), ConnectionError> {
        self.control_rate.refill(now);
        self.drop_stalled(now);
        self.timers.check(now, &self.limits, self.waits(partial))
    }

    /// Nothing moves at the moment; `output` tells whether something waits to be written.
    pub(crate) fn on_parked(&mut self, now: Instant, output: bool) {
        let is_full = self.is_full();
        self.timers.on_waiting(now, output, is_full);
        self.was_held_back |= !self.wants_read();
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    pub(crate) fn poll_timeout(&self, partial: Partial) -> Option<Instant> {
        let limit = self.timers.next(&self.limits, self.waits(partial));
        let others = [self.control_rate.next(), self.stalled_at];
        limit.into_iter().chain(others.into_iter().flatten()).min()
    }

    fn waits(&self, partial: Partial) -> timers::Waits {
        // A server gives up the message alone, see `drop_stalled`.
        let collecting = self.side == Side::Client && self.buffered > 0;
        let reading = self.wants_read();
        timers::Waits {
            head: reading && partial == Partial::Head,
            body: reading && (partial == Partial::Body || collecting),
            write: !self.outbox.is_empty(),
            over_budget: self.is_full(),
            idle: self.side == Side::Server && self.is_at_rest() && partial == Partial::Nothing,
        }
    }

    // ---- out

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// All events at once, for an empty queue.
    pub(crate) fn take_events(&mut self, events: &mut VecDeque<Event>) {
        std::mem::swap(&mut self.events, events);
    }

    /// Moves what is ready to be written into `batch`.
    pub(crate) fn take_output(&mut self, batch: &mut VecDeque<Bytes>) {
        self.outbox.take_into(batch, &mut self.deferred);
    }

    /// `bytes` of the output were written.
    pub(crate) fn on_written(&mut self, now: Instant, bytes: usize) {
        self.outbox.on_written(bytes);
        self.timers.on_write(now);
    }

    /// Gives memory back that only work needs.
    pub(crate) fn release_memory(&mut self) {
        if self.side == Side::Server {
            // A client's channels are its pool; a server knows nothing of a channel at rest.
            self.channels.retain(|channel| !channel.is_at_rest());
        }
        self.channels.shrink();
        self.call_queue.shrink_to_fit();
        self.withheld.shrink_to_fit();
        self.cancel_later.shrink_to_fit();
        self.outbox.release_when_empty();
        if self.events.capacity() > 8 {
            self.events = VecDeque::new();
        }
    }

    /// Server: the connection has ended. Handlers that run on may keep it for long, but not its
    /// messages.
    pub(crate) fn discard(&mut self) {
        // What handlers have not taken yet stays counted until they do.
        let dropped = self.channels.iter().map(Channel::buffered).sum();
        self.buffered = self.buffered.saturating_sub(dropped);
        self.channels = ChannelTable::default();
        self.outbox = Outbox::new(self.side, MAX_FRAME_BYTES);
        self.events = VecDeque::new();
        self.call_queue = VecDeque::new();
    }

    // ---- commands of both sides

    /// Other connections leave this one so many bytes.
    #[inline]
    pub(crate) fn set_allowance(&mut self, bytes: usize) {
        self.allowance = bytes.min(self.limits.buffered_bytes());
    }

    /// The layers above hold so many bytes more of what the peer sent.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// The layers above let go of bytes that they held.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.held -= bytes;
    }

    /// What a stream has begun to send and not handed over was `before` bytes and is `now`.
    pub(crate) fn set_unsent(&mut self, before: usize, now: usize) {
        self.unsent = self.unsent - before + now;
    }

    /// Counts bytes that a handler has not taken yet; they are part of what is buffered.
    pub(crate) fn buffer(&mut self, bytes: usize) {
        self.buffered += bytes;
    }

    /// A handler took that many bytes.
    pub(crate) fn unbuffer(&mut self, bytes: usize) {
        self.buffered -= bytes;
    }

    /// Queues status 8 behind everything that waits.
    pub(crate) fn close(&mut self) {
        self.outbox.push_close();
    }

    // ---- what both sides do with frames

    /// Adds a frame's data to the message being received on `channel`. `Some` when the message is
    /// complete.
    fn receive(&mut self, id: ChannelId, body: &[u8], ends: bool) -> Option<Box<Assembly>> {
        let limit = self.limits.message_bytes();
        let channel = self.channels.get_mut(id)?;
        let assembly = channel.assembly.as_mut()?;
        assembly.size = assembly.size.saturating_add(body.len());
        assembly.grown_at = Some(self.timers.batch());
        if assembly.incoming == Incoming::Collect {
            if assembly.size > limit {
                self.buffered -= assembly.data.len();
                assembly.data = BytesMut::new();
                assembly.incoming = Incoming::Skip;
                assembly.too_large = true;
            } else {
                self.buffered += body.len();
                assembly.data.extend_from_slice(body);
            }
        }
        if !ends {
            return None;
        }
        let assembly = channel.assembly.take()?;
        self.buffered -= assembly.data.len();
        Some(assembly)
    }

    /// Forgets the data of the message being received on a channel; its further frames are skipped.
    fn skip_incoming(buffered: &mut usize, channel: &mut Channel) {
        if let Some(assembly) = &mut channel.assembly {
            *buffered -= assembly.data.len();
            assembly.data = BytesMut::new();
            assembly.incoming = Incoming::Skip;
        }
    }

    fn send(
        &mut self,
        channel: ChannelId,
        path: &[u8],
        body: impl Into<Body>,
        begins: bool,
        ends: bool,
    ) -> Option<u64> {
        if self.is_silent(channel) {
            return None;
        }
        let mut body = body.into();
        self.outbox.push(channel, path, &mut body, begins, ends)
    }

    /// From now on messages to this peer may be cut.
    fn on_hello(&mut self, hello: &Hello) {
        self.peer_knows_hello = true;
        let max_frame = hello
            .max_frame
            .map_or(MAX_FRAME_BYTES, |bytes| bytes.min(MAX_FRAME_BYTES));
        self.peer_stream_window = hello.stream_window;
        self.peer_answers_pings = hello.ping;
        self.peer_wants_notice = hello.notice;
        self.one_way.peer_takes_it = hello.one_way;
        self.outbox.set_chunk(self.limits.chunk(), max_frame);
    }
}

/// The memory that a body keeps while it waits, with all that was read together with it.
pub(crate) fn kept_bytes(len: usize) -> usize {
    if len <= COPY_WAITING_BYTES {
        len
    } else {
        len.max(BULK_READ_BYTES)
    }
}

/// A body that has to wait: small ones are copied out of the read buffer that they would pin.
pub(crate) fn detach(body: Bytes) -> Bytes {
    if body.len() <= COPY_WAITING_BYTES {
        Bytes::copy_from_slice(&body)
    } else {
        body
    }
}
