//! The task of a balanced client.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::runtime::Handle;

use super::balanced::Balanced;
use crate::clock;
use crate::discover::{Discover, DiscoverError, Snapshot, SnapshotStream};

/// The pause before a source whose stream has ended is watched again.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause after an error: a source that repeats it without one must not occupy a core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

impl Balanced {
    /// Starts the task unless it runs. It ends with its runtime, and the next call that needs it
    /// starts it in its own.
    pub(super) fn ensure_task(self: &Arc<Self>, runtime: &Handle) {
        if !self.has_task.swap(true, Ordering::AcqRel) {
            let running = Running(Arc::downgrade(self));
            drop(runtime.spawn(run(running, Arc::clone(&self.source))));
        }
    }
}

/// The mark that the task runs. It is removed when the task ends, even with its runtime.
struct Running(Weak<Balanced>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(balanced) = self.0.upgrade() {
            balanced.has_task.store(false, Ordering::Release);
            // A call that waits starts it again.
            balanced.changed.notify_waiters();
        }
    }
}

/// Watches `source`, and keeps the client's picker current, until the client is closed.
async fn run(running: Running, source: Arc<dyn Discover>) {
    let Some(balanced) = running.0.upgrade() else {
        return;
    };
    let work = Arc::clone(&balanced.work);
    let grace = balanced.config.balance.get_empty_grace();
    if let Ok(runtime) = Handle::try_current() {
        balanced.reconnect(&runtime);
    }
    drop(balanced);
    let mut watch = Watch::new(source);
    let mut empty = Empty { grace, held: None };
    let mut next_refresh = None;
    loop {
        let wake = [next_refresh, empty.until()].into_iter().flatten().min();
        let item = tokio::select! {
            biased;
            item = watch.next() => Some(item),
            () = work.notified() => None,
            () = sleep_until(wake) => None,
        };
        // The client holds no task: it is gone once its last clone is dropped.
        let Some(balanced) = running.0.upgrade() else {
            return;
        };
        if balanced.is_closed() {
            return;
        }
        handle(&balanced, item, &mut empty);
        next_refresh = balanced.refresh();
        balanced.ping_due();
    }
}

fn handle(
    balanced: &Arc<Balanced>,
    item: Option<Result<Snapshot, DiscoverError>>,
    empty: &mut Empty,
) {
    match item {
        Some(Ok(snapshot)) => {
            let is_held = snapshot.backends.is_empty() && balanced.has_backends();
            if is_held {
                empty.hold(snapshot);
            } else {
                empty.held = None;
                balanced.apply(&snapshot);
            }
        }
        Some(Err(error)) => balanced.failed(error),
        None => {}
    }
    if let Some(snapshot) = empty.take_due() {
        tracing::warn!(
            source = %balanced.source.describe(),
            grace = ?empty.grace,
            "the source has returned no backends for the whole grace: there are none now"
        );
        balanced.apply(&snapshot);
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// An empty snapshot, which is not believed before a grace has passed.
struct Empty {
    grace: Duration,
    held: Option<(Snapshot, Instant)>,
}

impl Empty {
    fn hold(&mut self, snapshot: Snapshot) {
        // A repetition does not begin the grace anew.
        let until = self.until();
        let until = until.unwrap_or_else(|| clock::after(clock::now(), self.grace));
        self.held = Some((snapshot, until));
    }

    fn until(&self) -> Option<Instant> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    fn take_due(&mut self) -> Option<Snapshot> {
        let due = self.until().is_some_and(|until| until <= clock::now());
        let (snapshot, _) = if due { self.held.take()? } else { return None };
        Some(snapshot)
    }
}

/// The items of a source. A stream that ends is replaced after a pause.
struct Watch {
    source: Arc<dyn Discover>,
    stream: Option<SnapshotStream>,
    resume_at: Instant,
}

impl Watch {
    fn new(source: Arc<dyn Discover>) -> Self {
        Self {
            source,
            stream: None,
            resume_at: clock::now(),
        }
    }

    /// Returns the next item. Can be dropped and called again; no item is lost.
    async fn next(&mut self) -> Result<Snapshot, DiscoverError> {
        loop {
            if self.resume_at > clock::now() {
                tokio::time::sleep_until(self.resume_at.into()).await;
            }
            let Some(stream) = &mut self.stream else {
                self.stream = Some(self.source.watch());
                continue;
            };
            if let Some(item) = poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await {
                if item.is_err() {
                    self.resume_at = clock::after(clock::now(), PAUSE_AFTER_ERROR);
                }
                return item;
            }
            self.stream = None;
            self.resume_at = clock::after(clock::now(), PAUSE);
        }
    }
}
