//! The connection of a subchannel for a call, and the attempts to connect: started when a call
//! needs a connection, repeated after pauses.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::pool::{MAX_BACKOFF, Phase};
use super::subchannel::Subchannel;
use crate::clock;
use crate::connection::{Closing, Connection};
use crate::error::{CallError, CallErrorKind, Execution, Phases};
use crate::proto::calls::Retirement;
use crate::proto::control;
use crate::random;

/// The maximum pause after the first failed attempt to connect. The maximum doubles with each
/// further failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The upper bound of the pauses of a balanced client while calls wait for a connection: after an
/// outage of all servers, they must not wait for the end of a long pause.
pub(super) const MAX_BACKOFF_IN_DEMAND: Duration = Duration::from_secs(2);

/// The path and the body of a ping. The reply does not matter: a Go server, which does not know the
/// path, replies with an error.
const PING: &str = control::PING;
const PING_BODY: &str = "{}";

/// The attempt that a caller waits for.
#[derive(Clone, Copy)]
struct Awaited {
    slot: usize,
    attempt: u64,
    /// The caller has started the attempt itself.
    own: bool,
}

impl Subchannel {
    /// Returns a live connection, if there is one.
    #[inline]
    pub(super) fn ready_connection(self: &Arc<Self>) -> Option<Connection> {
        let turn = self.pool.turn();
        let ready = self.pool.slots.get(turn)?.ready();
        if ready.is_none() && self.pool.slots.len() > 1 {
            return self.other_connection(turn);
        }
        ready
    }

    /// Returns the next live connection if the one at `turn` has been lost or was not made yet, and
    /// starts an attempt to replace that one.
    #[cold]
    fn other_connection(self: &Arc<Self>, turn: usize) -> Option<Connection> {
        let mut slots = self.pool.from(turn);
        let found = slots.find_map(|(_, slot)| slot.ready())?;
        if let Ok(runtime) = Handle::try_current()
            && !self.pool.is_closed()
        {
            self.attempt(&runtime, turn);
        }
        Some(found)
    }

    /// Returns a live connection, made if needed until `deadline`. `started` is the start of the
    /// call.
    pub(super) async fn make_connection(
        self: &Arc<Self>,
        started: Instant,
        deadline: Instant,
    ) -> Result<Connection, CallError> {
        let fail = |error: CallError| {
            error.with_phases(Phases {
                connect: clock::now().saturating_duration_since(started),
                ..Phases::default()
            })
        };
        let runtime = Handle::try_current()
            .map_err(|_| fail(CallError::not_sent(CallErrorKind::NoRuntime)))?;
        let turn = self.pool.turn();
        let mut awaited: Option<Awaited> = None;
        loop {
            // Enabled before the slots are looked at, so that a change in between is not missed.
            let changed = self.pool.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.pool.is_closed() {
                return Err(CallError::not_sent(CallErrorKind::Closed));
            }
            let mut slots = self.pool.from(turn);
            if let Some(connection) = slots.find_map(|(_, slot)| slot.ready()) {
                return Ok(connection);
            }
            if let Some(error) = awaited.and_then(|awaited| self.failure_of(awaited)) {
                return Err(fail(error));
            }
            match self.attempt_from(&runtime, turn) {
                Ok(next) => {
                    // A later look at the same attempt does not know whether this caller has
                    // started it.
                    let same = awaited.is_some_and(|awaited| {
                        (awaited.slot, awaited.attempt) == (next.slot, next.attempt)
                    });
                    if !same {
                        awaited = Some(next);
                    }
                }
                Err(error) => return Err(fail(error)),
            }
            if tokio::time::timeout_at(deadline.into(), changed)
                .await
                .is_err()
            {
                let error = CallError::new(
                    CallErrorKind::Timeout,
                    Execution::NotSent,
                    Phases::default(),
                );
                return Err(fail(error));
            }
        }
    }

