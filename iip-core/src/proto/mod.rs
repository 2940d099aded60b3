//! The connection as a pure state machine, for both sides: frames and commands in, events and bytes
//! out.
//!
//! It has no socket, task, lock or clock. Methods come in four families: getters; `handle_*` (from
//! the network and the clock); commands (from the application); `poll_event` and `take_output`
//! (out). **After every `handle_*` or command, drain the events and the output before sleeping.**
//!
//! The server's handling of requests is in `requests.rs`, and that of their turns and replies in
//! `turns.rs`; the client's handling of replies is in `client.rs`. Everything else is the same for
//! both sides.

pub(crate) mod calls;
mod channel;
mod client;
pub(crate) mod control;
mod event;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod given_up;
mod one_way;
mod outbox;
pub(crate) mod parts;
mod queue;
mod request_path;
mod requests;
mod round_trip;
mod server;
pub(crate) mod slots;
pub(crate) mod stream;
pub(crate) mod stream_state;
mod timers;
mod turns;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use self::channel::{Assembly, Channel, ChannelTable, Incoming, Skip};
pub(crate) use self::channel::{Mode, is_one_way};
use self::client::ClientSide;
use self::control::Hello;
pub(crate) use self::event::{ClientEvent, ServerEvent, StreamFrame, StreamKey};
use self::one_way::OneWay;
use self::outbox::Outbox;
pub(crate) use self::request_path::RequestPath;
use self::round_trip::RoundTrip;
use self::server::ServerSide;

pub(crate) use self::timers::{Timers, not_read};
use crate::body::Body;
use crate::decoder::{BULK_READ_BYTES, FrameHead, Partial};
use crate::deferred::Deferred;
use crate::error::{CallErrorKind, ConnectionError, ProtocolError};
use crate::frame::{ChannelId, FRAME_OVERHEAD, FrameRef, FrameStatus, MAX_FRAME_BYTES, Side};
use crate::limits::Limits;
use crate::stats::{CANCELLED, Recorder};

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

/// One end of one connection.
///
/// What only one side has is in [`ClientSide`] and [`ServerSide`]; the other one stays empty.
#[derive(Debug)]
pub(crate) struct Connection {
    side: Side,
    client: ClientSide,
    server: ServerSide,
    // Both are shared by all connections of a client or server.
    limits: Arc<Limits>,
    announce: Arc<Value>,
    channels: ChannelTable,
    outbox: Outbox,
    timers: Timers,
    /// The channel of the control stream.
    control: Option<ChannelId>,
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
    /// Streams whose readers have taken data for which no credit was granted yet. A stream is added
    /// once until it is taken out; the entry of one that has ended grants nothing.
    withheld: VecDeque<ChannelId>,
    peer_knows_hello: bool,
    peer_stream_window: Option<usize>,
    /// Maximum number of channels with a call on them that the peer accepts.
    peer_channels: usize,
    peer_replies_to_pings: bool,
    /// The peer wants to be notified that this side is going away.
    peer_wants_notice: bool,
    /// The state of one-way calls.
    one_way: OneWay,
    /// Number of bytes by which the windows of all streams together have grown.
    pub(crate) window_growth: usize,
    /// Work to be done once the lock is free.
    pub(crate) deferred: Deferred,
    round_trip: RoundTrip,
    /// Number of times that a stream began to wait for credit of the peer.
    credit_stalls: u64,
    /// The counts by method.
    pub(crate) stats: Recorder,
}

impl Connection {
    pub(crate) fn new(
        side: Side,
        limits: impl Into<Arc<Limits>>,
        announce: impl Into<Arc<Value>>,
        now: Instant,
    ) -> Self {
        let limits = limits.into();
        let mut channels = ChannelTable::default();
        if side == Side::Client {
            channels.get_or_insert(ChannelId::ZERO);
        }
        Self {
            side,
            client: ClientSide::default(),
            server: ServerSide::new(&limits, now),
            channels,
            // A Go peer's callbacks run once per frame, so only a peer that said hello gets
            // messages in chunks.
            outbox: Outbox::new(side, MAX_FRAME_BYTES),
            timers: Timers::new(now),
            control: None,
            buffered: 0,
            held: 0,
            unsent: 0,
            allowance: limits.get_max_buffered_bytes(),
            overdraft: None,
            withheld: VecDeque::new(),
            peer_knows_hello: false,
            peer_stream_window: None,
            peer_channels: usize::MAX,
            peer_replies_to_pings: false,
            peer_wants_notice: false,
            one_way: OneWay::default(),
            window_growth: 0,
            deferred: Deferred::default(),
            round_trip: RoundTrip::default(),
            credit_stalls: 0,
            stats: Recorder::unseen(now),
            limits,
            announce: announce.into(),
        }
    }

    // ---- getters

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the maximum number of channels with a call on them that the peer accepts.
    pub(crate) fn peer_channels(&self) -> usize {
        self.peer_channels
    }

