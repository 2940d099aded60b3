//! A running call with streams of messages, at the client, and the stream that its caller reads.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use iip_core::__rpc::{CallTimes, CallTracker, after, now, outcome_of};
use iip_core::balance::Outcome as BackendOutcome;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::Client;
use super::body::{CallBody, Failure, StreamBody};
use super::failure::{add_tried, bad_reply, call_status, status_outcome};
use super::intercept::InterceptedCall;
use crate::boxed::BoxFuture;
use crate::codec::{CodecId, decode_value};
use crate::envelope::{self, ReplyHead};
use crate::interceptor::Outcome;
use crate::method::MethodDescriptor;
use crate::retry::Attempts;
use crate::status::{MethodError, Status};
use crate::streaming::Streaming;
use crate::streaming::messages::{MessageReader, RecordError, TooLarge};
use crate::streaming::writer::{DynMessages, Ended, MessageWriter};

/// A running call with streams.
pub(super) struct StreamedCall {
    client: Client,
    method: &'static MethodDescriptor,
    records: MessageReader,
    codec: CodecId,
    pub(super) started: Instant,
    connected: Instant,
    /// The account of the call with the backend of a balanced client.
    pub(super) tracker: Option<CallTracker>,
    /// The task that sends, if one does.
    pub(super) sending: Option<Sending>,
    /// The interceptors, which wait for the end of the stream.
    pub(super) intercepted: Option<InterceptedCall>,
}

/// The next item of a call.
pub(super) enum Next {
    Message(Bytes),
    /// The end of the call, with its final reply.
    End(Result<Bytes, Status>),
    /// An interceptor has ended the call.
    Aborted(Status),
}

impl StreamedCall {
    pub(super) fn new(
        client: &Client,
        method: &'static MethodDescriptor,
        records: MessageReader,
        codec: CodecId,
        times: &CallTimes,
    ) -> Self {
        Self {
            client: client.clone(),
            method,
            records,
            codec,
            started: times.started,
            connected: times.connected,
            tracker: None,
            sending: None,
            intercepted: None,
        }
    }

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

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(intercepted) = &mut self.intercepted
            && let Poll::Ready(status) = intercepted.poll_ended(cx)
        {
            return Poll::Ready(Next::Aborted(status));
        }
        // The failure of the stream to send is the reason for the end that it causes.
        if let Some(sending) = &mut self.sending
            && let Poll::Ready(status) = sending.poll_failure(cx)
        {
            return Poll::Ready(Next::End(Err(status)));
        }
        Poll::Ready(match ready!(self.records.poll_next(cx)) {
            Some(Ok(message)) => Next::Message(message),
            // What has ended the stream is the reason for the end of the message.
            Some(Err(RecordError::Truncated)) => Next::End(match self.reply() {
                Ok(_) => Err(self.bad_reply(record_status(RecordError::Truncated))),
                Err(status) => Err(status),
            }),
            Some(Err(error)) => Next::End(Err(self.bad_reply(record_status(error)))),
            None => Next::End(self.reply()),
        })
    }

    fn reply(&mut self) -> Result<Bytes, Status> {
        let reply = self.records.reply();
        reply.unwrap_or_else(|| Ok(Bytes::new())).map_err(|error| {
            if let Some(tracker) = &mut self.tracker {
                tracker.end(self.connected, outcome_of(&error));
            }
            call_status(&error, Some(self.method))
        })
    }

    /// Reads the final reply.
    pub(super) fn end(&mut self, reply: Bytes, body: &mut dyn CallBody) -> Result<(), Failure> {
        let result = self.client.decode(self.method, reply, self.started, body);
        if let Some(tracker) = &mut self.tracker {
            let outcome = match &result {
                Err(Failure::Status(status)) => status_outcome(status, tracker),
                // The duration of a stream says nothing about the backend.
                _ => BackendOutcome::Untimed,
            };
            tracker.end(self.connected, outcome);
        }
        result
    }

    /// Records that the call was not accepted.
    #[cold]
    pub(super) fn tried(&self, status: &Status, attempts: &mut Attempts) {
        if let Some(tracker) = &self.tracker {
            add_tried(tracker, status, attempts);
        }
    }

    /// Reads a message of the stream.
    #[inline]
    fn decode<T: DeserializeOwned + 'static>(&self, message: &Bytes) -> Result<T, Status> {
        decode_value(self.codec, message, &self.client.settings.limits).map_err(|error| {
            self.bad_reply(error.status_of_reply("message of the stream", self.codec))
        })
    }

    /// Returns the error that the stream ends with, given its final reply: once per stream.
    #[cold]
    fn error<E: MethodError>(&mut self, reply: Result<Bytes, Status>) -> Option<E> {
        let mut body = StreamBody::<(), E>::new(());
        let ended = match reply {
            Ok(reply) => self.end(reply, &mut body),
            Err(status) => Err(status.into()),
        };
        ended.err().map(|failure| body.into_error(failure))
    }

    /// Waits for the record that accepts the call.
    pub(super) async fn accepted(&mut self, body: &mut dyn CallBody) -> Result<(), Failure> {
        match poll_fn(|cx| self.poll_next(cx)).await {
            Next::Message(record) => self.accept(record, body),
            Next::End(reply) => {
                self.end(reply?, body)?;
                Err(self.bad_reply(unexpected()).into())
            }
            Next::Aborted(status) => Err(status.into()),
        }
    }

    /// Reads the record that accepts the call. Any other outcome is the failure of the call.
    pub(super) fn accept(&mut self, record: Bytes, body: &mut dyn CallBody) -> Result<(), Failure> {
        // The record is kept for the case that it is not the acceptance but the outcome of the
        // call.
        let head = ReplyHead::read(record.clone());
        let (head, _) = head.map_err(|error| self.bad_reply(error.reply_status()))?;
        if head.outcome != envelope::Outcome::Value {
            self.end(record, body)?;
            return Err(self.bad_reply(unexpected()).into());
        }
        if let Some(place) = &self.client.options.reply_metadata {
            place.set(head.metadata);
        }
        Ok(())
    }

    pub(super) fn bad_reply(&self, status: Status) -> Status {
        bad_reply(self.method, self.started, None, status)
    }

    /// The call was accepted: from now on only the deadline of the whole call applies, if it has
    /// one.
    pub(super) fn has_until(&mut self, whole: Option<Instant>) {
        let deadline = whole.unwrap_or_else(|| after(now(), Duration::MAX));
        self.records.recv().set_deadline(deadline);
    }
}

