//! The task that owns the socket of a connection, for both sides.
//!
//! One turn: write the output that has gathered, read once, decode every complete frame, pass the
//! frames to the protocol state machine, and dispatch the resulting events. Between two turns the
//! driver stores its waker in [`State::driver`]; a task that gives it work wakes it.
//!
//! **Batching**: with more than one call in flight, the driver yields to the tasks that it has just
//! woken, or that are about to run, before it writes, so that one write carries many frames. This
//! has the largest effect of all on calls per second; see docs/performance.md.

mod dispatch;
mod park;

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
use crate::proto::{self, ServerEvent};
use crate::serve::Dispatcher;
use crate::totals::FREE_BYTES;

/// Maximum number of segments passed to one vectored write.
const MAX_SLICES: usize = 64;

/// Time for which an idle connection keeps its buffers: the next call often comes soon.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

/// Number of reads, each soon after the previous one, that make a connection busy. A connection
/// that is opened for a few calls releases its buffers at once: otherwise ten thousand of them that
/// are opened together would hold their buffers at the same time.
const BUSY_READS: u32 = 16;

/// Maximum number of reads in a row before other tasks get a turn.
const MAX_READS: usize = 16;

/// Maximum duration of one poll of a connection before other tasks get a turn, and number of
/// handlers that run between two readings of the clock.
const SLICE: Duration = Duration::from_micros(500);
const HANDLERS_PER_LOOK: usize = 8;

/// Maximum number of frames processed before other tasks get a turn.
const MAX_FRAMES: usize = 1024;

/// Maximum number of bytes read ahead of a peer that is not read otherwise, to notice when it
/// closes.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Maximum number of callers woken at a time. The queue of a tokio worker holds 256 tasks; further
/// ones go to a queue shared by all workers, and some of those run only milliseconds later.
const MAX_WAKEUPS: usize = 64;

/// Number of streams that may have parts in the read buffer, or had some, at which they are
/// searched for such parts: most of the parts have been taken by then.
const MAX_SHARING: usize = 1024;

/// The task of one connection; ends with the connection.
pub(crate) struct Driver<S> {
    socket: S,
    decoder: Decoder,
    shared: Arc<Shared>,
    /// Server: runs the handlers. `None` on a client.
    dispatcher: Option<Dispatcher>,
    /// Output taken from the state machine and not yet written.
    batch: VecDeque<Bytes>,
    /// The decoder may hold complete frames that were not processed: their callers are woken after
    /// the previous ones have run.
    more: bool,
    events: VecDeque<ServerEvent>,
    replies: Vec<(ChannelId, Body)>,
    /// Number of reply bytes above which the replies are queued before further handlers run.
    most_unsent: usize,
    wakers: Vec<Waker>,
    /// Fires at or before the next deadline; reset only to fire earlier.
    timer: Option<Pin<Box<Sleep>>>,
    /// Number of bytes read.
    received_bytes: u64,
    /// Bytes that were written since the state machine was last notified.
    written: usize,
    /// Client: the connection cannot be written any more; data that has arrived is still read.
    write_error: Option<ConnectionError>,
    /// Written bytes may still be in the stream's own buffer.
    unflushed: bool,
    /// Bytes were read since the timers were last updated.
    has_read: bool,
    /// Number of reads in a row that came soon after the previous one. After a few of them more are
    /// likely, and the buffers are worth keeping for a while.
    reads: u32,
    /// The memory that is needed only during work was released.
    released: bool,
    /// The time at which this poll must end, set at its first reading of the clock; and whether it
    /// has passed.
    slice_ends_at: Option<Instant>,
    slice_is_over: bool,
    /// Server: the driver waits for other connections to hold less memory.
    asked: Option<u64>,
    /// The driver has let other tasks run first and may write.
    yielded_to_batch: bool,
    /// The driver has let the readers of streams run, and may allocate a new buffer.
    yielded_to_readers: bool,
    /// The time since which the socket has accepted nothing of the batch, as far as it was checked.
    write_stalled_since: Option<Instant>,
    progress: Duration,
    /// The shortest of the time limits that may begin to run at any moment.
    shortest_limit: Duration,
    /// Status 8 is queued; the connection ends once everything is written.
    close_queued: bool,
    /// The last frame gives the reason for the end: the peer gets a moment to read it.
    tells_end: bool,
    /// The peer has closed its sending side.
    read_closed: bool,
    /// The connection has ended; the socket is being shut down.
    shutting_down: bool,
    /// Server: the time at which the connection is drained because of its age, and the time at
    /// which it is then closed.
    ends: Option<(Instant, Instant)>,
    /// Server: called when the peer has sent its first bytes.
    on_first_read: Option<Box<dyn FnOnce() + Send>>,
}

enum Turn {
    /// Something made progress: continue.
    Again,
    /// Nothing can make progress: sleep.
    Park,
    /// Other tasks run first.
    Yield,
}

