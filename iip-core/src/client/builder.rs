//! Configuration of a client.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::balance::{BalanceOptions, Policy};
use crate::error::ConfigError;
use crate::limits::Limits;
#[cfg(feature = "tls")]
use crate::tls::ClientTls;

/// The maximum number of connections of one client.
const MAX_CONNECTIONS: usize = 65_536;

/// The configuration of a [`Client`](crate::Client), see
/// [`Client::builder`](crate::Client::builder). The default of every setting suits most programs.
///
/// ```no_run
/// use std::time::Duration;
/// # async fn run() -> Result<(), iip_core::CallError> {
/// let config = iip_core::Client::builder().timeout(Duration::from_secs(2));
/// let client = config.connect("127.0.0.1:9000").await?;
/// let answer = client.request("/echo", "hello").await?;
/// # let _ = answer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    pub(super) connections: usize,
    pub(super) max_queued_calls: usize,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) limits: Arc<Limits>,
    pub(super) hello: Option<Arc<Value>>,
    pub(super) balance: BalanceOptions,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            connections: 1,
            max_queued_calls: 16 * 1024,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            limits: Arc::default(),
            hello: None,
            balance: BalanceOptions::new().policy(Policy::LeastPending),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl ClientBuilder {
    /// Sets the number of connections that calls are spread over, in turns. With several backends,
    /// each has this number at most. Default: 1; 0 and more than 65,536 are rejected.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the maximum number of channels, and thereby of concurrent calls, of one connection.
    /// Default: 4096, minimum 1.
    ///
    /// Short for [`Limits::max_channels`].
    #[must_use]
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.limits = Arc::new(Limits::clone(&self.limits).max_channels(channels));
        self
    }

    /// Sets the maximum number of calls per connection that wait for a channel. Default: 16,384; 0
    /// is rejected. Beyond the limit, a call fails at once and is not sent.
    #[must_use]
    pub fn max_queued_calls(mut self, calls: usize) -> Self {
        self.max_queued_calls = calls;
        self
    }

    /// Sets the timeout of an attempt to connect: resolving, connecting, TLS, hello. Default: 3 s;
    /// [`Duration::MAX`]: no limit. Less than a millisecond is rejected.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the timeout of calls that do not set their own, connecting and waiting included.
    /// Default: 10 s; [`Duration::MAX`]: no limit. Zero is rejected.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the limits of each connection.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Arc::new(limits);
        self
    }

    /// Sends a hello to each server right after connecting, which asks for its capabilities and
    /// announces the fields of `announce`, an object. Fields of the protocol itself, such as
    /// `stream_window`, are not replaced. A value that is not an object is rejected.
    ///
    /// Default: no hello; to the server the client looks like any Go client. A Go server replies to
    /// a hello with an in-band error, and the connection continues as plain IIP. With a hello,
    /// servers are notified of cancelled calls, and large messages are sent in chunks.
    #[must_use]
    pub fn hello(mut self, announce: Value) -> Self {
        self.hello = Some(Arc::new(announce));
        self
    }

    /// Sets how calls are spread over several backends. Default: those of [`BalanceOptions`], with
    /// [`Policy::LeastPending`].
    #[must_use]
    pub fn balance(mut self, options: BalanceOptions) -> Self {
        self.balance = options;
        self
    }

    /// Enables TLS. Default: no TLS. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Rejects a configuration that cannot work.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_count("connections", self.connections, 1..=MAX_CONNECTIONS)?;
        ConfigError::check_count("max_queued_calls", self.max_queued_calls, 1..=usize::MAX)?;
        ConfigError::check_time("connect_timeout", self.connect_timeout)?;
        if self.timeout.is_zero() {
            let reason = "calls would time out at once; `Duration::MAX` means no limit";
            return Err(ConfigError::new("timeout", reason));
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            ConfigError::check_time("handshake_timeout", tls.handshake_limit())?;
        }
        if let Some(announce) = &self.hello {
            ConfigError::check_fields("hello", announce)?;
        }
        self.balance.check()?;
        self.limits.check()
    }
}

/// The options of one call.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub(super) timeout: Option<Duration>,
    pub(super) key: Option<Arc<[u8]>>,
}

impl CallOptions {
    /// Returns options that use the client's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the timeout of the call, connecting and waiting for a channel included.
    /// [`Duration::MAX`]: no limit. With a timeout of zero the call fails at once, either unsent or
    /// without waiting for its reply.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the key by which a policy such as [`Policy::RingHash`] chooses the backend: calls with
    /// equal keys go to the same one. Other policies ignore it.
    #[must_use]
    pub fn hash_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().into());
        self
    }
}
