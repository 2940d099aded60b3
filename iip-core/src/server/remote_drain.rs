//! The path on which peers ask a server to shut down.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use serde_json::json;

use super::Inner;
use crate::body::Body;
use crate::connection::{Peer, ReplyStream};
use crate::handler::{Handler, HandlerFuture, Request, RequestMode, Response};
use crate::handler_error::{HandlerError, RejectReason};
use crate::proto::control;
use crate::stats::PERMISSION_DENIED;
use crate::totals::Places;

/// The path.
pub(super) const DRAIN: &str = "/sys/drain";

/// The time between two looks at the calls that still run.
const PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of peers that wait for the end at the same time.
const MAX_WAITING: usize = 16;

/// The shutdown that peers may ask for, and the check of those who ask.
pub(super) struct RemoteDrain {
    limit: Duration,
    may_drain: Box<dyn Fn(&Peer) -> bool + Send + Sync>,
    inner: OnceLock<Weak<Inner>>,
    begun: AtomicBool,
    /// Requests for the end do not count among the calls that it waits for.
    places: Arc<Places>,
}

impl RemoteDrain {
    pub(super) fn new(
        limit: Duration,
        may_drain: impl Fn(&Peer) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            limit,
            may_drain: Box::new(may_drain),
            inner: OnceLock::new(),
            begun: AtomicBool::new(false),
            places: Arc::new(Places::new("drain_on_request", MAX_WAITING)),
        })
    }

    /// Sets the server, once.
    pub(super) fn begin(&self, inner: &Arc<Inner>) {
        let _ = self.inner.set(Arc::downgrade(inner));
    }

    /// Begins the shutdown, and tells how many calls run until none does.
    async fn serve(self: Arc<Self>, mut request: Request) -> Result<Response, HandlerError> {
        let peer = request.peer();
        if !(self.may_drain)(peer) {
            let text = "this peer may not drain the server (option drain_on_request)";
            return Ok(
                Response::from(error(PERMISSION_DENIED, text)).with_status_code(PERMISSION_DENIED)
            );
        }
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else {
            return Err(HandlerError::new(
                "the server has not started yet, or has ended",
            ));
        };
        if !self.begun.swap(true, Ordering::Relaxed) {
            let (inner, limit) = (Arc::clone(&inner), self.limit);
            tracing::info!(peer = ?peer.addr(), ?limit, "the server was asked to drain");
            tokio::spawn(async move { inner.shutdown(limit).await });
        }
        let reply = request.reply();
        // The handler takes requests in parts, so there always is one.
        let reply = reply.ok_or_else(|| HandlerError::new("the reply has begun already"))?;
        self.tell(&inner, reply).await?;
        Ok(Response::streamed())
    }

    async fn tell(&self, inner: &Inner, mut reply: ReplyStream) -> Result<(), HandlerError> {
        let mut told = None;
        loop {
            let calls = inner.totals.running();
            if calls == 0 && inner.routes.shutting_down.load(Ordering::Relaxed) {
                return reply.finish(self.line(calls));
            }
            if told.replace(calls) != Some(calls) {
                reply.send(self.line(calls)).await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn line(&self, calls: usize) -> String {
        let limit = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        format!("{}\n", json!({"calls": calls, "limit_ms": limit}))
    }
}

fn error(code: u8, text: &str) -> Body {
    control::in_band_error(code.into(), text).into()
}

impl fmt::Debug for RemoteDrain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteDrain")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The handler of the path.
pub(super) struct PathHandler(pub(super) Arc<RemoteDrain>);

impl Handler for PathHandler {
    fn call(&self, request: Request) -> HandlerFuture {
        Box::pin(Arc::clone(&self.0).serve(request))
    }

    fn request_mode(&self) -> RequestMode {
        RequestMode::Parts
    }

    fn places(&self) -> Option<&Arc<Places>> {
        Some(&self.0.places)
    }

    fn reject(&self, reason: &RejectReason, _: bool) -> Body {
        error(reason.status_code(), &reason.to_string())
    }
}
