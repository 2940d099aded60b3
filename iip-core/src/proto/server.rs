//! The server side of the machine: each request gets one reply, in order per channel. Pure.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::channel::{Assembly, Incoming, WaitingRequest};
use super::control::{self, ControlMessage, Hello};
use super::one_way::MAX_GRANTED;
use super::stream::{self, StreamKey};
use super::{
    Connection, Event, FORGET_AT_LEAST, MAX_CONTROL_BYTES, SPARE_CALLS, WAITING_COST, detach,
    kept_bytes,
};
use crate::body::Body;
use crate::decoder::FrameHead;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, FrameRef, FrameStatus, MAX_PATH_BYTES};
use crate::path::{check_label, label_and_query};

/// The label of a reply if the path of the request cannot be encoded.
pub(super) const SAFE_LABEL: &[u8] = b"/";

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
        if self.channels.len() > self.forget_at {
            self.forget_channels();
        }
        if status == FrameStatus::RequestOnly {
            if body.len() > self.limits.message_bytes() && !is_own(path, &body) {
                self.on_too_large(id, path, body.len());
            } else {
                self.on_request(id, path, body);
            }
            return Ok(());
        }
        self.on_request_part(id, status, path, body)
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
            let is_new = self.channels.get(id).is_none() && !is_control;
            if is_new && self.channels_in_use() >= self.limits.channels() {
                return Err(ProtocolError::TooManyChannels {
                    limit: self.limits.channels(),
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
            if self.stalled_at.is_none() {
                self.stalled_at = self.timers.batch().checked_add(self.limits.progress());
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
        if incoming == Some(Incoming::Stream) {
            self.on_stream_frame(id, StreamKey::Channel(id), body, ends)?;
            if ends && let Some(channel) = self.channels.get_mut(id) {
                channel.assembly = None;
                self.streamed -= usize::from(std::mem::take(&mut channel.begun));
            }
            return Ok(());
        }
        let complete = self.receive(id, &body, ends);
        match incoming {
            Some(Incoming::Parts) => self.events.push_back(Event::RequestPart {
                channel: id,
                body,
                ends,
            }),
            Some(Incoming::Control) => self.on_control(body)?,
            _ => {}
        }
        if let Some(assembly) = complete {
            let channel = self.channels.get_or_insert(id);
            self.streamed -= usize::from(std::mem::take(&mut channel.begun));
            match assembly.incoming {
                Incoming::Collect => self.on_request(id, &assembly.path, assembly.data.freeze()),
                Incoming::Skip if assembly.cancelled => self.answer_cancelled(id, &assembly.path),
                Incoming::Skip if assembly.too_large => {
                    self.on_too_large(id, &assembly.path, assembly.size)
                }
                Incoming::Parts | Incoming::Stream | Incoming::Skip | Incoming::Control => {}
            }
        }
        Ok(())
    }

    /// Forgets the channels at rest once there are many channels.
    #[cold]
    fn forget_channels(&mut self) {
        self.channels.retain(|channel| !channel.is_at_rest());
        let least = self.limits.channels().min(FORGET_AT_LEAST);
        self.forget_at = self.channels.len().saturating_mul(2).max(least);
    }

    /// Handles a complete request: its turn is now, or after those before it on its channel.
    #[inline]
    fn on_request(&mut self, id: ChannelId, path: &Bytes, body: Bytes) {
        let id = self.channel_of_request(id);
        self.read_path(path);
        let busy = self.is_busy() && !self.passes_busy();
        let channel = self.channels.get_or_insert(id);
        let first = channel.open.is_none() && channel.waiting.is_empty();
        if first && !busy {
            let received_at = self.timers.batch();
            self.show(id, body, received_at);
            return;
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
            self.call_queue.push_back(id);
        }
    }

    /// Returns `true` if the request with the path read last is replied to while the server is at
    /// capacity. Requests of the protocol itself need no handler, and health checks distinguish a
    /// busy server from a dead one.
    #[cold]
    fn passes_busy(&self) -> bool {
        let path = &self.last_path;
        path.kind != PathKind::Handlers
            || (path.is_own_service()
                && self.open_calls - self.streamed < self.limits.calls() + SPARE_CALLS)
    }

    /// Handles a request that exceeds the limit and was skipped: it fails in its turn.
    fn on_too_large(&mut self, id: ChannelId, path: &Bytes, size: usize) {
        let id = self.channel_of_request(id);
        let channel = self.channels.get_or_insert(id);
        if channel.open.is_none() && channel.waiting.is_empty() {
            self.read_path(path);
            self.show_too_large(id, size);
        } else {
            // An empty body marks the request as too large.
            self.wait(id, path, Bytes::new());
        }
    }

    fn wait(&mut self, id: ChannelId, path: &Bytes, body: Bytes) {
        let request = WaitingRequest {
            path: detach(path.clone()),
            body: detach(body),
            received_at: self.timers.batch(),
        };
        self.buffered += request.cost();
        self.channels.get_or_insert(id).waiting.push_back(request);
    }

    /// Handles the beginning of a request of several frames. If its turn is now, the layer above
    /// may have its chunks.
    fn begin_request(&mut self, id: ChannelId) -> Result<(), ProtocolError> {
        if self.is_silent(id) {
            return Ok(());
        }
        let Some(channel) = self.channels.get_mut(id) else {
            return Ok(());
        };
        let Some(assembly) = &mut channel.assembly else {
            return Ok(());
        };
        if channel.open.is_some()
            || !channel.waiting.is_empty()
            || assembly.incoming != Incoming::Collect
        {
            return Ok(());
        }
        let path = RequestPath::read(&assembly.path);
        if path.label == control::CONTROL.as_bytes() && self.control.is_none() {
            self.control = Some(id);
            let first = std::mem::take(&mut assembly.data).freeze();
            assembly.incoming = Incoming::Control;
            self.buffered -= first.len();
            return self.on_control(first);
        }
        if path.kind == PathKind::Handlers {
            self.events.push_back(Event::RequestBegun {
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
    fn show(&mut self, id: ChannelId, body: Bytes, received_at: Instant) -> bool {
        if self.last_path.kind != PathKind::Handlers {
            self.answer_here(id, &body);
            return false;
        }
        let path = self.open(id);
        self.events.push_back(Event::Request {
            channel: id,
            path,
            body,
            received_at,
        });
        true
    }

    /// Like [`show`](Self::show), but for a request that was skipped because of its size.
    fn show_too_large(&mut self, id: ChannelId, size: usize) -> bool {
        if self.last_path.kind != PathKind::Handlers {
            let path = Arc::clone(&self.last_path);
            self.send(id, path.safe_label(), control::NO_HANDLER, true, true);
            return false;
        }
        let path = self.open(id);
        self.events.push_back(Event::RequestTooLarge {
            channel: id,
            path,
            size,
        });
        true
    }

    /// Makes the channel's request, with the path read last, the open one, which waits for its
    /// reply.
    #[inline]
    fn open(&mut self, id: ChannelId) -> Arc<RequestPath> {
        self.channels.get_or_insert(id).open = Some(Arc::clone(&self.last_path));
        self.open_calls += 1;
        Arc::clone(&self.last_path)
    }

    /// Parses a path field. Requests of a connection mostly repeat the previous path, for which the
    /// decoder returns the same buffer.
    #[inline]
    fn read_path(&mut self, raw: &Bytes) {
        let last = &self.last_path.raw;
        if last.as_ptr() != raw.as_ptr() || last.len() != raw.len() {
            self.last_path = Arc::new(RequestPath::read(raw));
        }
    }

    /// Replies to a request that is not for the layer above.
    fn answer_here(&mut self, id: ChannelId, body: &[u8]) {
        let path = Arc::clone(&self.last_path);
        let answer = match path.kind {
            PathKind::Reserved => {
                self.control_rate.count(self.timers.last_moved());
                self.answer_reserved(&path.label, body)
            }
            // A Go server closes the connection or sends a forged frame (defects D18, D19). This
            // one replies with a label that can be encoded.
            _ => Bytes::from_static(control::NO_HANDLER),
        };
        self.send(id, path.safe_label(), answer, true, true);
    }

    fn answer_reserved(&mut self, label: &[u8], body: &[u8]) -> Bytes {
        if label == control::NEW_CHANNEL.as_bytes() {
            // S3: a grant is a number, not an allocation; only channels with state are limited.
            if self.channels_in_use() > self.limits.channels() || self.granted == MAX_GRANTED {
                return Bytes::from_static(control::CHANNEL_LIMIT);
            }
            self.granted += 1;
            return control::grant(ChannelId(self.granted));
        }
        if label == control::DELETE_CHANNEL.as_bytes() || label == control::PING.as_bytes() {
            // S5, S6: the reply follows every earlier one; a deleted id stays valid.
            return Bytes::from_static(br#"{"code":0}"#);
        }
        if let Some(hello) = Hello::parse(body) {
            self.on_hello(&hello);
            self.events.push_back(Event::PeerHello(Some(hello.text)));
        }
        Hello::body(&self.announce, &self.limits, true)
    }

    fn on_control(&mut self, mut part: Bytes) -> Result<(), ProtocolError> {
        check_control_size(&part)?;
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
                self.control_rate.count(self.timers.last_moved());
            }
        }
        Ok(())
    }

    /// Cancels the one call on a channel, whose caller has gone. Returns `true` if there is a call,
    /// and it was not cancelled before.
    fn on_cancel(&mut self, id: ChannelId) -> bool {
        let Some(channel) = self.channels.get_mut(id) else {
            return false;
        };
        if channel.open.is_some() {
            return self.cancel_open(id);
        }
        if channel.waiting.is_empty() {
            // The rest of the request is skipped; it gets its reply when it ends.
            Self::skip_incoming(&mut self.buffered, channel);
            let Some(assembly) = &mut channel.assembly else {
                return false;
            };
            let is_first = !assembly.cancelled;
            assembly.cancelled = !assembly.answered;
            return is_first && assembly.cancelled;
        }
        if channel.waiting.len() == 1
            && channel.assembly.is_none()
            && let Some(request) = channel.waiting.pop_front()
        {
            self.buffered -= request.cost();
            self.answer_cancelled(id, &request.path);
            return true;
        }
        false
    }

    /// Notifies the handler of the open request, once, that the caller has gone. Returns `false` if
    /// it was notified before.
    pub(super) fn cancel_open(&mut self, id: ChannelId) -> bool {
        let channel = self.channels.get_mut(id);
        let is_first =
            channel.is_some_and(|channel| !std::mem::replace(&mut channel.cancelled, true));
        if is_first {
            self.events.push_back(Event::Cancelled { channel: id });
        }
        is_first
    }

    /// Replies to a cancelled call. The reply is discarded, but the order of the channel requires
    /// it.
    fn answer_cancelled(&mut self, id: ChannelId, path: &Bytes) {
        let path = RequestPath::read(path);
        let answer = control::handler_failure("cancelled");
        self.send(id, path.safe_label(), answer, true, true);
    }

    /// Gives up messages whose next frame does not arrive: their callers get an error, and the rest
    /// of them is skipped.
    pub(super) fn drop_stalled(&mut self, now: Instant) {
        if self.stalled_at.is_none_or(|at| at > now) {
            return;
        }
        let limit = self.limits.progress();
        if std::mem::take(&mut self.was_held_back) {
            // The peer may have sent more that was not read.
            self.stalled_at = now.checked_add(limit);
            return;
        }
        let is_unfinished =
            |assembly: &Assembly| matches!(assembly.incoming, Incoming::Collect | Incoming::Parts);
        let stalls_at =
            |assembly: &Assembly| assembly.grown_at.and_then(|at| at.checked_add(limit));
        let stalled = self.channels.receiving(|assembly| {
            is_unfinished(assembly) && stalls_at(assembly).is_some_and(|at| at <= now)
        });
        for id in stalled {
            self.drop_unfinished(id);
        }
        let mut next = None;
        for id in self.channels.receiving(is_unfinished) {
            let channel = self.channels.get(id);
            let assembly = channel.and_then(|channel| channel.assembly.as_deref());
            next = next.into_iter().chain(assembly.and_then(stalls_at)).min();
        }
        self.stalled_at = next;
    }

    fn drop_unfinished(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if channel.begun {
            self.cancel_open(id);
            return;
        }
        let is_next = channel.open.is_none() && channel.waiting.is_empty();
        Self::skip_incoming(&mut self.buffered, channel);
        let Some(assembly) = &mut channel.assembly else {
            return;
        };
        if !is_next {
            assembly.cancelled = true;
            return;
        }
        assembly.answered = true;
        let path = RequestPath::read(&assembly.path);
        let limit = self.limits.progress();
        let text = format!(
            "no bytes of an unfinished request arrived for {limit:?} (option progress_timeout of \
             the server)"
        );
        self.send(
            id,
            path.safe_label(),
            control::handler_failure(&text),
            true,
            true,
        );
    }

    // ---- commands

    /// Notifies the client, once and if it wants that, that further calls should use another
    /// connection.
    pub(crate) fn send_going_away(&mut self) {
        let Some(control) = self.control else { return };
        if !self.peer_wants_notice || std::mem::replace(&mut self.sent_going_away, true) {
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
        let (interval, _) = self.limits.keepalive();
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
        let begins = !std::mem::replace(&mut self.control_has_begun, true);
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
        let busy = self.open_calls >= self.limits.calls();
        if busy || channel.open.is_some() || assembly.incoming != Incoming::Collect {
            return false;
        }
        assembly.incoming = Incoming::Parts;
        let first = std::mem::take(&mut assembly.data).freeze();
        self.buffered -= first.len();
        channel.open = Some(Arc::new(RequestPath::read(&assembly.path)));
        channel.begun = true;
        self.open_calls += 1;
        self.streamed += 1;
        self.events.push_back(Event::RequestPart {
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
        let Some(path) = &channel.open else {
            return false;
        };
        let begins = !channel.replying;
        if ends && std::mem::take(&mut channel.is_stream) {
            let mut marked = body.marked(stream::ANSWER);
            self.outbox.push(id, &path.label, &mut marked, begins, ends);
            body.unmark(marked);
        } else if !is_silent {
            self.outbox.push(id, &path.label, body, begins, ends);
        }
        channel.replying = !ends;
        if !ends {
            return true;
        }
        channel.open = None;
        channel.cancelled = false;
        self.open_calls -= 1;
        if std::mem::take(&mut channel.begun) {
            self.streamed -= 1;
            // The reply was sent before the request was complete, so the rest is not needed.
            Self::skip_incoming(&mut self.buffered, channel);
            if let Some(assembly) = &mut channel.assembly {
                assembly.answered = true;
            }
        }
        if is_silent {
            self.channels.remove(id);
        } else if channel.has_next() {
            self.show_next(id);
        }
        while !self.call_queue.is_empty() && !self.is_busy() {
            self.show_queued();
        }
        true
    }

    /// Shows the request that has waited longest for a handler.
    fn show_queued(&mut self) {
        let Some(id) = self.call_queue.pop_front() else {
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
                self.show_too_large(id, self.limits.message_bytes())
            } else {
                self.show(id, body, received_at)
            };
            if shown {
                return;
            }
        }
    }

    /// Returns the number of channels with a call or a message. Forgets those at rest if there are
    /// many.
    fn channels_in_use(&mut self) -> usize {
        if self.channels.len() >= self.limits.channels() {
            self.channels.retain(|channel| !channel.is_at_rest());
        }
        self.channels
            .len()
            .saturating_sub(usize::from(self.control.is_some()))
    }
}

impl WaitingRequest {
    pub(super) fn cost(&self) -> usize {
        WAITING_COST + self.path.len() + kept_bytes(self.body.len())
    }
}

/// A path field, parsed.
#[derive(Debug, Default)]
pub(crate) struct RequestPath {
    raw: Bytes,
    /// The path, decoded and without query: it selects the handler and is the label of the reply.
    pub(crate) label: Bytes,
    pub(crate) query: Bytes,
    kind: PathKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum PathKind {
    /// The path is for the layer above.
    Handlers,
    /// The path is one of the protocol's own.
    Reserved,
    /// The path cannot be the label of a reply.
    #[default]
    Unfit,
}

impl RequestPath {
    pub(super) fn read(raw: &Bytes) -> Self {
        let (label, query) = split_path(raw);
        let kind = match check_label(&label) {
            Err(_) => PathKind::Unfit,
            Ok(()) if is_reserved(&label) => PathKind::Reserved,
            Ok(()) => PathKind::Handlers,
        };
        Self {
            raw: raw.clone(),
            label,
            query,
            kind,
        }
    }

    /// Returns `true` if this is one of the library's own services, such as health.
    pub(crate) fn is_own_service(&self) -> bool {
        self.label.starts_with(b"/sys/")
    }

    /// Returns `true` if the layer above handles this path.
    pub(super) fn is_for_handlers(&self) -> bool {
        self.kind == PathKind::Handlers
    }

    /// Returns the label of the reply.
    fn safe_label(&self) -> &[u8] {
        if self.kind == PathKind::Unfit {
            SAFE_LABEL
        } else {
            &self.label
        }
    }
}

/// Returns label and query of a path field; both share its buffer unless an escape had to be
/// decoded.
fn split_path(raw: &Bytes) -> (Bytes, Bytes) {
    let parsed = label_and_query(raw);
    let label = match parsed.label {
        Cow::Borrowed(label) => raw.slice_ref(label),
        Cow::Owned(label) => Bytes::from(label),
    };
    (label, raw.slice_ref(parsed.query))
}

/// Checks that a frame of the control stream is short, because each becomes many events.
pub(super) fn check_control_size(part: &Bytes) -> Result<(), ProtocolError> {
    if part.len() > MAX_CONTROL_BYTES {
        return Err(ProtocolError::BadControl {
            exchange: control::CONTROL,
        });
    }
    Ok(())
}

/// Returns `true` if this is a request that clients make by themselves, such as a hello. The
/// message limit only applies to the callers' messages.
#[cold]
fn is_own(path: &[u8], body: &[u8]) -> bool {
    let own = [control::HELLO, control::NEW_CHANNEL, control::PING];
    body.len() <= control::MAX_BODY_BYTES && own.iter().any(|own| own.as_bytes() == path)
}

fn is_reserved(label: &[u8]) -> bool {
    label.starts_with(b"/sys/")
        && [
            control::NEW_CHANNEL,
            control::DELETE_CHANNEL,
            control::HELLO,
            control::PING,
        ]
        .iter()
        .any(|path| path.as_bytes() == label)
}

const _: () = assert!(SAFE_LABEL.len() <= MAX_PATH_BYTES);
