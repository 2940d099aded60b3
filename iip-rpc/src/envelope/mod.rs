//! Envelope of a typed call: the format of the `data` of an IIP request or reply. No other file
//! knows this format; `docs/wire.md` specifies it.
//!
//! An envelope begins with a byte from `0x80` to `0xBF`, which contains two bits of version and
//! four flags. Neither JSON nor any other UTF-8 text begins with such a byte. A message that begins
//! with another byte is plain JSON, in both directions.

mod plain;

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use self::plain::{PlainError, write_plain_error, write_plain_status};
pub(crate) use self::plain::{handler_failed, read_plain_error, set_apart_from_errors};
use crate::codec::CodecId;
use crate::compression::{CompressionId, Compressor};
use crate::metadata::{Metadata, MetadataError};
use crate::status::{Code, Execution, Status};
use crate::varint::{self, VarintError};

/// The two marker bits in the first byte of every envelope.
const MARK: u8 = 0b1000_0000;
const MARK_MASK: u8 = 0b1100_0000;
const VERSION_MASK: u8 = 0b0011_0000;
const VERSION_SHIFT: u32 = 4;

const REQUEST_REMAINING: u8 = 0b0001;
const REQUEST_METADATA: u8 = 0b0010;
const REQUEST_FLAGS: u8 = REQUEST_REMAINING | REQUEST_METADATA;

const REPLY_TIMING: u8 = 0b0001;
const REPLY_METADATA: u8 = 0b0010;
const REPLY_OUTCOME_SHIFT: u32 = 2;

/// Layout of the codec byte: six bits of codec, two of compression.
const CODEC_MASK: u8 = 0b0011_1111;
const COMPRESSION_SHIFT: u32 = 6;

const MAY_HAVE_EXECUTED: u8 = 0;
const NOT_EXECUTED: u8 = 1;

/// Returns `true` if `message` is an envelope and not plain JSON. The empty message is neither.
#[must_use]
#[inline]
pub fn is_envelope(message: &[u8]) -> bool {
    message.first().is_some_and(|byte| byte & MARK_MASK == MARK)
}

/// Head of a request: everything except the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestHead {
    /// The codec of the arguments, which the reply has to use too.
    pub codec: CodecId,
    /// The compression of the arguments, see [`decompress`](crate::compression::decompress).
    pub compression: CompressionId,
    /// Time that the call had left when the request was made; `None` if it has no deadline.
    pub remaining: Option<Duration>,
    /// The metadata of the request.
    pub metadata: Metadata,
}

impl RequestHead {
    /// The head of a request that has none.
    pub(crate) fn without(codec: CodecId) -> Self {
        Self {
            codec,
            compression: CompressionId::NONE,
            remaining: None,
            metadata: Metadata::new(),
        }
    }

    /// Appends the head of a request to `out`; the arguments follow after it.
    ///
    /// The remaining time is truncated to whole microseconds.
    #[inline]
    pub fn write(
        codec: CodecId,
        remaining: Option<Duration>,
        metadata: &Metadata,
        out: &mut BytesMut,
    ) {
        let mut head = Head::new(codec);
        if let Some(remaining) = remaining {
            head.flags |= REQUEST_REMAINING;
            head.put_varint(micros(remaining));
        }
        if !metadata.is_empty() {
            head.flags |= REQUEST_METADATA;
        }
        head.finish(out);
        write_metadata(metadata, out);
    }

