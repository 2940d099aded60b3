//! Reply streams that hold a place, and end if their client does not read them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use iip_rpc::{Status, Stream, StreamSender, Streaming};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::contact::Contact;
use crate::sync::locked;

/// The replies of a transfer. Its place is free once they are dropped or ended.
pub(super) struct Replies<T> {
    shared: Arc<Shared<T>>,
    /// Tells the [`Watch`] when this is dropped.
    _open: oneshot::Sender<()>,
}

/// Ends [`Replies`] that the client does not read.
pub(super) struct Watch<T> {
    shared: Arc<Shared<T>>,
    limit: Duration,
    dropped: oneshot::Receiver<()>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    contact: Contact,
}

enum State<T> {
    Open(
        Streaming<T>,
        #[expect(dead_code, reason = "held")] OwnedSemaphorePermit,
    ),
    /// `None` once the client has the status.
    Ended(Option<Status>),
}

/// Creates replies of which at most `capacity` are queued. The client may take none of them for
/// `limit`.
pub(super) fn channel<T: Send + 'static>(
    capacity: usize,
    place: OwnedSemaphorePermit,
    limit: Duration,
) -> (StreamSender<T>, Watch<T>, Replies<T>) {
    let (sender, replies) = Streaming::channel(capacity);
    let (open, dropped) = oneshot::channel();
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Open(replies, place)),
        contact: Contact::new(),
    });
    let watch = Watch {
        shared: Arc::clone(&shared),
        limit,
        dropped,
    };
    let replies = Replies {
        shared,
        _open: open,
    };
    (sender, watch, replies)
}

impl<T> Stream for Replies<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *locked(&self.shared.state) {
            State::Open(replies, _) => {
                let next = Pin::new(replies).poll_next(cx);
                match next {
                    Poll::Ready(_) => self.shared.contact.touch(),
                    // The client waits for the server.
                    Poll::Pending => self.shared.contact.pause(),
                }
                next
            }
            State::Ended(status) => Poll::Ready(status.take().map(Err)),
        }
    }
}

impl<T> Drop for Replies<T> {
    fn drop(&mut self) {
        self.shared.end(None);
    }
}

impl<T> Shared<T> {
    /// Ends the replies, and returns what was queued.
    fn end(&self, status: Option<Status>) -> State<T> {
        std::mem::replace(&mut *locked(&self.state), State::Ended(status))
    }

    /// Runs a step of the sender. If the client is silent meanwhile, drops the step, ends the
    /// replies, and returns `None`.
    async fn run<F: Future>(&self, limit: Duration, step: F) -> Option<F::Output> {
        let ended = async {
            let status = self.contact.silence(limit).await;
            self.end(Some(status))
        };
        let queued = tokio::select! {
            biased;
            queued = ended => queued,
            output = step => return Some(output),
        };
        // Dropped after the step: a sender in it wakes the reader, which then finds the status.
        drop(queued);
        None
    }
}

impl<T> Watch<T> {
    /// Runs a step that sends replies. Returns `None` if the client took none for too long: the
    /// replies have then ended with a status.
    pub(super) async fn run<F: Future>(&self, step: F) -> Option<F::Output> {
        self.shared.run(self.limit, step).await
    }

    /// Watches until the client has taken all replies, or has gone.
    pub(super) async fn finish(self) {
        // Either outcome ends the replies.
        let _ = self.shared.run(self.limit, self.dropped).await;
    }
}
