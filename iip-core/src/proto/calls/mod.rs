//! The calls of a client connection: their table, and the pool of channels they use.
//!
//! Each call has a slot from its start until its caller has taken the outcome or gone away. Every
//! call ends in [`CallTable::complete`], [`CallTable::fail`] or [`CallTable::abandon`].
//!
//! ```text
//!              a channel                 the reply,
//!             ┌─────────▶ Sent ────────────────────┐ or a failure
//!   start ────┤             ▲ a channel is free     ├──────▶ Done ──▶ Taken
//!             └─────────▶ Queued ──────────────────┘
//!
//!   lease ────▶ Queued ──▶ Leased
//! ```

mod end;
mod pool;
mod slot;
mod stall;

use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;

use self::pool::Lease;
pub(crate) use self::slot::Slot;
use self::slot::SlotState;
pub(crate) use self::stall::Retirement;
use self::stall::Stall;
use super::queue::Queue;
use super::slots::{CallId, Slots};
use super::stream_state::StreamState;
use super::{ClientEvent, Mode, StreamFrame};
use crate::body::{Body, Data};
use crate::error::{CallError, CallErrorKind};
use crate::frame::ChannelId;
use crate::proto;
use crate::stats::{MethodId, ReplyBatch};

/// The meaning of an event beyond the calls.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Data of this call's stream is still in the memory that it was read into.
    SharesBuffer(CallId),
    /// The server takes no further calls on this connection.
    GoingAway,
    /// The server's hello; `None` if it has none.
    PeerHello(Option<Bytes>),
}

/// The parameters of a call to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) now: Instant,
    pub(crate) deadline: Instant,
    /// The channel, if the caller has leased one.
    pub(crate) on: Option<ChannelId>,
    pub(crate) mode: Mode,
}

impl Start {
    /// A call on any channel.
    #[inline]
    pub(crate) fn new(mode: Mode, now: Instant, deadline: Instant) -> Self {
        Self {
            now,
            deadline,
            on: None,
            mode,
        }
    }
}

/// The calls of one client connection, and its channels.
#[derive(Debug)]
pub(crate) struct CallTable {
    slots: Slots<Slot>,
    queue: Queue,
    /// Number of calls in the queue whose callers have not gone.
    waiting: usize,
    /// Channels without a call. It is empty while calls wait.
    free: Vec<ChannelId>,
    /// Channels outside the pool: leased to an owner, or left by an owner while replies are
    /// outstanding.
    leased: Vec<Lease>,
    /// Number of channels in use or free; they are never returned to the server (rule C3).
    opened: usize,
    /// Number of requests for a channel that have no reply yet.
    opening: usize,
    /// The server has rejected a request for a channel.
    refused: bool,
    max_channels: usize,
    max_queued: usize,
    /// Number of calls that wait or were sent, and of leases that wait.
    in_flight: usize,
    /// No call expires before this time, and no check for free channels is due.
    next_deadline: Option<Instant>,
    stall: Stall,
    /// The replies of this batch, to be counted.
    pub(crate) replies: ReplyBatch,
    /// Bodies of calls that have failed in the queue, to be dropped after the lock is released.
    pub(crate) left: Vec<Body>,
}

impl CallTable {
    pub(crate) fn new(max_channels: usize, max_queued: usize) -> Self {
        Self {
            slots: Slots::new(),
            queue: Queue::default(),
            waiting: 0,
            free: Vec::new(),
            leased: Vec::new(),
            opened: 0,
            opening: 0,
            refused: false,
            max_channels,
            max_queued,
            in_flight: 0,
            next_deadline: None,
            stall: Stall::default(),
            replies: ReplyBatch::default(),
            left: Vec::new(),
        }
    }

    /// Returns the number of unanswered requests and of calls that wait.
    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns `true` if the server has replied the first request for a channel.
    pub(crate) fn is_ready(&self) -> bool {
        self.opened > 0 || self.refused
    }