    /// Reads the head of a request and returns it with the arguments, which share the memory of
    /// `message`.
    ///
    /// # Errors
    ///
    /// `message` is not a request of a version that this crate supports.
    #[inline]
    pub fn read(mut message: Bytes) -> Result<(Self, Bytes), EnvelopeError> {
        let (flags, codec, compression) = read_first(&mut message)?;
        // The meaning of the bytes that follow depends on the flags, so an unknown one cannot be
        // skipped.
        if flags & !REQUEST_FLAGS != 0 {
            return Err(EnvelopeError::UnknownFlags {
                flags: flags & !REQUEST_FLAGS,
            });
        }
        let mut remaining = None;
        if flags & REQUEST_REMAINING != 0 {
            remaining = Some(Duration::from_micros(varint::read(
                &mut message,
                "the remaining time",
            )?));
        }
        let mut metadata = Metadata::new();
        if flags & REQUEST_METADATA != 0 {
            metadata = read_metadata(&mut message)?;
        }
        Ok((
            Self {
                codec,
                compression,
                remaining,
                metadata,
            },
            message,
        ))
    }
}

/// Outcome of a call, as given in its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The body is the value that the method returned.
    Value,
    /// The body is the method's own error.
    Error,
    /// The body is a status.
    Status,
}

/// Time that a call spent on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerTiming {
    /// Time from the arrival of the request until the handler began.
    pub queue: Duration,
    /// Time from then until the handler had ended.
    pub handler: Duration,
}

/// Head of a reply: everything except the body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplyHead {
    /// The codec of the body; a status does not use one, and repeats that of the request.
    pub codec: CodecId,
    /// The compression of the body, see [`decompress`](crate::compression::decompress); a status is
    /// never compressed.
    pub compression: CompressionId,
    /// The kind of the body.
    pub outcome: Outcome,
    /// Time that the call spent on the server, if the server reports it.
    pub timing: Option<ServerTiming>,
    /// The metadata of the reply; for a status, the metadata of the status.
    pub metadata: Metadata,
}

impl ReplyHead {
    /// Appends the head of a reply to `out`; the body follows after it.
    ///
    /// Times are truncated to whole microseconds.
    #[inline]
    pub fn write(
        codec: CodecId,
        outcome: Outcome,
        timing: Option<ServerTiming>,
        metadata: &Metadata,
        out: &mut BytesMut,
    ) {
        let mut head = Head::new(codec);
        head.flags |= match outcome {
            Outcome::Value => 0,
            Outcome::Error => 1 << REPLY_OUTCOME_SHIFT,
            Outcome::Status => 2 << REPLY_OUTCOME_SHIFT,
        };
        if let Some(timing) = timing {
            head.flags |= REPLY_TIMING;
            head.put_varint(micros(timing.queue));
            head.put_varint(micros(timing.handler));
        }
        if !metadata.is_empty() {
            head.flags |= REPLY_METADATA;
        }
        head.finish(out);
        write_metadata(metadata, out);
    }

    /// Reads the head of a reply and returns it with the body, which shares the memory of
    /// `message`.
    ///
    /// # Errors
    ///
    /// `message` is not a reply of a version that this crate supports.
    #[inline]
    pub fn read(mut message: Bytes) -> Result<(Self, Bytes), EnvelopeError> {
        let (flags, codec, compression) = read_first(&mut message)?;
        let outcome = match flags >> REPLY_OUTCOME_SHIFT {
            0 => Outcome::Value,
            1 => Outcome::Error,
            2 if compression.is_some() => return Err(EnvelopeError::CompressedStatus),
            2 => Outcome::Status,
            _ => return Err(EnvelopeError::UnknownOutcome),
        };
        let mut timing = None;
        if flags & REPLY_TIMING != 0 {
            timing = Some(ServerTiming {
                queue: Duration::from_micros(varint::read(&mut message, "the queue time")?),
                handler: Duration::from_micros(varint::read(&mut message, "the handler time")?),
            });
        }
        let mut metadata = Metadata::new();
        if flags & REPLY_METADATA != 0 {
            metadata = read_metadata(&mut message)?;
        }
        Ok((
            Self {
                codec,
                compression,
                outcome,
                timing,
                metadata,
            },
            message,
        ))
    }
}

