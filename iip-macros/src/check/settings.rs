//! The rules for the settings of a method, and for what cannot be combined with them.

use syn::Type;

use super::replies;
use crate::{
    attr,
    errors::Errors,
    model::{Kind, MethodDef},
    types::{display_type, is_called_result, peel},
};

/// Rejects conditional settings, and settings that contradict each other.
pub(super) fn attributes(method: &MethodDef<'_>, errors: &mut Errors) {
    for attr in &method.syntax.attrs {
        if attr::conditional(attr)
            .iter()
            .any(|meta| meta.path().is_ident("rpc"))
        {
            errors.at(
                attr,
                "write `#[rpc(..)]` without a condition, or two methods with one `#[cfg(..)]` \
                 each: a method is the same in every build",
            );
        }
    }
    if let (Some(_), Some(json)) = (&method.settings.raw, &method.settings.json) {
        errors.at(json, "remove `json` or `raw`: a body cannot be both");
    } else if let (true, Some(json)) = (method.is_protobuf, &method.settings.json) {
        errors.at(
            json,
            "remove `json`, or move the method to a service with another codec: protobuf messages \
             have no JSON form",
        );
    }
    if let (Some((_, hedge)), false) = (&method.settings.hedge, method.settings.idempotent) {
        errors.at(
            hedge,
            "add `idempotent`, or remove `hedge`: a hedged call may run twice",
        );
    }
}

/// Rejects settings and types that cannot be combined with streams.
pub(super) fn streams(method: &MethodDef<'_>, errors: &mut Errors) {
    let (requests, replies) = (&method.requests, &method.replies);
    let subscribes = method.subscribes;
    if requests.is_none() && replies.is_none() && !subscribes {
        return;
    }
    if let (Some(requests), true) = (requests, subscribes) {
        errors.at(
            requests.ty,
            "remove the stream, or return `impl Stream`: a client that resumes a subscription \
             cannot send the messages again",
        );
    }
    if let Some(item) = replies {
        replies::decoded(item, errors);
    }
    if let Some(item) = replies
        && !is_called_result(item)
    {
        errors.at(
            item,
            format!(
                "write `Result<{}, Status>`: the connection can be lost between two messages",
                display_type(item)
            ),
        );
    }
    if subscribes && method.is_protobuf {
        errors.at(
            method.ident(),
            "return `impl Stream`, or move the method to a service with another codec: \
             the numbered values of a subscription are not protobuf messages",
        );
    }
    let settings = &method.settings;
    for setting in settings.raw.iter().chain(&settings.json) {
        errors.at(
            setting,
            "remove this or the stream: only an enveloped call can have streams",
        );
    }
}

/// Rejects settings and types that cannot be combined with a one-way call.
pub(super) fn one_way(method: &MethodDef<'_>, errors: &mut Errors) {
    let Some(oneway) = &method.settings.oneway else {
        return;
    };
    if matches!(method.kind, Kind::Raw | Kind::Stream | Kind::Subscription) {
        errors.at(
            oneway,
            "remove this, or `raw` and the streams: a one-way call is one enveloped message",
        );
        return;
    }
    if let Some(reply) = method.reply().filter(|ty| !is_nothing(ty)) {
        errors.at(
            reply,
            "write `()`, or remove `oneway`: a one-way method has no reply",
        );
    }
    if let Some((_, on_cancel)) = &method.settings.on_cancel {
        errors.at(
            on_cancel,
            "remove `on_cancel`: no caller waits for a one-way call, so it always runs to its end",
        );
    }
    if let Some((_, hedge)) = &method.settings.hedge {
        errors.at(hedge, "remove `hedge`: a one-way call has no reply");
    }
}

fn is_nothing(ty: &Type) -> bool {
    matches!(peel(ty), Type::Tuple(tuple) if tuple.elems.is_empty())
}
