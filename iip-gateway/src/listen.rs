//! Options of a listener.

use std::io;

#[cfg(feature = "tls")]
use iip_core::tls::ServerTls;

/// The protocols that are offered in TLS handshakes, the preferred one first.
pub(crate) const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// Options of a listener, for [`Gateway::serve`](crate::Gateway::serve).
#[derive(Clone, Debug, Default)]
pub struct ListenOptions {
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    pub(crate) also_plain: bool,
}

impl ListenOptions {
    /// Creates options of a listener without TLS.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts only TLS, with this certificate, unless [`also_plain`](Self::also_plain) is set.
    /// Clients choose HTTP/2 or HTTP/1.1 by ALPN. Listeners that use clones of one certificate
    /// share its [`max_handshakes`](ServerTls::max_handshakes).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls.alpn(ALPN));
        self
    }

    /// Also accepts HTTP without TLS on the same port. Default: no.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn also_plain(mut self, also_plain: bool) -> Self {
        self.also_plain = also_plain;
        self
    }

    /// Checks the files of the certificate every 10 s, and reloads them if they have changed. Has
    /// no effect without TLS.
    ///
    /// # Errors
    ///
    /// Fails if the certificate is not from files, if they have become unusable, or if this is not
    /// called in a tokio runtime.
    pub fn watch_files(self) -> io::Result<Self> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let watched = tls.clone().watch_files();
            watched.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        }
        Ok(self)
    }

    /// Returns `true` if the listener accepts HTTP without TLS.
    pub(crate) fn accepts_plain(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_none() || self.also_plain;
        #[cfg(not(feature = "tls"))]
        true
    }

    /// Builds the TLS configuration now, so that mistakes are found before the first connection.
    ///
    /// # Errors
    ///
    /// Fails if the TLS configuration is invalid.
    pub fn check(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let checked = tls.check();
            checked.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        }
        Ok(())
    }
}
