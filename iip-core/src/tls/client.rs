//! Connections made: whom to trust, and who we are.

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

/// TLS for connections made: which servers are trusted, and who the client is.
///
/// Without further settings: the server's certificate must come from a root of the platform, name
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
    /// Trusts the roots of the platform, shows no client certificate.
    pub fn new() -> Self {
        Self {
            trust: Trust::Platform,
            identity: Arc::default(),
            server_name: None,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            built: Arc::default(),
        }
    }

    /// Trusts the certificates in `pem` instead of the platform's roots. Called again: those as
    /// well.
    ///
    /// # Errors
    ///
    /// `pem` is malformed or holds no certificate.
    pub fn roots_pem(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        self.roots(&Input::bytes("ClientTls::roots_pem"), pem.as_ref())
    }

    /// Trusts the certificates in a PEM file instead of the platform's roots. Called again: those
    /// as well.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is malformed or holds no certificate.
    pub fn roots_file(self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let input = Input::file("ClientTls::roots_file", path.as_ref());
        let pem = input.read()?;
        self.roots(&input, &pem)
    }

    /// Shows this certificate to servers that ask for one.
    ///
    /// `chain`: the client's own certificate first, then those that lead to the root the server
    /// trusts. `key`: its private key, not encrypted, as PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    ///
    /// Either is malformed, or they do not belong together.
    pub fn identity_pem(
        mut self,
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsError> {
        let input = Input::bytes("ClientTls::identity_pem");
        self.identity = IdentityCell::new(&input, chain.as_ref(), &input, key.as_ref())?;
        Ok(self.changed())
    }

    /// Shows the certificate of these PEM files to servers that ask for one, see
    /// [`identity_pem`](Self::identity_pem).
    ///
    /// # Errors
    ///
    /// A file cannot be read or is malformed, or they do not belong together.
    pub fn identity_files(
        mut self,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        self.identity =
            IdentityCell::from_files("ClientTls::identity_files", chain.as_ref(), key.as_ref())?;
        Ok(self.changed())
    }

    /// The name or IP address the server's certificate must carry. Default: the host connected to.
    ///
    /// Needed over Unix sockets and in memory, which have no host.
    ///
    /// # Errors
    ///
    /// `name` is neither a DNS name nor an IP address.
    pub fn server_name(mut self, name: &str) -> Result<Self, TlsError> {
        self.server_name = Some(parse_name(name)?);
        Ok(self)
    }

    /// How long a handshake may take before the connection is given up. Default: 10 s;
    /// [`Duration::MAX`]: no limit. Less than a millisecond is refused where a client is made with
    /// it.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    pub(crate) fn handshake_limit(&self) -> Duration {
        self.handshake_timeout
    }

    /// Replaces the identity while clients run. Ask for it after the last `identity_` call.
    pub fn reloader(&self) -> CertificateReloader {
        CertificateReloader {
            cell: Arc::downgrade(&self.identity),
            option: "ClientTls::reloader",
        }
    }

    /// Reads the files of [`identity_files`](Self::identity_files) every 10 s and uses what is new
    /// in them, as [`CertificateReloader::watch_files`] does.
    ///
    /// # Errors
    ///
    /// The identity is not from files or they have become unusable, or this is not called in a
    /// tokio runtime.
    pub fn watch_files(self) -> Result<Self, TlsError> {
        self.identity.watch_own_files("ClientTls::watch_files")?;
        Ok(self)
    }

    /// Loads everything that is loaded late, so that a mistake shows now and not on the first
    /// connection.
    ///
    /// Reads the platform's roots from disk, which takes some milliseconds, unless other roots were
    /// given.
    ///
    /// # Errors
    ///
    /// The platform has no usable roots.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    /// Does the handshake on a connected stream; `default_name` is the host connected to, if there
    /// is one.
    ///
    /// Gives the encrypted stream, and the verified certificate of the server with the chain it
    /// sent (DER). The stream sends close_notify when it is shut down, and a peer that ends without
    /// one makes its reads fail with `UnexpectedEof`. What is written to it may wait until it is
    /// flushed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] inside, or an error of the stream.
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
                // Reads files when the platform's roots are asked for.
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
            Trust::Anything => Vec::new(),
            Trust::Platform | Trust::Roots(_) => to_der(stream.get_ref().1.peer_certificates()),
        };
        Ok((IoStream::over_tls(stream.into()), certificates))
    }

    fn roots(mut self, input: &Input, pem: &[u8]) -> Result<Self, TlsError> {
        let known = match &self.trust {
            Trust::Roots(roots) => (**roots).clone(),
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
                        "tls connections accept any server certificate: whoever is on the way can read and change \
                         everything; give the root certificate with ClientTls::roots_pem instead"
                    );
                    Arc::new(AcceptAnything { provider: Arc::clone(&provider) })
                }
            };
            let builder = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(VERSIONS)
                .map_err(TlsError::setup)?
                .dangerous()
                .with_custom_certificate_verifier(verifier);
            // A new configuration for each identity: sessions begun under the old one are not
            // resumed.
            Ok(match identity {
                Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
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

/// The way to TLS without knowing who is on the other side: for tests on one's own machine only.
#[derive(Debug)]
#[non_exhaustive]
pub struct DangerousClientTls;

impl DangerousClientTls {
    /// A [`ClientTls`] that accepts every server certificate, and so every machine in the middle.
    ///
    /// It logs a warning, and the peer has no certificates, since none was verified. Giving roots
    /// to it afterwards turns verification on again. To trust one self-signed certificate, give it
    /// to [`ClientTls::roots_pem`] instead.
    pub fn accept_any_certificate() -> ClientTls {
        ClientTls {
            trust: Trust::Anything,
            ..ClientTls::new()
        }
    }
}

pub(super) fn parse_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    // `fe80::1%eth0`: the zone is no part of the address.
    let address = name.split_once('%').map_or(name, |(address, _)| address);
    ServerName::try_from(address.to_owned()).map_err(|_| TlsError::BadServerName {
        name: name.to_owned(),
    })
}

fn platform_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Stores hold certificates that rustls cannot use; the others count.
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

/// Takes every certificate, but still demands that the server holds its key.
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
