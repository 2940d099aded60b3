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
        let partial = self.decoder.partial();
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
        // The socket was read until it had nothing more.
        if polled_read {
            state.proto.timers().on_read_idle(now);
        }
        let output = !self.batch.is_empty() || state.proto.has_output();
        state.proto.on_parked(now, output);
        let wake_at = state.proto.poll_timeout(partial);
        if wake_at.is_some_and(|at| at <= now)
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
        let mut wake_at = earliest(wake_at, state.calls.next_deadline());
        wake_at = earliest(wake_at, unread_at);
        wake_at = earliest(wake_at, alive_at);
        let quiet = state.proto.is_quiet()
            && self.batch.is_empty()
            && self.events.is_empty()
            && !self.unflushed;
        if quiet && !self.released {
            // Calls that last, such as streams with rare messages, keep the buffers of a connection
            // no longer than an idle connection does.
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
        // From here on a task that adds work wakes this one.
        state.driver = Some(cx.waker().clone());
        drop(guard);
        Ok(if self.poll_timer(cx, wake_at, now) {
            Turn::Again
        } else {
            Turn::Park
        })
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
