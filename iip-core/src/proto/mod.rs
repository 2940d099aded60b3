//! The connection as a pure state machine, for both sides: frames and commands in, events and bytes
//! out.
//!
//! It has no socket, task, lock or clock. Methods come in four families: getters; `handle_*` (from
//! the network and the clock); commands (from the application); `poll_event` and `take_output`
//! (out). **After every `handle_*` or command, drain the events and the output before sleeping.**
//!
//! The server's handling of requests is in `server.rs`, the client's handling of replies in
//! `client.rs`; everything else is the same for both sides.

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
use self::channel::{Assembly, Channel, ChannelTable, Incoming, Skip};
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
use crate::slots::CallId;

/// Maximum size of a body that is copied when it has to wait, so that it does not pin the buffer it
/// was read into.
const COPY_WAITING_BYTES: usize = 16 * 1024;

/// Minimum number of channels before a busy connection forgets those at rest.
const FORGET_AT_LEAST: usize = 64;

/// Number of bytes waiting to be written at which streams have to wait.
const STREAM_ROOM_BYTES: usize = 256 * 1024;

/// Bytes counted for a waiting request in addition to its own: its place in the queue, and its
/// channel's entry in the table.
const WAITING_COST: usize = 768;

/// Number of calls of the library's own services, such as health checks, that may run in addition
/// to `max_calls` others.
const SPARE_CALLS: usize = 16;

/// Maximum size of a frame of the control stream. Peers that use this library send 6 bytes at a
/// time.
const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// An event for the layer above.
#[derive(Debug)]
pub(crate) enum Event {
    /// Server: a complete request whose turn has come.
    Request {
        channel: ChannelId,
        path: Arc<RequestPath>,
        body: Bytes,
        /// Time at which the request was complete; it may have waited since.
        received_at: Instant,
    },
    /// Server: a request of several frames has begun, and its turn has come. `stream_request` makes
    /// its chunks visible; otherwise it is delivered as `Request` when it is complete.
    RequestBegun {
        channel: ChannelId,
        path: Arc<RequestPath>,
    },
    /// Server: a chunk of a request that is delivered as it arrives.
    RequestPart {
        channel: ChannelId,
        body: Bytes,
        ends: bool,
    },
    /// Server: the open request was larger than the limit; it was skipped and waits for a reply.
    RequestTooLarge {
        channel: ChannelId,
        path: Arc<RequestPath>,
        size: usize,
    },
    /// Server: a request whose turn has come has begun as a stream.
    StreamBegun {
        channel: ChannelId,
        path: Arc<RequestPath>,
        /// `true` if the server is at capacity.
        is_busy: bool,
    },
    /// A frame of a stream.
    Stream { key: StreamKey, heard: StreamFrame },
    /// Server: the caller of the open request has gone.
    Cancelled { channel: ChannelId },
    /// Client: the reply to a call is complete, or cannot be accepted.
    Reply {
        call: CallId,
        result: Result<Bytes, CallErrorKind>,
    },
    /// Client: a chunk of a reply that is delivered as it arrives, except the last.
    ReplyPart { call: CallId, body: Bytes },
    /// Client: the reply to an abandoned call was discarded; the channel is free again.
    Swallowed { channel: ChannelId },
    /// Client: a channel for calls was granted.
    ChannelOpened(ChannelId),
    /// Client: the server rejected a request for a channel.
    ChannelRefused { code: i64, message: String },
    /// Client: the server takes no further calls on this connection.
    GoingAway,
    /// The peer's hello as JSON; `None` at a client whose peer does not know the hello.
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
    /// Server: the number of channels granted. Every id up to it stays valid, even if it was
    /// deleted (rule S1). Client: always 0.
    granted: u32,
    /// The channel of the control stream.
    control: Option<ChannelId>,
    /// Client: the channel of the control stream was requested.
    control_is_coming: bool,
    /// Client: channels of calls that were abandoned before the control stream existed.
    cancel_later: Vec<ChannelId>,
    /// Server: channels whose next request waits because `max_calls` handlers run.
    call_queue: VecDeque<ChannelId>,
    /// Server: the path field that was read last.
    last_path: Arc<RequestPath>,
    /// Server: number of requests that were shown to handlers and have no reply yet.
    open_calls: usize,
    /// Server: number of those whose request is still arriving.
    streamed: usize,
    /// Server: number of channels in the table above which those at rest are forgotten.
    forget_at: usize,
    /// Server: the rate of requests of the protocol itself.
    control_rate: Rate,
    /// Bytes of unfinished messages and of requests that wait for their turn.
    buffered: usize,
    /// Bytes received from the peer that the layers above hold: arguments of handlers that wait,
    /// what was decompressed for them, messages of streams that are not complete.
    held: usize,
    /// Bytes of streams' messages that the layers above have begun to send and not yet handed over.
    unsent: usize,
    /// Maximum number of bytes that may be buffered and held now: the limit of this connection, or
    /// less while other connections hold much.
    allowance: usize,
    /// The one stream that is granted more although the allowance is used up, so that its message
    /// can end.
    overdraft: Option<ChannelId>,
    /// Server: the earliest time at which an unfinished message can have stalled.
    stalled_at: Option<Instant>,
    /// Server: the connection was not read for a while since `stalled_at` was set.
    was_held_back: bool,
    /// Streams whose readers have taken data for which no credit was granted yet.
    withheld: VecDeque<ChannelId>,
    peer_knows_hello: bool,
    peer_stream_window: Option<usize>,
    peer_answers_pings: bool,
    /// Client: time at which the ping was sent whose reply is due.
    pinged_at: Option<Instant>,
    /// The peer wants to be notified that this side is going away.
    peer_wants_notice: bool,
    /// Server: the peer was notified that this side is going away. Client: the server sent that
    /// notice.
    sent_going_away: bool,
    /// Server: something was sent on the control stream.
    control_has_begun: bool,
    /// The state of one-way calls.
    one_way: OneWay,
    /// Number of bytes by which the windows of all streams together have grown.
    pub(crate) window_growth: usize,
    /// Work to be done once the lock is free.
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
            // A Go peer's callbacks run once per frame, so only a peer that said hello gets
            // messages in chunks.
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

