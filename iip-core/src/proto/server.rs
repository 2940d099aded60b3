//! The server side of the machine: each request gets one reply, in order per channel. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::channel::{Arrival, Assembly, Incoming, MAX_GRANTED, OpenRequest, Skip, WaitingRequest};
use super::control::{self, ControlMessage, Hello};
use super::event::{ServerEvent, StreamKey};
use super::request_path::{PathKind, RequestPath};
use super::stream;
use super::timers::Rate;
use super::{Connection, FORGET_AT_LEAST, SPARE_CALLS, WAITING_COST, detach, kept_bytes};
use crate::body::Body;
use crate::decoder::FrameHead;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, FRAME_OVERHEAD, FrameRef, FrameStatus};
use crate::limits::Limits;
use crate::stats::FrameCounts;
use crate::stats::go::ConnectionCount;

/// The maximum number of channels of a connection that its statistics list without a frame.
const MAX_LISTED_CHANNELS: u32 = 256;

/// The state that only a server has.
#[derive(Debug)]
pub(super) struct ServerSide {
    /// The events of the frames that were handled last; the driver dispatches them before it reads
    /// further frames.
    pub(super) events: VecDeque<ServerEvent>,
    /// Number of channels granted. Every id up to it stays valid, even if it was deleted (rule S1).
    pub(super) granted: u32,
    /// Channels whose next request waits because `max_calls` handlers run. Each is in it at most
    /// once.
    pub(super) call_queue: VecDeque<ChannelId>,
    /// The path field that was read last.
    last_path: Arc<RequestPath>,
    /// Number of requests that were shown to handlers and have no reply yet.
    pub(super) open_calls: usize,
    /// Number of those whose request is still arriving.
    pub(super) streamed: usize,
    /// Number of channels in the table above which those at rest are forgotten.
    forget_at: usize,
    /// The rate of requests of the protocol itself.
    pub(super) control_rate: Rate,
    /// The earliest time at which an unfinished message can have stalled.
    pub(super) stalled_at: Option<Instant>,
    /// The connection was not read for a while since `stalled_at` was set.
    pub(super) was_held_back: bool,
    /// The client was notified that this side is going away.
    sent_going_away: bool,
    /// Something was sent on the control stream.
    control_has_begun: bool,
    /// The first channel that was granted together with the last one, and the time.
    last_grants: (ChannelId, Instant),
    /// The counts by channel, if they are kept.
    frames: Option<Box<FrameCounts>>,
}

impl ServerSide {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            events: VecDeque::new(),
            granted: 0,
            call_queue: VecDeque::new(),
            last_path: Arc::default(),
            open_calls: 0,
            streamed: 0,
            forget_at: limits.get_max_channels().min(FORGET_AT_LEAST),
            control_rate: Rate::new(limits.get_max_control_requests(), now),
            stalled_at: None,
            was_held_back: false,
            sent_going_away: false,
            control_has_begun: false,
            last_grants: (ChannelId::ZERO, now),
            frames: None,
        }
    }
}

impl Connection {
    /// Returns `true` if the peer got a channel: it is ready to make calls.
    pub(crate) fn has_granted(&self) -> bool {
        self.server.granted > 0
    }

    /// Counts frames by channel from now on.
    pub(crate) fn count_frames(&mut self) {
        self.server.frames = Some(Box::default());
        self.outbox.frames = Some(Box::default());
    }

    /// Returns the frames by channel, if they are counted.
    pub(crate) fn frames(&self) -> Option<ConnectionCount> {
        let (received, sent) = (self.server.frames.as_ref()?, self.outbox.frames.as_ref()?);
        let granted = self.server.granted.min(MAX_LISTED_CHANNELS);
        let queues = (0..=granted).map(|id| {
            let channel = self.channels.get(ChannelId(id));
            let waiting = channel.map_or(0, |channel| channel.waiting.len());
            let is_open = channel.is_some_and(|channel| channel.open.is_some());
            (id, (waiting, is_open))
        });
        let queues = queues.collect();
        Some(ConnectionCount::new(
            received,
            sent,
            &queues,
            self.outgoing(),
        ))
    }

