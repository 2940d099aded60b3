//! Encoding of outgoing values: their codec and compression.

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};

use super::scratch::{self, KEPT_BYTES};
use super::{Compression, CompressionId};
use crate::codec::CodecId;
use crate::varint;

/// The encoding of the values of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding {
    pub(crate) codec: CodecId,
    /// `None` if nothing is compressed.
    pub(crate) packer: Option<Compressor>,
}

/// Compresses the messages for one peer. Small, because every call has room for one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compressor {
    compression: Compression,
    /// Maximum ratio of a message to its compressed form that the peer accepts.
    max_ratio: NonZeroU32,
    /// Maximum size of a message that is compressed; a larger one is too large to be sent.
    limit: u32,
}

impl Compressor {
    pub(crate) fn new(compression: Compression, max_ratio: NonZeroU32, limit: usize) -> Self {
        Self {
            compression,
            max_ratio,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        }
    }

    /// Compresses a message, which is `out` from `from` on followed by `tail`, if it is large
    /// enough and becomes smaller. Returns the rest of `tail`.
    #[inline]
    pub(crate) fn pack(
        &self,
        out: &mut BytesMut,
        from: usize,
        tail: Bytes,
    ) -> (CompressionId, Bytes) {
        let size = out.len() - from + tail.len();
        let Self {
            compression: Compression { id, above, .. },
            limit,
            ..
        } = *self;
        match u32::try_from(size) {
            Ok(len) if len > above && len <= limit && self.pack_large(out, from, &tail, size) => {
                (id, Bytes::new())
            }
            _ => (CompressionId::NONE, tail),
        }
    }

    #[cold]
    fn pack_large(&self, out: &mut BytesMut, from: usize, tail: &[u8], size: usize) -> bool {
        scratch::with(self.max_compressed(size), |space| {
            let head = out.get(from..).unwrap_or_default();
            let written = match (head, tail) {
                (head, []) => self.compress(head, space),
                ([], tail) => self.compress(tail, space),
                // Rare: a large payload after other arguments.
                (head, tail) => self.compress(&[head, tail].concat(), space),
            };
            let Some(packed) = written.and_then(|len| space.get(..len)) else {
                return false;
            };
            let grows = packed.len() + varint::len(size as u64) >= size;
            let ratio = usize::try_from(self.max_ratio.get()).unwrap_or(usize::MAX);
            // The reader rejects a message above its ratio, so such a message is sent as it is.
            if grows || size > packed.len().saturating_mul(ratio) {
                return false;
            }
            if size > KEPT_BYTES {
                // A small message must not hold the memory of a large one.
                *out = BytesMut::from(out.get(..from).unwrap_or_default());
            }
            out.truncate(from);
            varint::write(size as u64, out);
            out.extend_from_slice(packed);
            true
        })
    }

    fn max_compressed(&self, size: usize) -> usize {
        match self.compression.id {
            #[cfg(feature = "compress-zstd")]
            CompressionId::ZSTD => super::zstd::max_compressed(size),
            #[cfg(feature = "compress-lz4")]
            CompressionId::LZ4 => super::lz4::max_compressed(size),
            _ => size,
        }
    }

    fn compress(&self, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        match self.compression.id {
            #[cfg(feature = "compress-zstd")]
            CompressionId::ZSTD => super::zstd::compress(plain, self.compression.level.into(), out),
            #[cfg(feature = "compress-lz4")]
            CompressionId::LZ4 => super::lz4::compress(plain, out),
            _ => {
                let _ = (plain, out);
                None
            }
        }
    }
}
