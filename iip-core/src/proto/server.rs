//! The server side of the machine: each request gets one reply, in order per channel. Pure.
//!
//! Requests are handled in `requests.rs`, their turns and replies in `turns.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::control::{self, ControlMessage};
use super::event::ServerEvent;
use super::request_path::RequestPath;
use super::timers::Rate;
use super::{Connection, FORGET_AT_LEAST};
use crate::frame::ChannelId;
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
    pub(super) last_path: Arc<RequestPath>,
    /// Number of requests that were shown to handlers and have no reply yet.
    pub(super) open_calls: usize,
    /// Number of those whose request is still arriving.
    pub(super) streamed: usize,
    /// Number of channels in the table above which those at rest are forgotten.
    pub(super) forget_at: usize,
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
    pub(super) last_grants: (ChannelId, Instant),
    /// The counts by channel, if they are kept.
    pub(super) frames: Option<Box<FrameCounts>>,
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

    /// Forgets the channels at rest once there are many channels.
    #[cold]
    pub(super) fn forget_channels(&mut self) {
        self.channels.retain(|channel| !channel.is_at_rest());
        // The threshold is twice what is left, so that the cost of a frame is constant on average.
        let least = self.limits.get_max_channels().min(FORGET_AT_LEAST);
        self.server.forget_at = self.channels.len().saturating_mul(2).max(least);
    }

    /// Returns the number of channels with a call or a message. Forgets those at rest if there are
    /// many.
    pub(super) fn channels_in_use(&mut self) -> usize {
        // Channels at rest are in the table only because they were not forgotten yet.
        if self.channels.len() >= self.limits.get_max_channels() {
            self.channels.retain(|channel| !channel.is_at_rest());
        }
        // One-way calls have limits of their own.
        let others = usize::from(self.control.is_some()) + usize::from(self.receives_one_way());
        let granted = self.channels.len() - self.channels.one_way();
        granted.saturating_sub(others)
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
}
