//! TLS on both sides by rustls with the ring provider (feature `tls`).
//!
//! IIP frames travel inside TLS unchanged: no ALPN, no upgrade of a plain connection, and a TLS port never falls back to
//! plain. TLS 1.3 and 1.2 only, no early data. Verification is on and needs no setting; the only way around it is named
//! [`DangerousClientTls`].
//!
//! ```no_run
//! use iip_core::tls::{ClientTls, ServerTls};
//!
//! // A server that demands a client certificate, and notices when its own is renewed.
//! let server = ServerTls::from_files("server.pem", "server.key")?.client_roots_file("clients-ca.pem")?.watch_files()?;
//! // A client that trusts one authority and shows a certificate.
//! let client = ClientTls::new().roots_file("ca.pem")?.identity_files("client.pem", "client.key")?;
//! # Ok::<(), iip_core::tls::TlsError>(())
//! ```

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, InconsistentKeys, InvalidMessage, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::transport::IoStream;

/// How long a handshake may take unless set otherwise.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many handshakes a server runs at a time unless set otherwise.
const MAX_HANDSHAKES: usize = 256;

/// How often watched files are read unless set otherwise.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// TLS for connections made: which servers are trusted, and who the client is.
///
/// Without further settings: the server's certificate must come from a root of the platform, name the host connected to
/// and be valid now. Cloning is cheap; clones share what is reloaded.
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

    /// Trusts the certificates in `pem` instead of the platform's roots. Called again: those as well.
    ///
    /// # Errors
    ///
    /// `pem` is malformed or holds no certificate.
    pub fn roots_pem(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        self.roots(&Input::bytes("ClientTls::roots_pem"), pem.as_ref())
    }

    /// Trusts the certificates in a PEM file instead of the platform's roots. Called again: those as well.
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
    /// `chain`: the client's own certificate first, then those that lead to the root the server trusts. `key`: its
    /// private key, not encrypted, as PKCS#8, PKCS#1 or SEC1.
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

    /// Shows the certificate of these PEM files to servers that ask for one, see [`identity_pem`](Self::identity_pem).
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

    /// How long a handshake may take before the connection is given up. Default: 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// Replaces the identity while clients run. Ask for it after the last `identity_` call.
    pub fn reloader(&self) -> CertificateReloader {
        CertificateReloader {
            cell: Arc::downgrade(&self.identity),
            option: "ClientTls::reloader",
        }
    }

    /// Reads the files of [`identity_files`](Self::identity_files) every 10 s and uses what is new in them, as
    /// [`CertificateReloader::watch_files`] does.
    ///
    /// # Errors
    ///
    /// The identity is not from files or they have become unusable, or this is not called in a tokio runtime.
    pub fn watch_files(self) -> Result<Self, TlsError> {
        self.identity.watch_own_files("ClientTls::watch_files")?;
        Ok(self)
    }

    /// Loads everything that is loaded late, so that a mistake shows now and not on the first connection.
    ///
    /// Reads the platform's roots from disk, which takes some milliseconds, unless other roots were given.
    ///
    /// # Errors
    ///
    /// The platform has no usable roots.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    /// Does the handshake on a connected stream; `default_name` is the host connected to, if there is one.
    ///
    /// Gives the encrypted stream, and the verified certificate of the server with the chain it sent (DER). The stream
    /// sends close_notify when it is shut down, and a peer that ends without one makes its reads fail with
    /// `UnexpectedEof`. What is written to it may wait until it is flushed.
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

    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
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
            // A new configuration for each identity: sessions begun under the old one are not resumed.
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
    /// It logs a warning, and the peer has no certificates, since none was verified. Giving roots to it afterwards turns
    /// verification on again. To trust one self-signed certificate, give it to [`ClientTls::roots_pem`] instead.
    pub fn accept_any_certificate() -> ClientTls {
        ClientTls {
            trust: Trust::Anything,
            ..ClientTls::new()
        }
    }
}

/// TLS for connections accepted: the server's certificate, and which clients are let in.
///
/// Without further settings no client certificate is asked for. Cloning is cheap; clones share what is reloaded.
#[derive(Clone)]
pub struct ServerTls {
    identity: Arc<IdentityCell>,
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
    /// They are let in and have no certificates. A certificate that does not verify is refused all the same.
    Optional,
}

impl ServerTls {
    /// Shows this certificate to every client.
    ///
    /// `chain`: the server's own certificate first, then those that lead to the root the clients trust. `key`: its
    /// private key, not encrypted, as PKCS#8, PKCS#1 or SEC1.
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

    /// Lets only those clients in whose certificate comes from a root in `pem`. Called again: those as well.
    ///
    /// # Errors
    ///
    /// `pem` is malformed or holds no certificate.
    pub fn client_roots_pem(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        self.roots(&Input::bytes("ServerTls::client_roots_pem"), pem.as_ref())
    }

    /// Lets only those clients in whose certificate comes from a root in this PEM file. Called again: those as well.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is malformed or holds no certificate.
    pub fn client_roots_file(self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let input = Input::file("ServerTls::client_roots_file", path.as_ref());
        let pem = input.read()?;
        self.roots(&input, &pem)
    }

    /// Whether clients must show a certificate. Default: required, once client roots are given; without them none is
    /// asked for, and this setting has no effect.
    #[must_use]
    pub fn client_certificate(mut self, rule: ClientCertificate) -> Self {
        self.client_certificate = rule;
        self.changed()
    }

