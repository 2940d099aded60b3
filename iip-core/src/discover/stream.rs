//! Streams made of one future after the other.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{DiscoverError, Snapshot, SnapshotStream};

/// An item of the stream of a source.
pub(super) type Item = Result<Snapshot, DiscoverError>;

/// Returns a stream that never ends: `step` takes a state, and returns an item and the next state.
/// Dropping the stream drops the future that is under way. There is no task behind it.
pub(super) fn unfold<S, F, Fut>(state: S, step: F) -> SnapshotStream
where
    S: Send + 'static,
    F: FnMut(S) -> Fut + Send + 'static,
    Fut: Future<Output = (Item, S)> + Send + 'static,
{
    Box::pin(Unfold {
        state: Some(state),
        step,
        running: None,
    })
}

struct Unfold<S, F, Fut> {
    /// `None` while a step has it.
    state: Option<S>,
    step: F,
    running: Option<Pin<Box<Fut>>>,
}

/// No field is pinned in place.
impl<S, F, Fut> Unpin for Unfold<S, F, Fut> {}

impl<S, F, Fut> Stream for Unfold<S, F, Fut>
where
    F: FnMut(S) -> Fut,
    Fut: Future<Output = (Item, S)>,
{
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(state) = self.state.take() {
            self.running = Some(Box::pin((self.step)(state)));
        }
        let Some(running) = &mut self.running else {
            // A step has panicked.
            return Poll::Ready(None);
        };
        let polled = running.as_mut().poll(cx);
        polled.map(|(item, state)| {
            self.running = None;
            self.state = Some(state);
            Some(item)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    /// A time limit that only turns a hang into a failure.
    const GUARD: Duration = Duration::from_secs(60);

    /// Waits for the next item.
    pub(in super::super) async fn next(stream: &mut SnapshotStream) -> Item {
        let item = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx));
        let item = tokio::time::timeout(GUARD, item).await.expect("an item");
        item.expect("a stream without end")
    }

    /// Waits for the next item, a snapshot, and returns the ids in it.
    pub(in super::super) async fn ids(stream: &mut SnapshotStream) -> Vec<String> {
        let snapshot = next(stream).await.expect("a snapshot");
        let ids = snapshot.backends.iter().map(|info| info.id.to_string());
        ids.collect()
    }

    /// Waits for the next item, an error, and returns its text.
    pub(in super::super) async fn error(stream: &mut SnapshotStream) -> String {
        next(stream).await.expect_err("an error").to_string()
    }

    #[tokio::test]
    async fn a_state_is_passed_from_step_to_step() {
        let mut stream = unfold(0_u32, |count| async move {
            tokio::task::yield_now().await;
            (Ok(Snapshot::new([]).revision(count.to_string())), count + 1)
        });
        for count in 0..3 {
            let snapshot = next(&mut stream).await.expect("a snapshot");
            assert_eq!(snapshot.revision, count.to_string());
        }
    }
}
