//! The state shared by a connection's driver and its users, and the handle for callers.

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
use crate::clock;
use crate::error::{CallError, CallErrorKind, ConnectionError};
use crate::frame::{ChannelId, MAX_PATH_BYTES};
use crate::logs::Logs;
use crate::path::StaticPath;
use crate::proto::calls::{CallTable, Start};
use crate::proto::stream::DATA;
use crate::proto::stream_state::StreamState;
use crate::proto::{self, Mode, StreamKey};
use crate::running::Running;
use crate::scratch;
use crate::shutdown;
use crate::stream::{self, RecvStream, SendStream};
use crate::totals::Share;

/// The peer of a connection.
#[derive(Debug)]
pub struct Peer {
    addr: Option<SocketAddr>,
    certificates: Vec<Vec<u8>>,
    hello: OnceLock<Option<Bytes>>,
    extension: OnceLock<Box<dyn Any + Send + Sync>>,
    server: Option<OfServer>,
}

/// The state shared by all peers of a server.
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

    /// Marks the peer as that of a server.
    pub(crate) fn of_server(mut self, shutdown: watch::Receiver<bool>, logs: Arc<Logs>) -> Self {
        self.server = Some(OfServer { shutdown, logs });
        self
    }

    /// Returns the address of the peer; `None` on Unix sockets and in memory.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Returns the verified certificates that the peer presented, DER, its own first; empty without
    /// TLS or client certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// Returns the description that the peer sent in `/sys/hello`, a JSON object of at most 16 KiB;
    /// `None` if it sent none, like Go peers.
    #[must_use]
    pub fn hello(&self) -> Option<&[u8]> {
        self.hello.get().and_then(Option::as_deref)
    }

    /// Returns a value that a higher layer has derived from this peer, made by `init` on the first
    /// call; on a client, that is after the hello exchange. There is room for only one type of
    /// value: another type gets `None`.
    pub fn extension<T: Any + Send + Sync>(&self, init: impl FnOnce(&Self) -> T) -> Option<&T> {
        self.extension
            .get_or_init(|| Box::new(init(self)))
            .downcast_ref()
    }

    /// Returns `true` if the server that handles this peer's calls has begun to [shut
    /// down](crate::Server::shutdown). Always `false` on a client.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        let server = self.server.as_ref();
        server.is_some_and(|server| *server.shutdown.borrow())
    }

    /// Waits until the server that handles this peer's calls begins to [shut
    /// down](crate::Server::shutdown), so that a long-running handler can end in time. On a client
    /// it never completes.
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

    /// Logs the failure of a handler that replied to a call of this peer to `path`, with its
    /// causes, within the limits of
    /// [`ServerConfig::log_failures`](crate::ServerConfig::log_failures) and
    /// [`max_log_lines`](crate::ServerConfig::max_log_lines). It is for higher layers, whose
    /// handlers reply even when they fail. A failure that is not the server's fault has level
    /// DEBUG. On a client, nothing is logged.
    pub fn log_failure(&self, path: &str, failure: &dyn Error, is_fault: bool) {
        if let Some(server) = &self.server {
            server.logs.failure(self.addr, path, failure, is_fault);
        }
    }

    pub(crate) fn logs(&self) -> Option<&Logs> {
        self.server.as_ref().map(|server| &*server.logs)
    }

    pub(crate) fn set_hello(&self, hello: Option<Bytes>) {
        // If a peer says hello twice, the first hello counts.
        let _ = self.hello.set(hello);
    }
}

/// Number of bytes that one stream is assumed to send when there is room.
const STREAM_SHARE_BYTES: usize = 16 * 1024;

/// The state of one connection except for its socket: the state machine and the tables of both
/// sides.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) proto: proto::Connection,
    /// Client: the calls and the channel pool.
    pub(crate) calls: CallTable,
    /// Server: the handlers that had to wait, by channel.
    pub(crate) running: HashMap<ChannelId, Running>,
    /// Server: handlers that continue after their callers have gone, and still read the data that
    /// these had sent; by serial.
    pub(crate) orphans: HashMap<u64, Running>,
    /// The waker of the parked driver. A task that gives it work takes the waker, and wakes it
    /// after releasing the lock.
    pub(crate) driver: Option<Waker>,
    /// Streams with parts that are still in the memory they were read into.
    pub(crate) sharing_streams: Vec<StreamKey>,
    /// Wakers of the tasks that wait for room to send more of a reply or a stream, in order; `None`
    /// if a task has given up.
    pub(crate) write_waiters: VecDeque<Option<Waker>>,
    /// Number of tasks that have left that queue.
    pub(crate) served_waiters: u64,
    /// The reason why the connection ended.
    pub(crate) ended: Option<ConnectionError>,
    /// The requested way to end, if there is one.
    pub(crate) closing: Option<Closing>,
    /// Server: the time at which [`Closing::Drain`] begins.
    pub(crate) drain_at: Option<Instant>,
    /// Client: the server has announced that it is going away.
    pub(crate) leaving: bool,
    /// Server: the number of held bytes that this connection has last reported.
    pub(crate) told: usize,
}

