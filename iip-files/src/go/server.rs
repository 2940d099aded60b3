//! The server side of Go's paths.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use bytes::Bytes;
use iip_rpc::{Code, Service, Status};
use tokio::time::Instant;

use super::wire::{DOWNLOAD_BYTES, Download, Part, Upload, Uploaded};
use super::{GoFiles, GoFilesServer};
use crate::Folder;
use crate::failure::{blocking, failed};
use crate::part::{busy, lock};
use crate::path::{FilePath, go_part_name};
use crate::root::sync_directory;
use crate::server::MAX_WAIT;

/// Serves a folder on the paths of Go's file servers: see the [module](super).
///
/// Go clients name files by their paths on the server. `prefix` is the path of the folder there,
/// for example `/srv/files`, and is removed from such paths. Paths without the prefix are relative
/// to the folder, with or without a slash at the beginning.
pub fn service(folder: Folder, prefix: impl Into<String>) -> impl Service + Send + 'static {
    let prefix = prefix.into().trim_end_matches('/').to_owned();
    GoFilesServer::new(GoFolder { folder, prefix })
}

struct GoFolder {
    folder: Folder,
    prefix: String,
}

impl GoFiles for GoFolder {
    async fn download(&self, body: Bytes) -> Result<Bytes, Status> {
        let request = Download::decode(&body)?;
        let path = self.path(&request.file_path)?;
        let root = Arc::clone(&self.folder.root);
        let part = blocking(move || {
            let shown = &request.file_path;
            let (mut file, identity) = root
                .parent(&path, false)
                .and_then(|parent| parent.open_source())
                .map_err(|status| as_go(status, shown))?;
            let start = request.download_start_pos;
            if start > identity.size {
                let text = format!("{shown} ends at {}, before {start}", identity.size);
                return Err(Status::new(Code::OutOfRange, text));
            }
            let doing = |error| failed(error, format_args!("reading {shown}"));
            let mut data = Vec::with_capacity(DOWNLOAD_BYTES);
            file.seek(SeekFrom::Start(start)).map_err(doing)?;
            file.take(DOWNLOAD_BYTES as u64)
                .read_to_end(&mut data)
                .map_err(doing)?;
            Ok(Part {
                is_end: data.is_empty(),
                data: data.into(),
            })
        });
        let mut part = part.await?;
        let allowed = self.wait_for(part.data.len()).await?;
        part.data.truncate(allowed);
        Ok(part.encode())
    }

    async fn upload(&self, body: Bytes) -> Result<Bytes, Status> {
        let (request, mut data) = Upload::decode(body)?;
        let path = self.path(&request.file_path)?;
        self.folder.check_writable()?;
        self.folder.remove_stale_parts_if_due();
        let (writers, silence) = (&self.folder.writers, self.folder.silence);
        let claim = writers
            .claim(&path, request.task_id, silence, || self.folder.place())
            .await?;
        if request.completed {
            // There is no part after this one to take the rest in.
            self.folder.wait_for(data.len()).await;
        } else {
            data.truncate(self.wait_for(data.len()).await?);
        }
        let reply = Uploaded {
            task_id: request.task_id,
            done_bytes: data.len() as u64,
        };
        let (folder, written) = (self.folder.clone(), path.clone());
        let completed = request.completed;
        let outcome = blocking(move || write(&folder, &written, &request, &data)).await;
        if completed || outcome.is_err() {
            claim.end();
        }
        outcome?;
        reply.encode()
    }
}

impl GoFolder {
    /// Waits for the rate limit, not longer than a client waits for its reply. Returns the number
    /// of bytes that it allows: at least one, if there are any.
    async fn wait_for(&self, bytes: usize) -> Result<usize, Status> {
        let until = Instant::now() + MAX_WAIT;
        let allowed = self.folder.wait_until(bytes, until).await;
        if allowed == 0 && bytes > 0 {
            let text = format!(
                "the rate limit allows no bytes within {MAX_WAIT:?} (Folder::bytes_per_second)"
            );
            return Err(Status::resource_exhausted(text));
        }
        Ok(allowed)
    }

    /// Returns the path below the folder.
    fn path(&self, text: &str) -> Result<FilePath, Status> {
        let below = text.strip_prefix(&self.prefix);
        let below = below.filter(|rest| rest.starts_with('/')).unwrap_or(text);
        FilePath::parse_file(below.trim_start_matches('/'))
    }
}

/// Writes a part, and gives a complete file its name. Blocks.
fn write(folder: &Folder, path: &FilePath, request: &Upload, data: &[u8]) -> Result<(), Status> {
    let start = request.upload_start_pos;
    let end = start.saturating_add(data.len() as u64);
    folder.check_size(path, end)?;
    let parent = folder.root.parent(path, true)?;
    parent.check_replaceable()?;
    let doing = |error| failed(error, format_args!("writing {}", parent.label));
    let name = go_part_name(&parent.name);
    let part = lock(&parent.dir, &name).map_err(doing)?;
    let mut part = part.ok_or_else(|| busy(&parent.label, "another request"))?;
    parent.keep_mode(&part, 0o600).map_err(doing)?;
    let length = part.metadata().map_err(doing)?.len();
    if start > length || (request.completed && data.is_empty() && start < length) {
        if length == 0 {
            parent.dir.remove_file(&name).map_err(doing)?;
        }
        return Err(Status::failed_precondition(format!(
            "{} has {length} bytes here, and the request begins at {start}",
            parent.label
        )));
    }
    part.set_len(start).map_err(doing)?;
    part.seek(SeekFrom::Start(start)).map_err(doing)?;
    part.write_all(data).map_err(doing)?;
    if request.completed {
        parent.keep_mode(&part, 0).map_err(doing)?;
        part.sync_all().map_err(doing)?;
        parent
            .dir
            .rename(&name, &parent.dir, &parent.name)
            .map_err(doing)?;
        sync_directory(&parent.dir).map_err(doing)?;
    }
    Ok(())
}

/// Gives a `NOT_FOUND` status the text of a Go server. Source: recording `file_download_missing`.
fn as_go(status: Status, path: &str) -> Status {
    match status.code() {
        Code::NotFound => Status::not_found(format!("open {path}: no such file or directory")),
        _ => status,
    }
}
