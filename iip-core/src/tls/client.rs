//! TLS for outgoing connections: trusted servers and the client's identity.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::pem::{Input, add_roots};
use super::reload::{CertificateReloader, IdentityCell};
use super::{Built, HANDSHAKE_TIMEOUT, TlsError, VERSIONS, provider, to_der, within};
use crate::transport::IoStream;

/// TLS for outgoing connections: the servers that are trusted, and the certificate of the client.
///
/// Without further settings, the server's certificate must come from a root of the platform, name
/// the host connected to and be valid now. Cloning is cheap; clones share what is reloaded.
#[derive(Clone)]
pub struct ClientTls {
    trust: Trust,
    identity: Arc<IdentityCell>,
    server_name: Option<ServerName<'static>>,
    handshake_timeout: Duration,
    built: Arc<Built<ClientConfig>>,
}

#[derive(Clone)]
enum Trust {
    Platform,
    Roots(Arc<RootCertStore>),
    Anything,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientTls {
    /// Creates a configuration that trusts the roots of the platform and has no client certificate.
    pub fn new() -> Self {
        Self {
            trust: Trust::Platform,
            identity: Arc::default(),
            server_name: None,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            built: Arc::default(),
        }
    }

    /// Trusts the certificates in `pem` instead of the platform's roots. Further calls add to them.
    ///
    /// # Errors
    ///
    /// Fails if `pem` is malformed or contains no certificate.
    pub fn roots_pem(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        self.roots(&Input::bytes("ClientTls::roots_pem"), pem.as_ref())
    }

    /// Trusts the certificates in a PEM file instead of the platform's roots. Further calls add to
    /// them.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is malformed or contains no certificate.
    pub fn roots_file(self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let input = Input::file("ClientTls::roots_file", path.as_ref());
        let pem = input.read()?;
        self.roots(&input, &pem)
    }

    /// Sends this certificate to servers that ask for one.
    ///
    /// `chain`: the client's own certificate first, then those that lead to the root that the
    /// server trusts. `key`: its private key, not encrypted, as PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    ///
    /// Fails if either is malformed, or if they do not belong together.
    pub fn identity_pem(
        mut self,
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsError> {
        let input = Input::bytes("ClientTls::identity_pem");
        self.identity = IdentityCell::new(&input, chain.as_ref(), &input, key.as_ref())?;
        Ok(self.changed())
    }

    /// Sends the certificate in these PEM files to servers that ask for one, see
    /// [`identity_pem`](Self::identity_pem).
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or is malformed, or if they do not belong together.
    pub fn identity_files(
        mut self,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        self.identity =
            IdentityCell::from_files("ClientTls::identity_files", chain.as_ref(), key.as_ref())?;
        Ok(self.changed())
    }

    /// Sets the name or IP address that the server's certificate must contain. Default: the host
    /// connected to.
    ///
    /// Needed for Unix sockets and in-memory streams, which have no host.
    ///
    /// # Errors
    ///
    /// Fails if `name` is neither a DNS name nor an IP address.
    pub fn server_name(mut self, name: &str) -> Result<Self, TlsError> {
        self.server_name = Some(parse_name(name)?);
        Ok(self)
    }

    /// Sets the maximum duration of a handshake, after which the connection is given up. Default:
    /// 10 s; [`Duration::MAX`]: no limit. Less than a millisecond is rejected when a client is
    /// created with it.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    pub(crate) fn handshake_limit(&self) -> Duration {
        self.handshake_timeout
    }

    /// Returns a handle that replaces the identity while clients run. Call it after the last
    /// `identity_` call.
    pub fn reloader(&self) -> CertificateReloader {
        CertificateReloader {
            cell: Arc::downgrade(&self.identity),
            option: "ClientTls::reloader",
        }
    }

    /// Reads the files of [`identity_files`](Self::identity_files) every 10 s and uses them if they
    /// have changed, like [`CertificateReloader::watch_files`].
    ///
    /// # Errors
    ///
    /// Fails if the identity is not from files, if they have become unusable, or if this is not
    /// called in a tokio runtime.
    pub fn watch_files(self) -> Result<Self, TlsError> {
        self.identity.watch_own_files("ClientTls::watch_files")?;
        Ok(self)
    }

    /// Loads everything that is otherwise loaded on the first connection, so that a mistake is
    /// found now.
    ///
    /// Reads the platform's roots from disk, which takes some milliseconds, unless other roots were
    /// set.
    ///
    /// # Errors
    ///
    /// Fails if the platform has no usable roots.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    /// Performs the handshake on a connected stream; `default_name` is the host connected to, if
    /// there is one.
    ///
    /// Returns the encrypted stream, and the verified certificate of the server with the chain that
    /// it sent (DER). The stream sends close_notify when it is shut down, and if the peer ends it
    /// without close_notify, its reads fail with `UnexpectedEof`. Data written to it may wait until
    /// it is flushed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    ///
    /// # Errors
    ///
    /// The error contains a [`TlsError`], or is an error of the stream.
    pub async fn connect(
        &self,
        io: impl Into<IoStream>,
        default_name: Option<&str>,
    ) -> io::Result<(IoStream, Vec<Vec<u8>>)> {
        let io = io.into();
        let name = match (&self.server_name, default_name) {
            (Some(name), _) => name.clone(),
            (None, Some(host)) => parse_name(host)?,
            (None, None) => return Err(TlsError::NoServerName.into()),
        };
        let config = match self.built.current(&self.identity) {
            Some(config) => config,
            None => {
                // Building the configuration reads files if the platform's roots are used.
                let this = self.clone();
                tokio::task::spawn_blocking(move || this.config())
                    .await
                    .map_err(io::Error::other)??
            }
        };
        let handshake = TlsConnector::from(config).connect(name, io);
        let stream = within(
            self.handshake_timeout,
            "ClientTls::handshake_timeout",
            handshake,
        )
        .await?;
        let certificates = match self.trust {
            // No certificate was verified, so none is shown as the identity of the peer.
            Trust::Anything => Vec::new(),
            Trust::Platform | Trust::Roots(_) => to_der(stream.get_ref().1.peer_certificates()),
        };
        Ok((IoStream::over_tls(stream.into()), certificates))
    }

    fn roots(mut self, input: &Input, pem: &[u8]) -> Result<Self, TlsError> {
        let known = match &self.trust {
            Trust::Roots(roots) => (**roots).clone(),
            // Given roots replace those of the platform, and turn verification on again.
            Trust::Platform | Trust::Anything => RootCertStore::empty(),
        };
        self.trust = Trust::Roots(Arc::new(add_roots(known, input, pem)?));
        Ok(self.changed())
    }

    fn changed(mut self) -> Self {
        self.built = Arc::default();
        self
    }

    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.built.get_or_build(&self.identity, |identity| {
            let provider = provider();
            let verifier: Arc<dyn ServerCertVerifier> = match &self.trust {
                Trust::Platform => verify_with(platform_roots()?, &provider)?,
                Trust::Roots(roots) => verify_with(Arc::clone(roots), &provider)?,
                Trust::Anything => {
                    tracing::warn!(
                        "tls connections accept any server certificate: an attacker on the \
                         network can read and change everything; set the root certificate with \
                         ClientTls::roots_pem instead"
                    );
                    Arc::new(AcceptAnything {
                        provider: Arc::clone(&provider),
                    })
                }
            };
            let builder = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(VERSIONS)
                .map_err(TlsError::setup)?
                .dangerous()
                .with_custom_certificate_verifier(verifier);
            // A new configuration is built for each identity, so that sessions of the old one are
            // not resumed.
            Ok(match identity {
                Some(identity) => {
                    builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
                }
                None => builder.with_no_client_auth(),
            })
        })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trust = match &self.trust {
            Trust::Platform => "platform roots".to_owned(),
            Trust::Roots(roots) => format!("{} given roots", roots.len()),
            Trust::Anything => "anything, unverified".to_owned(),
        };
        f.debug_struct("ClientTls")
            .field("trust", &trust)
            .field("identity", &self.identity.current.load().is_some())
            .field("server_name", &self.server_name)
            .field("handshake_timeout", &self.handshake_timeout)
            .finish()
    }
}

