//! Path of a call through its interceptors.
//!
//! The interceptors run in a future separate from the call instead of wrapping it: the innermost
//! [`Next`] hands the call to the task that polls the [`InterceptorChain`], and waits for the
//! outcome. The call therefore keeps its types and may borrow, and its stream can be given to the
//! caller while the interceptors still wait for its end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use super::{Completion, Outcome};
use crate::boxed::BoxFuture;
use crate::metadata::Metadata;
use crate::status::{Execution, Status};

/// An interceptor of either side, as an object.
pub(crate) trait Layer<C>: Send + Sync {
    fn intercept(
        self: Arc<Self>,
        call: C,
        next: Next<C>,
    ) -> BoxFuture<'static, Result<Completion, Status>>;

    /// Returns `true` if the interceptor currently ignores calls with this metadata.
    fn is_idle(&self, metadata: &Metadata) -> bool;
}

/// The interceptors in their order; `None` costs one comparison.
pub(crate) struct Layers<C>(Option<Arc<Vec<Arc<dyn Layer<C>>>>>);

impl<C> Layers<C> {
    /// Returns the interceptors, or `None` if all of them are idle for calls with this metadata.
    #[inline]
    pub(crate) fn active(&self, metadata: &Metadata) -> Option<&Self> {
        let layers = self.0.as_ref()?;
        let idle = layers.iter().all(|layer| layer.is_idle(metadata));
        (!idle).then_some(self)
    }

    /// Adds `layer` as the innermost interceptor.
    pub(crate) fn push(&mut self, layer: impl Layer<C> + 'static) {
        Arc::make_mut(self.0.get_or_insert_default()).push(Arc::new(layer));
    }

    fn at(&self, place: usize) -> Option<&Arc<dyn Layer<C>>> {
        self.0.as_ref()?.get(place)
    }
}

impl<C> Default for Layers<C> {
    fn default() -> Self {
        Self(None)
    }
}

impl<C> Clone for Layers<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> fmt::Debug for Layers<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.as_ref().map_or(0, |layers| layers.len());
        write!(f, "{count} interceptors")
    }
}

/// The rest of the chain after an interceptor: the next interceptor, or the call itself.
pub struct Next<C> {
    layers: Layers<C>,
    place: usize,
    end: Arc<End<C>>,
}

impl<C: Send + 'static> Next<C> {
    /// Passes the call on and waits for its outcome; for a call with streams, until they have
    /// ended.
    ///
    /// The call does not run within this future: the handler does not see task-locals or spans that
    /// are set around it. Values for the handler go into an extension.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or returning a status from the interceptor, cancels the call: a running
    /// handler is dropped, and a server is notified. Such a call may have been executed.
    pub async fn run(self, call: C) -> Completion {
        match self.layers.at(self.place).map(Arc::clone) {
            Some(layer) => {
                let next = Self {
                    place: self.place + 1,
                    ..self
                };
                // Each interceptor is awaited within the future of the one before, so that dropping
                // the outermost one drops all.
                let reply = layer.intercept(call, next).await;
                reply.unwrap_or_else(|status| Completion::of(Outcome::Status(status), false))
            }
            None => Completion::of(self.end.pass(call).await, true),
        }
    }
}

impl<C> fmt::Debug for Next<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

/// The place where the innermost `Next` hands over the call and receives its outcome.
struct End<C>(Mutex<Handoff<C>>);

struct Handoff<C> {
    /// The call, from the time it is let through until it is made.
    call: Option<C>,
    /// Its outcome, from its end until the interceptors take it.
    outcome: Option<Outcome>,
    /// Waker of the task that waits for the call.
    outside: Option<Waker>,
    /// Waker of the task that waits for the outcome.
    inside: Option<Waker>,
}

