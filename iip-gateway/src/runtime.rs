//! The runtime of a worker of the gateway.
//!
//! Under a high load the thread of a worker always has requests. Threads that share its core then
//! run only when the kernel's scheduler interrupts it, every 4 ms on many systems: other workers,
//! and clients and backends on the same machine. So the thread yields in between.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

/// Requests that a thread handles without sleeping before it yields. With fewer there is no high
/// load, and a thread that yields could wait for one that computes all the time.
const MIN_REQUESTS: u32 = 16;

/// The shortest time between yields: each one lets all other threads run.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

thread_local! {
    /// The load of this thread. `None` if it does not run the runtime of a worker.
    static LOAD: Cell<Option<Load>> = const { Cell::new(None) };
}

/// The load of a thread since it last slept.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Load {
    /// Requests since it last woke up or yielded.
    requests: u32,
    yielded: Option<Instant>,
}

/// Creates a runtime for a worker: for a thread that calls
/// [`Gateway::serve`](crate::Gateway::serve) and does nothing else, as those of the program
/// `iip-gateway`.
///
/// It is a current-thread runtime, with one addition: under a high load its thread yields about
/// once a millisecond, so that clients, backends and other workers on the same cores do not wait
/// for the kernel's scheduler to interrupt it.
///
/// # Errors
///
/// A resource of the runtime, such as a file descriptor, cannot be created.
pub fn worker_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(woken)
        .build()
}

/// Records that the thread has slept.
fn woken() {
    let load = LOAD.get().unwrap_or_default();
    LOAD.set(Some(Load {
        requests: 0,
        ..load
    }));
}

/// Records a request. Yields to other threads if this is the thread of a worker under a high load.
pub(crate) fn begin_request() {
    let Some(mut load) = LOAD.get() else {
        return;
    };
    load.requests = load.requests.saturating_add(1);
    let is_due = |at: Instant| at.elapsed() >= MIN_INTERVAL;
    if load.requests >= MIN_REQUESTS && load.yielded.is_none_or(is_due) {
        std::thread::yield_now();
        load = Load {
            requests: 0,
            yielded: Some(Instant::now()),
        };
    }
    LOAD.set(Some(load));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin_requests(count: u32) {
        for _ in 0..count {
            begin_request();
        }
    }

    fn load() -> Load {
        LOAD.get().expect("the thread of a worker")
    }

    #[test]
    fn a_worker_yields_after_many_requests_without_sleeping() {
        let runtime = worker_runtime().expect("a runtime");
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            begin_requests(MIN_REQUESTS - 1);
            assert_eq!((load().requests, load().yielded), (MIN_REQUESTS - 1, None));
            begin_request();
            assert_eq!(load().requests, 0);
            assert!(load().yielded.is_some());
        });
    }

    #[test]
    fn a_worker_that_sleeps_between_requests_does_not_yield() {
        woken();
        begin_requests(MIN_REQUESTS - 1);
        woken();
        begin_requests(MIN_REQUESTS - 1);
        assert_eq!(load().yielded, None);
    }

    #[test]
    fn a_worker_that_has_just_yielded_does_not_yield_again() {
        let yielded = Some(Instant::now() + Duration::from_secs(3600));
        LOAD.set(Some(Load {
            requests: 0,
            yielded,
        }));
        begin_requests(2 * MIN_REQUESTS);
        assert_eq!(
            (load().requests, load().yielded),
            (2 * MIN_REQUESTS, yielded)
        );
    }

    #[test]
    fn other_threads_do_not_yield() {
        begin_requests(2 * MIN_REQUESTS);
        assert_eq!(LOAD.get(), None);
    }
}
