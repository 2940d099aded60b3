//! The client's calls: their table, the pool of channels they run on, and the futures callers wait on.
//!
//! Each call has a slot from its start until its caller has taken the outcome or gone away. All ways out of a call lead
//! through [`CallTable::complete`], [`CallTable::fail`] or [`CallTable::abandon`].

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::clock;
use crate::connection::{Connection, Shared};
use crate::error::{CallError, CallErrorKind, ConnectionError, Execution, Phases};
use crate::frame::ChannelId;
use crate::proto;
use crate::slots::Slots;

/// What a caller wants from a connection.
#[derive(Debug)]
pub(crate) enum Work {
    /// One exchange.
    Call { body: Body, streaming: bool },
    /// A channel of its own, for many exchanges in order.
    Lease,
}

#[derive(Debug, Default)]
enum SlotState {
    /// The slot is nobody's.
    #[default]
    Free,
    /// Waits for a channel.
    Queued,
    /// The request is on its way.
    Sent,
    Leased,
    Done(Result<Bytes, CallError>),
}

#[derive(Debug, Default)]
struct Slot {
    state: SlotState,
    /// Tells it from those that had this place before.
    serial: u64,
    waker: Option<Waker>,
    channel: ChannelId,
    deadline: Option<Instant>,
    started: Option<Instant>,
    sent_at: Option<Instant>,
    /// Of an answer that is taken in parts.
    parts: Option<Box<Parts>>,
}

/// Parts that arrived and were not taken, and their bytes.
#[derive(Debug, Default)]
struct Parts {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

/// What starts a call.
pub(crate) struct Start<'a> {
    pub(crate) path: &'a str,
    pub(crate) work: Work,
    pub(crate) now: Instant,
    pub(crate) deadline: Instant,
    /// The channel, if the caller has one of its own.
    pub(crate) on: Option<ChannelId>,
    /// Of a caller who awaits the call next.
    pub(crate) waker: Option<&'a Waker>,
}

#[derive(Debug)]
struct Queued {
    token: usize,
    serial: u64,
    path: Bytes,
    work: Work,
}

impl Queued {
    /// Does the call still want a channel? Its caller may have gone, and its slot be another's.
    fn is_waiting(&self, slots: &Slots<Slot>) -> bool {
        let slot = slots
            .get(self.token)
            .filter(|slot| slot.serial == self.serial);
        slot.is_some_and(|slot| matches!(slot.state, SlotState::Queued))
    }
}

#[derive(Debug)]
struct Lease {
    channel: ChannelId,
    /// The owner has gone.
    returning: bool,
}

/// The calls of one client connection, and its channels.
#[derive(Debug)]
pub(crate) struct CallTable {
    slots: Slots<Slot>,
    queue: VecDeque<Queued>,
    free: Vec<ChannelId>,
    /// Channels outside the pool: their owner has them, or has gone while answers are due.
    leased: Vec<Lease>,
    opened: usize,
    opening: usize,
    refused: bool,
    serial: u64,
    max_channels: usize,
    max_queued: usize,
    in_flight: usize,
    /// No call runs out before this.
    next_deadline: Option<Instant>,
}

impl CallTable {
    pub(crate) fn new(max_channels: usize, max_queued: usize) -> Self {
        Self {
            slots: Slots::new(),
            queue: VecDeque::new(),
            free: Vec::new(),
            leased: Vec::new(),
            opened: 0,
            opening: 0,
            refused: false,
            serial: 0,
            max_channels,
            max_queued,
            in_flight: 0,
            next_deadline: None,
        }
    }

    /// Asks for the first channel together with the hello.
    pub(crate) fn open_first(&mut self, proto: &mut proto::Connection) {
        self.opening += 1;
        proto.open_channel();
    }

