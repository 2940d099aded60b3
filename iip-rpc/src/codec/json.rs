//! JSON, by serde_json.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeSeed;

use super::checked::{self, Check};
use super::guarded::{Format, Guard};
use super::{Codec, CodecId, DecodeError, DecodeErrorKind, DecodeLimits, EncodeError};

/// Number of levels that serde_json reads.
const MAX_LEVELS: u16 = 127;

/// JSON: for people, for tools, and for peers that know only IIP. Nesting is limited to 127 levels.
///
/// Keys of maps must be texts, numbers, bools or unit variants. NaN and infinities are rejected
/// when they are written. `Some(None)` and `Some(())` are read back as `None`.
#[derive(Debug, Clone, Copy)]
pub enum Json {}

impl Codec for Json {
    const ID: CodecId = CodecId::JSON;
    const BYTES_ARE_SEQUENCES: bool = false;

    #[inline]
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut json = serde_json::Serializer::new(out.writer());
        Check::of(Brackets).write(value, &mut json)
    }

    #[inline]
    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError> {
        let (guard, mut json) = reader(input, limits)?;
        let value = guard.read(seed, &mut json)?;
        finish(json)?;
        Ok(value)
    }
}

type Reader<'de> = serde_json::Deserializer<serde_json::de::SliceRead<'de>>;

fn reader<'de>(
    input: &'de [u8],
    limits: &DecodeLimits,
) -> Result<(Guard, Reader<'de>), DecodeError> {
    limits.check_size(input)?;
    // serde_json counts only the levels that have brackets, not the options and newtypes that a
    // recursive type can consist of.
    let format = Format {
        describes_itself: true,
        error_kind,
    };
    let guard = Guard::new(format, input, limits);
    Ok((guard, serde_json::Deserializer::from_slice(input)))
}

/// Checks that nothing is left of the input.
fn finish(mut json: Reader<'_>) -> Result<(), DecodeError> {
    json.end()
        .map_err(|error| DecodeError::new(error_kind(error.to_string())))
}

/// The format of JSON: serde_json counts levels by their brackets when it reads.
struct Brackets;

impl checked::Format for Brackets {
    const COUNTED: bool = false;
    const FINITE: bool = true;
    const MAX_LEVELS: u16 = MAX_LEVELS;
    const BYTES_LEVELS: u16 = 1;
    const UNIT_LEVELS: u16 = 0;
    const VARIANT_LEVELS: u16 = 2;
}

#[cold]
fn error_kind(text: String) -> DecodeErrorKind {
    // serde_json rejects the 128th level and has no error kind for it.
    if text.starts_with("recursion limit exceeded") {
        return DecodeErrorKind::TooDeep { limit: MAX_LEVELS };
    }
    DecodeErrorKind::Value(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn decode<'de, T: serde::Deserialize<'de>>(input: &'de [u8]) -> Result<T, DecodeError> {
        Json::decode(input, &DecodeLimits::new())
    }

    #[test]
    fn values_come_back() {
        let mut out = BytesMut::new();
        let value = BTreeMap::from([("a".to_owned(), Some(1.5)), ("b".to_owned(), None)]);
        Json::encode(&value, &mut out).unwrap();
        assert_eq!(&out[..], br#"{"a":1.5,"b":null}"#);
        assert_eq!(
            decode::<BTreeMap<String, Option<f64>>>(&out).unwrap(),
            value
        );
    }

    #[test]
    fn bytes_after_the_value_are_rejected() {
        assert_eq!(decode::<u8>(b" 1 \n").unwrap(), 1);
        let error = decode::<u8>(b"1 2").unwrap_err();
        assert_eq!(error.to_string(), "trailing characters at line 1 column 3");
    }

    #[test]
    fn deep_nesting_is_rejected_and_named() {
        let deep = "[".repeat(1_000_000);
        let error = decode::<serde_json::Value>(deep.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), &DecodeErrorKind::TooDeep { limit: 127 });
        let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
        decode::<serde_json::Value>(deep.as_bytes()).unwrap();
    }

    #[test]
    fn a_type_that_is_recursive_without_brackets_takes_no_more_than_its_stack() {
        #[derive(Debug, serde::Deserialize)]
        struct Chain(#[expect(dead_code, reason = "only read")] Option<Box<Self>>);
        let error = decode::<Chain>(b"1").unwrap_err();
        assert!(
            matches!(error.kind(), DecodeErrorKind::TooDeep { .. }),
            "{error}"
        );
        decode::<Chain>(b"null").unwrap();
    }

    #[test]
    fn a_map_whose_keys_are_not_strings_cannot_be_encoded() {
        let error = Json::encode(&BTreeMap::from([((1, 2), 3)]), &mut BytesMut::new()).unwrap_err();
        assert_eq!(error.to_string(), "key must be a string");
    }
}
