//! TLS for accepted connections: the server's identity and the accepted clients.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::LazyConfigAcceptor;

use super::handshakes::Handshakes;
use super::pem::{Input, add_roots};
use super::reload::{CertificateReloader, IdentityCell};
use super::{Built, HANDSHAKE_TIMEOUT, TlsError, VERSIONS, provider, to_der, within};
use crate::pending::Network;
use crate::transport::IoStream;

/// Default maximum number of concurrent handshakes of a server.
const MAX_HANDSHAKES: usize = 256;

/// TLS for accepted connections: the server's certificate, and the clients that are accepted.
///
/// Without further settings, no client certificate is requested. Cloning is cheap; clones share
/// what is reloaded.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) identity: Arc<IdentityCell>,
    client_roots: Option<Arc<RootCertStore>>,
    client_certificate: ClientCertificate,
    handshake_timeout: Duration,
    handshakes: Arc<Handshakes>,
    alpn: Vec<Vec<u8>>,
    built: Arc<Built<ServerConfig>>,
}

/// The treatment of clients without a certificate, see [`ServerTls::client_certificate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ClientCertificate {
    /// They are rejected.
    #[default]
    Required,
    /// They are accepted and have no certificates. A certificate that cannot be verified is still
    /// rejected.
    Optional,
}

