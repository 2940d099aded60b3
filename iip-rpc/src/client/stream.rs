//! Calls with streams of messages, at the client.
//!
//! To follow one call, begin at [`Client::server_stream`], or [`Client::client_stream`].

use std::future::poll_fn;
use std::task::{Poll, ready};

use iip_core::__rpc::{Picked, now};
use iip_core::SendStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::coop::consume_budget;

use super::Client;
use super::body::{Failure, StreamBody, TypedBody, outcome};
use super::call::{CallSpec, Kind};
use super::failure::not_sent;
use super::streamed::{Next, Sending, StreamedCall, on_sent, unexpected};
use super::times::Times;
use crate::arguments::Arguments;
use crate::compression::Encoding;
use crate::context::CallContext;
use crate::interceptor::{ClientCall, Layers};
use crate::metadata::Metadata;
use crate::method::MethodDescriptor;
use crate::retry::Attempts;
use crate::status::{Code, MethodError, Status};
use crate::streaming::Streaming;
use crate::streaming::messages::{self, MessageReader, TooLarge};
use crate::streaming::writer::{DynMessages, MessageWriter, Outgoing};

/// A call with streams that was started.
struct Begun {
    call: StreamedCall,
    send: SendStream,
    encoding: Encoding,
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
    pub fn server_stream<A, T, I, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> impl Future<Output = Result<Streaming<T, I>, E>> + Send
    where
        A: Arguments + Send,
        T: DeserializeOwned + Send + 'static,
        I: MethodError,
        E: MethodError,
    {
        async move {
            let mut body = StreamBody::new(args);
            let mut spec = CallSpec::new(method, ctx, &mut body);
            match self.open(&mut spec, None).await {
                Ok(call) => Ok(call.into_stream()),
                Err(failure) => Err(body.into_error(failure)),
            }
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
    pub fn client_stream<A, U, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
        messages: Streaming<U>,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        A: Arguments + Send,
        U: Serialize + Send + 'static,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        async move {
            let mut body = TypedBody::new(args);
            let mut messages = Outgoing(messages);
            let kind = Kind::Upload(&mut messages);
            let mut spec = CallSpec::new(method, ctx, &mut body);
            let outcome = self.run(&mut spec, kind).await;
            body.into_result(outcome)
        }
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
    pub fn bidi_stream<A, U, T, I, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
        messages: Streaming<U>,
    ) -> impl Future<Output = Result<Streaming<T, I>, E>> + Send
    where
        A: Arguments + Send,
        U: Serialize + Send + 'static,
        T: DeserializeOwned + Send + 'static,
        I: MethodError,
        E: MethodError,
    {
        async move {
            let mut body = StreamBody::new(args);
            let messages: Box<DynMessages<'static>> = Box::new(Outgoing(messages));
            let mut spec = CallSpec::new(method, ctx, &mut body);
            match self.open(&mut spec, Some(messages)).await {
                Ok(call) => Ok(call.into_stream()),
                Err(failure) => Err(body.into_error(failure)),
            }
        }
    }

    /// Opens a call that replies with a stream, and sends `messages` if there are any. Completes
    /// once the method has accepted the call.
    pub(super) async fn open(
        &self,
        spec: &mut CallSpec<'_>,
        messages: Option<Box<DynMessages<'static>>>,
    ) -> Result<StreamedCall, Failure> {
        match self.awake_interceptors() {
            Some(interceptors) => {
                // Boxed, because most calls have no interceptors, and their futures stay small.
                let open = self.open_intercepted(interceptors, spec, messages);
                Box::pin(open).await
            }
            None => self.open_now(spec, messages).await,
        }
    }

    async fn open_intercepted(
        &self,
        interceptors: &Layers<ClientCall>,
        spec: &mut CallSpec<'_>,
        messages: Option<Box<DynMessages<'static>>>,
    ) -> Result<StreamedCall, Failure> {
        let (method, ctx) = (spec.method, spec.ctx);
        let times = Times::new(self, method, ctx);
        let entering = self.enter(interceptors, method, ctx, times.start.deadline, times.whole);
        let (mut intercepted, client, ctx) = entering.await?;
        let mut admitted = spec.in_context(&ctx);
        let opening = client.open_now(&mut admitted, messages);
        let failure = match intercepted.run(opening).await? {
            Ok(mut call) => {
                call.intercepted = Some(intercepted);
                return Ok(call);
            }
            Err(failure) => failure,
        };
        // The type is that of calls which may succeed; this one has failed.
        let failed = Err(failure);
        match intercepted.leave(outcome(spec.body, &failed)).await {
            Some(status) => Err(status.into()),
            None => failed.and_then(|()| Err(unexpected().into())),
        }
    }

