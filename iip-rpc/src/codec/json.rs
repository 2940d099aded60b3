//! JSON, by serde_json.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeSeed;

use super::{
    Codec, CodecId, DecodeError, DecodeErrorKind, DecodeLimits, EncodeError, EncodeErrorKind,
};

/// JSON: for people, for tools, and for peers that know only IIP. Nesting is limited to 127 levels.
#[derive(Debug, Clone, Copy)]
pub enum Json {}

impl Codec for Json {
    const ID: CodecId = CodecId::JSON;
    const BYTES_ARE_SEQUENCES: bool = false;

    #[inline]
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
        serde_json::to_writer(out.writer(), value)
            .map_err(|error| EncodeError::new(EncodeErrorKind::Value(error.to_string())))
    }

    #[inline]
    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError> {
        limits.check_size(input)?;
        let mut json = serde_json::Deserializer::from_slice(input);
        let value = seed.deserialize(&mut json).map_err(refused)?;
        json.end().map_err(refused)?;
        Ok(value)
    }
}

#[cold]
fn refused(error: serde_json::Error) -> DecodeError {
    let text = error.to_string();
    // serde_json refuses the 128th level and has no error kind for it.
    if text.starts_with("recursion limit exceeded") {
        return DecodeError::new(DecodeErrorKind::TooDeep { limit: 127 });
    }
    DecodeError::new(DecodeErrorKind::Value(text))
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
    fn what_follows_the_value_is_refused() {
        assert_eq!(decode::<u8>(b" 1 \n").unwrap(), 1);
        let error = decode::<u8>(b"1 2").unwrap_err();
        assert_eq!(error.to_string(), "trailing characters at line 1 column 3");
    }

    #[test]
    fn deep_nesting_is_refused_and_named() {
        let deep = "[".repeat(1_000_000);
        let error = decode::<serde_json::Value>(deep.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), &DecodeErrorKind::TooDeep { limit: 127 });
        let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
        decode::<serde_json::Value>(deep.as_bytes()).unwrap();
    }

    #[test]
    fn a_map_whose_keys_are_no_texts_cannot_be_encoded() {
        let error = Json::encode(&BTreeMap::from([((1, 2), 3)]), &mut BytesMut::new()).unwrap_err();
        assert_eq!(error.to_string(), "key must be a string");
    }
}
