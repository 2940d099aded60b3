//! Codecs, which convert values to bytes and back: their ids on the wire, and the checks in both
//! directions.
//!
//! | types with | `Bincode`, `Postcard` | `Json`, `Msgpack` |
//! |---|---|---|
//! | `serde(rename, alias, default, skip, transparent, with, from, into, remote, other)` | carried | carried |
//! | `serde(skip_serializing_if)` | rejected by the writer if a field is left out | carried |
//! | `serde(flatten)` | rejected by the writer | carried |
//! | `serde(untagged, tag)`, `serde_json::Value` | rejected by the reader | carried |
//! | NaN, infinities | carried | rejected by the writer in JSON |
//! | elements without bytes, such as `Vec<()>` | rejected by the writer | carried |
//!
//! The documentation of `Bincode` names the attributes that must not be used with a codec without
//! field names.

#[cfg(feature = "codec-bincode")]
mod bincode;
mod checked;
mod guarded;
mod json;
#[cfg(feature = "codec-msgpack")]
mod msgpack;
#[cfg(any(
    feature = "codec-postcard",
    feature = "codec-msgpack",
    feature = "codec-prost"
))]
mod output;
#[cfg(feature = "codec-postcard")]
mod postcard;
#[cfg(feature = "codec-prost")]
mod protobuf;
mod stack;

use std::fmt;

use bytes::{Bytes, BytesMut};
use iip_core::Printable;
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Deserializer, Serialize};

#[cfg(feature = "codec-bincode")]
pub use self::bincode::Bincode;
pub use self::json::Json;
#[cfg(feature = "codec-msgpack")]
pub use self::msgpack::Msgpack;
#[cfg(feature = "codec-postcard")]
pub use self::postcard::Postcard;
#[cfg(feature = "codec-prost")]
pub use self::protobuf::{Proto, ProtoRef, Protobuf};
use crate::compression::{self, CompressionId};
use crate::limits::CODEC_BYTES;
use crate::method::MethodDescriptor;
use crate::payload;
use crate::status::{Code, Execution, Status};

/// Maximum depth of nested sequences, maps, structs and enums, unless [`DecodeLimits::max_depth`]
/// sets another one.
const MAX_DEPTH: u16 = 128;

/// Maximum depth of nested options and newtypes when values are written; readers allow the same by
/// default.
const MAX_WRAPPERS: u16 = MAX_DEPTH * 4;

/// Encodes values as bytes, and decodes them. Each codec is a type without values, selected by its
/// [`ID`](Self::ID) in the envelope.
///
/// Every implementation guarantees for `encode`: it rejects a value that a reader with the default
/// limits rejects because of its depth, because of elements without bytes, or because the format
/// cannot represent it, and a value that a reader would take for another one because a field is
/// left out.
///
/// Every implementation guarantees for `decode`: it accepts only the whole input, it rejects values
/// nested deeper than the limit, it never allocates or loops much more than the size of the input
/// warrants, regardless of what the input claims, and it never panics.
pub trait Codec {
    /// The id in the envelope.
    const ID: CodecId;

    /// `true` if bytes and a sequence of `u8` have the same encoding, so that each can be read as
    /// the other.
    const BYTES_ARE_SEQUENCES: bool;

    /// Appends `value` to `out`.
    ///
    /// # Errors
    ///
    /// The codec cannot represent the value, or the value's own `Serialize` fails. `out` may then
    /// end with a part of the value.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError>;

    /// Like [`encode`](Self::encode), but a large [`Payload`](payload::Payload) at the very end of
    /// the value may be returned instead of copied: it has to follow `out`.
    ///
    /// # Errors
    ///
    /// Those of [`encode`](Self::encode).
    fn encode_split<T: Serialize + ?Sized>(
        value: &T,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        Self::encode(value, out)?;
        Ok(None)
    }

    /// Decodes one value, which must be all of `input`. Texts and bytes in it can borrow from
    /// `input`.
    ///
    /// # Errors
    ///
    /// `input` is not such a value, or exceeds one of the limits.
    fn decode<'de, T: Deserialize<'de>>(
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<T, DecodeError> {
        Self::decode_seed(std::marker::PhantomData, input, limits)
    }

    /// Like [`decode`](Self::decode), but for a value that `seed` reads.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](Self::decode).
    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError>;
}

/// The number that identifies a codec in an envelope. The numbers never change; `docs/wire.md`
/// describes the formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecId(u8);

impl CodecId {
    /// Bytes as they are; only for methods whose argument and result are bytes.
    pub const RAW: Self = Self(0);
    /// bincode 2 in its standard configuration.
    pub const BINCODE: Self = Self(1);
    /// postcard 1; with the feature `codec-postcard`.
    pub const POSTCARD: Self = Self(2);
    /// JSON.
    pub const JSON: Self = Self(3);
    /// MessagePack, structs as maps; with the feature `codec-msgpack`.
    pub const MSGPACK: Self = Self(4);
    /// Protobuf messages, for services that carry nothing else; with the feature `codec-prost`.
    pub const PROTOBUF: Self = Self(5);

