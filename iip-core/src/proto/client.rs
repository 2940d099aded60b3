//! The client side of the machine: each reply belongs to the oldest request without a reply on its
//! channel. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::channel::{Assembly, Incoming, IncomingStream, SentCall, Skip};
use super::control::{self, ControlMessage, Exchange, Hello};
use super::event::{ClientEvent, StreamKey};
use super::request_path::SAFE_LABEL;
use super::{Connection, Mode};
use crate::body::Data;
use crate::decoder::FrameHead;
use crate::error::{CallErrorKind, ConnectionError, ProtocolError};
use crate::frame::{ChannelId, FRAME_OVERHEAD, FrameStatus, MAX_FRAME_BYTES, ReplyRef};
use crate::path::{check_label, label_and_query};
use crate::proto::slots::CallId;
use crate::proto::stream::END_BYTES;

/// Maximum number of characters of a path in an error.
const MAX_PATH_CHARS: usize = 128;

/// The state that only a client has.
#[derive(Debug, Default)]
pub(super) struct ClientSide {
    pub(super) events: VecDeque<ClientEvent>,
    /// The channel of the control stream was requested.
    control_is_coming: bool,
    /// Channels of calls that were abandoned before the control stream existed, each once.
    pub(super) cancel_later: Vec<ChannelId>,
    /// Time at which the ping was sent whose reply is due.
    pub(super) pinged_at: Option<Instant>,
    /// The server has sent a notice that it is going away.
    server_is_leaving: bool,
}

impl Connection {
    /// Handles the common case of a whole reply to a caller's request. Returns the call and the
    /// data.
    #[inline]
    pub(crate) fn take_whole_reply(&mut self, reply: &mut ReplyRef<'_>) -> Option<(CallId, Bytes)> {
        // Every other reply, and every mistake of the server, is left to `handle_reply`, which
        // makes all checks.
        if reply.status != FrameStatus::ReplyOnly
            || reply.body.len() > self.limits.get_max_message_bytes()
        {
            return None;
        }
        let channel = self.channels.get_mut(reply.channel)?;
        let oldest = channel.sent.oldest()?;
        match oldest.exchange {
            Exchange::Call(call)
                if channel.assembly.is_none()
                    && matches!(oldest.mode, Mode::Whole | Mode::Parts)
                    && channel.sent.oldest_path() == reply.path =>
            {
                channel.sent.pop();
                Some((call, std::mem::take(&mut reply.body)))
            }
            _ => None,
        }
    }

    /// Like [`handle_frame`](Self::handle_frame), but only for a client.
    pub(crate) fn handle_reply(&mut self, reply: ReplyRef<'_>) -> Result<(), ConnectionError> {
        if reply.status == FrameStatus::Close {
            return Err(ConnectionError::Ended);
        }
        Ok(self.on_reply_frame(reply)?)
    }

