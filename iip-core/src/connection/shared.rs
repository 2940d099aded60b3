//! The state shared by a connection's driver and its users.

use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;

use super::peer::Peer;
use super::running::Running;
use crate::clock;
use crate::error::{CallError, CallErrorKind, ConnectionError};
use crate::frame::ChannelId;
use crate::proto::calls::CallTable;
use crate::proto::stream_state::StreamState;
use crate::proto::{self, StreamKey};
use crate::stats::ConnectionStats;
use crate::totals::Share;

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
    /// Number of bytes received.
    pub(crate) received_bytes: u64,
}

impl State {
    /// Wakes `waker` when there may be room to send more. A task has one place in the queue,
    /// however often it calls this.
    pub(crate) fn wait_to_write(&mut self, place: &mut WriteWaiter, waker: &Waker) {
        // A task may be polled for other reasons while it waits, and keeps its place.
        if let Some(known) = self.waiter_mut(*place) {
            let is_known = known.as_ref().is_some_and(|known| known.will_wake(waker));
            if !is_known {
                let before = known.replace(waker.clone());
                self.proto.deferred.drop_waker(before);
            }
            return;
        }
        self.write_waiters.push_back(Some(waker.clone()));
        // Places are numbered from 1 over the life of the connection, so the place of a task that
        // was served finds nothing, and 0 is no place.
        place.0 = self.served_waiters + self.write_waiters.len() as u64;
    }

    fn waiter_mut(&mut self, place: WriteWaiter) -> Option<&mut Option<Waker>> {
        let index = place.0.checked_sub(self.served_waiters + 1)?;
        self.write_waiters.get_mut(usize::try_from(index).ok()?)
    }

