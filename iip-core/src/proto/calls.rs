//! The calls of a client connection: their table, and the pool of channels they use.
//!
//! Each call has a slot from its start until its caller has taken the outcome or gone away. Every
//! call ends in [`CallTable::complete`], [`CallTable::fail`] or [`CallTable::abandon`].

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Body, Data};
use crate::clock;
use crate::error::{CallError, CallErrorKind, ConnectionError, Execution, Phases};
use crate::frame::ChannelId;
use crate::proto::parts::Parts;
use crate::proto::queue::{Queue, QueueEntry};
use crate::proto::slots::{CallId, Slots};
use crate::proto::stream_state::StreamState;
use crate::proto::{self, Mode, StreamFrame};

#[derive(Debug, Default)]
enum SlotState {
    /// The slot is not in use.
    #[default]
    Free,
    /// The call waits for a channel, at this position of the queue.
    Queued { position: u64 },
    /// The request was sent.
    Sent,
    /// The caller has leased a channel.
    Leased,
    /// The call has ended, and its caller has not taken the outcome.
    Done(Result<Bytes, CallError>),
    /// The caller has taken the outcome.
    Taken,
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: SlotState,
    waker: Option<Waker>,
    channel: ChannelId,
    deadline: Option<Instant>,
    started: Option<Instant>,
    sent_at: Option<Instant>,
    /// The parts of a reply that is taken in parts.
    parts: Option<Box<Parts>>,
    /// The stream state of a call with streams.
    flow: Option<Box<StreamState>>,
}