    #[inline]
    pub(super) fn on_request_frame(&mut self, frame: FrameRef<'_>) -> Result<(), ProtocolError> {
        let FrameRef {
            status,
            path,
            channel: id,
            body,
        } = frame;
        self.check_head(FrameHead {
            status,
            channel: id,
        })?;
        if self.server.frames.is_some() {
            self.count_frame(id, path.len() + body.len(), status.ends());
        }
        if self.channels.len() > self.server.forget_at {
            self.forget_channels();
        }
        if status == FrameStatus::RequestOnly {
            if body.len() > self.limits.get_max_message_bytes() && !is_own(path, &body) {
                self.count_large(path, body.len());
                self.on_too_large(id, path, body.len());
            } else {
                self.on_request(id, path, body, true);
            }
            return Ok(());
        }
        let bytes = FRAME_OVERHEAD + path.len() + body.len();
        self.count_part(id, status, path, bytes);
        self.on_request_part(id, status, path, body)
    }

    #[cold]
    fn count_frame(&mut self, id: ChannelId, size: usize, ends: bool) {
        if let Some(frames) = &mut self.server.frames {
            frames.add(id, FRAME_OVERHEAD + size, ends);
        }
    }

    #[cold]
    fn count_large(&mut self, path: &Bytes, size: usize) {
        self.read_path(path);
        self.count_received(FRAME_OVERHEAD + path.len() + size, true);
    }

    /// Counts a frame of the path that was read last, unless it is one of the protocol's own.
    #[cold]
    fn count_received(&mut self, bytes: usize, ends: bool) {
        let path = &self.server.last_path;
        if path.kind != PathKind::Reserved {
            self.stats.received(&path.label, bytes, ends);
        }
    }

    /// Counts a frame of a request of several frames. All of them count for the path of the first.
    #[cold]
    fn count_part(&mut self, id: ChannelId, status: FrameStatus, path: &Bytes, bytes: usize) {
        if self.control == Some(id) || (status.begins() && path == control::CONTROL.as_bytes()) {
            return;
        }
        let channel = self.channels.get(id);
        let assembly = channel.and_then(|channel| channel.assembly.as_deref());
        match assembly.filter(|_| !status.begins()) {
            Some(assembly) => {
                let path = assembly.path.clone();
                self.read_path(&path);
            }
            None => self.read_path(path),
        }
        self.count_received(bytes, status.ends());
    }