/// The actions that a turn may take.
struct Plan {
    wants_read: bool,
    /// There is room for replies.
    has_room: bool,
    /// Requests wait for their handlers.
    has_events: bool,
    /// Streams may have parts in the read buffer.
    shares_buffer: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(
        socket: S,
        side: Side,
        shared: Arc<Shared>,
        dispatcher: Option<Dispatcher>,
    ) -> Self {
        let state = shared.lock();
        let limits = state.proto.limits();
        let decoder = Decoder::new(side, limits);
        let most_unsent = limits.get_max_unsent_bytes();
        let progress = limits.get_progress_timeout();
        let shortest_limit = limits.shortest_timeout();
        drop(state);
        Self {
            socket,
            decoder,
            shared,
            dispatcher,
            batch: VecDeque::new(),
            more: false,
            events: VecDeque::new(),
            replies: Vec::new(),
            most_unsent,
            wakers: Vec::new(),
            timer: None,
            received_bytes: 0,
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
            progress,
            shortest_limit,
            close_queued: false,
            tells_end: false,
            read_closed: false,
            shutting_down: false,
            ends: None,
            on_first_read: None,
        }
    }

    /// Server: sets a function that is called when the peer has sent its first bytes.
    pub(crate) fn on_first_read(mut self, told: impl FnOnce() + Send + 'static) -> Self {
        self.on_first_read = Some(Box::new(told));
        self
    }

    /// Server: begins with bytes that were read from the socket before.
    pub(crate) fn with_first(mut self, first: &[u8]) -> Self {
        self.decoder.feed(first);
        self.more = true;
        self.has_read = true;
        self
    }

    /// Server: sets the time at which the connection is drained, and the time at which it is
    /// closed.
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
                    // After the notice that it goes away, a server may just close the connection.
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

    /// Checks whether the time of this poll is over.
    fn look_at_slice(&mut self, now: Instant) {
        let ends_at = *self.slice_ends_at.get_or_insert_with(|| now + SLICE);
        self.slice_is_over |= now >= ends_at;
    }

