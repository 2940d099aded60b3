//! The arguments of a call and its result: the part of a call that depends on the types of its
//! method.

use bytes::{Bytes, BytesMut};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};

use crate::arguments::Arguments;
#[cfg(feature = "codec-prost")]
use crate::codec::Proto;
use crate::codec::{CodecId, DecodeError, DecodeLimits, EncodeError, decode_value};
use crate::envelope;
use crate::interceptor::Outcome;
use crate::method::MethodDescriptor;
use crate::status::{MethodError, Status};

/// Failure of a call.
#[derive(Debug)]
pub(super) enum Failure {
    /// The method's own error, which the body of the call holds: the call has run.
    Own,
    /// Any other failure.
    Status(Status),
}

impl Failure {
    /// The status of a call that has no errors of its own.
    pub(super) fn into_status(self) -> Status {
        match self {
            Self::Own => missing(),
            Self::Status(status) => status,
        }
    }
}

#[cold]
fn missing() -> Status {
    Status::internal("the reply of the call was not kept")
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// A part of a reply that is decoded to a type of the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyPart {
    Value,
    /// The method's own error.
    Error,
    /// The same within a message in plain JSON.
    PlainError,
}

impl ReplyPart {
    pub(super) fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::Value => Ok(()),
            Self::Error | Self::PlainError => Err(Failure::Own),
        }
    }
}

/// The arguments of a call, and its result once it has one.
pub(super) trait CallBody: Send {
    /// Appends the arguments to `out`, except for a large payload at their end, which may be
    /// returned instead.
    fn encode(
        &self,
        method: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError>;

    /// Drops the arguments: the call will not be retried.
    fn release(&mut self);

    /// Decodes the value or the error of a reply, and keeps it.
    fn read(
        &mut self,
        part: ReplyPart,
        codec: CodecId,
        data: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError>;

    /// The method's own error, for interceptors.
    fn error(&self) -> Option<Outcome>;
}

/// The outcome of a call for its interceptors.
pub(super) fn outcome(body: &dyn CallBody, result: &Result<(), Failure>) -> Outcome {
    match result {
        Ok(()) => Outcome::Ok,
        Err(Failure::Own) => body.error().unwrap_or(Outcome::Ok),
        Err(Failure::Status(status)) => Outcome::Status(status.clone()),
    }
}

/// The value of a final reply.
pub(super) trait ReplyValue: Sized + Send {
    fn read(codec: CodecId, data: &Bytes, limits: &DecodeLimits) -> Result<Self, DecodeError>;

    /// Decodes the method's own error.
    fn read_error<E: MethodError>(
        codec: CodecId,
        data: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<E, DecodeError> {
        decode_value(codec, data, limits)
    }
}

/// The result of a method.
pub(super) struct Value<T>(T);

impl<T: DeserializeOwned + Send + 'static> ReplyValue for Value<T> {
    fn read(codec: CodecId, data: &Bytes, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        decode_value(codec, data, limits).map(Self)
    }
}

/// The result of a method as it is encoded.
pub(super) struct Encoded(Bytes);

impl ReplyValue for Encoded {
    fn read(codec: CodecId, data: &Bytes, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        limits.check_size(data)?;
        if codec == CodecId::JSON {
            serde_json::from_slice::<IgnoredAny>(data).map_err(DecodeError::custom)?;
        }
        Ok(Self(data.clone()))
    }

    fn read_error<E: MethodError>(
        codec: CodecId,
        data: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<E, DecodeError> {
        if codec == CodecId::JSON {
            return decode_value(codec, data, limits);
        }
        limits.check_size(data)?;
        let status = Status::unknown(format!("the method's own error, in {codec}"));
        Ok(status.with_details(data.clone()).into())
    }
}

/// The value of the final reply after a stream: none.
pub(super) struct EndOfStream;

impl ReplyValue for EndOfStream {
    fn read(codec: CodecId, data: &Bytes, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        #[cfg(feature = "codec-prost")]
        if codec == CodecId::PROTOBUF {
            return decode_value::<Proto<()>>(codec, data, limits).map(|_| Self);
        }
        decode_value(codec, data, limits).map(|()| Self)
    }
}

/// The arguments of a call, and its value or the method's own error.
pub(super) struct Body<A, V, E> {
    args: Option<A>,
    value: Option<V>,
    error: Option<E>,
}

/// The body of a call with a typed reply.
pub(super) type TypedBody<A, T, E> = Body<A, Value<T>, E>;

/// The body of a call whose result is passed on as it is encoded.
pub(super) type EncodedBody<A, E> = Body<A, Encoded, E>;

/// The body of a call whose reply is a stream.
pub(super) type StreamBody<A, E> = Body<A, EndOfStream, E>;

impl<A, V, E: MethodError> Body<A, V, E> {
    pub(super) fn new(args: A) -> Self {
        Self {
            args: Some(args),
            value: None,
            error: None,
        }
    }

    /// The error for the caller of a call that failed.
    pub(super) fn into_error(self, failure: Failure) -> E {
        match (failure, self.error) {
            (Failure::Own, Some(error)) => error,
            (failure, _) => failure.into_status().into(),
        }
    }
}

impl<A, T, E: MethodError> TypedBody<A, T, E> {
    /// The result for the caller.
    pub(super) fn into_result(self, outcome: Result<(), Failure>) -> Result<T, E> {
        match outcome {
            Ok(()) => match self.value {
                Some(Value(value)) => Ok(value),
                None => Err(missing().into()),
            },
            Err(failure) => Err(self.into_error(failure)),
        }
    }
}

impl<A, E: MethodError> EncodedBody<A, E> {
    /// The result for the caller.
    pub(super) fn into_encoded(self, outcome: Result<(), Failure>) -> Result<Bytes, E> {
        match outcome {
            Ok(()) => match self.value {
                Some(Encoded(value)) => Ok(value),
                None => Err(missing().into()),
            },
            Err(failure) => Err(self.into_error(failure)),
        }
    }
}

impl<A, V, E> CallBody for Body<A, V, E>
where
    A: Arguments + Send,
    V: ReplyValue,
    E: MethodError,
{
    fn encode(
        &self,
        method: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        match &self.args {
            Some(args) => args.encode_split(method, codec, out),
            None => Ok(None),
        }
    }

    fn release(&mut self) {
        self.args = None;
    }

    fn read(
        &mut self,
        part: ReplyPart,
        codec: CodecId,
        data: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        match part {
            ReplyPart::Value => self.value = Some(V::read(codec, data, limits)?),
            ReplyPart::Error => self.error = Some(V::read_error(codec, data, limits)?),
            ReplyPart::PlainError => self.error = Some(envelope::read_plain_error(data, limits)?),
        }
        Ok(())
    }

    fn error(&self) -> Option<Outcome> {
        self.error.as_ref().map(Outcome::of_error)
    }
}

/// The reply to a call of raw bytes, which are passed through.
#[derive(Default)]
pub(super) struct RawReply(Bytes);

impl RawReply {
    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl CallBody for RawReply {
    fn encode(
        &self,
        _: &MethodDescriptor,
        codec: CodecId,
        _: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        Err(EncodeError::unsupported(codec))
    }

    fn release(&mut self) {}

    fn read(
        &mut self,
        _: ReplyPart,
        _: CodecId,
        data: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        limits.check_size(data)?;
        self.0 = data.clone();
        Ok(())
    }

    fn error(&self) -> Option<Outcome> {
        None
    }
}