    /// Returns the reason why the attempt that a caller waited for has failed, if it has.
    fn failure_of(&self, awaited: Awaited) -> Option<CallError> {
        let state = self.pool.slots.get(awaited.slot)?.lock();
        if state.attempt != awaited.attempt {
            return None;
        }
        match &state.phase {
            Phase::Pausing { error, .. } => Some(error.clone()),
            // The attempt was cancelled with its runtime. If that was the runtime of another
            // caller, the runtime of this one may succeed.
            Phase::Down if awaited.own => Some(CallError::not_sent(CallErrorKind::NoRuntime)),
            _ => None,
        }
    }

    /// Makes sure that an attempt to connect is under way, if there is no connection.
    ///
    /// # Errors
    ///
    /// Returns the last error if all slots pause after a failure.
    pub(super) fn ensure_attempt(self: &Arc<Self>, runtime: &Handle) -> Result<(), CallError> {
        if self.ready_connection().is_some() {
            return Ok(());
        }
        self.attempt_from(runtime, self.pool.turn()).map(drop)
    }

    /// Ends the pauses after failed attempts, at the latest after `delay`.
    pub(super) fn end_pause(&self, delay: Duration) {
        let end = clock::after(clock::now(), delay);
        for slot in &self.pool.slots {
            if let Phase::Pausing { until, .. } = &mut slot.lock().phase {
                *until = end.min(*until);
            }
        }
    }

    /// Returns `true` if the server replies to a ping within `limit`.
    pub(super) async fn ping(self: &Arc<Self>, limit: Duration) -> bool {
        let now = clock::now();
        let deadline = clock::after(now, limit);
        let connection = match self.ready_connection() {
            Some(connection) => connection,
            None => match self.make_connection(now, deadline).await {
                Ok(connection) => connection,
                Err(_) => return false,
            },
        };
        connection.call(PING, PING_BODY, deadline).await.is_ok()
    }

    /// Returns the attempt that is under way or starts now, on the first slot that does not pause
    /// after a failure; returns the last error if all of them pause.
    fn attempt_from(self: &Arc<Self>, runtime: &Handle, turn: usize) -> Result<Awaited, CallError> {
        let mut last = None;
        for (index, slot) in self.pool.from(turn) {
            // Between the two locks the attempt may have ended; its slot then pauses or is up.
            let own = self.attempt(runtime, index);
            let state = slot.lock();
            match &state.phase {
                Phase::Pausing { error, .. } if !own => {
                    last.get_or_insert_with(|| error.clone());
                }
                _ => {
                    return Ok(Awaited {
                        slot: index,
                        attempt: state.attempt,
                        own,
                    });
                }
            }
        }
        Err(last.unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed)))
    }

    /// Starts an attempt to connect if the slot needs one. It runs in its own task, because the
    /// caller that waits for it may be cancelled.
    fn attempt(self: &Arc<Self>, runtime: &Handle, index: usize) -> bool {
        let Some(slot) = self.pool.slots.get(index) else {
            return false;
        };
        if self.pool.is_closed() {
            return false;
        }
        self.pool.used.store(true, Ordering::Relaxed);
        // The slot is marked under its lock, so that one caller starts the attempt. The task is
        // spawned without it, because the drop of the attempt takes it.
        let (stalled, retirement) = {
            let mut state = slot.lock();
            if !state.wants_attempt() {
                return false;
            }
            let stalled = state.replace();
            state.phase = Phase::Connecting;
            state.attempt += 1;
            let retirement = Retirement {
                age: state.retirement_age(),
                places: Arc::clone(&self.pool.retired),
            };
            (stalled, retirement)
        };
        // A runtime that is shutting down drops the task at once, and with it the attempt.
        let mut attempt = PendingConnection {
            subchannel: Arc::clone(self),
            index,
            target: String::new(),
            outcome: None,
        };
        runtime.spawn(async move {
            attempt.target = attempt.subchannel.connector.describe();
            if stalled {
                tracing::warn!(
                    target = %attempt.target,
                    "connection replaced: more than half of its channels wait for replies to \
                     abandoned calls"
                );
            }
            let outcome = attempt.subchannel.connect(retirement).await;
            attempt.end(outcome);
        });
        true
    }

    /// Starts an attempt to connect after a pause, if the slot needs one then.
    fn attempt_after(self: &Arc<Self>, pause: Duration, index: usize) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let subchannel = Arc::downgrade(self);
        drop(runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            if let (Some(subchannel), Ok(runtime)) = (subchannel.upgrade(), Handle::try_current()) {
                subchannel.attempt(&runtime, index);
            }
        }));
    }

    /// Waits in a task for the end of a connection, and reports to the owner if no other is left.
    fn report_loss(self: &Arc<Self>, connection: Connection) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let subchannel = Arc::downgrade(self);
        drop(runtime.spawn(async move {
            connection.closed().await;
            drop(connection);
            if let Some(subchannel) = subchannel.upgrade()
                && !subchannel.pool.is_connected()
                && let Some(owner) = &subchannel.owner
            {
                owner.lost();
            }
        }));
    }
}

