//! How a client behaves.

use std::time::Duration;

use serde_json::Value;

use super::Client;
use crate::error::{CallError, CallErrorKind, ConfigError};
use crate::limits::Limits;
#[cfg(feature = "tls")]
use crate::tls::ClientTls;
use crate::transport::{Connector, Endpoint};

/// How a [`Client`] behaves. Every setting has a default that suits most.
///
/// ```no_run
/// use std::time::Duration;
/// # async fn run() -> Result<(), iip_core::CallError> {
/// let client = iip_core::ClientConfig::new().call_timeout(Duration::from_secs(2)).connect("127.0.0.1:9000").await?;
/// let answer = client.request("/echo", "hello").await?;
/// # let _ = answer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(super) connections: usize,
    pub(super) max_queued_calls: usize,
    pub(super) connect_timeout: Duration,
    pub(super) call_timeout: Duration,
    pub(super) limits: Limits,
    pub(super) hello: Option<Value>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connections: 1,
            max_queued_calls: 16 * 1024,
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(10),
            limits: Limits::default(),
            hello: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl ClientConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections calls are spread over, in turns. Default: 1.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// How many channels, and so calls at a time, one connection has at most. Default: 4096.
    ///
    /// Short for [`Limits::max_channels`].
    #[must_use]
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.limits = self.limits.max_channels(channels);
        self
    }

    /// How many calls per connection may wait for a channel. Default: 16,384. Beyond it a call fails at once, not sent.
    #[must_use]
    pub fn max_queued_calls(mut self, calls: usize) -> Self {
        self.max_queued_calls = calls;
        self
    }

    /// How long an attempt to connect may take: resolving, connecting, TLS, hello. Default: 3 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take that does not say so itself, connecting and waiting included. Default: 10 s.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The limits of each connection.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Asks each server right after connecting what it can do, and tells it the fields of `announce`, an object.
    ///
    /// Default: no hello; to the server the client looks like any Go client. A Go server answers a hello with an in-band
    /// error, and the connection goes on as plain IIP. With a hello, servers learn of calls that were cancelled, and
    /// large messages travel in pieces.
    #[must_use]
    pub fn hello(mut self, announce: Value) -> Self {
        self.hello = Some(announce);
        self
    }

    /// Speaks TLS. Default: plain.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The time limit of calls that have none of their own.
    #[must_use]
    pub fn default_call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Connects to `host:port`, `tcp://host:port` or `unix:/path`.
    ///
    /// # Errors
    ///
    /// The address is none, an option cannot work, or no connection could be made in time; none of it was sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt.
    pub async fn connect(self, target: impl AsRef<str>) -> Result<Client, CallError> {
        let client = self
            .connect_lazy(target)
            .map_err(|error| CallError::not_sent(CallErrorKind::Config(error)))?;
        client.first_connection().await?;
        Ok(client)
    }

    /// As [`connect`](Self::connect), but the first call connects.
    ///
    /// # Errors
    ///
    /// The address is none, or an option cannot work.
    pub fn connect_lazy(self, target: impl AsRef<str>) -> Result<Client, ConfigError> {
        let endpoint: Endpoint = target
            .as_ref()
            .parse()
            .map_err(|error| ConfigError::new("target", format!("{error}")))?;
        self.lazy(endpoint)
    }

    /// Connects through `connector`: any byte stream carries IIP.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt.
    pub async fn connect_with(self, connector: impl Connector) -> Result<Client, CallError> {
        let client = self
            .lazy(connector)
            .map_err(|error| CallError::not_sent(CallErrorKind::Config(error)))?;
        client.first_connection().await?;
        Ok(client)
    }

    /// As [`connect_with`](Self::connect_with), but the first call connects.
    ///
    /// # Errors
    ///
    /// An option cannot work.
    pub fn lazy(self, connector: impl Connector) -> Result<Client, ConfigError> {
        if self.connections == 0 {
            return Err(ConfigError::new("connections", "must be at least 1"));
        }
        if self.max_queued_calls == 0 {
            return Err(ConfigError::new("max_queued_calls", "must be at least 1"));
        }
        Ok(Client::new(self, connector))
    }
}

/// What one call may set for itself.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub(super) timeout: Option<Duration>,
}

impl CallOptions {
    /// The client's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the call may take, connecting and waiting for a channel included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}