    /// How long a handshake may take before the connection is closed. Default: 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// How many handshakes run at a time, at least 1; further connections wait their turn. Default: 256.
    ///
    /// A handshake costs about a millisecond of computing and up to 64 KiB of what an unknown peer sends.
    #[must_use]
    pub fn max_handshakes(mut self, count: usize) -> Self {
        self.max_handshakes = count.max(1);
        self
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

    /// Reads the files of [`from_files`](Self::from_files) every 10 s and uses what is new in them, as
    /// [`CertificateReloader::watch_files`] does.
    ///
    /// # Errors
    ///
    /// The certificate is not from files or they have become unusable, or this is not called in a tokio runtime.
    pub fn watch_files(self) -> Result<Self, TlsError> {
        self.identity.watch_own_files("ServerTls::watch_files")?;
        Ok(self)
    }

    /// Does the handshake on an accepted stream.
    ///
    /// Gives the encrypted stream, and the verified certificate of the client with the chain it sent (DER); none if it
    /// was not asked for one. The stream sends close_notify when it is shut down, and a peer that ends without one makes
    /// its reads fail with `UnexpectedEof`. What is written to it may wait until it is flushed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] inside, or an error of the stream.
    pub async fn accept(&self, io: impl Into<IoStream>) -> io::Result<(IoStream, Vec<Vec<u8>>)> {
        let handshake = TlsAcceptor::from(self.config()?).accept(io.into());
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

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
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
            // A new configuration for each identity: sessions begun under the old certificate are not resumed, so that
            // every client sees and verifies the new one.
            let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
            config.max_early_data_size = 0;
            if self.client_roots.is_some() {
                // A resumed session does not verify the client's certificate again: it may have expired since.
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

/// Replaces a certificate and its key at run time: handshakes from then on use the new one, connections that exist keep
/// what they have.
///
/// A new certificate that is unusable is refused with the reason, and the old one stays. Cloning is cheap, and a reloader
/// does not keep the configuration alive.
///
/// ```no_run
/// # fn main() -> Result<(), iip_core::tls::TlsError> {
/// use iip_core::tls::ServerTls;
///
/// let tls = ServerTls::from_files("server.pem", "server.key")?;
/// let reloader = tls.reloader();
/// // .. give `tls` to a server, and later:
/// reloader.reload_files("renewed.pem", "renewed.key")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CertificateReloader {
    cell: Weak<IdentityCell>,
    option: &'static str,
}

impl CertificateReloader {
    /// Uses this certificate chain and private key from the next handshake on.
    ///
    /// # Errors
    ///
    /// Either is malformed, they do not belong together, or the configuration is gone. The old certificate stays.
    pub fn reload_pem(
        &self,
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<(), TlsError> {
        let input = Input::bytes("CertificateReloader::reload_pem");
        let identity = parse_identity(&input, chain.as_ref(), &input, key.as_ref())?;
        self.cell()?.current.store(Some(identity));
        Ok(())
    }

    /// Uses the certificate chain and private key of these PEM files from the next handshake on. Reads them at once,
    /// blocking the caller.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is malformed, they do not belong together, or the configuration is gone. The old
    /// certificate stays.
    pub fn reload_files(
        &self,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<(), TlsError> {
        let files = IdentityFiles::new(
            "CertificateReloader::reload_files",
            chain.as_ref(),
            key.as_ref(),
        );
        let identity = files.read()?.parse()?;
        self.cell()?.current.store(Some(identity));
        Ok(())
    }

    /// Uses these PEM files now, and again whenever their content changes: they are read once in every `interval`.
    ///
    /// Files that are unusable, for example because only one of the two is written yet, are logged and tried again when
    /// they change; the old certificate stays until then. The watch ends when the configuration is dropped, and a further
    /// watch takes its place.
    ///
    /// # Errors
    ///
    /// As [`reload_files`](Self::reload_files), or this is not called in a tokio runtime.
    pub fn watch_files(
        &self,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
        interval: Duration,
    ) -> Result<(), TlsError> {
        let files = IdentityFiles::new(
            "CertificateReloader::watch_files",
            chain.as_ref(),
            key.as_ref(),
        );
        self.cell()?.watch(files, interval)
    }

    fn cell(&self) -> Result<Arc<IdentityCell>, TlsError> {
        self.cell.upgrade().ok_or(TlsError::Unused {
            option: self.option,
        })
    }
}

/// Why TLS cannot be set up, or a handshake failed.
///
/// The handshake functions put it into an [`io::Error`], from which `get_ref` gets it back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{option}: cannot read {}", path.display())]
    Read {
        /// The call that named it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// Something is not PEM.
    #[error("{option}: {input} is not valid pem: {reason}")]
    BadPem {
        /// The call that took it.
        option: &'static str,
        /// The file, or that it was given as bytes.
        input: String,
        /// What is wrong.
        reason: String,
    },
    /// PEM without a certificate.
    #[error("{option}: {input} has no `BEGIN CERTIFICATE` section")]
    NoCertificate {
        /// The call that took it.
        option: &'static str,
        /// The file, or that it was given as bytes.
        input: String,
    },
    /// A certificate that cannot be used.
    #[error("{option}: a certificate in {input} is unusable: {reason}")]
    BadCertificate {
        /// The call that took it.
        option: &'static str,
        /// The file, or that it was given as bytes.
        input: String,
        /// What is wrong.
        reason: String,
    },
    /// PEM without a private key that can be read.
    #[error("{option}: {input} has no private key that is not encrypted (pkcs#8, pkcs#1 or sec1)")]
    NoKey {
        /// The call that took it.
        option: &'static str,
        /// The file, or that it was given as bytes.
        input: String,
    },
    /// A private key that cannot be used.
    #[error("{option}: the private key in {input} is unusable: {reason}")]
    BadKey {
        /// The call that took it.
        option: &'static str,
        /// The file, or that it was given as bytes.
        input: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are fine, but not a pair.
    #[error("{option}: the private key in {input} does not belong to the first certificate")]
    KeyMismatch {
        /// The call that took them.
        option: &'static str,
        /// The file of the key, or that it was given as bytes.
        input: String,
    },
    /// The platform's certificate store is empty or unreadable.
    #[error(
        "the platform has no usable root certificates ({reason}), give roots with ClientTls::roots_file"
    )]
    NoPlatformRoots {
        /// What is wrong.
        reason: String,
    },
    /// Neither a DNS name nor an IP address.
    #[error("`{name}` is no name a certificate can carry, give one with ClientTls::server_name")]
    BadServerName {
        /// What was given.
        name: String,
    },
    /// The stream has no host, and no name is set.
    #[error(
        "there is no host to verify the server certificate against, give a name with ClientTls::server_name"
    )]
    NoServerName,
    /// The certificate was not loaded from files.
    #[error("{option}: the certificate is not from files, use CertificateReloader::watch_files")]
    NoFiles {
        /// The call that needs them.
        option: &'static str,
    },
    /// Watching files needs a task.
    #[error("{option}: must be called in a tokio runtime")]
    NoRuntime {
        /// The call that needs it.
        option: &'static str,
    },
    /// The configuration of a reloader has been dropped, or given another identity since.
    #[error("{option}: its configuration is no longer in use")]
    Unused {
        /// Where the reloader is from.
        option: &'static str,
    },
    /// rustls refuses the settings as a whole.
    #[error("tls cannot be set up: {reason}")]
    Setup {
        /// What it says.
        reason: String,
    },
    /// The peer took too long.
    #[error("tls handshake not finished within {limit:?}, the limit is {option}")]
    Timeout {
        /// The limit.
        limit: Duration,
        /// What to change.
        option: &'static str,
    },
    /// The peer ended the stream instead of answering.
    #[error("the peer closed the connection in the tls handshake")]
    Closed,
    /// The peer sent bytes that are not TLS.
    #[error("the peer does not speak tls")]
    NotTls,
    /// The peer's certificate does not verify, or it has none.
    #[error("certificate of the peer refused: {reason}")]
    Untrusted {
        /// Why.
        reason: String,
    },
    /// The peer refused us, our certificate for example.
    #[error("the peer refused the tls handshake: {alert}")]
    Refused {
        /// Its alert.
        alert: String,
    },
    /// The handshake went wrong in another way.
    #[error("tls handshake failed: {reason}")]
    Handshake {
        /// How.
        reason: String,
    },
}

impl TlsError {
    fn setup(error: impl fmt::Display) -> Self {
        Self::Setup {
            reason: error.to_string(),
        }
    }

    fn of_handshake(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Self::Untrusted {
                    reason: error.to_string(),
                }
            }
            rustls::Error::AlertReceived(alert) => Self::Refused {
                alert: format!("{alert:?}"),
            },
            _ => Self::Handshake {
                reason: error.to_string(),
            },
        }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        let kind = match &error {
            TlsError::Read { source, .. } => source.kind(),
            TlsError::Timeout { .. } => io::ErrorKind::TimedOut,
            TlsError::Closed => io::ErrorKind::UnexpectedEof,
            TlsError::NotTls
            | TlsError::Untrusted { .. }
            | TlsError::Refused { .. }
            | TlsError::Handshake { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// The configuration that was built for one identity; built again when the identity has been replaced.
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
        // Should the identity change between the two, the next caller sees that they differ.
        self.latest
            .store(Some(Arc::new((identity, Arc::clone(&config)))));
        Ok(config)
    }
}

/// A certificate chain with its key that can be replaced under those who use it.
#[derive(Default)]
struct IdentityCell {
    current: ArcSwapOption<CertifiedKey>,
    files: Option<IdentityFiles>,
    watcher: Watcher,
}

/// The task that watches files, if there is one; it ends when this is dropped.
#[derive(Default)]
struct Watcher(Mutex<Option<AbortHandle>>);

impl Watcher {
    fn replace(&self, task: Option<AbortHandle>) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *current, task) {
            old.abort();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.replace(None);
    }
}

impl IdentityCell {
    fn new(
        chain: &Input,
        chain_pem: &[u8],
        key: &Input,
        key_pem: &[u8],
    ) -> Result<Arc<Self>, TlsError> {
        let identity = parse_identity(chain, chain_pem, key, key_pem)?;
        Ok(Arc::new(Self {
            current: ArcSwapOption::new(Some(identity)),
            ..Self::default()
        }))
    }

