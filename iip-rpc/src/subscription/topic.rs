//! The publishing side: values, the subscribers that wait for them, and the handling of subscribers
//! that are too slow.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use iip_core::__rpc::{after, now, random_id};
use tokio::sync::Notify;

use super::{Item, Numbered, Position, Remote, Subscription};
use crate::status::Status;

/// The action when the buffer of a subscriber is full and one more value is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// The oldest of them is dropped: the subscriber gets a gap and then the newer values. The
    /// default.
    #[default]
    DropOldest,
    /// The newest of them is dropped: the subscriber gets the older ones, then a gap and the new
    /// values. With a buffer of 1, it gets the latest value whenever it is ready for one.
    DropNewest,
    /// The publisher waits, at most for this duration; then the subscription ends with
    /// RESOURCE_EXHAUSTED. Zero is equivalent to [`End`](Self::End), [`Duration::MAX`] waits
    /// without a limit.
    Wait(Duration),
    /// The subscription ends at once with RESOURCE_EXHAUSTED.
    End,
}

/// A topic, whose values are published to all its subscribers, each with a number. Clones are the
/// same topic.
///
/// Values are kept for subscribers that resume after their connection was lost
/// ([`TopicBuilder::history`]), and wait for subscribers that are slow ([`TopicBuilder::buffer`],
/// [`SlowConsumer`]). Each value is in memory once, regardless of the number of subscribers that
/// wait for it; in addition, each subscriber has up to
/// [`Limits::stream_window`](crate::Limits::stream_window) bytes in flight. The subscriptions end
/// when the last clone is dropped.
///
/// See [`Subscription`] for an example.
pub struct Topic<T>(Arc<Publisher<T>>);

impl<T> Topic<T> {
    /// Creates a topic with the defaults of [`TopicBuilder`].
    #[must_use]
    pub fn new() -> Self {
        TopicBuilder::default().build()
    }

    /// Returns a builder of a topic.
    pub fn builder() -> TopicBuilder {
        TopicBuilder::default()
    }

    /// Publishes a value and returns its number. Waits only for subscribers that request it
    /// ([`SlowConsumer::Wait`]).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, nothing is published.
    pub async fn publish(&self, value: T) -> u64 {
        let shared = &self.0.0;
        let mut value = Some(value);
        loop {
            // Registered before the attempt, so that room that appears in between is not missed.
            let room = shared.room.notified();
            let mut room = std::pin::pin!(room);
            room.as_mut().enable();
            let until = match shared.change(|state| state.publish(&mut value, now())) {
                Ok(sequence) => return sequence,
                Err(until) => until,
            };
            // By then there is room, or the subscription without room is ended.
            let _ = tokio::time::timeout_at(until.into(), room).await;
        }
    }

    /// Like [`publish`](Self::publish), but does not wait.
    ///
    /// # Errors
    ///
    /// A subscriber has to be waited for; the error contains the value.
    pub fn try_publish(&self, value: T) -> Result<u64, TryPublishError<T>> {
        let mut value = Some(value);
        let published = self.0.0.change(|state| state.publish(&mut value, now()));
        match (published, value) {
            (Err(_), Some(value)) => Err(TryPublishError(value)),
            (published, _) => Ok(published.unwrap_or_default()),
        }
    }

    /// Returns the number of subscriptions.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.0.0.lock().queues.len()
    }
}

impl<T: Clone> Topic<T> {
    /// Subscribes to the values that are published from now on.
    pub fn subscribe(&self) -> Subscription<T> {
        let shared = Arc::clone(&self.0.0);
        let mut state = shared.lock();
        let id = state.ids;
        state.ids += 1;
        let begins = state.last;
        let queue = Queue {
            values: VecDeque::new(),
            past: 0,
            begins,
            buffer: shared.buffer,
            policy: shared.policy,
            full_since: None,
            ended: false,
            waker: None,
        };
        state.queues.insert(id, queue);
        drop(state);
        Subscription::here(Subscriber {
            shared,
            id,
            own: T::clone,
        })
    }
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.0.lock();
        let (last, subscribers) = (state.last, state.queues.len());
        drop(state);
        f.debug_struct("Topic")
            .field("last", &last)
            .field("subscribers", &subscribers)
            .finish_non_exhaustive()
    }
}

/// A value that was not published because a subscriber has to be waited for
/// ([`SlowConsumer::Wait`]).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TryPublishError<T>(
    /// The value.
    pub T,
);

impl<T> fmt::Display for TryPublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer of a subscriber is full (option buffer of the topic)")
    }
}

