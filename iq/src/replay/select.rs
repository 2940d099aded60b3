//! Which calls are made again.

use std::collections::BTreeMap;

use iip_rpc::codec::CodecId;

use super::calls::Call;
use crate::capture::{Body, Described};

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
    /// The name for programs.
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

    /// The reason in words, after a number of calls.
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
    // Replies to calls that were cancelled are compared up to there.
    let has_messages = call.cancelled && !call.messages.is_empty();
    if call.reply.is_none() && !request.one_way && !has_messages {
        return Some(Reason::NoReply);
    }
    let mut sent = [&request.body].into_iter().chain(&call.requests);
    if sent.any(|body| body.bytes.is_none()) {
        return Some(Reason::LeftOut);
    }
    let is_readable = described.is_some_and(|described| !described.is_raw());
    let needs_json = request.stream || request.codec == CodecId::JSON.as_u8();
    let is_unreadable = request.stream && !is_readable
        || is_readable && needs_json && !is_json(call, described)
        || described.is_none() && request.stream;
    is_unreadable.then_some(Reason::Unreadable)
}

/// Returns `true` if all that the client sent is known.
fn is_json(call: &Call, described: Option<Described<'_>>) -> bool {
    use crate::capture::Part;

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
