//! The typed client: from arguments to a message, and from the reply to a value.
//!
//! To follow one call, begin at [`Client::unary`].

mod builder;
mod failure;
mod hedge;
mod intercept;
mod options;
#[cfg(feature = "tower")]
mod service;
mod streaming;
mod subscribe;

use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use iip_core::transport::ToEndpoint;
use iip_core::{Call, CallTimes, Connection};
use serde::de::DeserializeOwned;

pub use self::builder::ClientBuilder;
use self::builder::Settings;
use self::failure::{bad_answer, call_status, not_sent, phases, plain_failure, request_too_large};
pub use self::options::{CallOptions, ReplyMetadata};
#[cfg(feature = "tower")]
pub use self::service::{ClientService, RawRequest};
use crate::arguments::Arguments;
use crate::codec::{CodecId, DecodeError, decode_value};
use crate::compression::{CompressionId, Compressor, Encoding, decompress_in_place};
use crate::context::{CallContext, after, now};
use crate::envelope::{self, Outcome, PlainError, ReplyHead, RequestHead};
use crate::hello::RpcPeer;
use crate::interceptor::{self, ClientCall, ClientInterceptor, Layers};
use crate::metadata::Metadata;
use crate::method::{Format, MethodDescriptor};
use crate::policy::RetryPolicy;
use crate::raw::RawBody;
use crate::retry::{self, Attempts, Failure, Rules, TransparentRetries};
use crate::status::{MethodError, Status};

/// Client for the services of one server. Cheap to clone; all clones share the connections.
///
/// Generated clients hold one: `GreeterClient::new(client)`. Several services can share it;
/// `GreeterClient::connect(target)` creates one with the defaults.
///
/// Lost connections are replaced when the next call is made. A typed call that was not sent or not
/// executed, because its connection was lost or the server is going away, is retried within its
/// deadline, up to five times. A call that may have run is retried according to its [`RetryPolicy`]
/// if its method is idempotent. Arguments of more than 64 KiB are not kept for retries. A call
/// fails by its deadline, with a [`Status`] that contains the error, the time spent in each phase,
/// and whether the call may have run.
#[derive(Clone, Debug)]
pub struct Client {
    core: iip_core::Client,
    settings: Arc<Settings>,
    options: Arc<CallOptions>,
    interceptors: Layers<ClientCall>,
}

