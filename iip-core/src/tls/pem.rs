//! Conversion of PEM for rustls, with errors that name the file and the call.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::{TlsError, provider};

/// The source of PEM data, for errors.
pub(super) struct Input {
    option: &'static str,
    file: Option<PathBuf>,
}

impl Input {
    pub(super) fn bytes(option: &'static str) -> Self {
        Self { option, file: None }
    }

    pub(super) fn file(option: &'static str, path: &Path) -> Self {
        Self {
            option,
            file: Some(path.to_owned()),
        }
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, TlsError> {
        let path = self.file.clone().unwrap_or_default();
        std::fs::read(&path).map_err(|error| TlsError::Read {
            option: self.option,
            path,
            error: Arc::new(error),
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
            None => f.write_str("the given input"),
        }
    }
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

pub(super) fn parse_identity(
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

pub(super) fn add_roots(
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
