//! Calls with streams of messages, at the client.
//!
//! To follow one call, begin at [`Client::server_stream`], or [`Client::client_stream`].

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use iip_core::{CallError, CallTimes, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::failure::{bad_answer, call_status, not_sent};
use super::{Client, Failure};
use crate::arguments::Arguments;
#[cfg(feature = "codec-prost")]
use crate::codec::Proto;
use crate::codec::{CodecId, decode_value};
use crate::compression::Encoding;
use crate::context::{CallContext, after, now};
use crate::envelope::{Outcome, ReplyHead};
use crate::method::MethodDescriptor;
use crate::retry::Attempts;
use crate::status::{Code, MethodError, Status};
use crate::streaming::Streaming;
use crate::streaming::messages::{self, MessageReader, RecordError, TooLarge};
use crate::streaming::writer::{Ended, MessageWriter};

/// A call with streams that was started.
struct Begun {
    call: StreamedCall,
    send: SendStream,
    encoding: Encoding,
}

/// The receiving side of a call.
struct StreamedCall {
    client: Client,
    method: &'static MethodDescriptor,
    records: MessageReader,
    codec: CodecId,
    started: Instant,
}

/// The next item of a call.
enum Next<E> {
    Message(Bytes),
    /// The end of the call, with its outcome.
    Answer(Result<Bytes, Failure<E>>),
}

impl Client {
    /// Calls a method that replies with a stream; generated clients use it.
    ///
    /// Completes once the method has accepted the call, within the default timeout of a call. From
    /// then on the stream may take any time, unless a timeout was set for the call, its method, or
    /// the call being handled.
    ///
    /// # Errors
    ///
    /// The method's own error, or a [`Status`] converted to its type.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, cancels the call; the server is notified.
    pub async fn server_stream<A, T, I, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> Result<Streaming<T, I>, E>
    where
        A: Arguments + Send,
        T: DeserializeOwned + Send + 'static,
        I: MethodError,
        E: MethodError,
    {
        if let Some(interceptors) = self.awake_interceptors(ctx) {
            return self
                .intercepted_server_stream(interceptors, method, ctx, args)
                .await;
        }
        let mut attempts = Attempts::default();
        self.settings.budget.deposit();
        let mut times = Times::new(self, method, ctx);
        // The arguments are kept while the call may have to be retried.
        let mut args = Some(args);
        // The only exit for a call that fails: the outcome accounts for what earlier attempts may
        // have done, whatever the last failure was.
        let failed = loop {
            let begun = self
                .begin(method, ctx, &mut args, &mut times, &mut attempts)
                .await;
            let Begun {
                mut call, mut send, ..
            } = match begun {
                Ok(begun) => begun,
                Err(status) => break status,
            };
            send.finish();
            let status = match call.accepted().await {
                Ok(()) => {
                    call.has_until(times.whole);
                    return Ok(Streaming::new(ReplyStream::new(call, None)));
                }
                Err(Failure::Own(error)) => return Err(error),
                Err(Failure::Status(status)) => status,
            };
            let deadline = times.start.deadline;
            let pause = args
                .is_some()
                .then(|| self.pause(method, &mut attempts, &status, deadline));
            let Some(pause) = pause.flatten() else {
                break status;
            };
            times.pause(pause).await;
        };
        Err(attempts.outcome(failed).into())
    }

    /// Calls a method that takes a stream and replies with a value; generated clients use it.
    ///
    /// `messages` are sent as the server takes them, until they end or the method has replied. The
    /// call may take any time, unless a timeout was set for the call, its method, or the call being
    /// handled; only to accept it the server has the default timeout of a call. Such a call is not
    /// retried.
    ///
    /// # Errors
    ///
    /// The method's own error, or a [`Status`] converted to its type. If `messages` fails, its
    /// status, and the server receives [`Code::Cancelled`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    pub async fn client_stream<A, U, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
        mut messages: Streaming<U>,
    ) -> Result<T, E>
    where
        A: Arguments + Send,
        U: Serialize + Send + 'static,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        if let Some(interceptors) = self.awake_interceptors(ctx) {
            return self
                .intercepted_client_stream(interceptors, method, ctx, args, messages)
                .await;
        }
        let (mut call, pump, times) = self.begin_upload(method, ctx, args).await?;
        let mut pump = Some(pump);
        let mut is_accepted = false;
        let answer = poll_fn(|cx| {
            if let Some(sending) = &mut pump
                && let Poll::Ready(ended) = sending.poll(cx, Pin::new(&mut messages))
            {
                if let Some(status) = on_sent(sending, ended) {
                    return Poll::Ready(Err(Failure::Status(status)));
                }
                pump = None;
            }
            loop {
                match ready!(call.poll_next(cx)) {
                    Next::Message(record) if !is_accepted => {
                        if let Err(failure) = call.accept(record) {
                            return Poll::Ready(Err(failure));
                        }
                        is_accepted = true;
                        call.has_until(times.whole);
                    }
                    Next::Message(_) => {
                        return Poll::Ready(Err(call.bad_answer(unexpected()).into()));
                    }
                    Next::Answer(answer) => return Poll::Ready(answer),
                }
            }
        });
        let failure = match answer.await {
            Ok(answer) => match self.decode(method, answer, call.started) {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        Err(failure.into_error())
    }

    /// Calls a method that takes a stream and replies with one; generated clients use it.
    ///
    /// Like [`server_stream`](Self::server_stream), it completes once the method has accepted the
    /// call, by returning its stream. Meanwhile a separate task sends `messages`. A method that
    /// reads some of them before it accepts the call waits for them: they have to be sent before
    /// this future is awaited, or from another task. Such a call is not retried.
    ///
    /// # Errors
    ///
    /// Like [`server_stream`](Self::server_stream). If `messages` fails, the stream ends with its
    /// status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, cancels the call; the server is notified.
    pub async fn bidi_stream<A, U, T, I, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
        messages: Streaming<U>,
    ) -> Result<Streaming<T, I>, E>
    where
        A: Arguments + Send,
        U: Serialize + Send + 'static,
        T: DeserializeOwned + Send + 'static,
        I: MethodError,
        E: MethodError,
    {
        if let Some(interceptors) = self.awake_interceptors(ctx) {
            return self
                .intercepted_bidi_stream(interceptors, method, ctx, args, messages)
                .await;
        }
        let (mut call, pump, times) = self.begin_upload(method, ctx, args).await?;
        let sending = Sending(Some(tokio::spawn(send_all(pump, messages))));
        match call.accepted().await {
            Ok(()) => {
                call.has_until(times.whole);
                Ok(Streaming::new(ReplyStream::new(call, Some(sending))))
            }
            Err(Failure::Status(status)) => Err(not_accepted(status, &sending).into()),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Starts a call that sends messages. It is not retried: messages are not kept once sent.
    async fn begin_upload<A: Arguments + Send>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> Result<(StreamedCall, MessageWriter<Status>, Times), Status> {
        self.settings.budget.deposit();
        let mut times = Times::new(self, method, ctx);
        let (mut args, mut attempts) = (Some(args), Attempts::default());
        let begun = self
            .begin(method, ctx, &mut args, &mut times, &mut attempts)
            .await?;
        let pump = MessageWriter::new(begun.send, begun.encoding, self.settings.limits);
        Ok((begun.call, pump, times))
    }

    /// Starts a call with streams on a connection.
    async fn begin<A: Arguments + Send>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: &mut Option<A>,
        times: &mut Times,
        attempts: &mut Attempts,
    ) -> Result<Begun, Status> {
        let connection = match self.core.ready_connection() {
            Some(connection) => connection,
            None => {
                self.wait_for_connection(Some(method), &mut times.start, attempts)
                    .await?
            }
        };
        if let Some(place) = &self.options.reply_metadata {
            place.set(crate::metadata::Metadata::new());
        }
        let Some(encoding) = self.encoding(method, &connection)? else {
            let text = format!("{method} has streams, which its server does not know");
            return Err(not_sent(Status::unimplemented(text)));
        };
        let remaining = times.remaining();
        let mut kept = true;
        let (send, recv) = connection.start_stream(method.static_path(), &times.start, |out| {
            let written = messages::write::<Status>(out, None, None, |out| {
                let tail;
                (tail, kept) = self.encode(method, ctx, args, Some(encoding), remaining, out)?;
                Ok(tail)
            })?;
            let tail = written.map_err(|TooLarge { size, limit }| {
                let text = format!(
                    "arguments of {size} bytes exceed the limit of {limit} bytes (option \
                     max_message_bytes)"
                );
                not_sent(Status::resource_exhausted(text))
            })?;
            Ok::<_, Status>(tail)
        })?;
        if !kept {
            *args = None;
        }
        let call = StreamedCall {
            client: self.clone(),
            method,
            records: MessageReader::new(recv, self.settings.limits),
            codec: encoding.codec,
            started: times.start.started,
        };
        Ok(Begun {
            call,
            send,
            encoding,
        })
    }
}

