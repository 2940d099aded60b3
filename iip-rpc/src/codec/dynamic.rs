//! Values by description, in every codec of serde types and with its own checks: JSON in, the bytes of
//! the Rust type out, and back. For tools that know no types; see
//! [`schema::dynamic`](crate::schema::dynamic) for the JSON of each type.

use bytes::BytesMut;
use iip_schema::dynamic::{
    ArgumentsSeed, DynamicSeed, DynamicValue, Layout, MethodArguments, Options,
};
use iip_schema::{Method, Type, Types};
use serde_json::Value;

use super::{Codec, CodecId, DecodeError, DecodeLimits, EncodeError, encode_value, with_codec};

/// The options for values in a codec; `None` for codecs whose values are not described: raw and
/// protobuf.
#[must_use]
pub fn options(codec: CodecId) -> Option<Options> {
    match codec {
        CodecId::JSON | CodecId::MSGPACK => Some(Options::new(Layout::Named)),
        CodecId::BINCODE | CodecId::POSTCARD => Some(Options::new(Layout::Positional)),
        _ => None,
    }
}

/// Appends `value` to `out`, encoded like the Rust type that `ty` describes.
///
/// # Errors
///
/// The value is not of the type, or those of [`encode_value`].
pub fn encode(
    codec: CodecId,
    ty: &Type,
    types: &Types,
    value: &Value,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let options = options(codec).ok_or_else(|| EncodeError::unsupported(codec))?;
    encode_value(codec, &DynamicValue::new(ty, types, value, options), out)
}

/// Decodes all of `body` as a value of the Rust type that `ty` describes.
///
/// # Errors
///
/// Those of [`Codec::decode`].
pub fn decode(
    codec: CodecId,
    ty: &Type,
    types: &Types,
    body: &[u8],
    limits: &DecodeLimits,
) -> Result<Value, DecodeError> {
    let options = options(codec).ok_or_else(|| DecodeError::unsupported(codec))?;
    decode_with(options, codec, ty, types, body, limits)
}

/// Like [`decode`], with [`options`] that were changed.
///
/// # Errors
///
/// Those of [`decode`].
pub fn decode_with(
    options: Options,
    codec: CodecId,
    ty: &Type,
    types: &Types,
    body: &[u8],
    limits: &DecodeLimits,
) -> Result<Value, DecodeError> {
    let seed = DynamicSeed::new(ty, types, options);
    with_codec!(
        codec,
        C => C::decode_seed(seed, body, limits),
        other => Err(DecodeError::unsupported(other))
    )
}

/// Appends the arguments of `method` to `out`: a tuple, or an object with their names.
///
/// # Errors
///
/// Those of [`encode`].
pub fn encode_arguments(
    codec: CodecId,
    method: &Method,
    types: &Types,
    value: &Value,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let options = options(codec).ok_or_else(|| EncodeError::unsupported(codec))?;
    encode_value(
        codec,
        &MethodArguments::new(method, types, value, options),
        out,
    )
}

/// Decodes all of `body` as the arguments of `method`, as an object with their names.
///
/// # Errors
///
/// Those of [`decode`].
pub fn decode_arguments(
    codec: CodecId,
    method: &Method,
    types: &Types,
    body: &[u8],
    limits: &DecodeLimits,
) -> Result<Value, DecodeError> {
    let options = options(codec).ok_or_else(|| DecodeError::unsupported(codec))?;
    decode_arguments_with(options, codec, method, types, body, limits)
}

/// Like [`decode_arguments`], with [`options`] that were changed.
///
/// # Errors
///
/// Those of [`decode`].
pub fn decode_arguments_with(
    options: Options,
    codec: CodecId,
    method: &Method,
    types: &Types,
    body: &[u8],
    limits: &DecodeLimits,
) -> Result<Value, DecodeError> {
    let seed = ArgumentsSeed::new(method, types, options);
    with_codec!(
        codec,
        C => C::decode_seed(seed, body, limits),
        other => Err(DecodeError::unsupported(other))
    )
}

#[cfg(test)]
mod tests {
    use iip_schema::Argument;
    use serde_json::json;

    use super::*;
    use crate::arguments::{Arguments, FromArguments};
    use crate::method::MethodDescriptor;

    #[test]
    fn arguments_by_description_are_those_of_the_generated_client() {
        let types = Types::new();
        let mut method = Method::new("add", "/m/add");
        method.args.push(Argument::new("left", Type::I64));
        method
            .args
            .push(Argument::new("right", Type::option(Type::Text)));
        let descriptor = MethodDescriptor::new("m", "add", "/m/add", &["left", "right"]);
        let limits = DecodeLimits::new();
        for codec in CodecId::supported() {
            let Some(_) = options(codec) else { continue };
            let (mut typed, mut dynamic) = (BytesMut::new(), BytesMut::new());
            let args = (-7i64, None::<String>);
            args.encode(&descriptor, codec, &mut typed).unwrap();
            let value = json!({"left": -7});
            encode_arguments(codec, &method, &types, &value, &mut dynamic).unwrap();
            assert_eq!(typed, dynamic, "{codec}");
            let read = decode_arguments(codec, &method, &types, &typed, &limits).unwrap();
            assert_eq!(read, json!({"left": -7, "right": null}), "{codec}");
            let body = dynamic.freeze();
            let read = <(i64, Option<String>)>::decode(&descriptor, codec, &body, &limits);
            assert_eq!(read.unwrap(), args, "{codec}");
        }
    }

    #[test]
    fn a_value_by_description_is_that_of_its_type() {
        let types = Types::new();
        let ty = Type::seq(Type::option(Type::I16));
        for codec in CodecId::supported() {
            let mut out = BytesMut::new();
            let value = json!([1, null, -300]);
            let encoded = encode(codec, &ty, &types, &value, &mut out);
            if options(codec).is_none() {
                encoded.unwrap_err();
                continue;
            }
            encoded.unwrap();
            let mut typed = BytesMut::new();
            encode_value(codec, &[Some(1i16), None, Some(-300)].to_vec(), &mut typed).unwrap();
            assert_eq!(out, typed);
            let read = decode(codec, &ty, &types, &out, &DecodeLimits::new()).unwrap();
            assert_eq!(read, value);
        }
    }
}
