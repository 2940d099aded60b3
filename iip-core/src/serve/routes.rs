//! The routes of a server: the handlers by path, and the reasons to reject a call.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::incoming::Kind;
use crate::cancel::OnCancel;
use crate::connection::Shared;
use crate::handler::{Handler, RequestMode};
use crate::handler_error::RejectReason;
use crate::proto::RequestPath;
use crate::totals::{Counted, Places, Share};

/// The state shared by all connections of a server.
pub(crate) struct Routes {
    pub(crate) handlers: HashMap<Box<[u8]>, Arc<dyn Handler>>,
    pub(crate) fallback: Option<Arc<dyn Handler>>,
    pub(crate) shutting_down: AtomicBool,
}

impl Routes {
    pub(super) fn find(&self, path: &Arc<RequestPath>) -> Option<Route> {
        let fallback = || {
            // Handlers get the path as text; the paths of routes are text already.
            let is_text = std::str::from_utf8(&path.label).is_ok();
            self.fallback.as_ref().filter(|_| is_text)
        };
        let handler = self.handlers.get(&path.label[..]).or_else(fallback)?;
        Some(Route {
            path: Arc::clone(path),
            handler: Arc::clone(handler),
            policy: handler.on_cancel(),
            request_mode: handler.request_mode(),
            places: handler.places().cloned(),
        })
    }

    #[inline]
    pub(super) fn reject_reason(&self, shared: &Shared) -> Option<RejectReason> {
        if self.shutting_down.load(Ordering::Relaxed) {
            return Some(RejectReason::ShuttingDown);
        }
        shared.share.as_ref().and_then(Share::reject_reason)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("handlers", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

/// A path with its handler and the handler's settings.
pub(super) struct Route {
    pub(super) path: Arc<RequestPath>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) policy: OnCancel,
    pub(super) request_mode: RequestMode,
    /// The separate counter of the handler's running calls, if it has one.
    places: Option<Arc<Places>>,
}

impl Route {
    /// Returns the reason to reject a call of this kind, if there is one. `reason` is that of the
    /// server for any call.
    #[inline]
    pub(super) fn reject_reason(
        &self,
        shared: &Shared,
        kind: Kind,
        reason: Option<RejectReason>,
    ) -> Option<RejectReason> {
        // A handler with places of its own is limited by them alone, but not run during a shutdown.
        let reason = match &self.places {
            None => reason,
            Some(places) => reason
                .filter(|reason| *reason == RejectReason::ShuttingDown)
                .or_else(|| places.reject_reason()),
        };
        reason.or_else(|| match kind {
            Kind::Stream { .. } if self.request_mode != RequestMode::Stream => {
                Some(RejectReason::NoStream)
            }
            Kind::Stream { is_busy: true } => {
                let limit = shared.lock().proto.limits().get_max_calls();
                Some(RejectReason::ConnectionBusy { limit })
            }
            _ => None,
        })
    }

    /// Returns the way a call counts among the running ones, and the way it counts once its handler
    /// has started, if that is later.
    #[inline]
    pub(super) fn counted(&self, kind: Kind) -> (Counted, Option<Counted>) {
        let counted = match &self.places {
            Some(places) => Counted::Apart(Arc::clone(places)),
            None => Counted::Now,
        };
        if matches!(kind, Kind::Stream { .. }) && self.handler.starts_late() {
            (Counted::Late, Some(counted))
        } else {
            (counted, None)
        }
    }
}
