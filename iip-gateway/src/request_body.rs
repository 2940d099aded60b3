//! The collection of the body of a request within its limits.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::Joined;
use crate::failure::Failure;
use crate::limits::Limits;

/// The size up to which the body of a request does not count in the total.
const FREE_BYTES: usize = 64 << 10;

/// Number of bytes of all bodies that are being received.
#[derive(Debug, Default)]
pub(crate) struct Buffered(AtomicUsize);

/// The share of one body.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<Buffered>,
    bytes: usize,
    limit: usize,
}

impl Share {
    pub(crate) fn new(of: &Arc<Buffered>, limits: &Limits) -> Self {
        Self {
            of: Arc::clone(of),
            bytes: 0,
            limit: limits.max_buffered_bytes,
        }
    }

    /// Updates the number of buffered bytes, without the first 64 KiB.
    ///
    /// # Errors
    ///
    /// Fails if all bodies together exceed the limit.
    pub(crate) fn hold(&mut self, buffered: usize) -> Result<(), Failure> {
        let bytes = buffered.saturating_sub(FREE_BYTES);
        let more = bytes.saturating_sub(self.bytes);
        self.of
            .0
            .fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = bytes;
        if more == 0
            || self
                .of
                .0
                .fetch_add(more, Ordering::Relaxed)
                .saturating_add(more)
                <= self.limit
        {
            return Ok(());
        }
        Err(Failure::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "the gateway receives too many large bodies (option max_buffered_bytes)",
        ))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Receives the body of a request.
pub(crate) async fn collect(
    mut body: Incoming,
    limits: &Limits,
    buffered: &Arc<Buffered>,
) -> Result<Bytes, Failure> {
    let max = limits.max_body_bytes;
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |announced| announced > max) {
        return Err(too_large(max));
    }
    let mut progress = Progress::new(limits);
    // The announced size may be wrong: at most 64 KiB are allocated for it.
    let announced = usize::try_from(announced).unwrap_or(0).min(FREE_BYTES);
    let mut received = Joined::default();
    let mut share = Share::new(buffered, limits);
    while let Some(part) = progress.next(&mut body).await? {
        let length = received.len() + part.len();
        if length > max {
            return Err(too_large(max));
        }
        share.hold(length)?;
        received.push(part, announced);
    }
    Ok(received.into_bytes())
}

fn too_large(max: usize) -> Failure {
    Failure::refused(
        StatusCode::PAYLOAD_TOO_LARGE,
        "RESOURCE_EXHAUSTED",
        format!("the body exceeds {max} bytes (option max_body_bytes)"),
    )
}

/// Watches the rate at which a body arrives.
struct Progress {
    window: Duration,
    /// The bytes that must arrive within each window.
    min: usize,
    arrived: usize,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Progress {
    fn new(limits: &Limits) -> Self {
        let seconds = usize::try_from(limits.body_timeout.as_secs()).unwrap_or(usize::MAX);
        Self {
            window: limits.body_timeout,
            min: limits.min_body_rate.saturating_mul(seconds.max(1)),
            arrived: 0,
            until: Instant::now() + limits.body_timeout,
            timer: None,
        }
    }

    async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => self.check(cx).map(Err),
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            });
            match frame.await? {
                None => return Ok(None),
                Some(Err(error)) => {
                    let mut failure = Failure::bad_request("the body is malformed or incomplete");
                    failure.cause = Some(error.to_string());
                    return Err(failure);
                }
                Some(Ok(frame)) => {
                    // Trailers are dropped.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.arrived = self.arrived.saturating_add(data.len());
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let until = self.until;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(until)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.arrived < self.min {
                return Poll::Ready(Failure::refused(
                    StatusCode::REQUEST_TIMEOUT,
                    "DEADLINE_EXCEEDED",
                    "the body arrives too slowly (options body_timeout and min_body_rate)",
                ));
            }
            self.arrived = 0;
            self.until = Instant::now() + self.window;
            timer.as_mut().reset(self.until);
        }
    }
}