    /// The default codec of a client: bincode, or JSON in a build without the feature
    /// `codec-bincode`.
    pub const DEFAULT: Self = if cfg!(feature = "codec-bincode") {
        Self::BINCODE
    } else {
        Self::JSON
    };

    /// Returns the id with this number, even if no codec is known for it. An envelope has room for
    /// numbers up to 63.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Returns the number on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Returns `true` if this build can read and write values of this codec.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        (matches!(self, Self::BINCODE) && cfg!(feature = "codec-bincode"))
            || (matches!(self, Self::POSTCARD) && cfg!(feature = "codec-postcard"))
            || matches!(self, Self::JSON)
            || (matches!(self, Self::MSGPACK) && cfg!(feature = "codec-msgpack"))
            || (matches!(self, Self::PROTOBUF) && cfg!(feature = "codec-prost"))
    }

    /// Returns the codecs of this build.
    pub(crate) fn supported() -> impl Iterator<Item = Self> {
        let all = [
            Self::BINCODE,
            Self::POSTCARD,
            Self::JSON,
            Self::MSGPACK,
            Self::PROTOBUF,
        ];
        all.into_iter().filter(|codec| codec.is_supported())
    }

    /// Returns the advice for a build that does not have the codec.
    fn remedy(self) -> &'static str {
        match self {
            Self::BINCODE => "enable the feature `codec-bincode` of iip-rpc",
            Self::POSTCARD => "enable the feature `codec-postcard` of iip-rpc",
            Self::MSGPACK => "enable the feature `codec-msgpack` of iip-rpc",
            Self::PROTOBUF => "enable the feature `codec-prost` of iip-rpc",
            _ => "choose another codec",
        }
    }

    /// Returns the codec for a method's own error: errors are serde types, and protobuf carries
    /// only messages.
    pub(crate) fn of_errors(self) -> Self {
        match self {
            Self::PROTOBUF => Self::JSON,
            other => other,
        }
    }
}

/// Writes the name, such as `bincode`, or `codec 9` if there is none.
impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::RAW => f.pad("raw"),
            Self::BINCODE => f.pad("bincode"),
            Self::POSTCARD => f.pad("postcard"),
            Self::JSON => f.pad("json"),
            Self::MSGPACK => f.pad("msgpack"),
            Self::PROTOBUF => f.pad("protobuf"),
            Self(number) => write!(f, "codec {number}"),
        }
    }
}

/// Limits of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    max_message_bytes: usize,
    /// Number of bytes beyond that limit that are accepted.
    allowance: usize,
    max_compression_ratio: u32,
    max_depth: u16,
}

