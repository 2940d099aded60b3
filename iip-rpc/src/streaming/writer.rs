//! Sends a stream of messages on the connection: small messages are batched, but none waits for
//! more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use iip_core::{SendStream, StreamError};
use serde::Serialize;

use super::messages::{self, TooLarge};
use crate::codec::{CodecId, DecodeLimits, EncodeError, encode_value_split};
use crate::compression::Encoding;
use crate::payload::ByValue;
use crate::status::Status;

/// Size, in bytes, up to which messages are batched.
const BATCH_BYTES: usize = 16 * 1024;

/// Capacity, in bytes, that the batch of a stream without messages keeps.
const KEPT_BYTES: usize = 4 * 1024;

/// Maximum number of batches in a row before other tasks get a turn.
const MAX_BATCHES: usize = 32;

/// The outcome of sending a stream of messages.
#[derive(Debug)]
pub(crate) enum Ended<E> {
    /// All messages were sent.
    Complete,
    /// The stream failed.
    Failed(E),
    /// A message could not be sent.
    Rejected(Status),
    /// The peer does not read them.
    Unread(StreamError),
    /// The call has ended, and the messages are not needed.
    Over,
}

/// The messages of a stream, without their type.
pub(crate) trait Messages<E> {
    /// Appends the next message to `out` as a record that is begun but not ended, except for a
    /// large payload at its end, which may be returned instead; `None` after the last message.
    fn poll_add(
        &mut self,
        cx: &mut Context<'_>,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Poll<Option<Result<Encoded, E>>>;
}

/// The rest of a message that was encoded.
pub(crate) type Encoded = Result<Option<Bytes>, EncodeError>;

/// The messages to send with a call.
pub(crate) type DynMessages<'a> = dyn Messages<Status> + Send + 'a;

/// A stream whose messages are sent.
pub(crate) struct Outgoing<S>(pub(crate) S);

impl<T, E, S> Messages<E> for Outgoing<S>
where
    S: Stream<Item = Result<T, E>> + Unpin,
    T: Serialize + 'static,
{
    fn poll_add(
        &mut self,
        cx: &mut Context<'_>,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Poll<Option<Result<Encoded, E>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll_next(cx)) {
            Some(Ok(message)) => {
                messages::begin(out);
                Some(Ok(encode_value_split(codec, &ByValue(message), out)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }
}

/// Sends the messages of a stream.
#[derive(Debug)]
pub(crate) struct MessageWriter<E> {
    send: SendStream,
    encoding: Encoding,
    limits: DecodeLimits,
    batch: BytesMut,
    /// Maximum capacity of the batch since it was last new. A piece that was split off shares its
    /// memory.
    batch_room: usize,
    ended: Option<Ended<E>>,
}

impl<E> MessageWriter<E> {
    pub(crate) fn new(send: SendStream, encoding: Encoding, limits: DecodeLimits) -> Self {
        Self {
            send,
            encoding,
            limits,
            batch: BytesMut::new(),
            batch_room: 0,
            ended: None,
        }
    }

    /// Returns the buffer in which messages are batched. A prefix may be put there.
    pub(crate) fn batch(&mut self) -> &mut BytesMut {
        &mut self.batch
    }

    /// Sends messages while there are any and the peer takes them; ready once there are no more.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        messages: &mut dyn Messages<E>,
    ) -> Poll<Ended<E>> {
        for _ in 0..MAX_BATCHES {
            match self.send.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error @ StreamError::Unread)) => {
                    return Poll::Ready(Ended::Unread(error));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Ended::Over),
                Poll::Pending => {
                    // Nothing is gathered while the last piece waits; only that piece keeps its
                    // memory.
                    self.release();
                    return Poll::Pending;
                }
            }
            // What was gathered before the end is sent first. The stream was ready, so the last
            // piece was taken.
            if self.ended.is_some() && self.batch.is_empty() {
                return Poll::Ready(self.ended.take().unwrap_or(Ended::Over));
            }
            let tail = self.fill(cx, messages);
            self.batch_room = self.batch_room.max(self.batch.capacity());
            if self.batch.is_empty() {
                // `fill` has left the waker with the messages.
                if self.ended.is_none() {
                    self.release();
                    return Poll::Pending;
                }
                continue;
            }
            let piece = messages::piece(&mut self.batch, tail);
            if self.send.start_send(cx, piece).is_err() {
                return Poll::Ready(Ended::Over);
            }
        }
        // The limit is reached, and neither the stream nor the messages will wake this task.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Releases the memory of large messages while the stream has none.
    fn release(&mut self) {
        if self.batch_room > KEPT_BYTES {
            self.batch = BytesMut::new();
            self.batch_room = 0;
        }
    }

    /// Gathers messages until none is ready or the batch is full.
    fn fill(&mut self, cx: &mut Context<'_>, messages: &mut dyn Messages<E>) -> Bytes {
        while self.ended.is_none() && self.batch.len() < BATCH_BYTES {
            let start = self.batch.len();
            match messages.poll_add(cx, self.encoding.codec, &mut self.batch) {
                Poll::Ready(Some(Ok(encoded))) => match self.end(start, encoded) {
                    Ok(tail) if tail.is_empty() => {}
                    // A large payload ends the piece, because nothing can follow it in the buffer.
                    Ok(tail) => return tail,
                    Err(status) => self.ended = Some(Ended::Rejected(status)),
                },
                Poll::Ready(Some(Err(error))) => self.ended = Some(Ended::Failed(error)),
                Poll::Ready(None) => self.ended = Some(Ended::Complete),
                Poll::Pending => break,
            }
        }
        Bytes::new()
    }

    /// Ends the record at `start` of the batch. The returned bytes follow it.
    fn end(&mut self, start: usize, encoded: Encoded) -> Result<Bytes, Status> {
        let tail = encoded.map_err(|error| {
            // A part of the message may have been written.
            self.batch.truncate(start);
            cannot_encode(self.encoding.codec, &error)
        })?;
        let (limits, packer) = (Some(&self.limits), self.encoding.packer.as_ref());
        let mut tail = tail.unwrap_or_default();
        messages::end(&mut self.batch, start, limits, packer, &mut tail).map_err(too_large)?;
        Ok(tail)
    }

    /// Signals the end of the messages to the peer.
    pub(crate) fn finish(&mut self) {
        self.send.finish();
    }
}

#[cold]
fn too_large(TooLarge { size, limit }: TooLarge) -> Status {
    Status::resource_exhausted(format!(
        "a message of {size} bytes in a stream exceeds the limit of {limit} bytes (option \
         max_message_bytes)"
    ))
}

#[cold]
fn cannot_encode(codec: CodecId, error: &EncodeError) -> Status {
    Status::internal(format!(
        "cannot encode a message of a stream in {codec}: {error}"
    ))
}
