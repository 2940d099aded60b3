//! The typed client: from arguments to a message, and from the answer to a value.
//!
//! One call from top to bottom is [`Client::unary`].

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use iip_core::transport::Connector;
use iip_core::{
    Body, Call, CallError, CallErrorKind, CallTimes, ClientConfig, ConfigError, Connection, Limits,
    Peer,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::arguments::Arguments;
use crate::codec::{CodecId, DecodeLimits, decode_value};
use crate::context::{CallContext, after, now};
use crate::envelope::{self, Outcome, PlainError, ReplyHead, RequestHead, ServerTiming};
use crate::metadata::{Metadata, MetadataError};
use crate::method::{Format, MethodDescriptor};
use crate::payload::Payload;
use crate::retry::{self, Failure, Repeats};
use crate::status::{Code, Execution, MethodError, Phases, Status};

/// The largest typed message by default: 16 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How a [`Client`] behaves. Made by [`Client::builder`]; every setting has a default that suits most.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    core: ClientConfig,
    limits: Limits,
    codec: CodecId,
    timeout: Duration,
    wait_for_ready: bool,
    max_repeats: u32,
}

impl ClientBuilder {
    fn new() -> Self {
        Self {
            core: ClientConfig::new(),
            limits: Limits::default().max_message_bytes(MAX_MESSAGE_BYTES),
            codec: CodecId::DEFAULT,
            timeout: Duration::from_secs(10),
            wait_for_ready: false,
            max_repeats: retry::MAX_REPEATS,
        }
    }

    /// How long a call may take that does not say so itself: connecting, waiting, and the answer. Default: 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls wait for a server that cannot be reached, until their deadline, instead of failing at once. Default: no.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// How often a call is made again that was not sent or not executed, because its connection was lost or the server is
    /// going away. Default: 5, within the call's time; the first time at once, then after growing pauses. 0: never. With
    /// [`wait_for_ready`](Self::wait_for_ready) only the call's time limits it.
    ///
    /// Calls that may have run are never made again.
    pub fn max_repeats(mut self, repeats: u32) -> Self {
        self.max_repeats = repeats;
        self
    }

    /// How long an attempt to connect may take: resolving, connecting, TLS, hello. Default: 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.core = self.core.connect_timeout(timeout);
        self
    }

    /// How many connections calls are spread over. Default: 1.
    pub fn connections(mut self, connections: usize) -> Self {
        self.core = self.core.connections(connections);
        self
    }

    /// How many calls per connection may wait for a channel. Default: 16,384. Beyond it a call fails at once.
    pub fn max_queued_calls(mut self, calls: usize) -> Self {
        self.core = self.core.max_queued_calls(calls);
        self
    }

    /// The largest message sent or received, in bytes. Default: 16 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_message_bytes(bytes);
        self
    }

    /// All limits of each connection. Default: those of [`Limits`], with messages up to 16 MiB.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How arguments and results are encoded. Default: [`CodecId::DEFAULT`].
    pub fn codec(mut self, codec: CodecId) -> Self {
        self.codec = codec;
        self
    }

    /// Speaks TLS. Default: plain.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: iip_core::tls::ClientTls) -> Self {
        self.core = self.core.tls(tls);
        self
    }

    /// Connects to `host:port`, `tcp://host:port` or `unix:/path`.
    ///
    /// # Errors
    ///
    /// The address is none, an option cannot work, or no connection could be made in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt.
    pub async fn connect(self, target: impl AsRef<str>) -> Result<Client, Status> {
        let settings = self.settings()?;
        let core = self
            .core()
            .connect(target)
            .await
            .map_err(|error| call_status(&error, None))?;
        Ok(Client::over(core, settings))
    }

    /// As [`connect`](Self::connect), but the first call connects.
    ///
    /// # Errors
    ///
    /// The address is none, or an option cannot work.
    pub fn connect_lazy(self, target: impl AsRef<str>) -> Result<Client, Status> {
        let settings = self.settings()?;
        Ok(Client::over(
            self.core().connect_lazy(target).map_err(config_status)?,
            settings,
        ))
    }

    /// Connects through `connector`: any byte stream will do, such as the memory of a server in the same process.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt.
    pub async fn connect_with(self, connector: impl Connector) -> Result<Client, Status> {
        let settings = self.settings()?;
        let core = self
            .core()
            .connect_with(connector)
            .await
            .map_err(|error| call_status(&error, None))?;
        Ok(Client::over(core, settings))
    }

    fn core(self) -> ClientConfig {
        self.core
            .limits(self.limits)
            .call_timeout(self.timeout)
            .hello(announcement())
    }

    fn settings(&self) -> Result<Settings, Status> {
        if !self.codec.is_supported() {
            let text = format!("option codec: this build has no codec {}", self.codec);
            return Err(Status::invalid_argument(text).with_execution(Execution::NotSent));
        }
        let limits = DecodeLimits::new().max_message_bytes(self.limits.message_bytes());
        Ok(Settings {
            codec: self.codec,
            timeout: self.timeout,
            wait_for_ready: self.wait_for_ready,
            max_repeats: self.max_repeats,
            limits,
        })
    }
}

