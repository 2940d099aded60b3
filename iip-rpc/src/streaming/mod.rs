//! Streams of messages within a call.

pub(crate) mod held;
pub(crate) mod messages;
#[cfg(feature = "codec-prost")]
pub(crate) mod proto;
pub(crate) mod writer;

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::{Semaphore, mpsc};

use crate::status::Status;

/// A stream of messages, each a `T`, until it ends or fails with an `E`.
///
/// A method takes it as an argument if its caller sends many messages, `chunks: Streaming<Chunk>`,
/// and a client gets it from a method that returns many:
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::{Client, Server, Status, Stream, Streaming, service};
///
/// #[service]
/// pub trait Numbers {
///     /// Counts up to `last`.
///     async fn count(&self, last: u32) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
///     /// Adds up.
///     async fn sum(&self, numbers: Streaming<u32>) -> Result<u64, Status>;
/// }
///
/// struct Here;
///
/// impl Numbers for Here {
///     async fn count(
///         &self,
///         last: u32,
///     ) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
///         Ok(Streaming::iter(1..=last))
///     }
///
///     async fn sum(&self, mut numbers: Streaming<u32>) -> Result<u64, Status> {
///         let mut sum = 0;
///         while let Some(number) = numbers.next().await {
///             sum += u64::from(number?);
///         }
///         Ok(sum)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder().service(NumbersServer::new(Here)).bind("127.0.0.1:0").await?;
/// let numbers = NumbersClient::new(Client::connect(server.target()).await?);
/// let counted = numbers.count(4).await?;
/// assert_eq!(numbers.sum(counted).await?, 10);
/// server.shutdown(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
///
/// The sender keeps pace with the reader: the bytes in flight are limited by
/// [`Limits::stream_window`](crate::Limits::stream_window).
///
/// An error is the last item. A handler whose caller goes away before it has sent everything reads
/// [`CANCELLED`](crate::Code::Cancelled), never a regular end. At a client, dropping the stream
/// cancels the call.
pub struct Streaming<T, E = Status>(Pin<Box<dyn Stream<Item = Result<T, E>> + Send>>);

impl<T, E> Streaming<T, E> {
    /// Creates a stream from the messages of `stream`, which may fail.
    pub fn new(stream: impl Stream<Item = Result<T, E>> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }

    /// Returns the next message; `None` once there are no more.
    ///
    /// # Errors
    ///
    /// The error that the stream failed with, as its last item.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped and the method called again; no message is lost.
    pub async fn next(&mut self) -> Option<Result<T, E>> {
        poll_fn(|cx| self.0.as_mut().poll_next(cx)).await
    }
}

impl<T: Send + 'static, E: Send + 'static> Streaming<T, E> {
    /// Creates a stream from the messages of a stream that does not fail.
    pub fn from_stream(stream: impl Stream<Item = T> + Send + 'static) -> Self {
        Self::new(Fine(Box::pin(stream), PhantomData))
    }

    /// Creates a stream from the messages of an iterator, which is advanced only as the peer takes
    /// messages. An iterator that blocks holds up a worker thread.
    pub fn iter<I>(messages: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
    {
        Self::new(Each(Box::new(messages.into_iter()), PhantomData))
    }

    /// Creates a stream and the sender of its messages. At most `capacity` messages wait at a time;
    /// 0 counts as 1. The stream ends once every sender has [finished](StreamSender::finish). A
    /// sender that is dropped without that, because its task has panicked, was aborted or returned
    /// early, makes the stream end with [`CANCELLED`](crate::Code::Cancelled): a stream that was
    /// cut off never looks complete.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use iip_rpc::{Status, Streaming};
    ///
    /// let (sender, mut stream) = Streaming::<_, Status>::channel(16);
    /// tokio::spawn(async move {
    ///     if sender.send("one").await.is_ok() {
    ///         sender.finish();
    ///     }
    /// });
    /// assert_eq!(stream.next().await, Some(Ok("one")));
    /// assert_eq!(stream.next().await, None);
    /// # }
    /// ```
    #[must_use]
    pub fn channel(capacity: usize) -> (StreamSender<T, E>, Self)
    where
        E: From<Status>,
    {
        let (messages, receiver) = mpsc::channel(capacity.clamp(1, Semaphore::MAX_PERMITS));
        let cut = Arc::new(AtomicBool::new(false));
        let sender = StreamSender {
            messages,
            cut: Arc::clone(&cut),
            finished: false,
        };
        (sender, Self::new(Queued { receiver, cut }))
    }
}

impl<T, E> Stream for Streaming<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T, E> fmt::Debug for Streaming<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").finish_non_exhaustive()
    }
}

