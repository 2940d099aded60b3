//! Errors of TLS.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::InvalidMessage;

use crate::printable::Printable;

/// The error of a TLS configuration that cannot be used, or of a handshake that failed.
///
/// The handshake functions wrap it in an [`io::Error`], from which `get_ref` returns it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{option}: cannot read {}: {error}", path.display())]
    Read {
        /// The call that named the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: Arc<io::Error>,
    },
    /// The input is not valid PEM.
    #[error("{option}: {input} is not valid pem: {reason}")]
    BadPem {
        /// The call that received it.
        option: &'static str,
        /// The file, or a note that it was passed as bytes.
        input: String,
        /// The reason.
        reason: String,
    },
    /// The PEM input contains no certificate.
    #[error("{option}: {input} has no `BEGIN CERTIFICATE` section")]
    NoCertificate {
        /// The call that received it.
        option: &'static str,
        /// The file, or a note that it was passed as bytes.
        input: String,
    },
    /// A certificate cannot be used.
    #[error("{option}: a certificate in {input} is unusable: {reason}")]
    BadCertificate {
        /// The call that received it.
        option: &'static str,
        /// The file, or a note that it was passed as bytes.
        input: String,
        /// The reason.
        reason: String,
    },
    /// The PEM input contains no private key that can be read.
    #[error("{option}: {input} has no private key that is not encrypted (pkcs#8, pkcs#1 or sec1)")]
    NoKey {
        /// The call that received it.
        option: &'static str,
        /// The file, or a note that it was passed as bytes.
        input: String,
    },
    /// A private key cannot be used.
    #[error("{option}: the private key in {input} is unusable: {reason}")]
    BadKey {
        /// The call that received it.
        option: &'static str,
        /// The file, or a note that it was passed as bytes.
        input: String,
        /// The reason.
        reason: String,
    },
    /// Certificate and key are valid, but do not belong together.
    #[error("{option}: the private key in {input} does not belong to the first certificate")]
    KeyMismatch {
        /// The call that received them.
        option: &'static str,
        /// The file of the key, or a note that it was passed as bytes.
        input: String,
    },
    /// The platform's certificate store is empty or unreadable.
    #[error(
        "the platform has no usable root certificates ({reason}), set roots with \
         ClientTls::roots_file"
    )]
    NoPlatformRoots {
        /// The reason.
        reason: String,
    },
    /// The name is neither a DNS name nor an IP address.
    #[error(
        "`{name}` is not a name that a certificate can have, set one with ClientTls::server_name"
    )]
    BadServerName {
        /// The name.
        name: String,
    },
    /// The stream has no host, and no name is set.
    #[error(
        "there is no host to verify the server certificate against, set a name with \
         ClientTls::server_name"
    )]
    NoServerName,
    /// The certificate was not loaded from files.
    #[error("{option}: the certificate is not from files, use CertificateReloader::watch_files")]
    NoFiles {
        /// The call that needs the files.
        option: &'static str,
    },
    /// Watching files needs a tokio runtime.
    #[error("{option}: must be called in a tokio runtime")]
    NoRuntime {
        /// The call that needs the runtime.
        option: &'static str,
    },
    /// The configuration of a reloader was dropped, or has received another identity since.
    #[error("{option}: its configuration is no longer in use")]
    Unused {
        /// The call that created the reloader.
        option: &'static str,
    },
    /// rustls rejects the settings as a whole.
    #[error("tls cannot be set up: {reason}")]
    Setup {
        /// The error of rustls.
        reason: String,
    },
    /// The peer took too long.
    #[error("tls handshake not finished within {limit:?} (option {option})")]
    Timeout {
        /// The limit.
        limit: Duration,
        /// The option that sets the limit.
        option: &'static str,
    },
    /// The limit of concurrent handshakes was reached, and this one had waited longest for its
    /// client.
    #[error("tls handshake ended in favor of newer ones: too many at a time (option {option})")]
    MadeRoom {
        /// The option that sets the limit.
        option: &'static str,
    },
    /// The peer ended the stream during the handshake, as a peer does that does not speak TLS.
    #[error("the peer closed the connection during the tls handshake; it may not speak tls")]
    Closed,
    /// The peer sent bytes that are not TLS.
    #[error("the peer does not speak tls")]
    NotTls,
    /// The peer's certificate cannot be verified, or it has none.
    #[error("certificate of the peer refused: {}", Printable(reason))]
    Untrusted {
        /// The reason.
        reason: String,
    },
    /// The peer rejected the handshake, for example because of the certificate of this side.
    #[error("the peer refused the tls handshake: {alert}")]
    Refused {
        /// The alert that it sent.
        alert: String,
    },
    /// The handshake failed for another reason.
    #[error("tls handshake failed: {}", Printable(reason))]
    Handshake {
        /// The reason.
        reason: String,
    },
}

impl TlsError {
    pub(super) fn setup(error: impl fmt::Display) -> Self {
        Self::Setup {
            reason: error.to_string(),
        }
    }

    pub(super) fn of_handshake(error: &rustls::Error) -> Self {
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
            TlsError::Read { error, .. } => error.kind(),
            TlsError::Timeout { .. } | TlsError::MadeRoom { .. } => io::ErrorKind::TimedOut,
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