impl<T> fmt::Debug for TryPublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryPublishError").finish_non_exhaustive()
    }
}

impl<T> std::error::Error for TryPublishError<T> {}

/// A builder of a [`Topic`]. Created by [`Topic::builder`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct TopicBuilder {
    history: usize,
    buffer: usize,
    policy: SlowConsumer,
}

impl Default for TopicBuilder {
    fn default() -> Self {
        Self {
            history: 1024,
            buffer: 1024,
            policy: SlowConsumer::default(),
        }
    }
}

impl TopicBuilder {
    /// Sets the number of values kept for subscribers that resume; with 0 they get a gap for all
    /// values that they have missed. Default: 1,024.
    pub fn history(mut self, values: usize) -> Self {
        self.history = values;
        self
    }

    /// Sets the number of values that may wait for a subscriber; 0 counts as 1. Default: 1,024.
    /// Values of the history, with which it begins, do not count.
    pub fn buffer(mut self, values: usize) -> Self {
        self.buffer = values.max(1);
        self
    }

    /// Sets the action when a subscriber is too slow. Default: [`SlowConsumer::DropOldest`].
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.policy = policy;
        self
    }

    /// Creates the topic. Its first value has the number 1.
    pub fn build<T>(self) -> Topic<T> {
        let state = State {
            last: 0,
            history: VecDeque::new(),
            most_history: self.history,
            queues: BTreeMap::new(),
            ids: 0,
            closed: false,
            left: Left::default(),
        };
        Topic(Arc::new(Publisher(Arc::new(Shared {
            id: random_id(),
            buffer: self.buffer,
            policy: self.policy,
            room: Notify::new(),
            state: Mutex::new(state),
        }))))
    }
}

/// Closes the topic when it is dropped.
struct Publisher<T>(Arc<Shared<T>>);

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        // Values that wait are still delivered: `closed` counts only for an empty queue.
        state.closed = true;
        let wakers = state.queues.values_mut();
        let wakers: Vec<_> = wakers.filter_map(|queue| queue.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

struct Shared<T> {
    id: u64,
    buffer: usize,
    policy: SlowConsumer,
    /// Notified when a subscriber that is waited for has taken a value, or has gone.
    room: Notify,
    state: Mutex<State<T>>,
}

impl<T> Shared<T> {
    /// Locks the state, which is consistent even if a task panicked under this lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state. Values that are no longer needed are dropped, and wakers are woken, after
    /// the lock is released: both run foreign code.
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        let left = std::mem::take(&mut state.left);
        drop(state);
        left.wakers.into_iter().for_each(Waker::wake);
        result
    }
}

struct State<T> {
    /// Number of the value published last.
    last: u64,
    /// The values up to and including it.
    history: VecDeque<Arc<T>>,
    most_history: usize,
    queues: BTreeMap<u64, Queue<T>>,
    ids: u64,
    closed: bool,
    left: Left<T>,
}

/// Work that remains after a change, to be done once the lock is released.
struct Left<T> {
    /// Values to drop.
    values: Vec<Arc<T>>,
    /// Wakers to wake.
    wakers: Vec<Waker>,
}

impl<T> Default for Left<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            wakers: Vec::new(),
        }
    }
}

/// A value with its number.
type Shareable<T> = (u64, Arc<T>);

/// Capacity above which the memory of a queue is released once the queue is empty.
const KEPT_VALUES: usize = 64;

/// The values that wait for one subscriber.
struct Queue<T> {
    values: VecDeque<Shareable<T>>,
    /// Number of them that come from the history; these do not count against the buffer.
    past: usize,
    /// The number after which they begin.
    begins: u64,
    buffer: usize,
    policy: SlowConsumer,
    /// Time since which a publisher waits for it.
    full_since: Option<Instant>,
    /// Set if it was too slow.
    ended: bool,
    waker: Option<Waker>,
}

impl<T> Queue<T> {
    fn is_full(&self) -> bool {
        self.values.len() - self.past >= self.buffer
    }

    fn pop(&mut self) -> Option<Shareable<T>> {
        self.past = self.past.saturating_sub(1);
        let next = self.values.pop_front();
        if self.values.is_empty() && self.values.capacity() > KEPT_VALUES {
            self.values = VecDeque::new();
        }
        next
    }

    fn end(&mut self, left: &mut Left<T>) {
        self.ended = true;
        self.past = 0;
        left.values
            .extend(self.values.drain(..).map(|(_, value)| value));
        left.wakers.extend(self.waker.take());
    }

