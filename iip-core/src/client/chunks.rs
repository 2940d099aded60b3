//! The chunks of a reply, and a channel that is leased to one caller.

use std::time::Duration;

use bytes::Bytes;

use super::pick::{CallTracker, Picked, outcome_of};
use crate::balance::Outcome;
use crate::body::Body;
use crate::clock;
use crate::connection::{Call, CallTimes, Connection};
use crate::error::{CallError, CallErrorKind};
use crate::frame::ChannelId;
use crate::path::callable;
use crate::proto::Mode;
use crate::proto::calls::Start;

/// The parts of a streamed reply, in order. Dropping it cancels the call.
///
/// Parts that are not taken are held in memory, up to the option `max_message_bytes` of
/// [`Limits`](crate::Limits).
#[derive(Debug)]
pub struct ReplyParts {
    call: Call,
    ended: bool,
}

impl ReplyParts {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, ended: false }
    }

    /// Returns the next part; `None` after the last.
    ///
    /// Parts correspond to the frames of the reply; the sender decides how a message is cut into
    /// frames.
    ///
    /// # Errors
    ///
    /// See [`Connection::call`](crate::Connection::call); nothing follows an error.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; no part is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        if self.ended {
            return None;
        }
        let next = std::future::poll_fn(|cx| {
            self.call.poll_slot(cx, |proto, slot| {
                if let Some(part) = slot.take_part(proto) {
                    return Some(((Ok(part), false), false));
                }
                slot.take_outcome().map(|outcome| ((outcome, true), true))
            })
        });
        let (part, last) = match next.await {
            Ok(next) => next,
            Err(error) => (Err(error), true),
        };
        self.ended = last;
        if last {
            let outcome = part.as_ref().map_or_else(outcome_of, |_| Outcome::Untimed);
            self.call.end_tracking(|| outcome);
        }
        Some(part.map_err(|error| self.call.explain(error)))
    }
}

/// A channel leased to one caller: requests sent on it are replied in order.
///
/// The server handles one of them at a time. Dropping the channel returns it to the pool of the
/// connection once every reply has arrived.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = iip_core::Client::connect("127.0.0.1:9000").await?;
/// let channel = client.open_channel().await?;
/// let (first, second) = (channel.request("/echo", "one"), channel.request("/echo", "two"));
/// assert_eq!(&first.await?[..], b"one");
/// assert_eq!(&second.await?[..], b"two");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Channel {
    connection: Connection,
    id: ChannelId,
    timeout: Duration,
    /// The channel counts as one call of its backend.
    _tracker: Option<CallTracker>,
}

impl Channel {
    /// Waits for the channel that `call` requests on this connection.
    pub(crate) async fn leased(
        picked: Picked,
        mut call: Call,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        let id = std::future::poll_fn(|cx| {
            call.poll_slot(cx, |_, slot| match slot.leased() {
                // The slot is released, and the lease is not: it ends with the returned value.
                Some(channel) => Some((Ok(channel), true)),
                None => slot.take_outcome().map(|outcome| (Err(outcome), true)),
            })
        })
        .await?;
        match id {
            Ok(id) => Ok(Self {
                connection: picked.connection,
                id,
                timeout,
                _tracker: picked.tracker,
            }),
            Err(result) => Err(result
                .err()
                .unwrap_or_else(|| CallError::not_sent(CallErrorKind::Closed))),
        }
    }

    /// Returns the number of the channel on the wire.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Sends a request after the previous ones; several may be under way. The timeout is the
    /// client's [`timeout`](crate::ClientBuilder::timeout).
    ///
    /// The request is queued when this function is called, not when the future is polled.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the reply; the order of the other replies does not change.
    pub fn request(&self, path: &str, body: impl Into<Body>) -> Call {
        let now = clock::now();
        let times = CallTimes::new(now, clock::after(now, self.timeout));
        let start = Start {
            on: Some(self.id),
            ..Start::new(Mode::Whole, now, times.deadline)
        };
        let mut call = Call::new(self.connection.clone(), &times);
        call.start(callable(path), &start, &mut body.into(), None);
        call
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.shared.command(|state| {
            state
                .calls
                .return_lease(&mut state.proto, self.id, clock::now())
        });
    }
}