/// Compresses the body of the envelope that begins at `start` of `out`: the bytes of `out` from
/// `body` on, followed by `tail`. Returns the rest of `tail`.
#[inline]
pub(crate) fn pack_body(
    packer: Option<&Compressor>,
    out: &mut BytesMut,
    start: usize,
    body: usize,
    tail: Bytes,
) -> Bytes {
    let Some(packer) = packer else {
        return tail;
    };
    let (compression, tail) = packer.pack(out, body, tail);
    // The codec byte was written before it was known whether the body becomes smaller.
    if let Some(codec) = out.get_mut(start + 1) {
        *codec |= compression.as_u8() << COMPRESSION_SHIFT;
    }
    tail
}

/// Appends a whole reply with the outcome [`Outcome::Status`] to `out`, with the metadata of the
/// status.
pub fn write_status_reply(
    codec: CodecId,
    status: &Status,
    timing: Option<ServerTiming>,
    out: &mut BytesMut,
) {
    ReplyHead::write(codec, Outcome::Status, timing, status.metadata(), out);
    write_status(status, out);
}

/// Appends the body of a reply with the outcome [`Outcome::Status`] to `out`. The metadata of the
/// status belongs in the head; phases and source are not written.
pub fn write_status(status: &Status, out: &mut BytesMut) {
    out.put_u8(status.code().as_u8());
    out.put_u8(match status.execution() {
        Execution::NotSent | Execution::NotExecuted => NOT_EXECUTED,
        Execution::MayHaveExecuted => MAY_HAVE_EXECUTED,
    });
    write_sized(status.message().as_bytes(), out);
    write_sized(status.details(), out);
}

/// Reads the body of a reply with the outcome [`Outcome::Status`]; `metadata` comes from its head.
///
/// A code that this crate does not know becomes [`Code::Unknown`].
///
/// # Errors
///
/// `body` is not a status.
pub fn read_status(mut body: Bytes, metadata: Metadata) -> Result<Status, EnvelopeError> {
    let code = match read_byte(&mut body, "the status code")? {
        0 => return Err(EnvelopeError::OkStatus),
        code => Code::from_u8(code).unwrap_or(Code::Unknown),
    };
    let execution = match read_byte(&mut body, "the execution mark")? {
        MAY_HAVE_EXECUTED => Execution::MayHaveExecuted,
        NOT_EXECUTED => Execution::NotExecuted,
        mark => return Err(EnvelopeError::UnknownExecution { mark }),
    };
    let message = read_sized(&mut body, "the status message")?;
    let message = std::str::from_utf8(&message)
        .map_err(|_| EnvelopeError::MessageNotUtf8)?
        .to_owned();
    // Copied, so that a status that is kept does not keep the receive buffer.
    let details = Bytes::copy_from_slice(&read_sized(&mut body, "the status details")?);
    if !body.is_empty() {
        return Err(EnvelopeError::TrailingBytes { left: body.len() });
    }
    Ok(Status::new(code, message)
        .with_execution(execution)
        .with_details(details)
        .with_metadata(metadata))
}

