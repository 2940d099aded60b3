//! A recorder of handlers: it counts them, notifies the test of each, and holds them until the test
//! releases them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use iip_rpc::Status;
use tokio::sync::{Notify, Semaphore};

#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    /// Number of handlers that have begun.
    pub(crate) runs: Arc<AtomicU32>,
    /// Notified when a handler that waits has begun.
    pub(crate) entered: Arc<Notify>,
    /// Each permit releases one handler.
    pub(crate) gate: Arc<Semaphore>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            runs: Arc::default(),
            entered: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Recorder {
    /// Counts a handler, and returns its number.
    pub(crate) fn run(&self) -> u32 {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Counts a handler, and returns its number once the test has released it.
    pub(crate) async fn pass(&self) -> Result<u32, Status> {
        let run = self.run();
        self.entered.notify_one();
        let permit = self.gate.acquire().await;
        permit
            .map_err(|error| Status::internal(error.to_string()))?
            .forget();
        Ok(run)
    }

    pub(crate) fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}