    /// Requests sent and unanswered, plus those that wait.
    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Has the server answered the first request for a channel?
    pub(crate) fn is_ready(&self) -> bool {
        self.opened > 0 || self.refused
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// Gives a call its slot, and sends it or queues it until a channel is free.
    pub(crate) fn start(
        &mut self,
        proto: &mut proto::Connection,
        start: Start<'_>,
    ) -> Result<usize, CallError> {
        let Start {
            path,
            work,
            now,
            deadline,
            on,
            waker,
        } = start;
        if let Work::Call { body, .. } = &work {
            let (size, limit) = (body.len(), proto.max_request_bytes());
            if size > limit {
                return Err(CallError::not_sent(CallErrorKind::MessageTooLarge {
                    size,
                    limit,
                }));
            }
        }
        if deadline <= now {
            return Err(CallError::not_sent(CallErrorKind::Timeout));
        }
        let channel = on.or_else(|| self.free.pop());
        if channel.is_none() && self.queue.len() >= self.max_queued {
            let slots = &self.slots;
            self.queue.retain(|queued| queued.is_waiting(slots));
            if self.queue.len() >= self.max_queued {
                let limit = self.max_queued;
                return Err(CallError::not_sent(CallErrorKind::QueueFull { limit }));
            }
        }
        self.serial += 1;
        let serial = self.serial;
        self.in_flight += 1;
        self.next_deadline = Some(
            self.next_deadline
                .map_or(deadline, |next| next.min(deadline)),
        );
        let (token, slot) = self.slots.take();
        slot.state = SlotState::Queued;
        slot.serial = serial;
        slot.waker = waker.cloned();
        slot.deadline = Some(deadline);
        slot.started = Some(now);
        slot.sent_at = None;
        match channel {
            Some(channel) => {
                self.send(proto, token, path.as_bytes(), work, channel, now);
            }
            None => {
                let path = Bytes::copy_from_slice(path.as_bytes());
                self.queue.push_back(Queued {
                    token,
                    serial,
                    path,
                    work,
                });
                if self.opening < self.queue.len() && self.opened + self.opening < self.max_channels
                {
                    self.opening += 1;
                    proto.open_channel();
                }
            }
        }
        Ok(token)
    }

    /// Puts work on a channel. A lease ends here: the caller has what it wants.
    #[inline]
    fn send(
        &mut self,
        proto: &mut proto::Connection,
        token: usize,
        path: &[u8],
        work: Work,
        channel: ChannelId,
        now: Instant,
    ) -> Option<Waker> {
        let slot = self.slots.get_mut(token)?;
        slot.channel = channel;
        slot.sent_at = Some(now);
        match work {
            Work::Call { body, streaming } => {
                slot.state = SlotState::Sent;
                proto.start_call(channel, path, body, token, streaming);
                None
            }
            Work::Lease => {
                slot.state = SlotState::Leased;
                self.in_flight -= 1;
                let waker = slot.waker.take();
                self.leased.push(Lease {
                    channel,
                    returning: false,
                });
                waker
            }
        }
    }

    /// A channel is free: the call that waits longest gets it.
    #[inline]
    fn release(
        &mut self,
        proto: &mut proto::Connection,
        channel: ChannelId,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        while let Some(queued) = self.queue.pop_front() {
            if queued.is_waiting(&self.slots) {
                let Queued {
                    token, path, work, ..
                } = queued;
                wakers.extend(self.send(proto, token, &path, work, channel, now));
                return;
            }
        }
        self.free.push(channel);
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
        // The server's limit is ours from now on.
        self.max_channels = self.opened.max(1);
        if self.opened + self.opening == 0 {
            while let Some(queued) = self.queue.pop_front() {
                if queued.is_waiting(&self.slots) {
                    let kind = CallErrorKind::ChannelRefused {
                        code,
                        message: message.to_owned(),
                    };
                    self.fail(queued.token, kind, Execution::NotSent, clock::now(), wakers);
                }
            }
            self.max_channels = 1;
        }
    }

    pub(crate) fn on_reply(
        &mut self,
        proto: &mut proto::Connection,
        token: usize,
        result: Result<Bytes, CallErrorKind>,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get(token) else {
            return;
        };
        let channel = slot.channel;
        let skipped = result.is_err();
        match result {
            Ok(body) => self.complete(token, body, wakers),
            Err(kind) => self.fail(token, kind, Execution::MayHaveExecuted, now, wakers),
        }
        // Of an answer that is too large the rest is still to come; the channel is free after it.
        if !(skipped && proto.awaits_reply(channel)) {
            self.on_channel_idle(proto, channel, now, wakers);
        }
    }

    /// An answer has ended on `channel`: it goes back to the pool, unless someone leased it.
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
        token: usize,
        body: Bytes,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        let parts = slot.parts.get_or_insert_default();
        parts.bytes += body.len();
        parts.queue.push_back(body);
        wakers.extend(slot.waker.take());
        let (size, limit, channel) = (parts.bytes, proto.limits().message_bytes(), slot.channel);
        if size > limit {
            proto.abandon(channel, token);
            let kind = CallErrorKind::MessageTooLarge { size, limit };
            self.fail(token, kind, Execution::MayHaveExecuted, now, wakers);
        }
    }

    /// The one place where a call succeeds.
    #[inline]
    pub(crate) fn complete(&mut self, token: usize, body: Bytes, wakers: &mut Vec<Waker>) {
        if let Some(slot) = self.slots.get_mut(token)
            && matches!(slot.state, SlotState::Sent)
        {
            slot.state = SlotState::Done(Ok(body));
            self.in_flight -= 1;
            wakers.extend(slot.waker.take());
        }
    }

