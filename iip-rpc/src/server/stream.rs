//! Calls with streams of messages, at the server.
//!
//! To follow one call, begin at [`run`].

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use iip_core::{HandlerError, RecvStream, Request, Response, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::intercept;
use super::method::{Call, CallExtras, CallStreams, Kind, Method, MethodBody, RequestForm};
use super::reply::{Reply, ReplyForm, reject_status, timing};
use crate::arguments::FromArguments;
use crate::boxed::BoxFuture;
#[cfg(feature = "codec-prost")]
use crate::codec::Proto;
use crate::codec::{CodecId, DecodeError, DecodeLimits, EncodeError, decode_value};
use crate::compression::Encoding;
use crate::context::CallContext;
use crate::envelope::{self, ReplyHead};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::overload::Permit;
use crate::payload::ByValue;
use crate::status::{Execution, MethodError, Status};
use crate::streaming::Streaming;
use crate::streaming::messages::{self, MessageReader, RecordError, TooLarge};
use crate::streaming::writer::{Ended, MessageWriter, Outgoing};
use crate::subscription::{BEGINS, Numbered, Position, RESUME, Sending, Subscription};

/// The result of a handler of a call with streams: created by [`StreamCall::reply`] and
/// [`StreamCall::send_all`].
#[derive(Debug)]
#[must_use]
pub struct StreamReply(Reply);

impl StreamReply {
    fn failed(status: Status) -> Self {
        Self(Reply::failed(status))
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
    /// Takes the streams of a call. If the method has no stream of replies, the call is accepted
    /// here; otherwise the method decides when it is.
    fn of(call: &mut Call, cx: &Context<'_>) -> Result<Self, Status> {
        let Some(CallStreams { input, mut send }) = call.take_streams() else {
            return Err(Status::internal(
                "the streams of the call were taken already",
            ));
        };
        let encoding = call.encoding();
        let ctx = call.context().clone();
        // A method without a stream of replies has no later time at which it could accept the call.
        if !ctx.method().is_some_and(MethodDescriptor::has_replies) {
            let mut accepted = BytesMut::new();
            write_accepted(encoding.codec, &Metadata::new(), &mut accepted);
            // If the call is over, the record is not read and the error does not matter.
            let _ = send.start_send(cx, accepted.freeze());
        }
        let (received, waited) = call.received();
        Ok(Self {
            encoding,
            limits: *call.limits(),
            ctx,
            received,
            waited,
            input: Some(input),
            send: Some(send),
        })
    }

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
    pub fn reply<T, E>(self, result: Result<T, E>) -> StreamReply
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
        let mut messages = Outgoing(pin!(stream));
        let mut writer = MessageWriter::new(send, self.encoding, self.limits);
        write_accepted(
            self.encoding.codec,
            &self.ctx.take_reply_metadata(),
            writer.batch(),
        );
        let ended = poll_fn(|cx| writer.poll(cx, &mut messages)).await;
        match ended {
            Ended::Complete => self.end::<I>(Ok(())),
            Ended::Failed(error) => self.end::<I>(Err(error)),
            Ended::Rejected(status) => StreamReply::failed(status),
            Ended::Unread(error) => {
                StreamReply::failed(Status::resource_exhausted(error.to_string()))
            }
            // The caller has gone away, so the reply is not read.
            Ended::Over => {
                StreamReply::failed(Status::cancelled("the caller went away during the reply"))
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
        let form = ReplyForm {
            ctx: &self.ctx,
            encoding: self.encoding,
            plain: false,
            timing: Some(timing(self.received, self.waited)),
            limits: &self.limits,
        };
        StreamReply(match result {
            Ok(value) => form.value(&ByValue(value)),
            Err(error) => form.error(&error),
        })
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
            // A future that has completed must not be polled again.
            this.shutting_down = None;
            this.values.stop();
        }
        this.values.poll_next(cx)
    }
}

impl<T> Unpin for UntilShutdown<T> {}

/// Writes the first record, which accepts the call and carries the metadata of the stream.
fn write_accepted(codec: CodecId, metadata: &Metadata, out: &mut BytesMut) {
    let written = messages::write_envelope::<EncodeError>(out, |out| {
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
        // Nothing follows the end or an error.
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
        Some(method) => {
            let status = error.status_of_request("message of the stream", codec);
            status.in_method(method)
        }
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
            "no bytes of an unfinished message arrived for {limit:?} (options progress_timeout and \
             max_buffered_bytes of the server)"
        )),
        RecordError::Truncated => Status::invalid_argument("the stream ended within a message"),
        RecordError::TooLarge(TooLarge { size, limit }) => Status::resource_exhausted(format!(
            "a message of {size} bytes in a stream exceeds the server's limit of {limit} bytes \
             (option max_message_bytes)"
        )),
    }
}

/// Reads the beginning of a call with streams, and runs it.
pub(super) async fn run(
    method: Arc<Method>,
    mut request: Request,
    permit: Option<Permit>,
) -> Result<Response, HandlerError> {
    let form = RequestForm::of(&request);
    // A request that is not a stream comes here as well.
    let reply = match request.stream() {
        Some((send, recv)) => begin(&method, request, send, recv).await,
        None => Err(no_stream(method.descriptor)),
    };
    permit.into_iter().for_each(Permit::end);
    match reply {
        Ok(reply) => method.respond(reply, form),
        Err(status) => method.failed(status, form),
    }
}

/// The status for a request with a single message.
fn no_stream(method: &MethodDescriptor) -> Status {
    let text = format!("{method} has streams: it cannot be called with one message");
    Status::unimplemented(text).with_execution(Execution::NotExecuted)
}

async fn begin(
    method: &Arc<Method>,
    request: Request,
    send: SendStream,
    recv: RecvStream,
) -> Result<Reply, Status> {
    let not_executed = |status: Status| status.with_execution(Execution::NotExecuted);
    let mut input = MessageReader::new(recv, method.limits);
    let first = match poll_fn(|cx| input.poll_first(cx)).await {
        Some(first) => first.map_err(|error| not_executed(record_status(error)))?,
        None => return Err(not_executed(Status::invalid_argument("an empty stream"))),
    };
    // The arguments have arrived, and the call counts as running until its reply is there. Before
    // this, a caller could occupy places without sending anything.
    let _running = request.start().map_err(|full| reject_status(&full))?;
    let head = method.head(&request, first)?;
    let extras = CallExtras {
        has_task: true,
        streams: Some(Box::new(CallStreams { input, send })),
        ..CallExtras::default()
    };
    intercept::reply(method, request, head, extras).await
}

/// A method with streams.
pub(super) struct StreamMethod<S, A, F> {
    pub(super) service: Arc<S>,
    pub(super) call: F,
    pub(super) types: PhantomData<fn(A)>,
}

impl<S, A, F: Clone> Clone for StreamMethod<S, A, F> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            call: self.call.clone(),
            types: PhantomData,
        }
    }
}

impl<S, A: FromArguments, F> StreamMethod<S, A, F> {
    fn input(call: &mut Call, cx: &Context<'_>) -> Result<(A, StreamCall), Status> {
        let args = call.decode()?;
        Ok((args, StreamCall::of(call, cx)?))
    }
}

impl<S, A, F, Fut> MethodBody for StreamMethod<S, A, F>
where
    S: Send + Sync + 'static,
    A: FromArguments,
    F: Fn(Arc<S>, &CallContext, A, StreamCall) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = StreamReply> + Send + 'static,
{
    const KIND: Kind = Kind::Stream;

    type Future = Fut;

    fn start(self, call: &mut Call, cx: &Context<'_>) -> Result<Fut, Status> {
        // Without `?`: see `Running`.
        match Self::input(call, cx) {
            Ok((args, streams)) => Ok((self.call)(self.service, call.context(), args, streams)),
            Err(status) => Err(status),
        }
    }

    fn reply(reply: StreamReply, _: &Call) -> Reply {
        reply.0
    }
}
