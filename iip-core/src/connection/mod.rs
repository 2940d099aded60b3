//! One connection: the handle for callers, the state behind it, and what callers and handlers hold
//! of it.

mod call;
mod parts;
mod peer;
mod replies;
pub(crate) mod running;
mod running_call;
mod shared;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

pub use self::call::{Call, CallTimes, with_context};
pub use self::parts::{ReplyStream, RequestParts};
pub use self::peer::Peer;
pub use self::running_call::RunningCall;
pub(crate) use self::shared::{Closing, Shared, State, WriteWaiter};
pub(crate) use self::stream::of_handler;
pub use self::stream::{RecvStream, SendStream, StreamError};
use crate::body::Body;
use crate::clock;
use crate::error::{CallError, CallErrorKind, ConnectionError};
use crate::path::{StaticPath, callable};
use crate::proto::Mode;
use crate::proto::calls::Start;
use crate::proto::stream::DATA;

/// Leaves the queue for room on drop. Streams are few, and stay in it; the number of callers of
/// one-way calls is not bounded.
struct WaitToWrite<'a> {
    shared: &'a Shared,
    place: WriteWaiter,
}

impl Drop for WaitToWrite<'_> {
    fn drop(&mut self) {
        // The lock is released at the end of this statement, before the waker is dropped.
        let waker = self.shared.lock().stop_waiting(self.place);
        drop(waker);
    }
}

/// One connection to a server; cheap to clone.
///
/// Callers usually use a [`Client`](crate::Client), which makes connections and replaces lost ones.
/// The connection ends when the client is closed or dropped.
#[derive(Clone)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
}

