//! Streams of replies: server-sent events, or lines of JSON.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::Response;
use iip_rpc::{JsonError, JsonText, Position, Status, Stream, Streaming, Subscription, Update};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::headers;
use super::negotiation::StreamForm;
use super::request::ShuttingDown;
use super::results::Results;
use crate::body::{BodyStream, Cut, ReplyBody};
use crate::failure::Failure;

/// The time for which the head of a reply waits for the first item, which may be an error.
const FIRST_ITEM: Duration = Duration::from_secs(1);

/// Interval of keep-alive comments in a stream of events.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Maximum number of bytes of ready items that are sent together.
const PART_BYTES: usize = 16 << 10;

/// The replies of a call.
pub(super) enum Source {
    Stream(Streaming<JsonText, JsonError>),
    Subscription(Box<Subscription<JsonText>>),
}

enum Item {
    Value(JsonText, Option<Position>),
    /// Values are missing: their number, if it is known.
    Gap(Option<u64>, Option<Position>),
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, JsonError>>> {
        match self {
            Self::Stream(stream) => {
                let next = Pin::new(stream).poll_next(cx);
                next.map(|next| next.map(|value| value.map(|value| Item::Value(value, None))))
            }
            Self::Subscription(subscription) => {
                let next = Pin::new(&mut **subscription).poll_next(cx);
                let position = subscription.position();
                next.map(|next| {
                    next.map(|update| match update {
                        Ok(Update::Value { value, .. }) => Ok(Item::Value(value, position)),
                        Ok(Update::Gap(gap)) => Ok(Item::Gap(gap.missed, position)),
                        Err(status) => Err(JsonError::Status(status)),
                    })
                })
            }
        }
    }
}

/// The body of a reply with several items.
struct Items {
    source: Option<Source>,
    form: StreamForm,
    results: Results,
    ready: BytesMut,
    /// Completes when a shutdown begins, which ends a subscription: it does not end by itself, and
    /// clients resume it.
    interrupted: Option<ShuttingDown>,
    /// Expires when nothing was sent for a while; only for events.
    keepalive: Pin<Box<Sleep>>,
}

/// Replies with the items of a call that was accepted. Waits a while for the first one, because a
/// failure can have its own status as long as the head was not sent.
pub(super) async fn reply(
    source: Source,
    form: StreamForm,
    results: Results,
    interrupted: Option<ShuttingDown>,
) -> Result<Response<ReplyBody>, Failure> {
    let mut items = Items {
        source: Some(source),
        form,
        results,
        ready: BytesMut::new(),
        interrupted,
        keepalive: Box::pin(sleep(KEEPALIVE)),
    };
    items.begin();
    let first = poll_fn(|cx| match &mut items.source {
        Some(source) => source.poll_next(cx),
        None => Poll::Ready(None),
    });
    match timeout(FIRST_ITEM, first).await {
        Ok(Some(Err(error))) => return Err(items.results.failure(error)),
        Ok(item) => items.add(item),
        Err(_) => {}
    }
    let mut response = headers::with(ReplyBody::stream(items), form.content_type(), "no-cache");
    // Otherwise, nginx would buffer events.
    let unbuffered = hyper::header::HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert("x-accel-buffering", unbuffered);
    Ok(response)
}

impl Items {
    /// Sends the position at which the events begin, so that a client misses none if the connection
    /// is lost before the first one. Browsers do not pass an event without data to scripts.
    fn begin(&mut self) {
        if let (StreamForm::Events, Some(Source::Subscription(subscription))) =
            (self.form, &self.source)
            && let Some(position) = subscription.position()
        {
            self.ready
                .put_slice(format!("id: {position}\n\n").as_bytes());
        }
    }

    /// Adds an item, or the end.
    fn add(&mut self, item: Option<Result<Item, JsonError>>) {
        match (item, self.form) {
            (Some(Ok(Item::Value(value, position))), form) => {
                let value = self.results.item(value);
                match form {
                    StreamForm::Events => self.event("", position, &value),
                    StreamForm::Lines => self.line(&value),
                }
            }
            (Some(Ok(Item::Gap(missed, position))), form) => {
                let missed = json!({ "missed": missed });
                match form {
                    StreamForm::Events => self.event("gap", position, &missed.to_string()),
                    StreamForm::Lines => self.line(&json!({ "gap": missed }).to_string()),
                }
            }
            (Some(Err(error)), _) => self.error(error),
            (None, form) => {
                if form == StreamForm::Events {
                    self.event("end", None, "null");
                }
                self.source = None;
            }
        }
    }

    /// Ends a subscription once a shutdown has begun.
    fn interrupt(&mut self, cx: &mut Context<'_>) {
        let Some(interrupted) = &mut self.interrupted else {
            return;
        };
        if interrupted.as_mut().poll(cx).is_pending() {
            return;
        }
        self.interrupted = None;
        match self.form {
            // Without a final event, browsers resume automatically.
            StreamForm::Events => self.source = None,
            StreamForm::Lines => {
                let status = Status::unavailable("the server shuts down");
                self.error(JsonError::Status(status));
            }
        }
    }

    /// Adds an error, which ends the stream.
    fn error(&mut self, error: JsonError) {
        let problem = self.results.failure(error).problem();
        match self.form {
            StreamForm::Events => self.event("error", None, &problem.to_string()),
            StreamForm::Lines => self.line(&json!({ "error": problem }).to_string()),
        }
        self.source = None;
    }

    fn event(&mut self, name: &str, position: Option<Position>, data: &str) {
        if let Some(position) = position {
            self.ready.put_slice(format!("id: {position}\n").as_bytes());
        }
        if !name.is_empty() {
            self.ready.put_slice(format!("event: {name}\n").as_bytes());
        }
        self.ready.put_slice(b"data: ");
        self.line(data);
        self.ready.put_u8(b'\n');
    }

    /// Adds a line. Line ends in JSON are replaced by spaces.
    fn line(&mut self, json: &str) {
        let start = self.ready.len();
        self.ready.put_slice(json.as_bytes());
        if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some() {
            let written = self.ready.iter_mut().skip(start);
            written
                .filter(|byte| matches!(byte, b'\n' | b'\r'))
                .for_each(|byte| *byte = b' ');
        }
        self.ready.put_u8(b'\n');
    }
}

impl BodyStream for Items {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        self.interrupt(cx);
        while self.ready.len() < PART_BYTES
            && let Some(source) = &mut self.source
            && let Poll::Ready(item) = source.poll_next(cx)
        {
            self.add(item);
        }
        if self.ready.is_empty() {
            if self.source.is_none() {
                return Poll::Ready(None);
            }
            if self.form == StreamForm::Lines || self.keepalive.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.ready.put_slice(b":\n\n");
        }
        self.keepalive.as_mut().reset(Instant::now() + KEEPALIVE);
        Poll::Ready(Some(Ok(self.ready.split().freeze())))
    }
}
