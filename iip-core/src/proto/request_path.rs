//! The path field of a request, parsed.

use std::borrow::Cow;

use bytes::Bytes;

use super::control;
use crate::frame::MAX_PATH_BYTES;
use crate::path::{check_label, label_and_query};

/// The label of a reply if the path of the request cannot be encoded.
pub(super) const SAFE_LABEL: &[u8] = b"/";

const _: () = assert!(SAFE_LABEL.len() <= MAX_PATH_BYTES);

/// A path field, parsed.
#[derive(Debug, Default)]
pub(crate) struct RequestPath {
    pub(super) raw: Bytes,
    /// The path, decoded and without query: it selects the handler and is the label of the reply.
    pub(crate) label: Bytes,
    pub(crate) query: Bytes,
    pub(super) kind: PathKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum PathKind {
    /// The path is for the layer above.
    Handlers,
    /// The path is one of the protocol's own.
    Reserved,
    /// The path cannot be the label of a reply.
    #[default]
    Unfit,
}

impl RequestPath {
    pub(super) fn read(raw: &Bytes) -> Self {
        let (label, query) = split_path(raw);
        let kind = match check_label(&label) {
            Err(_) => PathKind::Unfit,
            Ok(()) if is_reserved(&label) => PathKind::Reserved,
            Ok(()) => PathKind::Handlers,
        };
        Self {
            raw: raw.clone(),
            label,
            query,
            kind,
        }
    }

    /// Returns `true` if this is one of the library's own services, such as health.
    pub(crate) fn is_own_service(&self) -> bool {
        self.label.starts_with(b"/sys/")
    }

    /// Returns `true` if the layer above handles this path.
    pub(super) fn is_for_handlers(&self) -> bool {
        self.kind == PathKind::Handlers
    }

    /// Returns the label of the reply.
    pub(super) fn safe_label(&self) -> &[u8] {
        if self.kind == PathKind::Unfit {
            SAFE_LABEL
        } else {
            &self.label
        }
    }
}

/// Returns label and query of a path field; both share its buffer unless an escape had to be
/// decoded.
fn split_path(raw: &Bytes) -> (Bytes, Bytes) {
    let parsed = label_and_query(raw);
    let label = match parsed.label {
        Cow::Borrowed(label) => raw.slice_ref(label),
        Cow::Owned(label) => Bytes::from(label),
    };
    (label, raw.slice_ref(parsed.query))
}

// The control stream is not among them: `begin_request` recognizes it when it begins.
fn is_reserved(label: &[u8]) -> bool {
    label.starts_with(b"/sys/")
        && [
            control::NEW_CHANNEL,
            control::DELETE_CHANNEL,
            control::HELLO,
            control::PING,
        ]
        .iter()
        .any(|path| path.as_bytes() == label)
}
