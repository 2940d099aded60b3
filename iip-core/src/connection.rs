//! What a connection's driver and everyone who uses it share, and the handle that callers hold.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

use crate::body::{Body, Data, Encoded};
use crate::call::{Call, CallTimes};
use crate::calls::{CallTable, Start};
use crate::clock;
use crate::error::{CallError, CallErrorKind, ConnectionError};
use crate::flow::Flow;
use crate::frame::{ChannelId, MAX_PATH_BYTES};
use crate::logs::Logs;
use crate::path::StaticPath;
use crate::proto::stream::DATA;
use crate::proto::{self, Mode, StreamKey};
use crate::running::Running;
use crate::scratch;
use crate::shutdown;
use crate::stream::{self, RecvStream, SendStream};
use crate::totals::Share;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    addr: Option<SocketAddr>,
    certificates: Vec<Vec<u8>>,
    hello: OnceLock<Option<Bytes>>,
    extension: OnceLock<Box<dyn Any + Send + Sync>>,
    server: Option<OfServer>,
}

/// What the peers of a server share.
#[derive(Debug)]
struct OfServer {
    /// Set to `true` when the server begins to shut down.
    shutdown: watch::Receiver<bool>,
    logs: Arc<Logs>,
}

impl Peer {
    pub(crate) fn new(addr: Option<SocketAddr>, certificates: Vec<Vec<u8>>) -> Self {
        Self {
            addr,
            certificates,
            hello: OnceLock::new(),
            extension: OnceLock::new(),
            server: None,
        }
    }

    /// The peer of a server.
    pub(crate) fn of_server(mut self, shutdown: watch::Receiver<bool>, logs: Arc<Logs>) -> Self {
        self.server = Some(OfServer { shutdown, logs });
        self
    }

    /// Its address; `None` on Unix sockets and in memory.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// The verified certificates it presented, DER, its own first; empty without TLS or client
    /// certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// What it said about itself in `/sys/hello`, a JSON object of at most 16 KiB; `None` when it
    /// did not, as Go peers.
    #[must_use]
    pub fn hello(&self) -> Option<&[u8]> {
        self.hello.get().and_then(Option::as_deref)
    }

    /// What a layer above has worked out about this peer, made by `init` when it is first asked
    /// for; for a client that is once the hello is over. Only one type of value has room: another
    /// type gets `None`.
    pub fn extension<T: Any + Send + Sync>(&self, init: impl FnOnce(&Self) -> T) -> Option<&T> {
        self.extension
            .get_or_init(|| Box::new(init(self)))
            .downcast_ref()
    }

    /// Returns `true` if the server that handles this peer's calls has begun to [shut
    /// down](crate::Server::shutdown). Always `false` at a client.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        let server = self.server.as_ref();
        server.is_some_and(|server| *server.shutdown.borrow())
    }

    /// Waits until the server that handles this peer's calls begins to [shut
    /// down](crate::Server::shutdown), so that a handler that runs for long can end in time. At a
    /// client it never completes.
    ///
    /// The future borrows nothing: it can be moved into a stream or a task.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub fn shutting_down(&self) -> impl Future<Output = ()> + Send + use<> {
        let server = self.server.as_ref();
        shutdown::begun(server.map(|server| server.shutdown.clone()))
    }

    /// Logs, with its causes, the failure of a handler that answered a call of this peer to `path`,
    /// within what [`ServerConfig::log_failures`](crate::ServerConfig::log_failures) and
    /// [`max_log_lines`](crate::ServerConfig::max_log_lines) allow: for layers above, whose
    /// handlers answer also when they fail. A failure that is not the server's fault has level
    /// DEBUG. Nothing is logged at a client.
    pub fn log_failure(&self, path: &str, failure: &dyn Error, is_fault: bool) {
        if let Some(server) = &self.server {
            server.logs.failure(self.addr, path, failure, is_fault);
        }
    }

    pub(crate) fn logs(&self) -> Option<&Logs> {
        self.server.as_ref().map(|server| &*server.logs)
    }

    pub(crate) fn set_hello(&self, hello: Option<Bytes>) {
        // A peer that says hello twice keeps its first word.
        let _ = self.hello.set(hello);
    }
}

/// What one stream is taken to send when there is room.
const STREAM_SHARE_BYTES: usize = 16 * 1024;

