//! Shutdown of a gateway: its listeners and connections are notified, and it waits until they have
//! ended. Connections on the port of an IIP server are notified by the server.

use std::pin::Pin;
use std::time::Duration;

use iip_core::DrainSignal;
use tokio::sync::watch;
use tokio::time::timeout;

/// The state of listeners and connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// Requests are served.
    Serving,
    /// Connections end once their requests are replied to.
    Draining,
    /// Connections end now.
    Closing,
}

/// The sending half, for the gateway.
#[derive(Debug)]
pub(crate) struct Drainer(watch::Sender<Phase>);

impl Drainer {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }

    pub(crate) fn drain(&self) -> Drain {
        Drain::Gateway(self.0.subscribe())
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

/// The receiving half, for a listener or connection. The gateway waits until all are dropped.
#[derive(Clone, Debug)]
pub(crate) enum Drain {
    Gateway(watch::Receiver<Phase>),
    /// The server drops connections that have not ended in time.
    Server(DrainSignal),
}

impl Drain {
    /// Returns `true` once the connection is to end.
    pub(crate) fn has_begun(&self) -> bool {
        match self {
            Self::Gateway(phase) => *phase.borrow() >= Phase::Draining,
            Self::Server(signal) => signal.has_begun(),
        }
    }

    /// Waits until the connection is to end.
    pub(crate) async fn begun(&mut self) {
        match self {
            Self::Gateway(phase) => reached(phase, Phase::Draining).await,
            Self::Server(signal) => signal.begun().await,
        }
    }

    /// Converts to a future that completes once the gateway shuts down.
    pub(crate) fn into_begun(mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.begun().await })
    }

    /// Waits until the time for running requests is over.
    pub(crate) async fn closing(&mut self) {
        match self {
            Self::Gateway(phase) => reached(phase, Phase::Closing).await,
            Self::Server(_) => std::future::pending().await,
        }
    }
}

async fn reached(current: &mut watch::Receiver<Phase>, phase: Phase) {
    // The sender lives as long as the gateway; without it, no change can follow.
    if current.wait_for(|&now| now >= phase).await.is_err() {
        std::future::pending().await
    }
}
