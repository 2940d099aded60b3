//! Requests: from the frames of a client to the events for handlers, or to the replies that need
//! none. Pure.

use std::sync::Arc;

use bytes::Bytes;

use super::channel::{Arrival, Assembly, Incoming, MAX_GRANTED, OpenRequest, Skip, WaitingRequest};
use super::control::{self, ControlMessage, Hello};
use super::event::{ServerEvent, StreamKey};
use super::request_path::{PathKind, RequestPath};
use super::stream;
use super::{Connection, SPARE_CALLS, WAITING_COST, detach, kept_bytes};
use crate::decoder::FrameHead;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, FRAME_OVERHEAD, FrameRef, FrameStatus};

impl Connection {
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
    pub(super) fn enqueue(&mut self, id: ChannelId) {
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
    pub(super) fn begin_request(&mut self, id: ChannelId) -> Result<(), ProtocolError> {
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

    /// Replies to a request that is not for the layer above.
    pub(super) fn reply_here(&mut self, id: ChannelId, body: &[u8]) {
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
