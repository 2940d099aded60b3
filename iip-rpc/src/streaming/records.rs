//! Messages as they lie in a stream of bytes: four bytes of length, big-endian, then the message.

use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use iip_core::{Body, CallError, RecvStream, StreamError};

/// Bytes of a record beside its message.
const LENGTH: usize = 4;

/// Appends a record, of which `encode` writes the message; what it returns belongs to it and follows behind.
pub(crate) fn write<E>(
    out: &mut BytesMut,
    limit: usize,
    encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
) -> Result<Result<Bytes, TooLarge>, E> {
    let start = out.len();
    out.put_u32(0);
    let tail = match encode(out) {
        Ok(tail) => tail,
        Err(error) => {
            // A part of the message may be there.
            out.truncate(start);
            return Err(error);
        }
    };
    let size = out.len() - start - LENGTH + tail.len();
    let Some(length) = u32::try_from(size).ok().filter(|_| size <= limit) else {
        out.truncate(start);
        return Ok(Err(TooLarge { size, limit }));
    };
    out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
    Ok(Ok(tail))
}

/// A message is larger than it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooLarge {
    pub(crate) size: usize,
    pub(crate) limit: usize,
}

/// Why no further record can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordError {
    TooLarge(TooLarge),
    /// The sender went away.
    Cut,
    /// The stream ended within a record.
    Truncated,
}

/// Cuts a stream of bytes into its records.
#[derive(Debug)]
pub(crate) struct Records {
    recv: RecvStream,
    /// What has arrived and was not looked at.
    part: Bytes,
    /// The beginning of a record that lies in several parts.
    partial: BytesMut,
    limit: usize,
}

impl Records {
    pub(crate) fn new(recv: RecvStream, limit: usize) -> Self {
        Self {
            recv,
            part: Bytes::new(),
            partial: BytesMut::new(),
            limit,
        }
    }

    /// The message of the next record; `None` once the stream has ended.
    #[inline]
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, RecordError>>> {
        loop {
            match self.next_here() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            self.part = match ready!(self.recv.poll_next(cx)) {
                Some(Ok(part)) => part,
                Some(Err(StreamError::Cut | _)) => return Poll::Ready(Some(Err(RecordError::Cut))),
                None if self.partial.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(RecordError::Truncated))),
            };
        }
    }

    /// The next message, if all of it has arrived. Otherwise nothing is left of the part.
    #[inline]
    fn next_here(&mut self) -> Result<Option<Bytes>, RecordError> {
        if self.partial.is_empty()
            && let Some(head) = self.part.first_chunk::<LENGTH>()
        {
            let length = self.check(*head)?;
            if self.part.len() - LENGTH >= length {
                self.part.advance(LENGTH);
                return Ok(Some(self.part.split_to(length)));
            }
            self.partial
                .reserve(LENGTH + length.min(self.part.len() * 2));
        }
        self.next_joined()
    }

    /// As [`next_here`](Self::next_here), for a record that lies in several parts.
    fn next_joined(&mut self) -> Result<Option<Bytes>, RecordError> {
        self.take(LENGTH);
        let Some(head) = self.partial.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let whole = LENGTH + self.check(*head)?;
        self.take(whole);
        if self.partial.len() < whole {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial);
        message.advance(LENGTH);
        Ok(Some(message.freeze()))
    }

    /// Moves bytes of the part behind those of the record, until there are `whole`.
    fn take(&mut self, whole: usize) {
        let missing = whole.saturating_sub(self.partial.len());
        let taken = self.part.split_to(missing.min(self.part.len()));
        self.partial.extend_from_slice(&taken);
    }

    fn check(&self, head: [u8; LENGTH]) -> Result<usize, RecordError> {
        let size = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
        let limit = self.limit;
        if size > limit {
            return Err(RecordError::TooLarge(TooLarge { size, limit }));
        }
        Ok(size)
    }

    /// The stream below.
    pub(crate) fn recv(&mut self) -> &mut RecvStream {
        &mut self.recv
    }

    /// Client: the answer behind the stream.
    pub(crate) fn answer(&mut self) -> Option<Result<Bytes, CallError>> {
        self.recv.answer()
    }
}

/// What was gathered, and what follows behind it, as one piece.
pub(crate) fn piece(batch: &mut BytesMut, tail: Bytes) -> Body {
    Body::split(batch.split(), tail)
}