/// The reason why a message is not an envelope, or a damaged one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The message is empty.
    #[error("the message is empty")]
    Empty,
    /// The first byte does not begin an envelope.
    #[error(
        "the first byte {byte:#04x} does not begin an envelope, which begins with a byte from \
         0x80 to 0xbf"
    )]
    NotAnEnvelope {
        /// The first byte.
        byte: u8,
    },
    /// The envelope is of a later version.
    #[error("the envelope has the version {version}, and this side supports only version 0")]
    UnknownVersion {
        /// The version.
        version: u8,
    },
    /// The envelope has flags that this version does not define.
    #[error("the envelope has unknown flags {flags:#06b}")]
    UnknownFlags {
        /// The unknown flags.
        flags: u8,
    },
    /// A reply has an outcome that this version does not define.
    #[error("the reply has an unknown outcome")]
    UnknownOutcome,
    /// A status is marked as compressed, which is not allowed.
    #[error("a reply with a status cannot be compressed")]
    CompressedStatus,
    /// The message ends too early.
    #[error("the message ends within {part}")]
    Truncated {
        /// The part in which it ends.
        part: &'static str,
    },
    /// A part claims to be longer than the rest of the message.
    #[error("{part} claims {claimed} bytes where only {left} are left")]
    TooLong {
        /// The part.
        part: &'static str,
        /// The length that it claims.
        claimed: u64,
        /// Number of bytes left.
        left: usize,
    },
    /// A number is larger than 64 bits.
    #[error("the number in {part} has more than 64 bits")]
    NumberTooLarge {
        /// The part that contains the number.
        part: &'static str,
    },
    /// A number has more bytes than it needs.
    #[error("the number in {part} is not in its shortest form")]
    NumberNotShortest {
        /// The part that contains the number.
        part: &'static str,
    },
    /// The metadata is present but empty.
    #[error("metadata is announced but has no entries")]
    NoMetadata,
    /// The metadata is invalid.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A status has the code for success.
    #[error("a failed call has the status code 0, which means success")]
    OkStatus,
    /// A status has an execution mark that this version does not define.
    #[error("a status has the unknown execution mark {mark}")]
    UnknownExecution {
        /// The mark.
        mark: u8,
    },
    /// The message of a status is not UTF-8.
    #[error("the message of a status is not utf-8")]
    MessageNotUtf8,
    /// Bytes follow after the end of a status.
    #[error("{left} bytes follow after the end of a status")]
    TrailingBytes {
        /// Number of bytes.
        left: usize,
    },
}

impl From<VarintError> for EnvelopeError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated { part } => Self::Truncated { part },
            VarintError::TooLarge { part } => Self::NumberTooLarge { part },
            VarintError::NotShortest { part } => Self::NumberNotShortest { part },
        }
    }
}

impl EnvelopeError {
    /// Converts the error of a request to a status: the method did not run.
    #[must_use]
    pub fn request_status(&self) -> Status {
        let code = match self {
            Self::UnknownVersion { .. } | Self::UnknownFlags { .. } => Code::Unimplemented,
            _ => Code::InvalidArgument,
        };
        Status::new(code, self.to_string()).with_execution(Execution::NotExecuted)
    }

    /// Converts the error of a reply to a status: the method may have run.
    #[must_use]
    pub fn reply_status(&self) -> Status {
        Status::internal(format!("the reply cannot be read: {self}")).with_told_source(self.clone())
    }
}

/// Start of an envelope, collected before it is written to the buffer in one piece.
struct Head {
    flags: u8,
    bytes: [u8; 2 + 2 * varint::MAX_LEN],
    len: usize,
}

impl Head {
    #[inline]
    fn new(codec: CodecId) -> Self {
        let mut bytes = [0; 2 + 2 * varint::MAX_LEN];
        bytes[1] = codec.as_u8() & CODEC_MASK;
        Self {
            flags: 0,
            bytes,
            len: 2,
        }
    }

    #[inline]
    fn put_varint(&mut self, mut value: u64) {
        // There is room for two varints, and no head has more.
        while let Some(slot) = self.bytes.get_mut(self.len) {
            self.len += 1;
            *slot = value as u8 | 0x80;
            if value < 0x80 {
                *slot = value as u8;
                return;
            }
            value >>= 7;
        }
    }

    #[inline]
    fn finish(mut self, out: &mut BytesMut) {
        self.bytes[0] = MARK | self.flags;
        out.extend_from_slice(self.bytes.get(..self.len).unwrap_or_default());
    }
}

#[inline]
fn micros(time: Duration) -> u64 {
    let micros = u64::from(time.subsec_micros());
    time.as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(micros)
}