    /// Handles a frame of a request of several frames.
    fn on_request_part(
        &mut self,
        id: ChannelId,
        status: FrameStatus,
        path: &Bytes,
        body: Bytes,
    ) -> Result<(), ProtocolError> {
        if status == FrameStatus::RequestFirst {
            // A channel whose message is unfinished has state before it counts as a call. The
            // control stream does not count, even if calls have taken all channels before it
            // begins.
            let is_control = self.control.is_none() && path == control::CONTROL.as_bytes();
            let is_new = self.channels.get(id).is_none() && !is_control && !self.is_silent(id);
            if is_new && self.channels_in_use() >= self.limits.get_max_channels() {
                return Err(ProtocolError::TooManyChannels {
                    limit: self.limits.get_max_channels(),
                });
            }
            if self.peer_stream_window.is_some() && stream::begins_stream(&body) {
                if self.is_silent(id) {
                    return Err(ProtocolError::BadStream(id));
                }
                return self.begin_stream(id, path, body);
            }
            let assembly = Assembly::new(Incoming::Collect, Bytes::copy_from_slice(path));
            self.channels.get_or_insert(id).assembly = Some(Box::new(assembly));
            // Messages that began before stall before this one, so a time that is set stays the
            // earliest.
            if self.server.stalled_at.is_none() {
                self.server.stalled_at = self
                    .timers
                    .batch()
                    .checked_add(self.limits.get_progress_timeout());
            }
            self.receive(id, &body, false);
            return self.begin_request(id);
        }
        let ends = status.ends();
        let incoming = self
            .channels
            .get(id)
            .and_then(|c| c.assembly.as_ref())
            .map(|assembly| assembly.incoming);
        if let Some(Incoming::Stream(_)) = incoming {
            // The frame is handled first: the end of the request cancels the call only while the
            // request is open.
            self.on_stream_frame(id, StreamKey::Channel(id), body, ends)?;
            if ends && let Some(channel) = self.channels.get_mut(id) {
                channel.assembly = None;
                self.server.streamed -= usize::from(channel.on_arrived());
            }
            return Ok(());
        }
        let complete = self.receive(id, &body, ends);
        match incoming {
            Some(Incoming::Parts) => self.server.events.push_back(ServerEvent::RequestPart {
                channel: id,
                body,
                ends,
            }),
            Some(Incoming::Control) => self.on_control(body)?,
            _ => {}
        }
        if let Some(assembly) = complete {
            // If this request waits behind an open one, that one has arrived before, and nothing
            // changes here.
            let channel = self.channels.get_or_insert(id);
            self.server.streamed -= usize::from(channel.on_arrived());
            match assembly.incoming {
                Incoming::Collect => {
                    self.on_request(id, &assembly.path, assembly.data.freeze(), false);
                }
                Incoming::Skip(Skip::Cancelled) => self.reply_cancelled(id, &assembly.path),
                Incoming::Skip(Skip::TooLarge) => {
                    self.on_too_large(id, &assembly.path, assembly.size);
                }
                Incoming::Skip(Skip::Replied | Skip::Unwanted)
                | Incoming::Parts
                | Incoming::Stream(_)
                | Incoming::Control => {}
            }
        }
        Ok(())
    }

    /// Forgets the channels at rest once there are many channels.
    #[cold]
    fn forget_channels(&mut self) {
        self.channels.retain(|channel| !channel.is_at_rest());
        // The threshold is twice what is left, so that the cost of a frame is constant on average.
        let least = self.limits.get_max_channels().min(FORGET_AT_LEAST);
        self.server.forget_at = self.channels.len().saturating_mul(2).max(least);
    }

    /// Handles a complete request: its turn is now, or after those before it on its channel. It is
    /// counted already unless it has one frame.
    #[inline]
    fn on_request(&mut self, id: ChannelId, path: &Bytes, body: Bytes, in_one: bool) {
        let id = self.channel_of_request(id);
        self.read_path(path);
        let busy = self.is_busy() && !self.passes_busy();
        let channel = self.channels.get_or_insert(id);
        let first = channel.is_next();
        if first && !busy {
            let received_at = self.timers.batch();
            self.show(id, body, received_at, in_one);
            return;
        }
        if in_one {
            self.count_received(FRAME_OVERHEAD + path.len() + body.len(), true);
        }
        self.wait(id, path, body);
        if first {
            self.enqueue(id);
        }
    }

    /// Queues the channel, whose next request waits for a handler.
    fn enqueue(&mut self, id: ChannelId) {
        let channel = self.channels.get_or_insert(id);
        // A cancelled request leaves its channel's place in the queue to the next one.
        if !std::mem::replace(&mut channel.queued, true) {
            self.server.call_queue.push_back(id);
        }
    }

    /// Returns `true` if the request with the path read last is replied to while the server is at
    /// capacity. Requests of the protocol itself need no handler, and health checks distinguish a
    /// busy server from a dead one.
    #[cold]
    fn passes_busy(&self) -> bool {
        let path = &self.server.last_path;
        path.kind != PathKind::Handlers
            || (path.is_own_service()
                && self.server.open_calls - self.server.streamed
                    < self.limits.get_max_calls() + SPARE_CALLS)
    }

