//! A client of Go's file servers.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use iip_rpc::{Client, Code, Status};

use super::wire::{Download, Part, Upload, Uploaded};
use super::{GoFiles, GoFilesClient};
use crate::client::Tracker;
use crate::failure::{blocking, failed};
use crate::part::{busy, lock};
use crate::path::go_part_name;
use crate::root::{self, Parent, sync_directory};
use crate::{Report, TransferOptions};

/// Maximum number of file bytes in an upload request. Go allows 10 MiB; less delays other calls on
/// the connection less.
const UPLOAD_BYTES: u64 = 1 << 20;

/// Number of bytes at the end of an unfinished download that are compared with the source.
const COMPARED_BYTES: u64 = 1024;

/// A client that transfers files from and to Go's file servers.
///
/// An interrupted download is resumed if the last 1024 bytes of the unfinished file are the same on
/// the server. An upload starts from the beginning, because the protocol does not report what the
/// server has. Nothing is hashed, so [`Report::hash`] is `None`. [`TransferOptions::verify`],
/// [`resume_for`](TransferOptions::resume_for) and [`max_files`](TransferOptions::max_files) have
/// no effect.
///
/// # Cancel safety
///
/// A transfer ends when its future is dropped. A download can be resumed.
#[derive(Debug, Clone)]
pub struct GoFileClient {
    files: GoFilesClient,
    options: TransferOptions,
}

impl GoFileClient {
    /// Creates a client that uses this connection.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            files: GoFilesClient::new(client),
            options: TransferOptions::new(),
        }
    }

    /// Sets the options of transfers.
    #[must_use]
    pub fn with_options(mut self, options: TransferOptions) -> Self {
        self.options = options;
        self
    }

    /// Downloads a file. `remote` is its path on the server, and `local` its path on this machine,
    /// whose parents are created if they do not exist.
    ///
    /// # Errors
    ///
    /// `UNKNOWN` if the server rejects the request, with its reason. `UNIMPLEMENTED` if the server
    /// does not have these paths. `ABORTED` if another process is downloading to `local`.
    /// `RESOURCE_EXHAUSTED` if the file is larger than [`TransferOptions::max_file_bytes`]. Other
    /// codes if the file cannot be written, or a call fails.
    pub async fn get(&self, remote: &str, local: impl AsRef<Path>) -> Result<Report, Status> {
        let tracker = self.tracker(remote);
        let local = local.as_ref().to_owned();
        let target = Arc::new(blocking(move || Target::open(&local)).await?);
        let task = new_task();
        let mut position = self.begin(task, remote, &target, &tracker).await?;
        loop {
            let part = self.download(task, remote, position).await?;
            let length = part.data.len();
            if length == 0 && !part.is_end {
                return Err(Status::internal("the server sends neither data nor an end"));
            }
            let end = position + length as u64;
            if end > self.options.max_file_bytes {
                let limit = self.options.max_file_bytes;
                let text = format!("{remote} has more than {limit} bytes (option max_file_bytes)");
                return Err(Status::resource_exhausted(text));
            }
            let writer = Arc::clone(&target);
            blocking(move || writer.write(position, &part.data)).await?;
            position = end;
            tracker.sent(position);
            if part.is_end {
                break;
            }
            self.options.pay(length).await;
        }
        tracker.size(position);
        blocking(move || target.commit(position)).await?;
        tracker.done(None);
        Ok(tracker.into_report())
    }

    /// Uploads a file. `local` is its path on this machine, and `remote` its path on the server.
    ///
    /// # Errors
    ///
    /// `UNKNOWN` and `UNIMPLEMENTED` as for [`get`](Self::get). `FAILED_PRECONDITION` if the file
    /// is not a regular file, or has changed while it was sent. Other codes if the file cannot be
    /// read, or a call fails.
    pub async fn put(&self, local: impl AsRef<Path>, remote: &str) -> Result<Report, Status> {
        let tracker = self.tracker(remote);
        let local = local.as_ref().to_owned();
        let (file, identity) = blocking(move || Parent::ambient(&local)?.open_source()).await?;
        let file = Arc::new(file);
        tracker.begin(identity.size, 0, false);
        let (task, mut position) = (new_task(), 0);
        loop {
            let (source, name) = (Arc::clone(&file), remote.to_owned());
            let data = blocking(move || read(&source, &name, position)).await?;
            if data.is_empty() {
                break;
            }
            let done = self.upload(task, remote, position, &data, false).await?;
            if done == 0 || done > data.len() as u64 {
                let text = format!("the server has written {done} of {} bytes", data.len());
                return Err(Status::internal(text));
            }
            position += done;
            tracker.sent(position);
            self.options.pay(data.len()).await;
        }
        let now = root::identity(&file);
        let now = now.map_err(|error| failed(error, format_args!("reading {remote}")))?;
        if now != identity {
            let text = format!("the source of {remote} has changed while it was sent");
            return Err(Status::failed_precondition(text));
        }
        self.upload(task, remote, position, &[], true).await?;
        tracker.done(None);
        Ok(tracker.into_report())
    }

    fn tracker(&self, remote: &str) -> Tracker<'_> {
        let tracker = Tracker::new(self.options.progress.as_deref());
        tracker.single(remote);
        tracker
    }

    /// Returns the offset at which a download starts: after the bytes of an earlier download, if
    /// their end is the same on the server.
    async fn begin(
        &self,
        task: i64,
        remote: &str,
        target: &Arc<Target>,
        tracker: &Tracker<'_>,
    ) -> Result<u64, Status> {
        let read = Arc::clone(target);
        let (length, end) = blocking(move || read.end()).await?;
        if length == 0 {
            tracker.begin(0, 0, false);
            return Ok(0);
        }
        let is_same = match self.download(task, remote, length - end.len() as u64).await {
            Ok(part) => part.data.starts_with(&end),
            // The file may have become shorter. If there is another reason, the next call fails
            // with it.
            Err(status) if status.code() == Code::Unknown => false,
            Err(status) => return Err(status),
        };
        let position = if is_same { length } else { 0 };
        tracker.begin(0, position, !is_same);
        Ok(position)
    }

    async fn download(&self, task: i64, path: &str, position: u64) -> Result<Part, Status> {
        let request = Download {
            task_id: task,
            file_path: path.to_owned(),
            download_start_pos: position,
        };
        Part::decode(self.files.download(request.encode()?).await?)
    }

    /// Returns the number of bytes that the server has written.
    async fn upload(
        &self,
        task: i64,
        path: &str,
        position: u64,
        data: &[u8],
        completed: bool,
    ) -> Result<u64, Status> {
        let request = Upload {
            task_id: task,
            file_path: path.to_owned(),
            upload_start_pos: position,
            completed,
        };
        let body = request.encode(data)?;
        let reply = self.files.upload(body).await?;
        Uploaded::decode(&reply).map(|reply| reply.done_bytes)
    }
}

