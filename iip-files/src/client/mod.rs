//! A client of the service `iip.Files`.

mod attempts;
mod get;
mod get_directory;
mod options;
mod progress;
mod put;
mod put_directory;

use std::path::Path;
use std::time::Duration;

use iip_rpc::{CallOptions, Client, Code, Status};

use self::attempts::Attempts;
pub use self::options::TransferOptions;
pub(crate) use self::progress::Tracker;
pub use self::progress::{Phase, Progress, Report, Skipped};
use crate::path::FilePath;
use crate::rate::Rate;
use crate::root::Parent;
use crate::service::{Entry, Files, FilesClient, Kind, Listed};

/// Maximum number of bytes of small files in a message.
const MAX_PACKED_BYTES: usize = 4 << 20;

/// A client that transfers files to and from a [`Folder`](crate::Folder).
///
/// An interrupted transfer is resumed by the next transfer of the same file, even from another
/// process: the receiver keeps an unfinished file `.name.<id>.part` and a journal next to the
/// target. The target is replaced only after all bytes have arrived and are on disk.
///
/// The calls of a transfer depend on each other, so the [`Client`] should have a single server, not
/// several backends.
#[derive(Debug, Clone)]
pub struct FileClient {
    files: FilesClient,
    options: TransferOptions,
}

