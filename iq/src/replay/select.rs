//! The selection of the calls that are made again.

use std::collections::BTreeMap;

use iip_rpc::codec::CodecId;

use super::calls::Call;
use crate::capture::{Body, Described, Part};

/// The reason why a call is not made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    NotIdempotent,
    NotDescribed,
    NoReply,
    Incomplete,
    LeftOut,
    TooLarge,
    Unreadable,
}

impl Reason {
    /// Returns the name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotIdempotent => "not_idempotent",
            Self::NotDescribed => "not_described",
            Self::NoReply => "no_reply",
            Self::Incomplete => "incomplete",
            Self::LeftOut => "payload_left_out",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
        }
    }

    /// Returns the reason in words, to follow a number of calls.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NotIdempotent => "not marked as idempotent (--force makes them)",
            Self::NotDescribed => {
                "without a description that marks them as idempotent (--force makes them)"
            }
            Self::NoReply => "without a recorded reply",
            Self::Incomplete => "with records that the recorder has dropped",
            Self::LeftOut => "with a payload that was not recorded",
            Self::TooLarge => "with more than 64 MiB of messages",
            Self::Unreadable => "whose messages cannot be written in JSON",
        }
    }
}

/// The numbers of calls that were left out.
pub(super) type LeftOut = BTreeMap<Reason, u64>;

/// Returns the reason for leaving out a call, if there is one.
pub(super) fn reason(call: &Call, described: Option<Described<'_>>, force: bool) -> Option<Reason> {
    let is_idempotent = described.is_some_and(|described| described.method.idempotent);
    if !force && !is_idempotent {
        return Some(match described {
            Some(_) => Reason::NotIdempotent,
            None => Reason::NotDescribed,
        });
    }
    let request = &call.request;
    if call.is_too_large {
        return Some(Reason::TooLarge);
    }
    if call.reply.as_ref().is_some_and(|reply| reply.incomplete) {
        return Some(Reason::Incomplete);
    }
    // A cancelled stream is compared up to the cancellation.
    let is_cut = call.cancelled && request.stream;
    let has_reply = match is_cut {
        true => !call.messages.is_empty(),
        false => call.reply.is_some() || request.one_way,
    };
    if !has_reply {
        return Some(Reason::NoReply);
    }
    let reply = call.reply.iter().map(|reply| &reply.body);
    let messages = call.requests.iter().chain(&call.messages);
    let mut bodies = messages.chain(reply).chain([&request.body]);
    if bodies.any(|body| body.bytes.is_none()) {
        return Some(Reason::LeftOut);
    }
    // Streams are sent in JSON.
    (request.stream && !is_json(call, described)).then_some(Reason::Unreadable)
}

/// Returns `true` if all that the client sent can be decoded.
fn is_json(call: &Call, described: Option<Described<'_>>) -> bool {
    let codec = CodecId::new(call.request.codec);
    let decodes = |part, body: &Body| {
        let bytes = body.bytes.as_deref().unwrap_or_default();
        described.is_some_and(|described| described.decode(part, codec, bytes).is_some())
    };
    decodes(Part::Arguments, &call.request.body)
        && call
            .requests
            .iter()
            .all(|body| decodes(Part::Request, body))
}
