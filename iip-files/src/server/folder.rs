//! The served folder and its limits.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iip_rpc::{Code, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::stale::Stale;
use super::uploads::Uploads;
use super::writers::Writers;
use crate::path::FilePath;
use crate::rate::Rate;
use crate::root::Root;
use crate::service::FilesServer;

const MAX_OPEN_TRANSFERS: usize = 64;
const SILENCE: Duration = Duration::from_secs(30);
/// Time for which a message waits for the rate limit; the calls of clients have timeouts.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);
const PART_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A folder that is served. Clients can read its files, and write files if the folder is
/// [writable](Self::writable).
///
/// Nothing outside the folder can be reached: paths with `..` are rejected, and symbolic links are
/// not followed, wherever they point. Only regular files are read. Only regular files and symbolic
/// links, not their targets, are replaced. New files have the mode 0644 and new directories 0777,
/// both reduced by the umask.
///
/// # Examples
///
/// ```
/// use iip_files::{FileClient, Folder};
/// use iip_rpc::{Client, Server};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let temp = tempfile::tempdir()?;
/// # let (served, local) = (temp.path().join("served"), temp.path().join("local"));
/// # std::fs::create_dir(&served)?;
/// # std::fs::write(&local, "hello")?;
/// let folder = Folder::open(&served)?.writable(true);
/// let server = Server::builder().service(folder.into_service()).bind("127.0.0.1:0").await?;
///
/// let files = FileClient::new(Client::connect(server.target()).await?);
/// let report = files.put(&local, "inbox/hello.txt").await?;
/// assert_eq!(report.bytes, 5);
/// assert_eq!(std::fs::read(served.join("inbox/hello.txt"))?, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Folder {
    pub(crate) root: Arc<Root>,
    pub(super) writable: bool,
    pub(super) max_file_bytes: u64,
    max_open_transfers: usize,
    open_transfers: Arc<Semaphore>,
    pub(super) rate: Option<Arc<Rate>>,
    pub(super) uploads: Arc<Uploads>,
    /// The writers of [`go::service`](crate::go::service).
    pub(crate) writers: Arc<Writers>,
    pub(crate) silence: Duration,
    pub(super) part_lifetime: Duration,
    pub(super) stale: Arc<Stale>,
}

impl Folder {
    /// Opens a folder that clients can read. Blocks.
    ///
    /// # Errors
    ///
    /// The folder does not exist, is not a directory, or cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self {
            root: Arc::new(Root::open(path.as_ref(), "")?),
            writable: false,
            max_file_bytes: u64::MAX,
            max_open_transfers: MAX_OPEN_TRANSFERS,
            open_transfers: Arc::new(Semaphore::new(MAX_OPEN_TRANSFERS)),
            rate: None,
            uploads: Arc::default(),
            writers: Arc::default(),
            silence: SILENCE,
            part_lifetime: PART_LIFETIME,
            stale: Arc::default(),
        })
    }

    /// Sets whether clients may write files. Default: no; they get `PERMISSION_DENIED`.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// Sets the maximum size of files that clients write, in bytes; larger files are rejected with
    /// `RESOURCE_EXHAUSTED`. Default: no limit.
    #[must_use]
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// Sets the maximum number of concurrent transfers, listings, and other calls that read or write
    /// whole or several files, in both directions together; further ones are rejected with
    /// `RESOURCE_EXHAUSTED`. Each takes up to 8 MiB of memory, a listing up to 16 MiB. 0 counts as
    /// 1. Default: 64.
    #[must_use]
    pub fn max_open_transfers(mut self, transfers: usize) -> Self {
        self.max_open_transfers = transfers.clamp(1, Semaphore::MAX_PERMITS);
        self.open_transfers = Arc::new(Semaphore::new(self.max_open_transfers));
        self
    }

    /// Sets the maximum number of bytes per second, of all transfers in both directions together. 0
    /// counts as 1. Default: no limit.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.rate = Some(Arc::new(Rate::new(bytes)));
        self
    }

    /// Sets how long a transfer waits for its client. A download or listing of which the client
    /// takes nothing for this time, and an upload to which it sends nothing, end with `UNAVAILABLE`
    /// and can be resumed. An upload that was opened, and is neither written nor committed, ends
    /// once its place is needed. Until a writer has ended, another writer of the same file gets
    /// `ABORTED`, unless the connection of the first has ended. Default: 30 s.
    #[must_use]
    pub fn silence(mut self, limit: Duration) -> Self {
        self.silence = limit;
        self
    }

    /// Sets the time since the last write after which unfinished files are removed. Default: 7
    /// days.
    #[must_use]
    pub fn part_lifetime(mut self, lifetime: Duration) -> Self {
        self.part_lifetime = lifetime;
        self
    }

    /// Returns the service, for [`ServerBuilder::service`](iip_rpc::ServerBuilder::service).
    #[must_use]
    pub fn into_service(self) -> FilesServer<Self> {
        FilesServer::new(self)
    }

    /// Opens a file of the folder for reading, under the rules that apply to clients. Blocks.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` if the path is not allowed, `NOT_FOUND` if the file does not exist,
    /// `FAILED_PRECONDITION` if it is not a regular file, or the error of opening it.
    pub fn open_file(&self, path: &str) -> Result<File, Status> {
        let parent = self.root.parent(&FilePath::parse_file(path)?, false)?;
        Ok(parent.open_source()?.0)
    }

    /// Removes unfinished files that are older than [`part_lifetime`](Self::part_lifetime) and not
    /// being written. Returns their number. Uploads start this too, at most once an hour.
    ///
    /// # Errors
    ///
    /// A directory cannot be read.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the removal continues in the background.
    pub async fn remove_stale_parts(&self) -> Result<u64, Status> {
        let (root, lifetime) = (Arc::clone(&self.root), self.part_lifetime);
        crate::failure::blocking(move || super::stale::remove(&root, lifetime)).await
    }

    /// Waits until the rate limit allows this number of bytes.
    pub(crate) async fn wait_for(&self, bytes: usize) {
        if let Some(rate) = &self.rate {
            rate.pay(bytes).await;
        }
    }

    /// Waits until the rate limit allows this number of bytes, at most until this time. Returns the
    /// number of bytes that it allows.
    pub(crate) async fn wait_until(&self, bytes: usize, until: Instant) -> usize {
        match &self.rate {
            Some(rate) => rate.pay_until(bytes, until).await,
            None => bytes,
        }
    }

    pub(crate) fn check_writable(&self) -> Result<(), Status> {
        if self.writable {
            return Ok(());
        }
        let text = "the folder is read-only";
        Err(Status::new(Code::PermissionDenied, text))
    }

    pub(crate) fn check_size(&self, path: &FilePath, bytes: u64) -> Result<(), Status> {
        if bytes <= self.max_file_bytes {
            return Ok(());
        }
        let limit = self.max_file_bytes;
        let label = self.root.label(path);
        let text = format!("{label} has {bytes} bytes, more than {limit} (Folder::max_file_bytes)");
        Err(Status::resource_exhausted(text))
    }

    /// Takes a place for a transfer. If none is free, ends idle uploads and tries again.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let try_acquire = || Arc::clone(&self.open_transfers).try_acquire_owned();
        let place = try_acquire().or_else(|error| {
            self.uploads.remove_idle(self.silence);
            self.writers.remove_idle(self.silence);
            try_acquire().map_err(|_| error)
        });
        place.map_err(|_| {
            let limit = self.max_open_transfers;
            let text = format!("{limit} files are in transfer (Folder::max_open_transfers)");
            Status::resource_exhausted(text)
        })
    }
}
