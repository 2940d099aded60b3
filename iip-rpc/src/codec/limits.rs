//! Limits of a decoder.

use super::error::{DecodeError, DecodeErrorKind};
use crate::limits::CODEC_BYTES;

/// Maximum depth of nested sequences, maps, structs and enums, unless [`DecodeLimits::max_depth`]
/// sets another one.
pub(super) const MAX_DEPTH: u16 = 128;

/// Limits of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    max_message_bytes: usize,
    /// Number of bytes beyond that limit that are accepted.
    allowance: usize,
    max_compression_ratio: u32,
    pub(super) max_depth: u16,
}

impl DecodeLimits {
    /// Default maximum ratio of a received message to its compressed form. Records of programs,
    /// JSON and logs stay far below it; lz4 cannot exceed 255.
    pub(crate) const MAX_COMPRESSION_RATIO: u32 = 1000;

    /// Returns the default limits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            max_message_bytes: 16 * 1024 * 1024,
            allowance: 0,
            max_compression_ratio: Self::MAX_COMPRESSION_RATIO,
            max_depth: MAX_DEPTH,
        }
    }

    /// Returns the limits of a client or a server: a value of exactly the limit is accepted
    /// together with its length.
    pub(crate) const fn of_calls(max_message_bytes: usize) -> Self {
        Self {
            allowance: CODEC_BYTES,
            ..Self::new().max_message_bytes(max_message_bytes)
        }
    }

    /// Sets the maximum size of a value's encoding, in bytes; 16 MiB by default. A larger encoding
    /// is rejected before it is examined. A value in memory can be larger than its encoding, by the
    /// size of its type for each byte.
    #[must_use]
    pub const fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Sets the maximum ratio of the size of a value's encoding to the size of its compressed form;
    /// 1000 by default, at least 1. An encoding that claims more is rejected before memory is
    /// allocated for it, so that a few bytes cannot expand to many.
    #[must_use]
    pub const fn max_compression_ratio(mut self, ratio: u32) -> Self {
        self.max_compression_ratio = if ratio == 0 { 1 } else { ratio };
        self
    }

    /// Sets the maximum depth of nested sequences, maps, structs and enums; 128 by default. JSON
    /// allows at most 127 levels, and protobuf always 100. Writers use the default, regardless of
    /// the limits of their readers.
    ///
    /// Decoding nested values takes stack, and a stack overflow ends the process. Regardless of
    /// this limit, the binary codecs also reject values that take more than 1 MiB of stack to
    /// decode.
    #[must_use]
    pub const fn max_depth(mut self, levels: u16) -> Self {
        self.max_depth = levels;
        self
    }

    /// Returns the size limit as it was set, in bytes.
    pub(crate) const fn message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Returns the maximum size of an encoding that is accepted, in bytes.
    pub(crate) const fn body_bytes(&self) -> usize {
        self.max_message_bytes.saturating_add(self.allowance)
    }

    pub(crate) fn compression_ratio(&self) -> usize {
        usize::try_from(self.max_compression_ratio).unwrap_or(usize::MAX)
    }

    pub(crate) fn check_size(&self, input: &[u8]) -> Result<(), DecodeError> {
        if input.len() <= self.body_bytes() {
            return Ok(());
        }
        Err(DecodeError::new(DecodeErrorKind::TooLarge {
            size: input.len(),
            limit: self.max_message_bytes,
        }))
    }
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self::new()
    }
}
