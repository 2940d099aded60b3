//! The body of a reply, and parts of a body that are joined.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};

use crate::activity::RunningRequest;
use crate::record::Record;

/// The size of the parts in which a reply is sent, so that HTTP/2 does not buffer all of it.
const PART_BYTES: usize = 64 << 10;

/// The body of a reply.
#[derive(Default)]
pub(crate) struct ReplyBody {
    rest: Bytes,
    /// The parts that follow, if the body is produced while it is sent.
    stream: Option<Box<dyn BodyStream>>,
    /// Keeps the request counted as running until its reply is sent.
    running: Option<RunningRequest>,
    /// The record of a stream, which is written when the stream has ended.
    record: Option<Box<Record>>,
}

/// A body that is produced while it is sent. Dropping it cancels its source.
pub(crate) trait BodyStream: Send {
    /// Returns the next part; `None` after the last one. It is called only when the client can
    /// receive a part, and not after an error.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>>;
}

/// The abort of an incomplete body. The client notices it: the connection is closed, or the HTTP/2
/// stream is reset.
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

    /// Creates a body of `begun`, followed by the parts of `stream`.
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
                // The client has received all parts so far.
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

/// Parts that are joined. A single part is not copied.
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