impl Client {
    /// Creates a builder for a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Connects with the defaults to `host:port`, `tcp://host:port`, `unix:/path`, `unix:@name` or
    /// a [`SocketAddr`](std::net::SocketAddr).
    ///
    /// # Errors
    ///
    /// Like [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub async fn connect(target: impl ToEndpoint) -> Result<Self, Status> {
        Self::builder().connect(target).await
    }

    fn over(core: iip_core::Client, settings: Settings, interceptors: Layers<ClientCall>) -> Self {
        Self {
            core,
            settings: Arc::new(settings),
            options: Arc::default(),
            interceptors,
        }
    }

    /// Returns the same client with other options for the calls made through it.
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Self {
        Self {
            options: Arc::new(options),
            ..self.clone()
        }
    }

    /// Returns the same client with one more interceptor, after the existing ones, for the calls
    /// made through it. See [`interceptor`].
    #[must_use]
    pub fn with_interceptor(&self, interceptor: impl ClientInterceptor) -> Self {
        let mut client = self.clone();
        client
            .interceptors
            .push(interceptor::at_client(interceptor));
        client
    }

    /// The underlying client: raw calls on the same connections.
    #[must_use]
    pub fn raw(&self) -> &iip_core::Client {
        &self.core
    }

    /// Closes all connections once their calls have received their replies, at the latest after
    /// `limit`. Later calls fail.
    ///
    /// # Cancel safety
    ///
    /// Closing continues when the future is dropped.
    pub async fn close(&self, limit: Duration) {
        self.core.close(limit).await;
    }

    /// Calls a method; generated clients use it.
    ///
    /// # Errors
    ///
    /// The method's own error, or a [`Status`] converted to its type.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    pub async fn unary<A, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> Result<T, E>
    where
        A: Arguments + Send,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        if let Some(interceptors) = self.awake_interceptors(ctx) {
            return self
                .intercepted_unary(interceptors, method, ctx, args)
                .await;
        }
        // The arguments are kept while the call may have to be retried.
        let mut args = Some(args);
        let start = |cx: &Context<'_>, attempt: Attempt<'_>| {
            let encoding = self.encoding(method, &attempt.connection)?;
            let mut kept = true;
            let call = attempt.connection.start_encoded(
                cx,
                method.static_path(),
                attempt.times,
                |out| {
                    let left = Some(attempt.remaining);
                    let tail;
                    (tail, kept) = self.encode(method, ctx, &mut args, encoding, left, out)?;
                    Ok::<_, Status>(tail)
                },
            )?;
            if !kept {
                args = None;
            }
            Ok((call, kept))
        };
        let read = |answer, started| self.decode(method, answer, started);
        self.call(method, ctx, start, read).await
    }

    /// Calls a one-way method; generated clients use it.
    ///
    /// Completes once the call is queued to be written, within the timeout of the call; see
    /// [`send`](iip_core::Client::send) of the underlying client for how servers treat it. The
    /// caller does not learn the outcome of the method. A call that could not be sent is retried
    /// like any other that has not run.
    ///
    /// # Errors
    ///
    /// The reason why it was not sent: a [`Status`] converted to the type of the method's error.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it completes, the call was not sent.
    pub async fn one_way<A, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> Result<(), E>
    where
        A: Arguments + Send,
        E: MethodError,
    {
        if let Some(interceptors) = self.awake_interceptors(ctx) {
            return self
                .intercepted_one_way(interceptors, method, ctx, args)
                .await;
        }
        let mut args = Some(args);
        let start = |_: &Context<'_>, attempt: Attempt<'_>| {
            let encoding = self.encoding(method, &attempt.connection)?;
            let mut kept = true;
            let connection = attempt.connection;
            let call = connection.start_one_way(method.static_path(), attempt.times, |out| {
                let tail;
                (tail, kept) = self.encode(method, ctx, &mut args, encoding, None, out)?;
                Ok::<_, Status>(tail)
            })?;
            if !kept {
                args = None;
            }
            Ok((call, kept))
        };
        self.call(method, ctx, start, |_, _| Ok(())).await
    }

    /// The interceptors, if at least one of them does not ignore the call.
    #[inline]
    fn awake_interceptors(&self, ctx: Option<&CallContext>) -> Option<&Layers<ClientCall>> {
        let own = ctx.and_then(CallContext::outgoing_metadata);
        match own {
            None => self.interceptors.active(&self.options.metadata),
            Some(own) => self
                .interceptors
                .active(own)
                .or_else(|| self.interceptors.active(&self.options.metadata)),
        }
    }

    /// Makes a call, with retries if necessary: `start` starts it on a connection and returns
    /// `true` with it if it could do so again; `read` decodes the reply.
    #[inline]
    async fn call<T, E: MethodError>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        mut start: impl FnMut(&Context<'_>, Attempt<'_>) -> Result<(Call, bool), Status> + Send,
        read: impl Fn(Bytes, Instant) -> Result<T, Failure<E>>,
    ) -> Result<T, E> {
        self.settings.budget.deposit();
        let mut attempts = Attempts::default();
        let (mut times, mut remaining) = self.times(method, ctx);
        // The only exit for a call that fails: the outcome accounts for what earlier attempts may
        // have done, whatever the last failure was.
        let failed = loop {
            let connection = match self.core.ready_connection() {
                Some(connection) => connection,
                None => {
                    let connecting =
                        self.wait_for_connection(Some(method), &mut times, &mut attempts);
                    // Boxed, because few calls have to wait, and the future of a call stays small.
                    let connection = match Box::pin(connecting).await {
                        Ok(connection) => connection,
                        Err(status) => break status,
                    };
                    remaining = times.deadline.saturating_duration_since(times.connected);
                    connection
                }
            };
            if method.is_one_way() && !connection.has_room_for_one_way() {
                let room = Box::pin(connection.room_for_one_way(times.deadline)).await;
                if let Err(error) = room {
                    break call_status(&error, Some(method));
                }
                times.connected = now();
            }
            if let Some(place) = &self.options.reply_metadata {
                place.set(Metadata::new());
            }
            let attempt = Attempt {
                connection,
                times: &times,
                remaining,
            };
            let started = iip_core::with_context(|cx| start(cx, attempt)).await;
            let (call, kept) = match started {
                Ok(started) => started,
                Err(status) => break status,
            };
            let status = {
                let answer = if kept && self.hedges(method) {
                    // Boxed for the same reason.
                    Box::pin(self.hedged(method, call, &times, &mut attempts, &mut start)).await
                } else {
                    call.await
                };
                match answer {
                    Ok(answer) => match read(answer, times.started) {
                        Ok(value) => return Ok(value),
                        Err(Failure::Own(error)) => return Err(error),
                        Err(Failure::Status(status)) => status,
                    },
                    Err(error) => call_status(&error, Some(method)),
                }
            };
            let pause = kept.then(|| self.pause(method, &mut attempts, &status, times.deadline));
            let Some(pause) = pause.flatten() else {
                break status;
            };
            if !pause.is_zero() {
                Box::pin(tokio::time::sleep(pause)).await;
            }
            times.connected = now();
            remaining = times.deadline.saturating_duration_since(times.connected);
        };
        Err(attempts.outcome(failed).into())
    }

    /// Returns the pause before a failed call is retried; `None` if it is not.
    #[cold]
    fn pause(
        &self,
        method: &MethodDescriptor,
        attempts: &mut Attempts,
        status: &Status,
        deadline: Instant,
    ) -> Option<Duration> {
        self.note_pushback(status);
        let rules = Rules {
            max_transparent_retries: self.max_transparent_retries(),
            idempotent: self.settings.policies.is_idempotent(method),
            policy: self.retry_policy(method),
            budget: &self.settings.budget,
        };
        attempts.next(&rules, status, now(), deadline)
    }

    fn retry_policy(&self, method: &MethodDescriptor) -> RetryPolicy {
        let own = self.options.retry;
        own.or_else(|| self.settings.policies.retry(method))
            .unwrap_or(self.settings.retry)
    }

    /// The maximum number of transparent retries of a call.
    fn max_transparent_retries(&self) -> u32 {
        match self.options.max_transparent_retries {
            Some(repeats) => repeats,
            None if self.waits_for_ready() => u32::MAX,
            None => self.settings.max_transparent_retries,
        }
    }

    /// Returns `true` if a call waits for an unavailable server instead of failing.
    fn waits_for_ready(&self) -> bool {
        self.options
            .wait_for_ready
            .unwrap_or(self.settings.wait_for_ready)
    }

    /// Calls a method bound to raw bytes: `body` and the reply are passed through unchanged.
    ///
    /// The in-band errors of IIP (codes -1, 101, 102, 106) become statuses: nothing else
    /// distinguishes them from data.
    ///
    /// # Errors
    ///
    /// Like [`unary`](Self::unary).
    ///
    /// # Cancel safety
    ///
    /// Like [`unary`](Self::unary).
    pub async fn unary_raw<B, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        body: B,
    ) -> Result<T, E>
    where
        B: RawBody + Send,
        T: From<Bytes> + Send,
        E: MethodError,
    {
        if let Some(interceptors) = self.awake_interceptors(ctx) {
            return self.intercepted_raw(interceptors, method, ctx, body).await;
        }
        let body = body.into_body();
        self.check_request_size(method, body.len())?;
        let start = |cx: &Context<'_>, attempt: Attempt<'_>| {
            let (path, times) = (method.static_path(), attempt.times);
            let call = attempt.connection.start_body(cx, path, times, body.clone());
            Ok((call, true))
        };
        let read = |answer: Bytes, started| match PlainError::read(&answer)
            .filter(PlainError::is_in_band)
        {
            Some(error) => Err(plain_failure(method, error, started).into()),
            None => match self.settings.limits.check_size(&answer) {
                Ok(()) => Ok(answer.into()),
                Err(error) => Err(bad_answer(method, started, None, error.reply_status()).into()),
            },
        };
        self.call(method, ctx, start, read).await
    }

    /// Makes the first connection of a client that is not lazy.
    async fn first_connection(&self) -> Result<(), Status> {
        let started = now();
        // A single attempt has its own timeout.
        let limit = if self.waits_for_ready() {
            self.settings.timeout
        } else {
            Duration::MAX
        };
        let mut times = CallTimes {
            started,
            connected: started,
            deadline: after(started, limit),
        };
        let mut attempts = Attempts::default();
        let connecting = self.wait_for_connection(None, &mut times, &mut attempts);
        connecting.await.map(drop)
    }

    /// Makes a connection; retries until the deadline if the call waits for the server.
    async fn wait_for_connection(
        &self,
        method: Option<&MethodDescriptor>,
        times: &mut CallTimes,
        attempts: &mut Attempts,
    ) -> Result<Connection, Status> {
        let mut repeats = TransparentRetries::default();
        loop {
            let connecting = self
                .core
                .wait_for_connection(times.connected, times.deadline);
            let status = match connecting.await {
                Ok((connection, now)) => {
                    times.connected = now;
                    return Ok(connection);
                }
                Err(error) => call_status(&error, method),
            };
            let pause = if self.waits_for_ready() {
                repeats.next(u32::MAX, &status, now(), times.deadline)
            } else if let Some(method) = method.filter(|_| attempts.has_retried()) {
                self.pause(method, attempts, &status, times.deadline)
            } else {
                // If the server cannot be reached, an immediate retry would not help.
                None
            };
            let Some(pause) = pause else {
                return Err(status);
            };
            tokio::time::sleep(pause).await;
            times.connected = now();
        }
    }

    /// The encoding of the values of a method on a connection; `None` without envelope.
    fn encoding(
        &self,
        method: &MethodDescriptor,
        connection: &Connection,
    ) -> Result<Option<Encoding>, Status> {
        let Format::Envelope = method.format() else {
            return Ok(None);
        };
        let wanted = method.service_codec().unwrap_or(self.settings.codec);
        let peer = connection.peer().extension(RpcPeer::read);
        let codec = peer.and_then(|peer| peer.codec(wanted));
        match method.refusal(codec.unwrap_or(CodecId::JSON)) {
            Some(status) => Err(not_sent(status)),
            None => Ok(codec.map(|codec| Encoding {
                codec,
                packer: self.packer(method, peer),
            })),
        }
    }

    /// The compressor for the messages of a method to a server, if they are compressed.
    #[inline]
    fn packer(&self, method: &MethodDescriptor, peer: Option<&RpcPeer>) -> Option<Compressor> {
        if !CompressionId::ANY {
            return None;
        }
        let settings = &self.settings;
        let own = self.options.compression;
        let wanted = own
            .or_else(|| settings.policies.compression(method))
            .unwrap_or(settings.compression)?;
        peer?.packer(wanted, settings.limits.body_bytes())
    }

    /// The times of a call that has its connection, and its budget. One budget covers everything
    /// from now to the reply: the call's own, bounded by the deadline of the call being handled.
    #[inline]
    fn times(&self, method: &MethodDescriptor, ctx: Option<&CallContext>) -> (CallTimes, Duration) {
        let started = now();
        let own = self
            .options
            .timeout
            .or_else(|| self.settings.policies.timeout(method))
            .unwrap_or(self.settings.timeout);
        let deadline = after(started, own);
        let given = ctx.and_then(CallContext::deadline);
        let inherited = CallContext::current_deadline().into_iter().chain(given);
        let (deadline, budget) = match inherited.min().filter(|&inherited| inherited < deadline) {
            Some(deadline) => (deadline, deadline.saturating_duration_since(started)),
            None => (deadline, own),
        };
        let times = CallTimes {
            started,
            connected: started,
            deadline,
        };
        (times, budget)
    }

    /// Writes a request to `out`; the returned bytes follow after it. The flag is `true` if the
    /// arguments are kept for another attempt.
    #[inline]
    fn encode<A: Arguments>(
        &self,
        method: &MethodDescriptor,
        ctx: Option<&CallContext>,
        args: &mut Option<A>,
        encoding: Option<Encoding>,
        remaining: Option<Duration>,
        out: &mut BytesMut,
    ) -> Result<(Bytes, bool), Status> {
        let start = out.len();
        if let Some(Encoding { codec, .. }) = encoding {
            match ctx.and_then(CallContext::outgoing_metadata) {
                None => {
                    RequestHead::write(codec, remaining, &self.options.metadata, out);
                }
                Some(own) => {
                    let mut all = self.options.metadata.clone();
                    all.append_all(own)
                        .map_err(|error| not_sent(error.into()))?;
                    RequestHead::write(codec, remaining, &all, out);
                }
            }
        }
        let body = out.len();
        let codec = encoding.map_or(CodecId::JSON, |encoding| encoding.codec);
        let encoded = args
            .as_mut()
            .map_or(Ok(None), |args| args.encode_split(method, codec, out));
        match encoded {
            Ok(tail) => {
                let tail = tail.unwrap_or_default();
                let size = out.len() - body + tail.len();
                self.check_request_size(method, size)?;
                let kept = out.len() - start + tail.len() <= retry::KEPT_BYTES;
                let packer = encoding
                    .as_ref()
                    .and_then(|encoding| encoding.packer.as_ref());
                let tail = envelope::pack_body(packer, out, start, body, tail);
                Ok((tail, kept))
            }
            Err(error) => Err(not_sent(Status::invalid_argument(format!(
                "{method}: cannot encode the arguments in {codec}: {error}"
            )))),
        }
    }

    #[inline]
    fn check_request_size(&self, method: &MethodDescriptor, size: usize) -> Result<(), Status> {
        let limits = &self.settings.limits;
        if size <= limits.body_bytes() {
            return Ok(());
        }
        Err(request_too_large(method, size, limits.message_bytes()))
    }

    fn decode<T, E>(
        &self,
        method: &MethodDescriptor,
        answer: Bytes,
        started: Instant,
    ) -> Result<T, Failure<E>>
    where
        T: DeserializeOwned + 'static,
        E: MethodError,
    {
        let limits = &self.settings.limits;
        let bad = |status, timing| bad_answer(method, started, timing, status).into();
        let value =
            |error: DecodeError, codec, timing| bad(error.status_of_reply("result", codec), timing);
        let own =
            |error: DecodeError, codec, timing| bad(error.status_of_reply("error", codec), timing);
        if !envelope::is_envelope(&answer) {
            let json = CodecId::JSON;
            return match PlainError::read(&answer) {
                None => {
                    decode_value(json, &answer, limits).map_err(|error| value(error, json, None))
                }
                Some(PlainError { error: Some(_), .. }) => {
                    Err(envelope::read_plain_error(&answer, limits)
                        .map_or_else(|error| own(error, json, None), Failure::Own))
                }
                Some(error) => Err(plain_failure(method, error, started).into()),
            };
        }
        let (head, mut body) =
            ReplyHead::read(answer).map_err(|error| bad(error.reply_status(), None))?;
        if let Some(place) = &self.options.reply_metadata {
            place.set(head.metadata.clone());
        }
        decompress_in_place(head.compression, &mut body, limits)
            .map_err(|error| bad(error.reply_status(), head.timing))?;
        match head.outcome {
            Outcome::Value => decode_value(head.codec, &body, limits)
                .map_err(|error| value(error, head.codec, head.timing)),
            Outcome::Error => Err(decode_value(head.codec, &body, limits)
                .map_or_else(|error| own(error, head.codec, head.timing), Failure::Own)),
            Outcome::Status => {
                let status = envelope::read_status(body, head.metadata)
                    .map_err(|error| bad(error.reply_status(), head.timing))?;
                Err(status.with_phases(phases(started, head.timing)).into())
            }
        }
    }
}

/// The parameters of one attempt of a call.
struct Attempt<'a> {
    connection: Connection,
    times: &'a CallTimes,
    /// Time that the call has left.
    remaining: Duration,
}