/// Everything of one connection that is not the socket: the state machine and both sides' tables.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) proto: proto::Connection,
    /// Client: the calls and the channel pool.
    pub(crate) calls: CallTable,
    /// Server: the handlers that had to wait, by channel.
    pub(crate) running: HashMap<ChannelId, Running>,
    /// Server: handlers that run on behind callers who have gone, and still read what those had
    /// sent; by serial.
    pub(crate) orphans: HashMap<u64, Running>,
    /// The parked driver. Whoever gives it work takes the waker, and wakes it after letting go of
    /// the lock.
    pub(crate) driver: Option<Waker>,
    /// Streams of which parts lie in the memory that they were read into.
    pub(crate) sharing_streams: Vec<StreamKey>,
    /// Who waits for room to send more of an answer or a stream, in order; `None` has given up.
    pub(crate) write_waiters: VecDeque<Option<Waker>>,
    /// How many have left that queue.
    pub(crate) served_waiters: u64,
    /// The reason why the connection ended.
    pub(crate) ended: Option<ConnectionError>,
    /// Someone asked for an end.
    pub(crate) closing: Option<Closing>,
    /// Server: when to begin with [`Closing::Drain`].
    pub(crate) drain_at: Option<Instant>,
    /// Client: the server has said that it goes away.
    pub(crate) leaving: bool,
    /// Server: how many bytes this connection has told the others that it holds.
    pub(crate) told: usize,
}

impl State {
    /// Wakes `waker` when there may be room to send more. However often it asks, one who waits has
    /// one place in the queue.
    pub(crate) fn wait_to_write(&mut self, place: &mut WriteWaiter, waker: &Waker) {
        if let Some(known) = self.waiter_mut(*place) {
            let is_known = known.as_ref().is_some_and(|known| known.will_wake(waker));
            if !is_known {
                let before = known.replace(waker.clone());
                self.proto.deferred.drop_waker(before);
            }
            return;
        }
        self.write_waiters.push_back(Some(waker.clone()));
        place.0 = self.served_waiters + self.write_waiters.len() as u64;
    }

    fn waiter_mut(&mut self, place: WriteWaiter) -> Option<&mut Option<Waker>> {
        let index = place.0.checked_sub(self.served_waiters + 1)?;
        self.write_waiters.get_mut(usize::try_from(index).ok()?)
    }

    /// One who waited has given up. Gives its waker back, to be dropped without the lock.
    fn stop_waiting(&mut self, place: WriteWaiter) -> Option<Waker> {
        let waker = self.waiter_mut(place)?.take();
        while matches!(self.write_waiters.front(), Some(None)) {
            self.write_waiters.pop_front();
            self.served_waiters += 1;
        }
        while matches!(self.write_waiters.back(), Some(None)) {
            self.write_waiters.pop_back();
        }
        waker
    }

    /// Bytes have left: wakes as many as there is room for, and all once nothing waits to be
    /// written. Each will send some ten kilobytes; to wake a thousand for the room of ten would
    /// cost more than their streams.
    pub(crate) fn wake_writers(&mut self) {
        let most = if self.proto.has_output() {
            self.proto.stream_room() / STREAM_SHARE_BYTES
        } else {
            self.write_waiters.len()
        };
        let most = most.min(self.write_waiters.len());
        self.served_waiters += most as u64;
        let wakers = self.write_waiters.drain(..most).flatten();
        self.proto.deferred.wake(wakers);
    }

    /// Readers have had their turn: what they left must not keep the whole buffer that it was read
    /// into.
    pub(crate) fn copy_out_shared(&mut self) {
        for key in self.sharing_streams.drain(..) {
            if let Some(flow) = flow_of(&mut self.calls, &mut self.running, key) {
                flow.detach();
            }
        }
    }

    /// Grants streams what they were not granted while there was no room for their messages.
    pub(crate) fn grant_withheld(&mut self) {
        while let Some(channel) = self.proto.next_withheld() {
            let key = self.proto.stream_on(channel);
            let flow = key.and_then(|key| flow_of(&mut self.calls, &mut self.running, key));
            if let Some(flow) = flow {
                flow.grant_withheld(&mut self.proto, channel, clock::now());
            }
        }
    }