/// The sender of a [`Streaming::channel`]. Cheap to clone; every clone has to
/// [finish](Self::finish).
pub struct StreamSender<T, E = Status> {
    messages: mpsc::Sender<Result<T, E>>,
    /// Set once a sender has been dropped without finishing.
    cut: Arc<AtomicBool>,
    finished: bool,
}

impl<T, E> StreamSender<T, E> {
    /// Sends a message once there is room.
    ///
    /// # Errors
    ///
    /// The stream is not read any more; the error contains the message.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message is not sent.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        match self.messages.reserve().await {
            Ok(place) => {
                place.send(Ok(message));
                Ok(())
            }
            Err(_) => Err(SendError(message)),
        }
    }

    /// Declares that this sender has no more messages. The stream ends once all its senders have
    /// finished.
    pub fn finish(mut self) {
        self.finished = true;
    }

    /// Ends the stream with an error.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the error is not sent, and the stream ends as
    /// if the sender had been dropped.
    pub async fn fail(mut self, error: E) {
        // If the stream is not read any more, the error is not needed.
        let _ = self.messages.send(Err(error)).await;
        self.finished = true;
    }

    /// Returns `true` if the reader has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }
}

/// A message that was not sent because the stream is not read any more. In a handler, `?` converts
/// it to the status [`CANCELLED`](crate::Code::Cancelled).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(
    /// The message.
    pub T,
);

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream is no longer read")
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").finish_non_exhaustive()
    }
}

impl<T> std::error::Error for SendError<T> {}

#[diagnostic::do_not_recommend]
impl<T> From<SendError<T>> for Status {
    fn from(error: SendError<T>) -> Self {
        Self::cancelled(error.to_string())
    }
}

impl<T, E> Clone for StreamSender<T, E> {
    fn clone(&self) -> Self {
        Self {
            messages: self.messages.clone(),
            cut: Arc::clone(&self.cut),
            finished: false,
        }
    }
}

impl<T, E> Drop for StreamSender<T, E> {
    fn drop(&mut self) {
        if !self.finished {
            // This comes before the drop of the channel's sender, so a reader that finds no sender
            // left sees it.
            self.cut.store(true, Ordering::Release);
        }
    }
}

impl<T, E> fmt::Debug for StreamSender<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSender").finish_non_exhaustive()
    }
}

/// A stream that does not fail.
struct Fine<S, E>(Pin<Box<S>>, PhantomData<fn() -> E>);

impl<S: Stream, E> Stream for Fine<S, E> {
    type Item = Result<S::Item, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx).map(|item| item.map(Ok))
    }
}

/// An iterator as a stream.
struct Each<I, E>(Box<I>, PhantomData<fn() -> E>);

impl<I: Iterator, E> Stream for Each<I, E> {
    type Item = Result<I::Item, E>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

/// The receiver of a channel.
struct Queued<T, E> {
    receiver: mpsc::Receiver<Result<T, E>>,
    cut: Arc<AtomicBool>,
}

impl<T, E: From<Status>> Stream for Queued<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.receiver.poll_recv(cx));
        // All senders have gone; `cut` is set if one of them did not finish.
        if next.is_none() && self.cut.swap(false, Ordering::Acquire) {
            let text = "the sender of the stream was dropped before it had finished \
                (StreamSender::finish)";
            return Poll::Ready(Some(Err(Status::cancelled(text).into())));
        }
        Poll::Ready(next)
    }
}