    fn on_reply_frame(&mut self, reply: ReplyRef<'_>) -> Result<(), ProtocolError> {
        let ReplyRef {
            status,
            path,
            channel: id,
            mut body,
        } = reply;
        self.check_head(FrameHead {
            status,
            channel: id,
        })?;
        let Some(channel) = self.channels.get_mut(id) else {
            return Err(ProtocolError::UnknownChannel(id));
        };
        let Some(&SentCall {
            exchange,
            mode,
            is_open,
            ..
        }) = channel.sent.oldest()
        else {
            return Err(ProtocolError::Unsolicited(id));
        };
        if exchange.path().is_none() {
            let bytes = FRAME_OVERHEAD + path.len() + body.len();
            let path = channel.sent.oldest_path();
            self.stats.received(path, bytes, status.ends());
        }
        if status.begins() {
            // Only the first frame is checked: further frames of a reply may have any path.
            let sent = exchange.path().map(str::as_bytes);
            check_reply_path(id, sent.unwrap_or_else(|| channel.sent.oldest_path()), path)?;
        }
        if exchange == Exchange::Control {
            return self.on_control_frame(id, status, body);
        }
        if status == FrameStatus::ReplyOnly {
            if is_open {
                let path = channel.sent.oldest_path();
                self.stats.sent(path, END_BYTES, true);
            }
            channel.sent.pop();
            // A stream may be replied to in one frame, with the mark of a reply or without a mark.
            // Any other mark would make it a frame of the stream, which cannot be the last one.
            if is_open && !Self::begins_reply(&mut body) {
                return Err(ProtocolError::BadStream(id));
            }
            // The request is ended here, because the event below frees the channel: the last frame
            // of this request must precede the next request.
            if is_open {
                self.end_stream_request(id, false);
            }
            let limit = match exchange {
                Exchange::Call(_) => self.limits.get_max_message_bytes(),
                // The limit only applies to the callers' messages.
                _ => self
                    .limits
                    .get_max_message_bytes()
                    .max(control::MAX_BODY_BYTES),
            };
            let size = body.len();
            let fits = if size > limit {
                Err(CallErrorKind::MessageTooLarge { size, limit })
            } else {
                Ok(body)
            };
            return self.on_reply(id, exchange, fits);
        }
        if status.begins() {
            let incoming = match (exchange, mode) {
                // Rule C4: the channel is free when this reply has ended; its data is skipped.
                (Exchange::Abandoned, _) => Incoming::Skip(Skip::Unwanted),
                (_, Mode::Parts) => Incoming::Parts,
                (_, Mode::Stream) => {
                    Incoming::Stream(IncomingStream::new(self.limits.get_stream_window()))
                }
                (_, Mode::Whole | Mode::OneWay) => Incoming::Collect,
            };
            channel.assembly = Some(Box::new(Assembly::new(incoming, Bytes::new())));
        }
        if self.takes_stream_frame(id, &mut body) {
            return match exchange {
                Exchange::Call(call) => {
                    self.on_stream_frame(id, StreamKey::Call(call), body, status.ends())
                }
                _ => Ok(()),
            };
        }
        self.on_reply_part(id, exchange, body, status.ends())
    }

    /// Handles a frame that the server sends on the control stream. That reply never ends.
    fn on_control_frame(
        &mut self,
        id: ChannelId,
        status: FrameStatus,
        mut body: Bytes,
    ) -> Result<(), ProtocolError> {
        // The request is still open, so its reply cannot be complete.
        if status.ends() {
            return Err(ProtocolError::Unsolicited(id));
        }
        if status.begins()
            && let Some(channel) = self.channels.get_mut(id)
        {
            let assembly = Assembly::new(Incoming::Control, Bytes::new());
            channel.assembly = Some(Box::new(assembly));
        }
        control::check_size(&body)?;
        while let Some(message) = ControlMessage::next(&mut body) {
            let is_notice = message == ControlMessage::GoingAway;
            if is_notice && !std::mem::replace(&mut self.client.server_is_leaving, true) {
                self.client.events.push_back(ClientEvent::GoingAway);
            }
        }
        Ok(())
    }

    /// Returns `true` if this is a frame of the stream on a channel. The first frame without a mark
    /// begins the reply.
    fn takes_stream_frame(&mut self, id: ChannelId, body: &mut Bytes) -> bool {
        let Some(assembly) = self
            .channels
            .get_mut(id)
            .and_then(|channel| channel.assembly.as_mut())
            .filter(|assembly| matches!(assembly.incoming, Incoming::Stream(_)))
        else {
            return false;
        };
        let is_reply = Self::begins_reply(body);
        if is_reply {
            assembly.incoming = Incoming::Collect;
        }
        !is_reply
    }

