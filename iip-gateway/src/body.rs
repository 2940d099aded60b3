//! Bodies: that of a reply, and the collection of that of a request within its limits.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::activity::RunningRequest;
use crate::failure::Failure;
use crate::limits::Limits;
use crate::record::Record;

/// The size of the parts in which a reply is passed on, so that HTTP/2 does not buffer all of it.
const PART_BYTES: usize = 64 << 10;

/// The size up to which the body of a request does not count in the total.
const FREE_BYTES: usize = 64 << 10;

/// The body of a reply.
#[derive(Default)]
pub(crate) struct ReplyBody {
    rest: Bytes,
    /// The parts that follow, if the body is made while it is sent.
    stream: Option<Box<dyn BodyStream>>,
    /// The request runs until its reply is sent.
    running: Option<RunningRequest>,
    /// The record of a stream, which is written when the stream has ended.
    record: Option<Box<Record>>,
}

/// A body that is made while it is sent. Dropping it ends what makes it.
pub(crate) trait BodyStream: Send {
    /// Returns the next part; `None` once there are no more. It is asked only when the client takes
    /// a part. After an error, nothing more is asked for.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>>;
}

/// The end of a body before it is complete. The client sees that it is not complete: the connection
/// is closed, or the stream of HTTP/2 is reset.
#[derive(Debug, thiserror::Error)]
#[error("a reply was cut off: {cause}")]
pub(crate) struct Cut {
    /// The cause, which is not sent.
    cause: String,
}

impl Cut {
    pub(crate) fn new(cause: &impl ToString) -> Self {
        Self {
            cause: cause.to_string(),
        }
    }
}

impl ReplyBody {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            rest: bytes,
            ..Self::default()
        }
    }

    pub(crate) fn stream(stream: impl BodyStream + 'static) -> Self {
        Self::begun(Bytes::new(), stream)
    }

    /// A body of `begun` followed by the parts of `stream`.
    pub(crate) fn begun(begun: Bytes, stream: impl BodyStream + 'static) -> Self {
        Self {
            rest: begun,
            stream: Some(Box::new(stream)),
            ..Self::default()
        }
    }

    /// Counts the request as running until this body has been passed on.
    pub(crate) fn keep(&mut self, running: RunningRequest) {
        self.running = Some(running);
    }

    /// Completes the record with the size of this body: now, or when the stream has ended.
    pub(crate) fn log(&mut self, mut record: Record) {
        record.sent = self.rest.len();
        self.record = self.stream.is_some().then(|| Box::new(record));
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        let part = stream.poll_part(cx);
        if let Some(running) = &mut self.running {
            match &part {
                Poll::Ready(_) => running.progress(),
                // The client takes what there is.
                Poll::Pending => running.rest(),
            }
        }
        match &part {
            Poll::Ready(Some(Ok(part))) => {
                if let Some(record) = &mut self.record {
                    record.sent += part.len();
                }
            }
            Poll::Ready(Some(Err(cut))) => {
                if let Some(record) = &mut self.record {
                    record.cause = Some(cut.to_string());
                }
                (self.stream, self.record) = (None, None);
            }
            Poll::Ready(None) => (self.stream, self.record) = (None, None),
            Poll::Pending => {}
        }
        part
    }
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyBody")
            .field("rest", &self.rest.len())
            .field("is_stream", &self.stream.is_some())
            .finish_non_exhaustive()
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.rest.is_empty() {
            let part = self.poll_stream(cx);
            return part.map(|part| part.map(|part| part.map(Frame::data)));
        }
        if let Some(running) = &mut self.running {
            running.progress();
        }
        let length = self.rest.len().min(PART_BYTES);
        let part = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        match self.stream {
            None => SizeHint::with_exact(rest),
            Some(_) => SizeHint::default(),
        }
    }
}

/// The bytes that all bodies take that are being received.
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

    /// Counts what is buffered now, without the first 64 KiB.
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
    // The announced size is the word of the client: no more than 64 KiB are believed.
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

/// Parts that are joined. A single one is not copied.
#[derive(Default)]
pub(crate) struct Joined {
    /// The only part so far.
    first: Bytes,
    rest: BytesMut,
}

impl Joined {
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Adds a part. `expected` is the size that all of them may have.
    pub(crate) fn push(&mut self, part: Bytes, expected: usize) {
        if self.len() == 0 {
            self.first = part;
            return;
        }
        if self.rest.is_empty() {
            self.rest.reserve(expected.max(self.len() + part.len()));
            self.rest
                .extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&part);
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            self.first
        } else {
            self.rest.freeze()
        }
    }
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
                    // Trailers are not passed on.
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