/// Returns the number by which a server distinguishes a transfer from the others of the connection.
/// It is random, because several clients may share the connection, and fits into every integer type
/// of Go.
fn new_task() -> i64 {
    (RandomState::new().hash_one(()) >> 33) as i64
}

/// Reads the next bytes to send. Blocks.
fn read(mut file: &File, name: &str, position: u64) -> Result<Bytes, Status> {
    let doing = |error| failed(error, format_args!("reading the source of {name}"));
    let mut data = Vec::new();
    file.seek(SeekFrom::Start(position)).map_err(doing)?;
    file.take(UPLOAD_BYTES)
        .read_to_end(&mut data)
        .map_err(doing)?;
    Ok(data.into())
}

/// A file that is being downloaded. All methods block.
struct Target {
    parent: Parent,
    name: String,
    part: File,
    /// Set once the part file has its final name. Another process may then have a new part file.
    is_committed: AtomicBool,
}

/// Removes the part file if nothing has arrived.
impl Drop for Target {
    fn drop(&mut self) {
        let length = self.part.metadata().map(|metadata| metadata.len());
        if !self.is_committed.load(Ordering::Relaxed) && length.is_ok_and(|length| length == 0) {
            let _ = self.parent.dir.remove_file(&self.name);
        }
    }
}

impl Target {
    fn open(path: &Path) -> Result<Self, Status> {
        let parent = Parent::make_ambient(path)?;
        parent.check_replaceable()?;
        let name = go_part_name(&parent.name);
        let part = lock(&parent.dir, &name);
        let part = part.map_err(|error| failed(error, format_args!("writing {}", parent.label)))?;
        let part = part.ok_or_else(|| busy(&parent.label, "another process"))?;
        parent
            .keep_mode(&part, 0o600)
            .map_err(|error| failed(error, format_args!("writing {}", parent.label)))?;
        Ok(Self {
            parent,
            name,
            part,
            is_committed: AtomicBool::new(false),
        })
    }

    /// Returns the length of the part file, and the bytes at its end.
    fn end(&self) -> Result<(u64, Vec<u8>), Status> {
        let mut end = Vec::new();
        let length = self
            .part
            .metadata()
            .map_err(|error| self.failed(error))?
            .len();
        let start = length.saturating_sub(COMPARED_BYTES);
        (&self.part)
            .seek(SeekFrom::Start(start))
            .and_then(|_| (&self.part).read_to_end(&mut end))
            .map_err(|error| self.failed(error))?;
        Ok((length, end))
    }

    /// Writes the next bytes at `position`, and removes anything after them.
    fn write(&self, position: u64, data: &[u8]) -> Result<(), Status> {
        let mut part = &self.part;
        part.set_len(position)
            .and_then(|()| part.seek(SeekFrom::Start(position)))
            .and_then(|_| part.write_all(data))
            .map_err(|error| self.failed(error))
    }

    fn commit(&self, length: u64) -> Result<(), Status> {
        let (dir, name) = (&self.parent.dir, &self.parent.name);
        self.part
            .set_len(length)
            .and_then(|()| self.parent.keep_mode(&self.part, 0))
            .and_then(|()| self.part.sync_all())
            .and_then(|()| dir.rename(&self.name, dir, name))
            .map_err(|error| self.failed(error))?;
        self.is_committed.store(true, Ordering::Relaxed);
        sync_directory(&self.parent.dir).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> Status {
        failed(error, format_args!("writing {}", self.parent.label))
    }
}