    /// The one place where a call fails.
    fn fail(
        &mut self,
        token: usize,
        kind: CallErrorKind,
        execution: Execution,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        if !matches!(slot.state, SlotState::Queued | SlotState::Sent) {
            return;
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
    }

    /// Ends the calls whose time is over.
    pub(crate) fn expire(
        &mut self,
        proto: &mut proto::Connection,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        if self.next_deadline.is_none_or(|next| next > now) {
            return;
        }
        let mut next = None;
        let mut expired = Vec::new();
        for token in 0..self.slots.len() {
            let Some(slot) = self.slots.get(token) else {
                break;
            };
            let sent = matches!(slot.state, SlotState::Sent);
            let Some(deadline) = slot
                .deadline
                .filter(|_| sent || matches!(slot.state, SlotState::Queued))
            else {
                continue;
            };
            if deadline <= now {
                expired.push((token, sent, slot.channel));
            } else {
                next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            }
        }
        self.next_deadline = next;
        for (token, sent, channel) in expired {
            let withdrawn = sent && proto.abandon(channel, token);
            let sent = sent && !withdrawn;
            if withdrawn {
                self.on_channel_idle(proto, channel, now, wakers);
            }
            let execution = if sent {
                Execution::MayHaveExecuted
            } else {
                Execution::NotSent
            };
            self.fail(token, CallErrorKind::Timeout, execution, now, wakers);
        }
    }

    /// Ends every call: the connection is gone.
    pub(crate) fn fail_all(
        &mut self,
        proto: &proto::Connection,
        error: &ConnectionError,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) {
        let promised = matches!(error, ConnectionError::Ended) && proto.peer_answers_before_end();
        for token in 0..self.slots.len() {
            let Some(channel) = self.slots.get(token).map(|slot| slot.channel) else {
                break;
            };
            let execution = match self.slots.get(token).map(|slot| &slot.state) {
                Some(SlotState::Sent) if proto.was_sent(channel, token) => {
                    if promised {
                        Execution::NotExecuted
                    } else {
                        Execution::MayHaveExecuted
                    }
                }
                _ => Execution::NotSent,
            };
            let kind = CallErrorKind::ConnectionLost(error.clone());
            self.fail(token, kind, execution, now, wakers);
        }
        self.queue.clear();
    }

    /// The caller has gone.
    fn abandon(&mut self, proto: &mut proto::Connection, token: usize) {
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        let channel = slot.channel;
        match self.free_slot(token) {
            SlotState::Queued => self.in_flight -= 1,
            SlotState::Sent => {
                self.in_flight -= 1;
                if proto.abandon(channel, token) {
                    self.release_now(proto, channel);
                }
            }
            SlotState::Leased => self.return_lease(proto, channel),
            SlotState::Free | SlotState::Done(_) => {}
        }
    }

    /// Gives a slot back and returns the state it had.
    #[inline]
    fn free_slot(&mut self, token: usize) -> SlotState {
        let Some(slot) = self.slots.get_mut(token) else {
            return SlotState::Free;
        };
        let state = std::mem::take(&mut slot.state);
        slot.waker = None;
        slot.parts = None;
        if !matches!(state, SlotState::Free) {
            self.slots.give_back(token);
        }
        state
    }

    /// The owner of a leased channel has gone.
    fn return_lease(&mut self, proto: &mut proto::Connection, channel: ChannelId) {
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
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A call under way, see [`Connection::call`]. Dropping it cancels the call.
pub struct Call {
    shared: Arc<Shared>,
    /// Its slot, until the outcome was taken.
    token: Option<usize>,
    /// It failed before it had a slot.
    failed: Option<CallError>,
    connect: Duration,
    /// The waker was given when the call was started, in this very poll.
    registered: bool,
}

impl Call {
    #[inline]
    pub(crate) fn new(
        shared: Arc<Shared>,
        token: Result<usize, CallError>,
        registered: bool,
    ) -> Self {
        let (token, failed) = match token {
            Ok(token) => (Some(token), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            registered: registered && token.is_some(),
            shared,
            token,
            failed,
            connect: Duration::ZERO,
        }
    }

    /// Adds the time spent before the call had a connection.
    #[inline]
    pub(crate) fn after_connecting(mut self, time: Duration) -> Self {
        self.connect = time;
        self
    }

    #[cold]
    fn explain(&self, error: CallError) -> CallError {
        let phases = Phases {
            connect: self.connect,
            ..error.phases()
        };
        error.with_phases(phases)
    }

    /// Looks at the slot: `Ready` with what `take` found, or `Pending` with the waker kept. `take` says whether that was
    /// the last thing to find.
    #[inline]
    fn poll_slot<T>(
        &mut self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut Slot) -> Option<(T, bool)>,
    ) -> Poll<Result<T, CallError>> {
        let Some(token) = self.token else {
            let error = self.failed.take();
            let error = error.unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed));
            return Poll::Ready(Err(self.explain(error)));
        };
        let mut state = self.shared.lock();
        let Some(slot) = state.calls.slots.get_mut(token) else {
            return Poll::Ready(Err(CallError::not_sent(CallErrorKind::Closed)));
        };
        if let Some((value, last)) = take(slot) {
            if last {
                state.calls.free_slot(token);
                drop(state);
                self.token = None;
            }
            return Poll::Ready(Ok(value));
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Slot {
    /// The outcome, if it is there.
    #[inline]
    fn take_outcome(&mut self) -> Option<Result<Bytes, CallError>> {
        if !matches!(self.state, SlotState::Done(_)) {
            return None;
        }
        // The state stays one of a slot in use: whoever took the outcome frees it.
        match std::mem::replace(&mut self.state, SlotState::Leased) {
            SlotState::Done(result) => Some(result),
            _ => None,
        }
    }
}

impl Future for Call {
    type Output = Result<Bytes, CallError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.registered) {
            return Poll::Pending;
        }
        match self.poll_slot(cx, |slot| {
            slot.take_outcome().map(|outcome| (outcome, true))
        }) {
            Poll::Ready(Ok(Ok(body))) => Poll::Ready(Ok(body)),
            Poll::Ready(Ok(Err(error)) | Err(error)) => Poll::Ready(Err(self.explain(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.shared
                .command(|state| state.calls.abandon(&mut state.proto, token));
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// The parts of a streamed answer, in order. Dropping it cancels the call.
///
/// Parts that are not taken are held in memory, up to the option `max_message_bytes` of [`Limits`](crate::Limits).
#[derive(Debug)]
pub struct ReplyParts {
    call: Call,
    ended: bool,
}

impl ReplyParts {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, ended: false }
    }

    /// The next part; `None` after the last.
    ///
    /// Parts follow the frames of the answer; how a message is cut into frames is up to the sender.
    ///
    /// # Errors
    ///
    /// As [`Connection::call`]; nothing follows an error.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; no part is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        if self.ended {
            return None;
        }
        let next = std::future::poll_fn(|cx| {
            self.call.poll_slot(cx, |slot| {
                if let Some(parts) = &mut slot.parts
                    && let Some(part) = parts.queue.pop_front()
                {
                    parts.bytes -= part.len();
                    return Some(((Ok(part), false), false));
                }
                slot.take_outcome().map(|outcome| ((outcome, true), true))
            })
        });
        let (part, last) = match next.await {
            Ok(next) => next,
            Err(error) => (Err(error), true),
        };
        self.ended = last;
        Some(part.map_err(|error| self.call.explain(error)))
    }
}

/// A channel of one's own: requests sent on it are answered in their order.
///
/// The server handles one of them at a time. Dropping it gives the channel back to the connection's pool once every
/// answer has arrived.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = iip_core::Client::connect("127.0.0.1:9000").await?;
/// let channel = client.open_channel().await?;
/// let (first, second) = (channel.request("/echo", "one"), channel.request("/echo", "two"));
/// assert_eq!(&first.await?[..], b"one");
/// assert_eq!(&second.await?[..], b"two");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Channel {
    connection: Connection,
    id: ChannelId,
    timeout: Duration,
}

impl Channel {
    /// Waits for a channel on this connection.
    pub(crate) async fn lease(
        connection: Connection,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        let mut call = connection.start(Start {
            path: "",
            work: Work::Lease,
            now: clock::now(),
            deadline,
            on: None,
            waker: None,
        });
        let id = std::future::poll_fn(|cx| {
            call.poll_slot(cx, |slot| match slot.state {
                SlotState::Leased => Some((Ok(slot.channel), true)),
                _ => slot.take_outcome().map(|outcome| (Err(outcome), true)),
            })
        })
        .await?;
        match id {
            Ok(id) => Ok(Self {
                connection,
                id,
                timeout,
            }),
            Err(result) => Err(result
                .err()
                .unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed))),
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Sends a request behind those sent before; many may be under way. The time limit is the client's `call_timeout`.
    ///
    /// The request is queued when this function is called, not when the future is polled.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the answer; the order of the others stays.
    pub fn request(&self, path: &str, body: impl Into<Body>) -> Call {
        let now = clock::now();
        let work = Work::Call {
            body: body.into(),
            streaming: false,
        };
        self.connection.start(Start {
            path,
            work,
            now,
            deadline: clock::after(now, self.timeout),
            on: Some(self.id),
            waker: None,
        })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection
            .shared
            .command(|state| state.calls.return_lease(&mut state.proto, self.id));
    }
}
