//! Subscriptions: streams of numbered values that resume after a disconnection, and report values
//! that are missing.
//!
//! A server publishes values in a [`Topic`]; a method returns a [`Subscription`] to it. The client
//! gets a subscription as well.

mod remote;
mod topic;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

pub(crate) use self::remote::{Numbered, Remote, Resubscribe};
pub(crate) use self::topic::{Sending, Subscriber};
pub use self::topic::{SlowConsumer, Topic, TopicBuilder, TryPublishError};
use crate::status::Status;

/// Metadata key of a request that resumes after a [`Position`].
pub(crate) const RESUME: &str = "iip-resume";
/// Metadata key of a reply: the [`Position`] after which the values of this stream begin.
pub(crate) const BEGINS: &str = "iip-begins";

/// A subscription to published values. A method returns it, `Result<Subscription<Price>, Status>`,
/// and its caller gets it.
///
/// It is a stream of [`Update`]s: values with their numbers, in order, and gaps where values are
/// missing.
///
/// At a client it resumes when its connection is lost or its server restarts: it subscribes again,
/// after the last value it has seen. Values that are still in the server's
/// [history](TopicBuilder::history) follow; those that are not become a [`Gap`]. It tries to resume
/// for a [minute](Self::resume_within); then the stream fails with the reason. Other failures end
/// it at once: the method returns an error, the subscriber was [too slow](SlowConsumer), the
/// deadline of the call has passed.
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::{Client, Server, Status, Subscription, Topic, Update, service};
///
/// #[service]
/// pub trait Prices {
///     async fn watch(&self) -> Result<Subscription<u32>, Status>;
/// }
///
/// struct Market(Topic<u32>);
///
/// impl Prices for Market {
///     async fn watch(&self) -> Result<Subscription<u32>, Status> {
///         Ok(self.0.subscribe())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let topic = Topic::new();
/// let prices = PricesServer::new(Market(topic.clone()));
/// let server = Server::builder().service(prices).bind("127.0.0.1:0").await?;
///
/// let prices = PricesClient::new(Client::connect(server.target()).await?);
/// let mut updates = prices.watch().await?;
/// topic.publish(320).await;
/// topic.publish(321).await;
/// assert_eq!(updates.next().await, Some(Ok(Update::Value { sequence: 1, value: 320 })));
/// assert_eq!(updates.next().await, Some(Ok(Update::Value { sequence: 2, value: 321 })));
/// server.shutdown(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
///
/// Dropping it ends the subscription.
#[must_use = "a subscription that is dropped has ended"]
pub struct Subscription<T> {
    source: Source<T>,
    order: SequenceTracker<T>,
}

enum Source<T> {
    Here(Subscriber<T>),
    There(Box<Remote<T>>),
    Over,
}

impl<T> Subscription<T> {
    pub(crate) fn here(subscriber: Subscriber<T>) -> Self {
        Self {
            order: SequenceTracker::default(),
            source: Source::Here(subscriber),
        }
    }

    /// Creates the subscription of a subscriber that has seen the values up to `after`.
    pub(crate) fn there(remote: Remote<T>, after: Option<Position>) -> Self {
        let mut order = SequenceTracker {
            position: after,
            ..SequenceTracker::default()
        };
        order.begin(remote.position());
        Self {
            order,
            source: Source::There(Box::new(remote)),
        }
    }

