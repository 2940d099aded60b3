//! The typed client: from arguments to a message, and from the answer to a value.
//!
//! One call from top to bottom is [`Client::unary`].

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

/// Calls services on one server. Cheap to clone; all clones share the connections.
///
/// Generated clients hold one: `GreeterClient::new(client)`. Several services can share it;
/// `GreeterClient::connect(target)` makes one with the defaults.
///
/// Lost connections are replaced when the next call is made. A typed call that was not sent or not
/// executed, because its connection was lost or the server is going away, is made again within its
/// time, up to five times; so is, by its [`RetryPolicy`], one that may have run if its method is
/// idempotent. Arguments of more than 64 KiB are not kept for that. A call fails within its time,
/// with a [`Status`] that says what happened, where the time went, and whether the call may have
/// run.
#[derive(Clone, Debug)]
pub struct Client {
    core: iip_core::Client,
    settings: Arc<Settings>,
    options: Arc<CallOptions>,
    interceptors: Layers<ClientCall>,
}

impl Client {
    /// Begins the description of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Connects with the defaults to `host:port`, `tcp://host:port`, `unix:/path`, `unix:@name` or
    /// a [`SocketAddr`](std::net::SocketAddr).
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt.
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

    /// The same client with other options for the calls made through it.
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Self {
        Self {
            options: Arc::new(options),
            ..self.clone()
        }
    }

    /// The same client with one interceptor more, behind those it has, for the calls made through
    /// it. See [`interceptor`].
    #[must_use]
    pub fn with_interceptor(&self, interceptor: impl ClientInterceptor) -> Self {
        let mut client = self.clone();
        client
            .interceptors
            .push(interceptor::at_client(interceptor));
        client
    }

    /// The client below: raw calls on the same connections.
    #[must_use]
    pub fn raw(&self) -> &iip_core::Client {
        &self.core
    }

    /// Ends all connections once their calls are answered, at the latest after `limit`. Later calls
    /// fail.
    ///
    /// # Cancel safety
    ///
    /// The end goes on when the future is dropped.
    pub async fn close(&self, limit: Duration) {
        self.core.close(limit).await;
    }

    /// Calls a method: what the methods of generated clients do.
    ///
    /// # Errors
    ///
    /// The method's own error, or a [`Status`] in its form.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is told.
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
        // Kept while the call may have to be made again.
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

    /// Calls a method that nobody waits for: what the methods of generated clients do.
    ///
    /// Ready once the call is queued to be written, within the time that a call has; see
    /// [`send`](iip_core::Client::send) of the client below for what servers make of it. How the
    /// method ends, only the server knows. A call that could not be sent is made again like any
    /// other that has not run.
    ///
    /// # Errors
    ///
    /// Why it was not sent: a [`Status`] in the form of the method's error.
    ///
    /// # Cancel safety
    ///
    /// When dropped before it is ready, the call was not sent.
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

    /// The interceptors, if there are any that do not leave a call alone.
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

    /// Makes a call, again if need be: `start` puts it on a connection and says whether it could do
    /// so again, `read` takes the answer.
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
        // The one way out for a call that fails: what earlier attempts may have done counts,
        // whatever the last one met.
        let failed = loop {
            let connection = match self.core.ready_connection() {
                Some(connection) => connection,
                None => {
                    let connecting =
                        self.wait_for_connection(Some(method), &mut times, &mut attempts);
                    // In memory of its own: a call is rarely the one that waits, and its future
                    // stays small.
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
                    // In memory of its own, too.
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

    /// How long to wait before a failed call is made again; `None` if it is not.
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

    /// How often a call that has not run is made again.
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

    /// Calls a method bound to raw bytes: `body` and the answer are data as they are.
    ///
    /// The in-band errors of IIP (codes -1, 101, 102, 106) become statuses: nothing else tells them
    /// from data.
    ///
    /// # Errors
    ///
    /// As [`unary`](Self::unary).
    ///
    /// # Cancel safety
    ///
    /// As [`unary`](Self::unary).
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

    /// Makes the connection of a client that does not leave it to the first call.
    async fn first_connection(&self) -> Result<(), Status> {
        let started = now();
        // One attempt has a limit of its own.
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

    /// Makes a connection; tries again until the deadline if the call waits for the server.
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
                // Not to reach the server is no accident that a repeat could mend at once.
                None
            };
            let Some(pause) = pause else {
                return Err(status);
            };
            tokio::time::sleep(pause).await;
            times.connected = now();
        }
    }

    /// How the values of a method are written on a connection; `None` without envelope.
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

    /// What compresses the messages of a method for a server, if anything does.
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

    /// One budget for everything from now to the answer: the call's own, within that of the call
    /// being handled. The times of a call that has its connection, and how much time it has.
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

    /// Writes a request to `out`; what it returns follows behind. Tells whether the arguments are
    /// kept for another attempt.
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

/// What a call is started with.
struct Attempt<'a> {
    connection: Connection,
    times: &'a CallTimes,
    /// How much time the call has left.
    remaining: Duration,
}
