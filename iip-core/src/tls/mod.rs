//! TLS for both sides, by rustls with the ring provider (feature `tls`).
//!
//! IIP frames are sent inside TLS unchanged. IIP has no name for ALPN; there is no upgrade of a
//! plaintext connection, and no fallback from TLS to plaintext. TLS 1.3 and 1.2 are supported,
//! without early data. Certificates are verified by default; only [`DangerousClientTls`] turns this
//! off.
//!
//! ```no_run
//! use iip_core::tls::{ClientTls, ServerTls};
//!
//! // A server that requires client certificates, and reloads its own when the files change.
//! let server = ServerTls::from_files("server.pem", "server.key")?
//!     .client_roots_file("clients-ca.pem")?
//!     .watch_files()?;
//! // A client that trusts one certificate authority and presents a certificate.
//! let client = ClientTls::new().roots_file("ca.pem")?.identity_files("client.pem", "client.key")?;
//! # Ok::<(), iip_core::tls::TlsError>(())
//! ```

mod client;
mod error;
mod handshakes;
mod pem;
mod reload;
mod server;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

pub use self::client::{ClientTls, DangerousClientTls};
pub use self::error::TlsError;
pub use self::reload::CertificateReloader;
pub use self::server::{ClientCertificate, ServerTls};

use self::reload::IdentityCell;

/// Default maximum duration of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The configuration that was built for one identity; it is built again when the identity was
/// replaced.
struct Built<C> {
    latest: ArcSwapOption<(Option<Arc<CertifiedKey>>, Arc<C>)>,
}

impl<C> Default for Built<C> {
    fn default() -> Self {
        Self {
            latest: ArcSwapOption::empty(),
        }
    }
}

impl<C> Built<C> {
    fn current(&self, cell: &IdentityCell) -> Option<Arc<C>> {
        let latest = self.latest.load();
        let (identity, config) = latest.as_deref()?;
        let now = cell.current.load();
        // The stored pair keeps its identity alive, so an equal address means the same identity.
        (identity.as_ref().map(Arc::as_ptr) == now.as_ref().map(Arc::as_ptr))
            .then(|| Arc::clone(config))
    }

    fn get_or_build(
        &self,
        cell: &IdentityCell,
        build: impl FnOnce(Option<Arc<CertifiedKey>>) -> Result<C, TlsError>,
    ) -> Result<Arc<C>, TlsError> {
        if let Some(config) = self.current(cell) {
            return Ok(config);
        }
        let identity = cell.current.load_full();
        let config = Arc::new(build(identity.clone())?);
        // If the identity changes between the two, the next caller notices the difference.
        self.latest
            .store(Some(Arc::new((identity, Arc::clone(&config)))));
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn to_der(certificates: Option<&[CertificateDer<'_>]>) -> Vec<Vec<u8>> {
    certificates
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect()
}

async fn within<T>(
    limit: Duration,
    option: &'static str,
    handshake: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let Ok(outcome) = tokio::time::timeout(limit, handshake).await else {
        return Err(TlsError::Timeout { limit, option }.into());
    };
    outcome.map_err(
        |error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => TlsError::of_handshake(error).into(),
            None if is_end(error.kind()) => TlsError::Closed.into(),
            None => error,
        },
    )
}

/// Returns `true` if the peer has ended the connection or does not speak TLS: a plain server resets
/// the connection at the first byte.
fn is_end(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}