/// The outcome of an attempt to connect.
enum Attempt {
    Connected(Connection),
    /// The next attempt follows after this pause.
    Failed(Duration),
    Cancelled,
}

/// An attempt to connect that is under way. When it ends, even by a panic or with its runtime, its
/// slot is updated and the waiting callers are woken.
struct PendingConnection {
    subchannel: Arc<Subchannel>,
    index: usize,
    target: String,
    outcome: Option<Result<Connection, CallError>>,
}

impl PendingConnection {
    fn end(mut self, outcome: Result<Connection, CallError>) {
        self.outcome = Some(outcome);
    }

    /// Returns the outcome of the attempt; `None` if it was cancelled.
    fn outcome(&mut self) -> Option<Result<Connection, CallError>> {
        if self.outcome.is_none() && std::thread::panicking() {
            let source = io::Error::other("the attempt panicked");
            return Some(Err(CallError::not_sent(CallErrorKind::Connect {
                target: std::mem::take(&mut self.target),
                source: Arc::new(source),
            })));
        }
        self.outcome.take()
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        let outcome = self.outcome();
        let pool = &self.subchannel.pool;
        let Some(slot) = pool.slots.get(self.index) else {
            return;
        };
        let owner = self.subchannel.owner.as_deref();
        let max_backoff = match owner.is_some_and(|owner| owner.has_waiting_calls()) {
            true => MAX_BACKOFF_IN_DEMAND,
            false => MAX_BACKOFF,
        };
        let mut state = slot.lock();
        let attempt = match outcome {
            None => {
                state.phase = Phase::Down;
                Attempt::Cancelled
            }
            // A closed pool is marked before its slots are drained, so this connection is either
            // seen here or found there.
            Some(Ok(connection)) if pool.is_closed() => {
                connection.shared.close(Closing::Force);
                state.phase = Phase::Down;
                Attempt::Cancelled
            }
            Some(Ok(connection)) => {
                state.failures = 0;
                let since = clock::now();
                state.phase = Phase::Up {
                    connection: connection.clone(),
                    since,
                };
                Attempt::Connected(connection)
            }
            Some(Err(error)) => {
                let limit = FIRST_BACKOFF
                    .saturating_mul(1 << state.failures.min(16))
                    .min(max_backoff);
                // Full jitter: clients that lost their connections together do not connect together
                // again.
                let pause = limit.mul_f64(random::random_fraction());
                let causes = std::iter::successors(std::error::Error::source(&error), |cause| {
                    cause.source()
                });
                let causes: Vec<String> = causes.map(ToString::to_string).collect();
                tracing::debug!(target = %self.target, %error, ?causes, ?pause, "cannot connect");
                state.failures = state.failures.saturating_add(1);
                let until = clock::now() + pause;
                state.phase = Phase::Pausing { until, error };
                Attempt::Failed(pause)
            }
        };
        // The waiting callers look at the slot at once.
        drop(state);
        pool.changed.notify_waiters();
        if let Some(owner) = owner {
            match attempt {
                Attempt::Connected(connection) => {
                    owner.connected();
                    self.subchannel.report_loss(connection);
                }
                Attempt::Failed(pause) => {
                    owner.refused();
                    self.subchannel.attempt_after(pause, self.index);
                }
                Attempt::Cancelled => owner.cancelled(),
            }
        }
    }
}