    /// Returns the next value, or the gap before it; `None` once the topic is closed.
    ///
    /// # Errors
    ///
    /// The reason why the subscription has ended, as its last item.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped and the method called again; nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Update<T>, Status>> {
        poll_fn(|cx| self.poll_update(cx)).await
    }

    /// Returns the position after the last value that was returned. To resume from there in another
    /// process, see [`CallOptions::resume`](crate::CallOptions::resume). `None` for a subscription
    /// to a topic of this process that has not begun.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.order.seen()
    }

    /// Sets the time for which a client tries to resume after a disconnection. Default: 60 s. Zero:
    /// it does not try. The pauses between attempts are random, at most 100 ms at first and 10 s
    /// later on.
    pub fn resume_within(mut self, limit: Duration) -> Self {
        if let Source::There(remote) = &mut self.source {
            remote.resume_within(limit);
        }
        self
    }

    /// Sets the number of values that may wait for this subscriber, at least 1, instead of the
    /// topic's setting ([`TopicBuilder::buffer`]). Only for a topic of this process.
    pub fn buffer(self, values: usize) -> Self {
        if let Source::Here(subscriber) = &self.source {
            subscriber.set_buffer(values);
        }
        self
    }

    /// Sets the action when this subscriber is too slow, instead of the topic's setting
    /// ([`TopicBuilder::slow_consumer`]). Only for a topic of this process.
    pub fn slow_consumer(self, policy: SlowConsumer) -> Self {
        if let Source::Here(subscriber) = &self.source {
            subscriber.set_policy(policy);
        }
        self
    }

    /// Sets the number of values published before with which the subscription begins, as far as the
    /// history has them. Default: 0. A subscriber that resumes after a position gets the values
    /// after it, regardless of this setting. Only for a topic of this process.
    pub fn replay(self, values: usize) -> Self {
        if let Source::Here(subscriber) = &self.source {
            subscriber.replay(values);
        }
        self
    }

    /// Returns the values for a server to send, and the position where they begin: after `after`,
    /// if that is of the same topic.
    pub(crate) fn send_from(self, after: Option<Position>) -> (Position, Sending<T>) {
        match self.source {
            Source::Here(subscriber) => {
                let begins = subscriber.begin(after);
                (begins, Sending::Here(subscriber))
            }
            Source::There(remote) => {
                let begins = self.order.position.unwrap_or_default();
                (begins, Sending::There(remote))
            }
            Source::Over => (Position::default(), Sending::Over),
        }
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update<T>, Status>>> {
        loop {
            if let Some(update) = self.order.next() {
                return Poll::Ready(Some(Ok(update)));
            }
            let item = match &mut self.source {
                Source::Here(subscriber) => {
                    if self.order.position.is_none() {
                        self.order.begin(subscriber.begin(None));
                    }
                    subscriber.poll_value(cx)
                }
                Source::There(remote) => remote.poll_item(cx),
                Source::Over => return Poll::Ready(None),
            };
            match std::task::ready!(item) {
                Some(Ok(Item::Value(sequence, value))) => {
                    if let Err(status) = self.order.add(sequence, value) {
                        self.source = Source::Over;
                        return Poll::Ready(Some(Err(status)));
                    }
                }
                Some(Ok(Item::Begins(position))) => self.order.begin(position),
                Some(Err(status)) => {
                    self.source = Source::Over;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    self.source = Source::Over;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Result<Update<T>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_update(cx)
    }
}

/// Values are moved, never pinned.
impl<T> Unpin for Subscription<T> {}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("position", &self.order.seen())
            .finish_non_exhaustive()
    }
}

/// An item from the topic.
pub(crate) enum Item<T> {
    Value(u64, T),
    /// The position after which the following values begin.
    Begins(Position),
}

/// An item of a [`Subscription`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<T> {
    /// The next value.
    Value {
        /// Its number: one more than that of the value published before it, starting at 1.
        sequence: u64,
        /// The published value.
        value: T,
    },
    /// Values are missing here.
    Gap(Gap),
}

impl<T> Update<T> {
    /// Returns the value, if it is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value { value, .. } => Some(value),
            Self::Gap(_) => None,
        }
    }
}

/// Values that a subscriber did not get: it was too slow, or it was disconnected for longer than
/// the history lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Number of missing values; `None` if it is unknown, because the topic is a new one: its
    /// server was restarted.
    pub missed: Option<u64>,
}

/// The position of a subscription in its topic. As text: two hexadecimal numbers separated by a
/// point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// Distinguishes the topic from others, and from itself before a restart.
    topic: u64,
    /// Number of the last value that was seen.
    after: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.topic, self.after)
    }
}

/// Error of a text that is not a [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a position of a subscription, which is two hexadecimal numbers with a point between them"
)]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let number = |text: &str| {
            let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(text, 16).ok().filter(|_| is_hex)
        };
        let (topic, after) = text.split_once('.').ok_or(PositionError)?;
        Ok(Self {
            topic: number(topic).ok_or(PositionError)?,
            after: number(after).ok_or(PositionError)?,
        })
    }
}

/// Orders values and positions, and finds gaps.
struct SequenceTracker<T> {
    position: Option<Position>,
    /// The gap before the position, and the position before that gap.
    gap: Option<(Gap, Option<Position>)>,
    value: Option<(u64, T)>,
}

impl<T> Default for SequenceTracker<T> {
    fn default() -> Self {
        Self {
            position: None,
            gap: None,
            value: None,
        }
    }
}