/// What both sides say in their hello.
pub(crate) fn announcement() -> serde_json::Value {
    let codecs: Vec<u8> = [CodecId::BINCODE, CodecId::JSON]
        .into_iter()
        .filter(|codec| codec.is_supported())
        .map(CodecId::as_u8)
        .collect();
    json!({ "rpc": { "envelope": 0, "codecs": codecs } })
}

/// What a server said about typed calls.
struct RpcPeer {
    /// It understands the envelope. A Go server does not: it gets plain JSON.
    envelope: bool,
    codecs: Vec<u8>,
}

impl RpcPeer {
    fn read(peer: &Peer) -> Self {
        let rpc = peer.hello().and_then(|hello| hello.get("rpc"));
        let codecs = rpc
            .and_then(|rpc| rpc.get("codecs"))
            .and_then(|codecs| codecs.as_array());
        let codecs = codecs
            .into_iter()
            .flatten()
            .filter_map(|id| u8::try_from(id.as_u64()?).ok())
            .collect();
        Self {
            envelope: rpc.is_some(),
            codecs,
        }
    }

    /// The codec to use: the one wanted, or JSON where the server does not know it; `None` without envelope.
    fn codec(&self, wanted: CodecId) -> Option<CodecId> {
        let known = self.codecs.contains(&wanted.as_u8());
        self.envelope
            .then_some(if known { wanted } else { CodecId::JSON })
    }
}

#[derive(Debug)]
struct Settings {
    codec: CodecId,
    timeout: Duration,
    wait_for_ready: bool,
    max_repeats: u32,
    limits: DecodeLimits,
}

/// What the calls made through a client set for themselves, see [`Client::with_options`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CallOptions {
    timeout: Option<Duration>,
    wait_for_ready: Option<bool>,
    metadata: Metadata,
    reply_metadata: Option<ReplyMetadata>,
}

impl CallOptions {
    /// The client's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long each call may take: connecting, waiting, and the answer. It replaces the method's and the client's
    /// default; the deadline of a call being handled still bounds it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Each call waits for a server that cannot be reached, until its deadline, or fails at once. It replaces the client's
    /// default, see [`ClientBuilder::wait_for_ready`].
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }

    /// Sends `value` beside the arguments.
    ///
    /// # Errors
    ///
    /// The key is none (lower-case letters, digits, `-_.`), or all metadata together would exceed 16 KiB.
    pub fn metadata(mut self, key: &str, value: impl Into<Bytes>) -> Result<Self, MetadataError> {
        self.metadata.insert(key, value)?;
        Ok(self)
    }

    /// Keeps the metadata of each answer in `reply`.
    pub fn reply_metadata(mut self, reply: &ReplyMetadata) -> Self {
        self.reply_metadata = Some(reply.clone());
        self
    }
}

/// Where the metadata of an answer is kept, see [`CallOptions::reply_metadata`]. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ReplyMetadata(Arc<Mutex<Metadata>>);

impl ReplyMetadata {
    /// An empty place.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The metadata of the answer that came last.
    #[must_use]
    pub fn get(&self) -> Metadata {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, metadata: Metadata) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = metadata;
    }
}