    /// Returns `true` if the socket should be read. A server stops reading while it has enough of
    /// the peer's work to do; a client never stops, or two full sides would wait for each other.
    pub(crate) fn wants_read(&self) -> bool {
        match self.side {
            Side::Client => true,
            // With all handlers busy, requests wait within the budget, so that the cancellations,
            // pings and window updates that follow them are seen. Without room for replies nothing
            // is read: a peer that does not read its replies cannot request more of them.
            Side::Server => {
                self.server.control_rate.has_room() && !self.is_over_budget() && self.has_room()
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
        // The number comes from handlers, and may be any.
        let all = bytes.checked_add(self.buffered + self.held);
        all.is_some_and(|all| all <= self.allowance)
    }

    /// Client: returns the error for a message of which `own` bytes are counted and which would
    /// grow by `more` bytes beyond the budget. A message always fits if nothing else is counted.
    pub(crate) fn buffer_full(&self, own: usize, more: usize) -> Option<CallErrorKind> {
        // `own` is a part of the sum and cannot exceed it: the data of a reply that is collected
        // counts as buffered, and parts of a reply that were not taken count as held.
        let others = self.buffered + self.held - own;
        let limit = self.limits.get_max_buffered_bytes();
        // Otherwise no reply could be received that is larger than the budget but not than
        // `max_message_bytes`.
        let fits = others == 0 || others + own + more <= limit;
        (!fits).then_some(CallErrorKind::BufferFull { limit })
    }

    /// Returns the round trip that was measured last.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.last()
    }

    /// Returns the number of times that a stream began to wait for credit of the peer.
    pub(crate) fn credit_stalls(&self) -> u64 {
        self.credit_stalls
    }

    /// Returns the number of bytes of all frames that were queued.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.outbox.queued()
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
        self.allowance < self.limits.get_max_buffered_bytes()
    }

