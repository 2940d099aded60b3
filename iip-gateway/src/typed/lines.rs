//! The lines of a request body, which are messages for a method.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use iip_rpc::{JsonText, Status, Stream};
use tokio::time::{Instant, Sleep, sleep_until};

use super::catalog::Found;
use super::int64;
use super::options::{JsonInt64, TypedOptions};
use super::request::ApiRequest;

use crate::failure::Failure;
use crate::request_body::Share;

/// The reason why a body could not be read, for the reply.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault(Arc<Mutex<Option<Failure>>>);

impl Fault {
    fn set(&self, failure: Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    pub(super) fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The lines of a body.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    /// The bytes after the last line, and the number of them that have no line end.
    buffer: BytesMut,
    searched: usize,
    share: Share,
    number: u64,
    total: u64,
    max_line: usize,
    max_total: u64,
    received: Arc<AtomicUsize>,
    /// The time without bytes after which reading the body fails, if there is a limit.
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    fault: Fault,
}

impl Lines {
    pub(super) fn new(request: ApiRequest<'_>, options: &TypedOptions, fault: &Fault) -> Self {
        Self {
            body: request.body,
            buffer: BytesMut::new(),
            searched: 0,
            share: Share::new(request.buffered, request.limits),
            number: 0,
            total: 0,
            max_line: options.max_line_bytes,
            max_total: options.max_stream_bytes,
            received: request.received,
            idle: Some(request.limits.idle_timeout),
            timer: None,
            is_over: false,
            fault: fault.clone(),
        }
    }

    /// Removes the limit on the time without bytes, for clients that wait for replies.
    pub(super) fn patient(mut self) -> Self {
        self.idle = None;
        self
    }

    /// Returns the number of the last line, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the next line that is not empty; `None` after the last one.
    pub(super) fn poll_line(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            let line = self.buffered_line();
            if line.as_ref().map_or(self.buffer.len(), Bytes::len) > self.max_line {
                return Poll::Ready(Some(Err(self.line_too_large())));
            }
            match line {
                Some(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Some(line) => return Poll::Ready(Some(Ok(line))),
                None if self.is_over => return Poll::Ready(None),
                None => {}
            }
            if let Err(failure) = ready!(self.poll_more(cx)) {
                self.end();
                return Poll::Ready(Some(Err(failure)));
            }
        }
    }

    /// Stops reading the body.
    fn end(&mut self) {
        self.is_over = true;
        self.buffer = BytesMut::new();
    }

    #[cold]
    fn line_too_large(&mut self) -> Failure {
        self.end();
        let (max, number) = (self.max_line, self.number.max(1));
        too_large(format!(
            "line {number} exceeds {max} bytes (option max_line_bytes)"
        ))
    }

    /// Takes a line that has arrived, without its end. The last one may have none.
    fn buffered_line(&mut self) -> Option<Bytes> {
        let unsearched = self.buffer.get(self.searched..)?;
        let end = memchr::memchr(b'\n', unsearched).map(|at| self.searched + at);
        let length = match end {
            Some(end) => end,
            None if self.is_over && !self.buffer.is_empty() => self.buffer.len(),
            None => {
                self.searched = self.buffer.len();
                return None;
            }
        };
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(usize::from(end.is_some()));
        self.searched = 0;
        self.number += 1;
        Some(line)
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return self.poll_idle(cx).map(Err);
        };
        self.timer = None;
        let data = match frame {
            None => {
                self.is_over = true;
                return Poll::Ready(Ok(()));
            }
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => {
                let mut failure = Failure::bad_request("the body is malformed or incomplete");
                failure.cause = Some(error.to_string());
                return Poll::Ready(Err(failure));
            }
        };
        self.received.fetch_add(data.len(), Ordering::Relaxed);
        self.total = self
            .total
            .saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if self.total > self.max_total {
            let max = self.max_total;
            return Poll::Ready(Err(too_large(format!(
                "the stream exceeds {max} bytes (option max_stream_bytes)"
            ))));
        }
        self.buffer.extend_from_slice(&data);
        Poll::Ready(self.share.hold(self.buffer.len()))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Some(idle) = self.idle else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + idle)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Failure::refused(
            StatusCode::REQUEST_TIMEOUT,
            "DEADLINE_EXCEEDED",
            "no bytes of the stream have arrived for long (option idle_timeout)",
        ))
    }
}

fn too_large(detail: String) -> Failure {
    Failure::refused(StatusCode::PAYLOAD_TOO_LARGE, "RESOURCE_EXHAUSTED", detail)
}

/// The lines of a body as the messages of a call.
#[derive(Debug)]
pub(super) struct Messages {
    lines: Lines,
    found: Found,
    int64: JsonInt64,
}

impl Messages {
    pub(super) fn new(lines: Lines, found: Found, options: &TypedOptions) -> Self {
        Self {
            lines,
            found,
            int64: options.json_int64,
        }
    }

    fn message(&self, line: &Bytes) -> Result<JsonText, Failure> {
        let converted = match self.int64 {
            JsonInt64::Number => None,
            JsonInt64::String => Some(int64::read_message(&self.found, line)),
        };
        let converted = converted.transpose();
        let text = converted.and_then(|converted| {
            let bytes = converted.as_ref().unwrap_or(line);
            JsonText::from_bytes(bytes).map_err(|error| Failure::invalid(error.to_string()))
        });
        text.map_err(|mut failure| {
            let number = self.lines.number();
            failure.detail = format!("line {number}: {}", failure.detail).into();
            failure.closes = true;
            failure
        })
    }
}

impl Stream for Messages {
    type Item = Result<JsonText, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(line) = ready!(self.lines.poll_line(cx)) else {
            return Poll::Ready(None);
        };
        let message = line.and_then(|line| self.message(&line));
        Poll::Ready(Some(message.map_err(|failure| {
            let status = Status::invalid_argument(failure.detail.clone());
            self.lines.fault.set(failure);
            status
        })))
    }
}
