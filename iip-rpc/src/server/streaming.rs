//! Calls with streams of messages, at the server.
//!
//! To follow one call, begin at [`StreamMethod::answer`].

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use iip_core::{Body, HandlerFuture, RecvStream, Request, RequestMode, Response, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Run, answer_status, bad_arguments, decompress, encode_result, encoding, failures, intercept,
    is_plain, reject_status, timing, until,
};
use crate::__private::BoxFuture;
use crate::arguments::FromArguments;
#[cfg(feature = "codec-prost")]
use crate::codec::Proto;
use crate::codec::{CodecId, DecodeError, DecodeLimits, EncodeError, decode_value};
use crate::compression::{Compression, Encoding};
use crate::context::CallContext;
use crate::envelope::{self, ReplyHead, RequestHead};
use crate::interceptor::{Layers, Outcome, ServerCall};
use crate::metadata::Metadata;
use crate::method::{MethodDescriptor, OnCancel};
use crate::policy::Deadlines;
use crate::status::{Execution, MethodError, Status};
use crate::streaming::Streaming;
use crate::streaming::messages::{self, MessageReader, RecordError, TooLarge};
use crate::streaming::writer::{Ended, MessageWriter};
use crate::subscription::{BEGINS, Numbered, Position, RESUME, Sending, Subscription};

/// The result of a handler of a call with streams: created by [`StreamCall::answer`] and
/// [`StreamCall::send_all`].
#[derive(Debug)]
#[must_use]
pub struct StreamReply {
    body: Result<Body, Status>,
    outcome: Outcome,
}

impl StreamReply {
    fn failed(status: Status) -> Self {
        Self {
            outcome: Outcome::Status(status.clone()),
            body: Err(status),
        }
    }
}

/// The streams of a call, for its handler. Generated code passes it between the two.
#[derive(Debug)]
pub struct StreamCall {
    encoding: Encoding,
    limits: DecodeLimits,
    ctx: CallContext,
    received: Instant,
    waited: Duration,
    input: Option<MessageReader>,
    send: Option<SendStream>,
}

impl StreamCall {
    /// Returns the stream of messages that the caller sends; only the first stream returned has
    /// messages.
    pub fn input<T: DeserializeOwned + Send + 'static>(&mut self) -> Streaming<T> {
        Streaming::new(Input {
            records: self.input.take(),
            codec: self.encoding.codec,
            limits: self.limits,
            method: self.ctx.method(),
            message: PhantomData,
        })
    }

    /// Replies with one value.
    pub fn answer<T, E>(self, result: Result<T, E>) -> StreamReply
    where
        T: Serialize + 'static,
        E: MethodError,
    {
        self.encode(result)
    }

    /// Replies with the messages of a stream, and then with its outcome.
    pub async fn send_all<T, S, I, E>(mut self, result: Result<S, E>) -> StreamReply
    where
        S: Stream<Item = Result<T, I>>,
        T: Serialize + 'static,
        I: MethodError,
        E: MethodError,
    {
        let stream = match result {
            Ok(stream) => stream,
            Err(error) => return self.end::<E>(Err(error)),
        };
        let Some(send) = self.send.take() else {
            return StreamReply::failed(Status::internal("a stream was sent already"));
        };
        let mut stream = pin!(stream);
        let mut pump = MessageWriter::new(send, self.encoding, self.limits);
        write_accepted(
            self.encoding.codec,
            &self.ctx.take_reply_metadata(),
            pump.batch(),
        );
        let ended = poll_fn(|cx| pump.poll(cx, stream.as_mut())).await;
        match ended {
            Ended::Complete => self.end::<I>(Ok(())),
            Ended::Failed(error) => self.end::<I>(Err(error)),
            Ended::Refused(status) => StreamReply::failed(status),
            Ended::Unread(error) => {
                StreamReply::failed(Status::resource_exhausted(error.to_string()))
            }
            // The caller has gone away, so the reply is not read.
            Ended::Over => {
                StreamReply::failed(Status::cancelled("the caller went away during the answer"))
            }
        }
    }

    /// Replies with the values of a subscription, after those that the caller has seen, and then
    /// with its outcome. It ends when the server begins to shut down.
    pub async fn send_subscription<T, E>(self, result: Result<Subscription<T>, E>) -> StreamReply
    where
        T: Serialize + Send + Sync + 'static,
        E: MethodError,
    {
        let subscription = match result {
            Ok(subscription) => subscription,
            Err(error) => return self.encode::<(), E>(Err(error)),
        };
        let metadata = self.ctx.metadata();
        let after: Option<Position> = match (metadata.get(RESUME), metadata.text(RESUME)) {
            (None, _) => None,
            (Some(_), text) => match text.unwrap_or_default().parse() {
                Ok(after) => Some(after),
                Err(error) => {
                    let text = format!("metadata {RESUME}: {error}");
                    return StreamReply::failed(Status::invalid_argument(text));
                }
            },
        };
        let (begins, values) = subscription.send_from(after);
        if let Err(error) = self.ctx.set_reply_metadata(BEGINS, begins.to_string()) {
            return StreamReply::failed(error.into());
        }
        let values = UntilShutdown {
            values,
            shutting_down: Some(Box::pin(self.ctx.shutting_down())),
        };
        self.send_all::<_, _, Status, Status>(Ok(values)).await
    }

    /// The final reply after a stream of replies.
    fn end<E: MethodError>(&self, result: Result<(), E>) -> StreamReply {
        #[cfg(feature = "codec-prost")]
        if self.encoding.codec == CodecId::PROTOBUF {
            return self.encode(result.map(Proto));
        }
        self.encode(result)
    }

    fn encode<T, E>(&self, result: Result<T, E>) -> StreamReply
    where
        T: Serialize + 'static,
        E: MethodError,
    {
        let metadata = self.ctx.take_reply_metadata();
        let timing = Some(timing(self.received, self.waited));
        let outcome = Outcome::of(&result);
        if let Err(error) = &result {
            failures::log(Some(&self.ctx), error.as_status(), error);
        }
        match encode_result(
            self.encoding,
            result,
            timing,
            &metadata,
            false,
            &self.limits,
        ) {
            Ok(body) => StreamReply {
                body: Ok(body),
                outcome,
            },
            Err(status) => {
                let status = match self.ctx.method() {
                    Some(method) => status.in_method(method),
                    None => status,
                };
                failures::log(Some(&self.ctx), Some(&status), &status);
                StreamReply::failed(status)
            }
        }
    }
}