    fn turn(&mut self, cx: &mut Context<'_>, reads: &mut usize) -> Result<Turn, ConnectionError> {
        let Some(plan) = self.plan()? else {
            return Ok(Turn::Yield);
        };
        let wrote = match self.write_batch(cx) {
            Ok(wrote) => wrote,
            // A server announces why it closes, and may have replied: what it has sent is read
            // first.
            Err(error) if self.dispatcher.is_none() => {
                self.write_error = Some(error.into());
                false
            }
            Err(error) => return Err(error.into()),
        };
        if wrote && !(plan.wants_read && plan.has_room) {
            // The reason for not reading may be gone.
            return Ok(Turn::Again);
        }
        // After status 8 no handler may run: the peer takes unanswered requests for not executed.
        let wants_read = plan.wants_read && !self.close_queued;
        if plan.has_events && plan.has_room {
            // These events are left from the last turn, or a reply sent by another task released
            // them.
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
        if polls_read && self.decoder.is_used_up() && !self.yield_to_readers(plan.shares_buffer) {
            return Ok(Turn::Yield);
        }
        if polls_read {
            // The future keeps no state between polls, so it may be created anew each time.
            let reading = std::pin::pin!(self.socket.read_buf(self.decoder.read_buf()));
            if let Poll::Ready(result) = reading.poll(cx) {
                *reads += 1;
                let read = result?;
                self.received_bytes += read as u64;
                if read > 0 {
                    let woke = self.on_read(cx)?;
                    return Ok(self.after_frames(woke, reads));
                }
                self.on_eof()?;
                return Ok(self.after_frames(false, reads));
            }
        }
        // Everything that had arrived was read.
        if let Some(error) = self.write_error.take() {
            return Err(error);
        }
        self.park(cx, polls_read)
    }

    /// Lets the readers of streams take the data they were woken for before another read buffer is
    /// allocated, so that the current one can be reused; data that they did not take is copied.
    /// Returns `false` if the readers should run first.
    fn yield_to_readers(&mut self, shares_buffer: bool) -> bool {
        let had_turn = std::mem::take(&mut self.yielded_to_readers);
        self.yielded_to_readers = shares_buffer && !had_turn;
        if shares_buffer && had_turn {
            self.shared.lock().copy_out_shared();
        }
        !self.yielded_to_readers
    }

    /// Checks the connection once for the whole turn, and takes the output to write. Returns `None`
    /// if other tasks should run first.
    fn plan(&mut self) -> Result<Option<Plan>, ConnectionError> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        // A peer that never stops sending must not prevent the connection from ending.
        if state.closing == Some(Closing::Force) {
            if self.dispatcher.is_some() && !self.close_queued {
                self.tells_end = true;
                if state.proto.open_calls() == 0 {
                    // No request is unanswered, so status 8 is correct: force is for calls that did
                    // not end in time.
                    self.close_queued = true;
                    state.proto.close();
                } else {
                    // The callers of interrupted calls are notified of the reason.
                    state.proto.send_going_away();
                }
            }
            return Err(ConnectionError::ClosedLocally);
        }
        if self.written > 0 {
            on_written(state, std::mem::take(&mut self.written), clock::now());
        }
        self.shared
            .share_memory(state, self.reading(), &mut self.wakers);
        if self.batch.is_empty() {
            // This task is awake. A task that adds work from here on wakes nobody, which loses
            // nothing: `park` looks for work under the same lock hold in which it stores the waker.
            state.driver = None;
            // Tasks get one turn before each write. A further one would delay the output without
            // limit under load.
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
            has_events: state.proto.has_server_events() || !self.events.is_empty(),
            shares_buffer: !state.sharing_streams.is_empty(),
        }))
    }

    /// Decides, after frames were handled, whether this task continues or yields.
    fn after_frames(&self, woke: bool, reads: &mut usize) -> Turn {
        if self.more {
            // Many small frames take as long as a read.
            *reads += 1;
        }
        if woke || *reads >= MAX_READS {
            Turn::Yield
        } else {
            Turn::Again
        }
    }

    /// Writes as much of the batch as the socket accepts. Returns `true` if that was at least one
    /// byte.
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
                // The slices are not empty, so a write of nothing would be repeated for ever.
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
        // What was written last may still be in the buffer of a TLS stream.
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

    /// Checks that a peer that never stops sending also reads. It never lets the driver park, which
    /// is where the time limits are checked.
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

    /// Processes the bytes that were read. Returns `true` if callers were woken and should run
    /// before the next write.
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

    /// Handles the end of the peer's data. A server still replies to the requests it has received
    /// (defect D22); a client notifies its callers.
    fn on_eof(&mut self) -> Result<(), ConnectionError> {
        self.read_closed = true;
        let unfinished = self.shared.lock().proto.has_unfinished_message();
        if (self.decoder.partial() != Partial::Nothing && !self.more) || unfinished {
            return Err(ConnectionError::Truncated);
        }
        // A peer of this implementation never closes only one direction: it has gone.
        let gone = self.dispatcher.is_none() || self.shared.peer.hello().is_some();
        if gone || (!self.more && self.shared.lock().proto.is_at_rest()) {
            return Err(ConnectionError::ClosedByPeer);
        }
        Ok(())
    }

    /// Writes the replies that are ready, as far as the socket accepts them.
    fn write_last(&mut self, cx: &mut Context<'_>) {
        self.shared.lock().proto.take_output(&mut self.batch);
        // The connection ends for a reason that is known already.
        let _ = self.write_batch(cx);
    }

    /// Reads and discards what the peer still sends, until it closes. A socket that is closed with
    /// unread data resets the connection, and the peer might never read the last frame.
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
    /// Returns the number of bytes of a large frame that have arrived. Data read beyond the usual
    /// amount belongs to a frame of that size.
    fn reading(&self) -> usize {
        let reading = self.decoder.len();
        if reading > FREE_BYTES { reading } else { 0 }
    }

    /// Replaces the error if the first bytes of the peer look like another protocol, which is more
    /// informative.
    #[cold]
    fn explained(&self, error: ConnectionError) -> ConnectionError {
        match error {
            ConnectionError::ClosedLocally | ConnectionError::Ended => error,
            _ => self.decoder.other_protocol().map_or(error, Into::into),
        }
    }

    /// Notifies all waiting tasks that the connection has ended, and of the reason (defect D11).
    /// Only the first call has an effect on them.
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
            // The written bytes decide which requests were sent, and so which error their callers
            // get.
            on_written(state, std::mem::take(&mut self.written), clock::now());
            shared.end(state, error, &mut self.wakers);
            // Handlers that continue keep what they hold; the rest is left to other connections
            // now, because this task will not report again.
            if let Some(share) = &shared.share {
                state.proto.discard();
                let held = state.proto.memory();
                self.wakers.append(&mut share.tell(&mut state.told, held));
            }
        }
        drop(guard);
        // The woken tasks find the connection ended, and may use its lock at once.
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
            // A server that has sent status 8 reads no further request: a request that was not sent
            // was not executed.
            if this.dispatcher.is_some() || !matches!(error, ConnectionError::Ended) {
                this.write_last(cx);
            }
            this.end(&error);
            this.shutting_down = true;
            // After an error the socket is closed at once, when this task drops it.
            if !matches!(
                error,
                ConnectionError::ClosedLocally
                    | ConnectionError::ClosedByPeer
                    | ConnectionError::WentAway
                    | ConnectionError::Ended
            ) {
                return Poll::Ready(());
            }
            // TLS sends its close notification here; a peer that does not read must not block this
            // task.
            let timer = tokio::time::sleep(Duration::from_secs(1));
            this.timer = Some(Box::pin(timer));
        }
        // A failed shutdown is ignored: the connection has ended anyway.
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
        // The runtime is shutting down, or the driver panicked: no task may wait forever.
        self.end(&ConnectionError::ClosedLocally);
    }
}

/// Records that `bytes` of the output were written.
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

/// Returns `true` if other tasks should run before writing. With one call in flight there are no
/// others.
fn should_batch(state: &State) -> bool {
    state.calls.in_flight() > 1 || state.proto.open_calls() > 1
}