impl DecodeLimits {
    /// Returns the default limits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            max_message_bytes: 16 * 1024 * 1024,
            allowance: 0,
            max_compression_ratio: compression::MAX_RATIO,
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

/// Runs `$run` with the type `$Codec` that has the id `$codec`, or `$otherwise` with the id if this
/// build has no codec for it.
macro_rules! with_codec {
    ($codec:expr, $Codec:ident => $run:expr, $other:ident => $otherwise:expr) => {
        match $codec {
            #[cfg(feature = "codec-bincode")]
            $crate::codec::CodecId::BINCODE => {
                type $Codec = $crate::codec::Bincode;
                $run
            }
            #[cfg(feature = "codec-postcard")]
            $crate::codec::CodecId::POSTCARD => {
                type $Codec = $crate::codec::Postcard;
                $run
            }
            $crate::codec::CodecId::JSON => {
                type $Codec = $crate::codec::Json;
                $run
            }
            #[cfg(feature = "codec-msgpack")]
            $crate::codec::CodecId::MSGPACK => {
                type $Codec = $crate::codec::Msgpack;
                $run
            }
            #[cfg(feature = "codec-prost")]
            $crate::codec::CodecId::PROTOBUF => {
                type $Codec = $crate::codec::Protobuf;
                $run
            }
            $other => $otherwise,
        }
    };
}

/// Appends `value` to `out`, encoded with the codec that has the id `codec`.
///
/// # Errors
///
/// Those of [`Codec::encode`], and an error if this build does not have the codec.
#[inline]
pub fn encode_value<T: Serialize + ?Sized>(
    codec: CodecId,
    value: &T,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    with_codec!(codec, C => C::encode(value, out), other => Err(EncodeError::unsupported(other)))
}

/// Like [`encode_value`], but a large [`Payload`](payload::Payload) at the very end may be returned
/// instead of copied: it has to follow `out`.
///
/// # Errors
///
/// Those of [`encode_value`].
#[inline]
pub fn encode_value_split<T: Serialize + ?Sized>(
    codec: CodecId,
    value: &T,
    out: &mut BytesMut,
) -> Result<Option<Bytes>, EncodeError> {
    with_codec!(codec, C => C::encode_split(value, out), other => Err(EncodeError::unsupported(other)))
}

/// Decodes a value that is all of `body`, with the codec that has the id `codec`. Large payloads in
/// it become parts of `body`.
///
/// # Errors
///
/// Those of [`Codec::decode`], and an error if this build does not have the codec.
#[inline]
pub fn decode_value<T: DeserializeOwned + 'static>(
    codec: CodecId,
    body: &Bytes,
    limits: &DecodeLimits,
) -> Result<T, DecodeError> {
    payload::while_reading(body, || {
        with_codec!(
            codec,
            C => C::decode_seed(Owned::<T, C>::new(), body, limits),
            other => Err(DecodeError::unsupported(other))
        )
    })
}

/// Decodes a `T` with the codec `C`, using the shortcuts for bytes.
pub(crate) struct Owned<T, C>(std::marker::PhantomData<(T, C)>);

impl<T, C> Owned<T, C> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: Deserialize<'de> + 'static, C: Codec> DeserializeSeed<'de> for Owned<T, C> {
    type Value = T;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        payload::deserialize_owned(deserializer, C::BYTES_ARE_SEQUENCES)
    }
}

/// The reason why a value could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct EncodeError(Box<EncodeErrorKind>);

/// The reasons for an [`EncodeError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeErrorKind {
    /// This build does not have the codec.
    #[error("{0} is not supported by this build; {remedy}", remedy = .0.remedy())]
    Unsupported(CodecId),
    /// A sequence or map did not announce its number of elements, which `#[serde(flatten)]` causes.
    #[error(
        "bincode and postcard need the length of a sequence or map beforehand; avoid \
         `serde(flatten)` or choose json or msgpack"
    )]
    UnknownLength,
    /// A field is left out, and the receiver would take the next one for it.
    #[error(
        "the field `{field}` is left out, and bincode and postcard tell fields apart by their \
         position; remove `serde(skip_serializing_if)` or choose json or msgpack"
    )]
    SkippedField {
        /// The name of the field.
        field: &'static str,
    },
    /// A sequence, a map or a struct has a different number of parts than its `Serialize`
    /// announced.
    #[error("{announced} parts were announced, and {written} were written")]
    WrongLength {
        /// The number that was announced.
        announced: usize,
        /// The number that was written.
        written: usize,
    },
    /// Values are nested deeper than receivers accept.
    #[error("nested deeper than the limit of {limit} levels that receivers accept")]
    TooDeep {
        /// The limit in levels.
        limit: u16,
    },
    /// A floating-point number is NaN or infinite.
    #[error(
        "NaN and infinities have no form in json; send an option or a text, or choose another codec"
    )]
    NotFinite,
    /// The elements of a sequence take no bytes at all. A receiver must reject them: a few bytes
    /// could claim any number.
    #[error(
        "a sequence of {elements} elements that take no bytes cannot be sent in bincode and postcard; send their number"
    )]
    EmptyElements {
        /// Number of elements.
        elements: usize,
    },
    /// The value's own `Serialize` failed, or the codec cannot represent the value.
    #[error("{0}")]
    Value(String),
}

impl EncodeError {
    #[cold]
    pub(crate) fn new(kind: EncodeErrorKind) -> Self {
        Self(Box::new(kind))
    }

    #[cold]
    pub(crate) fn unsupported(codec: CodecId) -> Self {
        Self::new(EncodeErrorKind::Unsupported(codec))
    }

    /// Returns the reason.
    #[must_use]
    pub fn kind(&self) -> &EncodeErrorKind {
        &self.0
    }
}

impl serde::ser::Error for EncodeError {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(EncodeErrorKind::Value(text.to_string()))
    }
}

