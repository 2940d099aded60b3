//! Replies: with a value, with an error, with a status.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use iip_core::__rpc::now;
use iip_core::{Body, Peer, RejectReason, Response};
use serde::Serialize;

use super::failures;
use crate::codec::{CodecId, DecodeLimits, EncodeError, encode_value_split};
use crate::compression::{Compression, Encoding};
use crate::context::CallContext;
use crate::envelope::{self, ReplyHead, ServerTiming};
use crate::hello::RpcPeer;
use crate::interceptor::Outcome;
use crate::limits::ENVELOPE_BYTES;
use crate::overload;
use crate::payload::ByValue;
use crate::status::{Execution, MethodError, Status};

/// The reply of a method to one call.
#[derive(Debug)]
pub(super) struct Reply {
    /// The outcome that interceptors see.
    pub(super) outcome: Outcome,
    pub(super) body: Result<Body, Status>,
    /// `true` if the failure was logged.
    pub(super) is_logged: bool,
    /// The times of a call that had to wait.
    pub(super) timing: Option<ServerTiming>,
}

impl Reply {
    pub(super) fn new(body: Body) -> Self {
        Self {
            outcome: Outcome::Ok,
            body: Ok(body),
            is_logged: false,
            timing: None,
        }
    }

    pub(super) fn failed(status: Status) -> Self {
        Self {
            outcome: Outcome::Status(status.clone()),
            body: Err(status),
            is_logged: false,
            timing: None,
        }
    }
}

/// A value or an error, without its type.
pub(super) trait Encode {
    /// Appends it to the buffer except for a large payload at its end, which it may return instead.
    fn encode(&self, codec: CodecId, out: &mut BytesMut) -> Result<Option<Bytes>, EncodeError>;
}

impl<T: Serialize + 'static> Encode for ByValue<T> {
    fn encode(&self, codec: CodecId, out: &mut BytesMut) -> Result<Option<Bytes>, EncodeError> {
        encode_value_split(codec, self, out)
    }
}

/// The error of a method, and whether the caller speaks plain JSON.
struct OwnError<'a, E> {
    error: &'a E,
    plain: bool,
}

impl<E: MethodError> Encode for OwnError<'_, E> {
    fn encode(&self, codec: CodecId, out: &mut BytesMut) -> Result<Option<Bytes>, EncodeError> {
        if self.plain {
            envelope::write_plain_error(self.error, out);
            return Ok(None);
        }
        encode_value_split(codec, self.error, out)
    }
}

/// The form of the reply to one call.
pub(super) struct ReplyForm<'a> {
    pub(super) ctx: &'a CallContext,
    pub(super) encoding: Encoding,
    /// `true` if the caller speaks plain JSON.
    pub(super) plain: bool,
    pub(super) timing: Option<ServerTiming>,
    pub(super) limits: &'a DecodeLimits,
}

impl ReplyForm<'_> {
    /// Creates the reply with a value.
    pub(super) fn value(&self, value: &dyn Encode) -> Reply {
        let encoded = self.encode(envelope::Outcome::Value, self.encoding.codec, value);
        self.reply(Outcome::Ok, encoded)
    }

    /// Encodes a value, or an error of the method.
    fn encode(
        &self,
        outcome: envelope::Outcome,
        codec: CodecId,
        content: &dyn Encode,
    ) -> Result<Body, Status> {
        // Taken once: if the value cannot be encoded, the status in its place goes without it.
        let metadata = self.ctx.take_reply_metadata();
        let is_value = outcome == envelope::Outcome::Value;
        Body::encode(|out| {
            if !self.plain {
                ReplyHead::write(codec, outcome, self.timing, &metadata, out);
            }
            let body = out.len();
            let tail = content.encode(codec, out);
            let what = if is_value { "result" } else { "error" };
            let tail = self.fitting(tail, what, codec, out.len() - body)?;
            if self.plain {
                if is_value {
                    envelope::set_apart_from_errors(out, body);
                }
                return Ok(tail);
            }
            let packer = self.encoding.packer.as_ref();
            Ok(envelope::pack_body(packer, out, 0, body, tail))
        })
    }

    /// Creates the reply with the error of a method.
    pub(super) fn error<E: MethodError>(&self, error: &E) -> Reply {
        let status = error.as_status();
        failures::log(self.ctx, status, error);
        match status {
            Some(status) if !self.plain => self.status(status),
            _ => {
                let codec = self.encoding.codec.of_errors();
                let plain = self.plain;
                let content = OwnError { error, plain };
                let encoded = self.encode(envelope::Outcome::Error, codec, &content);
                self.reply(Outcome::of_error(error), encoded)
            }
        }
    }

    fn status(&self, status: &Status) -> Reply {
        let outcome = Outcome::Status(status.clone());
        let mut status = status.clone();
        // The status of a call made by the handler: this handler itself has run. A status that the
        // handler created keeps its own mark.
        if status.is_of_a_call() {
            status = status.with_execution(Execution::MayHaveExecuted);
        }
        // Metadata that does not fit with that of the status is dropped, because the status matters
        // more.
        let _ = status
            .metadata_mut()
            .append_all(&self.ctx.take_reply_metadata());
        let codec = self.encoding.codec;
        let encoded = Body::encode(|out| {
            envelope::write_status_reply(codec, &status, self.timing, out);
            self.fitting(Ok(None), "error", codec, out.len())
        });
        self.reply(outcome, encoded)
    }

    #[inline]
    fn reply(&self, outcome: Outcome, encoded: Result<Body, Status>) -> Reply {
        match encoded {
            Ok(body) => Reply {
                outcome,
                timing: self.timing,
                ..Reply::new(body)
            },
            Err(status) => {
                let status = match self.ctx.method() {
                    Some(method) => status.in_method(method),
                    None => status,
                };
                failures::log(self.ctx, Some(&status), &status);
                Reply::failed(status)
            }
        }
    }

    /// The bytes that follow an encoded `what` of `size` bytes, if it could be encoded and is not
    /// too large.
    fn fitting(
        &self,
        encoded: Result<Option<Bytes>, EncodeError>,
        what: &str,
        codec: CodecId,
        size: usize,
    ) -> Result<Bytes, Status> {
        let tail = encoded
            .map_err(|error| cannot_encode(what, codec, &error))?
            .unwrap_or_default();
        let size = size + tail.len();
        if size > self.limits.body_bytes() {
            return Err(reply_too_large(size, self.limits));
        }
        Ok(tail)
    }
}

