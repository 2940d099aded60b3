//! The subscribing side: successive calls, each of which resumes after the values of the previous
//! one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use iip_core::__rpc::{after, now, random_fraction};
use serde::{Serialize, Serializer};
use tokio::time::Sleep;

use super::{Item, Position};
use crate::boxed::BoxFuture;
use crate::status::{Code, Execution, Status};
use crate::streaming::Streaming;

/// Default time for which a subscriber tries to resume.
const RESUME_WITHIN: Duration = Duration::from_secs(60);

/// Maximum pause before the first attempt to resume, which doubles with each further one, and the
/// limit of that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A value on its way to a subscriber.
pub(crate) struct Numbered<T> {
    pub(crate) sequence: u64,
    pub(crate) value: Arc<T>,
}

impl<T: Serialize> Serialize for Numbered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.sequence, &*self.value).serialize(serializer)
    }
}

/// The result of a call: its values, and the position where they begin.
pub(crate) type Values<T> = (Streaming<(u64, T)>, Position);

/// Makes the call again, to resume after a position.
pub(crate) type Resubscribe<T> =
    Box<dyn Fn(Position) -> BoxFuture<'static, Result<Values<T>, Status>> + Send>;

/// A subscription to a topic of another process.
pub(crate) struct Remote<T> {
    again: Resubscribe<T>,
    position: Position,
    state: State<T>,
    within: Duration,
    /// Deadline of the whole subscription.
    deadline: Option<Instant>,
    lost: Option<Lost>,
}

enum State<T> {
    Flowing(Streaming<(u64, T)>),
    Pausing(Pin<Box<Sleep>>),
    /// The call, and the time until which it has to be accepted.
    Calling(
        BoxFuture<'static, Result<Values<T>, Status>>,
        Pin<Box<Sleep>>,
    ),
}

/// The time since which no values arrive, and the number of attempts to resume.
#[derive(Clone, Copy)]
struct Lost {
    at: Instant,
    attempts: u32,
    /// Time at which the last attempt was accepted. The subscription has resumed only if that call
    /// lasts.
    accepted: Option<Instant>,
}

impl<T> Remote<T> {
    pub(crate) fn new(
        again: Resubscribe<T>,
        (values, begins): Values<T>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            again,
            position: begins,
            state: State::Flowing(values),
            within: RESUME_WITHIN,
            deadline,
            lost: None,
        }
    }

    /// Returns the position after which its next values follow.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn resume_within(&mut self, limit: Duration) {
        self.within = limit;
    }

    pub(crate) fn poll_item(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Item<T>, Status>>> {
        // The method has accepted the call once: an attempt to resume that was not sent does not
        // change that.
        let has_run = |status: Status| status.with_execution(Execution::MayHaveExecuted);
        self.poll_next_item(cx)
            .map(|item| item.map(|item| item.map_err(has_run)))
    }

    fn poll_next_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item<T>, Status>>> {
        loop {
            match &mut self.state {
                State::Flowing(values) => match ready!(Pin::new(values).poll_next(cx)) {
                    Some(Ok((sequence, value))) => {
                        self.lost = None;
                        self.position.after = sequence;
                        return Poll::Ready(Some(Ok(Item::Value(sequence, value))));
                    }
                    Some(Err(status)) => {
                        // UNAVAILABLE means that the connection or the server was lost. Every other
                        // status ends the subscription.
                        if status.code() != Code::Unavailable {
                            return Poll::Ready(Some(Err(status)));
                        }
                        self.pause(status)?;
                    }
                    None => return Poll::Ready(None),
                },
                State::Pausing(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    let since = self.lost.map_or_else(now, |lost| lost.at);
                    let until = tokio::time::sleep_until(self.until(since).into());
                    self.state = State::Calling((self.again)(self.position), Box::pin(until));
                }
                State::Calling(call, until) => {
                    let result = match call.as_mut().poll(cx) {
                        Poll::Ready(result) => result,
                        Poll::Pending => {
                            ready!(until.as_mut().poll(cx));
                            Err(Status::unavailable("the subscription was not accepted"))
                        }
                    };
                    match result {
                        Ok((values, begins)) => {
                            self.state = State::Flowing(values);
                            // The position may be another one than was asked for, if values are
                            // missing or the topic has restarted.
                            self.position = begins;
                            if let Some(lost) = &mut self.lost {
                                lost.accepted = Some(now());
                            }
                            return Poll::Ready(Some(Ok(Item::Begins(begins))));
                        }
                        Err(status) if is_passing(&status) => self.pause(status)?,
                        Err(status) => return Poll::Ready(Some(Err(status))),
                    }
                }
            }
        }
    }

    /// Returns the time until which it tries to resume, if nothing arrives from `since` on.
    fn until(&self, since: Instant) -> Instant {
        let until = after(since, self.within);
        self.deadline.map_or(until, |deadline| deadline.min(until))
    }

    /// Waits before the next attempt, if there is time for one.
    fn pause(&mut self, status: Status) -> Result<(), Status> {
        let now = now();
        let accepted = self.lost.as_mut().and_then(|lost| lost.accepted.take());
        // A call that has lasted counts as resumed even if no value came. One that is accepted and
        // lost at once does not, or the attempts would never end.
        if accepted.is_some_and(|accepted| now - accepted >= MAX_PAUSE) {
            self.lost = None;
        }
        let lost = self.lost.get_or_insert(Lost {
            at: now,
            attempts: 0,
            accepted: None,
        });
        let limit = FIRST_PAUSE.saturating_mul(1 << lost.attempts.min(16));
        let pause = limit.min(MAX_PAUSE).mul_f64(random_fraction());
        lost.attempts += 1;
        let since = lost.at;
        if now + pause >= self.until(since) {
            let within = self.within;
            if self
                .deadline
                .is_some_and(|deadline| now + pause >= deadline)
            {
                let text = format!(
                    "the deadline of the subscription has passed (option timeout); it had been \
                     cut off: {}",
                    status.own_message()
                );
                return Err(Status::deadline_exceeded(text));
            }
            let text = format!(
                "{} (not resumed within {within:?}, see Subscription::resume_within)",
                status.own_message()
            );
            return Err(status.reworded(text));
        }
        let pause = tokio::time::sleep_until((now + pause).into());
        self.state = State::Pausing(Box::pin(pause));
        Ok(())
    }
}

