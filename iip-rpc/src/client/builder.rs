//! Configuration of a client.

use std::time::Duration;

use iip_core::balance::{BalanceOptions, ToTarget};
use iip_core::discover::Discover;
use iip_core::transport::Connector;
use iip_core::{CallError, Limits};

use super::Client;
use super::failure::{call_status, not_sent};
use super::hedge::Hedging;
use crate::budget::{Bucket, RetryBudget};
use crate::codec::{CodecId, DecodeLimits};
use crate::compression::Compression;
use crate::hello::announcement;
use crate::interceptor::{ClientCall, ClientInterceptor, Layers};
use crate::limits::TypedLimits;
use crate::policy::{MethodPolicy, Policies, RetryPolicy, no_time};
use crate::retry;
use crate::schema::SchemaCheck;
use crate::schema::builds::Builds;
use crate::status::Status;

/// Configuration of a [`Client`]. Created by [`Client::builder`]; every setting has a default that
/// suits most programs.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    core: iip_core::ClientBuilder,
    limits: TypedLimits,
    codec: CodecId,
    compression: Option<Compression>,
    max_compression_ratio: u32,
    timeout: Duration,
    wait_for_ready: bool,
    max_transparent_retries: u32,
    retry: RetryPolicy,
    budget: RetryBudget,
    policies: Policies,
    schema_check: SchemaCheck,
    interceptors: Layers<ClientCall>,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            core: iip_core::Client::builder().balance(BalanceOptions::new()),
            limits: TypedLimits::default(),
            codec: CodecId::DEFAULT,
            compression: None,
            max_compression_ratio: DecodeLimits::MAX_COMPRESSION_RATIO,
            timeout: Duration::from_secs(10),
            wait_for_ready: false,
            max_transparent_retries: retry::MAX_TRANSPARENT_RETRIES,
            retry: RetryPolicy::new(),
            budget: RetryBudget::new(),
            policies: Policies::default(),
            schema_check: SchemaCheck::default(),
            interceptors: Layers::default(),
        }
    }

    /// Sets the timeout of calls that set none themselves: for connecting, waiting, and the reply.
    /// Default: 10 s; [`Duration::MAX`]: no limit. Zero is rejected.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets whether calls, and [`connect`](Self::connect), wait for a server that cannot be
    /// reached, until their deadline, instead of failing at once. Default: `false`.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Sets the maximum number of transparent retries of a call that was not sent or not executed,
    /// because its connection was lost or the server is going away. Default: 5, within the call's
    /// deadline; the first is made at once, further ones after growing pauses. 0: none. With
    /// [`wait_for_ready`](Self::wait_for_ready) only the call's deadline limits them.
    ///
    /// Calls that may have run are retried only if their method is idempotent, see
    /// [`retry`](Self::retry).
    pub fn max_transparent_retries(mut self, repeats: u32) -> Self {
        self.max_transparent_retries = repeats;
        self
    }

    /// Sets the policy for retries of failed calls that may have run, if their method is
    /// idempotent, or that an overloaded server has rejected. Default: at most three attempts, for
    /// UNAVAILABLE and for every failure with a retry time from the server; see [`RetryPolicy`].
    /// [`RetryPolicy::none`]: no retries.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets the limit on retries of this client. Default: one in ten calls, and at most 100 at
    /// once.
    pub fn retry_budget(mut self, budget: RetryBudget) -> Self {
        self.budget = budget;
        self
    }

    /// Sets how calls of the method with this path, such as `/greeter/hello`, are made, overriding
    /// its attributes. The last policy set for a path applies. A path without a method is not
    /// noticed: a client learns of a method by its first call.
    pub fn method_policy(mut self, path: &str, policy: MethodPolicy) -> Self {
        self.policies.set(path, policy);
        self
    }

    /// Sets what happens with calls to a server whose build of their service differs from this one.
    /// Default: [`SchemaCheck::Enforce`].
    pub fn schema_check(mut self, check: SchemaCheck) -> Self {
        self.schema_check = check;
        self
    }

    /// Adds an interceptor that sees every typed call. Default: none. The first one added is the
    /// outermost. See [`interceptor`](mod@crate::interceptor); for some calls only, use
    /// [`Client::with_interceptor`].
    pub fn interceptor(mut self, interceptor: impl ClientInterceptor) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// Sets the timeout of an attempt to connect: resolving, connecting, TLS, hello. Default: 3 s;
    /// [`Duration::MAX`]: no limit. Less than a millisecond is rejected.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.core = self.core.connect_timeout(timeout);
        self
    }

    /// Sets the number of connections that calls are spread over. With several backends, each has
    /// this number at most. Default: 1; 0 and more than 65,536 are rejected.
    pub fn connections(mut self, connections: usize) -> Self {
        self.core = self.core.connections(connections);
        self
    }

    /// Sets how calls are spread over several backends. Default: those of [`BalanceOptions`]: the
    /// better of two random backends by latency, calls in flight and failures.
    pub fn balance(mut self, options: BalanceOptions) -> Self {
        self.core = self.core.balance(options);
        self
    }

    /// Sets the maximum number of calls per connection that wait for a channel. Default: 16,384; 0
    /// is rejected. Beyond it a call fails at once.
    pub fn max_queued_calls(mut self, calls: usize) -> Self {
        self.core = self.core.max_queued_calls(calls);
        self
    }

    /// Sets the maximum size of the arguments, the result, or a message of a stream, as encoded, in
    /// bytes. Default: 16 MiB, minimum 1. A larger one fails its call, with an error that names
    /// this option.
    ///
    /// The envelope and metadata do not count, nor do the first 32 bytes beyond the limit: they are
    /// for the length and a few small fields, so that a `Vec<u8>` of exactly this size can be sent.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_message_bytes(bytes);
        self
    }

    /// Sets all limits of each connection. Default: those of [`Limits`], with messages up to 16
    /// MiB. Limits without [`max_message_bytes`](Limits::max_message_bytes) keep the current value
    /// of it.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = self.limits.with(limits);
        self
    }

    /// Sets the codec of arguments and results, if the service does not set one and the server
    /// supports it. Default: [`CodecId::DEFAULT`]. A server that does not support it is called in
    /// JSON.
    pub fn codec(mut self, codec: CodecId) -> Self {
        self.codec = codec;
        self
    }

    /// Compresses arguments and the messages of streams for servers that can decompress them.
    /// Default: no compression. For single methods use [`method_policy`](Self::method_policy), for
    /// single calls [`CallOptions`](super::CallOptions).
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Self {
        self.compression = compression.into();
        self
    }

    /// Sets the maximum ratio of the size of a reply or a message of a stream to its compressed
    /// size. Default: 1000, minimum 1. Beyond it the call fails, with an error that names this
    /// option. Servers know the limit, and send what would exceed it uncompressed.
    pub fn max_compression_ratio(mut self, ratio: u32) -> Self {
        self.max_compression_ratio = ratio.max(1);
        self
    }

    /// Enables TLS. Default: plain. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: iip_core::tls::ClientTls) -> Self {
        self.core = self.core.tls(tls);
        self
    }

    /// Connects to a server, such as `host:port` or a [`SocketAddr`](std::net::SocketAddr), or to
    /// several, such as `static:10.0.0.1:7000,10.0.0.2:7000`; see
    /// [`Target`](iip_core::balance::Target) for all forms.
    ///
    /// With [`wait_for_ready`](Self::wait_for_ready) it tries again until there is a connection,
    /// within the time of a call ([`timeout`](Self::timeout)).
    ///
    /// # Errors
    ///
    /// The address is invalid, an option cannot work, or no connection could be made in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub async fn connect(self, target: impl ToTarget) -> Result<Client, Status> {
        let client = self.connect_lazy(target)?;
        client.first_connection().await?;
        Ok(client)
    }

    /// Like [`connect`](Self::connect), but the first call connects.
    ///
    /// # Errors
    ///
    /// The address is invalid, or an option cannot work.
    pub fn connect_lazy(self, target: impl ToTarget) -> Result<Client, Status> {
        self.connect_by(|core| core.connect_lazy(target))
    }

    /// Connects to the backends of a source, such as a registry. Waits until the first of them is
    /// connected.
    ///
    /// # Errors
    ///
    /// An option cannot work, the source fails before its first snapshot, or no connection could be
    /// made in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub async fn discover(self, source: impl Discover) -> Result<Client, Status> {
        let client = self.discover_lazy(source)?;
        client.first_connection().await?;
        Ok(client)
    }

    /// Like [`discover`](Self::discover), but the first call begins to watch the source, and
    /// connects.
    ///
    /// # Errors
    ///
    /// An option cannot work.
    pub fn discover_lazy(self, source: impl Discover) -> Result<Client, Status> {
        self.connect_by(|core| core.discover_lazy(source))
    }

    /// Connects through `connector`: any byte stream works, such as the memory of a server in the
    /// same process.
    ///
    /// # Errors
    ///
    /// Like [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub async fn connect_with(self, connector: impl Connector) -> Result<Client, Status> {
        let client = self.connect_lazy_with(connector)?;
        client.first_connection().await?;
        Ok(client)
    }

    /// Like [`connect_with`](Self::connect_with), but the first call connects.
    ///
    /// # Errors
    ///
    /// An option cannot work.
    pub fn connect_lazy_with(self, connector: impl Connector) -> Result<Client, Status> {
        self.connect_by(|core| core.connect_lazy_with(connector))
    }

    /// Connects by a function, which gets the builder of the underlying client with the options of
    /// this one: for programs that configure raw and typed clients in one place.
    ///
    /// # Errors
    ///
    /// An option cannot work, or the function fails.
    pub fn connect_by(
        self,
        connect: impl FnOnce(iip_core::ClientBuilder) -> Result<iip_core::Client, CallError>,
    ) -> Result<Client, Status> {
        let (settings, interceptors) = (self.settings()?, self.interceptors.clone());
        let core = connect(self.core());
        let core = core.map_err(|error| call_status(&error, None))?;
        Ok(Client::over(core, settings, interceptors))
    }

    fn core(self) -> iip_core::ClientBuilder {
        self.core
            .limits(self.limits.of_connection())
            .timeout(self.timeout)
            .hello(announcement(self.max_compression_ratio, None))
    }

    fn settings(&self) -> Result<Settings, Status> {
        if !self.codec.is_supported() {
            let text = format!("option codec: this build has no codec {}", self.codec);
            return Err(not_sent(Status::invalid_argument(text)));
        }
        let problem = no_time("timeout", Some(self.timeout)).or_else(|| self.policies.problem());
        if let Some(problem) = problem {
            return Err(not_sent(Status::invalid_argument(problem)));
        }
        let limits = DecodeLimits::of_calls(self.limits.message_bytes())
            .max_compression_ratio(self.max_compression_ratio);
        Ok(Settings {
            codec: self.codec,
            compression: self.compression,
            timeout: self.timeout,
            wait_for_ready: self.wait_for_ready,
            max_transparent_retries: self.max_transparent_retries,
            retry: self.retry,
            budget: Bucket::new(self.budget),
            policies: self.policies.clone(),
            hedging: Hedging::default(),
            schema_check: self.schema_check,
            builds: Builds::default(),
            limits,
        })
    }
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) codec: CodecId,
    pub(super) compression: Option<Compression>,
    pub(super) timeout: Duration,
    pub(super) wait_for_ready: bool,
    pub(super) max_transparent_retries: u32,
    pub(super) retry: RetryPolicy,
    pub(super) budget: Bucket,
    pub(super) policies: Policies,
    pub(super) hedging: Hedging,
    pub(super) schema_check: SchemaCheck,
    pub(super) builds: Builds,
    pub(super) limits: DecodeLimits,
}