impl Slot {
    /// Takes the outcome, if it has arrived.
    #[inline]
    pub(crate) fn take_outcome(&mut self) -> Option<Result<Bytes, CallError>> {
        if !matches!(self.state, SlotState::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut self.state, SlotState::Taken) {
            SlotState::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Takes the next bytes of the call's stream.
    pub(crate) fn take_stream(&mut self, proto: &mut proto::Connection) -> Option<Bytes> {
        let alive = matches!(self.state, SlotState::Sent).then_some(self.channel);
        self.flow.as_mut()?.take_part(proto, alive, clock::now)
    }

    /// Takes the next part of a reply that is taken in parts.
    pub(crate) fn take_part(&mut self, proto: &mut proto::Connection) -> Option<Bytes> {
        let part = self.parts.as_mut()?.pop()?;
        proto.release(part.len());
        Some(part)
    }

    /// Returns the channel that was leased, if it is available.
    pub(crate) fn leased(&self) -> Option<ChannelId> {
        matches!(self.state, SlotState::Leased).then_some(self.channel)
    }
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

#[derive(Debug)]
struct Lease {
    channel: ChannelId,
    /// The owner has gone.
    returning: bool,
}

/// Number of calls given up from which a server that is not notified of it probably runs hardly
/// anything else: half of what it runs by default.
const MANY_ABANDONED: usize = 512;

/// Time without a free channel after which a connection may have stalled.
const STALLED_AFTER: Duration = Duration::from_millis(500);

/// The conditions under which a connection may be retired. It then takes no further calls, and ends
/// with the calls it has.
#[derive(Debug)]
pub(crate) struct Retirement {
    /// Minimum age of the connection.
    pub(crate) age: Duration,
    /// Permits of which retired connections hold one each until they have ended.
    pub(crate) places: Arc<Semaphore>,
}

/// The detector of connections on which most channels wait for replies to calls that were given up.
#[derive(Debug, Default)]
struct Stall {
    /// Time of the next check. A call waits for a channel, and none has become free since
    /// [`STALLED_AFTER`] before it.
    check_at: Option<Instant>,
    /// Time from which the connection may be retired, and the counter of retired connections;
    /// `None` for a server.
    may_retire: Option<(Instant, Arc<Semaphore>)>,
    /// The reason why the connection was retired, if it was.
    retired: Option<(ConnectionError, OwnedSemaphorePermit)>,
}

/// The calls of one client connection, and its channels.
#[derive(Debug)]
pub(crate) struct CallTable {
    slots: Slots<Slot>,
    queue: Queue,
    /// Number of calls in the queue whose callers have not gone.
    waiting: usize,
    free: Vec<ChannelId>,
    /// Channels outside the pool: leased to an owner, or left by an owner while replies are
    /// outstanding.
    leased: Vec<Lease>,
    opened: usize,
    opening: usize,
    refused: bool,
    max_channels: usize,
    max_queued: usize,
    in_flight: usize,
    /// No call expires before this time, and no check for free channels is due.
    next_deadline: Option<Instant>,
    stall: Stall,
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
            left: Vec::new(),
        }
    }

    /// Allows the connection, which exists since `now`, to be retired when its channels wait for
    /// replies that no caller needs and that do not arrive.
    pub(crate) fn may_retire(&mut self, retirement: Retirement, now: Instant) {
        let at = clock::after(now, retirement.age);
        self.stall.may_retire = Some((at, retirement.places));
    }

    /// Requests the first channel together with the hello.
    pub(crate) fn open_first(&mut self, proto: &mut proto::Connection) {
        self.opening += 1;
        proto.open_channel();
    }

    /// Returns the number of unanswered requests and of calls that wait.
    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns `true` if the server has answered the first request for a channel.
    pub(crate) fn is_ready(&self) -> bool {
        self.opened > 0 || self.refused
    }

    /// Releases the memory that is needed only during work.
    pub(crate) fn release_memory(&mut self) {
        self.slots.shrink();
        self.queue.release_when_empty();
        self.free.shrink_to_fit();
        self.leased.shrink_to_fit();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
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
        check_time(start.now, start.deadline)?;
        let one_way = match start.mode {
            Mode::OneWay => proto.one_way_channel(),
            _ => None,
        };
        let channel = one_way.or(start.on).or_else(|| self.free.pop());
        if channel.is_none() {
            self.check_queue(proto, start.now)?;
        }
        let call = self.take_slot(start.now, start.deadline, waker);
        if start.mode == Mode::Stream {
            // The first byte is the mark and not part of the stream.
            self.add_flow(proto, call, size - 1, start.now);
        }
        match channel {
            Some(channel) => {
                let path = path.as_bytes();
                self.on_sent(call, channel, start.now);
                if one_way.is_some() {
                    proto.send_one_way(channel, path, data, start.now);
                } else {
                    proto.start_call(channel, path, data, call, start.mode);
                }
                if start.mode == Mode::OneWay {
                    self.complete(call, Bytes::new(), &mut Vec::new());
                }
            }
            None => {
                let path = path.as_bytes();
                let position = self.queue.push_call(call, path, data, start.mode);
                self.on_queued(proto, call, position, start.now);
            }
        }
        Ok(call)
    }

    /// Makes the call a stream whose first `sent` bytes are its beginning.
    fn add_flow(&mut self, proto: &proto::Connection, call: CallId, sent: usize, now: Instant) {
        let credit = proto.peer_stream_window().unwrap_or(0);
        let mut flow = StreamState::new(proto.limits().window(), credit, now);
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

    /// Handles a frame of a call's stream. Returns the same value as [`StreamState::on_stream_frame`].
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
        if matches!(heard, StreamFrame::Data(_)) {
            wakers.extend(slot.waker.take());
        }
        let shares_buffer = flow.on_stream_frame(heard, wakers);
        if matches!(slot.state, SlotState::Sent) {
            flow.send_ending(proto, slot.channel);
        }
        shares_buffer
    }

    /// Cuts the caller's stream before its end, which also ends the call if it is still under way.
    pub(crate) fn cut_stream(&mut self, proto: &mut proto::Connection, call: CallId, now: Instant) {
        let Some((_, channel)) = self.flow(call) else {
            return;
        };
        let execution = match channel {
            Some(channel) => {
                proto.abandon(channel, call);
                Execution::MayHaveExecuted
            }
            None => Execution::NotSent,
        };
        let mut wakers = Vec::new();
        self.fail(call, CallErrorKind::Unfinished, execution, now, &mut wakers);
        proto.deferred.wake(wakers);
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

    /// Gives a slot to a caller that wants to lease a channel.
    pub(crate) fn start_lease(
        &mut self,
        proto: &mut proto::Connection,
        now: Instant,
        deadline: Instant,
    ) -> Result<CallId, CallError> {
        check_time(now, deadline)?;
        let channel = self.free.pop();
        if channel.is_none() {
            self.check_queue(proto, now)?;
        }
        let call = self.take_slot(now, deadline, None);
        match channel {
            Some(channel) => {
                self.lease(call, channel);
            }
            None => {
                let position = self.queue.push_lease(call);
                self.on_queued(proto, call, position, now);
            }
        }
        Ok(call)
    }

    /// Takes a slot for a call that may be sent now or has to wait.
    #[inline]
    fn take_slot(&mut self, now: Instant, deadline: Instant, waker: Option<&Waker>) -> CallId {
        self.in_flight += 1;
        if self.next_deadline.is_none_or(|next| next > deadline) {
            self.next_deadline = Some(deadline);
        }
        let (call, slot) = self.slots.take();
        slot.state = SlotState::Sent;
        slot.waker = waker.cloned();
        slot.deadline = Some(deadline);
        slot.started = Some(now);
        slot.sent_at = None;
        call
    }

    /// Checks that one more call may wait for a channel. Retires the connection if its server is
    /// not notified of cancelled calls, and therefore probably runs only calls that were given up.
    #[cold]
    fn check_queue(&mut self, proto: &proto::Connection, now: Instant) -> Result<(), CallError> {
        let sent = self.in_flight - self.waiting;
        let abandoned = self.opened.saturating_sub(self.free.len() + sent);
        if abandoned >= MANY_ABANDONED
            && !proto.tells_cancels()
            && let Some(error) = self.retire_stalled(now)
        {
            let kind = CallErrorKind::ConnectionLost(error);
            return Err(CallError::not_sent(kind));
        }
        if let Some((error, _)) = &self.stall.retired {
            return Err(CallError::not_sent(CallErrorKind::ConnectionLost(
                error.clone(),
            )));
        }
        if self.waiting >= self.max_queued {
            let limit = self.max_queued;
            return Err(CallError::not_sent(CallErrorKind::QueueFull { limit }));
        }
        Ok(())
    }

    /// Records that a caller waits for a channel, and requests one more if the limits allow it.
    fn on_queued(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        position: u64,
        now: Instant,
    ) {
        self.waiting += 1;
        if let Some(slot) = self.slots.get_mut(call) {
            slot.state = SlotState::Queued { position };
        }
        let slots = &self.slots;
        self.queue
            .sweep(self.waiting, |call| is_waiting(slots, call));
        if self.opening < self.waiting && self.opened + self.opening < self.max_channels {
            self.opening += 1;
            proto.open_channel();
        }
        self.watch_channels(now);
    }

    /// Schedules a check, while calls wait for a channel, whether one has become free or was
    /// opened.
    fn watch_channels(&mut self, now: Instant) {
        if self.waiting == 0 || self.stall.check_at.is_some() {
            return;
        }
        let check_at = now + STALLED_AFTER;
        self.stall.check_at = Some(check_at);
        if self.next_deadline.is_none_or(|next| next > check_at) {
            self.next_deadline = Some(check_at);
        }
    }

    /// Takes the call that has waited longest, and its request.
    fn next_waiting(&mut self) -> Option<(CallId, QueueEntry)> {
        while let Some((call, want)) = self.queue.pop() {
            if is_waiting(&self.slots, call) {
                return Some((call, want));
            }
        }
        None
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
            flow.send_ending(proto, channel);
            wakers.extend(flow.writer.take());
        }
    }

    /// Completes a lease: the caller has its channel.
    fn lease(&mut self, call: CallId, channel: ChannelId) -> Option<Waker> {
        let slot = self.slots.get_mut(call)?;
        slot.state = SlotState::Leased;
        slot.channel = channel;
        self.in_flight -= 1;
        self.leased.push(Lease {
            channel,
            returning: false,
        });
        slot.waker.take()
    }

    /// Gives a free channel to the call that has waited longest.
    #[inline]
    fn release(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        self.stall.check_at = None;
        match self.next_waiting() {
            None => self.free.push(channel),
            Some((call, want)) => {
                self.waiting -= 1;
                self.watch_channels(now);
                match want {
                    QueueEntry::Call {
                        path,
                        mut body,
                        mode,
                    } => {
                        self.on_sent(call, channel, now);
                        let is_large = Queue::is_large(&path, &body);
                        proto.start_call(channel, &path, &mut body, call, mode);
                        if is_large {
                            proto.deferred.drop_body(body);
                        }
                        if mode == Mode::OneWay {
                            self.complete(call, Bytes::new(), wakers);
                        }
                        self.on_stream_sent(proto, call, channel, wakers);
                    }
                    QueueEntry::Lease => wakers.extend(self.lease(call, channel)),
                }
            }
        }
    }

    pub(crate) fn on_channel_opened(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        self.opening = self.opening.saturating_sub(1);
        self.opened += 1;
        self.release(proto, channel, now, wakers);
    }

    pub(crate) fn on_channel_refused(&mut self, code: i64, message: &str, wakers: &mut Vec<Waker>) {
        self.opening = self.opening.saturating_sub(1);
        self.refused = true;
        // From now on the limit of the server applies on this side.
        self.max_channels = self.opened.max(1);
        if self.opened + self.opening == 0 {
            while let Some((call, _)) = self.next_waiting() {
                let kind = CallErrorKind::ChannelRefused {
                    code,
                    message: message.to_owned(),
                };
                self.fail(call, kind, Execution::NotSent, clock::now(), wakers);
            }
            self.max_channels = 1;
        }
    }

    pub(crate) fn on_reply(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        result: Result<Bytes, CallErrorKind>,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get(call) else {
            return;
        };
        let channel = slot.channel;
        let skipped = result.is_err();
        match result {
            Ok(body) => self.complete(call, body, wakers),
            Err(kind) => self.fail(call, kind, Execution::MayHaveExecuted, now, wakers),
        }
        // The rest of a reply that is too large is still to come; the channel is free after it.
        if !(skipped && proto.awaits_reply(channel)) {
            self.on_channel_idle(proto, channel, now, wakers);
        }
    }

    /// Returns `channel` to the pool after the end of a reply, unless it is leased.
    #[inline]
    pub(crate) fn on_channel_idle(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        if let Some(index) = self
            .leased
            .iter()
            .position(|lease| lease.channel == channel)
        {
            if !self.leased[index].returning || proto.awaits_reply(channel) {
                return;
            }
            self.leased.swap_remove(index);
        }
        self.release(proto, channel, now, wakers);
    }

    pub(crate) fn on_part(
        &mut self,
        proto: &mut proto::Connection,
        call: CallId,
        body: Bytes,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get_mut(call) else {
            return;
        };
        let parts = slot.parts.get_or_insert_default();
        let (held, more) = (parts.bytes(), body.len());
        let (size, limit) = (held + more, proto.limits().message_bytes());
        let kind = if size > limit {
            CallErrorKind::MessageTooLarge { size, limit }
        } else if let Some(kind) = proto.buffer_full(held, more) {
            kind
        } else {
            parts.push(body);
            proto.hold(more);
            wakers.extend(slot.waker.take());
            return;
        };
        // The parts that have arrived before may still be taken.
        let channel = slot.channel;
        proto.abandon(channel, call);
        self.fail(call, kind, Execution::MayHaveExecuted, now, wakers);
    }

    /// Completes a call. All calls that succeed end here.
    #[inline]
    pub(crate) fn complete(&mut self, call: CallId, body: Bytes, wakers: &mut Vec<Waker>) {
        if let Some(slot) = self.slots.get_mut(call)
            && matches!(slot.state, SlotState::Sent)
        {
            slot.state = SlotState::Done(Ok(body));
            self.in_flight -= 1;
            if let Some(waker) = slot.waker.take() {
                wakers.push(waker);
            }
            if let Some(flow) = &mut slot.flow {
                flow.on_call_ended(wakers);
            }
        }
    }

    /// Fails a call. All calls that fail end here.
    fn fail(
        &mut self,
        call: CallId,
        kind: CallErrorKind,
        execution: Execution,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get_mut(call) else {
            return;
        };
        match slot.state {
            SlotState::Queued { position } => {
                self.waiting -= 1;
                self.left.extend(self.queue.abandon(position));
            }
            SlotState::Sent => {}
            _ => return,
        }
        self.in_flight -= 1;
        let sent = slot.sent_at.unwrap_or(now);
        let mut phases = Phases {
            wait_for_channel: sent.saturating_duration_since(slot.started.unwrap_or(sent)),
            ..Phases::default()
        };
        match execution {
            Execution::NotSent => phases.write = now.saturating_duration_since(sent),
            _ => phases.answer = now.saturating_duration_since(sent),
        }
        slot.state = SlotState::Done(Err(CallError::new(kind, execution, phases)));
        wakers.extend(slot.waker.take());
        if let Some(flow) = &mut slot.flow {
            flow.on_call_ended(wakers);
        }
    }

    /// Ends the calls whose deadline has passed. Returns `true` if the connection is retired from
    /// now on.
    #[inline]
    pub(crate) fn expire(
        &mut self,
        proto: &mut proto::Connection,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        if self.next_deadline.is_none_or(|next| next > now) {
            return false;
        }
        self.expire_now(proto, now, wakers);
        self.check_stall(now, wakers)
    }

    /// Retires the connection if no channel has become free for a while and most of them wait for
    /// replies that no caller needs. Calls that wait for a channel are not sent.
    #[cold]
    fn check_stall(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> bool {
        if self.stall.check_at.is_some_and(|at| at <= now) {
            self.stall.check_at = None;
            if let Some(error) = self.retire_stalled(now) {
                while let Some((call, _)) = self.next_waiting() {
                    let kind = CallErrorKind::ConnectionLost(error.clone());
                    self.fail(call, kind, Execution::NotSent, now, wakers);
                }
                return true;
            }
            self.watch_channels(now);
        }
        if let Some(at) = self.stall.check_at {
            self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
        }
        false
    }

    /// Retires the connection if most channels wait for replies that no caller needs. Returns the
    /// reason.
    fn retire_stalled(&mut self, now: Instant) -> Option<ConnectionError> {
        let (abandoned, channels) = (self.abandoned_channels(), self.opened);
        let (at, places) = self.stall.may_retire.as_ref()?;
        if *at > now || 2 * abandoned <= channels {
            return None;
        }
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        let error = ConnectionError::Stalled {
            abandoned,
            channels,
        };
        self.stall.retired = Some((error.clone(), place));
        self.stall.may_retire = None;
        Some(error)
    }

    /// Returns `true` if the connection was retired because its channels did not become free.
    pub(crate) fn is_retired(&self) -> bool {
        self.stall.retired.is_some()
    }

    /// Returns the number of channels that wait for a reply without a caller.
    fn abandoned_channels(&self) -> usize {
        let leased = self.leased.iter().filter(|lease| !lease.returning);
        let mut wanted: HashSet<ChannelId> = leased.map(|lease| lease.channel).collect();
        let slots = self.slots.iter().map(|(_, slot)| slot);
        let sent = slots.filter(|slot| matches!(slot.state, SlotState::Sent));
        wanted.extend(sent.map(|slot| slot.channel));
        self.opened.saturating_sub(wanted.len() + self.free.len())
    }

    #[cold]
    fn expire_now(&mut self, proto: &mut proto::Connection, now: Instant, wakers: &mut Vec<Waker>) {
        let mut next = None;
        let mut expired = Vec::new();
        for (call, slot) in self.slots.iter() {
            let sent = matches!(slot.state, SlotState::Sent);
            let waits = matches!(slot.state, SlotState::Queued { .. });
            let Some(deadline) = slot.deadline.filter(|_| sent || waits) else {
                continue;
            };
            if deadline <= now {
                expired.push((call, sent, slot.channel));
            } else {
                next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            }
        }
        self.next_deadline = next;
        // Waiting calls fail first: a channel that becomes free must not be given to a call whose
        // deadline has passed.
        expired.sort_by_key(|&(_, sent, _)| sent);
        for (call, sent, channel) in expired {
            let withdrawn = sent && proto.abandon(channel, call);
            let sent = sent && !withdrawn;
            if withdrawn {
                self.on_channel_idle(proto, channel, now, wakers);
            }
            let execution = if sent {
                Execution::MayHaveExecuted
            } else {
                Execution::NotSent
            };
            self.fail(call, CallErrorKind::Timeout, execution, now, wakers);
        }
    }

    /// Ends all calls of a connection that is gone.
    pub(crate) fn fail_all(
        &mut self,
        proto: &proto::Connection,
        error: &ConnectionError,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let promised = matches!(error, ConnectionError::Ended) && proto.peer_answers_before_end();
        let execution = |(call, slot): (CallId, &Slot)| match slot.state {
            SlotState::Sent if !proto.was_sent(slot.channel, call) => (call, Execution::NotSent),
            SlotState::Sent if promised => (call, Execution::NotExecuted),
            SlotState::Sent => (call, Execution::MayHaveExecuted),
            _ => (call, Execution::NotSent),
        };
        let calls: Vec<(CallId, Execution)> = self.slots.iter().map(execution).collect();
        for (call, execution) in calls {
            let kind = CallErrorKind::ConnectionLost(error.clone());
            self.fail(call, kind, execution, now, wakers);
        }
        self.queue.clear();
        self.stall = Stall::default();
    }

    /// Ends a call whose caller has gone.
    pub(crate) fn abandon(&mut self, proto: &mut proto::Connection, call: CallId) {
        let Some(slot) = self.slots.get_mut(call) else {
            return;
        };
        let channel = slot.channel;
        match self.free_slot(proto, call) {
            SlotState::Queued { position } => {
                self.in_flight -= 1;
                self.waiting -= 1;
                self.left.extend(self.queue.abandon(position));
            }
            SlotState::Sent => {
                self.in_flight -= 1;
                if proto.abandon(channel, call) {
                    self.release_now(proto, channel);
                }
            }
            SlotState::Leased => self.return_lease(proto, channel),
            SlotState::Free | SlotState::Done(_) | SlotState::Taken => {}
        }
    }

    /// Releases a slot and returns the state it had.
    #[inline]
    fn free_slot(&mut self, proto: &mut proto::Connection, call: CallId) -> SlotState {
        let Some(slot) = self.slots.get_mut(call) else {
            return SlotState::Free;
        };
        let state = std::mem::take(&mut slot.state);
        if let waker @ Some(_) = slot.waker.take() {
            proto.deferred.drop_waker(waker);
        }
        if let Some(parts) = slot.parts.take() {
            proto.release(parts.bytes());
        }
        if let Some(mut flow) = slot.flow.take() {
            flow.release(proto, Some(slot.channel));
            flow.end(&mut proto.deferred);
        }
        if !matches!(state, SlotState::Free) {
            self.slots.give_back(call);
        }
        state
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

    /// Returns a leased channel whose owner has gone.
    pub(crate) fn return_lease(&mut self, proto: &mut proto::Connection, channel: ChannelId) {
        if let Some(lease) = self
            .leased
            .iter_mut()
            .find(|lease| lease.channel == channel)
        {
            lease.returning = true;
            self.release_now(proto, channel);
        }
    }

    fn release_now(&mut self, proto: &mut proto::Connection, channel: ChannelId) {
        let mut wakers = Vec::new();
        self.on_channel_idle(proto, channel, clock::now(), &mut wakers);
        proto.deferred.wake(wakers);
    }
}

/// Checks that the deadline of a call has not passed before it starts.
fn check_time(now: Instant, deadline: Instant) -> Result<(), CallError> {
    if deadline <= now {
        return Err(CallError::not_sent(CallErrorKind::Timeout));
    }
    Ok(())
}

/// Returns `true` if the call still waits for a channel. Its caller may have gone, and its slot may
/// belong to another call.
fn is_waiting(slots: &Slots<Slot>, call: CallId) -> bool {
    let slot = slots.get(call);
    slot.is_some_and(|slot| matches!(slot.state, SlotState::Queued { .. }))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::body::Body;
    use crate::frame::{FrameStatus, ReplyRef, Side};
    use crate::limits::Limits;
    use crate::proto::{ClientEvent, control};

    /// Creates a table with one channel, to a server that said hello.
    fn table(now: Instant) -> (proto::Connection, CallTable) {
        let mut proto = proto::Connection::new(Side::Client, Limits::default(), Value::Null, now);
        let mut calls = CallTable::new(1, 100);
        proto.say_hello();
        calls.open_first(&mut proto);
        let hello = Bytes::from_static(br#"{"iip":1,"code":0}"#);
        for (path, body) in [
            (control::HELLO, hello),
            (control::NEW_CHANNEL, control::grant(ChannelId(1))),
        ] {
            let answer = ReplyRef {
                status: FrameStatus::ReplyOnly,
                path: path.as_bytes(),
                channel: ChannelId::ZERO,
                body,
            };
            proto
                .handle_reply(answer)
                .expect("an answer that was asked for");
        }
        while let Some(event) = proto.poll_client_event() {
            if let ClientEvent::ChannelOpened(channel) = event {
                calls.on_channel_opened(&mut proto, channel, now, &mut Vec::new());
            }
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
        calls.abandon(&mut proto, sent);
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
        calls.abandon(&mut proto, sent);
        for turn in 1..=3 {
            let at = now + turn * STALLED_AFTER;
            let retired = is_retired_at(&mut proto, &mut calls, at);
            assert_eq!(retired, turn == 3, "{turn}");
        }
        let (mut proto, mut calls, [sent, _]) = busy(now, age, 0);
        calls.abandon(&mut proto, sent);
        assert!(!is_retired_at(&mut proto, &mut calls, now + 2 * age));
    }
}
