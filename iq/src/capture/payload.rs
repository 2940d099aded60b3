//! The values in payloads, by description.

use bytes::BytesMut;
use iip_rpc::codec::{CodecId, DecodeLimits, dynamic};
use iip_rpc::schema::{MethodKind, Type};
use serde_json::Value;

use super::services::Described;

/// A part of a call that is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Arguments,
    /// A message of the client.
    Request,
    /// A message of the server.
    Message,
    /// The value of the reply.
    Result,
    /// The method's own error.
    Error,
    /// The error that ends a stream of replies.
    StreamError,
}

impl Part {
    /// The own error of a method that has accepted the stream, or has not.
    pub(crate) fn error(accepted: bool) -> Self {
        match accepted {
            true => Self::StreamError,
            false => Self::Error,
        }
    }

    pub(crate) const ALL: [Self; 6] = [
        Self::Arguments,
        Self::Request,
        Self::Message,
        Self::Result,
        Self::Error,
        Self::StreamError,
    ];
}

/// A payload without its secrets.
#[derive(Debug, PartialEq)]
pub(crate) enum Blanked {
    /// There are none: it may be kept as it is.
    AsItIs,
    /// The same value with blank secrets.
    Changed(bytes::Bytes),
    /// The secrets cannot be found.
    Unknown,
}

impl Described<'_> {
    /// The type of a part; `None` of the arguments, which have several.
    fn ty(&self, part: Part) -> Option<Type> {
        let method = self.method;
        match part {
            Part::Arguments => None,
            Part::Request => method.requests.clone(),
            Part::Message if method.kind == MethodKind::Subscription => {
                // Each value with its number.
                Some(Type::Tuple(vec![Type::U64, method.result.clone()]))
            }
            Part::Message => Some(method.result.clone()),
            Part::Result if self.streams_replies() => Some(Type::Unit),
            Part::Result => Some(method.result.clone()),
            Part::Error => method.error.clone(),
            Part::StreamError if self.streams_replies() => method.stream_error.clone(),
            Part::StreamError => method.error.clone(),
        }
    }

    /// Looks for secrets in the type of a part.
    pub(super) fn finds_secrets(&self, part: Part) -> bool {
        let types = &self.service.types;
        match part {
            Part::Arguments => {
                let mut args = self.method.args.iter();
                args.any(|argument| types.has_secrets(&argument.ty))
            }
            part => self.ty(part).is_some_and(|ty| types.has_secrets(&ty)),
        }
    }

    /// Decodes a part to JSON; `None` if it is not a value of its type, or if that is not known.
    /// Secrets are blank.
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

    /// Blanks the secrets of a part, which has the same codec afterwards.
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