    /// Releases the memory that is needed only during work.
    pub(crate) fn release_memory(&mut self) {
        self.slots.shrink();
        self.queue.release_when_empty();
        self.free.shrink_to_fit();
        self.replies.release_memory();
        self.leased.shrink_to_fit();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// Applies an event of the connection to the calls. Returns what it means beyond them. The
    /// events of a frame must be applied before the next frame is handled.
    pub(crate) fn handle_event(
        &mut self,
        proto: &mut proto::Connection,
        event: ClientEvent,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) -> Option<Notice> {
        match event {
            ClientEvent::Reply { call, result } => self.on_reply(proto, call, result, now, wakers),
            ClientEvent::Stream { call, frame } => {
                if self.on_stream_frame(proto, call, frame, wakers) {
                    return Some(Notice::SharesBuffer(call));
                }
            }
            ClientEvent::ReplyPart { call, body } => self.on_part(proto, call, body, now, wakers),
            ClientEvent::Swallowed { channel } => {
                self.on_channel_idle(proto, channel, now, wakers);
            }
            ClientEvent::ChannelOpened(channel) => {
                self.on_channel_opened(proto, channel, now, wakers);
                proto.deferred.notify_ready();
            }
            ClientEvent::ChannelRejected { code, message } => {
                self.on_channel_rejected(proto, code, &message, now, wakers);
                proto.deferred.notify_ready();
            }
            ClientEvent::GoingAway => return Some(Notice::GoingAway),
            ClientEvent::PeerHello(hello) => return Some(Notice::PeerHello(hello)),
        }
        None
    }

    /// Checks that every channel is in one place, and that the counters are those of the slots.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self, proto: &proto::Connection, opened: &[ChannelId]) {
        let waits = |slot: &Slot| matches!(slot.state, SlotState::Queued { .. });
        let sent = |slot: &Slot| matches!(slot.state, SlotState::Sent);
        let slots = || self.slots.iter().map(|(_, slot)| slot);
        let waiting = slots().filter(|slot| waits(slot)).count();
        assert_eq!(self.waiting, waiting, "calls that wait");
        let in_flight = slots().filter(|slot| waits(slot) || sent(slot)).count();
        assert_eq!(self.in_flight, in_flight, "calls in flight");
        assert_eq!(self.opened, opened.len(), "channels");
        for channel in opened {
            let free = self.free.iter().filter(|&free| free == channel).count();
            let leased = self.leased.iter().filter(|lease| lease.channel == *channel);
            let leased = leased.count();
            let busy = leased == 0 && proto.awaits_reply(*channel);
            assert_eq!(
                free + leased + usize::from(busy),
                1,
                "places of channel {channel}"
            );
        }
        assert!(
            self.waiting == 0 || self.free.is_empty(),
            "a free channel is not used"
        );
    }

    /// Gives a call its slot, and sends it or queues it until a channel is free. `waker` is that of
    /// a caller that awaits the call next.
    #[inline]
    pub(crate) fn start(
        &mut self,
        proto: &mut proto::Connection,
        path: &str,
        start: &Start,
        data: &mut impl Data,
        waker: Option<&Waker>,
    ) -> Result<CallId, CallError> {
        let (size, limit) = (data.len(), proto.max_request_bytes());
        // The bytes of a stream are not a message.
        if size > limit && start.mode != Mode::Stream {
            return Err(CallError::not_sent(CallErrorKind::MessageTooLarge {
                size,
                limit,
            }));
        }
        // Nothing may fail once a channel was taken, or the channel would be lost.
        check_time(start.now, start.deadline)?;
        let one_way = match start.mode {
            Mode::OneWay => proto.one_way_channel(),
            _ => None,
        };
        // While calls wait no channel is free, so a new call does not overtake them.
        let channel = one_way.or(start.on).or_else(|| self.free.pop());
        if channel.is_none() {
            self.check_queue(proto, start.now)?;
        }
        let method = proto.stats.called(path.as_bytes(), size);
        let call = self.take_slot(Some(method), start.now, start.deadline, waker);
        if start.mode == Mode::Stream {
            // The first byte is the mark and not part of the stream.
            self.add_flow(proto, call, size - 1, start.now);
        }
        match channel {
            Some(channel) => {
                let path = path.as_bytes();
                self.on_sent(call, channel, start.now);
                let in_one = if one_way.is_some() {
                    proto.send_one_way(channel, path, data, start.now)
                } else {
                    proto.start_call(channel, path, data, call, start.mode)
                };
                if !in_one {
                    proto.stats.not_sent(size);
                }
                if start.mode == Mode::OneWay {
                    self.complete_one_way(proto, call, &mut Vec::new());
                }
            }
            None => {
                let path = path.as_bytes();
                proto.stats.not_sent(size);
                let position = self.queue.push_call(call, path, data, start.mode);
                self.on_queued(proto, call, position, start.now);
            }
        }
        Ok(call)
    }

