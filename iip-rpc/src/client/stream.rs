//! Calls with streams of messages, at the client.
//!
//! To follow one call, begin at [`Client::server_stream`], or [`Client::client_stream`].

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use iip_core::__rpc::{after, now};
use iip_core::{CallTimes, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::Client;
use super::body::{CallBody, Failure, StreamBody, TypedBody, outcome};
use super::call::Kind;
use super::failure::{bad_answer, call_status, not_sent};
use super::intercept::InterceptedCall;
use crate::__private::BoxFuture;
use crate::arguments::Arguments;
use crate::codec::{CodecId, decode_value};
use crate::compression::Encoding;
use crate::context::CallContext;
use crate::envelope::{self, ReplyHead};
use crate::interceptor::{ClientCall, Layers, Outcome};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::retry::Attempts;
use crate::status::{Code, MethodError, Status};
use crate::streaming::Streaming;
use crate::streaming::messages::{self, MessageReader, RecordError, TooLarge};
use crate::streaming::writer::{Ended, MessageWriter, Messages, Outgoing};

/// A call with streams that was started.
struct Begun {
    call: StreamedCall,
    send: SendStream,
    encoding: Encoding,
    /// `true` if the arguments are kept for another attempt.
    kept: bool,
}

/// A running call with streams.
pub(super) struct StreamedCall {
    client: Client,
    method: &'static MethodDescriptor,
    records: MessageReader,
    codec: CodecId,
    started: Instant,
    /// The task that sends, if one does.
    sending: Option<Sending>,
    /// The interceptors, which wait for the end of the stream.
    intercepted: Option<InterceptedCall>,
}

/// The next item of a call.
enum Next {
    Message(Bytes),
    /// The end of the call, with its final reply.
    End(Result<Bytes, Status>),
    /// An interceptor has ended the call.
    Aborted(Status),
}

/// The messages to send with a call.
pub(super) type DynMessages<'a> = dyn Messages<Status> + Send + 'a;

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
        let mut body = StreamBody::new(args);
        match self.open(method, ctx, &mut body, None).await {
            Ok(call) => Ok(call.into_stream()),
            Err(failure) => Err(body.into_error(failure)),
        }
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
        messages: Streaming<U>,
    ) -> Result<T, E>
    where
        A: Arguments + Send,
        U: Serialize + Send + 'static,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        let mut body = TypedBody::new(args);
        let mut messages = Outgoing(messages);
        let kind = Kind::Upload(&mut messages);
        let outcome = self.run(method, ctx, kind, &mut body).await;
        body.into_result(outcome)
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
        let mut body = StreamBody::new(args);
        let messages: Box<DynMessages<'static>> = Box::new(Outgoing(messages));
        match self.open(method, ctx, &mut body, Some(messages)).await {
            Ok(call) => Ok(call.into_stream()),
            Err(failure) => Err(body.into_error(failure)),
        }
    }

    /// Opens a call that replies with a stream, and sends `messages` if there are any. Completes
    /// once the method has accepted the call.
    pub(super) async fn open(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: &mut dyn CallBody,
        messages: Option<Box<DynMessages<'static>>>,
    ) -> Result<StreamedCall, Failure> {
        match self.awake_interceptors(ctx) {
            Some(interceptors) => {
                // Boxed, because most calls have no interceptors, and their futures stay small.
                let open = self.open_intercepted(interceptors, method, ctx, body, messages);
                Box::pin(open).await
            }
            None => self.open_now(method, ctx, body, messages).await,
        }
    }

    async fn open_intercepted(
        &self,
        interceptors: &Layers<ClientCall>,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: &mut dyn CallBody,
        messages: Option<Box<DynMessages<'static>>>,
    ) -> Result<StreamedCall, Failure> {
        let times = Times::new(self, method, ctx);
        let entering = self.enter(interceptors, method, ctx, times.start.deadline, times.whole);
        let (mut intercepted, client, ctx) = entering.await?;
        let opening = client.open_now(method, Some(&ctx), body, messages);
        let failure = match intercepted.run(opening).await? {
            Ok(mut call) => {
                call.intercepted = Some(intercepted);
                return Ok(call);
            }
            Err(failure) => failure,
        };
        let failed = Err(failure);
        match intercepted.leave(outcome(body, &failed)).await {
            Some(status) => Err(status.into()),
            None => failed.and_then(|()| Err(unexpected().into())),
        }
    }

    async fn open_now(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: &mut dyn CallBody,
        messages: Option<Box<DynMessages<'static>>>,
    ) -> Result<StreamedCall, Failure> {
        let Some(messages) = messages else {
            return self.open_with_retries(method, ctx, body).await;
        };
        let (mut call, writer, times) = self.begin_upload(method, ctx, body).await?;
        let sending = Sending(Some(tokio::spawn(send_all(writer, messages))));
        match call.accepted(body).await {
            Ok(()) => {
                call.has_until(times.whole);
                call.sending = Some(sending);
                Ok(call)
            }
            Err(Failure::Status(status)) => Err(not_accepted(status, &sending).into()),
            Err(failure) => Err(failure),
        }
    }

    /// Opens a call that sends nothing but its arguments, with retries if necessary.
    async fn open_with_retries(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: &mut dyn CallBody,
    ) -> Result<StreamedCall, Failure> {
        let mut attempts = Attempts::default();
        self.settings.budget.deposit();
        let mut times = Times::new(self, method, ctx);
        // The only exit for a call that fails: the outcome accounts for what earlier attempts may
        // have done, whatever the last failure was.
        let failed = loop {
            let begun = self
                .begin(method, ctx, body, &mut times, &mut attempts)
                .await;
            let Begun {
                mut call,
                mut send,
                kept,
                ..
            } = match begun {
                Ok(begun) => begun,
                Err(status) => break status,
            };
            send.finish();
            let status = match call.accepted(body).await {
                Ok(()) => {
                    call.has_until(times.whole);
                    return Ok(call);
                }
                Err(Failure::Status(status)) => status,
                Err(own) => return Err(own),
            };
            let deadline = times.start.deadline;
            let pause = kept.then(|| self.pause(method, &mut attempts, &status, deadline));
            let Some(pause) = pause.flatten() else {
                break status;
            };
            times.pause(pause).await;
        };
        Err(attempts.outcome(failed).into())
    }

    /// Makes a call that sends `messages` and has a single reply.
    pub(super) async fn upload(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: &mut dyn CallBody,
        messages: &mut DynMessages<'_>,
    ) -> Result<(), Failure> {
        let (mut call, writer, times) = self.begin_upload(method, ctx, body).await?;
        let mut writer = Some(writer);
        let mut is_accepted = false;
        let answer = poll_fn(|cx| {
            if let Some(sending) = &mut writer
                && let Poll::Ready(ended) = sending.poll(cx, messages)
            {
                if let Some(status) = on_sent(sending, ended) {
                    return Poll::Ready(Err(Failure::Status(status)));
                }
                writer = None;
            }
            loop {
                match ready!(call.poll_next(cx)) {
                    Next::Message(record) if !is_accepted => {
                        if let Err(failure) = call.accept(record, body) {
                            return Poll::Ready(Err(failure));
                        }
                        is_accepted = true;
                        call.has_until(times.whole);
                    }
                    Next::Message(_) => {
                        return Poll::Ready(Err(call.bad_answer(unexpected()).into()));
                    }
                    Next::Aborted(status) => return Poll::Ready(Err(status.into())),
                    Next::End(answer) => return Poll::Ready(answer.map_err(Failure::from)),
                }
            }
        });
        let answer = answer.await?;
        self.decode(method, answer, call.started, body)
    }

    /// Starts a call that sends messages. It is not retried: messages are not kept once sent.
    async fn begin_upload(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: &mut dyn CallBody,
    ) -> Result<(StreamedCall, MessageWriter<Status>, Times), Status> {
        self.settings.budget.deposit();
        let mut times = Times::new(self, method, ctx);
        let mut attempts = Attempts::default();
        let begun = self
            .begin(method, ctx, body, &mut times, &mut attempts)
            .await?;
        let writer = MessageWriter::new(begun.send, begun.encoding, self.settings.limits);
        Ok((begun.call, writer, times))
    }

    /// Starts a call with streams on a connection.
    async fn begin(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: &mut dyn CallBody,
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
            place.set(Metadata::new());
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
                (tail, kept) = self.encode(method, ctx, body, Some(encoding), remaining, out)?;
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
            body.release();
        }
        let call = StreamedCall {
            client: self.clone(),
            method,
            records: MessageReader::new(recv, self.settings.limits),
            codec: encoding.codec,
            started: times.start.started,
            sending: None,
            intercepted: None,
        };
        Ok(Begun {
            call,
            send,
            encoding,
            kept,
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
    /// The stream for the caller.
    pub(super) fn into_stream<T, E>(self) -> Streaming<T, E>
    where
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        Streaming::new(ReplyStream {
            state: StreamState::Flowing(Box::new(self)),
            error: None,
            types: PhantomData,
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(intercepted) = &mut self.intercepted
            && let Poll::Ready(status) = intercepted.poll_ended(cx)
        {
            return Poll::Ready(Next::Aborted(status));
        }
        if let Some(sending) = &mut self.sending
            && let Poll::Ready(status) = sending.poll_failure(cx)
        {
            return Poll::Ready(Next::End(Err(status)));
        }
        Poll::Ready(match ready!(self.records.poll_next(cx)) {
            Some(Ok(message)) => Next::Message(message),
            Some(Err(error)) => Next::End(Err(self.bad_answer(record_status(error)))),
            None => Next::End(self.answer()),
        })
    }

    fn answer(&mut self) -> Result<Bytes, Status> {
        let answer = self.records.answer();
        answer
            .unwrap_or_else(|| Ok(Bytes::new()))
            .map_err(|error| call_status(&error, Some(self.method)))
    }

    /// Reads the final reply.
    fn end(&self, answer: Bytes, body: &mut dyn CallBody) -> Result<(), Failure> {
        self.client.decode(self.method, answer, self.started, body)
    }

    /// Waits for the record that accepts the call.
    async fn accepted(&mut self, body: &mut dyn CallBody) -> Result<(), Failure> {
        match poll_fn(|cx| self.poll_next(cx)).await {
            Next::Message(record) => self.accept(record, body),
            Next::End(answer) => {
                self.end(answer?, body)?;
                Err(self.bad_answer(unexpected()).into())
            }
            Next::Aborted(status) => Err(status.into()),
        }
    }

    /// Reads the record that accepts the call. Any other outcome is the failure of the call.
    fn accept(&self, record: Bytes, body: &mut dyn CallBody) -> Result<(), Failure> {
        let head = ReplyHead::read(record.clone());
        let (head, _) = head.map_err(|error| self.bad_answer(error.reply_status()))?;
        if head.outcome != envelope::Outcome::Value {
            self.end(record, body)?;
            return Err(self.bad_answer(unexpected()).into());
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
fn on_sent(writer: &mut MessageWriter<Status>, ended: Ended<Status>) -> Option<Status> {
    match ended {
        Ended::Complete => {
            writer.finish();
            None
        }
        // The end of the call carries the more precise status.
        Ended::Over => None,
        Ended::Failed(status) | Ended::Refused(status) => Some(status),
        Ended::Unread(error) => Some(Status::resource_exhausted(error.to_string())),
    }
}

/// Sends all messages of a stream; returns the status with which the call has to end, if any. The
/// writer is returned too: dropping it before its end would end the call with a reason of its own.
async fn send_all(
    mut writer: MessageWriter<Status>,
    mut messages: Box<DynMessages<'static>>,
) -> (Option<Status>, MessageWriter<Status>) {
    let ended = poll_fn(|cx| writer.poll(cx, &mut *messages)).await;
    (on_sent(&mut writer, ended), writer)
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
    state: StreamState,
    /// The error that the stream ends with, while its interceptors see it.
    error: Option<E>,
    types: PhantomData<fn() -> T>,
}

enum StreamState {
    Flowing(Box<StreamedCall>),
    /// The stream has ended, and the interceptors see its outcome. They may replace it.
    Leaving(BoxFuture<'static, Option<Status>>),
    Over,
}

impl StreamState {
    /// Ends the stream. Its interceptors, if there are any, see `outcome` next.
    fn end(&mut self, outcome: impl FnOnce() -> Outcome) {
        let before = std::mem::replace(self, Self::Over);
        if let Self::Flowing(mut call) = before
            && let Some(intercepted) = call.intercepted.take()
        {
            *self = Self::Leaving(Box::pin(intercepted.leave(outcome())));
        }
    }
}

impl<T, E: MethodError> ReplyStream<T, E> {
    /// Returns the next message, or the error that the stream ends with.
    fn poll_message(
        call: &mut StreamedCall,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, (Option<E>, bool)>>
    where
        T: DeserializeOwned + 'static,
    {
        let limits = call.client.settings.limits;
        let mut body = StreamBody::<(), E>::new(());
        let failure = match ready!(call.poll_next(cx)) {
            Next::Message(message) => match decode_value(call.codec, &message, &limits) {
                Ok(message) => return Poll::Ready(Ok(message)),
                Err(error) => {
                    let status = error.status_of_reply("message of the stream", call.codec);
                    Some(call.bad_answer(status).into())
                }
            },
            Next::Aborted(status) => return Poll::Ready(Err((Some(status.into()), true))),
            Next::End(Ok(answer)) => call.end(answer, &mut body).err(),
            Next::End(Err(status)) => Some(status.into()),
        };
        Poll::Ready(Err((
            failure.map(|failure| body.into_error(failure)),
            false,
        )))
    }
}

impl<T: DeserializeOwned + 'static, E: MethodError> Stream for ReplyStream<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        let this = &mut *self;
        if let StreamState::Flowing(call) = &mut this.state {
            match ready!(Self::poll_message(call, cx)) {
                Ok(message) => return Poll::Ready(Some(Ok(message))),
                Err((error, true)) => {
                    this.state = StreamState::Over;
                    this.error = error;
                }
                Err((error, false)) => {
                    let outcome = || error.as_ref().map_or(Outcome::Ok, Outcome::of_error);
                    this.state.end(outcome);
                    this.error = error;
                }
            }
        }
        if let StreamState::Leaving(leaving) = &mut this.state {
            let status = ready!(leaving.as_mut().poll(cx));
            this.state = StreamState::Over;
            if let Some(status) = status {
                this.error = Some(status.into());
            }
        }
        Poll::Ready(this.error.take().map(Err))
    }
}

impl<T, E> Unpin for ReplyStream<T, E> {}