#[cold]
pub(super) fn reply_too_large(size: usize, limits: &DecodeLimits) -> Status {
    let limit = limits.message_bytes();
    Status::resource_exhausted(format!(
        "a reply of {size} bytes exceeds the server's limit of {limit} bytes (option \
         max_message_bytes)"
    ))
}

#[cold]
fn cannot_encode(what: &str, codec: CodecId, error: &EncodeError) -> Status {
    Status::internal(format!("cannot encode the {what} in {codec}: {error}"))
}

/// The encoding of a reply: in the codec of its request, and compressed as `wanted`, if the caller
/// can decompress it.
#[inline]
pub(super) fn encoding(
    codec: CodecId,
    wanted: Option<Compression>,
    peer: Option<&Peer>,
    limits: &DecodeLimits,
) -> Encoding {
    let packer = wanted.and_then(|wanted| {
        let peer = peer?.extension(RpcPeer::read)?;
        peer.packer(wanted, limits.body_bytes())
    });
    Encoding { codec, packer }
}

pub(super) fn timing(received: Instant, waited: Duration) -> ServerTiming {
    ServerTiming {
        queue: waited,
        handler: now().saturating_duration_since(received + waited),
    }
}

/// Returns `true` if the caller sent plain JSON. A caller whose request was skipped counts as
/// typed.
pub(super) fn is_plain(body: &Bytes) -> bool {
    !body.is_empty() && !envelope::is_envelope(body)
}

/// The reply that carries a status, in the format that the caller understands.
pub(super) fn status_reply(status: &Status, plain: bool) -> Body {
    let encoded = Body::encode(|out| {
        if plain {
            envelope::write_plain_status(status, out);
        } else {
            envelope::write_status_reply(CodecId::DEFAULT, status, None, out);
        }
        Ok::<_, EncodeError>(Bytes::new())
    });
    encoded.unwrap_or_default()
}

/// Like [`status_reply`], as the response of a handler.
pub(super) fn status_response(status: &Status, plain: bool) -> Response {
    let response = Response::from(status_reply(status, plain));
    response.with_status_code(status.code().as_u8())
}

/// The reply to a request that is not run, because of `reason`.
pub(super) fn reject(reason: &RejectReason, plain: bool, raw: bool) -> Body {
    rejected(&reject_status(reason), plain, raw)
}

/// The reply to a request that is not run.
pub(super) fn rejected(status: &Status, plain: bool, raw: bool) -> Body {
    if raw {
        return envelope::handler_failed(status.message());
    }
    status_reply(status, plain)
}

/// The status for the caller of a rejected call.
pub(super) fn reject_status(reason: &RejectReason) -> Status {
    let text = match *reason {
        // The limit as it was set, which does not count the envelope.
        RejectReason::TooLarge { size, limit } => RejectReason::TooLarge {
            size,
            limit: limit.saturating_sub(ENVELOPE_BYTES),
        }
        .to_string(),
        _ => reason.to_string(),
    };
    let status = match reason {
        RejectReason::ShuttingDown => Status::unavailable(text),
        RejectReason::NoStream => Status::unimplemented(text),
        RejectReason::Overloaded { .. } | RejectReason::ShareTaken { .. } => {
            overload::overloaded(text)
        }
        RejectReason::Unread { .. } => return Status::resource_exhausted(text),
        _ => Status::resource_exhausted(text),
    };
    status.with_execution(Execution::NotExecuted)
}