    /// Handles a request that exceeds the limit and was skipped: it fails in its turn.
    fn on_too_large(&mut self, id: ChannelId, path: &Bytes, size: usize) {
        let id = self.channel_of_request(id);
        let channel = self.channels.get_or_insert(id);
        // Such a request needs no handler, so it does not wait while the server is at capacity.
        if channel.is_next() {
            self.read_path(path);
            self.show_too_large(id, size);
        } else {
            // An empty body marks the request as too large: the protocol forbids requests without
            // data.
            self.wait(id, path, Bytes::new());
        }
    }

    fn wait(&mut self, id: ChannelId, path: &Bytes, body: Bytes) {
        let request = WaitingRequest {
            path: detach(path.clone()),
            body: detach(body),
            received_at: self.timers.batch(),
        };
        // The path and small bodies were copied, so the request costs what is counted here, and not
        // the buffer that it was read into.
        self.buffered += request.cost();
        self.channels.get_or_insert(id).waiting.push_back(request);
    }

    /// Handles the beginning of a request of several frames. If its turn is now, the layer above
    /// may have its chunks.
    fn begin_request(&mut self, id: ChannelId) -> Result<(), ProtocolError> {
        // A one-way request gets a channel of its own when it is complete, and is shown as a whole.
        if self.is_silent(id) {
            return Ok(());
        }
        let Some(channel) = self.channels.get_mut(id) else {
            return Ok(());
        };
        let Some(assembly) = &mut channel.assembly else {
            return Ok(());
        };
        let is_next = channel.open.is_none() && channel.waiting.is_empty();
        if !is_next || assembly.incoming != Incoming::Collect {
            return Ok(());
        }
        let path = RequestPath::read(&assembly.path);
        if path.label == control::CONTROL.as_bytes() && self.control.is_none() {
            self.control = Some(id);
            // A client opens it as soon as it has the grant of its channel.
            let (granted, at) = self.server.last_grants;
            if id >= granted {
                self.round_trip.begin(at);
                self.round_trip.end(self.timers.batch());
            }
            let first = std::mem::take(&mut assembly.data).freeze();
            assembly.incoming = Incoming::Control;
            // `receive` has counted the first frame as a part of a message.
            self.buffered -= first.len();
            return self.on_control(first);
        }
        if path.kind == PathKind::Handlers {
            self.server.events.push_back(ServerEvent::RequestBegun {
                channel: id,
                path: Arc::new(path),
            });
        }
        Ok(())
    }

    /// Shows a request with the path read last to the layer above, or replies to it here if its
    /// path is the protocol's own. Returns `true` if it was shown and its channel waits for the
    /// reply.
    #[inline]
    fn show(&mut self, id: ChannelId, body: Bytes, received_at: Instant, in_one: bool) -> bool {
        if self.server.last_path.kind != PathKind::Handlers {
            self.reply_here(id, &body);
            return false;
        }
        let path = self.open(id, received_at, if in_one { body.len() } else { 0 });
        self.server.events.push_back(ServerEvent::Request {
            channel: id,
            path,
            body,
            received_at,
        });
        true
    }

    /// Like [`show`](Self::show), but for a request that was skipped because of its size.
    fn show_too_large(&mut self, id: ChannelId, size: usize) -> bool {
        if self.server.last_path.kind != PathKind::Handlers {
            let path = Arc::clone(&self.server.last_path);
            self.send(id, path.safe_label(), control::NO_HANDLER, true, true);
            return false;
        }
        let path = self.open(id, self.timers.batch(), 0);
        self.server.events.push_back(ServerEvent::RequestTooLarge {
            channel: id,
            path,
            size,
        });
        true
    }