/// The values of a subscription until the server begins to shut down; then only those that are
/// already there.
struct UntilShutdown<T> {
    values: Sending<T>,
    shutting_down: Option<BoxFuture<'static, ()>>,
}

impl<T> Stream for UntilShutdown<T> {
    type Item = Result<Numbered<T>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let shutting_down = this.shutting_down.as_mut();
        if shutting_down.is_some_and(|begun| begun.as_mut().poll(cx).is_ready()) {
            this.shutting_down = None;
            this.values.stop();
        }
        this.values.poll_next(cx)
    }
}

impl<T> Unpin for UntilShutdown<T> {}

/// Writes the first record, which accepts the call and carries the metadata of the stream.
fn write_accepted(codec: CodecId, metadata: &Metadata, out: &mut BytesMut) {
    let written = messages::write::<EncodeError>(out, None, None, |out| {
        ReplyHead::write(codec, envelope::Outcome::Value, None, metadata, out);
        Ok(Bytes::new())
    });
    debug_assert!(matches!(written, Ok(Ok(_))), "nothing of it can fail");
}

/// The receiving side of a call's stream.
struct Input<T> {
    records: Option<MessageReader>,
    codec: CodecId,
    limits: DecodeLimits,
    method: Option<&'static MethodDescriptor>,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + 'static> Stream for Input<T> {
    type Item = Result<T, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Status>>> {
        let this = &mut *self;
        let Some(records) = &mut this.records else {
            return Poll::Ready(None);
        };
        let item = match std::task::ready!(records.poll_next(cx)) {
            Some(Ok(message)) => decode_value(this.codec, &message, &this.limits)
                .map_err(|error| bad_message(this.method, this.codec, &error)),
            Some(Err(error)) => Err(record_status(error)),
            None => {
                this.records = None;
                return Poll::Ready(None);
            }
        };
        if item.is_err() {
            this.records = None;
        }
        Poll::Ready(Some(item))
    }
}

#[cold]
fn bad_message(method: Option<&MethodDescriptor>, codec: CodecId, error: &DecodeError) -> Status {
    let status = match method {
        Some(method) => error.status_of_request(method, "message of the stream", codec),
        None => error.request_status(),
    };
    status.with_execution(Execution::MayHaveExecuted)
}

fn record_status(error: RecordError) -> Status {
    match error {
        RecordError::Cut => Status::cancelled("the caller went away before it had sent everything"),
        RecordError::Compressed(error) => error
            .request_status()
            .with_execution(Execution::MayHaveExecuted),
        RecordError::Stalled(limit) => Status::deadline_exceeded(format!(
            "no bytes of an unfinished message came for {limit:?} (options progress_timeout and \
             max_buffered_bytes of the server)"
        )),
        RecordError::Truncated => Status::invalid_argument("the stream ended within a message"),
        RecordError::TooLarge(TooLarge { size, limit }) => Status::resource_exhausted(format!(
            "a message of {size} bytes in a stream exceeds the server's limit of {limit} bytes \
             (option max_message_bytes)"
        )),
    }
}

/// A method with streams.
pub(super) struct StreamMethod<S, A, F> {
    pub(super) method: &'static MethodDescriptor,
    pub(super) service: Arc<S>,
    pub(super) call: F,
    pub(super) limits: DecodeLimits,
    pub(super) compression: Option<Compression>,
    pub(super) deadlines: Deadlines,
    pub(super) interceptors: Layers<ServerCall>,
    pub(super) args: PhantomData<fn(A)>,
}

impl<S, A, F, Fut> Run for StreamMethod<S, A, F>
where
    S: Send + Sync + 'static,
    A: FromArguments,
    F: Fn(Arc<S>, CallContext, A, StreamCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = StreamReply> + Send + 'static,
{
    const INTAKE: RequestMode = RequestMode::Stream;

    fn run(self: Arc<Self>, mut request: Request) -> HandlerFuture {
        Box::pin(async move {
            let Some((send, recv)) = request.stream() else {
                return Ok(Response::from(no_stream(self.method, &request)));
            };
            let answer = self.answer(request, send, recv).await;
            Ok(Response::from(
                answer.unwrap_or_else(|status| answer_status(&status, false)),
            ))
        })
    }
}

/// The reply to a request with a single message.
fn no_stream(method: &MethodDescriptor, request: &Request) -> Body {
    let text = format!("{method} has streams: it cannot be called with one message");
    let status = Status::unimplemented(text).with_execution(Execution::NotExecuted);
    answer_status(&status, is_plain(request.body()))
}

impl<S, A, F, Fut> StreamMethod<S, A, F>
where
    A: FromArguments,
    F: Fn(Arc<S>, CallContext, A, StreamCall) -> Fut,
    Fut: Future<Output = StreamReply>,
{
    /// Reads the beginning of the call, and runs the method within its deadline. Returns a status
    /// for a call that never reached the method, or that was ended by the deadline.
    async fn answer(
        &self,
        request: Request,
        mut send: SendStream,
        recv: RecvStream,
    ) -> Result<Body, Status> {
        let not_executed = |status: Status| status.with_execution(Execution::NotExecuted);
        let received = request.received_at();
        let mut input = MessageReader::new(recv, self.limits);
        let first = match poll_fn(|cx| input.poll_first(cx)).await {
            Some(first) => first.map_err(|error| not_executed(record_status(error)))?,
            None => return Err(not_executed(Status::invalid_argument("an empty stream"))),
        };
        let _running = request.start().map_err(|refusal| reject_status(&refusal))?;
        let (head, body) = RequestHead::read(first)
            .map_err(|error| error.request_status().in_method(self.method))?;
        let waited = request.waited();
        let deadline = self.deadlines.of_call(head.remaining, waited, received)?;
        let policy = self.method.cancel_policy();
        let cancel = (policy == OnCancel::Token).then(|| request.cancelled());
        let peer = Arc::clone(request.peer());
        let ctx = CallContext::of_call(self.method, head.metadata, deadline.at, peer, cancel);
        let encoding = encoding(
            head.codec,
            self.compression,
            Some(request.peer()),
            &self.limits,
        );
        if let Some(status) = self.method.refusal(encoding.codec) {
            return Err(status);
        }
        let run = async |ctx: CallContext| {
            let mut body = body;
            let (method, codec) = (self.method, encoding.codec);
            let compression = head.compression;
            let _held = decompress(
                &request,
                method,
                codec,
                compression,
                &mut body,
                &self.limits,
            )?;
            let args = A::decode(method, codec, &body, &self.limits)
                .map_err(|error| bad_arguments(method, codec, &error))?;
            drop(body);
            if !self.method.has_replies() {
                // With a stream of replies, the method decides when the call is accepted.
                let mut accepted = BytesMut::new();
                write_accepted(encoding.codec, &Metadata::new(), &mut accepted);
                let accepted = accepted.freeze();
                // If the call is over, the record is not read and the error does not matter.
                let _ = poll_fn(|cx| Poll::Ready(send.start_send(cx, accepted.clone()))).await;
            }
            let streams = StreamCall {
                encoding,
                limits: self.limits,
                ctx: ctx.clone(),
                received,
                waited,
                input: Some(input),
                send: Some(send),
            };
            let call = (self.call)(Arc::clone(&self.service), ctx.clone(), args, streams);
            let answer = until(deadline, policy, ctx.scope(call)).await?;
            Ok((answer.outcome, answer.body))
        };
        match self.interceptors.active(ctx.metadata()) {
            None => run(ctx).await?.1,
            Some(interceptors) => {
                let call = intercept::call(interceptors, self.method, ctx, deadline, run);
                Box::pin(call).await?
            }
        }
    }
}