    fn from_files(option: &'static str, chain: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let files = IdentityFiles::new(option, chain, key);
        let identity = files.read()?.parse()?;
        Ok(Arc::new(Self {
            current: ArcSwapOption::new(Some(identity)),
            files: Some(files),
            ..Self::default()
        }))
    }

    fn watch_own_files(self: &Arc<Self>, option: &'static str) -> Result<(), TlsError> {
        let files = self.files.clone().ok_or(TlsError::NoFiles { option })?;
        self.watch(IdentityFiles { option, ..files }, WATCH_INTERVAL)
    }

    fn watch(self: &Arc<Self>, files: IdentityFiles, interval: Duration) -> Result<(), TlsError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| TlsError::NoRuntime {
            option: files.option,
        })?;
        let content = files.read()?;
        self.current.store(Some(content.parse()?));
        let watch = Watch {
            cell: Arc::downgrade(self),
            seen: content.digest,
            files,
            complaint: None,
        };
        let task = runtime.spawn(watch.run(interval)).abort_handle();
        self.watcher.replace(Some(task));
        Ok(())
    }
}

impl fmt::Debug for IdentityCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of the key.
        match &self.files {
            Some(files) => f
                .debug_tuple("Files")
                .field(&files.chain)
                .field(&files.key)
                .finish(),
            None => f.write_str("Pem"),
        }
    }
}

/// The task behind `watch_files`.
struct Watch {
    cell: Weak<IdentityCell>,
    files: IdentityFiles,
    /// What was tried last, whether it was usable or not.
    seen: u64,
    /// What was logged last, not to repeat it every ten seconds.
    complaint: Option<String>,
}

