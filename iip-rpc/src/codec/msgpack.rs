//! MessagePack, by rmp-serde, with the checks that it does not have.

use std::io::{self, Cursor, Write};

use bytes::{Bytes, BytesMut};
use rmp_serde::decode::Error;
use rmp_serde::{Deserializer, Serializer};
use serde::de::{DeserializeSeed, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::checked::{self, Check};
use super::gathering::{Gathering, write_by};
use super::guarded::{Format, Guard};
use super::{Codec, CodecId, DecodeError, DecodeErrorKind, DecodeLimits, EncodeError};

/// MessagePack: self-describing like JSON, but in fewer bytes. Structs are maps with the names of
/// their fields, so that the two sides may differ in fields that have a default.
///
/// It works with every serde type that works with JSON, and maps may have any keys. `Vec<u8>` is an
/// array of numbers, one or two bytes each; [`Payload`](crate::Payload) and `bytes::Bytes` are
/// bytes.
#[derive(Debug, Clone, Copy)]
pub enum Msgpack {}

impl Codec for Msgpack {
    const ID: CodecId = CodecId::MSGPACK;
    const BYTES_ARE_SEQUENCES: bool = false;

    write_by!(write);

    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError> {
        limits.check_size(input)?;
        let format = Format {
            describes_itself: true,
            error_kind,
        };
        let mut msgpack = Deserializer::from_read_ref(input);
        // The guard counts levels, because it also knows those that are not arrays or maps.
        msgpack.set_max_depth(usize::MAX);
        let value = Guard::new(format, input, limits).read(seed, &mut msgpack)?;
        // The crate does not report how far it has read, only whether more follows.
        match u8::deserialize(&mut msgpack) {
            Err(Error::InvalidMarkerRead(_)) => Ok(value),
            _ => Err(trailing(input)),
        }
    }
}

fn write<'a, T: Serialize + ?Sized>(
    value: &T,
    output: Gathering<'a>,
) -> Result<Gathering<'a>, EncodeError> {
    let mut msgpack = Serializer::new(output).with_struct_map();
    Check::of(Named).write(value, &mut msgpack)?;
    Ok(msgpack.into_inner())
}

/// A format in which the fields of structs have names.
struct Named;

impl checked::Format for Named {}

impl Write for Gathering<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.push(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the error for bytes that follow the first value of `input`, which could be read.
#[cold]
fn trailing(input: &[u8]) -> DecodeError {
    let mut msgpack = Deserializer::new(Cursor::new(input));
    let left = match IgnoredAny::deserialize(&mut msgpack) {
        Ok(_) => usize::try_from(msgpack.position()).map_or(0, |end| input.len() - end),
        Err(_) => 0,
    };
    // At least one byte follows.
    let left = left.max(1);
    DecodeError::new(DecodeErrorKind::TrailingBytes { left })
}

/// Converts an error of the crate, which has only a text after it has passed through serde.
#[cold]
fn error_kind(text: String) -> DecodeErrorKind {
    DecodeErrorKind::Value(if text.starts_with("IO error while reading") {
        "the message ends too early".to_owned()
    } else {
        text
    })
}
