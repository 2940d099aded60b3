//! The end of a gateway: its listeners and connections learn of it, and it learns when they have
//! ended.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The state of listeners and connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    /// They serve.
    Serving,
    /// They end once their requests have their replies.
    Draining,
    /// They end now.
    Closing,
}

/// The side of the gateway.
#[derive(Debug)]
pub(crate) struct Drainer(watch::Sender<Phase>);

impl Drainer {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }

    pub(crate) fn drain(&self) -> Drain {
        Drain(self.0.subscribe())
    }

    /// Ends everything within `limit`; returns `true` if nothing had to be interrupted.
    pub(crate) async fn drain_within(&self, limit: Duration) -> bool {
        self.0.send_if_modified(|phase| {
            let changed = *phase < Phase::Draining;
            *phase = (*phase).max(Phase::Draining);
            changed
        });
        let ended = timeout(limit, self.0.closed()).await.is_ok();
        if !ended {
            self.0.send_replace(Phase::Closing);
            self.0.closed().await;
        }
        ended
    }
}

/// The side of a listener or connection. The gateway waits until all are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Receiver<Phase>);

impl Drain {
    /// Returns `true` once the gateway shuts down.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Waits until the gateway shuts down.
    pub(crate) async fn begun(&mut self) {
        self.reached(Phase::Draining).await;
    }

    /// Converts to a future that completes once the gateway shuts down.
    pub(crate) fn into_begun(mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.begun().await })
    }

    /// Waits until the time for running requests is over.
    pub(crate) async fn closing(&mut self) {
        self.reached(Phase::Closing).await;
    }

    async fn reached(&mut self, phase: Phase) {
        // The sender lives as long as the gateway; without it, nothing is announced any more.
        if self.0.wait_for(|&now| now >= phase).await.is_err() {
            std::future::pending().await
        }
    }
}