fn write_sized(bytes: &[u8], out: &mut BytesMut) {
    varint::write(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[inline]
fn write_metadata(metadata: &Metadata, out: &mut BytesMut) {
    if metadata.is_empty() {
        return;
    }
    varint::write(metadata.len() as u64, out);
    for (key, value) in metadata.iter() {
        write_sized(key.as_bytes(), out);
        write_sized(value, out);
    }
}

#[inline]
fn read_first(message: &mut Bytes) -> Result<(u8, CodecId, CompressionId), EnvelopeError> {
    let Some(&byte) = message.first() else {
        return Err(EnvelopeError::Empty);
    };
    if byte & MARK_MASK != MARK {
        return Err(EnvelopeError::NotAnEnvelope { byte });
    }
    let version = (byte & VERSION_MASK) >> VERSION_SHIFT;
    if version != 0 {
        return Err(EnvelopeError::UnknownVersion { version });
    }
    let Some(&codec) = message.get(1) else {
        return Err(EnvelopeError::Truncated { part: "the codec" });
    };
    message.advance(2);
    Ok((
        byte & !MARK_MASK & !VERSION_MASK,
        CodecId::new(codec & CODEC_MASK),
        CompressionId::new(codec >> COMPRESSION_SHIFT),
    ))
}

fn read_byte(message: &mut Bytes, part: &'static str) -> Result<u8, EnvelopeError> {
    if message.is_empty() {
        return Err(EnvelopeError::Truncated { part });
    }
    Ok(message.get_u8())
}

fn read_sized(message: &mut Bytes, part: &'static str) -> Result<Bytes, EnvelopeError> {
    // The claimed length is compared before anything is allocated or cut.
    let claimed = varint::read(message, part)?;
    let left = message.len();
    match usize::try_from(claimed) {
        Ok(len) if len <= left => Ok(message.split_to(len)),
        _ => Err(EnvelopeError::TooLong {
            part,
            claimed,
            left,
        }),
    }
}

fn read_metadata(message: &mut Bytes) -> Result<Metadata, EnvelopeError> {
    let count = varint::read(message, "the number of metadata entries")?;
    if count == 0 {
        return Err(EnvelopeError::NoMetadata);
    }
    // The size is determined first, so that all entries share a single copy, and entries that are
    // kept do not keep the receive buffer.
    let mut rest = message.clone();
    let mut size = 0usize;
    // The number comes from the peer. Each entry adds to the size, so the loop ends at the limit at
    // the latest.
    for _ in 0..count {
        let key = read_sized(&mut rest, "a metadata key")?.len();
        let value = read_sized(&mut rest, "a metadata value")?.len();
        size = size
            .saturating_add(key)
            .saturating_add(value)
            .saturating_add(Metadata::ENTRY_BYTES);
        if size > Metadata::MAX_BYTES {
            return Err(MetadataError::TooLarge { size }.into());
        }
    }
    // Both are ends of the same message, so the difference is the length of the entries.
    let extent = message.len() - rest.len();
    let mut block = Bytes::copy_from_slice(&message.split_to(extent));
    let mut metadata = Metadata::new();
    while !block.is_empty() {
        let key = read_sized(&mut block, "a metadata key")?;
        let value = read_sized(&mut block, "a metadata value")?;
        metadata.push_unchecked_memory(key, value)?;
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<(RequestHead, Bytes), EnvelopeError> {
        RequestHead::read(Bytes::copy_from_slice(bytes))
    }

    fn read_reply(bytes: &[u8]) -> Result<(ReplyHead, Bytes), EnvelopeError> {
        ReplyHead::read(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn only_bytes_that_cannot_begin_a_text_are_envelopes() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_envelope(&[byte]), (0x80..=0xbf).contains(&byte));
            assert!(!is_envelope(&[byte]) || std::str::from_utf8(&[byte, b'a']).is_err());
        }
        assert!(!is_envelope(&[]));
    }

    #[test]
    fn the_body_shares_the_memory_of_the_message() {
        let message = Bytes::from_static(&[0x80, 1, 7, 8, 9]);
        let (head, body) = RequestHead::read(message.clone()).unwrap();
        assert_eq!(
            head,
            RequestHead {
                codec: CodecId::BINCODE,
                compression: CompressionId::NONE,
                remaining: None,
                metadata: Metadata::new()
            }
        );
        assert_eq!(body.as_ptr(), message[2..].as_ptr());
    }

    #[test]
    fn the_remaining_time_is_cut_to_microseconds() {
        let mut out = BytesMut::new();
        RequestHead::write(
            CodecId::JSON,
            Some(Duration::from_nanos(1_999)),
            &Metadata::new(),
            &mut out,
        );
        assert_eq!(&out[..], [0x81, 3, 1]);
        let (head, _) = RequestHead::read(out.freeze()).unwrap();
        assert_eq!(head.remaining, Some(Duration::from_micros(1)));
        let mut out = BytesMut::new();
        RequestHead::write(
            CodecId::JSON,
            Some(Duration::MAX),
            &Metadata::new(),
            &mut out,
        );
        let (head, _) = RequestHead::read(out.freeze()).unwrap();
        assert_eq!(head.remaining, Some(Duration::from_micros(u64::MAX)));
    }

    #[test]
    fn every_malformed_request_has_its_own_error() {
        use EnvelopeError as E;
        let part = "the remaining time";
        let table: &[(&[u8], E)] = &[
            (&[], E::Empty),
            (b"{}", E::NotAnEnvelope { byte: b'{' }),
            (&[0xc0, 1], E::NotAnEnvelope { byte: 0xc0 }),
            (&[0x90, 1], E::UnknownVersion { version: 1 }),
            (&[0xbf, 1], E::UnknownVersion { version: 3 }),
            (&[0x80], E::Truncated { part: "the codec" }),
            (&[0x84, 1], E::UnknownFlags { flags: 0b0100 }),
            (&[0x8b, 1], E::UnknownFlags { flags: 0b1000 }),
            (&[0x81, 1], E::Truncated { part }),
            (&[0x81, 1, 0xff, 0xff], E::Truncated { part }),
            (&[0x81, 1, 0x80, 0x00], E::NumberNotShortest { part }),
            (
                &[
                    0x81, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,
                ],
                E::NumberTooLarge { part },
            ),
            (
                &[
                    0x81, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0,
                ],
                E::NumberTooLarge { part },
            ),
            (
                &[0x82, 1],
                E::Truncated {
                    part: "the number of metadata entries",
                },
            ),
            (&[0x82, 1, 0], E::NoMetadata),
            (
                &[0x82, 1, 1],
                E::Truncated {
                    part: "a metadata key",
                },
            ),
            (
                &[0x82, 1, 1, 5, b'a'],
                E::TooLong {
                    part: "a metadata key",
                    claimed: 5,
                    left: 1,
                },
            ),
            (
                &[0x82, 1, 1, 1, b'a'],
                E::Truncated {
                    part: "a metadata value",
                },
            ),
            (
                &[0x82, 1, 1, 1, b'a', 9, 0],
                E::TooLong {
                    part: "a metadata value",
                    claimed: 9,
                    left: 1,
                },
            ),
            (
                &[0x82, 1, 1, 0, 0],
                E::Metadata(MetadataError::InvalidKey { key: String::new() }),
            ),
            (
                &[0x82, 1, 1, 1, b'A', 0],
                E::Metadata(MetadataError::InvalidKey {
                    key: "A".to_owned(),
                }),
            ),
        ];
        for (bytes, error) in table {
            assert_eq!(read(bytes).unwrap_err(), *error, "{bytes:02x?}");
            let code = error.request_status().code();
            let expected = match error {
                E::UnknownFlags { .. } | E::UnknownVersion { .. } => Code::Unimplemented,
                _ => Code::InvalidArgument,
            };
            assert_eq!(code, expected);
            assert_eq!(error.request_status().execution(), Execution::NotExecuted);
        }
    }

    #[test]
    fn metadata_over_its_limit_is_rejected_before_it_is_copied() {
        // A count of 2^63 entries, all of them empty, is stopped by the limit, which counts 32
        // bytes for each.
        let mut message = vec![0x82, 1];
        message.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]);
        message.extend([1, b'a', 0].repeat(100_000));
        let error = read(&message).unwrap_err();
        assert_eq!(
            error,
            EnvelopeError::Metadata(MetadataError::TooLarge { size: 497 * 33 })
        );
    }

    #[test]
    fn every_malformed_reply_has_its_own_error() {
        use EnvelopeError as E;
        assert_eq!(read_reply(&[0x8c, 1]).unwrap_err(), E::UnknownOutcome);
        assert_eq!(
            read_reply(&[0xa0, 1]).unwrap_err(),
            E::UnknownVersion { version: 2 }
        );
        assert_eq!(
            read_reply(&[0x81, 1, 5]).unwrap_err(),
            E::Truncated {
                part: "the handler time"
            }
        );
        let table: &[(&[u8], E)] = &[
            (
                &[],
                E::Truncated {
                    part: "the status code",
                },
            ),
            (
                &[5],
                E::Truncated {
                    part: "the execution mark",
                },
            ),
            (&[0, 0, 0, 0], E::OkStatus),
            (&[5, 2, 0, 0], E::UnknownExecution { mark: 2 }),
            (
                &[5, 0],
                E::Truncated {
                    part: "the status message",
                },
            ),
            (
                &[5, 0, 3, b'a'],
                E::TooLong {
                    part: "the status message",
                    claimed: 3,
                    left: 1,
                },
            ),
            (&[5, 0, 1, 0xff, 0], E::MessageNotUtf8),
            (
                &[5, 0, 1, b'a'],
                E::Truncated {
                    part: "the status details",
                },
            ),
            (&[5, 0, 0, 0, 9], E::TrailingBytes { left: 1 }),
        ];
        for (bytes, error) in table {
            assert_eq!(
                read_status(Bytes::from_static(bytes), Metadata::new()).unwrap_err(),
                *error,
                "{bytes:02x?}"
            );
            assert_eq!(error.reply_status().execution(), Execution::MayHaveExecuted);
        }
        let later = read_status(Bytes::from_static(&[99, 1, 0, 0]), Metadata::new()).unwrap();
        assert_eq!(
            (later.code(), later.execution()),
            (Code::Unknown, Execution::NotExecuted)
        );
    }

    #[test]
    fn a_status_travels_with_everything_but_its_local_parts() {
        let mut status = Status::aborted("lost the race")
            .with_details(vec![1, 2, 3])
            .with_source("here");
        status
            .metadata_mut()
            .insert_text("retry-after", "3")
            .unwrap();
        let mut out = BytesMut::new();
        let timing = ServerTiming {
            queue: Duration::from_micros(200),
            handler: Duration::from_secs(1),
        };
        write_status_reply(CodecId::BINCODE, &status, Some(timing), &mut out);
        let (head, body) = ReplyHead::read(out.freeze()).unwrap();
        assert_eq!((head.outcome, head.timing), (Outcome::Status, Some(timing)));
        let back = read_status(body, head.metadata).unwrap();
        assert_eq!(back, status);
        assert!(std::error::Error::source(&back).is_none());
    }

    fn some_metadata() -> impl Strategy<Value = Metadata> {
        let entry = (
            "[a-z0-9._-]{1,20}",
            proptest::collection::vec(any::<u8>(), 0..200),
        );
        proptest::collection::vec(entry, 0..5).prop_map(|entries| {
            let mut metadata = Metadata::new();
            for (key, value) in entries {
                metadata.append(&key, value).unwrap();
            }
            metadata
        })
    }

    fn some_micros() -> impl Strategy<Value = Duration> {
        (0u32..64, any::<u64>()).prop_map(|(shift, micros)| Duration::from_micros(micros >> shift))
    }

    proptest! {
        #[test]
        fn requests_come_back(
            codec in 0u8..64,
            compression in 0u8..4,
            remaining in proptest::option::of(some_micros()),
            metadata in some_metadata(),
            body in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut out = BytesMut::new();
            RequestHead::write(CodecId::new(codec), remaining, &metadata, &mut out);
            out[1] |= compression << 6;
            let head_len = out.len();
            out.extend_from_slice(&body);
            let message = out.freeze();
            prop_assert!(is_envelope(&message));
            for cut in 0..head_len {
                prop_assert!(RequestHead::read(message.slice(..cut)).is_err());
            }
            let (head, rest) = RequestHead::read(message).unwrap();
            prop_assert_eq!(head, RequestHead {
                codec: CodecId::new(codec),
                compression: CompressionId::new(compression),
                remaining,
                metadata,
            });
            prop_assert_eq!(rest, body);
        }

        #[test]
        fn answers_come_back(
            codec in 0u8..64,
            compression in 0u8..4,
            outcome in prop::sample::select(&[Outcome::Value, Outcome::Error, Outcome::Status]),
            timing in proptest::option::of((some_micros(), some_micros())),
            metadata in some_metadata(),
            body in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let timing = timing.map(|(queue, handler)| ServerTiming { queue, handler });
            let mut out = BytesMut::new();
            ReplyHead::write(CodecId::new(codec), outcome, timing, &metadata, &mut out);
            out[1] |= compression << 6;
            out.extend_from_slice(&body);
            let reply = ReplyHead::read(out.freeze());
            if outcome == Outcome::Status && compression != 0 {
                prop_assert_eq!(reply, Err(EnvelopeError::CompressedStatus));
                return Ok(());
            }
            let (head, rest) = reply.unwrap();
            prop_assert_eq!(head, ReplyHead {
                codec: CodecId::new(codec),
                compression: CompressionId::new(compression),
                outcome,
                timing,
                metadata,
            });
            prop_assert_eq!(rest, body);
        }

        #[test]
        fn statuses_come_back(
            code in 1u8..=16,
            rejected: bool,
            message in ".*",
            details in proptest::collection::vec(any::<u8>(), 0..50),
            metadata in some_metadata(),
        ) {
            let execution = if rejected {
                Execution::NotExecuted
            } else {
                Execution::MayHaveExecuted
            };
            let status = Status::new(Code::from_u8(code).unwrap(), message)
                .with_details(details)
                .with_metadata(metadata)
                .with_execution(execution);
            let mut out = BytesMut::new();
            write_status(&status, &mut out);
            let body = out.freeze();
            for cut in 0..body.len() {
                prop_assert!(read_status(body.slice(..cut), Metadata::new()).is_err());
            }
            let back = read_status(body, status.metadata().clone()).unwrap();
            prop_assert_eq!((&back, back.execution()), (&status, execution));
        }

        #[test]
        fn any_bytes_are_rejected_or_have_exactly_one_form(
            first in 0x80u8..=0x8f,
            rest in proptest::collection::vec(prop_oneof![0u8..4, Just(b'a'), any::<u8>()], 0..60),
        ) {
            let message = Bytes::from([&[first][..], &rest].concat());
            if let Ok((head, body)) = RequestHead::read(message.clone()) {
                let mut out = BytesMut::new();
                RequestHead::write(head.codec, head.remaining, &head.metadata, &mut out);
                out[1] |= head.compression.as_u8() << 6;
                out.extend_from_slice(&body);
                prop_assert_eq!(&out, &message);
            }
            if let Ok((head, body)) = ReplyHead::read(message.clone()) {
                let mut out = BytesMut::new();
                ReplyHead::write(head.codec, head.outcome, head.timing, &head.metadata, &mut out);
                out[1] |= head.compression.as_u8() << 6;
                out.extend_from_slice(&body);
                prop_assert_eq!(&out, &message);
                let _ = read_status(body, head.metadata);
            }
            let _ = PlainError::read(&rest);
        }
    }
}
