//! Messages in a stream of bytes: four bytes of length, big-endian, then the message. The two
//! highest bits of the length are the compression of the message.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use iip_core::__rpc::now;
use iip_core::{Body, CallError, RecvStream};
use tokio::time::Sleep;

use crate::codec::{DecodeError, DecodeLimits};
use crate::compression::{CompressionId, Compressor, decompress_in_place};
use crate::limits::ENVELOPE_BYTES;

/// Number of bytes of a record in addition to its message.
const LENGTH: usize = 4;

/// Step, in bytes, in which the size of unfinished records is reported.
const HELD_STEP: usize = 64 * 1024;

/// Position of the compression in the length.
const COMPRESSION_SHIFT: u32 = 30;
const MAX_LENGTH: u32 = (1 << COMPRESSION_SHIFT) - 1;

/// Appends the record of an envelope, which `encode` writes. The bytes that `encode` returns are
/// the rest of the envelope, and have to be sent after `out`.
pub(crate) fn write_envelope<E>(
    out: &mut BytesMut,
    encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
) -> Result<Result<Bytes, TooLarge>, E> {
    let start = out.len();
    begin(out);
    match encode(out) {
        Ok(mut tail) => Ok(end(out, start, None, None, &mut tail).map(|()| tail)),
        Err(error) => {
            // A part of the message may have been written.
            out.truncate(start);
            Err(error)
        }
    }
}

/// Begins a record: its message has to be appended next, and [`end`] called.
#[inline]
pub(crate) fn begin(out: &mut BytesMut) {
    // The place of the length, which is known once the message was written.
    out.put_u32(0);
}

/// Ends the record that begins at `start`. `tail` is the rest of its message, and has to be sent
/// after `out`. Compresses the message if there is a packer. Without limits the record is an
/// envelope, whose parts have limits of their own.
pub(crate) fn end(
    out: &mut BytesMut,
    start: usize,
    limits: Option<&DecodeLimits>,
    packer: Option<&Compressor>,
    tail: &mut Bytes,
) -> Result<(), TooLarge> {
    let mut compression = CompressionId::NONE;
    if let Some(packer) = packer {
        (compression, *tail) = packer.pack(out, start + LENGTH, std::mem::take(tail));
    }
    let size = out.len() - start - LENGTH + tail.len();
    let max_bytes = limits.map_or(usize::MAX, DecodeLimits::body_bytes);
    let length = u32::try_from(size)
        .ok()
        .filter(|&length| length <= MAX_LENGTH);
    let Some(length) = length.filter(|_| size <= max_bytes) else {
        out.truncate(start);
        let limit = limits.map_or(usize::MAX, DecodeLimits::message_bytes);
        let limit = limit.min(usize::try_from(MAX_LENGTH).unwrap_or(usize::MAX));
        return Err(TooLarge { size, limit });
    };
    let length = length | u32::from(compression.as_u8()) << COMPRESSION_SHIFT;
    out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Error of a message that exceeds the limit on its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge {
    pub(crate) size: usize,
    pub(crate) limit: usize,
}

/// The reason why no further record can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RecordError {
    TooLarge(TooLarge),
    /// The message is compressed and cannot be decompressed.
    Compressed(DecodeError),
    /// The sender has gone.
    Cut,
    /// The stream ended within a record.
    Truncated,
    /// An unfinished record did not grow for this duration.
    Stalled(Duration),
}

/// Splits bytes into records. Pure.
#[derive(Debug)]
pub struct Records {
    /// Bytes that have arrived and have not been examined.
    part: Bytes,
    /// The beginning of a record that arrives in several parts.
    partial: BytesMut,
    limits: DecodeLimits,
}

impl Records {
    /// The records of a stream that begins, whose messages have at most the size of the limits.
    #[must_use]
    pub fn new(limits: DecodeLimits) -> Self {
        Self {
            part: Bytes::new(),
            partial: BytesMut::new(),
            limits,
        }
    }

    /// Adds bytes that have arrived. The records before them have been taken.
    #[inline]
    pub fn feed(&mut self, part: Bytes) {
        debug_assert!(self.part.is_empty(), "records before this part are left");
        self.part = part;
    }

