//! The events of a viewer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::monitor::Monitor;
use crate::body::{BodyStream, Cut};
use crate::drain::Drain;

/// The time without an event after which a comment is sent, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The events of one viewer: a snapshot, and then the changes of each second.
pub(super) struct Events {
    monitor: Arc<Monitor>,
    first: Option<Bytes>,
    next: Pin<Box<dyn Future<Output = (Next, Receiver<Bytes>)> + Send>>,
    /// Completes when the connection must end, so that the server can end.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: Place,
}

impl Events {
    pub(super) fn new(monitor: Arc<Monitor>, drain: Option<Drain>, place: Place) -> Self {
        let (first, receiver) = monitor.subscribe();
        Self {
            monitor,
            first: Some(first),
            next: Box::pin(next(receiver)),
            ended: Box::pin(async move {
                match drain {
                    Some(mut drain) => drain.begun().await,
                    None => std::future::pending().await,
                }
            }),
            _place: place,
        }
    }
}

impl BodyStream for Events {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let (event, receiver) = ready!(self.next.as_mut().poll(cx));
        let (event, receiver) = match event {
            Next::Event(event) => (event, receiver),
            Next::Nothing => (Bytes::from_static(b":\n\n"), receiver),
            // Events contain only changes, so the viewer starts again with a snapshot.
            Next::Missed => self.monitor.subscribe(),
            Next::End => return Poll::Ready(None),
        };
        self.next = Box::pin(next(receiver));
        Poll::Ready(Some(Ok(event)))
    }
}

/// The next event of a viewer.
enum Next {
    Event(Bytes),
    /// The viewer was too slow, and has missed events.
    Missed,
    Nothing,
    End,
}

async fn next(mut receiver: Receiver<Bytes>) -> (Next, Receiver<Bytes>) {
    let next = match tokio::time::timeout(KEEP_ALIVE, receiver.recv()).await {
        Ok(Ok(event)) => Next::Event(event),
        Ok(Err(RecvError::Lagged(_))) => Next::Missed,
        Ok(Err(RecvError::Closed)) => Next::End,
        Err(_) => Next::Nothing,
    };
    (next, receiver)
}

/// The slots of viewers.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
        })
    }

    /// Takes a slot, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        // The slot is released when it is dropped.
        let place = Place(Arc::clone(self));
        (taken < self.max).then_some(place)
    }
}

/// The slot of one viewer.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
