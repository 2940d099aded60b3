//! The task that owns a connection's socket, for both sides.
//!
//! One turn: write what has gathered, read once, decode every complete frame, let the machine judge
//! them, hand out what came of it. Between two turns the driver parks its waker in
//! [`State::driver`]; whoever gives it work wakes it.
//!
//! **Gathering**: with more than one call in flight the driver steps behind the tasks that it has
//! just woken, or that are about to run, before it writes, so that one write carries many frames.
//! It is the largest lever of all on calls per second; see docs/performance.md.

mod dispatch;

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::body::Body;
use crate::clock;
use crate::connection::{Closing, Shared, State};
use crate::decoder::{Decoder, Partial};
use crate::error::{ConnectionError, ProtocolError};
use crate::frame::{ChannelId, Side};
use crate::logs::Causes;
use crate::proto::{self, Event};
use crate::serve::Dispatcher;
use crate::totals::FREE_BYTES;

/// Segments handed to one vectored write.
const MAX_SLICES: usize = 64;

/// A connection at rest keeps its buffers for so long: the next call often comes soon.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

/// So many reads, each soon after the one before, make a connection busy. A connection that is
/// opened for a few calls gives its buffers back at once: ten thousand of them that are opened
/// together would otherwise hold theirs at the same time.
const BUSY_READS: u32 = 16;

/// Reads in a row before other tasks get a turn.
const MAX_READS: usize = 16;

/// How long one poll of a connection may take before other tasks get a turn, and how many handlers
/// run between two looks at the clock.
const SLICE: Duration = Duration::from_micros(500);
const HANDLERS_PER_LOOK: usize = 8;

/// Frames looked at before other tasks get a turn.
const MAX_FRAMES: usize = 1024;

/// What is read ahead of a peer that is held back, so that its going away is noticed.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Callers woken at a time. A worker's queue of tokio holds 256 tasks; what is pushed beyond goes
/// to a queue shared by all workers, from which the unlucky ones come back milliseconds later.
const MAX_WAKEUPS: usize = 64;

/// Streams are looked through for parts in the read buffer when so many may have some, or had some:
/// most of them have been taken long ago.
const MAX_SHARING: usize = 1024;

/// The task of one connection; ends when the connection has.
pub(crate) struct Driver<S> {
    socket: S,
    decoder: Decoder,
    shared: Arc<Shared>,
    /// Server: runs the handlers. A client has none.
    dispatcher: Option<Dispatcher>,
    /// Taken from the machine, not yet written.
    batch: VecDeque<Bytes>,
    /// The decoder may hold complete frames that were not looked at: their callers are woken after
    /// those before them have run.
    more: bool,
    events: VecDeque<Event>,
    answers: Vec<(ChannelId, Body)>,
    /// Answers of more bytes than this are handed in before further handlers run.
    most_unsent: usize,
    wakers: Vec<Waker>,
    /// Fires at or before the next time limit; moved only to fire earlier.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that were written since the machine was last told.
    written: usize,
    /// Client: the connection takes no more; what it has brought is still being read.
    write_error: Option<ConnectionError>,
    /// Written bytes may not have left the stream's own buffer.
    unflushed: bool,
    /// Bytes were read since the timers were last told.
    has_read: bool,
    /// Reads that came soon one after the other. After a few of them more will come, and the
    /// buffers are worth keeping for a while.
    reads: u32,
    /// The memory that only work needs was given back.
    released: bool,
    /// When this poll began, as far as the clock was looked at; that it has taken its time.
    slice_ends_at: Option<Instant>,
    slice_is_over: bool,
    /// Server: the driver waits for other connections to hold less.
    asked: Option<u64>,
    /// The driver has let others run first and may write.
    yielded_to_batch: bool,
    /// The driver has let the readers of streams run, and may make a new buffer.
    yielded_to_readers: bool,
    /// Since when the connection has taken nothing of the batch, as far as was looked.
    write_stalled_since: Option<Instant>,
    progress: Duration,
    /// Status 8 is queued; when everything is written the connection ends.
    close_queued: bool,
    /// What is written last says why the connection ends: the peer gets a moment to read it.
    tells_end: bool,
    /// The peer sends nothing more.
    read_closed: bool,
    /// The connection has ended; the socket is being shut down.
    shutting_down: bool,
    /// Server: when the connection is to be drained for its age, and when it is ended then.
    ends: Option<(Instant, Instant)>,
    /// Server: called when the peer has sent its first bytes.
    on_first_read: Option<Box<dyn FnOnce() + Send>>,
}

