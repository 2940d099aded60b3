//! Ids of compressions on the wire.

use std::fmt;

/// The number that identifies the compression of the following bytes, in an envelope or in the
/// length of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompressionId(u8);

impl CompressionId {
    /// No compression.
    pub const NONE: Self = Self(0);
    /// One frame of zstd; with the feature `compress-zstd`.
    pub const ZSTD: Self = Self(1);
    /// One block of lz4; with the feature `compress-lz4`.
    pub const LZ4: Self = Self(2);

    /// `true` if this build supports any compression.
    pub(crate) const ANY: bool = cfg!(any(feature = "compress-zstd", feature = "compress-lz4"));

    /// Returns the id with this number, of which only the two lowest bits are used.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number & 3)
    }

    /// Returns the number on the wire, from 0 to 3.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Returns `true` if the data is compressed.
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Returns `true` if this build can compress and decompress with this algorithm.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        (matches!(self, Self::ZSTD) && cfg!(feature = "compress-zstd"))
            || (matches!(self, Self::LZ4) && cfg!(feature = "compress-lz4"))
    }

    /// Returns the algorithms of this build.
    pub(crate) fn supported() -> impl Iterator<Item = Self> {
        let all = [Self::ZSTD, Self::LZ4];
        all.into_iter().filter(|id| id.is_supported())
    }

    /// Returns the advice for a build that does not have the algorithm.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::ZSTD => "enable the feature `compress-zstd` of iip-rpc",
            Self::LZ4 => "enable the feature `compress-lz4` of iip-rpc",
            _ => "this version of iip-rpc does not know it",
        }
    }
}

/// Writes the name, such as `zstd`, or `compression 3` if there is none.
impl fmt::Display for CompressionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.pad("no compression"),
            Self::ZSTD => f.pad("zstd"),
            Self::LZ4 => f.pad("lz4"),
            Self(number) => write!(f, "compression {number}"),
        }
    }
}
