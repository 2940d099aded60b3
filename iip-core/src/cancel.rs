//! Cancellation of handlers whose callers have gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The policy for a running call whose caller has gone: it gave up, its time ran out, or it lost
/// its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnCancel {
    /// The handler's future is dropped at its current `await`.
    #[default]
    Abort,
    /// The handler continues and is notified through
    /// [`Request::cancelled`](crate::Request::cancelled).
    Token,
    /// The handler runs to its end.
    RunToEnd,
}

/// A token that notifies a handler when its caller has gone. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Option<Arc<CancelState>>);

#[derive(Debug, Default)]
struct CancelState {
    cancelled: AtomicBool,
    notify: Notify,
}

impl CancelToken {
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    pub(crate) fn cancel(&self) {
        if let Some(state) = &self.0 {
            state.cancelled.store(true, Ordering::Release);
            state.notify.notify_waiters();
        }
    }

    /// Returns `true` if the caller has gone.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|state| state.cancelled.load(Ordering::Acquire))
    }

    /// Waits until the caller has gone; never completes if the handler's policy is not
    /// [`OnCancel::Token`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn cancelled(&self) {
        let Some(state) = &self.0 else {
            return std::future::pending().await;
        };
        let mut notified = std::pin::pin!(state.notify.notified());
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }
}
