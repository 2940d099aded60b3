//! The end of a driver's turn with nothing to do: which timer it sets, and what it gives back.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{BUSY_READS, Driver, RELEASE_AFTER, Turn, on_written};
use crate::clock;
use crate::connection::{Closing, State};
use crate::error::ConnectionError;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Prepares to sleep: checks the limits and the end, and sets the wakeups.
    pub(super) fn park(
        &mut self,
        cx: &mut Context<'_>,
        polled_read: bool,
    ) -> Result<Turn, ConnectionError> {
        let now = clock::now();
        let shared = Arc::clone(&self.shared);
        // The lock is held from here until the waker is stored. Work that another task adds is
        // either seen below, or the task finds the waker.
        let mut guard = shared.lock();
        let state = &mut *guard;
        if self.written > 0 {
            on_written(state, std::mem::take(&mut self.written), now);
        }
        // This may free channels and add output, so it comes before the look for work.
        shared.expire(state, now, &mut self.wakers);
        // Other tasks may have given up memory since this turn checked, and then found no waker.
        shared.share_memory(state, self.reading(), &mut self.wakers);
        // The socket was read until it had nothing more.
        if polled_read {
            state.proto.timers().on_read_idle(now);
        }
        let output = !self.batch.is_empty() || state.proto.has_output();
        state.proto.on_parked(now, output);
        let is_covered = self.timer_covers_limits(state, now);
        let mut wake_at = if is_covered {
            None
        } else {
            self.check_limits(state, now)?
        };
        let at_rest = state.proto.is_at_rest() && self.batch.is_empty() && !self.unflushed;
        match state.closing {
            // The next turn ends the connection.
            Some(Closing::Force) => return Ok(Turn::Again),
            Some(Closing::Drain)
                if state.proto.open_calls() == 0 && state.calls.in_flight() == 0 =>
            {
                if !self.close_queued {
                    self.close_queued = true;
                    state.proto.close();
                    return Ok(Turn::Again);
                }
                // A message that has only begun to arrive is not waited for.
                if !state.proto.has_output() && self.batch.is_empty() && !self.unflushed {
                    return Err(ConnectionError::ClosedLocally);
                }
            }
            // The open calls may finish; further calls should go to another connection.
            Some(Closing::Drain) if self.dispatcher.is_some() => state.proto.send_going_away(),
            _ => {}
        }
        if self.read_closed && at_rest && !self.more {
            return Err(ConnectionError::ClosedByPeer);
        }
        // Reading may have become possible since this turn checked.
        let wants_read = state.proto.wants_read() && !self.close_queued;
        let events =
            state.proto.has_room() && (state.proto.has_server_events() || !self.events.is_empty());
        let may_read = wants_read && (self.more || (!self.read_closed && !polled_read)) || events;
        if !self.wakers.is_empty()
            || may_read
            || (self.batch.is_empty() && state.proto.has_output())
        {
            drop(guard);
            self.wakers.drain(..).for_each(Waker::wake);
            return Ok(Turn::Again);
        }
        if !is_covered {
            wake_at = earliest(wake_at, self.release_when_quiet(state, now, at_rest));
        }
        if let Some(share) = &self.shared.share
            && state.proto.is_confined()
            && (state.proto.is_over_budget() || state.proto.is_unread())
            && share.wait(&mut self.asked, cx.waker())
        {
            // The other connections do not hold this lock: what they gave up before the waker was
            // registered is found by another look.
            return Ok(Turn::Again);
        }
        // From here on a task that adds work wakes this one.
        state.driver = Some(cx.waker().clone());
        drop(guard);
        Ok(if !is_covered && self.poll_timer(cx, wake_at, now) {
            Turn::Again
        } else {
            Turn::Park
        })
    }

    /// Returns `true` if the timer fires before any time limit can be reached, so that none needs
    /// to be checked now: the timer was set to fire before all that ran then, and it fires sooner
    /// than the shortest one that may have begun since.
    fn timer_covers_limits(&self, state: &State, now: Instant) -> bool {
        let Some(timer) = &self.timer else {
            return false;
        };
        let fires = timer.deadline().into_std();
        // The timer of a busy connection is set anew every `RELEASE_AFTER`. Others release their
        // buffers at once, which the check does.
        self.reads >= BUSY_READS
            && fires > now
            && fires - now <= self.shortest_limit
            && state.calls.next_deadline().is_none_or(|at| fires <= at)
            && state.proto.has_only_limits_from_now()
            && state.drain_at.is_none()
    }

    /// Checks all time limits. Returns the time at which the next one is reached.
    fn check_limits(
        &mut self,
        state: &mut State,
        now: Instant,
    ) -> Result<Option<Instant>, ConnectionError> {
        let partial = self.decoder.partial();
        let limit_at = state.proto.poll_timeout(partial);
        if limit_at.is_some_and(|at| at <= now)
            && let Err(error) = state.proto.handle_timeout(now, partial)
        {
            // An idle connection is closed gracefully.
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
                earliest(self.check_age(state, now), life_at)
            }
            None => {
                let waits = state.calls.in_flight() > 0;
                state.proto.keep_alive(now, waits)?
            }
        };
        let unread_at = state.check_unread(now, &mut self.wakers);
        let wake_at = earliest(limit_at, state.calls.next_deadline());
        Ok(earliest(earliest(wake_at, unread_at), alive_at))
    }

    /// Releases the memory of a connection on which nothing has moved for a while. Returns the time
    /// at which this must be called again.
    fn release_when_quiet(
        &mut self,
        state: &mut State,
        now: Instant,
        at_rest: bool,
    ) -> Option<Instant> {
        let quiet = state.proto.is_quiet()
            && self.batch.is_empty()
            && self.events.is_empty()
            && !self.unflushed;
        if !quiet || self.released {
            return None;
        }
        // Calls that last, such as streams with rare messages, keep the buffers of a connection no
        // longer than an idle connection does.
        let keeps = self.reads >= BUSY_READS || !at_rest || state.calls.in_flight() > 0;
        let release_at = state.proto.timers().last_moved() + RELEASE_AFTER;
        if keeps && now < release_at {
            return Some(release_at);
        }
        self.release_memory(state);
        None
    }

    /// Releases the memory that is needed only during work.
    pub(super) fn release_memory(&mut self, state: &mut State) {
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
        self.replies = Vec::new();
        self.wakers = Vec::new();
    }

    /// Server: drains a connection at its drain time or its maximum age, and closes it if draining
    /// for its age takes too long. Returns the time of the next check.
    pub(super) fn check_age(&self, state: &mut State, now: Instant) -> Option<Instant> {
        let (old_at, end_at) = self.ends.unzip();
        if end_at.is_some_and(|at| now >= at) {
            // The next turn ends the connection.
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

    /// Arms the timer. Returns `true` if it has fired already.
    pub(super) fn poll_timer(
        &mut self,
        cx: &mut Context<'_>,
        wake_at: Option<Instant>,
        now: Instant,
    ) -> bool {
        let Some(wake_at) = wake_at else { return false };
        let timer = match &mut self.timer {
            Some(timer) => {
                let fires = timer.deadline().into_std();
                if fires <= wake_at && fires > now {
                    // The timer is already set to wake this task.
                    return false;
                }
                // It would fire too late, or has fired and would not wake this task again.
                timer.as_mut().reset(wake_at.into());
                timer
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(wake_at.into()))),
        };
        // Polled outside the task's budget: with an exhausted budget the timer would not register
        // the waker.
        let timer = std::pin::pin!(tokio::task::unconstrained(timer.as_mut()));
        timer.poll(cx).is_ready()
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Poll, Wake};

    use tokio::io::ReadBuf;

    use super::*;
    use crate::connection::{Shared, WriteWaiter};
    use crate::frame::ChannelId;
    use crate::frame::Side;
    use crate::serve::{Dispatcher, Routes};
    use crate::totals::{FREE_BYTES, Share, Totals};

    const TOTAL_BYTES: usize = 1 << 20;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Woken {
        fn take(&self) -> bool {
            self.0.swap(false, Ordering::SeqCst)
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// A socket whose peer is silent. What it is given runs when it is read.
    struct Silent<F>(F);

    impl<F: FnMut() + Unpin> AsyncRead for Silent<F> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            (self.0)();
            Poll::Pending
        }
    }

    impl<F: Unpin> AsyncWrite for Silent<F> {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Returns a connection of a server whose other connections hold everything, and their share.
    fn confined() -> (Arc<Shared>, Share, usize) {
        let totals = Totals::new(1, TOTAL_BYTES);
        let others = Share::new(&totals, None);
        let mut told = 0;
        assert!(others.tell(&mut told, TOTAL_BYTES).is_empty());
        let share = Share::new(&totals, None);
        (Shared::of_server(Some(share)), others, told)
    }

    fn driver_of<F>(shared: &Arc<Shared>, on_read: F) -> Driver<Silent<F>>
    where
        F: FnMut() + Unpin,
    {
        let routes = Routes {
            handlers: HashMap::new(),
            fallback: None,
            shutting_down: AtomicBool::new(false),
        };
        let dispatcher = Dispatcher::new(Arc::new(routes));
        let shared = Arc::clone(shared);
        Driver::new(Silent(on_read), Side::Server, shared, Some(dispatcher))
    }

    #[tokio::test]
    async fn memory_that_others_give_up_while_a_driver_prepares_to_sleep_is_seen() {
        let (shared, others, mut told) = confined();
        shared.lock().proto.hold(2 * FREE_BYTES);
        // By then the driver knows what the others leave to it, and does not wait for more yet.
        let mut driver = driver_of(&shared, move || {
            let wakers = others.tell(&mut told, 0);
            wakers.into_iter().for_each(Waker::wake);
        });
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
        assert!(shared.lock().proto.wants_read() || woken.take());
    }

    #[tokio::test]
    async fn credit_is_granted_for_memory_that_is_given_up_while_a_driver_prepares_to_sleep() {
        let (shared, _others, _told) = confined();
        let mut state = shared.lock();
        state.proto.hold(2 * FREE_BYTES);
        state.proto.set_allowance(FREE_BYTES);
        assert!(state.proto.may_grant(ChannelId(1)), "one stream goes on");
        state.proto.withhold(ChannelId(2));
        drop(state);
        let (reader, mut held) = (Arc::clone(&shared), 2 * FREE_BYTES);
        let mut driver = driver_of(&shared, move || {
            let given_up = std::mem::take(&mut held);
            reader.command(|state| state.proto.release(given_up));
        });
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
        let left = shared.lock().proto.next_withheld();
        assert_eq!(left, None, "it may be granted more");
    }

    #[tokio::test]
    async fn a_sender_continues_when_other_connections_give_up_memory() {
        let (shared, others, mut told) = confined();
        let (sender, woken) = (Arc::<Woken>::default(), Arc::<Woken>::default());
        // The last piece of another stream waits for credit, and nothing waits to be written.
        let mut state = shared.lock();
        state.proto.set_unsent(0, 2 * FREE_BYTES);
        let waker = Waker::from(Arc::clone(&sender));
        state.wait_to_write(&mut WriteWaiter::default(), &waker);
        drop(state);
        let mut driver = driver_of(&shared, || {});
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
        assert!(!sender.take() && !woken.take());
        let wakers = others.tell(&mut told, 0);
        wakers.into_iter().for_each(Waker::wake);
        assert!(woken.take());
        assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
        assert!(sender.take());
    }
}