enum Turn {
    /// Something moved: go on.
    Again,
    /// Nothing can move: sleep.
    Park,
    /// Others run first.
    Yield,
}

/// What a turn may do.
struct Plan {
    wants_read: bool,
    /// For answers.
    has_room: bool,
    /// Requests wait for their handlers.
    has_events: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(
        socket: S,
        side: Side,
        shared: Arc<Shared>,
        dispatcher: Option<Dispatcher>,
    ) -> Self {
        let limits = shared.lock().proto.limits().clone();
        Self {
            socket,
            decoder: Decoder::new(side, &limits),
            shared,
            dispatcher,
            batch: VecDeque::new(),
            more: false,
            events: VecDeque::new(),
            answers: Vec::new(),
            most_unsent: limits.unsent_bytes(),
            wakers: Vec::new(),
            timer: None,
            written: 0,
            write_error: None,
            unflushed: false,
            has_read: false,
            reads: 0,
            released: false,
            slice_ends_at: None,
            slice_is_over: false,
            asked: None,
            yielded_to_batch: false,
            yielded_to_readers: false,
            write_stalled_since: None,
            progress: limits.progress(),
            close_queued: false,
            tells_end: false,
            read_closed: false,
            shutting_down: false,
            ends: None,
            on_first_read: None,
        }
    }

    /// Server: calls `told` when the peer has sent its first bytes.
    pub(crate) fn on_first_read(mut self, told: impl FnOnce() + Send + 'static) -> Self {
        self.on_first_read = Some(Box::new(told));
        self
    }

    /// Server: drains the connection at the first time, and ends it at the second.
    pub(crate) fn with_end(mut self, ends: Option<(Instant, Instant)>) -> Self {
        self.ends = ends;
        self
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        let mut reads = 0;
        self.slice_ends_at = None;
        self.slice_is_over = false;
        loop {
            let turn = match self.turn(cx, &mut reads) {
                Ok(Turn::Again) if !self.slice_is_over => Ok(Turn::Again),
                Ok(Turn::Again | Turn::Yield) => self.check_progress().map(|()| Turn::Yield),
                turn => turn,
            };
            match turn {
                Ok(Turn::Again) => {}
                Ok(Turn::Park) => return Poll::Pending,
                Ok(Turn::Yield) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(error) => {
                    let error = match (error, self.write_error.take()) {
                        (ConnectionError::Ended, _) => ConnectionError::Ended,
                        (_, Some(error)) => error,
                        (error, None) => error,
                    };
                    let left = is_silent(&error) && self.shared.lock().leaving;
                    return Poll::Ready(if left {
                        ConnectionError::WentAway
                    } else {
                        error
                    });
                }
            }
        }
    }

    /// Looks whether this poll has taken its time.
    fn look_at_slice(&mut self, now: Instant) {
        let ends_at = *self.slice_ends_at.get_or_insert(now + SLICE);
        self.slice_is_over |= now >= ends_at;
    }