/// Calls services on one server. Cheap to clone; all clones share the connections.
///
/// Generated clients hold one: `GreeterClient::new(client)`. Several services can share it.
///
/// Lost connections are replaced when the next call is made. A typed call that was not sent or not executed, because its
/// connection was lost or the server is going away, is made again within its time, up to five times; arguments of more than
/// 64 KiB are not kept for that. A call fails within its time, with a [`Status`] that says what happened, where the time
/// went, and whether the call may have run.
#[derive(Clone, Debug)]
pub struct Client {
    core: iip_core::Client,
    settings: Arc<Settings>,
    options: Arc<CallOptions>,
}

impl Client {
    /// Begins the description of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Connects to `host:port`, `tcp://host:port` or `unix:/path` with the defaults.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt.
    pub async fn connect(target: impl AsRef<str>) -> Result<Self, Status> {
        Self::builder().connect(target).await
    }

    fn over(core: iip_core::Client, settings: Settings) -> Self {
        Self {
            core,
            settings: Arc::new(settings),
            options: Arc::default(),
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

    /// The client below: raw calls on the same connections.
    #[must_use]
    pub fn raw(&self) -> &iip_core::Client {
        &self.core
    }

    /// Ends all connections once their calls are answered, at the latest after `limit`. Later calls fail.
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
        T: DeserializeOwned + 'static,
        E: MethodError,
    {
        // Kept while the call may have to be made again.
        let mut args = Some(args);
        let start = |cx: &Context<'_>, attempt: Attempt<'_>| {
            let codec = self.codec(method, &attempt.connection);
            let mut kept = true;
            let call = attempt.connection.start_encoded(
                cx,
                method.static_path(),
                attempt.times,
                |out| {
                    let left = attempt.remaining;
                    let tail = self.encode(method, ctx, &mut args, codec, left, out)?;
                    kept = out.len() + tail.len() <= retry::KEPT_BYTES;
                    Ok::<_, Status>(tail)
                },
            )?;
            if !kept {
                args = None;
            }
            Ok((call, kept))
        };
        let read = |answer, started| self.decode(answer, started);
        self.call(method, ctx, start, read).await
    }

    /// Makes a call, again if need be: `start` puts it on a connection and says whether it could do so again, `read` takes
    /// the answer.
    #[inline]
    async fn call<T, E: MethodError>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        mut start: impl FnMut(&Context<'_>, Attempt<'_>) -> Result<(Call, bool), Status>,
        read: impl Fn(Bytes, Instant) -> Result<T, Failure<E>>,
    ) -> Result<T, E> {
        let mut repeats = Repeats::new(self.max_repeats());
        let (mut times, mut remaining) = self.times(method, ctx);
        loop {
            let connection = match self.core.ready_connection() {
                Some(connection) => connection,
                None => {
                    let connection = self.wait_for_connection(method, &mut times).await?;
                    remaining = times.deadline.saturating_duration_since(times.connected);
                    connection
                }
            };
            if let Some(place) = &self.options.reply_metadata {
                place.set(Metadata::new());
            }
            let attempt = Attempt {
                connection,
                times: &times,
                remaining,
            };
            let (call, kept) = iip_core::with_context(|cx| start(cx, attempt)).await?;
            let status = match call.await {
                Ok(answer) => match read(answer, times.started) {
                    Ok(value) => return Ok(value),
                    Err(Failure::Own(error)) => return Err(error),
                    Err(Failure::Status(status)) => status,
                },
                Err(error) => call_status(&error, Some(method)),
            };
            let pause = repeats.next(&status, now(), times.deadline);
            let Some(pause) = pause.filter(|_| kept) else {
                return Err(status.into());
            };
            Box::pin(tokio::time::sleep(pause)).await;
            times.connected = now();
            remaining = times.deadline.saturating_duration_since(times.connected);
        }
    }

    /// How often a call that has not run is made again.
    fn max_repeats(&self) -> u32 {
        if self.waits_for_ready() {
            u32::MAX
        } else {
            self.settings.max_repeats
        }
    }

    /// Does a call wait for the server, or fail while it is not there?
    fn waits_for_ready(&self) -> bool {
        self.options
            .wait_for_ready
            .unwrap_or(self.settings.wait_for_ready)
    }

    /// Calls a method bound to raw bytes: `body` and the answer are data as they are.
    ///
    /// The in-band errors of IIP (codes -1, 101, 102, 106) become statuses: nothing else tells them from data.
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
        T: From<Bytes>,
        E: MethodError,
    {
        let body = body.into_body();
        let start = |cx: &Context<'_>, attempt: Attempt<'_>| {
            let (path, times) = (method.static_path(), attempt.times);
            let call = attempt.connection.start_body(cx, path, times, body.clone());
            Ok((call, true))
        };
        let read = |answer: Bytes, started| match PlainError::read(&answer)
            .filter(|error| error.code < 0 || error.code > 100)
        {
            Some(error) => Err(Failure::Status(
                error.into_status().with_phases(phases(started, None)),
            )),
            None => Ok(answer.into()),
        };
        self.call(method, ctx, start, read).await
    }

    /// Makes a connection; tries again until the deadline if the call waits for the server.
    async fn wait_for_connection(
        &self,
        method: &MethodDescriptor,
        times: &mut CallTimes,
    ) -> Result<Connection, Status> {
        // Not to reach the server is no accident that a repeat could mend at once: the next attempt has its pause.
        let mut repeats = Repeats::new(if self.waits_for_ready() { u32::MAX } else { 0 });
        loop {
            let connecting = self
                .core
                .wait_for_connection(times.connected, times.deadline);
            // In memory of its own: a call is rarely the one that waits, and its future stays small.
            let status = match Box::pin(connecting).await {
                Ok((connection, now)) => {
                    times.connected = now;
                    return Ok(connection);
                }
                Err(error) => call_status(&error, Some(method)),
            };
            let Some(pause) = repeats.next(&status, now(), times.deadline) else {
                return Err(status);
            };
            Box::pin(tokio::time::sleep(pause)).await;
            times.connected = now();
        }
    }

    /// The codec for a method on a connection; `None` without envelope.
    fn codec(&self, method: &MethodDescriptor, connection: &Connection) -> Option<CodecId> {
        match method.format() {
            Format::Envelope => connection
                .peer()
                .extension(RpcPeer::read)
                .and_then(|peer| peer.codec(self.settings.codec)),
            Format::Json | Format::Raw => None,
        }
    }

    /// One budget for everything from now to the answer: the call's own, within that of the call being handled. The times of
    /// a call that has its connection, and how much time it has.
    #[inline]
    fn times(&self, method: &MethodDescriptor, ctx: Option<&CallContext>) -> (CallTimes, Duration) {
        let started = now();
        let own = self
            .options
            .timeout
            .or_else(|| method.default_timeout())
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

    /// Writes a request to `out`; what it returns follows behind.
    #[inline]
    fn encode<A: Arguments>(
        &self,
        method: &MethodDescriptor,
        ctx: Option<&CallContext>,
        args: &mut Option<A>,
        codec: Option<CodecId>,
        remaining: Duration,
        out: &mut BytesMut,
    ) -> Result<Bytes, Status> {
        if let Some(codec) = codec {
            match ctx.and_then(CallContext::outgoing_metadata) {
                None => {
                    RequestHead::write(codec, Some(remaining), &self.options.metadata, out);
                }
                Some(own) => {
                    let mut all = self.options.metadata.clone();
                    all.append_all(own)
                        .map_err(|error| not_sent(error.into()))?;
                    RequestHead::write(codec, Some(remaining), &all, out);
                }
            }
        }
        let codec = codec.unwrap_or(CodecId::JSON);
        let encoded = args
            .as_mut()
            .map_or(Ok(None), |args| args.encode_split(method, codec, out));
        match encoded {
            Ok(tail) => Ok(tail.unwrap_or_default()),
            Err(error) => Err(not_sent(Status::invalid_argument(format!(
                "cannot encode the arguments of {method}: {error}"
            )))),
        }
    }

    fn decode<T, E>(&self, answer: Bytes, started: Instant) -> Result<T, Failure<E>>
    where
        T: DeserializeOwned + 'static,
        E: MethodError,
    {
        let limits = &self.settings.limits;
        if !envelope::is_envelope(&answer) {
            return match PlainError::read(&answer) {
                None => decode_value(CodecId::JSON, &answer, limits)
                    .map_err(|error| error.reply_status().into()),
                Some(PlainError {
                    error: Some(own), ..
                }) => {
                    Err(E::deserialize(own)
                        .map_or_else(|error| bad_reply(&error).into(), Failure::Own))
                }
                Some(error) => Err(error
                    .into_status()
                    .with_phases(phases(started, None))
                    .into()),
            };
        }
        let (head, body) = ReplyHead::read(answer).map_err(|error| error.reply_status())?;
        if let Some(place) = &self.options.reply_metadata {
            place.set(head.metadata.clone());
        }
        match head.outcome {
            Outcome::Value => {
                decode_value(head.codec, &body, limits).map_err(|error| error.reply_status().into())
            }
            Outcome::Error => Err(decode_value(head.codec, &body, limits)
                .map_or_else(|error| error.reply_status().into(), Failure::Own)),
            Outcome::Status => {
                let status = envelope::read_status(body, head.metadata)
                    .map_err(|error| error.reply_status())?;
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

/// Where the time of a call went that the server answered with a failure.
fn phases(started: Instant, timing: Option<ServerTiming>) -> Phases {
    Phases {
        answer: now().saturating_duration_since(started),
        server_queue: timing.map(|timing| timing.queue),
        server_handler: timing.map(|timing| timing.handler),
        ..Phases::default()
    }
}

fn bad_reply(error: &serde_json::Error) -> Status {
    Status::internal(format!("cannot read the error in the answer: {error}"))
}

fn not_sent(status: Status) -> Status {
    status.with_execution(Execution::NotSent)
}

fn config_status(error: ConfigError) -> Status {
    not_sent(Status::invalid_argument(error.to_string())).with_source(error)
}

/// What a failure below the typed layer means to a caller.
fn call_status(error: &CallError, method: Option<&MethodDescriptor>) -> Status {
    let code = match error.kind() {
        CallErrorKind::Timeout => Code::DeadlineExceeded,
        CallErrorKind::QueueFull { .. }
        | CallErrorKind::MessageTooLarge { .. }
        | CallErrorKind::ChannelRefused { .. } => Code::ResourceExhausted,
        CallErrorKind::EmptyBody | CallErrorKind::InvalidPath(_) | CallErrorKind::Config(_) => {
            Code::InvalidArgument
        }
        CallErrorKind::Closed => Code::Cancelled,
        // A connection that is not there, or was lost, may come back.
        _ => Code::Unavailable,
    };
    let what = match error.kind() {
        CallErrorKind::Timeout => {
            "no answer in time (option timeout of the client, of its CallOptions, or of the method)"
                .to_owned()
        }
        kind => kind.to_string(),
    };
    let mut text = match method {
        Some(method) => format!("{method}: {what}"),
        None => what,
    };
    let mut source = std::error::Error::source(error.kind());
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let phases = error.phases();
    Status::new(code, text)
        .with_execution(match error.execution() {
            iip_core::Execution::NotSent => Execution::NotSent,
            iip_core::Execution::NotExecuted => Execution::NotExecuted,
            iip_core::Execution::MayHaveExecuted => Execution::MayHaveExecuted,
        })
        .with_phases(Phases {
            connect: phases.connect,
            wait_for_channel: phases.wait_for_channel,
            write: phases.write,
            answer: phases.answer,
            ..Phases::default()
        })
        .with_source(error.clone())
}

/// Data of a method bound to raw bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the data of a raw method",
    note = "use `bytes::Bytes`, `Vec<u8>`, `String`, `&[u8]` or `&str`"
)]
pub trait RawBody {
    /// The data; owned ones are not copied.
    fn into_body(self) -> Body;
}

macro_rules! raw_body {
    (owned $($owned:ty),*; borrowed $($borrowed:ty),*) => {
        $(impl RawBody for $owned {
            fn into_body(self) -> Body {
                Bytes::from(self).into()
            }
        })*
        $(impl RawBody for $borrowed {
            fn into_body(self) -> Body {
                Bytes::copy_from_slice(self.as_ref()).into()
            }
        })*
    };
}

raw_body!(owned Bytes, Vec<u8>, String, Payload; borrowed &[u8], &str, &Vec<u8>, &String);

impl RawBody for &Bytes {
    fn into_body(self) -> Body {
        self.clone().into()
    }
}
