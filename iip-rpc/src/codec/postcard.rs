//! postcard, by the crate of that name, with the checks that it does not have.

use ::postcard::ser_flavors::Flavor;
use ::postcard::{Deserializer, Error, Serializer};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeSeed;

use super::checked::{self, Check};
use super::gathering::{Gathering, write_by};
use super::guarded::{Format, Guard};
use super::{Codec, CodecId, DecodeError, DecodeErrorKind, DecodeLimits, EncodeError};

/// postcard 1: as small as bincode, with a format that is specified by its authors and common on
/// small devices.
///
/// Both sides must agree on the types exactly: fields are identified only by their position. Types
/// that have to be self-describing or that leave fields out do not work with it, as with bincode;
/// use JSON or MessagePack for such types.
#[derive(Debug, Clone, Copy)]
pub enum Postcard {}

impl Codec for Postcard {
    const ID: CodecId = CodecId::POSTCARD;
    const BYTES_ARE_SEQUENCES: bool = true;

    write_by!(write);

    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError> {
        limits.check_size(input)?;
        let format = Format {
            describes_itself: false,
            error_kind,
        };
        let mut postcard = Deserializer::from_bytes(input);
        let value = Guard::new(format, input, limits).read(seed, &mut postcard)?;
        match postcard.finalize().map_or(0, <[u8]>::len) {
            0 => Ok(value),
            left => Err(DecodeError::new(DecodeErrorKind::TrailingBytes { left })),
        }
    }
}

fn write<'a, T: Serialize + ?Sized>(
    value: &T,
    output: Gathering<'a>,
) -> Result<Gathering<'a>, EncodeError> {
    let mut postcard = Serializer { output };
    Check::of(Positions).write(value, &mut postcard)?;
    Ok(postcard.output)
}

/// A format in which fields have only positions.
struct Positions;

impl checked::Format for Positions {
    const POSITIONAL: bool = true;
}

impl Flavor for Gathering<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.push(bytes);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> Result<(), Error> {
        self.push(&[byte]);
        Ok(())
    }

    fn finalize(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Converts an error of the crate, which has only a text after it has passed through serde.
#[cold]
fn error_kind(text: String) -> DecodeErrorKind {
    let is = |error: Error| text == error.to_string();
    if is(Error::WontImplement) {
        return DecodeErrorKind::NotSelfDescribing(
            "postcard does not describe its values; avoid `serde(flatten)`, `serde(untagged)` and \
             `serde(tag)` or choose json or msgpack",
        );
    }
    DecodeErrorKind::Value(if is(Error::DeserializeUnexpectedEnd) {
        "the message ends too early".to_owned()
    } else {
        text
    })
}