    fn turn(&mut self, cx: &mut Context<'_>, reads: &mut usize) -> Result<Turn, ConnectionError> {
        let Some(plan) = self.plan()? else {
            return Ok(Turn::Yield);
        };
        let wrote = match self.write_batch(cx) {
            Ok(wrote) => wrote,
            // A server says why it closes, and may have answered: what it has sent is read first.
            Err(error) if self.dispatcher.is_none() => {
                self.write_error = Some(error.into());
                false
            }
            Err(error) => return Err(error.into()),
        };
        if wrote && !(plan.wants_read && plan.has_room) {
            // What held the connection back may be gone.
            return Ok(Turn::Again);
        }
        // Behind status 8 nothing may run: the peer takes what is unanswered for not executed.
        let wants_read = plan.wants_read && !self.close_queued;
        if plan.has_events && plan.has_room {
            // What the last turn left, or an answer from elsewhere has brought up.
            self.take_events();
            self.run_handlers(cx, clock::now(), true);
            self.wake_all();
            return Ok(Turn::Again);
        }
        if self.more && wants_read {
            let woke = self.dispatch(cx, clock::now())?;
            return Ok(self.after_frames(woke, reads));
        }
        let may_read = wants_read || self.decoder.len() < READ_AHEAD_BYTES;
        let polls_read = may_read && !self.read_closed && !self.close_queued && *reads < MAX_READS;
        if polls_read && self.decoder.is_used_up() && !self.yield_to_readers() {
            return Ok(Turn::Yield);
        }
        if polls_read {
            // Keeps nothing between polls, so it may be made anew each time.
            let reading = std::pin::pin!(self.socket.read_buf(self.decoder.read_buf()));
            if let Poll::Ready(result) = reading.poll(cx) {
                *reads += 1;
                if result? > 0 {
                    let woke = self.on_read(cx)?;
                    return Ok(self.after_frames(woke, reads));
                }
                self.on_eof()?;
                return Ok(self.after_frames(false, reads));
            }
        }
        if let Some(error) = self.write_error.take() {
            return Err(error);
        }
        self.park(cx, polls_read)
    }

    /// Before there is another buffer to read into, the readers of streams take what they were
    /// woken for, so that this one serves again; for those that did not, it is copied. `false` if
    /// they should run first.
    fn yield_to_readers(&mut self) -> bool {
        let mut state = self.shared.lock();
        let had_turn =
            std::mem::take(&mut self.yielded_to_readers) || state.sharing_streams.is_empty();
        if had_turn {
            state.copy_out_shared();
        }
        self.yielded_to_readers = !had_turn;
        had_turn
    }