impl<C> End<C> {
    fn new() -> Self {
        Self(Mutex::new(Handoff {
            call: None,
            outcome: None,
            outside: None,
            inside: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Handoff<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a value that the other side has left, or keeps the waker to be woken once it is there.
    fn poll_take<T>(
        &self,
        cx: &Context<'_>,
        of: impl FnOnce(&mut Handoff<C>) -> (&mut Option<T>, &mut Option<Waker>),
    ) -> Poll<T> {
        let mut state = self.lock();
        // The waker is stored under the lock under which the other side leaves its value and takes
        // the waker, so no wake-up is lost.
        let (value, waker) = of(&mut state);
        if let Some(value) = value.take() {
            return Poll::Ready(value);
        }
        // A waker is user code: it is dropped without the lock.
        let before = waker.replace(cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Hands the call out and waits for its outcome.
    async fn pass(&self, call: C) -> Outcome {
        let outside = {
            let mut handoff = self.lock();
            handoff.call = Some(call);
            handoff.outside.take()
        };
        outside.into_iter().for_each(Waker::wake);
        poll_fn(|cx| self.poll_take(cx, |state| (&mut state.outcome, &mut state.inside))).await
    }

    fn poll_call(&self, cx: &Context<'_>) -> Poll<C> {
        self.poll_take(cx, |state| (&mut state.call, &mut state.outside))
    }

    fn set(&self, outcome: Outcome) {
        let inside = {
            let mut handoff = self.lock();
            handoff.outcome = Some(outcome);
            handoff.inside.take()
        };
        inside.into_iter().for_each(Waker::wake);
    }
}

/// A call on its way through its interceptors. Dropping it drops their futures.
pub(crate) struct InterceptorChain<C> {
    interceptors: BoxFuture<'static, Completion>,
    end: Arc<End<C>>,
}

impl<C: Send + 'static> InterceptorChain<C> {
    /// Creates the chain for `call`; `around` wraps the future of all interceptors in the context
    /// that they are to see.
    pub(crate) fn new<F>(
        layers: &Layers<C>,
        call: C,
        around: impl FnOnce(BoxFuture<'static, Completion>) -> F,
    ) -> Self
    where
        F: Future<Output = Completion> + Send + 'static,
    {
        let end = Arc::new(End::new());
        let next = Next {
            layers: layers.clone(),
            place: 0,
            end: Arc::clone(&end),
        };
        Self {
            interceptors: Box::pin(around(Box::pin(next.run(call)))),
            end,
        }
    }

    /// Returns the call once every interceptor has let it through.
    ///
    /// # Errors
    ///
    /// The status that an interceptor returned instead.
    pub(crate) async fn enter(&mut self) -> Result<C, Status> {
        poll_fn(|cx| {
            // The interceptors come first: the innermost one hands the call over in this poll, and
            // the call is found below without another wake-up.
            if let Poll::Ready(reply) = self.interceptors.as_mut().poll(cx) {
                return Poll::Ready(Err(status_of(reply)));
            }
            self.end.poll_call(cx).map(Ok)
        })
        .await
    }

    /// Runs the call that was let through and returns its output, unless an interceptor ends it
    /// first.
    ///
    /// # Errors
    ///
    /// The status with which an interceptor ended the call.
    pub(crate) async fn run<F: Future>(&mut self, call: F) -> Result<F::Output, Status> {
        let mut call = pin!(call);
        poll_fn(|cx| {
            // Interceptors that end before the call has an outcome do not wait for it: they end the
            // call.
            if let Poll::Ready(status) = self.poll_ended(cx) {
                return Poll::Ready(Err(status));
            }
            call.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Returns the status with which an interceptor ends a running call.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let reply = self.interceptors.as_mut().poll(cx);
        // The call was let through before, so it may have been made.
        reply.map(|reply| status_of(reply).with_execution(Execution::MayHaveExecuted))
    }

    /// Sets the outcome of the ended call; the interceptors see it when they are polled with
    /// [`poll_left`](Self::poll_left).
    pub(crate) fn end(&self, outcome: Outcome) {
        self.end.set(outcome);
    }

    /// Waits until the interceptors have seen the outcome. Returns a status if one of them replaced
    /// the outcome.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        let reply = ready!(self.interceptors.as_mut().poll(cx));
        Poll::Ready(match reply.outcome {
            // A status that was passed on is that of the call itself, which the caller has already.
            Outcome::Status(status) if !reply.passed => {
                Some(status.with_execution(Execution::MayHaveExecuted))
            }
            _ => None,
        })
    }

    /// Calls [`end`](Self::end), then waits like [`poll_left`](Self::poll_left).
    pub(crate) async fn leave(&mut self, outcome: Outcome) -> Option<Status> {
        self.end(outcome);
        poll_fn(|cx| self.poll_left(cx)).await
    }
}

/// Returns the status of interceptors that did not wait for the call.
fn status_of(reply: Completion) -> Status {
    match reply.outcome {
        Outcome::Status(status) => status,
        // A completion comes only from a call that has ended: this one was kept from another call.
        Outcome::Ok | Outcome::Error(_) => {
            Status::internal("an interceptor returned the reply of another call")
        }
    }
}

impl<C> fmt::Debug for InterceptorChain<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterceptorChain").finish_non_exhaustive()
    }
}
