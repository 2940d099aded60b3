//! Conversion of the messages of calls into records. Pure.

use bytes::{Bytes, BytesMut};
use iip_rpc::codec::{CodecId, DecodeLimits};
use iip_rpc::compression::{CompressionId, decompress};
use iip_rpc::envelope::{
    Outcome as ReplyOutcome, PlainError, ReplyHead, RequestHead, ServerTiming, is_envelope,
    read_status,
};
use iip_rpc::{Code, Metadata, Status};
use serde_json::value::RawValue;

use super::filter::{Filter, MAX_BYTES, Payload, TOO_LARGE};
use crate::capture::{Body, Described, Outcome, Part, Reply, Request};

/// Number of bytes of a message that are kept in a recording without payloads: enough for its head.
const HEAD_BYTES: usize = 32 * 1024;

/// A message that arrives in frames.
#[derive(Debug, Default)]
pub(super) struct Collected {
    first: Bytes,
    more: BytesMut,
    /// The number of bytes that have arrived.
    size: usize,
    limit: usize,
}

impl Collected {
    pub(super) fn new(payloads: bool) -> Self {
        Self {
            limit: if payloads { MAX_BYTES } else { HEAD_BYTES },
            ..Self::default()
        }
    }

    /// Adds a frame. Bytes beyond the limit are only counted.
    pub(super) fn add(&mut self, mut body: Bytes) {
        let room = self.limit.saturating_sub(self.kept());
        self.size = self.size.saturating_add(body.len());
        body.truncate(room);
        if self.first.is_empty() {
            self.first = body;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&body);
    }

    /// Returns the number of bytes in memory.
    pub(super) fn kept(&self) -> usize {
        self.more.len().max(self.first.len())
    }

    fn is_whole(&self) -> bool {
        self.size == self.kept()
    }

    pub(super) fn bytes(self) -> Bytes {
        match self.more.is_empty() {
            true => self.first,
            false => self.more.freeze(),
        }
    }
}

/// The form of the request of a call, which is needed to read its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) codec: CodecId,
    /// Set if the request had no envelope.
    pub(super) plain: bool,
}

/// Reads a request into `request`, whose call, connection and time are set already.
pub(super) fn request(
    request: &mut Request,
    message: Collected,
    described: Option<Described<'_>>,
    filter: &Filter,
) -> (Form, Payload) {
    let (size, whole, bytes) = (message.size, message.is_whole(), message.bytes());
    let mut payload = Payload {
        size,
        codec: CodecId::RAW,
        compression: CompressionId::NONE,
        part: Some(Part::Arguments),
        left_out: (!whole).then_some(TOO_LARGE),
        bytes: bytes.clone(),
    };
    let is_raw = described.is_some_and(|described| described.is_raw());
    let read = (!is_raw && is_envelope(&bytes)).then(|| RequestHead::read(bytes.clone()));
    match read {
        Some(Ok((head, arguments))) => {
            payload.size = size - (bytes.len() - arguments.len());
            payload.bytes = arguments;
            payload.codec = head.codec;
            payload.compression = head.compression;
            request.remaining = head.remaining.map(micros);
            request.metadata = filter.metadata(&head.metadata);
        }
        _ => {
            request.plain = true;
            if described.is_some() && !is_raw {
                payload.codec = CodecId::JSON;
            }
        }
    }
    request.codec = payload.codec.as_u8();
    let form = Form {
        codec: payload.codec,
        plain: request.plain,
    };
    (form, payload)
}

/// Reads the metadata with which a method accepts a call with streams.
pub(super) fn accepted(
    compression: CompressionId,
    record: Bytes,
    filter: &Filter,
) -> Vec<(String, Bytes)> {
    let record = decompress(compression, record, &DecodeLimits::new()).ok();
    let head = record.and_then(|record| ReplyHead::read(record).ok());
    head.map_or_else(Vec::new, |(head, _)| filter.metadata(&head.metadata))
}

/// Reads a reply.
pub(super) fn reply(
    call: u64,
    at: u64,
    message: Collected,
    form: Form,
    accepted: bool,
    filter: &Filter,
) -> (Reply, Payload) {
    let (size, whole, bytes) = (message.size, message.is_whole(), message.bytes());
    let read = (!form.plain && is_envelope(&bytes)).then(|| ReplyHead::read(bytes.clone()));
    let (head, body) = match read {
        Some(Ok((head, body))) => (Some(head), body),
        _ => (None, bytes.clone()),
    };
    let mut payload = Payload {
        size: size - (bytes.len() - body.len()),
        bytes: body,
        codec: form.codec,
        compression: CompressionId::NONE,
        part: Some(Part::Result),
        left_out: (!whole).then_some(TOO_LARGE),
    };
    let mut reply = Reply {
        call,
        at,
        outcome: Outcome::Value,
        codec: 0,
        timing: None,
        metadata: Vec::new(),
        body: Body::default(),
        accepted,
        incomplete: false,
    };
    let error = Part::error(accepted);
    match head {
        Some(head) => {
            payload.codec = head.codec;
            payload.compression = head.compression;
            reply.timing = head
                .timing
                .map(|ServerTiming { queue, handler }| (micros(queue), micros(handler)));
            reply.metadata = filter.metadata(&head.metadata);
            match head.outcome {
                ReplyOutcome::Value => {}
                ReplyOutcome::Error => {
                    (reply.outcome, payload.part) = (Outcome::Error, Some(error));
                }
                ReplyOutcome::Status => status(&mut reply, &mut payload, filter),
            }
        }
        None => plain(&mut reply, &mut payload, error, filter),
    }
    reply.codec = payload.codec.as_u8();
    (reply, payload)
}

/// Reads the body of a reply that is a status.
fn status(reply: &mut Reply, payload: &mut Payload, filter: &Filter) {
    let first = payload.bytes.first().copied();
    match read_status(payload.bytes.clone(), Metadata::new()) {
        Ok(status) => failed(reply, payload, &status, filter),
        // The code can be read even if the rest was too large.
        Err(_) => {
            reply.outcome = Outcome::Status {
                code: first
                    .and_then(Code::from_u8)
                    .unwrap_or(Code::Unknown)
                    .as_u8(),
                message: String::new(),
            };
            details(payload, Bytes::new());
        }
    }
}

fn failed(reply: &mut Reply, payload: &mut Payload, status: &Status, filter: &Filter) {
    let message = match filter.payloads() {
        true => status.message().to_owned(),
        false => String::new(),
    };
    reply.outcome = Outcome::Status {
        code: status.code().as_u8(),
        message,
    };
    details(payload, status.details().clone());
}

/// Makes the details of a status the payload. They have no codec and no part.
fn details(payload: &mut Payload, details: Bytes) {
    payload.size = details.len();
    payload.bytes = details;
    payload.codec = CodecId::RAW;
    payload.part = None;
}

/// Reads a reply without an envelope.
fn plain(reply: &mut Reply, payload: &mut Payload, error: Part, filter: &Filter) {
    let Some(plain) = PlainError::read(&payload.bytes) else {
        return;
    };
    if plain.error.is_none() {
        return failed(reply, payload, &plain.into_status(), filter);
    }
    let own = serde_json::from_slice::<PlainError<&RawValue>>(&payload.bytes);
    let own = own.ok().and_then(|plain| plain.error);
    let own = own.map(|own| payload.bytes.slice_ref(own.get().as_bytes()));
    (reply.outcome, payload.part) = (Outcome::Error, Some(error));
    payload.codec = CodecId::JSON;
    payload.bytes = own.unwrap_or_default();
    payload.size = payload.bytes.len();
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
