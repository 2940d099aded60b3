//! Replacement of certificates while they are in use.

use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;
use tokio::task::AbortHandle;

use super::TlsError;
use super::pem::{Input, parse_identity};

/// Minimum interval at which watched files are read.
const MIN_WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Default interval at which watched files are read.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Handle that replaces a certificate and its key at run time. Later handshakes use the new one,
/// existing connections keep the old one.
///
/// A new certificate that is unusable is rejected with the reason, and the old one stays. Cloning
/// is cheap, and a reloader does not keep the configuration alive.
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
    pub(super) cell: Weak<IdentityCell>,
    pub(super) option: &'static str,
}

impl CertificateReloader {
    /// Uses this certificate chain and private key from the next handshake on.
    ///
    /// # Errors
    ///
    /// Fails if either is malformed, if they do not belong together, or if the configuration was
    /// dropped. The old certificate stays.
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

    /// Uses the certificate chain and private key in these PEM files from the next handshake on.
    /// Reads them at once and blocks the caller.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or is malformed, if they do not belong together, or if the
    /// configuration was dropped. The old certificate stays.
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

    /// Uses these PEM files now, and again whenever their content changes: they are read once every
    /// `interval`, which is at least 100 ms.
    ///
    /// Files that are unusable, for example because only one of the two has been written yet, are
    /// logged and tried again when they change; the old certificate stays until then. The watch
    /// ends when the configuration is dropped, or when another watch replaces it.
    ///
    /// # Errors
    ///
    /// Fails like [`reload_files`](Self::reload_files), or if this is not called in a tokio
    /// runtime.
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

/// A certificate chain with its key that can be replaced while it is in use.
#[derive(Default)]
pub(super) struct IdentityCell {
    pub(super) current: ArcSwapOption<CertifiedKey>,
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
    pub(super) fn new(
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

    pub(super) fn from_files(
        option: &'static str,
        chain: &Path,
        key: &Path,
    ) -> Result<Arc<Self>, TlsError> {
        let files = IdentityFiles::new(option, chain, key);
        let identity = files.read()?.parse()?;
        Ok(Arc::new(Self {
            current: ArcSwapOption::new(Some(identity)),
            files: Some(files),
            ..Self::default()
        }))
    }

    pub(super) fn watch_own_files(self: &Arc<Self>, option: &'static str) -> Result<(), TlsError> {
        let files = self.files.clone().ok_or(TlsError::NoFiles { option })?;
        self.watch(IdentityFiles { option, ..files }, WATCH_INTERVAL)
    }

    fn watch(self: &Arc<Self>, files: IdentityFiles, interval: Duration) -> Result<(), TlsError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| TlsError::NoRuntime {
            option: files.option,
        })?;
        let content = files.read()?;
        // An unusable file is an error of this call; only later changes are logged.
        self.current.store(Some(content.parse()?));
        let watch = Watch {
            cell: Arc::downgrade(self),
            seen: content.digest,
            files,
            complaint: None,
        };
        let task = runtime
            .spawn(watch.run(interval.max(MIN_WATCH_INTERVAL)))
            .abort_handle();
        self.watcher.replace(Some(task));
        Ok(())
    }
}

impl fmt::Debug for IdentityCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key must not appear in the output.
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

/// The state of the task of `watch_files`.
struct Watch {
    cell: Weak<IdentityCell>,
    files: IdentityFiles,
    /// Digest of the content that was tried last, even if it was not usable.
    seen: u64,
    /// The error that was logged last, so that it is not repeated at every interval.
    complaint: Option<String>,
}

impl Watch {
    async fn run(mut self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            // Reading files may block.
            let looked = tokio::task::spawn_blocking(move || {
                let outcome = self.look();
                (self, outcome)
            });
            let Ok((this, outcome)) = looked.await else {
                return;
            };
            self = this;
            // The identity is stored in this task and not in the blocking thread, because a watch
            // that was replaced must not store any more.
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

    /// Returns the identity in the files if they have changed.
    fn look(&mut self) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
        let content = self.files.read()?;
        if content.digest == self.seen {
            return Ok(None);
        }
        // Recorded before it is parsed, so that files that stay unusable are not parsed again.
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
    /// Hasher of the contents; digests are only compared for the same pair of files.
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

    /// Reads both files. Certificates are small: reading them is as cheap as reading their
    /// modification times, and cannot miss a change.
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

/// The content of the two files of an identity.
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