impl FileClient {
    /// Creates a client with the default options.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            files: FilesClient::new(client),
            options: TransferOptions::new(),
        }
    }

    /// Sets the options of transfers.
    #[must_use]
    pub fn with_options(mut self, options: TransferOptions) -> Self {
        self.options = options;
        self
    }

    /// Describes a file or directory of the server. The empty path is the folder itself.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND` if the file does not exist, `INVALID_ARGUMENT` if the path is not allowed,
    /// `FAILED_PRECONDITION` if a name before the last one is not a directory, or the error of the
    /// call.
    pub async fn stat(&self, remote: &str) -> Result<Entry, Status> {
        self.files.stat(remote).await
    }

    /// Uploads a file, or a directory with everything below it, to the path `remote` on the server.
    ///
    /// If an earlier transfer of the same file was interrupted, only the rest is sent. If the file
    /// has changed since then, all of it is sent, and it is counted in [`Report::restarted`]. Files
    /// of a directory that the server has with the same size and modification time are not sent.
    /// Symbolic links in a directory are not followed; they and special files are listed in
    /// [`Report::skipped`]. Files and directories in it that cannot be read, or are removed or
    /// change in the meantime, are listed in [`Report::unreadable`]; all others are transferred.
    ///
    /// # Errors
    ///
    /// `ABORTED` if another client is writing the same file. `FAILED_PRECONDITION` if the file
    /// changes while it is sent. `RESOURCE_EXHAUSTED` if the disk of the server is full, or a limit
    /// is reached. `DATA_LOSS` if the received bytes or the hash of the server do not match.
    /// `PERMISSION_DENIED` if the folder is read-only. The error of the connection if it is lost,
    /// and there is no progress for [`TransferOptions::resume_for`]. `UNAVAILABLE` if the server is
    /// silent. The next transfer resumes after the bytes that have arrived, unless the check of the
    /// whole file has failed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the transfer ends. The next transfer of the same file resumes it.
    pub async fn put(&self, local: impl AsRef<Path>, remote: &str) -> Result<Report, Status> {
        let local = local.as_ref().to_owned();
        let remote = FilePath::parse(remote)?;
        let tracker = Tracker::new(self.options.progress.as_deref());
        let found = crate::failure::blocking(move || put::find(&local)).await?;
        match found {
            put::Found::File(parent) => {
                FilePath::parse_file(remote.as_str())?;
                tracker.single(remote.as_str());
                Box::pin(self.put_file(parent, &remote, &tracker)).await?;
            }
            put::Found::Directory(root) => {
                Box::pin(self.put_directory(root, &remote, &tracker)).await?;
            }
        }
        Ok(tracker.into_report())
    }

    /// Downloads a file, or a directory with everything below it. `local` is the path of the new
    /// file or directory itself; its parents are created if they do not exist.
    ///
    /// Like [`put`](Self::put), resumes an interrupted transfer, and skips files of a directory
    /// that exist already. Nothing is written outside `local`, whatever the server sends.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put) with the sides exchanged, and `NOT_FOUND` if `remote` does not
    /// exist.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the transfer ends. The next transfer of the same file resumes it.
    pub async fn get(&self, remote: &str, local: impl AsRef<Path>) -> Result<Report, Status> {
        let local = local.as_ref().to_owned();
        let remote = FilePath::parse(remote)?;
        let tracker = Tracker::new(self.options.progress.as_deref());
        let described = self.again(&tracker, || self.files.stat(remote.as_str()));
        match described.await?.kind {
            Kind::File => {
                let parent = crate::failure::blocking(move || Parent::make_ambient(&local)).await?;
                tracker.single(remote.as_str());
                Box::pin(self.get_file(&remote, parent, &tracker)).await?;
            }
            Kind::Directory => {
                Box::pin(self.get_directory(&remote, local, &tracker)).await?;
            }
            kind => {
                let remote = remote.as_str();
                let text = format!("{remote:?} is {}, which is not transferred", describe(kind));
                return Err(Status::failed_precondition(text));
            }
        }
        Ok(tracker.into_report())
    }

    fn attempts(&self) -> Attempts {
        Attempts::new(self.options.resume_for)
    }

    fn rates(&self) -> Vec<&Rate> {
        self.options.rate.as_deref().into_iter().collect()
    }

    /// Returns a client for calls in which the server syncs, and works for a further time.
    fn patient(&self, further: Duration) -> FilesClient {
        let timeout = Duration::from_secs(60).saturating_add(further);
        self.files.with_options(CallOptions::new().timeout(timeout))
    }

    /// Fails if a file is too large to be downloaded.
    fn check_size(&self, path: &str, size: u64) -> Result<(), Status> {
        let limit = self.options.max_file_bytes;
        if size <= limit {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "{path:?} has {size} bytes, more than {limit} (TransferOptions::max_file_bytes)"
        )))
    }

    /// Fails if a directory has too many files.
    fn check_files(&self, files: usize, path_bytes: usize) -> Result<(), Status> {
        let limit = self.options.max_files;
        if files <= limit && path_bytes / 256 <= limit {
            return Ok(());
        }
        let text =
            format!("the directory has more than {limit} files (TransferOptions::max_files)");
        Err(Status::resource_exhausted(text))
    }
}

/// Reports the skipped entries and the totals. Returns the directories and files.
fn split(listed: Vec<Listed>, tracker: &Tracker<'_>) -> (Vec<Listed>, Vec<Listed>) {
    let (mut directories, mut files) = (Vec::new(), Vec::new());
    for listed in listed {
        match listed.entry.kind {
            Kind::Directory => directories.push(listed),
            Kind::File => files.push(listed),
            kind => tracker.skipped(&listed.path, describe(kind)),
        }
    }
    let bytes = files.iter().map(|file| file.entry.identity.size);
    tracker.totals(files.len() as u64, bytes.fold(0, u64::saturating_add));
    (directories, files)
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "a file",
        Kind::Directory => "a directory",
        Kind::Link => "a symbolic link",
        Kind::Special => "a special file, or one whose name cannot be a path",
    }
}

/// Returns the time in which a server reads a number of bytes, from a disk of at least 10 MB/s.
fn time_to_read(bytes: u64) -> Duration {
    Duration::from_secs(bytes / 10_000_000)
}

/// Returns the status for a server that violates the protocol.
fn broken(status: &Status) -> Status {
    Status::new(
        Code::Internal,
        format!("the server sent what it must not: {}", status.message()),
    )
}