    /// Looks at the connection once for the whole turn, and takes what is to be written. `None` if
    /// others should run first.
    fn plan(&mut self) -> Result<Option<Plan>, ConnectionError> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        // A peer that never stops sending must not keep it from ending.
        if state.closing == Some(Closing::Force) {
            if self.dispatcher.is_some() && !self.close_queued {
                self.tells_end = true;
                if state.proto.open_calls() == 0 {
                    // Nothing is unanswered: force is for those who were not asked in time.
                    self.close_queued = true;
                    state.proto.close();
                } else {
                    // Callers of what is cut are told why.
                    state.proto.send_going_away();
                }
            }
            return Err(ConnectionError::ClosedLocally);
        }
        if self.written > 0 {
            on_written(state, std::mem::take(&mut self.written), clock::now());
        }
        if let Some(share) = &self.shared.share {
            // What is read beyond the usual is a frame of that size.
            let reading = self.decoder.len();
            let reading = if reading > FREE_BYTES { reading } else { 0 };
            let held = state.proto.memory() + reading;
            self.wakers.append(&mut share.tell(&mut state.told, held));
            let allowance = share.allowance().saturating_sub(reading);
            state.proto.set_allowance(allowance);
        }
        state.grant_withheld();
        if self.batch.is_empty() {
            state.driver = None;
            if !self.yielded_to_batch && state.proto.has_output() && should_batch(state) {
                self.yielded_to_batch = true;
                return Ok(None);
            }
            state.proto.take_output(&mut self.batch);
        }
        self.yielded_to_batch = false;
        if state.sharing_streams.len() >= MAX_SHARING {
            state.copy_out_shared();
        }
        Ok(Some(Plan {
            wants_read: state.proto.wants_read(),
            has_room: self.dispatcher.is_none() || state.proto.has_room(),
            has_events: state.proto.has_events() || !self.events.is_empty(),
        }))
    }

    /// Decides, after frames were handled, whether this task continues or yields.
    fn after_frames(&self, woke: bool, reads: &mut usize) -> Turn {
        if self.more {
            // Many small frames weigh as much as a read.
            *reads += 1;
        }
        if woke || *reads >= MAX_READS {
            Turn::Yield
        } else {
            Turn::Again
        }
    }

    /// Writes as much of the batch as the socket takes. `true` if that was something.
    fn write_batch(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.write_error.is_some() {
            self.batch.clear();
            return Ok(false);
        }
        let before = self.written;
        while !self.batch.is_empty() {
            let socket = Pin::new(&mut self.socket);
            let attempt = if self.batch.len() == 1 {
                // A plain write is cheaper than a vectored one.
                socket.poll_write(cx, &self.batch[0])
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let pairs = self.batch.iter().zip(&mut slices);
                let count = pairs
                    .map(|(bytes, slice)| *slice = IoSlice::new(bytes))
                    .count();
                socket.poll_write_vectored(cx, &slices[..count])
            };
            let written = match attempt {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            };
            self.written += written;
            let mut left = written;
            while let Some(front) = self.batch.front_mut() {
                if left < front.len() {
                    front.advance(left);
                    break;
                }
                left -= front.len();
                self.batch.pop_front();
            }
        }
        // Of a TLS stream the end may still be in its buffer.
        let wrote = self.written > before;
        self.released &= !wrote;
        if wrote || self.batch.is_empty() {
            self.write_stalled_since = None;
        }
        self.unflushed |= wrote;
        if self.unflushed {
            self.unflushed = Pin::new(&mut self.socket).poll_flush(cx)?.is_pending();
        }
        Ok(wrote)
    }

    /// A peer that never stops sending never lets the driver park, where the time limits are looked
    /// at. Whether it also reads is looked at here.
    fn check_progress(&mut self) -> Result<(), ConnectionError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        let since = *self.write_stalled_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.progress {
            return Err(proto::not_read(self.progress));
        }
        Ok(())
    }

    /// Takes what was read. `true` if callers were woken and should run before the next write.
    fn on_read(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        self.decoder.on_read();
        if let Some(told) = self.on_first_read.take() {
            told();
        }
        self.released = false;
        self.more = true;
        self.has_read = true;
        self.dispatch(cx, clock::now())
    }

    /// The peer sends nothing more. A server still answers what was asked (defect D22); a client
    /// tells its callers.
    fn on_eof(&mut self) -> Result<(), ConnectionError> {
        self.read_closed = true;
        let unfinished = self.shared.lock().proto.has_unfinished_message();
        if (self.decoder.partial() != Partial::Nothing && !self.more) || unfinished {
            return Err(ConnectionError::Truncated);
        }
        // A peer of ours never closes half of a connection: it has gone.
        let gone = self.dispatcher.is_none() || self.shared.peer.hello().is_some();
        if gone || (!self.more && self.shared.lock().proto.is_at_rest()) {
            return Err(ConnectionError::ClosedByPeer);
        }
        Ok(())
    }

    /// Nothing moves: check limits and the end, then sleep until something does.
    fn park(&mut self, cx: &mut Context<'_>, polled_read: bool) -> Result<Turn, ConnectionError> {
        let now = clock::now();
        let partial = self.decoder.partial();
        let shared = Arc::clone(&self.shared);
        let mut guard = shared.lock();
        let state = &mut *guard;
        if self.written > 0 {
            on_written(state, std::mem::take(&mut self.written), now);
        }
        shared.expire(state, now, &mut self.wakers);
        if polled_read {
            state.proto.timers().on_read_idle(now);
        }
        let output = !self.batch.is_empty() || state.proto.has_output();
        state.proto.on_parked(now, output);
        let wake_at = state.proto.poll_timeout(partial);
        if wake_at.is_some_and(|at| at <= now)
            && let Err(error) = state.proto.handle_timeout(now, partial)
        {
            // An idle connection is ended in good manners.
            if !matches!(
                error,
                ConnectionError::Timeout {
                    option: "idle_timeout",
                    ..
                }
            ) || self.close_queued
            {
                return Err(error);
            }
            state.closing = state.closing.max(Some(Closing::Drain));
        }
        let alive_at = match self.dispatcher {
            Some(_) => {
                let life_at = state.proto.send_keepalive(now);
                self.check_age(state, now).into_iter().chain(life_at).min()
            }
            None => {
                let waits = state.calls.in_flight() > 0;
                state.proto.keep_alive(now, waits)?
            }
        };
        let unread_at = state.check_unread(now, &mut self.wakers);
        let at_rest = state.proto.is_at_rest() && self.batch.is_empty() && !self.unflushed;
        match state.closing {
            // The next turn ends it.
            Some(Closing::Force) => return Ok(Turn::Again),
            Some(Closing::Drain)
                if state.proto.open_calls() == 0 && state.calls.in_flight() == 0 =>
            {
                if !self.close_queued {
                    self.close_queued = true;
                    state.proto.close();
                    return Ok(Turn::Again);
                }
                // A message that was begun is not waited for.
                if !state.proto.has_output() && self.batch.is_empty() && !self.unflushed {
                    return Err(ConnectionError::ClosedLocally);
                }
            }
            // The open calls have their time; further ones should go elsewhere.
            Some(Closing::Drain) if self.dispatcher.is_some() => state.proto.send_going_away(),
            _ => {}
        }
        if self.read_closed && at_rest && !self.more {
            return Err(ConnectionError::ClosedByPeer);
        }
        // Reading may have become welcome since this turn looked.
        let wants_read = state.proto.wants_read() && !self.close_queued;
        let events =
            state.proto.has_room() && (state.proto.has_events() || !self.events.is_empty());
        let may_read = wants_read && (self.more || (!self.read_closed && !polled_read)) || events;
        if !self.wakers.is_empty()
            || may_read
            || (self.batch.is_empty() && state.proto.has_output())
        {
            drop(guard);
            self.wakers.drain(..).for_each(Waker::wake);
            return Ok(Turn::Again);
        }
        let mut wake_at = earliest(wake_at, state.calls.next_deadline());
        wake_at = earliest(wake_at, unread_at);
        wake_at = earliest(wake_at, alive_at);
        let quiet = state.proto.is_quiet()
            && self.batch.is_empty()
            && self.events.is_empty()
            && !self.unflushed;
        if quiet && !self.released {
            // Calls that last, such as streams of rare messages, keep a connection's buffers no
            // more than its rest does.
            let keeps = self.reads >= BUSY_READS || !at_rest || state.calls.in_flight() > 0;
            let release_at = state.proto.timers().last_moved() + RELEASE_AFTER;
            if keeps && now < release_at {
                wake_at = earliest(wake_at, Some(release_at));
            } else {
                self.release_memory(state);
            }
        }
        if let Some(share) = &self.shared.share
            && state.proto.is_confined()
            && (state.proto.is_over_budget() || state.proto.is_unread())
        {
            share.wait(&mut self.asked, cx.waker());
        }
        state.driver = Some(cx.waker().clone());
        drop(guard);
        Ok(if self.poll_timer(cx, wake_at, now) {
            Turn::Again
        } else {
            Turn::Park
        })
    }

    /// Gives memory back that only work needs.
    fn release_memory(&mut self, state: &mut State) {
        self.released = true;
        state.copy_out_shared();
        state.sharing_streams = Vec::new();
        state.write_waiters.shrink_to_fit();
        state.running.shrink_to_fit();
        state.calls.release_memory();
        state.proto.release_memory();
        self.decoder.release_when_empty();
        self.batch = VecDeque::new();
        self.events = VecDeque::new();
        self.answers = Vec::new();
        self.wakers = Vec::new();
    }

    /// Server: a connection whose time has come, or that has lived long enough, is drained, and
    /// ended when that takes too long for its age. When to look again.
    fn check_age(&self, state: &mut State, now: Instant) -> Option<Instant> {
        let (old_at, end_at) = self.ends.unzip();
        if end_at.is_some_and(|at| now >= at) {
            state.closing = Some(Closing::Force);
            return None;
        }
        let drain_at = earliest(state.drain_at, old_at)?;
        if now < drain_at {
            return Some(drain_at);
        }
        state.closing = state.closing.max(Some(Closing::Drain));
        end_at
    }

    /// Arms the timer. `true` if it has fired already.
    fn poll_timer(&mut self, cx: &mut Context<'_>, wake_at: Option<Instant>, now: Instant) -> bool {
        let Some(wake_at) = wake_at else { return false };
        let timer = match &mut self.timer {
            Some(timer) => {
                let fires = timer.deadline().into_std();
                if fires <= wake_at && fires > now {
                    // It will wake this task, as it has been told to.
                    return false;
                }
                timer.as_mut().reset(wake_at.into());
                timer
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(wake_at.into()))),
        };
        // Beside the task's budget: without any left the timer would not remember whom to wake.
        let timer = std::pin::pin!(tokio::task::unconstrained(timer.as_mut()));
        timer.poll(cx).is_ready()
    }

    /// Hands the answers that are ready to the operating system, if it takes them.
    fn write_last(&mut self, cx: &mut Context<'_>) {
        self.shared.lock().proto.take_output(&mut self.batch);
        // The connection ends for a reason that is known already.
        let _ = self.write_batch(cx);
    }

    /// Reads what the peer still sends, until it closes, and throws it away: a socket that is
    /// closed with unread data in it resets the connection, and the peer might never read the
    /// goodbye.
    fn poll_discard_input(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [MaybeUninit::uninit(); 4096];
        for _ in 0..MAX_READS {
            let mut waste = ReadBuf::uninit(&mut waste);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut waste));
            if read.is_err() || waste.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S> Driver<S> {
    /// A peer that breaks the protocol with its first bytes may speak another one: that tells more.
    #[cold]
    fn explained(&self, error: ConnectionError) -> ConnectionError {
        match error {
            ConnectionError::ClosedLocally | ConnectionError::Ended => error,
            _ => self.decoder.other_protocol().map_or(error, Into::into),
        }
    }

    /// Tells everyone that the connection has ended, and why.
    fn end(&mut self, error: &ConnectionError) {
        let shared = Arc::clone(&self.shared);
        let peer = shared.peer.addr();
        let mut guard = shared.lock();
        let state = &mut *guard;
        if state.ended.is_none() {
            tracing::debug!(error = %Causes(error), ?peer, "connection ended");
            if let ConnectionError::Protocol(other @ ProtocolError::OtherProtocol { .. }) = error
                && let Some(logs) = shared.peer.logs()
            {
                logs.stranger(peer, other);
            }
            // Which requests have left decides what their callers are told.
            on_written(state, std::mem::take(&mut self.written), clock::now());
            shared.end(state, error, &mut self.wakers);
            if let Some(share) = &shared.share {
                state.proto.discard();
                let held = state.proto.memory();
                self.wakers.append(&mut share.tell(&mut state.told, held));
            }
        }
        drop(guard);
        self.wakers.drain(..).for_each(Waker::wake);
        self.batch = VecDeque::new();
        shared.on_ended();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.shutting_down {
            let error = ready!(this.poll_connection(cx));
            let error = this.explained(error);
            // A server that has said goodbye reads no further request: what was not sent was not
            // executed.
            if this.dispatcher.is_some() || !matches!(error, ConnectionError::Ended) {
                this.write_last(cx);
            }
            this.end(&error);
            this.shutting_down = true;
            if !matches!(
                error,
                ConnectionError::ClosedLocally
                    | ConnectionError::ClosedByPeer
                    | ConnectionError::WentAway
                    | ConnectionError::Ended
            ) {
                return Poll::Ready(());
            }
            // TLS says goodbye here; a peer that does not read must not keep us.
            let limit = tokio::time::Instant::now() + Duration::from_secs(1);
            this.timer = Some(Box::pin(tokio::time::sleep_until(limit)));
        }
        if Pin::new(&mut this.socket).poll_shutdown(cx).is_ready()
            && (!(this.close_queued || this.tells_end) || this.poll_discard_input(cx).is_ready())
        {
            return Poll::Ready(());
        }
        match &mut this.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        // The runtime is going away, or the driver panicked: nobody may wait for ever.
        self.end(&ConnectionError::ClosedLocally);
    }
}

/// `bytes` of the output were written.
fn on_written(state: &mut State, bytes: usize, now: Instant) {
    state.proto.on_written(now, bytes);
    if !state.write_waiters.is_empty() {
        state.wake_writers();
    }
}

/// Returns `true` if the peer ended the connection without giving a reason.
fn is_silent(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::ClosedByPeer | ConnectionError::Truncated | ConnectionError::Io(_)
    )
}

/// Returns `true` if it is worth letting other tasks run before writing. With one call in flight
/// there is nobody else.
fn should_batch(state: &State) -> bool {
    state.calls.in_flight() > 1 || state.proto.open_calls() > 1
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