impl<T> SequenceTracker<T> {
    /// Sets the position after which the following values begin.
    fn begin(&mut self, begins: Position) {
        let missed = match self.position {
            None => Some(0),
            // The numbers of one topic never decrease.
            Some(seen) if seen.topic == begins.topic => begins.after.checked_sub(seen.after),
            Some(_) => None,
        };
        if missed != Some(0) {
            self.gap = Some((Gap { missed }, self.seen()));
        }
        self.position = Some(begins);
    }

    /// Returns the position after the last update that was returned.
    fn seen(&self) -> Option<Position> {
        match self.gap {
            Some((_, before)) => before,
            None => self.position,
        }
    }

    fn add(&mut self, sequence: u64, value: T) -> Result<(), Status> {
        let seen = self.seen();
        let position = self.position.get_or_insert_default();
        // The numbers come from the peer and may be anything, so every difference is checked.
        let Some(missed) = sequence.checked_sub(position.after.saturating_add(1)) else {
            let seen = position.after;
            return Err(Status::internal(format!(
                "value {sequence} of a subscription came after value {seen}"
            )));
        };
        if missed > 0 {
            // Values that are missing here may follow values that were missing before.
            let before = self.gap.map_or(Some(0), |(gap, _)| gap.missed);
            let missed = before.map(|before| before.saturating_add(missed));
            self.gap = Some((Gap { missed }, seen));
        }
        // The checked subtraction above has shown that this is not negative. The value itself
        // counts as seen when it is handed out.
        position.after = sequence - 1;
        self.value = Some((sequence, value));
        Ok(())
    }

    fn next(&mut self) -> Option<Update<T>> {
        // A gap comes before the value that follows it.
        if let Some((gap, _)) = self.gap.take() {
            return Some(Update::Gap(gap));
        }
        let (sequence, value) = self.value.take()?;
        self.position.get_or_insert_default().after = sequence;
        Some(Update::Value { sequence, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<T>(order: &mut SequenceTracker<T>) -> Vec<Update<T>> {
        std::iter::from_fn(|| order.next()).collect()
    }

    fn value(sequence: u64) -> Update<u64> {
        let value = sequence;
        Update::Value { sequence, value }
    }

    fn gap(missed: impl Into<Option<u64>>) -> Update<u64> {
        let missed = missed.into();
        Update::Gap(Gap { missed })
    }

    fn at(topic: u64, after: u64) -> Position {
        Position { topic, after }
    }

    #[test]
    fn numbers_that_jump_are_a_gap() {
        let mut order = SequenceTracker::default();
        order.begin(at(1, 5));
        order.add(6, 6).unwrap();
        assert_eq!(all(&mut order), [value(6)]);
        order.add(9, 9).unwrap();
        assert_eq!(all(&mut order), [gap(2), value(9)]);
        assert_eq!(order.position, Some(at(1, 9)));
        assert!(order.add(9, 9).is_err());
        assert!(
            SequenceTracker::default().add(0, 0).is_err(),
            "the first is 1"
        );
    }

    #[test]
    fn what_begins_later_than_it_ended_is_a_gap() {
        let mut order = SequenceTracker::default();
        order.begin(at(1, 0));
        order.add(1, 1).unwrap();
        assert_eq!(all(&mut order), [value(1)]);
        order.begin(at(1, 1));
        assert_eq!(all(&mut order), []);
        order.begin(at(1, 4));
        assert_eq!(all(&mut order), [gap(3)], "also before a value comes");
        order.begin(at(1, 4));
        order.add(5, 5).unwrap();
        assert_eq!(all(&mut order), [value(5)]);
    }

    #[test]
    fn the_gap_to_another_topic_has_an_unknown_length() {
        let mut order = SequenceTracker::default();
        order.begin(at(1, 7));
        order.begin(at(2, 0));
        order.add(3, 3).unwrap();
        assert_eq!(all(&mut order), [gap(None), value(3)]);
        // A topic that counts backwards is not the same.
        order.begin(at(2, 1));
        assert_eq!(all(&mut order), [gap(None)]);
    }

    #[test]
    fn its_position_is_before_a_gap_until_the_gap_was_yielded() {
        let mut order = SequenceTracker::<u64> {
            position: Some(at(1, 5)),
            ..SequenceTracker::default()
        };
        order.begin(at(1, 9));
        assert_eq!(order.seen(), Some(at(1, 5)));
        assert_eq!(all(&mut order), [gap(4)]);
        assert_eq!(order.seen(), Some(at(1, 9)));
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        for position in [at(0, 0), at(u64::MAX, 1), at(0xabc, u64::MAX)] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for text in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "g.1",
            "1.2.3",
            "+1.2",
            "10000000000000000.1",
            " 1.1",
        ] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text:?}");
        }
    }
}