    /// Removes a task that has given up from the queue. Returns its waker, to be dropped without
    /// the lock.
    pub(super) fn stop_waiting(&mut self, place: WriteWaiter) -> Option<Waker> {
        // The other places must not move, so the place is emptied, and removed when it is the first
        // or the last one.
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

    /// Wakes waiting tasks because there may be room: as many as there is room for, and all of them
    /// once nothing waits to be written. Each will send some ten kilobytes; waking a thousand tasks
    /// when there is room for ten would cost more than their streams.
    pub(crate) fn wake_writers(&mut self) {
        // Tasks that are left out are woken after a later write, or when the connection ends.
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
        // A stream whose call has ended is not found, and its data is gone.
        for key in self.sharing_streams.drain(..) {
            if let Some(flow) = flow_of(&mut self.calls, &mut self.running, key) {
                flow.detach();
            }
        }
    }

    /// Grants streams the credit that was withheld while there was no room for their messages.
    fn grant_withheld(&mut self) {
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
        let limit = self.proto.limits().get_progress_timeout();
        // A client has no handlers, and never gives up a stream for this reason.
        let mut streams: Vec<_> = self
            .running
            .iter_mut()
            .filter_map(|(channel, running)| Some((channel, running.flow.as_deref_mut()?)))
            .collect();
        // The order decides in which order tasks are woken.
        streams.sort_unstable_by_key(|&(channel, _)| channel);
        streams
            .into_iter()
            .filter_map(|(_, flow)| flow.check_unread(now, limit, wakers))
            .min()
    }

    /// Wakes all tasks that wait for room, because the connection is gone.
    pub(crate) fn leave_room(&mut self, wakers: &mut Vec<Waker>) {
        self.served_waiters += self.write_waiters.len() as u64;
        wakers.extend(self.write_waiters.drain(..).flatten());
    }

    /// Client: counts the replies of this batch.
    pub(crate) fn count_replies(&mut self, now: Instant) {
        self.calls.replies.count(&mut self.proto.stats, now);
    }

    #[inline]
    pub(super) fn check_alive(&self) -> Result<(), CallError> {
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

/// Guard that runs the deferred work on drop.
struct Unlocked<'a> {
    shared: &'a Shared,
    has_work: bool,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        // The lock is still held here. The work is done by the drop of `unlocked`, which comes
        // after that of the guard.
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
    /// The time at which it was made.
    since: Instant,
    pub(crate) peer: Arc<Peer>,
    /// Server: this connection's share of the server's totals.
    pub(crate) share: Option<Share>,
    /// Notified when the first channel was granted or rejected, or the connection ended.
    pub(crate) ready: Notify,
    /// Notified when the connection has ended.
    pub(crate) done: Notify,
    /// The connection takes calls. This is read without the lock for every call.
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
    /// A connection of a server, without a socket.
    #[cfg(test)]
    pub(crate) fn of_server(share: Option<Share>) -> Arc<Self> {
        let proto = proto::Connection::new(
            crate::frame::Side::Server,
            crate::limits::Limits::default(),
            serde_json::Value::Null,
            clock::now(),
        );
        let peer = Arc::new(Peer::new(None, Vec::new()));
        Self::new(proto, CallTable::new(0, 0), peer, share)
    }

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
            received_bytes: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            since: clock::now(),
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
        // Another thread may have taken the work since the lock was released; then nothing is left.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let deferred = std::mem::take(&mut state.proto.deferred);
        let left = std::mem::take(&mut state.calls.left);
        drop(state);
        // Bodies of callers: their drop may run code of the callers.
        drop(left);
        deferred.run(&self.ready);
    }

    /// Runs `change` under the lock, then wakes the driver if it is parked.
    #[inline]
    pub(crate) fn command<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        // The driver stores its waker only after it has looked for work under this lock. If there
        // is none, the driver is awake, and looks again before it sleeps.
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Like [`command`](Self::command), but wakes the driver only if there is something to write
    /// afterwards, or if calls hold less.
    #[inline]
    pub(crate) fn stream_command<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.proto.memory();
        let result = change(&mut state);
        // Taking data from a stream mostly causes no window update, and then leaves the driver
        // asleep. What a call gives up leaves room to others, which the driver notifies.
        let driver = if state.proto.has_output() || state.proto.memory() < before {
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

    /// Server: reports the bytes that the connection holds, `reading` of which are not known to the
    /// machine, and takes over what the other connections leave to it. `wakers` receives those of
    /// other connections, to be woken without the lock. Both sides: uses the room that there is
    /// now, for withheld credit and for senders that no write would wake.
    pub(crate) fn share_memory(&self, state: &mut State, reading: usize, wakers: &mut Vec<Waker>) {
        if let Some(share) = &self.share {
            let held = state.proto.memory() + reading;
            wakers.append(&mut share.tell(&mut state.told, held));
            let allowance = share.allowance().saturating_sub(reading);
            state.proto.set_allowance(allowance);
        }
        state.grant_withheld();
        // Senders also wait for pieces of other streams, which may be given up, and for other
        // connections.
        let waits = !state.write_waiters.is_empty();
        if waits && !state.proto.has_output() && !state.proto.is_unread() {
            state.wake_writers();
        }
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
        // First of all, so that a caller that is notified below does not get this connection again.
        self.alive.store(false, Ordering::Release);
        state.ended = Some(error.clone());
        let now = clock::now();
        state.calls.fail_all(&mut state.proto, error, now, wakers);
        state.count_replies(now);
        state.proto.count_cancelled(now);
        // No handler of this connection can reply any more.
        state.cancel_all();
        state.leave_room(wakers);
    }

    /// Adds what was counted to the counters that the connections share, and returns the figures of
    /// the connection.
    pub(crate) fn stats(&self, now: Instant) -> ConnectionStats {
        let mut state = self.lock();
        state.count_replies(now);
        state.proto.stats.flush();
        ConnectionStats {
            peer: self.peer.addr(),
            age: now.saturating_duration_since(self.since),
            received_bytes: state.received_bytes,
            sent_bytes: state.proto.sent_bytes(),
            unsent_bytes: state.proto.outgoing(),
            in_flight: state.proto.open_calls() + state.calls.in_flight(),
            round_trip: state.proto.round_trip(),
            credit_stalls: state.proto.credit_stalls(),
            hello: self.peer.shared_hello(),
        }
    }

    /// Server: counts the open request of a channel as failed, in addition to its end.
    #[cold]
    pub(crate) fn count_failure(&self, channel: ChannelId, code: u8) {
        self.lock().proto.count_failure(channel, code);
    }

    pub(crate) fn on_ended(&self) {
        self.ready.notify_waiters();
        self.done.notify_waiters();
        self.peer.set_closed();
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
    pub(super) fn note_retired(&self, state: &mut State) {
        if state.calls.is_retired() {
            self.stalled.store(true, Ordering::Release);
            self.alive.store(false, Ordering::Release);
            // A connection that was closed by force stays so.
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
        // The pool replaces the connection at the next call; the calls that it has may end.
        self.alive.store(false, Ordering::Release);
        state.leaving = true;
        state.closing = state.closing.max(Some(Closing::Drain));
    }

    pub(crate) fn close(&self, how: Closing) {
        self.command(|state| state.closing = state.closing.max(Some(how)));
    }

    /// Waits until the connection has ended, and returns the reason. The socket may still be shut
    /// down after that.
    pub(crate) async fn closed(&self) -> ConnectionError {
        loop {
            // Registered before the state is looked at, so that an end in between is not missed.
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
