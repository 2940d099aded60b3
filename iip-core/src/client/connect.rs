//! Clients made of a configuration: of one server, of the backends of a source, or of any byte
//! stream.

use std::sync::Arc;

use super::Client;
use super::balanced::Balanced;
use super::builder::ClientBuilder;
use crate::balance::{BackendInfo, Target, ToTarget};
use crate::discover::{Discover, source_of};
use crate::error::{CallError, CallErrorKind, ConfigError};
use crate::transport::{ConnectFuture, Connector, Endpoint};

impl ClientBuilder {
    /// Connects to a server, such as `host:port` or a [`SocketAddr`](std::net::SocketAddr), or to
    /// several, such as `static:10.0.0.1:7000,10.0.0.2:7000`; see [`Target`]
    /// for all forms.
    ///
    /// # Errors
    ///
    /// Fails if the address is invalid, an option cannot work, or no connection could be made in
    /// time; nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt.
    pub async fn connect(self, target: impl ToTarget) -> Result<Client, CallError> {
        let client = self.connect_lazy(target)?;
        client.first_connection().await?;
        Ok(client)
    }

    /// Like [`connect`](Self::connect), but the first call connects.
    ///
    /// # Errors
    ///
    /// Fails with [`CallErrorKind::Config`] if the address is invalid, or an option cannot work.
    pub fn connect_lazy(self, target: impl ToTarget) -> Result<Client, CallError> {
        let target = target
            .to_target()
            .map_err(|error| config_error(ConfigError::new("target", error.to_string())))?;
        match target {
            Target::Single(endpoint) => self.connect_lazy_with(endpoint),
            target => {
                let source = source_of(&target).map_err(config_error)?;
                self.discover_lazy(source)
            }
        }
    }

    /// Connects to the backends of a source, such as a registry. Waits until the first of them is
    /// connected.
    ///
    /// # Errors
    ///
    /// Fails if an option cannot work, the source fails before its first snapshot, or no connection
    /// could be made in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt.
    pub async fn discover(self, source: impl Discover) -> Result<Client, CallError> {
        let client = self.discover_lazy(source)?;
        client.first_connection().await?;
        Ok(client)
    }

    /// Like [`discover`](Self::discover), but the first call begins to watch the source, and
    /// connects.
    ///
    /// # Errors
    ///
    /// Fails with [`CallErrorKind::Config`] if an option cannot work.
    pub fn discover_lazy(self, source: impl Discover) -> Result<Client, CallError> {
        self.check().map_err(config_error)?;
        let make_connector =
            |info: &BackendInfo| -> Arc<dyn Connector> { Arc::new(BackendConnector::new(info)) };
        let balanced = Balanced::new(Arc::new(self), Arc::new(source), Box::new(make_connector));
        balanced.map(Client::balanced).map_err(config_error)
    }

    /// Connects through `connector`: any byte stream carries IIP.
    ///
    /// # Errors
    ///
    /// See [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt.
    pub async fn connect_with(self, connector: impl Connector) -> Result<Client, CallError> {
        let client = self.connect_lazy_with(connector)?;
        client.first_connection().await?;
        Ok(client)
    }

    /// Like [`connect_with`](Self::connect_with), but the first call connects.
    ///
    /// # Errors
    ///
    /// Fails with [`CallErrorKind::Config`] if an option cannot work.
    pub fn connect_lazy_with(self, connector: impl Connector) -> Result<Client, CallError> {
        self.check().map_err(config_error)?;
        Ok(Client::single(self, connector))
    }
}

fn config_error(error: ConfigError) -> CallError {
    CallError::not_sent(CallErrorKind::Config(error))
}

/// Connects to a backend of a source.
#[derive(Debug)]
struct BackendConnector {
    endpoint: Endpoint,
    host: Option<Arc<str>>,
}

impl BackendConnector {
    fn new(info: &BackendInfo) -> Self {
        Self {
            endpoint: info.endpoint.clone(),
            host: info.host.clone(),
        }
    }
}

impl Connector for BackendConnector {
    fn connect(&self) -> ConnectFuture<'_> {
        self.endpoint.connect()
    }

    fn describe(&self) -> String {
        self.endpoint.describe()
    }

    fn host(&self) -> Option<&str> {
        self.host.as_deref().or_else(|| self.endpoint.host())
    }
}
