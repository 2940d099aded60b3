//! Watching the keys below a prefix.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use iip_core::balance::BackendInfo;
use iip_core::discover::{DiscoverError, Snapshot, SnapshotStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::answer::{Answer, EventKind};
use crate::backoff::Backoff;
use crate::client::{Client, WatchStream};
use crate::failure::Failure;
use crate::http::AbortOnDrop;
use crate::keys::{Keys, Prefix};

/// The number of items that wait for a slow receiver, before the watch waits for it too.
const QUEUE: usize = 4;

/// A watch that has lasted this long was no failure when it ends.
const SETTLED: Duration = Duration::from_secs(1);

/// The maximum pause before a watch that was lost is replaced: all clients of a member lose theirs
/// at the same time.
const REPLACE: Duration = Duration::from_millis(100);

type Item = Result<Snapshot, DiscoverError>;

/// Starts a watch in a task, which ends when the stream is dropped.
pub(crate) fn watch(client: Arc<Client>, prefix: Arc<Prefix>) -> SnapshotStream {
    let (items, receiver) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        keys: Keys::new(Arc::clone(&prefix), 0),
        client,
        prefix,
        items,
        sent: None,
        reported: None,
    };
    let task = match tokio::runtime::Handle::try_current() {
        Ok(runtime) => Some(AbortOnDrop(runtime.spawn(watcher.run()))),
        Err(error) => {
            // The queue is empty.
            let _ = watcher.items.try_send(Err(DiscoverError::new(error)));
            None
        }
    };
    Box::pin(Items {
        receiver,
        _task: task,
    })
}

struct Items {
    receiver: mpsc::Receiver<Item>,
    _task: Option<AbortOnDrop>,
}

impl Stream for Items {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.get_mut().receiver.poll_recv(cx)
    }
}

struct Watcher {
    client: Arc<Client>,
    prefix: Arc<Prefix>,
    items: mpsc::Sender<Item>,
    keys: Keys,
    /// The backends of the latest snapshot.
    sent: Option<Arc<[BackendInfo]>>,
    /// The error that was sent after the latest snapshot.
    reported: Option<Failure>,
}

/// The latest state that a watch has delivered. The check for a stalled watch compares it.
#[derive(Default)]
struct Progress {
    revision: AtomicI64,
    count: AtomicUsize,
}

impl Progress {
    fn set(&self, keys: &Keys) {
        self.revision.store(keys.revision(), Ordering::Relaxed);
        self.count.store(keys.count(), Ordering::Relaxed);
    }
}

impl Watcher {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let mut accepted = None;
            let Err(failure) = self.cycle(&mut accepted).await;
            tracing::debug!(etcd = self.client.names(), %failure, "watching etcd begins anew");
            if accepted.is_some_and(|at: Instant| at.elapsed() >= SETTLED) {
                backoff.reset();
            }
            if accepted.is_some() && backoff.failures() == 0 {
                // Nothing is lost if the watch can be replaced.
                backoff.next(false, 0.0);
                sleep(REPLACE.mul_f64(fastrand::f64())).await;
                continue;
            }
            let pause = backoff.next(failure.is_denial(), fastrand::f64());
            self.report(failure).await;
            sleep(pause).await;
        }
    }

    /// Gets all keys, and watches them until that fails. Sets `accepted` when etcd accepts the
    /// watch.
    async fn cycle(&mut self, accepted: &mut Option<Instant>) -> Result<Infallible, Failure> {
        self.keys = self.client.range(&self.prefix, &self.keys).await?;
        self.publish().await;
        let from = self.keys.revision().saturating_add(1);
        let mut watch = self.client.watch(&self.prefix, from).await?;
        *accepted = Some(Instant::now());
        if self.reported.take().is_some() {
            self.sent = None;
            self.publish().await;
        }
        let Err(failure) = self.follow(&mut watch).await;
        self.client.avoid(watch.member);
        Err(self.client.at(watch.member, failure))
    }

    async fn follow(&mut self, watch: &mut WatchStream) -> Result<Infallible, Failure> {
        let client = Arc::clone(&self.client);
        let prefix = Arc::clone(&self.prefix);
        let progress = Progress::default();
        progress.set(&self.keys);
        let mut lost = pin!(find_loss(&client, &prefix, watch.member, &progress));
        loop {
            let answer = tokio::select! {
                failure = &mut lost => return Err(failure),
                answer = watch.next() => answer?,
            };
            self.apply(answer)?;
            while let Some(answer) = watch.buffered()? {
                self.apply(answer)?;
            }
            progress.set(&self.keys);
            self.publish().await;
        }
    }

    fn apply(&mut self, answer: Answer) -> Result<(), Failure> {
        for event in answer.events {
            match event.kind {
                EventKind::Put => self.keys.put(event.kv, None)?,
                EventKind::Delete => self.keys.delete(&event.kv)?,
            }
        }
        Ok(())
    }

    /// Sends a snapshot if the backends have changed.
    async fn publish(&mut self) {
        let backends = self.keys.backends();
        if self.sent.as_ref() == Some(&backends) {
            return;
        }
        self.sent = Some(Arc::clone(&backends));
        self.reported = None;
        let snapshot = Snapshot::new(backends).revision(self.keys.revision().to_string());
        // Without a receiver, this task is about to end.
        let _ = self.items.send(Ok(snapshot)).await;
    }

    /// Sends an error unless the previous attempt failed in the same way.
    async fn report(&mut self, failure: Failure) {
        if self
            .reported
            .as_ref()
            .is_some_and(|reported| reported.is_like(&failure))
        {
            return;
        }
        let error = failure.clone().into();
        self.reported = Some(failure);
        let _ = self.items.send(Err(error)).await;
    }
}

/// Returns once the watch does not deliver what has changed: then its server, or the network
/// between, is gone without a notice.
async fn find_loss(
    client: &Client,
    prefix: &Prefix,
    member: usize,
    progress: &Progress,
) -> Failure {
    loop {
        sleep(client.settings.status_interval).await;
        let revision = progress.revision.load(Ordering::Relaxed);
        let count = progress.count.load(Ordering::Relaxed);
        let check = match client.check(member, prefix, revision, count).await {
            Ok(check) => check,
            Err(failure) => return failure,
        };
        if check.revision < revision {
            let now = check.revision;
            return Failure::Bad(format!(
                "etcd has gone back from revision {revision} to {now}"
            ));
        }
        if check.changed {
            sleep(client.settings.stale_after).await;
            if progress.revision.load(Ordering::Relaxed) == revision {
                return Failure::Stale(revision);
            }
        }
    }
}