impl State {
    /// Wakes `waker` when there may be room to send more. A task has one place in the queue,
    /// however often it calls this.
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

    /// Removes a task that has given up from the queue. Returns its waker, to be dropped without
    /// the lock.
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

    /// Wakes waiting tasks after bytes were written: as many as there is room for, and all of them
    /// once nothing waits to be written. Each will send some ten kilobytes; waking a thousand tasks
    /// when there is room for ten would cost more than their streams.
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

    /// Copies the parts that readers left after their turn, so that they do not keep the whole
    /// buffer that they were read into.
    pub(crate) fn copy_out_shared(&mut self) {
        for key in self.sharing_streams.drain(..) {
            if let Some(flow) = flow_of(&mut self.calls, &mut self.running, key) {
                flow.detach();
            }
        }
    }

    /// Grants streams the credit that was withheld while there was no room for their messages.
    pub(crate) fn grant_withheld(&mut self) {
        while let Some(channel) = self.proto.next_withheld() {
            let key = self.proto.stream_on(channel);
            let flow = key.and_then(|key| flow_of(&mut self.calls, &mut self.running, key));
            if let Some(flow) = flow {
                flow.grant_withheld(&mut self.proto, channel, clock::now());
            }
        }
    }

    /// Gives up streams whose messages the peer leaves unread for too long while such messages take
    /// too much memory. Returns the time of the next check.
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

    /// Wakes all tasks that wait for room, because the connection is gone.
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
) -> Option<&'a mut StreamState> {
    match key {
        StreamKey::Call(call) => calls.flow_of(call),
        StreamKey::Channel(channel) => running.get_mut(&channel)?.flow.as_deref_mut(),
    }
}

/// The place of a sender in the queue for room: the number of senders that had entered it up to
/// there. The sender may have left it since.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct WriteWaiter(u64);

/// Leaves the queue for room on drop. Streams are few, and stay in it; the number of callers of
/// one-way calls is not bounded.
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

/// The way in which the connection is to end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Closing {
    /// Take no new requests, finish the open calls, then send status 8.
    Drain,
    /// End immediately.
    Force,
}

/// The locked state. Work that was deferred while it was locked is done after it is unlocked.
pub(crate) struct Locked<'a> {
    // The order matters: fields are dropped in the order of their declaration.
    state: MutexGuard<'a, State>,
    unlocked: Unlocked<'a>,
}

/// Does the deferred work on drop.
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
    /// Server: this connection's share of the server's totals.
    pub(crate) share: Option<Share>,
    /// Notified when the first channel was granted or rejected, or the connection ended.
    pub(crate) ready: Notify,
    pub(crate) done: Notify,
    alive: AtomicBool,
    /// Client: the connection was retired because its channels did not become free.
    stalled: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Other connections may use the rest of this one's share.
            let wakers = share.tell(&mut state.told, 0);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl Shared {
    /// `share` is set for a connection of a server.
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

    /// Locks the state. No user code runs under this lock, so the data behind a poisoned lock is
    /// still consistent. Deferred work is done after it is released.
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

    /// Like [`command`](Self::command), but wakes the driver only if there is something to write
    /// afterwards.
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

    /// Returns `true` if the connection takes calls. Reads a flag without the lock; a call that
    /// starts just before the end is still notified.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Marks the connection as ended. By the time its users are notified it gets no more calls:
    /// `wakers` must be woken after the lock is released.
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

    /// Client: ends the calls whose deadline has passed. A connection whose channels do not become
    /// free is retired.
    #[inline]
    pub(crate) fn expire(&self, state: &mut State, now: Instant, wakers: &mut Vec<Waker>) {
        if state.calls.expire(&mut state.proto, now, wakers) {
            self.note_retired(state);
        }
    }

    /// Client: updates the flags if the connection was retired after a call was rejected or
    /// expired.
    fn note_retired(&self, state: &mut State) {
        if state.calls.is_retired() {
            self.stalled.store(true, Ordering::Release);
            self.alive.store(false, Ordering::Release);
            state.closing = state.closing.max(Some(Closing::Drain));
        }
    }

    /// Client: returns `true` if the connection was retired because its channels did not become
    /// free.
    pub(crate) fn was_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Client: retires the connection because the server is going away. Further calls use another
    /// connection; this one ends with its last call.
    pub(crate) fn retire(&self, state: &mut State) {
        self.alive.store(false, Ordering::Release);
        state.leaving = true;
        state.closing = state.closing.max(Some(Closing::Drain));
    }

    pub(crate) fn close(&self, how: Closing) {
        self.command(|state| state.closing = state.closing.max(Some(how)));
    }

    /// Waits until the driver has released the socket.
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
/// Callers usually use a [`Client`](crate::Client), which makes connections and replaces lost ones.
/// The connection ends when the client is closed or dropped.
#[derive(Clone)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
}