    /// Makes the call a stream whose first `sent` bytes are its beginning.
    fn add_flow(&mut self, proto: &proto::Connection, call: CallId, sent: usize, now: Instant) {
        // The caller has checked that the peer supports streams.
        let credit = proto.peer_stream_window().unwrap_or(0);
        let mut flow = StreamState::new(proto.limits().get_stream_window(), credit, now);
        flow.on_sent(sent);
        if let Some(slot) = self.slots.get_mut(call) {
            slot.flow = Some(Box::new(flow));
        }
    }

    /// Returns the stream of a call, and its channel once the call has been sent.
    pub(crate) fn flow(&mut self, call: CallId) -> Option<(&mut StreamState, Option<ChannelId>)> {
        let slot = self.slots.get_mut(call)?;
        if !matches!(slot.state, SlotState::Queued { .. } | SlotState::Sent) {
            return None;
        }
        let channel = matches!(slot.state, SlotState::Sent).then_some(slot.channel);
        slot.flow.as_deref_mut().map(|flow| (flow, channel))
    }

    /// Returns the stream of the current call in this slot.
    pub(crate) fn flow_of(&mut self, call: CallId) -> Option<&mut StreamState> {
        self.slots.get_mut(call)?.flow.as_deref_mut()
    }

    /// Handles a frame of a call's stream. Returns the same value as
    /// [`StreamState::on_stream_frame`].
    pub(crate) fn on_stream_frame(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        heard: StreamFrame,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(call) else {
            return false;
        };
        let Some(flow) = &mut slot.flow else {
            return false;
        };
        // At a client, the reader of a stream waits with the waker of the call, because it also
        // waits for the reply.
        if matches!(heard, StreamFrame::Data(_)) {
            wakers.extend(slot.waker.take());
        }
        let shares_buffer = flow.on_stream_frame(heard, wakers);
        // A window update may let the last data of a finished stream continue. Once the call has
        // ended, its channel may have another call.
        if matches!(slot.state, SlotState::Sent) {
            flow.send_ending(proto, slot.channel);
        }
        shares_buffer
    }

    /// Sets the deadline of the call, which applies from now on.
    pub(crate) fn set_deadline(&mut self, call: CallId, deadline: Instant) {
        if let Some(slot) = self.slots.get_mut(call) {
            slot.deadline = Some(deadline);
            if self.next_deadline.is_none_or(|next| next > deadline) {
                self.next_deadline = Some(deadline);
            }
        }
    }

    /// Takes a slot for a call that may be sent now or has to wait.
    #[inline]
    fn take_slot(
        &mut self,
        method: Option<MethodId>,
        now: Instant,
        deadline: Instant,
        waker: Option<&Waker>,
    ) -> CallId {
        self.in_flight += 1;
        if self.next_deadline.is_none_or(|next| next > deadline) {
            self.next_deadline = Some(deadline);
        }
        let (call, slot) = self.slots.take();
        // `on_queued` and `lease` change this state. Parts and stream of the slot's earlier call
        // were removed when the slot was released.
        slot.state = SlotState::Sent;
        slot.waker = waker.cloned();
        slot.deadline = Some(deadline);
        slot.started = Some(now);
        slot.sent_at = None;
        slot.method = method;
        call
    }

    #[inline]
    fn on_sent(&mut self, call: CallId, channel: ChannelId, now: Instant) {
        if let Some(slot) = self.slots.get_mut(call) {
            slot.state = SlotState::Sent;
            slot.channel = channel;
            slot.sent_at = Some(now);
        }
    }

    /// Continues the stream of a call that waited and was now sent.
    fn on_stream_sent(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        channel: ChannelId,
        wakers: &mut Vec<Waker>,
    ) {
        let slot = self.slots.get_mut(call);
        if let Some(flow) = slot.and_then(|slot| slot.flow.as_mut()) {
            // The caller may have finished its stream before the call had a channel.
            flow.send_ending(proto, channel);
            wakers.extend(flow.writer.take());
        }
    }

