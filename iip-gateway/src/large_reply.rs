//! A reply of a backend that is passed on while it arrives.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use iip_core::{CallError, ReplyParts};
use tokio::time::{Instant, Sleep, sleep};

use crate::body::{BodyStream, Cut, Joined};

/// Size at which a reply is passed on before its end, in bytes.
const COLLECTED_BYTES: usize = 64 << 10;

/// Timeout of a call once its reply is being passed on: practically none, because clients may be
/// slow.
const ENDLESS: Duration = Duration::from_secs(365 * 86_400);

/// Receives a reply to its end, or the beginning of a larger one.
pub(crate) async fn beginning(reply: &mut ReplyParts) -> Result<Bytes, CallError> {
    let mut begun = Joined::default();
    while begun.len() < COLLECTED_BYTES
        && let Some(part) = reply.next().await
    {
        begun.push(part?, 0);
    }
    Ok(begun.into_bytes())
}

/// The parts of a reply after its beginning. Dropping it cancels the call.
pub(crate) struct LargeReply {
    reply: ReplyParts,
    /// The maximum time until the next part arrives.
    timeout: Duration,
    /// Set while this waits for the backend.
    timer: Option<Pin<Box<Sleep>>>,
}

impl LargeReply {
    pub(crate) fn new(mut reply: ReplyParts, timeout: Duration) -> Self {
        reply.set_deadline((Instant::now() + ENDLESS).into_std());
        Self {
            reply,
            timeout,
            timer: None,
        }
    }
}

impl BodyStream for LargeReply {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if let Poll::Ready(part) = self.reply.poll_next(cx) {
            self.timer = None;
            return Poll::Ready(part.map(|part| part.map_err(|error| Cut::new(&error))));
        }
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| {
            let text = format!("the backend sent nothing for {timeout:?} (option timeout)");
            Some(Err(Cut::new(&text)))
        })
    }
}
