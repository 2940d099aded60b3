//! Connections without a client, for commands that forward bytes.

use std::io;
use std::time::Duration;

use iip_core::balance::Target;
use iip_core::transport::{Connector, Endpoint, IoStream};

use super::settings::Tls;

/// A server at one address.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<Tls>,
    pub(super) timeout: Duration,
}

impl Direct {
    /// Returns the address of a target that has a single one.
    pub(super) fn endpoint(target: Target) -> Option<Endpoint> {
        match target {
            Target::Single(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// Connects, and makes the TLS handshake if TLS is enabled.
    pub(crate) async fn connect(&self) -> io::Result<IoStream> {
        let connected = tokio::time::timeout(self.timeout, self.endpoint.connect()).await;
        let io = connected
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
            .io;
        self.secured(io).await
    }

    #[cfg(feature = "tls")]
    async fn secured(&self, io: IoStream) -> io::Result<IoStream> {
        match &self.tls {
            Some(tls) => tls
                .connect(io, self.endpoint.host())
                .await
                .map(|(io, _)| io),
            None => Ok(io),
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn secured(&self, io: IoStream) -> io::Result<IoStream> {
        match &self.tls {
            Some(never) => match *never {},
            None => Ok(io),
        }
    }
}