    fn on_reply_part(
        &mut self,
        id: ChannelId,
        exchange: Exchange,
        body: Bytes,
        ends: bool,
    ) -> Result<(), ProtocolError> {
        if let Some(failure) = self.exceeded_budget(id, body.len()) {
            if let Some(channel) = self.channels.get_mut(id) {
                Self::skip_incoming(&mut self.buffered, channel, Skip::Unwanted);
            }
            self.fail_front(id, exchange, failure);
        }
        let was_too_large = self.is_too_large(id);
        let complete = self.receive(id, &body, ends);
        let incoming = match (
            &complete,
            self.channels
                .get(id)
                .and_then(|channel| channel.assembly.as_ref()),
        ) {
            (Some(assembly), _) => assembly.incoming,
            (None, Some(assembly)) => assembly.incoming,
            (None, None) => return Ok(()),
        };
        if let (Incoming::Parts, Exchange::Call(call), false) = (incoming, exchange, ends) {
            self.client.events.push_back(ClientEvent::ReplyPart {
                call,
                body: body.clone(),
            });
        }
        let too_large = complete
            .as_ref()
            .map_or_else(|| self.is_too_large(id), |assembly| assembly.is_too_large());
        if too_large && !was_too_large {
            let limit = self.limits.get_max_message_bytes();
            // The reply may go on; all that is known of its size is that it exceeds the limit.
            let size = limit + 1;
            self.fail_front(id, exchange, CallErrorKind::MessageTooLarge { size, limit });
        }
        let Some(assembly) = complete else {
            return Ok(());
        };
        // The entry counts from here on, and not `exchange`: the call may have been abandoned
        // above, and has then got its error already.
        let Some(channel) = self.channels.get_mut(id) else {
            return Ok(());
        };
        if channel.sent.oldest().is_some_and(|call| call.is_open) {
            let path = channel.sent.oldest_path();
            self.stats.sent(path, END_BYTES, true);
        }
        let Some(call) = channel.sent.pop() else {
            return Ok(());
        };
        if call.is_open {
            self.end_stream_request(id, false);
        }
        // The last part completes the reply; the parts before it were events of their own.
        let body = if assembly.incoming == Incoming::Parts {
            body
        } else {
            assembly.data.freeze()
        };
        self.on_reply(id, call.exchange, Ok(body))
    }

    fn is_too_large(&self, id: ChannelId) -> bool {
        self.channels
            .get(id)
            .and_then(|channel| channel.assembly.as_ref())
            .is_some_and(|assembly| assembly.is_too_large())
    }

    /// Returns the error for an unfinished reply that would exceed the budget with `bytes` more.
    fn exceeded_budget(&self, id: ChannelId, bytes: usize) -> Option<CallErrorKind> {
        let assembly = self.channels.get(id)?.assembly.as_ref()?;
        match assembly.incoming {
            // Parts are counted when they are taken over by their call, and other data is not kept.
            Incoming::Collect => self.buffer_full(assembly.data.len(), bytes),
            _ => None,
        }
    }

    /// Fails the oldest call, whose reply exceeds a limit. Its place is kept until the reply has
    /// ended; the rest is skipped.
    fn fail_front(&mut self, id: ChannelId, exchange: Exchange, kind: CallErrorKind) {
        let Exchange::Call(call) = exchange else {
            return;
        };
        if let Some(call) = self
            .channels
            .get_mut(id)
            .and_then(|channel| channel.sent.iter_mut().next())
        {
            call.exchange = Exchange::Abandoned;
        }
        let result = Err(kind);
        self.client
            .events
            .push_back(ClientEvent::Reply { call, result });
    }

    /// Handles the complete reply to the oldest request of a channel.
    fn on_reply(
        &mut self,
        id: ChannelId,
        exchange: Exchange,
        result: Result<Bytes, CallErrorKind>,
    ) -> Result<(), ProtocolError> {
        match exchange {
            Exchange::Call(call) => self
                .client
                .events
                .push_back(ClientEvent::Reply { call, result }),
            Exchange::Abandoned => self
                .client
                .events
                .push_back(ClientEvent::Swallowed { channel: id }),
            Exchange::NewChannel | Exchange::NewControlChannel | Exchange::NewOneWayChannel => {
                let body = result.map_err(|_| ProtocolError::BadControl {
                    exchange: control::NEW_CHANNEL,
                })?;
                self.on_grant(&body, exchange)?;
            }
            Exchange::Hello => {
                self.round_trip.end(self.timers.batch());
                let hello = result.ok().as_deref().and_then(Hello::parse);
                if let Some(hello) = &hello {
                    self.on_hello(hello);
                    if hello.control {
                        self.client.control_is_coming = true;
                        self.request_channel(Exchange::NewControlChannel);
                    }
                }
                self.client
                    .events
                    .push_back(ClientEvent::PeerHello(hello.map(|hello| hello.text)));
            }
            // These only need a reply; its content does not matter.
            Exchange::Ping => self.round_trip.end(self.timers.batch()),
            Exchange::Control => {}
        }
        Ok(())
    }

