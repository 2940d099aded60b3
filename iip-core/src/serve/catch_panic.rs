//! Panics of handlers, which end a call and nothing else.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::handler::{HandlerFuture, Response};
use crate::handler_error::HandlerError;

/// A handler's future, whose panics are its output, including one while it is dropped.
///
/// It owns the future while it is polled, so a panic does not drop the future at once: a second
/// panic during that would abort the process.
pub(super) struct CatchPanic(pub(super) Option<HandlerFuture>);

/// The result of a handler, or the payload of its panic.
pub(super) type Caught = Result<Result<Response, HandlerError>, Box<dyn Any + Send>>;

impl Future for CatchPanic {
    type Output = Caught;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Caught> {
        self.poll_with(|future| match future {
            Some(future) => future.as_mut().poll(cx),
            // It has ended before, and is not polled again.
            None => Poll::Pending,
        })
    }
}

impl CatchPanic {
    #[inline]
    pub(super) fn poll_with(
        &mut self,
        poll: impl FnOnce(&mut Option<HandlerFuture>) -> Poll<Result<Response, HandlerError>>,
    ) -> Poll<Caught> {
        // After a panic the future is only dropped, so nobody sees it half changed.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let result = ready!(poll(&mut self.0));
            // Dropped here, so that a panic of its drop is caught as well.
            self.0 = None;
            Poll::Ready(result)
        }));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => {
                self.discard();
                Poll::Ready(Err(panic))
            }
        }
    }

    /// Drops the remains of a handler that has panicked, or is given up.
    fn discard(&mut self) {
        let Some(future) = self.0.take() else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            dispose(panic);
        }
    }
}

impl Drop for CatchPanic {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Drops the payload of a panic. It is a user's value whose drop may panic, too, as may the drop of
/// the payload of that panic.
pub(super) fn dispose(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}