    /// Gives up streams whose messages the peer leaves unread for too long, while such messages
    /// take too much. When to look again.
    pub(crate) fn check_unread(
        &mut self,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) -> Option<Instant> {
        if !self.proto.is_unread() {
            return None;
        }
        let limit = self.proto.limits().progress();
        let running = self.running.values_mut();
        running
            .filter_map(|running| running.flow.as_deref_mut())
            .filter_map(|flow| flow.check_unread(now, limit, wakers))
            .min()
    }

    /// The connection is gone: nobody waits for room any more.
    pub(crate) fn leave_room(&mut self, wakers: &mut Vec<Waker>) {
        self.served_waiters += self.write_waiters.len() as u64;
        wakers.extend(self.write_waiters.drain(..).flatten());
    }

    #[inline]
    fn check_alive(&self) -> Result<(), CallError> {
        match &self.ended {
            None => Ok(()),
            Some(error) => Err(CallError::not_sent(CallErrorKind::ConnectionLost(
                error.clone(),
            ))),
        }
    }
}

fn flow_of<'a>(
    calls: &'a mut CallTable,
    running: &'a mut HashMap<ChannelId, Running>,
    key: StreamKey,
) -> Option<&'a mut Flow> {
    match key {
        StreamKey::Call(token) => calls.flow_of(token),
        StreamKey::Channel(channel) => running.get_mut(&channel)?.flow.as_deref_mut(),
    }
}

/// The place of one who sends in the queue for room: how many have stood in it up to there. It may
/// have been left since.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct WriteWaiter(u64);

/// Leaves the queue for room when it is dropped. Streams are few, and stay in it; callers of
/// one-way calls may be any number.
struct WaitToWrite<'a> {
    shared: &'a Shared,
    place: WriteWaiter,
}

impl Drop for WaitToWrite<'_> {
    fn drop(&mut self) {
        let waker = self.shared.lock().stop_waiting(self.place);
        drop(waker);
    }
}

/// How the connection is to end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Closing {
    /// Take no new requests, finish the open calls, then say status 8.
    Drain,
    /// Now.
    Force,
}

/// The state, locked. What was deferred meanwhile is done when it is unlocked.
pub(crate) struct Locked<'a> {
    // Fields are dropped in this order.
    state: MutexGuard<'a, State>,
    unlocked: Unlocked<'a>,
}

/// Does what was deferred, when it is dropped.
struct Unlocked<'a> {
    shared: &'a Shared,
    has_work: bool,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let state = &*self.state;
        self.unlocked.has_work = !(state.proto.deferred.is_empty() && state.calls.left.is_empty());
    }
}