    async fn open_now(
        &self,
        spec: &mut CallSpec<'_>,
        messages: Option<Box<DynMessages<'static>>>,
    ) -> Result<StreamedCall, Failure> {
        let Some(messages) = messages else {
            return self.open_with_retries(spec).await;
        };
        let (mut call, writer, times) = self.begin_upload(spec).await?;
        // A task of its own, because the method may accept the call only after some messages, and
        // the caller may not read until it has sent all of its own.
        let sending = Sending::spawn(writer, messages);
        match call.accepted(spec.body).await {
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
    async fn open_with_retries(&self, spec: &mut CallSpec<'_>) -> Result<StreamedCall, Failure> {
        let mut attempts = Attempts::default();
        self.settings.budget.deposit();
        let mut times = Times::new(self, spec.method, spec.ctx);
        // The only exit for a call that fails: the outcome accounts for what earlier attempts may
        // have done, whatever the last failure was.
        let failed = loop {
            let begun = self.begin(spec, &mut times, &mut attempts).await;
            let Begun {
                mut call, mut send, ..
            } = match begun {
                Ok(begun) => begun,
                Err(status) => break status,
            };
            // The arguments are all that is sent; what does not fit into the credit follows by
            // itself.
            send.finish();
            let status = match call.accepted(spec.body).await {
                Ok(()) => {
                    call.has_until(times.whole);
                    return Ok(call);
                }
                Err(Failure::Status(status)) => {
                    call.tried(&status, &mut attempts);
                    status
                }
                Err(own) => return Err(own),
            };
            let deadline = times.start.deadline;
            let pause = self.retry_pause(spec, &mut attempts, &status, deadline);
            let Some(pause) = pause else {
                break status;
            };
            times.pause(pause).await;
        };
        Err(attempts.outcome(failed).into())
    }

    /// Makes a call that sends `messages` and has a single reply.
    pub(super) async fn upload(
        &self,
        spec: &mut CallSpec<'_>,
        messages: &mut DynMessages<'_>,
    ) -> Result<(), Failure> {
        let (mut call, writer, times) = self.begin_upload(spec).await?;
        let mut writer = Some(writer);
        let mut is_accepted = false;
        let reply = poll_fn(|cx| {
            // Both directions progress in the task of the caller, so the messages may borrow from
            // it.
            if let Some(sending) = &mut writer
                && let Poll::Ready(ended) = sending.poll(cx, messages)
            {
                if let Some(status) = on_sent(sending, ended) {
                    return Poll::Ready(Err(Failure::Status(status)));
                }
                // A writer that has finished, or whose call has ended, can be dropped without an
                // effect.
                writer = None;
            }
            loop {
                match ready!(call.poll_next(cx)) {
                    Next::Message(record) if !is_accepted => {
                        if let Err(failure) = call.accept(record, spec.body) {
                            return Poll::Ready(Err(failure));
                        }
                        is_accepted = true;
                        call.has_until(times.whole);
                    }
                    Next::Message(_) => {
                        return Poll::Ready(Err(call.bad_reply(unexpected()).into()));
                    }
                    Next::Aborted(status) => return Poll::Ready(Err(status.into())),
                    Next::End(reply) => return Poll::Ready(reply.map_err(Failure::from)),
                }
            }
        });
        let reply = reply.await?;
        call.end(reply, spec.body)
    }

    /// Starts a call that sends messages. It is not retried: messages are not kept once sent.
    async fn begin_upload(
        &self,
        spec: &mut CallSpec<'_>,
    ) -> Result<(StreamedCall, MessageWriter<Status>, Times), Status> {
        self.settings.budget.deposit();
        let mut times = Times::new(self, spec.method, spec.ctx);
        let mut attempts = Attempts::default();
        let begun = self.begin(spec, &mut times, &mut attempts).await?;
        let writer = MessageWriter::new(begun.send, begun.encoding, self.settings.limits);
        Ok((begun.call, writer, times))
    }

    /// Starts a call with streams on a connection.
    async fn begin(
        &self,
        spec: &mut CallSpec<'_>,
        times: &mut Times,
        attempts: &mut Attempts,
    ) -> Result<Begun, Status> {
        // A task whose calls all fail at once must still give other tasks their turn.
        consume_budget().await;
        let method = spec.method;
        let args = || self.pick_args(method, attempts);
        let picked = match self.core.pick(times.start.connected, args) {
            Ok(picked) => picked,
            Err(not_picked) => {
                self.wait_for_connection(Some(method), not_picked, &mut times.start, attempts)
                    .await?
            }
        };
        let Picked {
            connection,
            tracker,
        } = picked;
        self.options.called.set(tracker.as_ref());
        if self.must_check(method, connection.peer()) {
            let deadline = times.start.deadline;
            Box::pin(self.check_method(method, &connection, deadline)).await;
            times.start.connected = now();
        }
        if let Some(place) = &self.options.reply_metadata {
            place.set(Metadata::new());
        }
        let Some(encoding) = self.encoding(method, connection.peer())? else {
            let text = format!("{method} has streams, which its server does not support");
            return Err(not_sent(Status::unimplemented(text)));
        };
        let remaining = times.remaining();
        let (send, recv) = connection.start_stream(method.static_path(), &times.start, |out| {
            let written = messages::write_envelope::<Status>(out, |out| {
                self.encode(spec, Some(encoding), remaining, out)
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
        spec.release();
        let records = MessageReader::new(recv, self.settings.limits);
        let mut call = StreamedCall::new(self, method, records, encoding.codec, &times.start);
        call.tracker = tracker;
        Ok(Begun {
            call,
            send,
            encoding,
        })
    }
}

/// Rewords the status of a call whose time ran out before the method accepted it, to say what the
/// call was waiting for.
#[cold]
fn not_accepted(status: Status, sending: &Sending) -> Status {
    if status.code() != Code::DeadlineExceeded || !sending.is_running() {
        return status;
    }
    let text = format!(
        "{}; the method has not accepted the stream, and may be waiting for messages that this \
         caller has not sent yet",
        status.message()
    );
    status.reworded(text)
}