impl Connection {
    /// Returns the peer of the connection.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.shared.peer
    }

    /// Calls `path` with `body` and waits for the reply until `deadline`, which also limits the
    /// wait for a channel.
    ///
    /// The request is queued when this function is called, not when the future is polled.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]; [`CallError::execution`] returns whether the call may have run.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call: the server is notified if it supports that, and its
    /// reply is discarded. The connection and other calls are not affected.
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

    /// Like [`call`](Self::call), but with data that `encode` writes into a buffer, from which
    /// small data is copied directly to the frames that wait to be written; `encode` returns the
    /// piece that follows it, see [`Body::split`].
    ///
    /// The call must be awaited next, by the task of `cx`; see
    /// [`with_context`](crate::with_context).
    ///
    /// # Errors
    ///
    /// Returns the error of `encode`.
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

    /// Like [`start_encoded`](Self::start_encoded), but with data that is already encoded.
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

    /// Starts a call in this very poll, with its waker: the call must be awaited next.
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
        let id = match path {
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
        Call::new(self.shared, id, &times, waker.is_some())
    }

    /// Starts a one-way request, see [`Client::send`](crate::Client::send): the call ends when it
    /// is queued for writing. Wait for [room](Self::room_for_one_way) first.
    ///
    /// # Errors
    ///
    /// Returns the error of `encode`.
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

    /// Waits until there is room for one more one-way request, at the latest until `deadline`.
    ///
    /// # Errors
    ///
    /// Fails if there was no room in time.
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

    /// Starts a call with a stream of bytes in each direction; the outgoing one begins with the
    /// data that `encode` writes. See [`SendStream`] and [`RecvStream`]. Once the call is under
    /// way, its deadline is that of [`RecvStream::set_deadline`].
    ///
    /// # Errors
    ///
    /// Returns the error of `encode`. Other errors are returned by [`RecvStream::answer`].
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
        // The rest of the first part is dropped without the lock.
        let (mut first, mut marked) = (Body::default(), Body::default());
        let id = match path {
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
                let started = calls.start(proto, path, &start, &mut marked, None);
                started.inspect_err(|_| self.shared.note_retired(state))
            }),
        };
        let shared = Arc::clone(&self.shared);
        let call = Call::new(self.shared, id, times, false);
        stream::of_call(&shared, call, rest)
    }

    /// Starts a call that ends when a channel is available for its owner.
    pub(crate) fn lease(&self, now: Instant, deadline: Instant) -> Call {
        let id = self.shared.command(|state| {
            state.check_alive()?;
            let lease = state.calls.start_lease(&mut state.proto, now, deadline);
            lease.inspect_err(|_| self.shared.note_retired(state))
        });
        let times = CallTimes {
            started: now,
            connected: now,
            deadline,
        };
        Call::new(Arc::clone(&self.shared), id, &times, false)
    }

    /// Returns the reason why the connection ended, or `None` while it is alive.
    #[must_use]
    pub fn ended(&self) -> Option<ConnectionError> {
        self.shared.lock().ended.clone()
    }

    /// Waits until the connection has ended, and returns the reason.
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

/// Checks that a path can be called.
#[inline]
pub(crate) fn check_path(path: &str) -> Result<&str, CallErrorKind> {
    let suspect = path.bytes().any(|byte| byte == 0 || byte == b'%');
    if path.is_empty() || path.len() > MAX_PATH_BYTES || (suspect && has_nul(path)) {
        return Err(CallErrorKind::InvalidPath(path.chars().take(128).collect()));
    }
    Ok(path)
}

/// Returns `true` if the path contains a NUL, which ends the path field. `%00` counts: a server
/// that decodes it may put a NUL into its reply (defect D18).
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
        // The place belongs to another task now, which must be woken.
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[0])));
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[1])));
        state.wake_writers();
        drop(state);
        assert_eq!(counts[1].0.load(Ordering::Relaxed), 4);
        assert_eq!(counts[0].0.load(Ordering::Relaxed), 3);
    }
}