impl Drop for Unlocked<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.has_work {
            self.shared.do_deferred();
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) peer: Arc<Peer>,
    /// Server: what this connection takes of what all have.
    pub(crate) share: Option<Share>,
    /// The first channel was granted or refused, or the connection ended.
    pub(crate) ready: Notify,
    pub(crate) done: Notify,
    alive: AtomicBool,
    /// Client: it was retired because its channels did not come free.
    stalled: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            // The others may have what is left of its part.
            let wakers = share.tell(&mut state.told, 0);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl Shared {
    /// `share` is that of a server's connection.
    pub(crate) fn new(
        proto: proto::Connection,
        calls: CallTable,
        peer: Arc<Peer>,
        share: Option<Share>,
    ) -> Arc<Self> {
        let state = State {
            proto,
            calls,
            running: HashMap::new(),
            orphans: HashMap::new(),
            driver: None,
            sharing_streams: Vec::new(),
            write_waiters: VecDeque::new(),
            served_waiters: 0,
            ended: None,
            closing: None,
            drain_at: None,
            leaving: false,
            told: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            peer,
            share,
            ready: Notify::new(),
            done: Notify::new(),
            alive: AtomicBool::new(true),
            stalled: AtomicBool::new(false),
        })
    }

    /// No user code runs under this lock, so a poisoned one still guards sound data. What was
    /// deferred is done once it is let go.
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner),
            unlocked: Unlocked {
                shared: self,
                has_work: false,
            },
        }
    }

    #[cold]
    fn do_deferred(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let deferred = std::mem::take(&mut state.proto.deferred);
        let left = std::mem::take(&mut state.calls.left);
        drop(state);
        drop(left);
        deferred.run(&self.ready);
    }

    /// Runs `change` under the lock, then wakes the driver if it is parked.
    #[inline]
    pub(crate) fn command<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Like [`command`](Self::command), for what gives the driver work only if it leaves something
    /// to write.
    #[inline]
    pub(crate) fn stream_command<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let driver = if state.proto.has_output() {
            state.driver.take()
        } else {
            None
        };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// A look without the lock; calls that start in between are told all the same.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// The connection has ended. No call is given to it any more when those who used it are told:
    /// `wakers` are to be woken once the lock is gone.
    pub(crate) fn end(&self, state: &mut State, error: &ConnectionError, wakers: &mut Vec<Waker>) {
        self.alive.store(false, Ordering::Release);
        state.ended = Some(error.clone());
        state
            .calls
            .fail_all(&state.proto, error, clock::now(), wakers);
        state.cancel_all();
        state.leave_room(wakers);
    }

    pub(crate) fn on_ended(&self) {
        self.ready.notify_waiters();
        self.done.notify_waiters();
    }

    /// Client: ends the calls whose time is over. A connection whose channels do not come free is
    /// retired.
    #[inline]
    pub(crate) fn expire(&self, state: &mut State, now: Instant, wakers: &mut Vec<Waker>) {
        if state.calls.expire(&mut state.proto, now, wakers) {
            self.note_retired(state);
        }
    }

    /// Client: a call was refused, or a time was over; the connection may have been retired for it.
    fn note_retired(&self, state: &mut State) {
        if state.calls.is_retired() {
            self.stalled.store(true, Ordering::Release);
            self.alive.store(false, Ordering::Release);
            state.closing = state.closing.max(Some(Closing::Drain));
        }
    }

    /// Client: whether the connection was retired because its channels did not become free.
    pub(crate) fn was_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Client: the server goes away. Further calls go to another connection; this one ends with its
    /// last call.
    pub(crate) fn retire(&self, state: &mut State) {
        self.alive.store(false, Ordering::Release);
        state.leaving = true;
        state.closing = state.closing.max(Some(Closing::Drain));
    }

    pub(crate) fn close(&self, how: Closing) {
        self.command(|state| state.closing = state.closing.max(Some(how)));
    }

    /// Waits until the driver has let go of the socket.
    pub(crate) async fn closed(&self) -> ConnectionError {
        loop {
            let done = self.done.notified();
            let mut done = std::pin::pin!(done);
            done.as_mut().enable();
            if let Some(error) = self.lock().ended.clone() {
                return error;
            }
            done.await;
        }
    }
}

/// One connection to a server; cheap to clone.
///
/// Callers usually hold a [`Client`](crate::Client), which makes connections and replaces lost
/// ones. The connection ends when the client is closed or dropped.
#[derive(Clone)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
}