    /// Returns the outcome after the values that wait, if the subscription has ended; `closed` if
    /// its topic is.
    fn outcome(&self, closed: bool) -> Option<Result<(), Status>> {
        if self.ended {
            let (buffer, policy) = (self.buffer, self.policy);
            return Some(Err(Status::resource_exhausted(format!(
                "the subscriber was too slow: {buffer} values waited for it (options buffer and \
                 slow_consumer of the topic, which is {policy:?})"
            ))));
        }
        closed.then_some(Ok(()))
    }

    fn add(&mut self, sequence: u64, value: &Arc<T>, left: &mut Left<T>) {
        if self.ended {
            return;
        }
        if self.is_full() {
            match self.policy {
                SlowConsumer::DropOldest => {
                    left.values.extend(self.pop().map(|(_, value)| value));
                }
                SlowConsumer::DropNewest => {
                    left.values
                        .extend(self.values.pop_back().map(|(_, value)| value));
                }
                // No publisher waits at this point.
                SlowConsumer::Wait(_) | SlowConsumer::End => return self.end(left),
            }
        }
        self.values.push_back((sequence, Arc::clone(value)));
        left.wakers.extend(self.waker.take());
    }
}

impl<T> State<T> {
    /// Returns the time until which a publisher has to wait for subscribers without room; `None` if
    /// it does not have to wait. Subscriptions that were waited for long enough are ended.
    fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        let mut until: Option<Instant> = None;
        for queue in self.queues.values_mut() {
            let SlowConsumer::Wait(limit) = queue.policy else {
                continue;
            };
            if queue.ended || !queue.is_full() {
                continue;
            }
            // The time counts from the first publisher that waits, and not anew for each.
            let end = after(*queue.full_since.get_or_insert(now), limit);
            if end <= now {
                queue.end(&mut self.left);
            } else {
                until = Some(until.map_or(end, |until| until.min(end)));
            }
        }
        until
    }

    /// Publishes the value and returns its number, or returns the time until which to wait first.
    fn publish(&mut self, value: &mut Option<T>, now: Instant) -> Result<u64, Instant> {
        if let Some(until) = self.wait_until(now) {
            return Err(until);
        }
        // The value is only taken once it is published: until then its publisher keeps it.
        let Some(value) = value.take().map(Arc::new) else {
            return Ok(self.last);
        };
        self.last += 1;
        for queue in self.queues.values_mut() {
            queue.add(self.last, &value, &mut self.left);
        }
        self.history.push_back(value);
        if self.history.len() > self.most_history {
            self.left.values.extend(self.history.pop_front());
        }
        Ok(self.last)
    }

    /// Gives a subscriber the values after `after` that are still in the history.
    fn rewind(&mut self, queue: &mut Queue<T>, after: u64) {
        // The history ends with the last value, and numbers begin at 1, so this is at least 1.
        let first = self.last - self.history.len() as u64 + 1;
        let values = (first..).zip(self.history.iter().cloned());
        let values = values.filter(|(sequence, _)| *sequence > after).collect();
        let before = std::mem::replace(&mut queue.values, values);
        self.left
            .values
            .extend(before.into_iter().map(|(_, value)| value));
        queue.past = queue.values.len();
        let first = queue.values.front();
        queue.begins = first.map_or(self.last, |(sequence, _)| sequence - 1);
    }
}

/// A subscriber in this process.
pub(crate) struct Subscriber<T> {
    shared: Arc<Shared<T>>,
    id: u64,
    /// Clones a shared value.
    own: fn(&T) -> T,
}

impl<T> Subscriber<T> {
    fn change(&self, change: impl FnOnce(&mut State<T>, &mut Queue<T>)) {
        self.shared.change(|state| {
            // Taken out for a moment, so that it and the rest of the state can be changed together.
            if let Some(mut queue) = state.queues.remove(&self.id) {
                change(state, &mut queue);
                // A publisher that waits for it checks again.
                queue.full_since = None;
                state.queues.insert(self.id, queue);
            }
        });
        self.shared.room.notify_waiters();
    }

    pub(super) fn set_buffer(&self, values: usize) {
        self.change(|_, queue| queue.buffer = values.max(1));
    }

    pub(super) fn set_policy(&self, policy: SlowConsumer) {
        self.change(|_, queue| queue.policy = policy);
    }

    pub(super) fn replay(&self, values: usize) {
        let values = u64::try_from(values).unwrap_or(u64::MAX);
        self.change(|state, queue| state.rewind(queue, queue.begins.saturating_sub(values)));
    }