/// The reason why bytes are not a value of the expected type, or are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(Box<(DecodeErrorKind, Option<&'static str>)>);

/// The reasons for a [`DecodeError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// This build does not have the codec.
    #[error("{0} is not supported by this build; {remedy}", remedy = .0.remedy())]
    Unsupported(CodecId),
    /// The encoding exceeds the limit on its size.
    #[error("a value of {size} bytes is over the limit of {limit} bytes (max_message_bytes)")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// This build cannot decompress the encoding.
    #[error("{0} is not supported by this build; {remedy}", remedy = .0.remedy())]
    UnsupportedCompression(CompressionId),
    /// The ratio of the encoding to its compressed form exceeds the limit.
    #[error(
        "a value of {size} bytes in {compressed} compressed ones is over the limit of {limit} for \
         each (max_compression_ratio)"
    )]
    TooCompressed {
        /// Its size in bytes, as announced.
        size: usize,
        /// Number of bytes that were received.
        compressed: usize,
        /// The maximum ratio.
        limit: usize,
    },
    /// The compressed form is damaged.
    #[error("the compressed bytes cannot be read: {}", Printable(.0))]
    Compressed(String),
    /// Values are nested deeper than the limit.
    #[error("nested deeper than the limit of {limit} levels (max_depth)")]
    TooDeep {
        /// The limit in levels.
        limit: u16,
    },
    /// Decoding nested values takes more stack than is safe.
    #[error("nested so deep that reading takes more than {limit} bytes of stack")]
    TooMuchStack {
        /// The limit in bytes.
        limit: usize,
    },
    /// A text, a byte string, a sequence or a map claims to be longer than the rest of the message.
    #[error("a length of {claimed} is claimed where only {left} bytes are left")]
    TooLong {
        /// The claimed number of bytes or elements.
        claimed: u64,
        /// Number of bytes that are left.
        left: usize,
    },
    /// An element of a sequence or map took no bytes, so that any number could have been claimed.
    #[error("an element of a sequence or map takes no bytes")]
    EmptyElement,
    /// The message ends within the value.
    #[error("the message ends {missing} bytes too early")]
    UnexpectedEnd {
        /// Minimum number of missing bytes.
        missing: usize,
    },
    /// The value ends before the message does.
    #[error("{left} bytes follow after the end of the value")]
    TrailingBytes {
        /// Number of bytes.
        left: usize,
    },
    /// The codec is not self-describing, and the type requires that.
    #[error("{0}")]
    NotSelfDescribing(&'static str),
    /// The bytes are not a value of the type. The text may contain what the peer has sent.
    #[error("{}", Printable(.0))]
    Value(String),
}

impl DecodeError {
    #[cold]
    pub(crate) fn new(kind: DecodeErrorKind) -> Self {
        Self(Box::new((kind, None)))
    }

    #[cold]
    fn unsupported(codec: CodecId) -> Self {
        Self::new(DecodeErrorKind::Unsupported(codec))
    }

    /// Sets the argument of a call in which the error occurred.
    #[cold]
    pub(crate) fn in_argument(mut self, name: &'static str) -> Self {
        self.0.1 = Some(name);
        self
    }

    /// Returns the reason.
    #[must_use]
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.0
    }

    /// Returns the argument that could not be read, if it was one.
    #[must_use]
    pub fn argument(&self) -> Option<&'static str> {
        self.0.1
    }

    /// Returns the status for a request that could not be read: the method did not run.
    #[must_use]
    pub fn request_status(&self) -> Status {
        let code = match self.kind() {
            DecodeErrorKind::TooLarge { .. } | DecodeErrorKind::TooCompressed { .. } => {
                Code::ResourceExhausted
            }
            DecodeErrorKind::Unsupported(_) | DecodeErrorKind::UnsupportedCompression(_) => {
                Code::Unimplemented
            }
            _ => Code::InvalidArgument,
        };
        Status::new(code, self.to_string()).with_execution(Execution::NotExecuted)
    }

    /// Returns the status for a reply that could not be read: the method did run.
    #[must_use]
    pub fn reply_status(&self) -> Status {
        let code = match self.kind() {
            DecodeErrorKind::TooLarge { .. } | DecodeErrorKind::TooCompressed { .. } => {
                Code::ResourceExhausted
            }
            _ => Code::Internal,
        };
        Status::new(code, format!("the answer cannot be read: {self}"))
            .with_told_source(self.clone())
    }
}