impl Connection {
    /// Returns the peer of the connection.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.shared.peer
    }

    /// Calls `path` with `body` and waits for the reply until `deadline`, which also limits the
    /// wait for a channel.
    ///
    /// The request is queued when this function is called, not when the future is polled.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]; [`CallError::execution`] returns whether the call may have run.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call: the server is notified if it supports that, and its
    /// reply is discarded. The connection and other calls are not affected.
    #[inline]
    pub fn call(&self, path: &str, body: impl Into<Body>, deadline: Instant) -> Call {
        let now = clock::now();
        let times = CallTimes::new(now, deadline);
        let mut call = Call::new(self.clone(), &times);
        let start = Start::new(Mode::Whole, now, deadline);
        call.start(callable(path), &start, &mut body.into(), None);
        call
    }

    /// Returns `true` if one more one-way request may be queued for writing.
    #[doc(hidden)]
    #[must_use]
    pub fn has_room_for_one_way(&self) -> bool {
        self.shared.lock().proto.has_one_way_room()
    }

    /// Waits until there is room for one more one-way request, at the latest until `deadline`.
    ///
    /// # Errors
    ///
    /// Fails if there was no room in time.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    #[doc(hidden)]
    pub async fn room_for_one_way(&self, deadline: Instant) -> Result<(), CallError> {
        if self.has_room_for_one_way() {
            return Ok(());
        }
        let mut waiting = WaitToWrite {
            shared: &self.shared,
            place: WriteWaiter::default(),
        };
        let has_room = std::future::poll_fn(|cx| {
            self.shared.command(|state| {
                // The call that follows gets the error of a connection that has ended.
                if state.ended.is_some() || state.proto.has_one_way_room() {
                    return Poll::Ready(());
                }
                state.wait_to_write(&mut waiting.place, cx.waker());
                Poll::Pending
            })
        });
        tokio::time::timeout_at(deadline.into(), has_room)
            .await
            .map_err(|_| CallError::not_sent(CallErrorKind::Timeout))
    }

    /// Starts a call with a stream of bytes in each direction; the outgoing one begins with the
    /// data that `encode` writes. See [`SendStream`] and [`RecvStream`]. Once the call is under
    /// way, its deadline is that of [`RecvStream::set_deadline`].
    ///
    /// # Errors
    ///
    /// Returns the error of `encode`. Other errors are returned by [`RecvStream::reply`].
    #[doc(hidden)]
    pub fn start_stream<E>(
        self,
        path: StaticPath,
        times: &CallTimes,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<(SendStream, RecvStream), E> {
        let first = Body::encode(encode)?;
        Ok(self.start_stream_with(Ok(path.as_str()), times, first))
    }

    pub(crate) fn start_stream_with(
        self,
        path: Result<&str, CallErrorKind>,
        times: &CallTimes,
        mut rest: Body,
    ) -> (SendStream, RecvStream) {
        let start = Start::new(Mode::Stream, times.connected, times.deadline);
        // The rest of the first part is dropped without the lock.
        let (mut first, mut marked) = (Body::default(), Body::default());
        let id = match path {
            Err(kind) => Err(CallError::not_sent(kind)),
            Ok(_) if rest.is_empty() => Err(CallError::not_sent(CallErrorKind::EmptyBody)),
            Ok(path) => self.shared.command(|state| {
                state.check_alive()?;
                if state.proto.peer_stream_window().is_none() {
                    return Err(CallError::not_sent(CallErrorKind::NoStreams));
                }
                // The first frame has one part of the data at most; the rest waits for credit like
                // later data.
                let at = rest.len().min(state.proto.stream_part_bytes());
                first = rest.split_to(at);
                marked = first.marked(DATA);
                let (calls, proto) = (&mut state.calls, &mut state.proto);
                let started = calls.start(proto, path, &start, &mut marked, None);
                started.inspect_err(|_| self.shared.note_retired(state))
            }),
        };
        // A call that could not start has both halves as well, and its error in the receiving one.
        let shared = Arc::clone(&self.shared);
        let call = Call::started(self, times, id);
        stream::of_call(&shared, call, rest)
    }

    /// Starts a call that ends when a channel is available for its owner.
    pub(crate) fn lease(&self, now: Instant, deadline: Instant) -> Call {
        let id = self.shared.command(|state| {
            state.check_alive()?;
            let lease = state.calls.start_lease(&mut state.proto, now, deadline);
            lease.inspect_err(|_| self.shared.note_retired(state))
        });
        let times = CallTimes::new(now, deadline);
        Call::started(self.clone(), &times, id)
    }

    /// Returns the reason why the connection ended, or `None` while it is alive.
    #[must_use]
    pub fn ended(&self) -> Option<ConnectionError> {
        self.shared.lock().ended.clone()
    }

    /// Waits until the connection has ended, and returns the reason.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn closed(&self) -> ConnectionError {
        self.shared.closed().await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.shared.peer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_that_gives_up_what_its_stream_holds_wakes_the_driver() {
        let shared = Shared::of_server(None);
        let count = Arc::<Counts>::default();
        let mut state = shared.lock();
        state.proto.hold(10);
        state.proto.set_unsent(0, 10);
        state.driver = Some(Waker::from(Arc::clone(&count)));
        drop(state);
        shared.stream_command(|_| ());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        shared.stream_command(|state| state.proto.release(10));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        shared.lock().driver = Some(Waker::from(Arc::clone(&count)));
        shared.stream_command(|state| state.proto.set_unsent(10, 0));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn whoever_asks_for_room_again_and_again_has_one_place_and_is_woken_once() {
        let shared = Shared::of_server(None);
        let mut state = shared.lock();
        let counts: [Arc<Counts>; 2] = Default::default();
        let mut places = [WriteWaiter::default(); 2];
        for round in 1..4 {
            for _ in 0..1000 {
                for (place, count) in places.iter_mut().zip(&counts) {
                    state.wait_to_write(place, &Waker::from(Arc::clone(count)));
                }
            }
            assert_eq!(state.write_waiters.len(), 2);
            // Nothing waits to be written.
            state.wake_writers();
            assert!(state.write_waiters.is_empty());
            // They are woken without the lock.
            drop(state);
            state = shared.lock();
            for count in &counts {
                assert_eq!(count.0.load(Ordering::Relaxed), round);
            }
        }
        let [first, _] = &mut places;
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[0])));
        let mut wakers = Vec::new();
        state.leave_room(&mut wakers);
        assert_eq!(wakers.len(), 1);
        // The place belongs to another task now, which must be woken.
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[0])));
        state.wait_to_write(first, &Waker::from(Arc::clone(&counts[1])));
        state.wake_writers();
        drop(state);
        assert_eq!(counts[1].0.load(Ordering::Relaxed), 4);
        assert_eq!(counts[0].0.load(Ordering::Relaxed), 3);
    }
}
