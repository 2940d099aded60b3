//! The subscribing side: one call after the other, each behind what the one before has brought.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use serde::{Serialize, Serializer};
use tokio::time::Sleep;

use super::{Item, Position};
use crate::__private::BoxFuture;
use crate::context::{after, now};
use crate::status::{Code, Status};
use crate::streaming::Streaming;

/// How long a subscriber tries to go on by default.
const RESUME_WITHIN: Duration = Duration::from_secs(60);

/// The pause before the first attempt to go on is at most this long, before each further one at most twice as long.
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

/// What a call has brought: its values, and where they begin.
pub(crate) type Values<T> = (Streaming<(u64, T)>, Position);

/// Makes the call again, behind a position.
pub(crate) type Again<T> =
    Box<dyn Fn(Position) -> BoxFuture<'static, Result<Values<T>, Status>> + Send>;

/// A subscription to a topic of another process.
pub(crate) struct Remote<T> {
    again: Again<T>,
    position: Position,
    state: State<T>,
    within: Duration,
    lost: Option<Lost>,
}

enum State<T> {
    Flowing(Streaming<(u64, T)>),
    Pausing(Pin<Box<Sleep>>),
    Calling(BoxFuture<'static, Result<Values<T>, Status>>),
}

/// Since when there is no connection, and how often one was tried.
#[derive(Clone, Copy)]
struct Lost {
    at: Instant,
    attempts: u32,
}

impl<T> Remote<T> {
    pub(crate) fn new(again: Again<T>, (values, begins): Values<T>) -> Self {
        Self {
            again,
            position: begins,
            state: State::Flowing(values),
            within: RESUME_WITHIN,
            lost: None,
        }
    }

    /// Where its values began.
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
        loop {
            match &mut self.state {
                State::Flowing(values) => match ready!(Pin::new(values).poll_next(cx)) {
                    Some(Ok((sequence, value))) => {
                        self.position.after = sequence;
                        return Poll::Ready(Some(Ok(Item::Value(sequence, value))));
                    }
                    Some(Err(status)) => {
                        if status.code() != Code::Unavailable {
                            return Poll::Ready(Some(Err(status)));
                        }
                        self.pause(status)?;
                    }
                    None => return Poll::Ready(None),
                },
                State::Pausing(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    self.state = State::Calling((self.again)(self.position));
                }
                State::Calling(call) => match ready!(call.as_mut().poll(cx)) {
                    Ok((values, begins)) => {
                        self.state = State::Flowing(values);
                        self.position = begins;
                        self.lost = None;
                        return Poll::Ready(Some(Ok(Item::Begins(begins))));
                    }
                    Err(status) if is_passing(&status) => self.pause(status)?,
                    Err(status) => return Poll::Ready(Some(Err(status))),
                },
            }
        }
    }

    /// Waits before the next attempt, if there is time for one.
    fn pause(&mut self, status: Status) -> Result<(), Status> {
        let now = now();
        let lost = self.lost.get_or_insert(Lost {
            at: now,
            attempts: 0,
        });
        let most = FIRST_PAUSE.saturating_mul(1 << lost.attempts.min(16));
        let pause = most.min(MAX_PAUSE).mul_f64(fastrand::f64());
        lost.attempts += 1;
        let given_up = after(lost.at, self.within);
        if now + pause >= given_up {
            let within = self.within;
            let text = format!(
                "{} (not resumed within {within:?}, see Subscription::resume_within)",
                status.message()
            );
            return Err(status.reworded(text));
        }
        let pause = tokio::time::sleep_until((now + pause).into());
        self.state = State::Pausing(Box::pin(pause));
        Ok(())
    }
}

/// May the same call succeed a little later?
fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        Code::ResourceExhausted => status.execution().is_safe_to_repeat(),
        _ => false,
    }
}
