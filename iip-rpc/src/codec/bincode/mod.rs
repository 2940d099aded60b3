//! bincode 2 in its standard configuration, with the checks that the crate does not have.
//!
//! The crate encodes numbers and texts (`docs/wire.md` describes the format). The encoder and the
//! decoder implement serde's data model themselves, because that is where depth, lengths and empty
//! elements can be checked.

mod decode;
mod encode;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeSeed;

use self::decode::Decoder;
use self::encode::Encoder;
use super::{Codec, CodecId, DecodeError, DecodeLimits, EncodeError};

/// bincode 2 in its standard configuration: the default codec, small and fast.
///
/// Both sides must agree on the types exactly: fields are identified only by their position. Types
/// that have to be self-describing or that leave fields out do not work with it; use JSON or
/// MessagePack for such types:
///
/// * A field that `skip_serializing_if` leaves out, and `flatten`, are rejected when the value is
///   written.
/// * `untagged`, `tag`, and types that read any value (`serde_json::Value`) are rejected when it is
///   read.
/// * Attributes for one direction only (`skip_serializing`, `skip_deserializing`, `tag` of a
///   struct), `skip_serializing_if` in a tuple struct, and `skip` of a variant that others follow,
///   make a type read other fields than it writes. Neither side can detect that: do not use them.
#[derive(Debug, Clone, Copy)]
pub enum Bincode {}

impl Codec for Bincode {
    const ID: CodecId = CodecId::BINCODE;
    const BYTES_ARE_SEQUENCES: bool = true;

    #[inline]
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
        Encoder::run(value, out, false).map(drop)
    }

    #[inline]
    fn encode_split<T: Serialize + ?Sized>(
        value: &T,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        Encoder::run(value, out, true)
    }

    #[inline]
    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError> {
        let mut decoder = Decoder::new(input, limits)?;
        let value = seed.deserialize(&mut decoder)?;
        decoder.finish()?;
        Ok(value)
    }
}