    /// Number of bytes of the unfinished record, if there is one.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.partial.len()
    }

    /// Returns the next message with its compression, if all of it has arrived. Otherwise nothing
    /// is left of the part.
    ///
    /// # Errors
    ///
    /// The message exceeds the limit on its size.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<(CompressionId, Bytes)>, TooLarge> {
        let next = self.next_here();
        if self.part.is_empty() {
            // An empty part may still keep the memory that it was read into.
            self.part = Bytes::new();
        }
        next
    }

    #[inline]
    fn next_here(&mut self) -> Result<Option<(CompressionId, Bytes)>, TooLarge> {
        if self.partial.is_empty()
            && let Some(head) = self.part.first_chunk::<LENGTH>()
        {
            let (length, compression) = self.check(*head)?;
            if self.part.len() - LENGTH >= length {
                self.part.advance(LENGTH);
                return Ok(Some((compression, self.part.split_to(length))));
            }
            // At most about twice what has arrived: the length that the peer sends allocates
            // nothing.
            self.partial
                .reserve(LENGTH + length.min(self.part.len() * 2));
        }
        self.next_joined()
    }

    /// Like [`next_here`](Self::next_here), but for a record that arrives in several parts.
    fn next_joined(&mut self) -> Result<Option<(CompressionId, Bytes)>, TooLarge> {
        self.take(LENGTH);
        let Some(head) = self.partial.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        // The length is checked before more of the record is collected.
        let (length, compression) = self.check(*head)?;
        let whole = LENGTH + length;
        self.take(whole);
        if self.partial.len() < whole {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial);
        message.advance(LENGTH);
        Ok(Some((compression, message.freeze())))
    }

    /// Moves bytes from the part to the record, until the record has `whole` bytes.
    fn take(&mut self, whole: usize) {
        let missing = whole.saturating_sub(self.partial.len());
        let taken = self.part.split_to(missing.min(self.part.len()));
        self.partial.extend_from_slice(&taken);
    }

    /// Returns the length of a record and its compression.
    fn check(&self, head: [u8; LENGTH]) -> Result<(usize, CompressionId), TooLarge> {
        let head = u32::from_be_bytes(head);
        let compression = CompressionId::new((head >> COMPRESSION_SHIFT) as u8);
        let size = usize::try_from(head & MAX_LENGTH).unwrap_or(usize::MAX);
        let limit = self.limits.message_bytes();
        // The first record is an envelope; for others the codec knows the exact limit.
        if size > limit.saturating_add(ENVELOPE_BYTES) {
            return Err(TooLarge { size, limit });
        }
        Ok((size, compression))
    }
}

/// Reads the records of a stream of bytes.
#[derive(Debug)]
pub(crate) struct MessageReader {
    recv: RecvStream,
    records: Records,
    /// Number of bytes of an unfinished record that has been reported to the connection.
    held: usize,
    /// Timer for an unfinished record that does not grow; created when it is first needed.
    stall: Option<Pin<Box<Sleep>>>,
    /// Set if bytes of the record have arrived since the timer was set.
    grew: bool,
}

impl MessageReader {
    pub(crate) fn new(recv: RecvStream, limits: DecodeLimits) -> Self {
        Self {
            recv,
            records: Records::new(limits),
            held: 0,
            stall: None,
            grew: true,
        }
    }

    /// Returns the first record, to which the progress timeout applies from the beginning.
    pub(crate) fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, RecordError>>> {
        let first = self.poll_next(cx);
        if first.is_pending() && self.records.unfinished() == 0 {
            return self.poll_stall(cx).map(|error| Some(Err(error)));
        }
        first
    }

    /// Returns the message of the next record; `None` once the stream has ended.
    #[inline]
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, RecordError>>> {
        loop {
            match self.records.pop() {
                Ok(Some((compression, message))) => {
                    self.tell_held(0);
                    return Poll::Ready(Some(self.decompressed(compression, message)));
                }
                Ok(None) => self.tell_held(self.records.unfinished()),
                Err(error) => return Poll::Ready(Some(Err(RecordError::TooLarge(error)))),
            }
            let Poll::Ready(next) = self.recv.poll_next(cx) else {
                if self.records.unfinished() == 0 {
                    return Poll::Pending;
                }
                return self.poll_stall(cx).map(|error| Some(Err(error)));
            };
            // Any bytes are progress: the timer is set anew when there are no more of them.
            self.grew = true;
            match next {
                Some(Ok(part)) => self.records.feed(part),
                Some(Err(_)) => return Poll::Ready(Some(Err(RecordError::Cut))),
                None if self.records.unfinished() == 0 => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(RecordError::Truncated))),
            }
        }
    }

    /// Waits until the time at which an unfinished record should have grown.
    #[cold]
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<RecordError> {
        if std::mem::take(&mut self.grew) {
            // A time that the clock cannot represent means that there is no timeout.
            let at = now().checked_add(self.recv.progress_timeout());
            match (&mut self.stall, at.map(Into::into)) {
                (Some(stall), Some(at)) => stall.as_mut().reset(at),
                (stall, at) => *stall = at.map(|at| Box::pin(tokio::time::sleep_until(at))),
            }
        }
        let Some(stall) = &mut self.stall else {
            return Poll::Pending;
        };
        // The timer was set after the bytes that arrived last.
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(RecordError::Stalled(self.recv.progress_timeout()))
    }

    /// Reports the size of an unfinished record to the connection, in steps.
    #[inline]
    fn tell_held(&mut self, held: usize) {
        // Each report takes the lock of the connection, and small records need none.
        let held = held - held % HELD_STEP;
        if held != self.held {
            self.held = held;
            self.recv.hold(held);
        }
    }

    #[inline]
    fn decompressed(
        &self,
        compression: CompressionId,
        mut message: Bytes,
    ) -> Result<Bytes, RecordError> {
        decompress_in_place(compression, &mut message, &self.records.limits)
            .map_err(RecordError::Compressed)?;
        Ok(message)
    }

    /// Returns the underlying stream.
    pub(crate) fn recv(&mut self) -> &mut RecvStream {
        &mut self.recv
    }

    /// Client: returns the reply that follows the stream.
    pub(crate) fn reply(&mut self) -> Option<Result<Bytes, CallError>> {
        self.recv.reply()
    }
}

/// Combines the gathered messages and the bytes that follow them into one piece.
pub(crate) fn piece(batch: &mut BytesMut, tail: Bytes) -> Body {
    Body::split(batch.split(), tail)
}