    /// Makes the channel's request, with the path read last, the open one, which waits for its
    /// reply. `uncounted` is the size of its data if it has one frame that was not counted.
    #[inline]
    fn open(&mut self, id: ChannelId, begun: Instant, uncounted: usize) -> Arc<RequestPath> {
        let path = Arc::clone(&self.server.last_path);
        let uncounted = match uncounted {
            0 => {
                self.stats.begun(&path.label);
                0
            }
            size => frame_bytes(path.raw.len(), size),
        };
        let open = OpenRequest::new(Arc::clone(&path), Arrival::Complete, begun, uncounted);
        self.channels.get_or_insert(id).open = Some(open);
        self.server.open_calls += 1;
        path
    }

    /// Parses a path field. Requests of a connection mostly repeat the previous path, for which the
    /// decoder returns the same buffer.
    #[inline]
    fn read_path(&mut self, raw: &Bytes) {
        // The last path keeps its buffer alive, so the same address means the same bytes.
        let last = &self.server.last_path.raw;
        if last.as_ptr() != raw.as_ptr() || last.len() != raw.len() {
            self.server.last_path = Arc::new(RequestPath::read(raw));
        }
    }

    /// Replies to a request that is not for the layer above.
    fn reply_here(&mut self, id: ChannelId, body: &[u8]) {
        let path = Arc::clone(&self.server.last_path);
        let reply = match path.kind {
            PathKind::Reserved => {
                self.server.control_rate.count(self.timers.last_moved());
                self.reserved_reply(&path.label, body)
            }
            // A Go server closes the connection or sends a forged frame (defects D18, D19). This
            // one replies with a label that can be encoded.
            _ => Bytes::from_static(control::NO_HANDLER),
        };
        self.send(id, path.safe_label(), reply, true, true);
    }

