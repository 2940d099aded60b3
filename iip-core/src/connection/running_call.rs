//! The guard of a call whose handler waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::shared::Shared;
use crate::totals::Counted;

/// A guard that counts a call from the time its handler has to wait until the handler has ended,
/// and the bytes that the call holds.
#[derive(Debug)]
pub struct RunningCall {
    shared: Arc<Shared>,
    counted: Counted,
    bytes: usize,
}

impl RunningCall {
    /// Creates the guard of a call that holds `bytes` of its connection's budget.
    pub(crate) fn new(shared: Arc<Shared>, counted: Counted, bytes: usize) -> Self {
        match (&counted, &shared.share) {
            // The limits were checked before. Checking and counting are two steps, so handlers that
            // start at the same time may exceed a limit by a few.
            (Counted::Now, Some(share)) => share.enter(),
            (Counted::Apart(places), _) => {
                places.taken.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        Self {
            shared,
            counted,
            bytes,
        }
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // The driver is woken, because the connection may have room to read again.
            let wakers = self.shared.command(|state| {
                state.proto.release(self.bytes);
                match (&state.ended, &self.shared.share) {
                    // The driver of the connection no longer reports.
                    (Some(_), Some(share)) => share.tell(&mut state.told, state.proto.memory()),
                    _ => Vec::new(),
                }
            });
            wakers.into_iter().for_each(Waker::wake);
        }
        match (&self.counted, &self.shared.share) {
            (Counted::Now, Some(share)) => share.leave(),
            (Counted::Apart(places), _) => {
                places.taken.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