    fn on_grant(&mut self, body: &[u8], exchange: Exchange) -> Result<(), ProtocolError> {
        let malformed = ProtocolError::BadControl {
            exchange: control::NEW_CHANNEL,
        };
        match control::parse_grant(body).ok_or_else(|| malformed.clone())? {
            // C2: an id is used once per grant; a server that grants one in use has lost count.
            Ok(id) if self.channels.get(id).is_some() => Err(malformed),
            Ok(id) => {
                self.channels.get_or_insert(id);
                match exchange {
                    Exchange::NewControlChannel => {
                        self.control = Some(id);
                        // The first frame opens the stream, and cancellations may only follow it.
                        self.push_sent(id, Exchange::Control, Mode::Whole);
                        let first = ControlMessage::nothing();
                        self.send(id, control::CONTROL.as_bytes(), first, true, false);
                        self.cancel_now();
                    }
                    Exchange::NewOneWayChannel => self.on_one_way_channel(id),
                    _ => self.client.events.push_back(ClientEvent::ChannelOpened(id)),
                }
                Ok(())
            }
            Err((code, message)) => {
                match exchange {
                    Exchange::NewChannel => self
                        .client
                        .events
                        .push_back(ClientEvent::ChannelRejected { code, message }),
                    // One-way calls are sent as ordinary calls in that case.
                    Exchange::NewOneWayChannel => {}
                    _ => {
                        // Without a control stream the server is not notified of cancelled calls.
                        self.client.control_is_coming = false;
                        self.client.cancel_later = Vec::new();
                    }
                }
                Ok(())
            }
        }
    }

    fn push_sent(&mut self, id: ChannelId, exchange: Exchange, mode: Mode) {
        // No caller needs to know when a request of the protocol itself was written.
        let call = SentCall::new(exchange, 0, mode);
        self.channels.get_or_insert(id).sent.push(call, &[]);
    }

    pub(super) fn request_channel(&mut self, exchange: Exchange) {
        self.push_sent(ChannelId::ZERO, exchange, Mode::Whole);
        let body = Bytes::from_static(control::EMPTY_OBJECT);
        self.send(
            ChannelId::ZERO,
            control::NEW_CHANNEL.as_bytes(),
            body,
            true,
            true,
        );
    }

    pub(crate) fn poll_client_event(&mut self) -> Option<ClientEvent> {
        self.client.events.pop_front()
    }

    // ---- commands

    /// Asks the server for its features. A Go server replies with code 102, and the connection
    /// continues as plain IIP.
    pub(crate) fn say_hello(&mut self) {
        self.round_trip.begin(self.timers.batch());
        self.push_sent(ChannelId::ZERO, Exchange::Hello, Mode::Whole);
        let body = Hello::body(&self.announce, &self.limits, false);
        self.send(ChannelId::ZERO, control::HELLO.as_bytes(), body, true, true);
    }

