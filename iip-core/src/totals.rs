//! The totals of all connections of a server: handlers that wait, and bytes that calls hold.
//!
//! Both have a limit. A connection may use at most several times what is left of it, so that even
//! the largest user always leaves a part for later ones (the dynamic thresholds of switches with a
//! shared buffer).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

use crate::handler_error::RejectReason;

/// Maximum number of handlers of a connection, and of all connections of one address, as a multiple
/// of the number that may still be started.
const SHARE_OF_REST: usize = 4;

/// Number of bytes that a connection may hold regardless of the others, and the step in which it
/// reports the bytes it holds.
pub(crate) const FREE_BYTES: usize = 64 * 1024;

/// The totals of all connections of one server.
#[derive(Debug)]
pub(crate) struct Totals {
    max_running: usize,
    max_bytes: usize,
    /// Number of handlers that had to wait and have not ended, including those whose connections
    /// have ended.
    running: AtomicUsize,
    /// Notified when the last of them has ended.
    idle: Notify,
    /// Number of bytes that connections have reported as held.
    bytes: AtomicUsize,
    connections: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Number of handlers by the address of their peers.
    addresses: HashMap<IpAddr, Arc<AtomicUsize>>,
    /// Wakers of drivers that do not read because of the bytes that others hold.
    waiting: Vec<Waker>,
    /// Number of times they were woken.
    wakes: u64,
}

