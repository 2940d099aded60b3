//! Connections accepted: who we are, and whom to let in.

use std::fmt;
use std::io;
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

/// How many handshakes a server runs at a time unless set otherwise.
const MAX_HANDSHAKES: usize = 256;

/// TLS for connections accepted: the server's certificate, and which clients are let in.
///
/// Without further settings no client certificate is asked for. Cloning is cheap; clones share what
/// is reloaded.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) identity: Arc<IdentityCell>,
    client_roots: Option<Arc<RootCertStore>>,
    client_certificate: ClientCertificate,
    handshake_timeout: Duration,
    max_handshakes: usize,
    built: Arc<Built<ServerConfig>>,
}

/// What happens to clients that show no certificate, see [`ServerTls::client_certificate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ClientCertificate {
    /// They are refused.
    #[default]
    Required,
    /// They are let in and have no certificates. A certificate that does not verify is refused all
    /// the same.
    Optional,
}

impl ServerTls {
    /// Shows this certificate to every client.
    ///
    /// `chain`: the server's own certificate first, then those that lead to the root the clients
    /// trust. `key`: its private key, not encrypted, as PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    ///
    /// Either is malformed, or they do not belong together.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let input = Input::bytes("ServerTls::from_pem");
        Ok(Self::new(IdentityCell::new(
            &input,
            chain.as_ref(),
            &input,
            key.as_ref(),
        )?))
    }

    /// Shows the certificate of these PEM files to every client, see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    ///
    /// A file cannot be read or is malformed, or they do not belong together.
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
            max_handshakes: MAX_HANDSHAKES,
            built: Arc::default(),
        }
    }

    /// Lets only those clients in whose certificate comes from a root in `pem`. Called again: those
    /// as well.
    ///
    /// # Errors
    ///
    /// `pem` is malformed or holds no certificate.
    pub fn client_roots_pem(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        self.roots(&Input::bytes("ServerTls::client_roots_pem"), pem.as_ref())
    }

    /// Lets only those clients in whose certificate comes from a root in this PEM file. Called
    /// again: those as well.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is malformed or holds no certificate.
    pub fn client_roots_file(self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let input = Input::file("ServerTls::client_roots_file", path.as_ref());
        let pem = input.read()?;
        self.roots(&input, &pem)
    }

    /// Sets whether clients must show a certificate. Default: required, once client roots are
    /// given; without them none is asked for, and this setting has no effect.
    #[must_use]
    pub fn client_certificate(mut self, rule: ClientCertificate) -> Self {
        self.client_certificate = rule;
        self.changed()
    }

    /// How long a handshake may take, from when the connection is accepted, before it is closed.
    /// Default: 10 s;
    /// [`Duration::MAX`]: no limit. Less than a millisecond is refused where a server is made with it.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// How many handshakes run at a time, at least 1; further connections wait their turn. Default:
    /// 256.
    ///
    /// A handshake costs about a millisecond of computing and up to 64 KiB of what an unknown peer
    /// sends. It begins when the client's first message (ClientHello) has arrived: connections that
    /// are silent take none of these places. A client that does not go on with its handshake for a
    /// second makes room for one that waits, and at once where it is one of the address that has
    /// the most.
    #[must_use]
    pub fn max_handshakes(mut self, count: usize) -> Self {
        self.max_handshakes = count.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    pub(crate) fn handshake_limit(&self) -> Duration {
        self.handshake_timeout
    }

    /// How many handshakes may run at a time; keeping to it is up to who accepts the connections.
    pub fn handshakes(&self) -> usize {
        self.max_handshakes
    }

    /// Replaces the certificate while the server runs.
    pub fn reloader(&self) -> CertificateReloader {
        CertificateReloader {
            cell: Arc::downgrade(&self.identity),
            option: "ServerTls::reloader",
        }
    }

    /// Reads the files of [`from_files`](Self::from_files) every 10 s and uses what is new in them,
    /// as [`CertificateReloader::watch_files`] does.
    ///
    /// # Errors
    ///
    /// The certificate is not from files or they have become unusable, or this is not called in a
    /// tokio runtime.
    pub fn watch_files(self) -> Result<Self, TlsError> {
        self.identity.watch_own_files("ServerTls::watch_files")?;
        Ok(self)
    }

    /// Builds everything that is built late, so that a mistake shows now and not on the first
    /// connection.
    ///
    /// # Errors
    ///
    /// rustls refuses the settings as a whole.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    /// Does the handshake on an accepted stream.
    ///
    /// Gives the encrypted stream, and the verified certificate of the client with the chain it
    /// sent (DER); none if it was not asked for one. The stream sends close_notify when it is shut
    /// down, and a peer that ends without one makes its reads fail with `UnexpectedEof`. What is
    /// written to it may wait until it is flushed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] inside, or an error of the stream.
    pub async fn accept(&self, io: impl Into<IoStream>) -> io::Result<(IoStream, Vec<Vec<u8>>)> {
        let alone = Handshakes::new(1);
        self.accept_beside(io.into(), &alone, Network::default())
            .await
    }

    /// Like [`accept`](Self::accept), with a place among the handshakes that run at a time.
    pub(crate) async fn accept_beside(
        &self,
        io: IoStream,
        handshakes: &Arc<Handshakes>,
        network: Network,
    ) -> io::Result<(IoStream, Vec<Vec<u8>>)> {
        let handshake = async {
            // Computes nothing: a place is taken once there is something to compute.
            let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
            let permit = handshakes.enter(network).await;
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
            // A new configuration for each identity: sessions begun under the old certificate are
            // not resumed, so that every client sees and verifies the new one.
            let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
            config.max_early_data_size = 0;
            if self.client_roots.is_some() {
                // A resumed session does not verify the client's certificate again: it may have
                // expired since.
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
            .field("max_handshakes", &self.max_handshakes)
            .finish()
    }
}