/// The deadlines of a call with streams.
pub(super) struct Times {
    /// Times of the phase until the call is accepted.
    pub(super) start: CallTimes,
    /// Deadline of the whole call, if it has one.
    pub(super) whole: Option<Instant>,
}

impl Times {
    pub(super) fn new(
        client: &Client,
        method: &MethodDescriptor,
        ctx: Option<&CallContext>,
    ) -> Self {
        let (start, _) = client.times(method, ctx);
        let policies = &client.settings.policies;
        let own = client.options.timeout.or_else(|| policies.timeout(method));
        let own = own.map(|own| after(start.started, own));
        let given = ctx.and_then(CallContext::deadline);
        let inherited = CallContext::current_deadline();
        Self {
            start,
            whole: own.into_iter().chain(given).chain(inherited).min(),
        }
    }

    /// Time that the whole call has left.
    fn remaining(&self) -> Option<Duration> {
        let whole = self.whole?;
        Some(whole.saturating_duration_since(self.start.connected))
    }

    async fn pause(&mut self, pause: Duration) {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.start.connected = now();
    }
}

impl StreamedCall {
    fn poll_next<E: MethodError>(&mut self, cx: &mut Context<'_>) -> Poll<Next<E>> {
        let next = match ready!(self.records.poll_next(cx)) {
            Some(Ok(message)) => Next::Message(message),
            Some(Err(error)) => Next::Answer(Err(self.bad_answer(record_status(error)).into())),
            None => Next::Answer(self.answer()),
        };
        Poll::Ready(next)
    }

