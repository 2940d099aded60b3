//! JSON in which integers of 64 and 128 bits are strings. The conversion needs the types, because
//! other strings may look the same.

use bytes::Bytes;
use iip_rpc::schema::Type;
use iip_rpc::schema::dynamic::{DynamicSeed, DynamicValue, Layout, MethodArguments, Options};
use serde::de::DeserializeSeed;
use serde_json::Value;

use super::catalog::Found;
use crate::failure::Failure;

fn options() -> Options {
    // A backend with another build may know more fields.
    Options::new(Layout::Named)
        .allow_unknown(true)
        .wide_as_text(true)
}

/// Converts arguments of a client for the backend: strings become integers.
pub(super) fn read_arguments(found: &Found, arguments: &[u8]) -> Result<Bytes, Failure> {
    let value = parse(arguments)?;
    let arguments = MethodArguments::new(found.method(), found.types(), &value, options());
    let arguments = serde_json::to_vec(&arguments);
    arguments
        .map(Bytes::from)
        .map_err(|error| Failure::invalid(error.to_string()))
}

/// Converts a message of a client for the backend.
pub(super) fn read_message(found: &Found, message: &[u8]) -> Result<Bytes, Failure> {
    let value = parse(message)?;
    let ty = found.method().requests.as_ref().unwrap_or(&Type::Unit);
    let message = serde_json::to_vec(&DynamicValue::new(ty, found.types(), &value, options()));
    message
        .map(Bytes::from)
        .map_err(|error| Failure::invalid(error.to_string()))
}

/// Converts a value of the backend for a client: integers become strings. A value that is not of
/// the described type, because its backend has another build, is passed on unchanged.
pub(super) fn write(found: &Found, ty: &Type, value: &str) -> Option<Value> {
    let mut json = serde_json::Deserializer::from_str(value);
    let seed = DynamicSeed::new(ty, found.types(), options());
    seed.deserialize(&mut json).ok()
}

fn parse(json: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(json)
        .map_err(|error| Failure::invalid(format!("the arguments are not JSON: {error}")))
}