    fn reserved_reply(&mut self, label: &[u8], body: &[u8]) -> Bytes {
        if label == control::NEW_CHANNEL.as_bytes() {
            // S3: a grant is a number, not an allocation; only channels with state are limited. S1
            // and S2: the number only counts up. The ids above `MAX_GRANTED` belong to one-way
            // calls.
            if self.channels_in_use() > self.limits.get_max_channels()
                || self.server.granted == MAX_GRANTED
            {
                return Bytes::from_static(control::CHANNEL_LIMIT);
            }
            self.server.granted += 1;
            let (id, now) = (ChannelId(self.server.granted), self.timers.batch());
            if self.server.last_grants.1 != now {
                self.server.last_grants = (id, now);
            }
            return control::grant(id);
        }
        if label == control::DELETE_CHANNEL.as_bytes() || label == control::PING.as_bytes() {
            // S5, S6: the reply follows every earlier one; a deleted id stays valid.
            return Bytes::from_static(br#"{"code":0}"#);
        }
        if let Some(hello) = Hello::parse(body) {
            self.on_hello(&hello);
            self.server
                .events
                .push_back(ServerEvent::PeerHello(hello.text));
        }
        Hello::body(&self.announce, &self.limits, true)
    }

    fn on_control(&mut self, mut part: Bytes) -> Result<(), ProtocolError> {
        control::check_size(&part)?;
        while let Some(message) = ControlMessage::next(&mut part) {
            let is_free = match message {
                // Cancellations are not counted, because there are at most as many as there were
                // calls.
                ControlMessage::Cancel(channel) => self.on_cancel(channel),
                ControlMessage::OneWay(channel) => {
                    self.on_one_way(channel);
                    false
                }
                ControlMessage::GoingAway => false,
            };
            if !is_free {
                self.server.control_rate.count(self.timers.last_moved());
            }
        }
        Ok(())
    }

    // ---- out

    pub(crate) fn has_server_events(&self) -> bool {
        !self.server.events.is_empty()
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn poll_server_event(&mut self) -> Option<ServerEvent> {
        self.server.events.pop_front()
    }

    /// Takes all events at once, in exchange for an empty queue.
    pub(crate) fn take_server_events(&mut self, events: &mut VecDeque<ServerEvent>) {
        std::mem::swap(&mut self.server.events, events);
    }

    // ---- commands

    /// Notifies the client, once and if it wants that, that further calls should use another
    /// connection.
    pub(crate) fn send_going_away(&mut self) {
        let Some(control) = self.control else { return };
        if !self.peer_wants_notice || std::mem::replace(&mut self.server.sent_going_away, true) {
            return;
        }
        let body = ControlMessage::GoingAway.encode();
        self.send_control(control, body);
    }

    /// Sends a message now and then while the connection is not read and thus would not reply to
    /// pings, to clients that accept notices. Returns the latest time at which this must be called
    /// again.
    pub(crate) fn send_keepalive(&mut self, now: Instant) -> Option<Instant> {
        let control = self.control?;
        let interval = self.limits.get_keepalive_interval();
        // Output that waits to be written shows by itself that this side is alive.
        if self.wants_read() || !self.peer_wants_notice || !self.outbox.is_empty() {
            return None;
        }
        let at = self.timers.last_write().checked_add(interval / 5)?;
        if at > now {
            return Some(at);
        }
        self.send_control(control, ControlMessage::nothing());
        now.checked_add(interval / 5)
    }

    /// Sends on the reply side of the control stream, which never ends.
    fn send_control(&mut self, control: ChannelId, body: Bytes) {
        // The reply to the request of the control stream begins with the first message.
        let begins = !std::mem::replace(&mut self.server.control_has_begun, true);
        let path = control::CONTROL.as_bytes();
        self.send(control, path, body, begins, false);
    }

    /// Makes a request that has begun the open one, whose chunks are delivered as they arrive.
    /// Returns `false` if it is already complete: then it is delivered as a whole.
    pub(crate) fn stream_request(&mut self, id: ChannelId) -> bool {
        let Some(channel) = self.channels.get_mut(id) else {
            return false;
        };
        let Some(assembly) = &mut channel.assembly else {
            return false;
        };
        // Unlike in `is_busy`, calls whose requests are arriving count, or a peer could start any
        // number of handlers with requests that it does not end.
        let busy = self.server.open_calls >= self.limits.get_max_calls();
        if busy || channel.open.is_some() || assembly.incoming != Incoming::Collect {
            return false;
        }
        assembly.incoming = Incoming::Parts;
        // From here on its chunks count with the queue of the handler, from which they are taken.
        let first = std::mem::take(&mut assembly.data).freeze();
        self.buffered -= first.len();
        let path = Arc::new(RequestPath::read(&assembly.path));
        self.stats.begun(&path.label);
        let begun = self.timers.batch();
        channel.open = Some(OpenRequest::new(path, Arrival::Parts, begun, 0));
        self.server.open_calls += 1;
        self.server.streamed += 1;
        self.server.events.push_back(ServerEvent::RequestPart {
            channel: id,
            body: first,
            ends: false,
        });
        true
    }

    /// Sends a reply, or a part of one. Returns `false` if the channel has no open request.
    #[inline]
    pub(crate) fn reply(&mut self, id: ChannelId, body: &mut Body, ends: bool) -> bool {
        let is_silent = self.is_silent(id);
        let Some(channel) = self.channels.get_mut(id) else {
            return false;
        };
        let Some(open) = &mut channel.open else {
            return false;
        };
        let begins = !std::mem::replace(&mut open.replying, true);
        let label = &open.path.label;
        let bytes = FRAME_OVERHEAD + label.len() + body.len();
        if ends && open.uncounted != 0 && !is_silent {
            match self.outbox.push(id, label, body, begins, ends) {
                Some(_) => self.stats.replied(label, open.begun, open.uncounted, bytes),
                None => open.count_end(&mut self.stats, None),
            }
        } else if ends && open.is_stream() {
            // The client distinguishes the reply from the data of the stream by its mark.
            let mut marked = body.marked(stream::REPLY);
            let pushed = self.outbox.push(id, label, &mut marked, begins, ends);
            open.count_end(&mut self.stats, pushed.map(|_| bytes + 1));
            // If the data was copied, the caller keeps the original and drops it without the lock.
            body.unmark(marked);
        } else {
            let pushed = match is_silent {
                true => None,
                false => self.outbox.push(id, label, body, begins, ends),
            };
            open.count_reply(&mut self.stats, pushed.map(|_| bytes), ends);
        }
        if !ends {
            return true;
        }
        let was_arriving = open.is_arriving();
        channel.open = None;
        self.server.open_calls -= 1;
        if was_arriving {
            self.server.streamed -= 1;
            // The reply was sent before the request was complete, so the rest is not needed.
            Self::skip_incoming(&mut self.buffered, channel, Skip::Replied);
        }
        // A one-way call has its channel to itself. On any other one the next request follows,
        // after those of other channels that have waited for longer.
        if is_silent {
            self.channels.remove(id);
        } else if channel.has_next() {
            if self.server.call_queue.is_empty() {
                self.show_next(id);
            } else {
                self.enqueue(id);
            }
        }
        // One reply makes room for one handler. It takes more than one turn if a channel has no
        // request any more, because it was cancelled, or one that is replied to here.
        while !self.server.call_queue.is_empty() && !self.is_busy() {
            self.show_queued();
        }
        true
    }

    /// Shows the request that has waited longest for a handler.
    fn show_queued(&mut self) {
        let Some(id) = self.server.call_queue.pop_front() else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(id) {
            channel.queued = false;
        }
        self.show_next(id);
    }

    /// Shows the next request of a channel without an open one, and those after it if it is replied
    /// to at once.
    fn show_next(&mut self, id: ChannelId) {
        while let Some(channel) = self.channels.get_mut(id) {
            // A cancelled request leaves its channel in the queue, and a health check may have
            // taken its turn.
            if channel.open.is_some() {
                return;
            }
            if channel.waiting.is_empty() {
                if channel.assembly.is_some() {
                    // Control streams begin on channels at rest, so this cannot fail.
                    let begun = self.begin_request(id);
                    debug_assert!(begun.is_ok(), "{begun:?}");
                }
                return;
            }
            if self.is_busy() {
                return self.enqueue(id);
            }
            let Some(request) = self
                .channels
                .get_mut(id)
                .and_then(|channel| channel.waiting.pop_front())
            else {
                return;
            };
            self.buffered -= request.cost();
            let WaitingRequest {
                path,
                body,
                received_at,
            } = request;
            self.read_path(&path);
            let shown = if body.is_empty() {
                self.show_too_large(id, self.limits.get_max_message_bytes())
            } else {
                self.show(id, body, received_at, false)
            };
            if shown {
                return;
            }
        }
    }

    /// Returns the number of channels with a call or a message. Forgets those at rest if there are
    /// many.
    fn channels_in_use(&mut self) -> usize {
        // Channels at rest are in the table only because they were not forgotten yet.
        if self.channels.len() >= self.limits.get_max_channels() {
            self.channels.retain(|channel| !channel.is_at_rest());
        }
        // One-way calls have limits of their own.
        let others = usize::from(self.control.is_some()) + usize::from(self.receives_one_way());
        let granted = self.channels.len() - self.channels.one_way();
        granted.saturating_sub(others)
    }
}

impl WaitingRequest {
    pub(super) fn cost(&self) -> usize {
        WAITING_COST + self.path.len() + kept_bytes(self.body.len())
    }
}

/// Returns `true` if this is a request that clients make by themselves, such as a hello. The
/// message limit only applies to the callers' messages.
#[cold]
fn is_own(path: &[u8], body: &[u8]) -> bool {
    let own = [control::HELLO, control::NEW_CHANNEL, control::PING];
    body.len() <= control::MAX_BODY_BYTES && own.iter().any(|own| own.as_bytes() == path)
}

/// Returns the number of bytes of a frame, which is below 2^32.
#[inline]
fn frame_bytes(path: usize, body: usize) -> u32 {
    u32::try_from(FRAME_OVERHEAD + path + body).unwrap_or(u32::MAX)
}