impl DecodeError {
    /// Returns the status for arguments of `method`, or a message from its caller, that could not
    /// be read.
    pub(crate) fn status_of_request(
        &self,
        method: &MethodDescriptor,
        what: &str,
        codec: CodecId,
    ) -> Status {
        let text = format!("{method}: {}", self.explained(what, codec));
        self.request_status().reworded(text)
    }

    /// Returns the status for a reply, or a message of it, that could not be read.
    pub(crate) fn status_of_reply(&self, what: &str, codec: CodecId) -> Status {
        self.reply_status().reworded(self.explained(what, codec))
    }

    #[cold]
    fn explained(&self, what: &str, codec: CodecId) -> String {
        let hint = match self.kind() {
            DecodeErrorKind::TooLong { .. }
            | DecodeErrorKind::EmptyElement
            | DecodeErrorKind::UnexpectedEnd { .. }
            | DecodeErrorKind::TrailingBytes { .. }
            | DecodeErrorKind::Value(_) => "; the types of client and server may differ",
            _ => "",
        };
        format!("cannot read the {what} in {codec}: {self}{hint}")
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.argument() {
            write!(f, "argument `{name}`: ")?;
        }
        write!(f, "{}", self.kind())
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(DecodeErrorKind::Value(text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_ids_are_fixed() {
        let ids = [
            CodecId::RAW,
            CodecId::BINCODE,
            CodecId::POSTCARD,
            CodecId::JSON,
            CodecId::MSGPACK,
            CodecId::PROTOBUF,
        ];
        assert_eq!(ids.map(CodecId::as_u8), [0, 1, 2, 3, 4, 5]);
        assert_eq!(CodecId::new(9).to_string(), "codec 9");
        assert!(CodecId::DEFAULT.is_supported());
    }

    #[test]
    fn a_missing_codec_is_named() {
        let mut out = BytesMut::new();
        let error = encode_value(CodecId::RAW, &1u8, &mut out).unwrap_err();
        assert_eq!(
            error.to_string(),
            "raw is not supported by this build; choose another codec"
        );
        let kind = EncodeErrorKind::Unsupported(CodecId::PROTOBUF);
        assert_eq!(
            kind.to_string(),
            "protobuf is not supported by this build; enable the feature `codec-prost` of iip-rpc"
        );
        let error = decode_value::<u8>(
            CodecId::new(77),
            &Bytes::from_static(b"x"),
            &DecodeLimits::new(),
        )
        .unwrap_err();
        assert!(
            error.to_string().starts_with("codec 77 is not supported"),
            "{error}"
        );
        assert_eq!(error.request_status().code(), Code::Unimplemented);
        assert_eq!(error.request_status().execution(), Execution::NotExecuted);
    }

    #[test]
    fn a_missing_compression_is_named() {
        let limits = DecodeLimits::new();
        let body = Bytes::from_static(&[1, 1]);
        let error = compression::decompress(CompressionId::new(3), body, &limits).unwrap_err();
        assert_eq!(error.request_status().code(), Code::Unimplemented);
        assert_eq!(error.request_status().execution(), Execution::NotExecuted);
        assert_eq!(
            DecodeErrorKind::UnsupportedCompression(CompressionId::ZSTD).to_string(),
            "zstd is not supported by this build; enable the feature `compress-zstd` of iip-rpc"
        );
    }

    #[test]
    fn a_value_over_the_size_limit_is_rejected_by_name() {
        let limits = DecodeLimits::new().max_message_bytes(3);
        for codec in CodecId::supported() {
            let error =
                decode_value::<u8>(codec, &Bytes::from_static(b"1234"), &limits).unwrap_err();
            assert_eq!(
                error.to_string(),
                "a value of 4 bytes is over the limit of 3 bytes (max_message_bytes)"
            );
            assert_eq!(error.request_status().code(), Code::ResourceExhausted);
            assert_eq!(error.reply_status().execution(), Execution::MayHaveExecuted);
        }
    }

    #[test]
    fn bytes_of_a_peer_are_shown_escaped() {
        #[derive(Debug, Deserialize)]
        enum Known {}
        let body = Bytes::from_static(br#""\u001b[31mred\n""#);
        let limits = DecodeLimits::new();
        let error = decode_value::<Known>(CodecId::JSON, &body, &limits).unwrap_err();
        assert!(error.to_string().contains(r"\u{1b}[31mred\n"), "{error}");
    }

    #[test]
    fn errors_are_one_pointer_large() {
        assert_eq!(size_of::<DecodeError>(), size_of::<usize>());
        assert_eq!(size_of::<EncodeError>(), size_of::<usize>());
    }
}