/// The status for a reply that a call with streams cannot have.
pub(super) fn unexpected() -> Status {
    Status::internal("the server's reply is not valid for a call with streams")
}

fn record_status(error: RecordError) -> Status {
    match error {
        RecordError::Cut => Status::unavailable("the stream was cut off"),
        RecordError::Compressed(error) => error.reply_status(),
        RecordError::Stalled(limit) => Status::unavailable(format!(
            "no bytes of an unfinished message arrived for {limit:?} (options progress_timeout and \
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
pub(super) fn on_sent(writer: &mut MessageWriter<Status>, ended: Ended<Status>) -> Option<Status> {
    match ended {
        Ended::Complete => {
            writer.finish();
            None
        }
        // The end of the call carries the more precise status.
        Ended::Over => None,
        Ended::Failed(status) | Ended::Rejected(status) => Some(status),
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
pub(super) struct Sending(Option<JoinHandle<(Option<Status>, MessageWriter<Status>)>>);

impl Sending {
    pub(super) fn spawn(
        writer: MessageWriter<Status>,
        messages: Box<DynMessages<'static>>,
    ) -> Self {
        Self(Some(tokio::spawn(send_all(writer, messages))))
    }

    /// Returns `true` if messages are still to be sent.
    pub(super) fn is_running(&self) -> bool {
        self.0.as_ref().is_some_and(|task| !task.is_finished())
    }

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
        // The writer is dropped with the task: if it did not finish its stream, the call ends.
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
            // The outcome is only made if somebody sees it.
            *self = Self::Leaving(Box::pin(intercepted.leave(outcome())));
        }
    }
}

impl<T: DeserializeOwned + 'static, E: MethodError> Stream for ReplyStream<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        let this = &mut *self;
        if let StreamState::Flowing(call) = &mut this.state {
            let error = match ready!(call.poll_next(cx)) {
                Next::Message(message) => match call.decode(&message) {
                    Ok(message) => return Poll::Ready(Some(Ok(message))),
                    Err(status) => Some(status.into()),
                },
                Next::End(reply) => call.error(reply),
                Next::Aborted(status) => {
                    // The interceptors have ended already, so they do not see this outcome.
                    call.intercepted = None;
                    Some(status.into())
                }
            };
            let outcome = || error.as_ref().map_or(Outcome::Ok, Outcome::of_error);
            this.state.end(outcome);
            this.error = error;
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