impl ServerTls {
    /// Sends this certificate to every client.
    ///
    /// `chain`: the server's own certificate first, then those that lead to the root that the
    /// clients trust. `key`: its private key, not encrypted, as PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    ///
    /// Fails if either is malformed, or if they do not belong together.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let input = Input::bytes("ServerTls::from_pem");
        Ok(Self::new(IdentityCell::new(
            &input,
            chain.as_ref(),
            &input,
            key.as_ref(),
        )?))
    }

    /// Sends the certificate in these PEM files to every client, see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or is malformed, or if they do not belong together.
    pub fn from_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        Ok(Self::new(IdentityCell::from_files(
            "ServerTls::from_files",
            chain.as_ref(),
            key.as_ref(),
        )?))
    }

    fn new(identity: Arc<IdentityCell>) -> Self {
        Self {
            identity,
            client_roots: None,
            client_certificate: ClientCertificate::Required,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes: Handshakes::new(MAX_HANDSHAKES),
            alpn: Vec::new(),
            built: Arc::default(),
        }
    }

    /// Accepts only clients whose certificate comes from a root in `pem`. Further calls add to the
    /// roots.
    ///
    /// # Errors
    ///
    /// Fails if `pem` is malformed or contains no certificate.
    pub fn client_roots_pem(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        self.roots(&Input::bytes("ServerTls::client_roots_pem"), pem.as_ref())
    }

    /// Accepts only clients whose certificate comes from a root in this PEM file. Further calls add
    /// to the roots.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is malformed or contains no certificate.
    pub fn client_roots_file(self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let input = Input::file("ServerTls::client_roots_file", path.as_ref());
        let pem = input.read()?;
        self.roots(&input, &pem)
    }

    /// Sets whether clients need a certificate. Default: required, once client roots are set;
    /// without them, none is requested, and this setting has no effect.
    #[must_use]
    pub fn client_certificate(mut self, rule: ClientCertificate) -> Self {
        self.client_certificate = rule;
        self.changed()
    }

    /// Sets the maximum duration of a handshake, from the time the connection is accepted, after
    /// which it is closed. Default: 10 s; [`Duration::MAX`]: no limit. Less than a millisecond is
    /// rejected when a server is created with it.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// Sets the maximum number of concurrent handshakes, at least 1; further connections wait.
    /// Default: 256. Servers that use clones of one value share it.
    ///
    /// A handshake costs about a millisecond of computing and up to 64 KiB of memory for data of an
    /// unknown peer. It begins when the client's first message (ClientHello) has arrived: silent
    /// connections do not count. A client that does not continue its handshake for a second makes
    /// room for one that waits, or at once if it is from the address that has the most.
    #[must_use]
    pub fn max_handshakes(mut self, count: usize) -> Self {
        self.handshakes = Handshakes::new(count.max(1));
        self
    }

    /// Offers these protocols to clients that ask for one (ALPN), the preferred one first. Default:
    /// none, as IIP has no name of its own. A client that asks only for others is rejected.
    #[must_use]
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self.changed()
    }

    /// Offers these protocols unless others were set.
    pub(crate) fn or_alpn(self, protocols: &[&str]) -> Self {
        match self.alpn.is_empty() {
            true => self.alpn(protocols.iter().copied()),
            false => self,
        }
    }

    pub(crate) fn handshake_limit(&self) -> Duration {
        self.handshake_timeout
    }

    /// Returns a handle that replaces the certificate while the server runs.
    pub fn reloader(&self) -> CertificateReloader {
        CertificateReloader {
            cell: Arc::downgrade(&self.identity),
            option: "ServerTls::reloader",
        }
    }

    /// Reads the files of [`from_files`](Self::from_files) every 10 s and uses them if they have
    /// changed, like [`CertificateReloader::watch_files`].
    ///
    /// # Errors
    ///
    /// Fails if the certificate is not from files, if they have become unusable, or if this is not
    /// called in a tokio runtime.
    pub fn watch_files(self) -> Result<Self, TlsError> {
        self.identity.watch_own_files("ServerTls::watch_files")?;
        Ok(self)
    }

    /// Builds everything that is otherwise built on the first connection, so that a mistake is
    /// found now.
    ///
    /// # Errors
    ///
    /// Fails if rustls rejects the settings as a whole.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    /// Performs the handshake on an accepted stream, as one of
    /// [`max_handshakes`](Self::max_handshakes).
    ///
    /// Returns the encrypted stream, and the verified certificate of the client with the chain that
    /// it sent (DER); none if it was not asked for one. The stream sends close_notify when it is
    /// shut down, and if the peer ends it without close_notify, its reads fail with
    /// `UnexpectedEof`. Data written to it may wait until it is flushed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    ///
    /// # Errors
    ///
    /// The error contains a [`TlsError`], or is an error of the stream.
    pub async fn accept(&self, io: impl Into<IoStream>) -> io::Result<(IoStream, Vec<Vec<u8>>)> {
        let io = io.into();
        let addr = io.peer_addr();
        self.accept_from(io, addr).await
    }

    /// Like [`accept`](Self::accept), for a peer whose address is not that of the stream, because
    /// it connects through a proxy, or some bytes of the stream were read before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    ///
    /// # Errors
    ///
    /// See [`accept`](Self::accept).
    pub async fn accept_from(
        &self,
        io: IoStream,
        addr: Option<SocketAddr>,
    ) -> io::Result<(IoStream, Vec<Vec<u8>>)> {
        let network = Network::of(addr.map(|addr| addr.ip()));
        let handshake = async {
            // Waiting for the ClientHello needs no computing, so the permit is only taken after it.
            let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
            let permit = self.handshakes.enter(network).await;
            permit.run(hello.into_stream(self.config()?)).await
        };
        let stream = within(
            self.handshake_timeout,
            "ServerTls::handshake_timeout",
            handshake,
        )
        .await?;
        let certificates = to_der(stream.get_ref().1.peer_certificates());
        Ok((IoStream::over_tls(stream.into()), certificates))
    }

    fn roots(mut self, input: &Input, pem: &[u8]) -> Result<Self, TlsError> {
        let known = self
            .client_roots
            .as_deref()
            .cloned()
            .unwrap_or_else(RootCertStore::empty);
        self.client_roots = Some(Arc::new(add_roots(known, input, pem)?));
        Ok(self.changed())
    }

    fn changed(mut self) -> Self {
        self.built = Arc::default();
        self
    }

    pub(super) fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.built.get_or_build(&self.identity, |identity| {
            let identity = identity.ok_or(TlsError::Unused {
                option: "ServerTls",
            })?;
            let provider = provider();
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(VERSIONS)
                .map_err(TlsError::setup)?;
            let builder = match &self.client_roots {
                None => builder.with_no_client_auth(),
                Some(roots) => {
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider);
                    let verifier = match self.client_certificate {
                        ClientCertificate::Required => verifier,
                        ClientCertificate::Optional => verifier.allow_unauthenticated(),
                    };
                    builder.with_client_cert_verifier(verifier.build().map_err(TlsError::setup)?)
                }
            };
            // A new configuration is built for each identity, so that sessions of the old
            // certificate are not resumed, and every client verifies the new one.
            let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
            // Early data can be replayed by an attacker, and calls may not be repeatable.
            config.max_early_data_size = 0;
            config.alpn_protocols.clone_from(&self.alpn);
            if self.client_roots.is_some() {
                // The client's certificate is not verified again when a session is resumed, and it
                // may have expired since.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Ok(config)
        })
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("identity", &self.identity)
            .field(
                "client_roots",
                &self.client_roots.as_ref().map_or(0, |roots| roots.len()),
            )
            .field("client_certificate", &self.client_certificate)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("max_handshakes", &self.handshakes.limit())
            .finish()
    }
}