    /// Sends a ping while the server is silent and calls `wait` for replies. Returns the latest
    /// time at which this must be called again. Fails if the server stays silent after a ping.
    pub(crate) fn keep_alive(
        &mut self,
        now: Instant,
        wait: bool,
    ) -> Result<Option<Instant>, ConnectionError> {
        let heard_at = self.timers.last_read();
        // A connection without calls may be silent for any time.
        let waits = wait || self.has_sent_one_way_since(heard_at);
        if !waits || !self.peer_replies_to_pings {
            self.client.pinged_at = None;
            return Ok(None);
        }
        let interval = self.limits.get_keepalive_interval();
        let timeout = self.limits.get_keepalive_timeout();
        // Whatever is read after the ping shows that the server is alive, not only the reply to the
        // ping.
        if let Some(pinged_at) = self
            .client
            .pinged_at
            .filter(|&pinged_at| heard_at < pinged_at)
        {
            // A time that the clock cannot represent is never reached.
            let dead_at = pinged_at.checked_add(timeout);
            if dead_at.is_some_and(|dead_at| dead_at <= now) {
                return Err(ConnectionError::Timeout {
                    what: "a reply to a ping",
                    limit: timeout,
                    option: "keepalive_timeout",
                });
            }
            return Ok(dead_at);
        }
        self.client.pinged_at = None;
        // The silence begins with the request, and not when the connection became idle before it.
        let ping_at = self.timers.unheard_since().checked_add(interval);
        if ping_at.is_none_or(|ping_at| ping_at > now) {
            return Ok(ping_at);
        }
        self.push_sent(ChannelId::ZERO, Exchange::Ping, Mode::Whole);
        let body = Bytes::from_static(control::EMPTY_OBJECT);
        self.send(ChannelId::ZERO, control::PING.as_bytes(), body, true, true);
        self.client.pinged_at = Some(now);
        self.round_trip.begin(now);
        Ok(now.checked_add(timeout))
    }

    /// Requests a channel. Any number may be requested at a time (rule C1).
    pub(crate) fn open_channel(&mut self) {
        self.request_channel(Exchange::NewChannel);
    }

    /// Returns the largest request that this peer accepts. A Go server runs its handler once per
    /// frame, so it gets whole messages.
    pub(crate) fn max_request_bytes(&self) -> usize {
        let message = self.limits.get_max_message_bytes();
        if self.peer_knows_hello {
            message
        } else {
            message.min(MAX_FRAME_BYTES)
        }
    }

    /// Sends a request. The caller has checked path and body. Returns `true` if it is sent in one
    /// frame.
    #[inline]
    pub(crate) fn start_call(
        &mut self,
        id: ChannelId,
        path: &[u8],
        data: &mut impl Data,
        call: CallId,
        mode: Mode,
    ) -> bool {
        // The request of a stream stays open until the reply has arrived.
        let is_whole = mode != Mode::Stream;
        if !is_whole {
            let bytes = FRAME_OVERHEAD + path.len() + data.len();
            self.stats.sent(path, bytes, false);
        }
        let end = self.outbox.push(id, path, data, true, is_whole);
        let (in_one, end) = (is_whole && end.is_some(), end.unwrap_or(0));
        let exchange = match mode {
            // There is no channel for one-way calls, at least not yet, so the server replies, and
            // nobody waits for that.
            Mode::OneWay => Exchange::Abandoned,
            _ => Exchange::Call(call),
        };
        let call = SentCall::new(exchange, end, mode);
        self.channels.get_or_insert(id).sent.push(call, path);
        in_one
    }

    /// Abandons a call, whose caller has gone: its reply will be discarded. Notifies
    /// the server if it wants that. Returns `true` if nothing was sent yet and the channel is free
    /// at once.
    pub(crate) fn abandon(&mut self, id: ChannelId, call: CallId) -> bool {
        let Some(channel) = self.channels.get_mut(id) else {
            return false;
        };
        let alone = channel.sent.len() == 1;
        let mut calls = channel.sent.iter_mut().enumerate();
        let Some((index, sent)) = calls.find(|(_, sent)| sent.exchange == Exchange::Call(call))
        else {
            return false;
        };
        sent.exchange = Exchange::Abandoned;
        let was_open = std::mem::take(&mut sent.is_open);
        drop(calls);
        // The last frame of the request cancels the call, so no control message is needed. The
        // channel is free after the reply.
        if was_open {
            Self::skip_incoming(&mut self.buffered, channel, Skip::Unwanted);
            let path = channel.sent.oldest_path();
            self.stats.sent(path, END_BYTES, true);
            self.end_stream_request(id, true);
            return false;
        }
        // No frame of the request was sent, so there will be no reply.
        if alone && self.outbox.withdraw(id, &mut self.deferred) {
            channel.sent.pop();
            return true;
        }
        // The reply that is arriving, if there is one, belongs to the oldest call.
        if index == 0 {
            Self::skip_incoming(&mut self.buffered, channel, Skip::Unwanted);
        }
        // With several calls in flight on the channel, the server could not tell which one is
        // meant.
        if alone {
            self.cancel(id);
        }
        false
    }

