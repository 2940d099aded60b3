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
/// A transfer that was interrupted is resumed by the next one of the same file, also by that of
/// another process: the receiver keeps an unfinished file `.name.<id>.part` with a journal beside
/// the target. The target is replaced only once all bytes are there and on disk.
///
/// Calls of a transfer depend on each other, so the [`Client`] should have one server and not
/// several.
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
    /// There is no such file, the path is refused, or the call fails.
    pub async fn stat(&self, remote: &str) -> Result<Entry, Status> {
        self.files.stat(remote).await
    }

    /// Sends a file, or a directory with everything below it, to the path `remote` of the server.
    ///
    /// If an earlier transfer of the same file was interrupted, only the rest is sent. If the file has
    /// changed since, all of it is sent, and [`Report::restarted`] says so. Of a directory, files that
    /// the server has with the same size and time are not sent. Symbolic links in it are not
    /// followed; they and special files are listed in [`Report::skipped`].
    ///
    /// # Errors
    ///
    /// `ABORTED` if another client writes the same file. `FAILED_PRECONDITION` if the file changes
    /// while it is sent. `RESOURCE_EXHAUSTED` if the disk of the server is full, or a limit is reached.
    /// `DATA_LOSS` if what has arrived is not what was sent. `PERMISSION_DENIED` if the folder is
    /// read-only. What has arrived stays, and the next transfer resumes it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the transfer ends, and the next one of the same file resumes it.
    pub async fn put(&self, local: impl AsRef<Path>, remote: &str) -> Result<Report, Status> {
        let local = local.as_ref().to_owned();
        let remote = FilePath::parse(remote)?;
        let tracker = Tracker::new(&self.options);
        let found = crate::failure::blocking(move || put::find(&local)).await?;
        match found {
            put::Found::File(parent) => {
                FilePath::parse_file(remote.as_str())?;
                tracker.single(remote.as_str());
                self.put_file(parent, &remote, &tracker).await?;
            }
            put::Found::Directory(root) => self.put_directory(root, &remote, &tracker).await?,
        }
        Ok(tracker.into_report())
    }

    /// Fetches a file, or a directory with everything below it, to the path `local`, which is the
    /// path of the file or directory itself.
    ///
    /// Resumes an interrupted transfer like [`put`](Self::put), and skips files of a directory in the
    /// same way. Nothing is written outside `local`, whatever the server sends.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put) with the sides exchanged, and `NOT_FOUND`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the transfer ends, and the next one of the same file resumes it.
    pub async fn get(&self, remote: &str, local: impl AsRef<Path>) -> Result<Report, Status> {
        let local = local.as_ref().to_owned();
        let remote = FilePath::parse(remote)?;
        let tracker = Tracker::new(&self.options);
        match self.files.stat(remote.as_str()).await?.kind {
            Kind::File => {
                let parent = crate::failure::blocking(move || Parent::ambient(&local)).await?;
                tracker.single(remote.as_str());
                self.get_file(&remote, parent, &tracker).await?;
            }
            Kind::Directory => self.get_directory(&remote, local, &tracker).await?,
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

    /// The client for calls in which the server syncs or reads a file of this size.
    fn patient(&self, read_bytes: u64) -> FilesClient {
        // 10 MB/s is slow for a disk.
        let timeout = Duration::from_secs(60 + read_bytes / 10_000_000);
        self.files.with_options(CallOptions::new().timeout(timeout))
    }

    /// Refuses a directory with too many files.
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

/// Lists what is skipped. Returns the directories and files.
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

/// What a server has sent against the rules.
fn broken(status: &Status) -> Status {
    Status::new(
        Code::Internal,
        format!("the server sent what it must not: {}", status.message()),
    )
}
