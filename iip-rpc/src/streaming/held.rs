//! The stream that a method of a trait object returns.
//!
//! The stream borrows from everything that the call was given, for a lifetime that has no name if
//! each argument has its own named lifetime. A future that holds the stream has a type that
//! contains all of these names.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_core::Stream;

/// Runs the future that `start` returns until it has its stream. The returned stream yields the
/// items of that stream.
///
/// # Errors
///
/// The error of the future, which then has no stream.
pub async fn held<I, E, F>(start: impl FnOnce(Passage<I>) -> F) -> Result<Held<I, F>, E>
where
    F: Future<Output = Result<(), E>>,
{
    let passage = Passage::default();
    let future = Box::pin(start(passage.clone()));
    let mut held = Held {
        future: Some(future),
        passage,
    };
    poll_fn(|cx| match held.poll_future(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        _ if held.passage.take().is_some() || held.future.is_none() => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    })
    .await?;
    Ok(held)
}

/// Passes the items out of the future, one at a time.
#[derive(Debug)]
pub struct Passage<I>(Arc<Mutex<Option<Passed<I>>>>);

#[derive(Debug)]
enum Passed<I> {
    /// The stream has been created.
    Begun,
    Item(I),
}

impl<I> Passage<I> {
    /// Passes on the items of the stream in `reply`, or returns the error in it.
    ///
    /// # Errors
    ///
    /// The error in `reply`.
    pub async fn pass<S, E>(self, reply: Result<S, E>) -> Result<(), E>
    where
        S: Stream<Item = I>,
    {
        let mut stream = pin!(reply?);
        self.put(Passed::Begun);
        poll_fn(|cx| {
            // The reader that takes the item polls again.
            while self.is_empty() {
                match ready!(stream.as_mut().poll_next(cx)) {
                    Some(item) => self.put(Passed::Item(item)),
                    None => return Poll::Ready(()),
                }
            }
            Poll::Pending
        })
        .await;
        Ok(())
    }

    fn put(&self, passed: Passed<I>) {
        // No waker is needed: whoever takes the item polls the future that puts it.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(passed);
    }

    fn take(&self) -> Option<Passed<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }
}

impl<I> Clone for Passage<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I> Default for Passage<I> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A stream inside the future that created it.
#[derive(Debug)]
pub struct Held<I, F> {
    /// `None` once the stream has ended.
    future: Option<Pin<Box<F>>>,
    passage: Passage<I>,
}

impl<I, F: Future> Held<I, F> {
    fn poll_future(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let output = ready!(future.as_mut().poll(cx));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<I, F: Future> Stream for Held<I, F> {
    type Item = I;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<I>> {
        let this = self.get_mut();
        // The stream has been created, so the future cannot fail any more.
        let _ = this.poll_future(cx);
        match this.passage.take() {
            Some(Passed::Item(item)) => Poll::Ready(Some(item)),
            _ if this.future.is_none() => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }
}
