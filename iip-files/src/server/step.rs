//! The blocking steps of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use iip_rpc::Status;
use tokio::sync::OwnedSemaphorePermit;

use crate::failure::blocking;

/// Set once the call of a step has been dropped.
pub(super) type Stop = AtomicBool;

/// Fails if the call of a step has been dropped.
pub(super) fn check(stop: &Stop) -> Result<(), Status> {
    if stop.load(Ordering::Relaxed) {
        return Err(Status::cancelled("the call was cancelled"));
    }
    Ok(())
}

/// Runs a blocking step, which holds the place until its end, even if the call is dropped. Returns
/// its result with the place.
pub(super) async fn holding<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    step: impl FnOnce(&Stop) -> Result<T, Status> + Send + 'static,
) -> Result<(T, OwnedSemaphorePermit), Status> {
    let stop = Arc::new(Stop::new(false));
    let _stop = StopOnDrop(Arc::clone(&stop));
    blocking(move || Ok((step(&stop)?, place))).await
}

struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