impl Connection {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.shared.peer
    }

    /// Calls `path` with `body` and waits for the answer until `deadline`, which bounds waiting for
    /// a channel, too.
    ///
    /// The request is queued when this function is called, not when the future is polled.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]; [`CallError::execution`] tells whether the call may have run.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call: the server is told if it understands that, and its
    /// answer is discarded. Neither the connection nor other calls are touched.
    #[inline]
    pub fn call(&self, path: &str, body: impl Into<Body>, deadline: Instant) -> Call {
        let now = clock::now();
        let start = Start {
            now,
            deadline,
            on: None,
            mode: Mode::Whole,
        };
        let path = check_path(path);
        self.clone()
            .start(path, &start, now, &mut body.into(), None)
    }

    /// Like [`call`](Self::call), with data that `encode` writes into a buffer, from which small
    /// data is copied straight to the frames that wait to be written; `encode` returns what follows
    /// behind it, see [`Body::split`].
    ///
    /// The call must be awaited next, by the task that `cx` is of; see
    /// [`with_context`](crate::with_context).
    ///
    /// # Errors
    ///
    /// Those of `encode`.
    #[inline]
    pub fn start_encoded<E>(
        self,
        cx: &Context<'_>,
        path: StaticPath,
        times: &CallTimes,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<Call, E> {
        scratch::with(|head| {
            let tail = encode(head)?;
            let mut data = Encoded { head, tail };
            Ok(self.start_now(cx, Ok(path.as_str()), &mut data, times))
        })
    }

    /// Like [`start_encoded`](Self::start_encoded), with data that is there.
    #[must_use]
    pub fn start_body(
        self,
        cx: &Context<'_>,
        path: StaticPath,
        times: &CallTimes,
        body: impl Into<Body>,
    ) -> Call {
        self.start_now(cx, Ok(path.as_str()), &mut body.into(), times)
    }

    /// A call started in this very poll, with its waker: it must be awaited next.
    #[inline]
    pub(crate) fn start_now(
        self,
        cx: &Context<'_>,
        path: Result<&str, CallErrorKind>,
        data: &mut impl Data,
        times: &CallTimes,
    ) -> Call {
        let start = Start {
            now: times.connected,
            deadline: times.deadline,
            on: None,
            mode: Mode::Whole,
        };
        self.start(path, &start, times.started, data, Some(cx.waker()))
    }

    #[inline]
    pub(crate) fn start(
        self,
        path: Result<&str, CallErrorKind>,
        start: &Start,
        started: Instant,
        data: &mut impl Data,
        waker: Option<&Waker>,
    ) -> Call {
        let token = match path {
            Err(kind) => Err(CallError::not_sent(kind)),
            Ok(_) if data.len() == 0 => Err(CallError::not_sent(CallErrorKind::EmptyBody)),
            Ok(path) => self.shared.command(|state| {
                state.check_alive()?;
                let (calls, proto) = (&mut state.calls, &mut state.proto);
                let started = calls.start(proto, path, start, data, waker);
                started.inspect_err(|_| self.shared.note_retired(state))
            }),
        };
        let times = CallTimes {
            started,
            connected: start.now,
            deadline: start.deadline,
        };
        Call::new(self.shared, token, &times, waker.is_some())
    }

    /// A request whose answer nobody waits for, see [`Client::send`](crate::Client::send): the call
    /// ends when it is queued to be written. Ask for [room](Self::room_for_one_way) first.
    ///
    /// # Errors
    ///
    /// Those of `encode`.
    pub fn start_one_way<E>(
        self,
        path: StaticPath,
        times: &CallTimes,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<Call, E> {
        scratch::with(|head| {
            let tail = encode(head)?;
            let mut data = Encoded { head, tail };
            Ok(self.start_one_way_with(Ok(path.as_str()), times, &mut data))
        })
    }

    pub(crate) fn start_one_way_with(
        self,
        path: Result<&str, CallErrorKind>,
        times: &CallTimes,
        data: &mut impl Data,
    ) -> Call {
        let start = Start {
            now: times.connected,
            deadline: times.deadline,
            on: None,
            mode: Mode::OneWay,
        };
        self.start(path, &start, times.started, data, None)
    }

    /// Returns `true` if one more one-way request may be queued for writing.
    #[must_use]
    pub fn has_room_for_one_way(&self) -> bool {
        self.shared.lock().proto.has_one_way_room()
    }

    /// Waits until little enough waits to be written for one more request without an answer, at the
    /// latest until `deadline`.
    ///
    /// # Errors
    ///
    /// There was none in time.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn room_for_one_way(&self, deadline: Instant) -> Result<(), CallError> {
        if self.has_room_for_one_way() {
            return Ok(());
        }
        let mut waiting = WaitToWrite {
            shared: &self.shared,
            place: WriteWaiter::default(),
        };
        let has_room = std::future::poll_fn(|cx| {
            self.shared.command(|state| {
                if state.ended.is_some() || state.proto.has_one_way_room() {
                    return Poll::Ready(());
                }
                state.wait_to_write(&mut waiting.place, cx.waker());
                Poll::Pending
            })
        });
        tokio::time::timeout_at(deadline.into(), has_room)
            .await
            .map_err(|_| CallError::not_sent(CallErrorKind::Timeout))
    }

    /// A call with a stream of bytes each way, which begins with what `encode` writes; see
    /// [`SendStream`] and [`RecvStream`]. The deadline is that of [`RecvStream::set_deadline`] once
    /// the call is under way.
    ///
    /// # Errors
    ///
    /// Those of `encode`. What else goes wrong is told by [`RecvStream::answer`].
    pub fn start_stream<E>(
        self,
        path: StaticPath,
        times: &CallTimes,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<(SendStream, RecvStream), E> {
        let first = Body::encode(encode)?;
        Ok(self.start_stream_with(Ok(path.as_str()), times, first))
    }

    pub(crate) fn start_stream_with(
        self,
        path: Result<&str, CallErrorKind>,
        times: &CallTimes,
        mut rest: Body,
    ) -> (SendStream, RecvStream) {
        let start = Start {
            now: times.connected,
            deadline: times.deadline,
            on: None,
            mode: Mode::Stream,
        };
        let mut serial = 0;
        // What is left of the first part is dropped without the lock.
        let (mut first, mut marked) = (Body::default(), Body::default());
        let token = match path {
            Err(kind) => Err(CallError::not_sent(kind)),
            Ok(_) if rest.is_empty() => Err(CallError::not_sent(CallErrorKind::EmptyBody)),
            Ok(path) => self.shared.command(|state| {
                state.check_alive()?;
                if state.proto.peer_stream_window().is_none() {
                    return Err(CallError::not_sent(CallErrorKind::NoStreams));
                }
                let at = rest.len().min(state.proto.stream_part_bytes());
                first = rest.split_to(at);
                marked = first.marked(DATA);
                let (calls, proto) = (&mut state.calls, &mut state.proto);
                let token = calls.start(proto, path, &start, &mut marked, None);
                serial = calls.last_serial();
                token.inspect_err(|_| self.shared.note_retired(state))
            }),
        };
        let shared = Arc::clone(&self.shared);
        let call = Call::new(self.shared, token, times, false);
        stream::of_call(&shared, call, serial, rest)
    }

    /// A call that ends when a channel is there for its owner.
    pub(crate) fn lease(&self, now: Instant, deadline: Instant) -> Call {
        let token = self.shared.command(|state| {
            state.check_alive()?;
            let lease = state.calls.start_lease(&mut state.proto, now, deadline);
            lease.inspect_err(|_| self.shared.note_retired(state))
        });
        let times = CallTimes {
            started: now,
            connected: now,
            deadline,
        };
        Call::new(Arc::clone(&self.shared), token, &times, false)
    }

    /// The reason why the connection ended, or `None` while it lives.
    #[must_use]
    pub fn ended(&self) -> Option<ConnectionError> {
        self.shared.lock().ended.clone()
    }

    /// Waits until the connection has ended, and tells why.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn closed(&self) -> ConnectionError {
        self.shared.closed().await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.shared.peer)
            .finish_non_exhaustive()
    }
}