    /// Returns `true` if the socket should be read. A server stops reading while it has enough of
    /// the peer's work to do; a client never stops, or two full sides would wait for each other.
    pub(crate) fn wants_read(&self) -> bool {
        match self.side {
            Side::Client => true,
            // With all handlers busy, requests wait within the budget, so that the cancellations,
            // pings and window updates that follow them are seen.
            Side::Server => {
                self.control_rate.has_room() && !self.is_over_budget() && self.has_room()
            }
        }
    }

    /// Returns `true` if the peer's messages take all the memory that they are allowed.
    #[inline]
    pub(crate) fn is_over_budget(&self) -> bool {
        self.buffered + self.held >= self.allowance
    }

    /// Returns `true` if messages that the peer has to complete or wait for take all the memory
    /// that they are allowed.
    pub(crate) fn is_full(&self) -> bool {
        self.buffered >= self.allowance
    }

    /// Returns the number of bytes that calls of this connection hold, in both directions.
    pub(crate) fn memory(&self) -> usize {
        self.buffered + self.held + self.outgoing()
    }

    /// Returns `true` if the layers above may hold `bytes` more.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.buffered + self.held + bytes <= self.allowance
    }

    /// Client: returns the error for a message of which `own` bytes are counted and which would
    /// grow by `more` bytes beyond the budget. A message always fits if nothing else is counted.
    pub(crate) fn buffer_full(&self, own: usize, more: usize) -> Option<CallErrorKind> {
        let others = self.buffered + self.held - own;
        let limit = self.limits.buffered_bytes();
        let fits = others == 0 || others + own + more <= limit;
        (!fits).then_some(CallErrorKind::BufferFull { limit })
    }

    /// Returns the number of bytes that wait for the peer to read.
    pub(crate) fn outgoing(&self) -> usize {
        self.outbox.unsent() + self.unsent
    }

    /// Returns `true` if what the peer does not read takes all the memory that it is allowed.
    pub(crate) fn is_unread(&self) -> bool {
        self.outgoing() >= self.allowance
    }

    /// Returns `true` if the allowance is less than the connection's own limit.
    pub(crate) fn is_confined(&self) -> bool {
        self.allowance < self.limits.buffered_bytes()
    }

    /// Returns `true` if nothing is being received, replied to or written.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.open_calls == 0 && self.is_quiet()
    }

    /// Returns `true` if nothing waits to be handed on or written. Calls may be open.
    pub(crate) fn is_quiet(&self) -> bool {
        self.buffered == 0 && self.outbox.is_empty() && self.events.is_empty()
    }

    /// Server: returns the number of requests that were shown to handlers and have no reply yet.
    pub(crate) fn open_calls(&self) -> usize {
        self.open_calls
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Server: returns `true` if the server is at capacity. Handlers whose request is still
    /// arriving do not count.
    fn is_busy(&self) -> bool {
        self.open_calls - self.streamed >= self.limits.calls()
    }

    /// Returns `true` if a message has begun and not ended. A stream does not count: nothing is
    /// missing between two of its frames.
    pub(crate) fn has_unfinished_message(&self) -> bool {
        self.channels.any(|channel| {
            let assembly = channel.assembly.as_ref();
            assembly.is_some_and(|assembly| assembly.is_unfinished())
        })
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Returns `true` if the byte before `position` in the output has been written.
    pub(crate) fn has_written(&self, position: u64) -> bool {
        self.outbox.has_written(position)
    }

    pub(crate) fn timers(&mut self) -> &mut Timers {
        &mut self.timers
    }

    /// Returns the number of bytes of streams that may be sent now. The limit is lower than that
    /// for replies, so that other calls do not wait long for streams. Long messages are sent in
    /// turns with streams.
    pub(crate) fn stream_room(&self) -> usize {
        let most = STREAM_ROOM_BYTES.min(self.limits.unsent_bytes());
        most.saturating_sub(self.outbox.in_between())
    }

    /// Returns `true` if bytes of the stream on this channel may be sent now.
    pub(crate) fn has_stream_room(&self, id: ChannelId) -> bool {
        // After a long message, such as a request that was replied to before its end, it is unknown
        // how much would wait.
        self.stream_room() > 0 && !self.outbox.is_behind(id)
    }

    /// Returns `true` if further replies may be sent without exceeding `max_unsent_bytes`.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.has_room(self.limits.unsent_bytes())
    }

    // ---- from the network and the clock

    /// Checks a frame of which only the head has arrived, before waiting for its body.
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

    /// Takes one frame. After an error, close without a frame; every call is lost.
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

    /// Records that nothing moves at the moment; `output` is `true` if something waits to be
    /// written.
    pub(crate) fn on_parked(&mut self, now: Instant, output: bool) {
        let is_full = self.is_full();
        self.timers.on_waiting(now, output, is_full);
        self.was_held_back |= !self.wants_read();
    }

    /// Returns the latest time at which [`handle_timeout`](Self::handle_timeout) must be called.
    pub(crate) fn poll_timeout(&self, partial: Partial) -> Option<Instant> {
        let limit = self.timers.next(&self.limits, self.waits(partial));
        let others = [self.control_rate.next(), self.stalled_at];
        limit.into_iter().chain(others.into_iter().flatten()).min()
    }

    fn waits(&self, partial: Partial) -> timers::Waits {
        // A server gives up only the message, see `drop_stalled`.
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

    /// Takes all events at once, in exchange for an empty queue.
    pub(crate) fn take_events(&mut self, events: &mut VecDeque<Event>) {
        std::mem::swap(&mut self.events, events);
    }

    /// Moves what is ready to be written into `batch`.
    pub(crate) fn take_output(&mut self, batch: &mut VecDeque<Bytes>) {
        self.outbox.take_into(batch, &mut self.deferred);
    }

    /// Records that `bytes` of the output were written.
    pub(crate) fn on_written(&mut self, now: Instant, bytes: usize) {
        self.outbox.on_written(bytes);
        self.timers.on_write(now);
    }

    /// Releases memory that is only needed while there is work.
    pub(crate) fn release_memory(&mut self) {
        if self.side == Side::Server {
            // A client's channels are its pool; a server keeps no state of a channel at rest.
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

    /// Server: discards the messages after the connection has ended. Handlers that still run may
    /// keep the connection for long, but not its messages.
    pub(crate) fn discard(&mut self) {
        // Data that handlers have not taken yet stays counted until they take it.
        let dropped = self.channels.iter().map(Channel::buffered).sum();
        self.buffered = self.buffered.saturating_sub(dropped);
        self.channels = ChannelTable::default();
        self.outbox = Outbox::new(self.side, MAX_FRAME_BYTES);
        self.events = VecDeque::new();
        self.call_queue = VecDeque::new();
    }

    // ---- commands of both sides

    /// Sets the number of bytes that other connections leave to this one.
    #[inline]
    pub(crate) fn set_allowance(&mut self, bytes: usize) {
        self.allowance = bytes.min(self.limits.buffered_bytes());
    }

    /// Counts `bytes` more that the layers above hold of what the peer sent.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Subtracts `bytes` that the layers above no longer hold.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.held -= bytes;
    }

    /// Changes the number of bytes that a stream has begun to send and not handed over from
    /// `before` to `now`.
    pub(crate) fn set_unsent(&mut self, before: usize, now: usize) {
        self.unsent = self.unsent - before + now;
    }

    /// Counts bytes that a handler has not taken yet as buffered.
    pub(crate) fn buffer(&mut self, bytes: usize) {
        self.buffered += bytes;
    }

    /// Subtracts `bytes` that a handler took.
    pub(crate) fn unbuffer(&mut self, bytes: usize) {
        self.buffered -= bytes;
    }

    /// Queues status 8 after everything that waits.
    pub(crate) fn close(&mut self) {
        self.outbox.push_close();
    }

    // ---- what both sides do with frames

    /// Adds a frame's data to the message being received on `channel`. Returns `Some` when the
    /// message is complete.
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
                assembly.incoming = Incoming::Skip(Skip::TooLarge);
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

    /// Discards the data of the message being received on a channel; its further frames are
    /// skipped.
    fn skip_incoming(buffered: &mut usize, channel: &mut Channel, why: Skip) {
        if let Some(assembly) = &mut channel.assembly {
            *buffered -= assembly.data.len();
            assembly.data = BytesMut::new();
            assembly.incoming = Incoming::Skip(why);
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

    /// Applies the peer's hello. From now on messages to this peer may be sent in chunks.
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

/// Returns the memory that a body occupies while it waits, including all that was read together
/// with it.
pub(crate) fn kept_bytes(len: usize) -> usize {
    if len <= COPY_WAITING_BYTES {
        len
    } else {
        len.max(BULK_READ_BYTES)
    }
}

/// Prepares a body for waiting: small ones are copied out of the read buffer that they would pin.
pub(crate) fn detach(body: Bytes) -> Bytes {
    if body.len() <= COPY_WAITING_BYTES {
        Bytes::copy_from_slice(&body)
    } else {
        body
    }
}
