//! The contact with the client of a transfer.

use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Waker};
use std::time::Duration;

use iip_rpc::{CallContext, Status};
use tokio::time::{Instant, sleep_until, timeout};

use crate::sync::locked;

/// Time to wait for the end of the connection of an earlier writer, whose client may have been
/// restarted.
const NOTICE: Duration = Duration::from_secs(1);

/// Minimum time between two looks at a client that is not awaited.
const MIN_LOOK: Duration = Duration::from_millis(10);

/// The time of the last contact with a client.
#[derive(Debug)]
pub(super) struct Contact(Mutex<Last>);

#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    /// Set while the client has to act, and not the server.
    is_awaited: bool,
}

impl Contact {
    /// Begins with a contact, after which the client is awaited.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Last {
            at: Instant::now(),
            is_awaited: true,
        }))
    }

    /// Records contact, after which the client is awaited.
    pub(super) fn touch(&self) {
        *locked(&self.0) = Last {
            at: Instant::now(),
            is_awaited: true,
        };
    }

    /// Records that the client is awaited, from now on if it was not before.
    pub(super) fn wait(&self) {
        let mut last = locked(&self.0);
        if !last.is_awaited {
            *last = Last {
                at: Instant::now(),
                is_awaited: true,
            };
        }
    }

    /// Records that the client has acted, and is not awaited.
    pub(super) fn pause(&self) {
        locked(&self.0).is_awaited = false;
    }

    /// Returns `true` if the client has been awaited for this time.
    pub(super) fn is_silent(&self, limit: Duration) -> bool {
        let last = *locked(&self.0);
        last.is_awaited && last.at.elapsed() >= limit
    }

    /// Completes once the client has been awaited for this time, with the status for it.
    pub(super) async fn silence(&self, limit: Duration) -> Status {
        loop {
            let last = *locked(&self.0);
            let now = Instant::now();
            let next = if last.is_awaited {
                last.at.checked_add(limit)
            } else {
                now.checked_add(limit.max(MIN_LOOK))
            };
            match next {
                Some(at) if at <= now => break,
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
        let text = format!(
            "the transfer has made no progress for {limit:?} (Folder::silence); it can be resumed"
        );
        Status::unavailable(text)
    }
}

/// Returns `true` if the connection of a call has ended.
pub(super) fn is_gone(ctx: Option<&CallContext>) -> bool {
    let Some(peer) = ctx.and_then(CallContext::peer) else {
        return false;
    };
    let mut cx = Context::from_waker(Waker::noop());
    pin!(peer.closed()).poll(&mut cx).is_ready()
}

/// Returns `true` if the connection of a call has ended, or ends within [`NOTICE`].
pub(super) async fn has_gone(ctx: Option<&CallContext>) -> bool {
    let Some(peer) = ctx.and_then(CallContext::peer) else {
        return false;
    };
    timeout(NOTICE, peer.closed()).await.is_ok()
}

/// Completes once the deadline of the current call has passed, or its connection has ended.
pub(super) async fn given_up() {
    let ctx = CallContext::current();
    let Some((ctx, peer)) = ctx.as_ref().and_then(|ctx| Some((ctx, ctx.peer()?))) else {
        return std::future::pending().await;
    };
    tokio::select! {
        () = ctx.cancelled() => {}
        () = peer.closed() => {}
    }
}
