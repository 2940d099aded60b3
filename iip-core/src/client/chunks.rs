//! The chunks of a reply, and a channel that is leased to one caller.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::pick::{CallTracker, Picked};
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
/// Parts that are not taken are held in memory, up to the options `max_message_bytes` and
/// `max_buffered_bytes` of [`Limits`](crate::Limits); beyond them the call fails, because the
/// protocol cannot slow down a single reply.
#[derive(Debug)]
pub struct ReplyParts {
    call: Call,
    /// The first part, if it has arrived already.
    first: Option<Bytes>,
    ended: bool,
}

impl ReplyParts {
    pub(crate) fn new(call: Call) -> Self {
        Self {
            call,
            first: None,
            ended: false,
        }
    }

    /// Creates the parts of a reply whose first one has arrived.
    pub(crate) fn begun(call: Call, first: Bytes) -> Self {
        Self {
            ended: call.id().is_none(),
            call,
            first: Some(first),
        }
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
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for the next part, like [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// See [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let part = ready!(self.call.poll_part(cx, Outcome::Untimed));
        self.ended = self.call.id().is_none();
        Poll::Ready(Some(part))
    }

    /// Sets the deadline of the call, which applies from now on. It includes the last part of the
    /// reply.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.call.set_deadline(deadline);
    }

    /// Returns `true` if the last part was returned, or an error.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended && self.first.is_none()
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
        let id = poll_fn(|cx| {
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
