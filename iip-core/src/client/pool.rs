//! The connections of a subchannel: one for each slot, used in turns.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use crate::clock;
use crate::connection::{Closing, Connection, Shared};
use crate::error::CallError;

/// The upper bound of all pauses.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// The minimum age at which a connection may be retired whose predecessor was retired. It doubles
/// for each further one in a row, up to [`MAX_BACKOFF`].
const FIRST_RETIREMENT: Duration = Duration::from_secs(1);
/// A connection that was in use for this long before it was retired counts as the first of a row.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);
/// Maximum number of retired connections of a client that still have calls.
const MAX_RETIRED: usize = 16;

/// All connections of a subchannel.
pub(super) struct Pool {
    pub(super) slots: Box<[ConnectionSlot]>,
    next: AtomicUsize,
    closed: AtomicBool,
    /// A connection was attempted.
    pub(super) used: AtomicBool,
    /// Notified when a slot has changed.
    pub(super) changed: Notify,
    pub(super) retired: Arc<Semaphore>,
}

/// The slot of one connection.
#[derive(Default)]
pub(super) struct ConnectionSlot {
    state: Mutex<ConnectionSlotState>,
}

/// The state of a slot, behind its lock.
#[derive(Default)]
pub(super) struct ConnectionSlotState {
    pub(super) phase: Phase,
    /// Number of attempts that failed since the last success.
    pub(super) failures: u32,
    /// Number of attempts, so that a waiter can identify the outcome of the one it waited for.
    pub(super) attempt: u64,
    /// Number of connections in a row that were retired.
    retirements: u32,
    /// Connections that were replaced and may still have calls.
    replaced: Vec<Weak<Shared>>,
}

/// The connection of a slot, or what it has instead.
#[derive(Default)]
pub(super) enum Phase {
    #[default]
    Down,
    Connecting,
    Up {
        connection: Connection,
        since: Instant,
    },
    Pausing {
        until: Instant,
        error: CallError,
    },
}

impl ConnectionSlot {
    pub(super) fn lock(&self) -> MutexGuard<'_, ConnectionSlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connection of the slot, if it is alive.
    #[inline]
    pub(super) fn ready(&self) -> Option<Connection> {
        self.lock().ready()
    }
}

impl ConnectionSlotState {
    #[inline]
    pub(super) fn ready(&self) -> Option<Connection> {
        match &self.phase {
            Phase::Up { connection, .. } if connection.shared.is_alive() => {
                Some(connection.clone())
            }
            _ => None,
        }
    }

    /// Returns `true` if a new connection is needed and may be attempted now.
    pub(super) fn wants_attempt(&self) -> bool {
        match &self.phase {
            Phase::Down => true,
            Phase::Connecting => false,
            Phase::Up { connection, .. } => !connection.shared.is_alive(),
            Phase::Pausing { until, .. } => *until <= clock::now(),
        }
    }

    /// Gives up the current connection, which continues until its calls have ended. Returns `true`
    /// if it had stalled.
    pub(super) fn replace(&mut self) -> bool {
        let mut stalled = false;
        if let Phase::Up { connection, since } = std::mem::take(&mut self.phase) {
            let recovered = clock::now().saturating_duration_since(since) >= RECOVERED_AFTER;
            stalled = connection.shared.was_stalled();
            self.retirements = match stalled {
                false => 0,
                true if recovered => 1,
                true => self.retirements.saturating_add(1),
            };
            // Weak, because a connection lives as long as its driver and its calls, and not as its
            // client.
            self.replaced.retain(|other| other.strong_count() > 0);
            self.replaced.push(Arc::downgrade(&connection.shared));
        }
        stalled
    }

    /// Returns the minimum age at which the next connection may be retired.
    pub(super) fn retirement_age(&self) -> Duration {
        match self.retirements {
            0 => Duration::ZERO,
            count => FIRST_RETIREMENT
                // The bound keeps the shift within its type; the maximum is reached long before.
                .saturating_mul(1 << (count - 1).min(16))
                .min(MAX_BACKOFF),
        }
    }
}

impl Pool {
    pub(super) fn new(connections: usize) -> Self {
        Self {
            slots: (0..connections)
                .map(|_| ConnectionSlot::default())
                .collect(),
            next: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            used: AtomicBool::new(false),
            changed: Notify::new(),
            retired: Arc::new(Semaphore::new(MAX_RETIRED)),
        }
    }

    /// Returns the index of the next slot: calls use the connections in turns.
    #[inline]
    pub(super) fn turn(&self) -> usize {
        match self.slots.len() {
            1 => 0,
            slots => self.next.fetch_add(1, Ordering::Relaxed) % slots,
        }
    }

    /// Returns all slots, beginning with the one at `turn`.
    pub(super) fn from(&self, turn: usize) -> impl Iterator<Item = (usize, &ConnectionSlot)> {
        let (before, after) = self.slots.split_at(turn);
        let after = after.iter().enumerate();
        let after = after.map(move |(index, slot)| (turn + index, slot));
        after.chain(before.iter().enumerate())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns `true` if a connection was ever attempted.
    pub(super) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns `true` if a connection takes calls.
    pub(super) fn is_connected(&self) -> bool {
        self.slots.iter().any(|slot| slot.ready().is_some())
    }

    /// Returns the connections that have not ended.
    pub(super) fn all_shared(&self) -> Vec<Arc<Shared>> {
        let mut all = Vec::new();
        for slot in &self.slots {
            let state = slot.lock();
            if let Phase::Up { connection, .. } = &state.phase {
                all.push(Arc::clone(&connection.shared));
            }
            all.extend(state.replaced.iter().filter_map(Weak::upgrade));
        }
        all.retain(|shared| shared.lock().ended.is_none());
        all
    }

    /// Rejects further calls.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Lets all connections end once their calls are replied, and returns them.
    pub(super) fn drain(&self) -> Vec<Connection> {
        let mut connections = Vec::new();
        for slot in &self.slots {
            let mut state = slot.lock();
            state.replace();
            // The connection that was up is one of them now.
            let replaced = std::mem::take(&mut state.replaced);
            drop(state);
            for shared in replaced.iter().filter_map(Weak::upgrade) {
                shared.close(Closing::Drain);
                connections.push(Connection { shared });
            }
        }
        self.changed.notify_waiters();
        connections
    }
}
