//! Codecs, which convert values to bytes and back: their ids on the wire, and their checks when
//! they encode and decode.
//!
//! | types with | `Bincode`, `Postcard` | `Json`, `Msgpack` |
//! |---|---|---|
//! | `serde(rename, alias, default, skip, transparent, with, from, into, remote, other)` | supported | supported |
//! | `serde(skip_serializing_if)` | rejected by the sender if a field is left out | supported |
//! | `serde(flatten)` | rejected by the sender | supported |
//! | `serde(untagged, tag)`, `serde_json::Value` | rejected by the receiver | supported |
//! | NaN, infinities | supported | rejected by the sender in JSON |
//! | elements without bytes, such as `Vec<()>` | rejected by the sender | supported |
//!
//! The documentation of `Bincode` names the attributes that must not be used with a codec without
//! field names.

#[cfg(feature = "codec-bincode")]
mod bincode;
mod checked;
pub mod dynamic;
mod error;
#[cfg(any(
    feature = "codec-postcard",
    feature = "codec-msgpack",
    feature = "codec-prost"
))]
mod gathering;
mod guarded;
mod id;
mod json;
mod limits;
#[cfg(feature = "codec-msgpack")]
mod msgpack;
#[cfg(any(
    feature = "codec-bincode",
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

use bytes::{Bytes, BytesMut};
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Deserializer, Serialize};

#[cfg(feature = "codec-bincode")]
pub use self::bincode::Bincode;
pub use self::error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use self::id::CodecId;
pub use self::json::Json;
pub use self::limits::DecodeLimits;
use self::limits::MAX_DEPTH;
#[cfg(feature = "codec-msgpack")]
pub use self::msgpack::Msgpack;
#[cfg(feature = "codec-postcard")]
pub use self::postcard::Postcard;
#[cfg(feature = "codec-prost")]
pub use self::protobuf::{Proto, ProtoRef, Protobuf};
use crate::payload;

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

pub(crate) use with_codec;

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
    with_codec!(
        codec,
        C => C::encode_split(value, out),
        other => Err(EncodeError::unsupported(other))
    )
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

/// The number of `items`, if it is known.
#[inline]
fn exact_len(items: &impl Iterator) -> Option<usize> {
    match items.size_hint() {
        (lower, Some(upper)) if lower == upper => Some(upper),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{self, CompressionId};
    use crate::status::{Code, Execution};

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