impl Watch {
    async fn run(mut self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let looked = tokio::task::spawn_blocking(move || {
                let outcome = self.look();
                (self, outcome)
            });
            let Ok((this, outcome)) = looked.await else {
                return;
            };
            self = this;
            // Here and not in the other thread: a watch that has been replaced must not store any more.
            let Some(cell) = self.cell.upgrade() else {
                return;
            };
            match outcome {
                Ok(None) => self.complaint = None,
                Ok(Some(identity)) => {
                    cell.current.store(Some(identity));
                    self.complaint = None;
                    tracing::info!(file = %self.files.chain.display(), "tls certificate reloaded");
                }
                Err(error) => {
                    let text = error.to_string();
                    if self.complaint.as_ref() != Some(&text) {
                        let error: &(dyn Error + 'static) = &error;
                        tracing::warn!(
                            error,
                            "tls certificate not reloaded, the old one stays in use"
                        );
                        self.complaint = Some(text);
                    }
                }
            }
        }
    }

    /// What is new in the files, if anything.
    fn look(&mut self) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
        let content = self.files.read()?;
        if content.digest == self.seen {
            return Ok(None);
        }
        self.seen = content.digest;
        content.parse().map(Some)
    }
}

/// The two files of an identity.
#[derive(Clone)]
struct IdentityFiles {
    option: &'static str,
    chain: PathBuf,
    key: PathBuf,
    /// Only compares contents of the same pair of files.
    hasher: RandomState,
}

impl IdentityFiles {
    fn new(option: &'static str, chain: &Path, key: &Path) -> Self {
        Self {
            option,
            chain: chain.to_owned(),
            key: key.to_owned(),
            hasher: RandomState::new(),
        }
    }

    /// Certificates are small: reading them is as cheap as asking for their times, and cannot miss a change.
    fn read(&self) -> Result<IdentityContent, TlsError> {
        let (chain, key) = (
            Input::file(self.option, &self.chain),
            Input::file(self.option, &self.key),
        );
        let (chain_pem, key_pem) = (chain.read()?, key.read()?);
        let digest = self.hasher.hash_one((&chain_pem, &key_pem));
        Ok(IdentityContent {
            chain,
            chain_pem,
            key,
            key_pem,
            digest,
        })
    }
}

/// What stands in the two files of an identity.
struct IdentityContent {
    chain: Input,
    chain_pem: Vec<u8>,
    key: Input,
    key_pem: Vec<u8>,
    digest: u64,
}

impl IdentityContent {
    fn parse(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        parse_identity(&self.chain, &self.chain_pem, &self.key, &self.key_pem)
    }
}

/// Where PEM is from, for errors.
struct Input {
    option: &'static str,
    file: Option<PathBuf>,
}

impl Input {
    fn bytes(option: &'static str) -> Self {
        Self { option, file: None }
    }

    fn file(option: &'static str, path: &Path) -> Self {
        Self {
            option,
            file: Some(path.to_owned()),
        }
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        let path = self.file.clone().unwrap_or_default();
        std::fs::read(&path).map_err(|error| TlsError::Read {
            option: self.option,
            path,
            source: Arc::new(error),
        })
    }

    fn bad_pem(&self, error: &pem::Error) -> TlsError {
        TlsError::BadPem {
            option: self.option,
            input: self.to_string(),
            reason: error.to_string(),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(path) => path.display().fmt(f),
            None => f.write_str("what was given"),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn parse_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    // `fe80::1%eth0`: the zone is no part of the address.
    let address = name.split_once('%').map_or(name, |(address, _)| address);
    ServerName::try_from(address.to_owned()).map_err(|_| TlsError::BadServerName {
        name: name.to_owned(),
    })
}

fn parse_certificates(input: &Input, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| input.bad_pem(&error))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            option: input.option,
            input: input.to_string(),
        });
    }
    Ok(certificates)
}

fn parse_identity(
    chain: &Input,
    chain_pem: &[u8],
    key: &Input,
    key_pem: &[u8],
) -> Result<Arc<CertifiedKey>, TlsError> {
    let certificates = parse_certificates(chain, chain_pem)?;
    let private_key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey {
            option: key.option,
            input: key.to_string(),
        },
        error => key.bad_pem(&error),
    })?;
    let provider = provider();
    let private_key = provider
        .key_provider
        .load_private_key(private_key)
        .map_err(|error| TlsError::BadKey {
            option: key.option,
            input: key.to_string(),
            reason: error.to_string(),
        })?;
    let identity = CertifiedKey::new(certificates, private_key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Arc::new(identity))
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch {
            option: key.option,
            input: key.to_string(),
        }),
        Err(error) => Err(TlsError::BadCertificate {
            option: chain.option,
            input: chain.to_string(),
            reason: error.to_string(),
        }),
    }
}

