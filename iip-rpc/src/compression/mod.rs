//! Compression of messages.
//!
//! The body of an envelope and each message of a stream are compressed separately, and only if the
//! peer has announced that it can read the algorithm. Nothing else is compressed. `docs/wire.md`
//! describes the bytes, and `docs/guide/compression.md` when compression saves time.

mod compressor;
pub(crate) mod id;
#[cfg(feature = "compress-lz4")]
mod lz4;
mod scratch;
#[cfg(feature = "compress-zstd")]
mod zstd;

use bytes::Bytes;

pub(crate) use self::compressor::{Compressor, Encoding};
pub use self::id::CompressionId;
use crate::codec::{CodecId, DecodeError, DecodeErrorKind, DecodeLimits};
use crate::varint;

/// Default size, in bytes, up to which compression is not worth the time. Measured: see
/// `docs/guide/compression.md`.
#[cfg(any(feature = "compress-zstd", feature = "compress-lz4"))]
const ABOVE_BYTES: u32 = 2 * 1024;

/// The fastest and the best level of zstd that is used. Higher levels take hundreds of megabytes.
#[cfg(feature = "compress-zstd")]
const ZSTD_LEVELS: std::ops::RangeInclusive<i8> = -7..=19;

/// Compression of the messages that a side sends: the algorithm, and the size above which it is
/// used.
///
/// For a client it is an option of the [builder](crate::ClientBuilder::compression), of [single
/// calls](crate::CallOptions::compression) and of [methods](crate::MethodPolicy::compression), for
/// a server of the [builder](crate::ServerBuilder::compression) and of methods. Nothing is
/// compressed by default.
///
/// Reading compressed messages needs no option: a build with the feature `compress-zstd` or
/// `compress-lz4` announces it to its peers. A message is sent uncompressed if the peer cannot read
/// it otherwise, or if it does not become smaller.
#[cfg_attr(
    feature = "compress-zstd",
    doc = "
```
use iip_rpc::{Client, Compression};

let client = Client::builder().compression(Compression::zstd().level(3).above(4096));
# let _ = client;
```"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Compression {
    id: CompressionId,
    #[cfg(feature = "compress-zstd")]
    level: i8,
    /// Size above which a message is compressed, in bytes. Messages are smaller than 4 GiB.
    above: u32,
}

impl Compression {
    /// Returns zstd, which takes the fewest bytes; with the feature `compress-zstd`.
    #[cfg(feature = "compress-zstd")]
    pub const fn zstd() -> Self {
        Self {
            id: CompressionId::ZSTD,
            level: 1,
            above: ABOVE_BYTES,
        }
    }

    /// Returns lz4, which takes the least time; with the feature `compress-lz4`.
    #[cfg(feature = "compress-lz4")]
    pub const fn lz4() -> Self {
        Self {
            id: CompressionId::LZ4,
            #[cfg(feature = "compress-zstd")]
            level: 0,
            above: ABOVE_BYTES,
        }
    }

    /// Sets the size, in bytes, above which a message is compressed: the encoded arguments, the
    /// encoded value or error, or one message of a stream. Default: 2 KiB.
    pub const fn above(mut self, bytes: usize) -> Self {
        self.above = if bytes > u32::MAX as usize {
            u32::MAX
        } else {
            bytes as u32
        };
        self
    }

    /// Sets the compression level of zstd, from -7 (fastest) to 19; other values are clamped. The
    /// default is 1. Higher levels cost the sender time and memory, not the reader. lz4 has no
    /// levels.
    #[cfg(feature = "compress-zstd")]
    pub fn level(mut self, level: i32) -> Self {
        let (fastest, best) = (*ZSTD_LEVELS.start(), *ZSTD_LEVELS.end());
        self.level = i8::try_from(level.clamp(fastest.into(), best.into())).unwrap_or(best);
        self
    }

    /// Returns the algorithm.
    #[must_use]
    pub const fn id(&self) -> CompressionId {
        self.id
    }
}

/// Returns the decompressed `body`, in newly allocated memory; a body that is not compressed is
/// returned as it is.
///
/// A compressed body is a varint with the decompressed length, then the bytes. The length is
/// checked against the limits before memory is allocated for it, and the output never exceeds it.
///
/// # Errors
///
/// This build does not have the algorithm, one of the limits is exceeded, or the bytes do not
/// decompress to the length that they announce.
pub fn decompress(
    id: CompressionId,
    body: Bytes,
    limits: &DecodeLimits,
) -> Result<Bytes, DecodeError> {
    if id.is_some() {
        return decompress_some(id, body, limits);
    }
    Ok(body)
}

/// Like [`decompress`], but for bodies that are rarely compressed.
#[inline]
pub(crate) fn decompress_in_place(
    id: CompressionId,
    body: &mut Bytes,
    limits: &DecodeLimits,
) -> Result<(), DecodeError> {
    if id.is_some() {
        *body = decompress_some(id, std::mem::take(body), limits)?;
    }
    Ok(())
}

/// Returns the size that compressed arguments in `codec` announce, within the limits. An
/// unsupported codec is reported before an unsupported compression.
pub(crate) fn decompressed_size(
    codec: CodecId,
    id: CompressionId,
    body: &Bytes,
    limits: &DecodeLimits,
) -> Result<usize, DecodeError> {
    if !codec.is_supported() {
        return Err(DecodeError::new(DecodeErrorKind::Unsupported(codec)));
    }
    read_size(id, &mut body.clone(), limits)
}

#[cold]
fn decompress_some(
    id: CompressionId,
    mut body: Bytes,
    limits: &DecodeLimits,
) -> Result<Bytes, DecodeError> {
    let size = read_size(id, &mut body, limits)?;
    let bytes: Result<Vec<u8>, String> = match id {
        #[cfg(feature = "compress-zstd")]
        CompressionId::ZSTD => zstd::decompress(&body, size),
        #[cfg(feature = "compress-lz4")]
        CompressionId::LZ4 => lz4::decompress(&body, size),
        _ => Err("not supported".to_owned()),
    };
    match bytes {
        // The memory was counted by the announced length, so another length is an error.
        Ok(bytes) if bytes.len() == size => Ok(bytes.into()),
        Ok(bytes) => Err(garbage(format!(
            "{size} bytes are announced and {} come out",
            bytes.len()
        ))),
        Err(error) => Err(garbage(format!("{id}: {error}"))),
    }
}

/// Reads the size that a compressed body announces, and checks it against the limits.
fn read_size(
    id: CompressionId,
    body: &mut Bytes,
    limits: &DecodeLimits,
) -> Result<usize, DecodeError> {
    if !id.is_supported() {
        return Err(DecodeError::new(DecodeErrorKind::UnsupportedCompression(
            id,
        )));
    }
    let size = varint::read(body, "the length of a compressed body")
        .map_err(|error| garbage(error.to_string()))?;
    let size = match usize::try_from(size) {
        Ok(size) if size <= limits.body_bytes() => size,
        size => {
            let (size, limit) = (size.unwrap_or(usize::MAX), limits.message_bytes());
            return Err(DecodeError::new(DecodeErrorKind::TooLarge { size, limit }));
        }
    };
    // A few bytes could otherwise announce the largest message, and make this side allocate it.
    if size > body.len().saturating_mul(limits.compression_ratio()) {
        return Err(DecodeError::new(DecodeErrorKind::TooCompressed {
            size,
            compressed: body.len(),
            limit: limits.compression_ratio(),
        }));
    }
    Ok(size)
}

#[cold]
fn garbage(text: String) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Compressed(text))
}
