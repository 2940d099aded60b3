//! Certificates that are replaced while they are in use.

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

/// The shortest time between two looks at watched files.
const MIN_WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How often watched files are read unless set otherwise.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Replaces a certificate and its key at run time: handshakes from then on use the new one,
/// connections that exist keep what they have.
///
/// A new certificate that is unusable is refused with the reason, and the old one stays. Cloning is
/// cheap, and a reloader does not keep the configuration alive.
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
    /// Either is malformed, they do not belong together, or the configuration is gone. The old
    /// certificate stays.
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

    /// Uses the certificate chain and private key of these PEM files from the next handshake on.
    /// Reads them at once, blocking the caller.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is malformed, they do not belong together, or the configuration is
    /// gone. The old certificate stays.
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

    /// Uses these PEM files now, and again whenever their content changes: they are read once in
    /// every `interval`, which is at least 100 ms.
    ///
    /// Files that are unusable, for example because only one of the two is written yet, are logged
    /// and tried again when they change; the old certificate stays until then. The watch ends when
    /// the configuration is dropped, and a further watch takes its place.
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

/// A certificate chain with its key that can be replaced under those who use it.
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
            // Here and not in the other thread: a watch that has been replaced must not store any
            // more.
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

    /// Certificates are small: reading them is as cheap as asking for their times, and cannot miss
    /// a change.
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
