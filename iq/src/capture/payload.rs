//! Decoding and blanking of payloads by the description of the method.

use bytes::BytesMut;
use iip_rpc::codec::{CodecId, DecodeLimits, dynamic};
use serde_json::Value;

use super::described::{Described, Part};

/// The result of blanking the secrets of a payload.
#[derive(Debug, PartialEq)]
pub(crate) enum Blanked {
    /// The payload has no secrets, and may be kept unchanged.
    AsItIs,
    /// The same value with blanked secrets.
    Changed(bytes::Bytes),
    /// The payload cannot be decoded, so its secrets cannot be found.
    Unknown,
}

impl Described<'_> {
    /// Decodes a part to JSON, with secrets blanked. Returns `None` if its type is not known, or
    /// the bytes are not a value of the type.
    pub(crate) fn decode(&self, part: Part, codec: CodecId, body: &[u8]) -> Option<Value> {
        let options = dynamic::options(codec).filter(|_| !self.is_raw())?;
        let (options, limits) = (options.blank_secrets(true), DecodeLimits::new());
        let types = &self.service.types;
        let decoded = match self.ty(part) {
            Some(ty) => dynamic::decode_with(options, codec, &ty, types, body, &limits),
            None if part == Part::Arguments => {
                let method = self.method;
                dynamic::decode_arguments_with(options, codec, method, types, body, &limits)
            }
            None => return None,
        };
        decoded.ok()
    }

    fn encode(&self, part: Part, codec: CodecId, value: &Value) -> Option<bytes::Bytes> {
        let (types, mut out) = (&self.service.types, BytesMut::new());
        match self.ty(part) {
            Some(ty) => dynamic::encode(codec, &ty, types, value, &mut out).ok()?,
            None => {
                dynamic::encode_arguments(codec, self.method, types, value, &mut out).ok()?;
            }
        }
        Some(out.freeze())
    }

    /// Blanks the secrets of a part. Its codec stays the same.
    pub(crate) fn blank(&self, part: Part, codec: CodecId, body: &[u8]) -> Blanked {
        if !self.has_secrets(part) {
            return Blanked::AsItIs;
        }
        let value = self.decode(part, codec, body);
        match value.and_then(|value| self.encode(part, codec, &value)) {
            Some(bytes) => Blanked::Changed(bytes),
            None => Blanked::Unknown,
        }
    }
}
