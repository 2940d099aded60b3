//! What can go wrong with TLS.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::InvalidMessage;

use crate::printable::Printable;

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
        "the platform has no usable root certificates ({reason}), give roots with \
         ClientTls::roots_file"
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
        "there is no host to verify the server certificate against, give a name with \
         ClientTls::server_name"
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
    /// As many handshakes run as may, and this one waited for its client for longest.
    #[error("tls handshake given up to make room for others, the limit is {option}")]
    MadeRoom {
        /// What to change.
        option: &'static str,
    },
    /// The peer ended the stream instead of answering, as one does that does not speak TLS.
    #[error("the peer closed the connection in the tls handshake; perhaps it does not speak tls")]
    Closed,
    /// The peer sent bytes that are not TLS.
    #[error("the peer does not speak tls")]
    NotTls,
    /// The peer's certificate does not verify, or it has none.
    #[error("certificate of the peer refused: {}", Printable(reason))]
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
    #[error("tls handshake failed: {}", Printable(reason))]
    Handshake {
        /// How.
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
            TlsError::Read { source, .. } => source.kind(),
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