/// Access to TLS without verification of the server: only for tests on the local machine.
#[derive(Debug)]
#[non_exhaustive]
pub struct DangerousClientTls;

impl DangerousClientTls {
    /// Creates a [`ClientTls`] that accepts every server certificate, and thus every man in the
    /// middle.
    ///
    /// It logs a warning, and the peer has no certificates, since none was verified. Setting roots
    /// afterwards turns verification on again. To trust one self-signed certificate, pass it to
    /// [`ClientTls::roots_pem`] instead.
    pub fn accept_any_certificate() -> ClientTls {
        ClientTls {
            trust: Trust::Anything,
            ..ClientTls::new()
        }
    }
}

pub(super) fn parse_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    // In `fe80::1%eth0`, the zone is not part of the address.
    let address = name.split_once('%').map_or(name, |(address, _)| address);
    ServerName::try_from(address.to_owned()).map_err(|_| TlsError::BadServerName {
        name: name.to_owned(),
    })
}

fn platform_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Stores contain certificates that rustls cannot use, so those are skipped.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = match found.errors.first() {
            Some(error) => error.to_string(),
            None => "none found".to_owned(),
        };
        return Err(TlsError::NoPlatformRoots { reason });
    }
    Ok(Arc::new(roots))
}

fn verify_with(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(TlsError::setup)
}

/// A verifier that accepts every certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct AcceptAnything {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