fn add_roots(
    mut roots: RootCertStore,
    input: &Input,
    pem: &[u8],
) -> Result<RootCertStore, TlsError> {
    for certificate in parse_certificates(input, pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::BadCertificate {
                option: input.option,
                input: input.to_string(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
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
            None if error.kind() == io::ErrorKind::UnexpectedEof => TlsError::Closed.into(),
            None => error,
        },
    )
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::{HandshakeKind, ProtocolVersion};
    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    static AUTHORITIES: AtomicUsize = AtomicUsize::new(0);

    /// A certificate authority.
    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
    }

    /// What an authority issues, as PEM.
    struct Issued {
        chain: String,
        key: String,
        der: Vec<u8>,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            // Its own name, or another authority's certificate is taken for one of ours with a broken signature.
            let name = format!("authority {}", AUTHORITIES.fetch_add(1, Ordering::Relaxed));
            params.distinguished_name.push(DnType::CommonName, name);
            Self {
                issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            }
        }

        fn pem(&self) -> String {
            self.issuer.pem()
        }

        fn issue(&self, name: &str) -> Issued {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![name.to_owned()])
                .unwrap()
                .signed_by(&key, &self.issuer)
                .unwrap();
            Issued {
                chain: certificate.pem(),
                key: key.serialize_pem(),
                der: certificate.der().to_vec(),
            }
        }

        fn server(&self, name: &str) -> ServerTls {
            let issued = self.issue(name);
            ServerTls::from_pem(&issued.chain, &issued.key).unwrap()
        }

        fn client(&self) -> ClientTls {
            ClientTls::new().roots_pem(self.pem()).unwrap()
        }
    }

    type Outcome = io::Result<(IoStream, Vec<Vec<u8>>)>;

    async fn shake_hands(client: &ClientTls, name: &str, server: &ServerTls) -> (Outcome, Outcome) {
        let (near, far) = duplex(64 * 1024);
        tokio::join!(client.connect(near, Some(name)), server.accept(far))
    }

    /// Whether both sides accept each other: under TLS 1.3 a client learns only afterwards that it was refused.
    async fn both_accept(client: &ClientTls, server: &ServerTls) -> bool {
        match shake_hands(client, "localhost", server).await {
            (Ok((near, _)), Ok((far, _))) => {
                converse(near, far).await;
                true
            }
            _ => false,
        }
    }

    async fn converse(mut near: IoStream, mut far: IoStream) {
        near.write_all(b"ping").await.unwrap();
        near.flush().await.unwrap();
        let mut received = [0; 4];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"ping");
        far.write_all(b"pong").await.unwrap();
        far.shutdown().await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
    }

    fn reason(outcome: Outcome) -> TlsError {
        let error = outcome.expect_err("the handshake should fail");
        let text = error.to_string();
        match error.into_inner().map(|inner| inner.downcast::<TlsError>()) {
            Some(Ok(error)) => *error,
            _ => panic!("not a TlsError: {text}"),
        }
    }

    #[tokio::test]
    async fn a_verified_stream_carries_bytes_and_tells_the_certificate() {
        let authority = Authority::new();
        let issued = authority.issue("localhost");
        let server = ServerTls::from_pem(&issued.chain, &issued.key).unwrap();
        let (near, far) = shake_hands(&authority.client(), "localhost", &server).await;
        let ((near, near_certificates), (far, far_certificates)) = (near.unwrap(), far.unwrap());
        assert_eq!(near_certificates, [issued.der]);
        assert!(far_certificates.is_empty());
        converse(near, far).await;
    }

    #[tokio::test]
    async fn an_ip_address_is_verified_like_a_name() {
        let authority = Authority::new();
        let server = authority.server("127.0.0.1");
        shake_hands(&authority.client(), "127.0.0.1", &server)
            .await
            .0
            .unwrap();
        let (near, _) = shake_hands(&authority.client(), "127.0.0.2", &server).await;
        assert!(matches!(reason(near), TlsError::Untrusted { .. }));
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused() {
        let authority = Authority::new();
        let (near, far) = shake_hands(
            &authority.client(),
            "localhost",
            &authority.server("example.org"),
        )
        .await;
        let near = reason(near);
        assert!(matches!(&near, TlsError::Untrusted { .. }), "{near}");
        assert!(near.to_string().contains("not valid for name"), "{near}");
        assert!(matches!(reason(far), TlsError::Refused { .. }));
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_authority_is_refused() {
        let (near, far) = shake_hands(
            &Authority::new().client(),
            "localhost",
            &Authority::new().server("localhost"),
        )
        .await;
        assert_eq!(
            reason(near).to_string(),
            "certificate of the peer refused: invalid peer certificate: UnknownIssuer"
        );
        assert_eq!(
            reason(far).to_string(),
            "the peer refused the tls handshake: UnknownCA"
        );
    }

    #[tokio::test]
    async fn platform_roots_are_the_default_and_do_not_know_our_authority() {
        let tls = ClientTls::new();
        if let Err(error) = tls.check() {
            // A machine without a certificate store.
            assert!(matches!(error, TlsError::NoPlatformRoots { .. }), "{error}");
            return;
        }
        let (near, _) = shake_hands(&tls, "localhost", &Authority::new().server("localhost")).await;
        assert!(matches!(reason(near), TlsError::Untrusted { .. }));
    }

    #[tokio::test]
    async fn a_name_that_is_set_wins_over_the_host() {
        let authority = Authority::new();
        let client = authority.client().server_name("db.internal").unwrap();
        let (near, far) = shake_hands(&client, "10.0.0.1", &authority.server("db.internal")).await;
        converse(near.unwrap().0, far.unwrap().0).await;
    }

    #[tokio::test]
    async fn without_any_name_no_byte_is_sent() {
        let (near, mut far) = duplex(64);
        let outcome = Authority::new().client().connect(near, None).await;
        assert!(matches!(reason(outcome), TlsError::NoServerName));
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(matches!(
            ClientTls::new().server_name("no name"),
            Err(TlsError::BadServerName { .. })
        ));
        parse_name("fe80::1%eth0").unwrap();
    }

    #[tokio::test]
    async fn roots_given_in_two_calls_both_count() {
        let (one, two) = (Authority::new(), Authority::new());
        let client = one.client().roots_pem(two.pem()).unwrap();
        assert!(both_accept(&client, &one.server("localhost")).await);
        assert!(both_accept(&client, &two.server("localhost")).await);
    }

    #[tokio::test]
    async fn a_required_client_certificate_is_verified_and_delivered() {
        let authority = Authority::new();
        let server = authority
            .server("localhost")
            .client_roots_pem(authority.pem())
            .unwrap();

        let issued = authority.issue("client");
        let known = authority
            .client()
            .identity_pem(&issued.chain, &issued.key)
            .unwrap();
        let (near, far) = shake_hands(&known, "localhost", &server).await;
        let (far, certificates) = far.unwrap();
        assert_eq!(certificates, [issued.der]);
        converse(near.unwrap().0, far).await;

        let (near, far) = shake_hands(&authority.client(), "localhost", &server).await;
        assert!(
            matches!(reason(far), TlsError::Untrusted { .. }),
            "no certificate"
        );
        // TLS 1.3: the client learns it with its first read.
        near.unwrap().0.read(&mut [0; 1]).await.unwrap_err();

        let issued = Authority::new().issue("client");
        let stranger = authority
            .client()
            .identity_pem(&issued.chain, &issued.key)
            .unwrap();
        assert!(matches!(
            reason(shake_hands(&stranger, "localhost", &server).await.1),
            TlsError::Untrusted { .. }
        ));
    }

    #[tokio::test]
    async fn an_optional_client_certificate_may_be_absent_but_not_wrong() {
        let authority = Authority::new();
        let server = authority
            .server("localhost")
            .client_roots_pem(authority.pem())
            .unwrap()
            .client_certificate(ClientCertificate::Optional);

        let (near, far) = shake_hands(&authority.client(), "localhost", &server).await;
        let (far, certificates) = far.unwrap();
        assert!(certificates.is_empty());
        converse(near.unwrap().0, far).await;

        let issued = Authority::new().issue("client");
        let stranger = authority
            .client()
            .identity_pem(&issued.chain, &issued.key)
            .unwrap();
        assert!(!both_accept(&stranger, &server).await);
    }

    fn version_and_kind(io: &IoStream) -> (ProtocolVersion, HandshakeKind) {
        let session = io.tls_session().unwrap();
        (
            session.protocol_version().unwrap(),
            session.handshake_kind().unwrap(),
        )
    }

    #[tokio::test]
    async fn tls_1_3_is_used_and_sessions_are_resumed() {
        let authority = Authority::new();
        let (client, server) = (authority.client(), authority.server("localhost"));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (near, far) = shake_hands(&client, "localhost", &server).await;
            let (near, far) = (near.unwrap().0, far.unwrap().0);
            assert_eq!(version_and_kind(&near), (ProtocolVersion::TLSv1_3, kind));
            converse(near, far).await;
        }
    }

    #[tokio::test]
    async fn a_client_certificate_is_verified_on_every_connection() {
        let authority = Authority::new();
        let server = authority
            .server("localhost")
            .client_roots_pem(authority.pem())
            .unwrap();
        let issued = authority.issue("client");
        let client = authority
            .client()
            .identity_pem(&issued.chain, &issued.key)
            .unwrap();
        for _ in 0..2 {
            let (near, far) = shake_hands(&client, "localhost", &server).await;
            let (near, far) = (near.unwrap().0, far.unwrap().0);
            assert_eq!(version_and_kind(&near).1, HandshakeKind::Full);
            converse(near, far).await;
        }
    }

    #[tokio::test]
    async fn peers_that_only_know_tls_1_2_are_served() {
        static OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        let authority = Authority::new();
        let mut roots = RootCertStore::empty();
        roots.add(authority.issuer.der().clone()).unwrap();
        let old_client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(OLD)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = duplex(64 * 1024);
        let connect = TlsConnector::from(Arc::new(old_client))
            .connect(parse_name("localhost").unwrap(), near.into());
        let server = authority.server("localhost");
        let (near, far) = tokio::join!(connect, server.accept(far));
        let far = far.unwrap().0;
        assert_eq!(version_and_kind(&far).0, ProtocolVersion::TLSv1_2);
        converse(IoStream::over_tls(near.unwrap().into()), far).await;

        let issued = authority.issue("localhost");
        let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let old_server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(OLD)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                chain,
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let (near, far) = duplex(64 * 1024);
        let accept = TlsAcceptor::from(Arc::new(old_server)).accept(far.into());
        let client = authority.client();
        let (near, far) = tokio::join!(client.connect(near, Some("localhost")), accept);
        let near = near.unwrap().0;
        assert_eq!(version_and_kind(&near).0, ProtocolVersion::TLSv1_2);
        converse(near, IoStream::over_tls(far.unwrap().into())).await;
    }

    #[test]
    fn early_data_and_alpn_are_off() {
        let authority = Authority::new();
        let server = authority.server("localhost").config().unwrap();
        assert_eq!(server.max_early_data_size, 0);
        assert!(server.alpn_protocols.is_empty());
        let client = authority.client().config().unwrap();
        assert!(!client.enable_early_data);
        assert!(client.alpn_protocols.is_empty());
    }

    #[tokio::test]
    async fn a_stream_cut_without_close_notify_is_an_error_and_a_closed_one_an_end() {
        let authority = Authority::new();
        let (client, server) = (authority.client(), authority.server("localhost"));
        let (near, far) = shake_hands(&client, "localhost", &server).await;
        let (near, mut far) = (near.unwrap().0, far.unwrap().0);
        drop(near);
        let error = far.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

        let (near, far) = shake_hands(&client, "localhost", &server).await;
        let (mut near, mut far) = (near.unwrap().0, far.unwrap().0);
        near.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn vectored_writes_go_through_tls() {
        let authority = Authority::new();
        let (near, far) = shake_hands(
            &authority.client(),
            "localhost",
            &authority.server("localhost"),
        )
        .await;
        let (mut near, mut far) = (near.unwrap().0, far.unwrap().0);
        assert!(near.is_write_vectored());
        let slices = [io::IoSlice::new(b"he"), io::IoSlice::new(b"llo")];
        assert_eq!(near.write_vectored(&slices).await.unwrap(), 5);
        near.flush().await.unwrap();
        let mut received = [0; 5];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"hello");
    }

    #[tokio::test]
    async fn a_reloaded_server_certificate_is_shown_to_every_new_connection() {
        let (old, new) = (Authority::new(), Authority::new());
        let server = old.server("localhost");
        let (trusts_old, trusts_new) = (old.client(), new.client());
        let (near, far) = shake_hands(&trusts_old, "localhost", &server).await;
        let before = (near.unwrap().0, far.unwrap().0);
        assert!(both_accept(&trusts_old, &server).await);
        assert!(!both_accept(&trusts_new, &server).await);

        let issued = new.issue("localhost");
        server
            .reloader()
            .reload_pem(&issued.chain, &issued.key)
            .unwrap();

        assert!(both_accept(&trusts_new, &server).await);
        // It holds a session ticket, which must not get it around the new certificate.
        assert!(!both_accept(&trusts_old, &server).await);
        converse(before.0, before.1).await;
    }

    #[tokio::test]
    async fn a_reloaded_client_identity_is_shown_on_every_new_connection() {
        let authority = Authority::new();
        let server = authority
            .server("localhost")
            .client_roots_pem(authority.pem())
            .unwrap();
        let (old, new) = (authority.issue("old"), authority.issue("new"));
        let client = authority
            .client()
            .identity_pem(&old.chain, &old.key)
            .unwrap();
        let clone = client.clone();
        assert_eq!(
            shake_hands(&client, "localhost", &server)
                .await
                .1
                .unwrap()
                .1,
            [old.der]
        );
        client.reloader().reload_pem(&new.chain, &new.key).unwrap();
        for client in [client, clone] {
            let (_, far) = shake_hands(&client, "localhost", &server).await;
            assert_eq!(far.unwrap().1, std::slice::from_ref(&new.der));
        }
    }

    #[tokio::test]
    async fn an_identity_can_be_given_to_a_client_that_had_none() {
        let authority = Authority::new();
        let server = authority
            .server("localhost")
            .client_roots_pem(authority.pem())
            .unwrap();
        let client = authority.client();
        assert!(!both_accept(&client, &server).await);
        let issued = authority.issue("late");
        client
            .reloader()
            .reload_pem(&issued.chain, &issued.key)
            .unwrap();
        assert!(both_accept(&client, &server).await);
    }

    #[tokio::test]
    async fn a_bad_reload_says_why_and_keeps_the_old_certificate() {
        let authority = Authority::new();
        let server = authority.server("localhost");
        let reloader = server.reloader();
        let (one, two) = (authority.issue("localhost"), authority.issue("localhost"));
        assert_eq!(
            reloader
                .reload_pem(&one.chain, &two.key)
                .unwrap_err()
                .to_string(),
            "CertificateReloader::reload_pem: the private key in what was given does not belong to the first \
             certificate"
        );
        assert_eq!(
            reloader
                .reload_pem("nothing", &one.key)
                .unwrap_err()
                .to_string(),
            "CertificateReloader::reload_pem: what was given has no `BEGIN CERTIFICATE` section"
        );
        assert!(matches!(
            reloader.reload_files("/absent.pem", "/absent.key"),
            Err(TlsError::Read { .. })
        ));
        assert!(both_accept(&authority.client(), &server).await);
        drop(server);
        let gone = reloader.reload_pem(&one.chain, &one.key).unwrap_err();
        assert_eq!(
            gone.to_string(),
            "ServerTls::reloader: its configuration is no longer in use"
        );
    }

    /// A folder of its own with a certificate and a key in it, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(issued: &Issued) -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = format!(
                "iip-tls-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            let folder = Self(std::env::temp_dir().join(name));
            std::fs::create_dir_all(&folder.0).unwrap();
            std::fs::write(folder.chain(), &issued.chain).unwrap();
            std::fs::write(folder.key(), &issued.key).unwrap();
            folder
        }

        fn chain(&self) -> PathBuf {
            self.0.join("chain.pem")
        }

        fn key(&self) -> PathBuf {
            self.0.join("key.pem")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn certificate(cell: &IdentityCell) -> Vec<u8> {
        cell.current.load().as_ref().unwrap().cert[0].to_vec()
    }

    /// The clock is paused: the watch runs as soon as nothing else can, and nobody waits.
    async fn after_looks(count: u32) {
        tokio::time::sleep(WATCH_INTERVAL * count + WATCH_INTERVAL / 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn watched_files_are_used_when_they_change_and_only_as_a_pair() {
        let authority = Authority::new();
        let (old, new) = (authority.issue("localhost"), authority.issue("localhost"));
        let folder = Folder::new(&old);
        let server = ServerTls::from_files(folder.chain(), folder.key())
            .unwrap()
            .watch_files()
            .unwrap();
        after_looks(3).await;
        assert_eq!(certificate(&server.identity), old.der);

        // Half of the pair: refused, the old one stays.
        std::fs::write(folder.chain(), &new.chain).unwrap();
        after_looks(2).await;
        assert_eq!(certificate(&server.identity), old.der);
        std::fs::write(folder.key(), &new.key).unwrap();
        after_looks(1).await;
        assert_eq!(certificate(&server.identity), new.der);

        std::fs::remove_file(folder.key()).unwrap();
        after_looks(2).await;
        assert_eq!(certificate(&server.identity), new.der);
        std::fs::write(folder.chain(), &old.chain).unwrap();
        std::fs::write(folder.key(), &old.key).unwrap();
        after_looks(1).await;
        assert_eq!(certificate(&server.identity), old.der);
        assert!(both_accept(&authority.client(), &server).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_with_its_configuration_and_with_the_next_watch() {
        let authority = Authority::new();
        let folder = Folder::new(&authority.issue("client"));
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let client = authority
            .client()
            .identity_files(folder.chain(), folder.key())
            .unwrap()
            .watch_files()
            .unwrap();
        let reloader = client.reloader();
        reloader
            .watch_files(folder.chain(), folder.key(), Duration::from_secs(1))
            .unwrap();
        after_looks(1).await;
        assert_eq!(tasks(), 1);
        drop(client);
        after_looks(1).await;
        assert_eq!(tasks(), 0);
    }

    #[test]
    fn watching_needs_files_and_a_runtime() {
        let authority = Authority::new();
        let issued = authority.issue("localhost");
        let error = authority.server("localhost").watch_files().unwrap_err();
        assert_eq!(
            error.to_string(),
            "ServerTls::watch_files: the certificate is not from files, use CertificateReloader::watch_files"
        );
        let folder = Folder::new(&issued);
        let error = ServerTls::from_files(folder.chain(), folder.key())
            .unwrap()
            .watch_files()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ServerTls::watch_files: must be called in a tokio runtime"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up_in_time() {
        let authority = Authority::new();
        let start = tokio::time::Instant::now();
        let (_near, far) = duplex(64);
        let error = authority.server("localhost").accept(far).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(
            error.to_string(),
            "tls handshake not finished within 10s, the limit is ServerTls::handshake_timeout"
        );
        assert_eq!(start.elapsed(), HANDSHAKE_TIMEOUT);

        let (near, _far) = duplex(64 * 1024);
        let client = authority.client().handshake_timeout(Duration::from_secs(3));
        let error = client.connect(near, Some("localhost")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "tls handshake not finished within 3s, the limit is ClientTls::handshake_timeout"
        );
        assert_eq!(start.elapsed(), HANDSHAKE_TIMEOUT + Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_one_byte_a_second_is_given_up_in_time() {
        let (mut near, far) = duplex(64);
        let server = Authority::new().server("localhost");
        let drip = async {
            // The start of a handshake record of 512 bytes.
            for byte in [0x16, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1)) {
                if near.write_u8(byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let start = tokio::time::Instant::now();
        let (outcome, ()) = tokio::join!(server.accept(far), drip);
        assert!(matches!(reason(outcome), TlsError::Timeout { .. }));
        assert_eq!(start.elapsed(), HANDSHAKE_TIMEOUT);
    }

    async fn accept_from(peer: impl AsyncFnOnce(&mut DuplexStream)) -> TlsError {
        let (mut near, far) = duplex(64 * 1024);
        peer(&mut near).await;
        drop(near);
        reason(Authority::new().server("localhost").accept(far).await)
    }

    #[tokio::test]
    async fn a_plain_peer_is_told_from_a_tls_peer() {
        let plain = accept_from(async |near| {
            near.write_all(b"\x01/sys/new_channel\0\0\0\0\0\0\0\0\x02{}")
                .await
                .unwrap()
        });
        assert_eq!(plain.await.to_string(), "the peer does not speak tls");
        let http =
            accept_from(async |near| near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap());
        assert_eq!(http.await.to_string(), "the peer does not speak tls");
        let silent = accept_from(async |_| {}).await;
        assert_eq!(
            silent.to_string(),
            "the peer closed the connection in the tls handshake"
        );
    }

    /// Counts warnings.
    struct Warnings(Arc<AtomicUsize>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN && metadata.target().ends_with("tls")
        }
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[tokio::test]
    async fn the_dangerous_client_accepts_anything_hands_out_no_certificate_and_warns() {
        let client = DangerousClientTls::accept_any_certificate();
        let warnings = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(Warnings(Arc::clone(&warnings)), || {
            client.check().unwrap()
        });
        assert_eq!(warnings.load(Ordering::Relaxed), 1);

        let server = Authority::new().server("example.org");
        let (near, far) = shake_hands(&client, "localhost", &server).await;
        let (near, certificates) = near.unwrap();
        assert!(certificates.is_empty());
        converse(near, far.unwrap().0).await;

        let verifying = client.roots_pem(Authority::new().pem()).unwrap();
        assert!(
            !both_accept(&verifying, &server).await,
            "roots turn verification on again"
        );
    }

    #[test]
    fn mistakes_name_the_call_and_the_file() {
        let authority = Authority::new();
        let issued = authority.issue("localhost");
        let folder = Folder::new(&issued);
        let (chain, key) = (folder.chain(), folder.key());
        let shown = chain.display();
        let absent = folder.0.join("absent.pem");

        let error = ClientTls::new().roots_file(&absent).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("ClientTls::roots_file: cannot read {}", absent.display())
        );
        assert!(error.source().is_some());
        assert_eq!(
            ServerTls::from_files(&chain, &chain)
                .unwrap_err()
                .to_string(),
            format!(
                "ServerTls::from_files: {shown} has no private key that is not encrypted (pkcs#8, pkcs#1 or sec1)"
            )
        );
        assert_eq!(
            ServerTls::from_files(&key, &key).unwrap_err().to_string(),
            format!(
                "ServerTls::from_files: {} has no `BEGIN CERTIFICATE` section",
                key.display()
            )
        );
        std::fs::write(
            &chain,
            "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let error = ClientTls::new().identity_files(&chain, &key).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!(
                "ClientTls::identity_files: {shown} is not valid pem: "
            )),
            "{error}"
        );
        std::fs::write(
            &chain,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        for error in [
            ServerTls::from_files(&chain, &key).unwrap_err(),
            authority
                .server("localhost")
                .client_roots_file(&chain)
                .unwrap_err(),
        ] {
            assert!(matches!(&error, TlsError::BadCertificate { .. }), "{error}");
        }
        let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let error = ServerTls::from_pem(&issued.chain, bad_key).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "ServerTls::from_pem: the private key in what was given is unusable: "
            ),
            "{error}"
        );
        let io = io::Error::from(TlsError::NoServerName);
        assert_eq!(io.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn debug_output_holds_no_key() {
        let authority = Authority::new();
        let issued = authority.issue("client");
        let client = authority
            .client()
            .identity_pem(&issued.chain, &issued.key)
            .unwrap();
        assert_eq!(
            format!("{client:?}"),
            "ClientTls { trust: \"1 given roots\", identity: true, server_name: None, handshake_timeout: 10s }"
        );
        let server = authority.server("localhost").max_handshakes(0);
        assert_eq!(server.handshakes(), 1);
        assert_eq!(
            format!("{server:?}"),
            "ServerTls { identity: Pem, client_roots: 0, client_certificate: Required, handshake_timeout: 10s, \
             max_handshakes: 1 }"
        );
    }
}