impl Totals {
    pub(crate) fn new(max_running: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_running,
            max_bytes,
            running: AtomicUsize::new(0),
            idle: Notify::new(),
            bytes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            table: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of handlers that had to wait and have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Waits until there is no running handler that had to wait.
    pub(crate) async fn idle(&self) {
        loop {
            // Registered before the number is read, so that an end in between is not missed.
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// The share of one connection in the totals.
#[derive(Debug)]
pub(crate) struct Share {
    totals: Arc<Totals>,
    /// Number of handlers of this connection that had to wait and have not ended.
    running: AtomicUsize,
    /// Number of such handlers of all connections of its address.
    address: Option<(IpAddr, Arc<AtomicUsize>)>,
}

impl Share {
    pub(crate) fn new(totals: &Arc<Totals>, address: Option<IpAddr>) -> Self {
        totals.connections.fetch_add(1, Ordering::Relaxed);
        let address = address.map(|address| {
            let mut table = totals.lock();
            let running = table.addresses.entry(address).or_default();
            (address, Arc::clone(running))
        });
        Self {
            totals: Arc::clone(totals),
            running: AtomicUsize::new(0),
            address,
        }
    }

    /// Returns the number of handlers of this connection that had to wait and have not ended.
    #[inline]
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Returns the reason why one more handler may not run, if there is one.
    #[inline]
    pub(crate) fn reject_reason(&self) -> Option<RejectReason> {
        let running = self.totals.running.load(Ordering::Relaxed);
        // More than half of the limit is left then, so nobody can have several times what is left.
        if running < self.totals.max_running / 2 {
            return None;
        }
        self.reject_reason_under_load(running)
    }

    #[cold]
    fn reject_reason_under_load(&self, running: usize) -> Option<RejectReason> {
        let limit = self.totals.max_running;
        let left = limit.saturating_sub(running);
        if left == 0 {
            return Some(RejectReason::Overloaded { limit });
        }
        let share = left.saturating_mul(SHARE_OF_REST);
        // A connection that is alone need not leave anything to others.
        let others = self.totals.connections.load(Ordering::Relaxed) > 1;
        let is_greedy = others && self.running() >= share;
        let address_is_greedy = self.address.as_ref().is_some_and(|(_, running)| {
            running.load(Ordering::Relaxed) >= share && self.totals.lock().addresses.len() > 1
        });
        (is_greedy || address_is_greedy).then_some(RejectReason::ShareTaken { limit })
    }

    pub(crate) fn enter(&self) {
        // The numbers are only compared with limits, and guard no other data.
        self.totals.running.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        if let Some((_, running)) = &self.address {
            running.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn leave(&self) {
        if let Some((_, running)) = &self.address {
            running.fetch_sub(1, Ordering::Relaxed);
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        // Whoever sees zero in `idle` also sees what the handlers did before.
        if self.totals.running.fetch_sub(1, Ordering::Release) == 1 {
            self.totals.idle.notify_waiters();
        }
    }

    /// Returns the number of bytes that this connection may hold, given the bytes that the others
    /// hold.
    #[inline]
    pub(crate) fn allowance(&self) -> usize {
        let left = self
            .totals
            .max_bytes
            .saturating_sub(self.totals.bytes.load(Ordering::Relaxed));
        // Every connection may hold this much, or none could continue once the total is used up.
        left.max(FREE_BYTES)
    }

    /// Reports that the connection holds `now` bytes; `told` is the number it has reported before.
    /// Reports are made in steps, so that small calls of many connections do not contend here.
    /// Returns the wakers of the drivers that may continue, to be woken without any lock.
    #[inline]
    pub(crate) fn tell(&self, told: &mut usize, now: usize) -> Vec<Waker> {
        // Rounded down, so the total may be too low by one step for each connection.
        let now = now - now % FREE_BYTES;
        if now == *told {
            return Vec::new();
        }
        self.tell_now(std::mem::replace(told, now), now)
    }

    #[cold]
    fn tell_now(&self, before: usize, now: usize) -> Vec<Waker> {
        if now > before {
            self.totals.bytes.fetch_add(now - before, Ordering::Relaxed);
            return Vec::new();
        }
        self.totals.bytes.fetch_sub(before - now, Ordering::Relaxed);
        let mut table = self.totals.lock();
        // The number tells a driver whether its waker is still in the list. Each driver is in it
        // once.
        table.wakes += u64::from(!table.waiting.is_empty());
        std::mem::take(&mut table.waiting)
    }

    /// Wakes `waker` when others hold less. `asked` records that it is waiting already. Returns
    /// `true` if it was not: others may hold less since the [`allowance`](Self::allowance) was
    /// read, which must then be read again.
    pub(crate) fn wait(&self, asked: &mut Option<u64>, waker: &Waker) -> bool {
        let mut table = self.totals.lock();
        let is_new = *asked != Some(table.wakes);
        if is_new {
            *asked = Some(table.wakes);
            table.waiting.push(waker.clone());
        }
        is_new
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.totals.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some((address, running)) = self.address.take() {
            let mut table = self.totals.lock();
            // The two references are this one and that of the table. Others are only made under
            // this lock.
            if Arc::strong_count(&running) == 2 {
                table.addresses.remove(&address);
            }
        }
    }
}

/// A separate limit of running calls, see [`Handler::places`](crate::Handler::places).
#[derive(Debug)]
pub struct Places {
    option: &'static str,
    limit: usize,
    pub(crate) taken: AtomicUsize,
}

impl Places {
    /// Creates a limit of `limit` calls. Further calls are rejected, and the reason names `option`
    /// as the option to change.
    #[must_use]
    pub fn new(option: &'static str, limit: usize) -> Self {
        Self {
            option,
            limit,
            taken: AtomicUsize::new(0),
        }
    }

    pub(crate) fn reject_reason(&self) -> Option<RejectReason> {
        let &Self { option, limit, .. } = self;
        (self.taken.load(Ordering::Relaxed) >= limit)
            .then_some(RejectReason::NoPlace { option, limit })
    }
}

/// The counter for a call whose handler waits.
#[derive(Clone, Debug)]
pub(crate) enum Counted {
    /// The call counts among all calls of the server.
    Now,
    /// The call does not count yet, see [`Request::start`](crate::Request::start).
    Late,
    /// The call counts among those of its kind.
    Apart(Arc<Places>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(share: &Share) -> usize {
        let mut taken = 0;
        while share.reject_reason().is_none() {
            share.enter();
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_connection_that_is_alone_may_take_everything() {
        let totals = Totals::new(10, 0);
        let share = Share::new(&totals, None);
        assert_eq!(take(&share), 10);
        assert_eq!(
            share.reject_reason(),
            Some(RejectReason::Overloaded { limit: 10 })
        );
    }

    #[test]
    fn a_connection_always_leaves_a_part_for_others() {
        let totals = Totals::new(1000, 0);
        let (greedy, late) = (Share::new(&totals, None), Share::new(&totals, None));
        assert_eq!(take(&greedy), 800);
        assert_eq!(
            greedy.reject_reason(),
            Some(RejectReason::ShareTaken { limit: 1000 })
        );
        assert_eq!(late.reject_reason(), None);
    }

    #[test]
    fn all_connections_of_an_address_leave_a_part_for_others() {
        let totals = Totals::new(1000, 0);
        let [greedy, other] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let _other = Share::new(&totals, Some(other));
        let shares: Vec<_> = (0..100)
            .map(|_| Share::new(&totals, Some(greedy)))
            .collect();
        let taken: usize = shares.iter().map(take).sum();
        assert_eq!(taken, 800);
        drop(shares);
        assert_eq!(totals.lock().addresses.len(), 1, "only the other is left");
    }

    #[test]
    fn a_connection_that_is_gone_holds_nothing_of_the_servers_bytes() {
        let totals = Totals::new(1, 1 << 20);
        let shared = crate::connection::Shared::of_server(Some(Share::new(&totals, None)));
        let share = shared.share.as_ref().expect("a server's");
        assert!(share.tell(&mut shared.lock().told, 500_000).is_empty());
        assert!(share.allowance() < 600_000);
        drop(shared);
        assert_eq!(totals.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_a_connection_may_hold_shrinks_with_what_others_hold() {
        let totals = Totals::new(0, 1 << 20);
        let (one, other) = (Share::new(&totals, None), Share::new(&totals, None));
        let mut told = 0;
        assert!(one.tell(&mut told, 100).is_empty());
        assert_eq!(other.allowance(), 1 << 20, "small holdings are not told");
        assert!(one.tell(&mut told, 700_000).is_empty());
        assert_eq!(other.allowance(), (1 << 20) - 655_360);
        assert!(one.tell(&mut told, 5 << 20).is_empty());
        assert_eq!(other.allowance(), FREE_BYTES);
        let mut asked = None;
        assert!(other.wait(&mut asked, Waker::noop()));
        assert!(!other.wait(&mut asked, Waker::noop()));
        assert_eq!(totals.lock().waiting.len(), 1);
        assert_eq!(one.tell(&mut told, 0).len(), 1);
        assert_eq!(totals.lock().waiting.len(), 0);
        assert_eq!(other.allowance(), 1 << 20);
        assert!(other.wait(&mut asked, Waker::noop()));
        assert_eq!(totals.lock().waiting.len(), 1);
    }
}
