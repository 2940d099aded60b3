//! Messages as they lie in a stream of bytes: four bytes of length, big-endian, then the message. The two highest bits of the
//! length say how the message is compressed.

use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use iip_core::{Body, CallError, RecvStream, StreamError};

use crate::codec::{DecodeError, DecodeLimits};
use crate::compression::{CompressionId, Packer, decompress_in_place};
use crate::limits::ENVELOPE_BYTES;

/// Bytes of a record beside its message.
const LENGTH: usize = 4;

/// Where the compression lies in the length.
const COMPRESSION_SHIFT: u32 = 30;
const MAX_LENGTH: u32 = (1 << COMPRESSION_SHIFT) - 1;

/// Appends a record, of which `encode` writes the message; what it returns belongs to it and follows behind. Compresses it if
/// there is a packer. Without limits it is an envelope, whose parts have limits of their own.
pub(crate) fn write<E>(
    out: &mut BytesMut,
    limits: Option<&DecodeLimits>,
    packer: Option<&Packer>,
    encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
) -> Result<Result<Bytes, TooLarge>, E> {
    let start = out.len();
    out.put_u32(0);
    let (compression, tail) = match encode(out) {
        Ok(tail) => match packer {
            Some(packer) => packer.pack(out, start + LENGTH, tail),
            None => (CompressionId::NONE, tail),
        },
        Err(error) => {
            // A part of the message may be there.
            out.truncate(start);
            return Err(error);
        }
    };
    let size = out.len() - start - LENGTH + tail.len();
    let most = limits.map_or(usize::MAX, DecodeLimits::body_bytes);
    let length = u32::try_from(size)
        .ok()
        .filter(|&length| length <= MAX_LENGTH);
    let Some(length) = length.filter(|_| size <= most) else {
        out.truncate(start);
        let limit = limits.map_or(usize::MAX, DecodeLimits::message_bytes);
        let limit = limit.min(usize::try_from(MAX_LENGTH).unwrap_or(usize::MAX));
        return Ok(Err(TooLarge { size, limit }));
    };
    let length = length | u32::from(compression.as_u8()) << COMPRESSION_SHIFT;
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RecordError {
    TooLarge(TooLarge),
    /// It was compressed, and that cannot be undone.
    Compressed(DecodeError),
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
    limits: DecodeLimits,
}

impl Records {
    pub(crate) fn new(recv: RecvStream, limits: DecodeLimits) -> Self {
        Self {
            recv,
            part: Bytes::new(),
            partial: BytesMut::new(),
            limits,
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
            let (length, compression) = self.check(*head)?;
            if self.part.len() - LENGTH >= length {
                self.part.advance(LENGTH);
                let message = self.part.split_to(length);
                return self.decompressed(compression, message);
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
        let (length, compression) = self.check(*head)?;
        let whole = LENGTH + length;
        self.take(whole);
        if self.partial.len() < whole {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial);
        message.advance(LENGTH);
        self.decompressed(compression, message.freeze())
    }

    #[inline]
    fn decompressed(
        &self,
        compression: CompressionId,
        mut message: Bytes,
    ) -> Result<Option<Bytes>, RecordError> {
        decompress_in_place(compression, &mut message, &self.limits)
            .map_err(RecordError::Compressed)?;
        Ok(Some(message))
    }

    /// Moves bytes of the part behind those of the record, until there are `whole`.
    fn take(&mut self, whole: usize) {
        let missing = whole.saturating_sub(self.partial.len());
        let taken = self.part.split_to(missing.min(self.part.len()));
        self.partial.extend_from_slice(&taken);
    }

    /// The length of a record, and how it is compressed.
    fn check(&self, head: [u8; LENGTH]) -> Result<(usize, CompressionId), RecordError> {
        let head = u32::from_be_bytes(head);
        let compression = CompressionId::new((head >> COMPRESSION_SHIFT) as u8);
        let size = usize::try_from(head & MAX_LENGTH).unwrap_or(usize::MAX);
        let limit = self.limits.message_bytes();
        // The first one is an envelope; of others the codec knows the exact limit.
        if size > limit.saturating_add(ENVELOPE_BYTES) {
            return Err(RecordError::TooLarge(TooLarge { size, limit }));
        }
        Ok((size, compression))
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