/// Returns `true` if the same call may succeed later.
fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        Code::ResourceExhausted => status.execution().is_safe_to_repeat(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    type Updates = Vec<Result<(u64, u8), Status>>;

    struct Iter(std::vec::IntoIter<Result<(u64, u8), Status>>);

    impl Stream for Iter {
        type Item = Result<(u64, u8), Status>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.next())
        }
    }

    fn values(updates: Updates) -> Values<u8> {
        let values = Streaming::new(Iter(updates.into_iter()));
        (values, Position::default())
    }

    fn lost() -> Status {
        Status::unavailable("lost")
    }

    /// Returns the status with which a subscription ends that is lost at once and then made again
    /// with `again`, the time until then, and the number of attempts.
    async fn end(
        deadline: Option<Duration>,
        again: impl Fn() -> BoxFuture<'static, Result<Values<u8>, Status>> + Send + 'static,
    ) -> (Status, Duration, u32) {
        let began = now();
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&attempts);
        let again: Resubscribe<u8> = Box::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            again()
        });
        let deadline = deadline.map(|deadline| began + deadline);
        let mut remote = Remote::new(again, values(vec![Err(lost())]), deadline);
        loop {
            match poll_fn(|cx| remote.poll_item(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(status)) => {
                    return (status, now() - began, attempts.load(Ordering::Relaxed));
                }
                None => panic!("it is lost, not over"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_accepted_and_lost_again_each_time_ends() {
        let again = || -> BoxFuture<'static, _> { Box::pin(ready(Ok(values(vec![Err(lost())])))) };
        let (status, lasted, attempts) = end(None, again).await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("resume_within"), "{status}");
        assert!(lasted <= RESUME_WITHIN, "{lasted:?}");
        assert!(attempts < 60, "{attempts} attempts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_ended_in_time() {
        let (status, lasted, attempts) = end(None, || Box::pin(pending())).await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("resume_within"), "{status}");
        assert_eq!((lasted.as_secs(), attempts), (RESUME_WITHIN.as_secs(), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_is_made_after_the_deadline_of_the_call() {
        let time = Duration::from_secs(5);
        for hangs in [true, false] {
            let again = move || -> BoxFuture<'static, _> {
                if hangs {
                    Box::pin(pending())
                } else {
                    Box::pin(ready(Err(Status::deadline_exceeded("too late"))))
                }
            };
            let (status, lasted, _) = end(Some(time), again).await;
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            assert!(lasted <= time + Duration::from_millis(10), "{lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_value_restarts_its_time() {
        let count = AtomicU32::new(0);
        let again = move || -> BoxFuture<'static, _> {
            let sequence = count.fetch_add(1, Ordering::Relaxed);
            if sequence == 5000 {
                return Box::pin(ready(Err(Status::not_found("enough"))));
            }
            let updates = vec![Ok((u64::from(sequence), 0)), Err(lost())];
            Box::pin(ready(Ok(values(updates))))
        };
        let (status, lasted, attempts) = end(None, again).await;
        assert_eq!((status.code(), attempts), (Code::NotFound, 5001));
        assert!(lasted > RESUME_WITHIN, "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_that_cannot_go_on_has_run_though_the_last_attempt_was_not_sent() {
        let again = || -> BoxFuture<'static, _> {
            let status = Status::not_found("gone").with_execution(Execution::NotSent);
            Box::pin(ready(Err(status)))
        };
        let (status, _, attempts) = end(None, again).await;
        assert_eq!((status.code(), attempts), (Code::NotFound, 1));
        assert_eq!(status.execution(), Execution::MayHaveExecuted);
    }
}