    /// Notifies the server, if it wants that, that the one call on a channel is cancelled; at the
    /// latest once the control stream exists.
    fn cancel(&mut self, id: ChannelId) {
        match self.control {
            Some(control) => {
                let body = ControlMessage::Cancel(id).encode();
                self.send(control, control::CONTROL.as_bytes(), body, false, false);
            }
            // Calls may follow one another on a channel until the control stream exists, so their
            // number has no limit, and each channel is kept once.
            None if self.client.control_is_coming && !self.client.cancel_later.contains(&id) => {
                self.client.cancel_later.push(id);
            }
            None => {}
        }
    }

    /// Sends the cancellations of calls that were abandoned before the control stream existed.
    fn cancel_now(&mut self) {
        for id in std::mem::take(&mut self.client.cancel_later) {
            let sent = self.channels.get(id).map(|channel| &channel.sent);
            // The reply may have arrived in the meantime, and the channel may have another call,
            // also one without a caller from the beginning.
            let is_abandoned =
                |call: &SentCall| call.exchange == Exchange::Abandoned && call.mode != Mode::OneWay;
            let still =
                sent.is_some_and(|sent| sent.len() == 1 && sent.oldest().is_some_and(is_abandoned));
            if still {
                self.cancel(id);
            }
        }
    }

    /// Returns `true` if the server is notified of abandoned calls.
    pub(crate) fn tells_cancels(&self) -> bool {
        self.control.is_some() || self.client.control_is_coming
    }

    /// Returns `true` if the whole request of a call has been written, or if that is unknown.
    pub(crate) fn was_sent(&self, id: ChannelId, call: CallId) -> bool {
        let sent = self.channels.get(id).and_then(|channel| {
            let mut sent = channel.sent.iter();
            sent.find(|sent| sent.exchange == Exchange::Call(call))
        });
        // A long request has no position: some of its frames may have been written.
        sent.is_none_or(|sent| sent.end == 0 || self.has_written(sent.end))
    }

    /// Returns `true` if replies are due on this channel.
    pub(crate) fn awaits_reply(&self, id: ChannelId) -> bool {
        self.channels
            .get(id)
            .is_some_and(|channel| channel.sent.oldest().is_some())
    }

    /// Returns `true` if the peer replies to every call it started before it sends status 8, as a
    /// server that uses this library does.
    pub(crate) fn peer_replies_before_end(&self) -> bool {
        self.peer_knows_hello
    }
}

/// Checks that the first frame of a reply has the path of its request. Otherwise replies would be
/// assigned to the wrong requests after a surplus one, or after one that a Go server has dropped
/// (defect D8). A server may repeat the path field as it came, or its label.
fn check_reply_path(id: ChannelId, sent: &[u8], path: &[u8]) -> Result<(), ProtocolError> {
    if path == sent {
        return Ok(());
    }
    let label = label_and_query(sent).label;
    let label = match check_label(&label) {
        Ok(()) => &label[..],
        Err(_) => SAFE_LABEL,
    };
    if path == label {
        return Ok(());
    }
    let text = |path: &[u8]| {
        let text = String::from_utf8_lossy(path);
        text.chars().take(MAX_PATH_CHARS).collect()
    };
    Err(ProtocolError::WrongPath {
        channel: id,
        sent: text(sent),
        replied: text(path),
    })
}