    /// Returns `true` if nothing is being received, replied to or written.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.server.open_calls == 0 && self.is_quiet()
    }

    /// Returns `true` if nothing waits to be handed on or written. Calls may be open.
    pub(crate) fn is_quiet(&self) -> bool {
        let has_events = !self.client.events.is_empty() || self.has_server_events();
        self.buffered == 0 && self.outbox.is_empty() && !has_events
    }

    /// Server: returns the number of requests that were shown to handlers and have no reply yet.
    pub(crate) fn open_calls(&self) -> usize {
        self.server.open_calls
    }

    /// Server: returns `true` if the server is at capacity. Handlers whose request is still
    /// arriving do not count.
    fn is_busy(&self) -> bool {
        // The calls whose requests are arriving are a part of the open ones.
        self.server.open_calls - self.server.streamed >= self.limits.get_max_calls()
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
        let most = STREAM_ROOM_BYTES.min(self.limits.get_max_unsent_bytes());
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
        self.outbox.has_room(self.limits.get_max_unsent_bytes())
    }

    // ---- from the network and the clock

    /// Checks a frame of which only the head has arrived, before waiting for its body.
    #[inline]
    pub(crate) fn check_head(&self, head: FrameHead) -> Result<(), ProtocolError> {
        let FrameHead { status, channel } = head;
        let receiving = match self.side {
            // Rule S1: every id up to the number of grants is valid, whether it has state or not.
            Side::Server if channel.0 > self.server.granted => {
                return Err(ProtocolError::UnknownChannel(channel));
            }
            Side::Server => self
                .channels
                .get(channel)
                .is_some_and(|channel| channel.assembly.is_some()),
            // A client never forgets a channel that was granted, so a missing one was not.
            Side::Client => match self.channels.get(channel) {
                Some(state) => state.assembly.is_some(),
                None => return Err(ProtocolError::UnknownChannel(channel)),
            },
        };
        // A frame begins a message exactly if none is being received on its channel. Source: the
        // two transition tables in protocol.go; transcripts bad_c2s_0_then_0, bad_s2c_seq_4_4 and
        // their kin.
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
        // `wants_read` has no clock: it sees only the tokens that were added here, and those that
        // are added when a request is counted.
        self.server.control_rate.refill(now);
        self.drop_stalled(now);
        self.timers.check(now, &self.limits, self.waits(partial))
    }

    /// Records that nothing moves at the moment; `output` is `true` if something waits to be
    /// written.
    pub(crate) fn on_parked(&mut self, now: Instant, output: bool) {
        let is_full = self.is_full();
        self.timers.on_waiting(now, output, is_full);
        self.server.was_held_back |= !self.wants_read();
    }

    /// Returns `true` if each time limit that may begin to run now lasts as long as its option says:
    /// nothing is held back, and no ping waits for its reply.
    pub(crate) fn has_only_limits_from_now(&self) -> bool {
        self.wants_read() && !self.is_unread() && self.client.pinged_at.is_none()
    }

    /// Returns the latest time at which [`handle_timeout`](Self::handle_timeout) must be called.
    pub(crate) fn poll_timeout(&self, partial: Partial) -> Option<Instant> {
        let limit = self.timers.next(&self.limits, self.waits(partial));
        let others = [self.server.control_rate.next(), self.server.stalled_at];
        limit.into_iter().chain(others.into_iter().flatten()).min()
    }

    fn waits(&self, partial: Partial) -> timers::Waits {
        // A server gives up only the message, see `drop_stalled`.
        let collecting = self.side == Side::Client && self.buffered > 0;
        // While this side does not read, the peer is not to blame that no bytes arrive.
        let reading = self.wants_read();
        timers::Waits {
            head: reading && partial == Partial::Head,
            body: reading && (partial == Partial::Body || collecting),
            write: !self.outbox.is_empty(),
            // Held bytes do not count here: most of them are arguments of handlers, which may run
            // for any time.
            over_budget: self.is_full(),
            idle: self.side == Side::Server && self.is_at_rest() && partial == Partial::Nothing,
        }
    }

    // ---- out

    /// Moves what is ready to be written into `batch`.
    pub(crate) fn take_output(&mut self, batch: &mut VecDeque<Bytes>) {
        self.outbox.take_into(batch, &mut self.deferred);
        if !self.outbox.cut.is_empty() {
            self.count_cut();
        }
    }

    /// Counts the chunks of long messages that were queued.
    #[cold]
    fn count_cut(&mut self) {
        // Frames of streams that waited behind a long message were counted, and have no path.
        for (path, bytes, ends) in self.outbox.cut.drain(..).filter(|cut| !cut.0.is_empty()) {
            self.stats.sent(&path, bytes, ends);
        }
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
        self.server.call_queue.shrink_to_fit();
        self.withheld.shrink_to_fit();
        self.client.cancel_later.shrink_to_fit();
        self.outbox.release_when_empty();
        self.stats.release_memory();
        release_events(&mut self.client.events);
        release_events(&mut self.server.events);
    }

    /// Server: counts the open request of a channel, whose handler has to wait.
    pub(crate) fn count_begin(&mut self, id: ChannelId) {
        let channel = self.channels.get_mut(id);
        if let Some(open) = channel.and_then(|channel| channel.open.as_mut()) {
            open.count_begin(&mut self.stats);
        }
    }

    /// Server: counts the open request of a channel as failed, in addition to its end.
    #[cold]
    pub(crate) fn count_failure(&mut self, id: ChannelId, code: u8) {
        let channel = self.channels.get(id);
        if let Some(open) = channel.and_then(|channel| channel.open.as_ref()) {
            self.stats.failed(&open.path.label, code);
        }
    }

    /// Server: counts the calls that have not ended as cancelled, because the connection has ended.
    pub(crate) fn count_cancelled(&mut self, now: Instant) {
        self.stats.set_now(now);
        for open in self.channels.open_mut() {
            open.count_end(&mut self.stats, None);
            self.stats.failed(&open.path.label, CANCELLED);
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
        self.server.events = VecDeque::new();
        self.server.call_queue = VecDeque::new();
    }

    // ---- commands of both sides

    /// Sets the number of bytes that other connections leave to this one.
    #[inline]
    pub(crate) fn set_allowance(&mut self, bytes: usize) {
        self.allowance = bytes.min(self.limits.get_max_buffered_bytes());
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
        let limit = self.limits.get_max_message_bytes();
        let channel = self.channels.get_mut(id)?;
        let assembly = channel.assembly.as_mut()?;
        // The size of a message that is skipped has no limit.
        assembly.size = assembly.size.saturating_add(body.len());
        assembly.grown_at = Some(self.timers.batch());
        if assembly.incoming == Incoming::Collect {
            if assembly.size > limit {
                // The message stays in its place, because its reply is due when it ends; only its
                // data is not kept.
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
        // From here on the data counts where it goes: a request that waits by its cost, and the
        // arguments of a handler that waits as held.
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
        // All replies that no handler makes, such as errors, pass here, so that a one-way request
        // gets none of them.
        if self.is_silent(channel) {
            return None;
        }
        let mut body = body.into();
        let bytes = FRAME_OVERHEAD + path.len() + body.len();
        let pushed = self.outbox.push(channel, path, &mut body, begins, ends);
        // Replies to calls that no handler makes. All else is of the protocol itself.
        if self.side == Side::Server && pushed.is_some() && !path.starts_with(b"/sys/") {
            self.stats.sent(path, bytes, ends);
        }
        pushed
    }

    /// Applies the peer's hello. From now on messages to this peer may be sent in chunks.
    fn on_hello(&mut self, hello: &Hello) {
        self.peer_knows_hello = true;
        let max_frame = hello
            .max_frame
            .map_or(MAX_FRAME_BYTES, |bytes| bytes.min(MAX_FRAME_BYTES));
        self.peer_stream_window = hello.stream_window;
        self.peer_channels = hello.channels.unwrap_or(usize::MAX);
        self.peer_replies_to_pings = hello.ping;
        self.peer_wants_notice = hello.notice;
        self.one_way.peer_takes_it = hello.one_way;
        self.outbox
            .set_chunk(self.limits.get_chunk_bytes(), max_frame);
    }
}

/// Releases the memory of a queue of events that was long.
fn release_events<T>(events: &mut VecDeque<T>) {
    if events.is_empty() && events.capacity() > 8 {
        *events = VecDeque::new();
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