    /// Polls a slot. Returns the value found by `take`, or `None` with the waker stored. `take`
    /// also returns whether its value is the last one; the slot is then released.
    #[inline]
    pub(crate) fn poll_slot<T>(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        waker: &Waker,
        take: impl FnOnce(&mut proto::Connection, &mut Slot) -> Option<(T, bool)>,
    ) -> Option<(T, bool)> {
        let slot = self.slots.get_mut(call)?;
        let found = take(proto, slot);
        match &found {
            Some((_, true)) => drop(self.free_slot(proto, call)),
            Some((_, false)) => {}
            None => proto.deferred.keep_waker(&mut slot.waker, waker),
        }
        found
    }
}

/// Checks that the deadline of a call has not passed before it starts.
fn check_time(now: Instant, deadline: Instant) -> Result<(), CallError> {
    if deadline <= now {
        return Err(CallError::not_sent(CallErrorKind::Timeout));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::Value;
    use tokio::sync::Semaphore;

    use super::stall::STALLED_AFTER;
    use super::*;
    use crate::error::{ConnectionError, Execution};
    use crate::frame::{FrameStatus, ReplyRef, Side};
    use crate::limits::Limits;
    use crate::proto::control;

    /// Handles the reply to a request of the connection itself.
    fn reply(
        proto: &mut proto::Connection,
        calls: &mut CallTable,
        path: &str,
        body: Bytes,
        now: Instant,
    ) {
        let reply = ReplyRef {
            status: FrameStatus::ReplyOnly,
            path: path.as_bytes(),
            channel: ChannelId::ZERO,
            body,
        };
        proto.handle_reply(reply).expect("it was requested");
        while let Some(event) = proto.poll_client_event() {
            calls.handle_event(proto, event, now, &mut Vec::new());
        }
    }

    /// Creates a table with one channel, to a server that said hello.
    fn table(now: Instant) -> (proto::Connection, CallTable) {
        let mut proto = proto::Connection::new(Side::Client, Limits::default(), Value::Null, now);
        let mut calls = CallTable::new(1, 100);
        proto.say_hello();
        calls.open_first(&mut proto);
        let hello = Bytes::from_static(br#"{"iip":1,"code":0}"#);
        let grant = control::grant(ChannelId(1));
        for (path, body) in [(control::HELLO, hello), (control::NEW_CHANNEL, grant)] {
            reply(&mut proto, &mut calls, path, body, now);
        }
        let mut batch = VecDeque::new();
        proto.take_output(&mut batch);
        proto.on_written(now, batch.iter().map(Bytes::len).sum());
        (proto, calls)
    }

    fn start(now: Instant, deadline: Instant) -> Start {
        Start {
            now,
            deadline,
            on: None,
            mode: Mode::Whole,
        }
    }

    #[test]
    fn calls_that_run_out_together_do_not_hand_each_other_their_channel() {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(1);
        let (mut proto, mut calls) = table(now);
        let mut large = Body::from(vec![0; 2 << 20]);
        let start = start(now, deadline);
        let unsent = calls.start(&mut proto, "/a", &start, &mut large, None);
        let mut small = Body::from("x");
        let queued = calls.start(&mut proto, "/b", &start, &mut small, None);
        assert_eq!(calls.waiting, 1, "there is one channel");
        calls.expire(&mut proto, deadline, &mut Vec::new());
        for call in [unsent, queued] {
            let slot = calls.slots.get_mut(call.expect("both were begun"));
            let outcome = slot.and_then(Slot::take_outcome).expect("its time is over");
            assert_eq!(outcome.unwrap_err().execution(), Execution::NotSent);
        }
        assert!(!proto.awaits_reply(ChannelId(1)), "nothing was sent");
        assert!(!proto.has_output());
        assert_eq!(
            (calls.waiting, calls.in_flight, calls.free.len()),
            (0, 0, 1)
        );
    }

    #[test]
    fn a_client_uses_no_more_channels_than_its_server_accepts() {
        let now = Instant::now();
        let mut proto = proto::Connection::new(Side::Client, Limits::default(), Value::Null, now);
        let mut calls = CallTable::new(4, 100);
        proto.say_hello();
        calls.open_first(&mut proto);
        let start = start(now, now + Duration::from_secs(1));
        for _ in 0..3 {
            let call = calls.start(&mut proto, "/a", &start, &mut Body::from("x"), None);
            call.expect("it may wait");
        }
        // Requested before the server said how many it accepts.
        assert_eq!(calls.opening, 3);
        let hello = Bytes::from_static(br#"{"iip":1,"code":0,"channels":2}"#);
        let grants = (1..=3).map(|id| (control::NEW_CHANNEL, control::grant(ChannelId(id))));
        for (path, body) in std::iter::once((control::HELLO, hello)).chain(grants) {
            reply(&mut proto, &mut calls, path, body, now);
        }
        assert_eq!((calls.opened, calls.opening, calls.waiting), (2, 0, 1));
        let call = calls.start(&mut proto, "/a", &start, &mut Body::from("x"), None);
        call.expect("it may wait");
        assert_eq!(calls.opening, 0, "no further channel is requested");
    }

    #[test]
    fn a_call_without_time_takes_no_channel_along() {
        let now = Instant::now();
        let (mut proto, mut calls) = table(now);
        let late = calls.start(
            &mut proto,
            "/a",
            &start(now, now),
            &mut Body::from("x"),
            None,
        );
        assert!(late.is_err());
        assert!(calls.start_lease(&mut proto, now, now).is_err());
        assert_eq!(calls.free.len(), 1);
    }

    /// Creates a table of one channel with a call under way, and a call that waits for the channel.
    fn busy(
        now: Instant,
        age: Duration,
        places: usize,
    ) -> (proto::Connection, CallTable, [CallId; 2]) {
        let (mut proto, mut calls) = table(now);
        let places = Arc::new(Semaphore::new(places));
        calls.may_retire(Retirement { age, places }, now);
        let start = start(now, now + Duration::from_secs(600));
        let mut begin = |path| {
            let call = calls.start(&mut proto, path, &start, &mut Body::from("x"), None);
            call.expect("it has time")
        };
        let begun = [begin("/sent"), begin("/queued")];
        assert_eq!(calls.waiting, 1, "there is one channel");
        (proto, calls, begun)
    }

    fn is_retired_at(proto: &mut proto::Connection, calls: &mut CallTable, at: Instant) -> bool {
        calls.expire(proto, at, &mut Vec::new())
    }

    #[test]
    fn a_connection_is_retired_when_nobody_wants_the_answers_that_it_waits_for() {
        let now = Instant::now();
        let (mut proto, mut calls, [sent, queued]) = busy(now, Duration::ZERO, 1);
        calls.abandon(&mut proto, sent, || now);
        let at = now + STALLED_AFTER;
        let before = at - Duration::from_millis(1);
        assert!(!is_retired_at(&mut proto, &mut calls, before));
        assert!(is_retired_at(&mut proto, &mut calls, at));
        assert_eq!((calls.waiting, calls.in_flight), (0, 0));
        let queued = calls.slots.get_mut(queued).and_then(Slot::take_outcome);
        let error = queued.expect("it was told").unwrap_err();
        assert_eq!(error.execution(), Execution::NotSent);
        let CallErrorKind::ConnectionLost(ConnectionError::Stalled {
            abandoned: 1,
            channels: 1,
        }) = error.kind()
        else {
            panic!("{error:?}");
        };
        // Calls that are started after that do not wait.
        let start = start(at, at + STALLED_AFTER);
        let late = calls.start(&mut proto, "/late", &start, &mut Body::from("x"), None);
        assert_eq!(late.unwrap_err().execution(), Execution::NotSent);
        assert!(!is_retired_at(&mut proto, &mut calls, at + STALLED_AFTER));
    }

    #[test]
    fn a_connection_is_not_retired_while_its_callers_wait_for_their_answers() {
        let now = Instant::now();
        let (mut proto, mut calls, _) = busy(now, Duration::ZERO, 1);
        for turn in 1..10 {
            let at = now + turn * STALLED_AFTER;
            assert!(!is_retired_at(&mut proto, &mut calls, at), "{turn}");
        }
        assert_eq!(calls.in_flight, 2);
    }

    #[test]
    fn a_connection_is_retired_at_its_age_and_if_there_is_a_place_for_it() {
        let now = Instant::now();
        let age = 3 * STALLED_AFTER;
        let (mut proto, mut calls, [sent, _]) = busy(now, age, 1);
        calls.abandon(&mut proto, sent, || now);
        for turn in 1..=3 {
            let at = now + turn * STALLED_AFTER;
            let retired = is_retired_at(&mut proto, &mut calls, at);
            assert_eq!(retired, turn == 3, "{turn}");
        }
        let (mut proto, mut calls, [sent, _]) = busy(now, age, 0);
        calls.abandon(&mut proto, sent, || now);
        assert!(!is_retired_at(&mut proto, &mut calls, now + 2 * age));
    }
}