    fn answer<E>(&mut self) -> Result<Bytes, Failure<E>> {
        let answer = self.records.answer();
        let lost = |error: &CallError| call_status(error, Some(self.method)).into();
        answer
            .unwrap_or_else(|| Ok(Bytes::new()))
            .map_err(|error| lost(&error))
    }

    /// Reads the reply after a stream of replies.
    fn end<E: MethodError>(&self, answer: Bytes) -> Result<(), Failure<E>> {
        #[cfg(feature = "codec-prost")]
        if self.codec == CodecId::PROTOBUF {
            let answer = self
                .client
                .decode::<Proto<()>, E>(self.method, answer, self.started);
            return answer.map(Proto::into_inner);
        }
        self.client.decode(self.method, answer, self.started)
    }

    /// Waits for the record that accepts the call.
    async fn accepted<E: MethodError>(&mut self) -> Result<(), Failure<E>> {
        match poll_fn(|cx| self.poll_next(cx)).await {
            Next::Message(record) => self.accept(record),
            Next::Answer(Ok(answer)) => match self.end::<E>(answer) {
                Ok(()) => Err(self.bad_answer(unexpected()).into()),
                Err(failure) => Err(failure),
            },
            Next::Answer(Err(failure)) => Err(failure),
        }
    }

    /// Reads the record that accepts the call. Any other outcome is the failure of the call.
    fn accept<E: MethodError>(&self, record: Bytes) -> Result<(), Failure<E>> {
        let head = ReplyHead::read(record.clone());
        let (head, _) = head.map_err(|error| self.bad_answer(error.reply_status()))?;
        if head.outcome != Outcome::Value {
            let failure = self.client.decode(self.method, record, self.started);
            return failure.and_then(|()| Err(self.bad_answer(unexpected()).into()));
        }
        if let Some(place) = &self.client.options.reply_metadata {
            place.set(head.metadata);
        }
        Ok(())
    }

    fn bad_answer(&self, status: Status) -> Status {
        bad_answer(self.method, self.started, None, status)
    }

    /// The call was accepted: from now on only the deadline of the whole call applies, if it has
    /// one.
    fn has_until(&mut self, whole: Option<Instant>) {
        let deadline = whole.unwrap_or_else(|| after(now(), Duration::MAX));
        self.records.recv().set_deadline(deadline);
    }
}