/// A path that can be called.
#[inline]
pub(crate) fn check_path(path: &str) -> Result<&str, CallErrorKind> {
    let suspect = path.bytes().any(|byte| byte == 0 || byte == b'%');
    if path.is_empty() || path.len() > MAX_PATH_BYTES || (suspect && has_nul(path)) {
        return Err(CallErrorKind::InvalidPath(path.chars().take(128).collect()));
    }
    Ok(path)
}

/// A NUL ends the path field, and a server that decodes `%00` may put one into its answer (defect
/// D18).
#[cold]
fn has_nul(path: &str) -> bool {
    path.contains('\0') || path.contains("%00")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::frame::Side;
    use crate::limits::Limits;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_asks_for_room_again_and_again_has_one_place_and_is_woken_once() {
        let proto = proto::Connection::new(
            Side::Server,
            Limits::default(),
            serde_json::Value::Null,
            Instant::now(),
        );
        let peer = Arc::new(Peer::new(None, Vec::new()));
        let shared = Shared::new(proto, CallTable::new(1, 1), peer, None);
        let mut state = shared.lock();
        let counts: [Arc<Counts>; 2] = Default::default();
        let mut places = [WriteWaiter::default(); 2];
        for round in 1..4 {
            for _ in 0..1000 {
                for (place, count) in places.iter_mut().zip(&counts) {
                    state.wait_to_write(place, &Waker::from(Arc::clone(count)));
                }
            }
            assert_eq!(state.write_waiters.len(), 2);
            // Nothing waits to be written.
            state.wake_writers();
            assert!(state.write_waiters.is_empty());
            // They are woken without the lock.
            drop(state);
            state = shared.lock();
            for count in &counts {
                assert_eq!(count.0.load(Ordering::Relaxed), round);
            }
        }
        let [first, _] = &mut places;
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[0])));
        let mut wakers = Vec::new();
        state.leave_room(&mut wakers);
        assert_eq!(wakers.len(), 1);
        // Another task has it now: that one is to be woken.
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[0])));
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[1])));
        state.wake_writers();
        drop(state);
        assert_eq!(counts[1].0.load(Ordering::Relaxed), 4);
        assert_eq!(counts[0].0.load(Ordering::Relaxed), 3);
    }
}