    /// Resumes after `after`, if that is of this topic. Returns the position where the values
    /// begin.
    pub(super) fn begin(&self, after: Option<Position>) -> Position {
        let mut begins = 0;
        self.change(|state, queue| {
            // For a position of another topic, such as one before a restart, all values of this one
            // are new.
            let after = after.map(|after| {
                let is_here = after.topic == self.shared.id && after.after <= state.last;
                if is_here { after.after } else { 0 }
            });
            if let Some(after) = after {
                state.rewind(queue, after);
            }
            begins = queue.begins;
        });
        Position {
            topic: self.shared.id,
            after: begins,
        }
    }

    /// Unsubscribes. Returns the values that still wait, and the outcome after them if the
    /// subscription had ended.
    fn leave(&self) -> (VecDeque<Shareable<T>>, Option<Result<(), Status>>) {
        let mut state = self.shared.lock();
        let closed = state.closed;
        let queue = state.queues.remove(&self.id);
        drop(state);
        self.shared.room.notify_waiters();
        let outcome = queue.as_ref().and_then(|queue| queue.outcome(closed));
        (queue.map(|queue| queue.values).unwrap_or_default(), outcome)
    }

    /// Returns the next value, shared.
    fn poll_shared(&self, cx: &Context<'_>) -> Poll<Option<Result<Shareable<T>, Status>>> {
        // The waker is cloned and dropped without the lock.
        let waker = cx.waker().clone();
        let mut state = self.shared.lock();
        let closed = state.closed;
        let Some(queue) = state.queues.get_mut(&self.id) else {
            return Poll::Ready(None);
        };
        if let Some(next) = queue.pop() {
            // A subscriber that rewinds later begins after the values that it has taken.
            queue.begins = next.0;
            let was_waited_for = queue.full_since.take().is_some();
            drop(state);
            if was_waited_for {
                self.shared.room.notify_waiters();
            }
            return Poll::Ready(Some(Ok(next)));
        }
        if let Some(outcome) = queue.outcome(closed) {
            return Poll::Ready(outcome.err().map(Err));
        }
        let before = queue.waker.replace(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }

    pub(super) fn poll_value(&self, cx: &Context<'_>) -> Poll<Option<Result<Item<T>, Status>>> {
        let next = std::task::ready!(self.poll_shared(cx));
        Poll::Ready(next.map(|next| {
            next.map(|(sequence, value)| {
                // The last of the subscribers gets the value itself, unless the history has it.
                let value = Arc::try_unwrap(value).unwrap_or_else(|value| (self.own)(&value));
                Item::Value(sequence, value)
            })
        }))
    }
}

impl<T> Drop for Subscriber<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The values that a server sends to one subscriber.
pub(crate) enum Sending<T> {
    Here(Subscriber<T>),
    /// The values that were left when the server began to shut down, and the outcome after them.
    Rest(VecDeque<Shareable<T>>, Result<(), Status>),
    /// A subscription to a topic of another server, whose values are forwarded.
    There(Box<Remote<T>>),
    Over,
}

impl<T> Sending<T> {
    /// Stops because the server shuts down: waiting values are sent, later ones are not. A
    /// subscription that has ended keeps its outcome, or its subscriber would try to resume it.
    pub(crate) fn stop(&mut self) {
        let (values, outcome) = match self {
            Self::Here(subscriber) => subscriber.leave(),
            Self::There(_) => (VecDeque::new(), None),
            Self::Rest(..) | Self::Over => return,
        };
        let outcome =
            outcome.unwrap_or_else(|| Err(Status::unavailable("server is shutting down")));
        *self = Self::Rest(values, outcome);
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Numbered<T>, Status>>> {
        let next = match self {
            Self::Here(subscriber) => std::task::ready!(subscriber.poll_shared(cx)),
            Self::Rest(values, outcome) => match values.pop_front() {
                Some(value) => Some(Ok(value)),
                None => std::mem::replace(outcome, Ok(())).err().map(Err),
            },
            Self::There(remote) => match std::task::ready!(remote.poll_item(cx)) {
                Some(Ok(Item::Value(sequence, value))) => Some(Ok((sequence, Arc::new(value)))),
                // A subscriber that subscribes again gets the new position.
                Some(Ok(Item::Begins(_))) => Some(Err(Status::unavailable(
                    "the topic behind this server has restarted",
                ))),
                Some(Err(status)) => Some(Err(status)),
                None => None,
            },
            Self::Over => None,
        };
        if !matches!(next, Some(Ok(_))) {
            *self = Self::Over;
        }
        Poll::Ready(next.map(|next| next.map(|(sequence, value)| Numbered { sequence, value })))
    }
}