/// Rewords the status of a call whose time ran out before the method accepted it, to say what the
/// call was waiting for.
#[cold]
fn not_accepted(status: Status, sending: &Sending) -> Status {
    let sends = sending.0.as_ref().is_some_and(|task| !task.is_finished());
    if status.code() != Code::DeadlineExceeded || !sends {
        return status;
    }
    let text = format!(
        "{}; the method has not accepted the stream, and may be waiting for messages that this \
         caller has not sent yet",
        status.message()
    );
    status.reworded(text)
}

fn unexpected() -> Status {
    Status::internal("the server's answer does not fit a call with streams")
}

fn record_status(error: RecordError) -> Status {
    match error {
        RecordError::Cut => Status::unavailable("the stream was cut off"),
        RecordError::Compressed(error) => error.reply_status(),
        RecordError::Stalled(limit) => Status::unavailable(format!(
            "no bytes of an unfinished message came for {limit:?} (options progress_timeout and \
             max_buffered_bytes)"
        )),
        RecordError::Truncated => Status::internal("the server's stream ended within a message"),
        RecordError::TooLarge(TooLarge { size, limit }) => Status::resource_exhausted(format!(
            "a message of {size} bytes in a stream exceeds the limit of {limit} bytes (option \
             max_message_bytes)"
        )),
    }
}

/// Handles the end of sending; returns a status if the call cannot continue.
fn on_sent(pump: &mut MessageWriter<Status>, ended: Ended<Status>) -> Option<Status> {
    match ended {
        Ended::Complete => {
            pump.finish();
            None
        }
        // The end of the call carries the more precise status.
        Ended::Over => None,
        Ended::Failed(status) | Ended::Refused(status) => Some(status),
        Ended::Unread(error) => Some(Status::resource_exhausted(error.to_string())),
    }
}

/// Sends all messages of a stream; returns the status with which the call has to end, if any. The
/// pump is returned too: dropping it before its end would end the call with a reason of its own.
async fn send_all<U: Serialize + Send + 'static>(
    mut pump: MessageWriter<Status>,
    mut messages: Streaming<U>,
) -> (Option<Status>, MessageWriter<Status>) {
    let ended = poll_fn(|cx| pump.poll(cx, Pin::new(&mut messages))).await;
    (on_sent(&mut pump, ended), pump)
}

/// The task that sends.
struct Sending(Option<JoinHandle<(Option<Status>, MessageWriter<Status>)>>);

impl Sending {
    /// Returns the status with which the call has to end, if sending has failed.
    fn poll_failure(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let Some(task) = &mut self.0 else {
            return Poll::Pending;
        };
        let failure = match ready!(Pin::new(task).poll(cx)) {
            Ok((failure, _)) => failure,
            Err(error) => Some(Status::internal(format!(
                "the stream to send failed: {error}"
            ))),
        };
        self.0 = None;
        failure.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The stream that a method replies with.
struct ReplyStream<T, E> {
    call: Option<StreamedCall>,
    sending: Option<Sending>,
    types: PhantomData<fn() -> (T, E)>,
}

impl<T, E> ReplyStream<T, E> {
    fn new(call: StreamedCall, sending: Option<Sending>) -> Self {
        Self {
            call: Some(call),
            sending,
            types: PhantomData,
        }
    }
}

impl<T: DeserializeOwned + 'static, E: MethodError> Stream for ReplyStream<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        let this = &mut *self;
        let Some(call) = &mut this.call else {
            return Poll::Ready(None);
        };
        if let Some(sending) = &mut this.sending
            && let Poll::Ready(status) = sending.poll_failure(cx)
        {
            (this.call, this.sending) = (None, None);
            return Poll::Ready(Some(Err(status.into())));
        }
        let item = match ready!(call.poll_next(cx)) {
            Next::Message(message) => {
                let limits = &call.client.settings.limits;
                match decode_value(call.codec, &message, limits) {
                    Ok(message) => return Poll::Ready(Some(Ok(message))),
                    Err(error) => Some(Err(call
                        .bad_answer(error.status_of_reply("message of the stream", call.codec))
                        .into())),
                }
            }
            Next::Answer(Ok(answer)) => match call.end::<E>(answer) {
                Ok(()) => None,
                Err(failure) => Some(Err(failure.into_error())),
            },
            Next::Answer(Err(failure)) => Some(Err(failure.into_error())),
        };
        (this.call, this.sending) = (None, None);
        Poll::Ready(item)
    }
}
