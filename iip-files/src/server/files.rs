//! The methods of the service `iip.Files`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use iip_rpc::{CallContext, Code, Status, Stream, StreamSender, Streaming};
use tokio::sync::watch;

use super::contact::given_up;
use super::downloads::{check_count, shutting_down};
use super::folder::Folder;
use super::step::{self, holding};
use super::uploads::Upload;
use crate::failure::{blocking, failed};
use crate::hash::Hash;
use crate::part::{self, Part};
use crate::path::FilePath;
use crate::receive::{Received, receive};
use crate::service::{
    CommitRequest, Entry, Files, Identity, Kind, Listed, MAX_ENTRIES, MAX_SMALL_FILES, OpenRequest,
    Opened, Piece, ReadRequest, SmallFile, SmallRead, UploadStatus,
};
use crate::small::{Small, write_small_files};

/// Maximum number of positions that are queued for a client that does not read them.
const QUEUED_POSITIONS: usize = 4;

impl Files for Folder {
    async fn stat(&self, path: &str) -> Result<Entry, Status> {
        let path = FilePath::parse(path)?;
        let root = Arc::clone(&self.root);
        blocking(move || root.entry(&path)).await
    }

    async fn list(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Vec<Listed>, Status>>, Status> {
        self.send_listing(path).await
    }

    async fn read(
        &self,
        ctx: &CallContext,
        request: ReadRequest,
    ) -> Result<impl Stream<Item = Result<Piece, Status>>, Status> {
        self.send_file(ctx, request).await
    }

    async fn read_small(&self, paths: Vec<String>) -> Result<Vec<SmallRead>, Status> {
        self.send_small(paths).await
    }

    async fn checksum(&self, path: &str, identity: Identity) -> Result<Hash, Status> {
        self.checksum_of(path, identity).await
    }

    async fn open(&self, request: OpenRequest) -> Result<Opened, Status> {
        self.check_writable()?;
        let path = FilePath::parse_file(&request.path)?;
        self.check_size(&path, request.identity.size)?;
        self.remove_stale_parts_if_due();
        let (upload, mut slot) = self
            .uploads
            .begin(&path, request.previous, self.silence, || self.place())
            .await?;
        // Removes the upload if the call is cancelled, or the file cannot be opened.
        let mut open = Open {
            folder: self,
            upload: &upload,
            is_kept: false,
        };
        let root = Arc::clone(&self.root);
        let part = blocking(move || {
            let parent = root.parent(&path, true)?;
            parent.check_replaceable()?;
            Part::open(parent, request.identity)
        })
        .await?;
        let opened = Opened {
            transfer: upload.number,
            offset: part.position(),
            restarted: part.restarted(),
        };
        *slot = Some(part);
        open.is_kept = true;
        Ok(opened)
    }

    async fn write(
        &self,
        ctx: &CallContext,
        transfer: u64,
        pieces: Streaming<Piece>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        let upload = self.uploads.find(transfer)?;
        let (part, mut slot) = upload.take_part()?;
        let (sender, positions) = Streaming::channel(QUEUED_POSITIONS);
        let watched = Arc::clone(&upload);
        let (folder, shutdown) = (self.clone(), shutting_down(ctx));
        // The task continues after the client has disconnected, and syncs what has arrived.
        let pieces = Streaming::new(Pieces {
            pieces,
            upload: Arc::clone(&upload),
        });
        tokio::spawn(async move {
            let size = part.size();
            match folder
                .receive(&upload, part, pieces, &sender, shutdown)
                .await
            {
                Ok(part) => {
                    *slot = Some(part);
                    upload.contact.touch();
                    drop(slot);
                    // If this fails, the client has disconnected, and the upload ends.
                    let tell = async {
                        let _ = sender.send(size).await;
                        std::future::pending().await
                    };
                    tokio::select! {
                        biased;
                        () = upload.is_over() => {}
                        () = tell => {}
                    }
                    folder.uploads.remove(&upload);
                    sender.finish();
                }
                Err(status) => {
                    folder.uploads.remove(&upload);
                    drop(slot);
                    sender.fail(status).await;
                }
            }
        });
        Ok(Positions {
            positions,
            upload: watched,
        })
    }

    async fn status(&self, path: &str) -> Result<UploadStatus, Status> {
        self.check_writable()?;
        let path = FilePath::parse_file(path)?;
        let is_open = self.uploads.is_open(&path);
        let root = Arc::clone(&self.root);
        let unfinished = blocking(move || {
            let parent = root.parent(&path, false)?;
            part::unfinished(&parent).map_err(|error| {
                failed(error, format_args!("reading the part of {}", parent.label))
            })
        })
        .await?;
        Ok(UploadStatus {
            unfinished,
            is_open,
        })
    }

    async fn commit(&self, request: CommitRequest) -> Result<Hash, Status> {
        if let Some(hash) = self.uploads.committed(request.transfer) {
            return Ok(hash);
        }
        let upload = self.uploads.find(request.transfer)?;
        let (part, _slot) = upload.take_part()?;
        upload.contact.pause();
        let committed = blocking(move || {
            if request.verify {
                part.verify()?;
            }
            part.commit(request.hash)
        })
        .await;
        match &committed {
            Ok(hash) => self.uploads.commit(&upload, *hash),
            Err(_) => self.uploads.remove(&upload),
        }
        committed
    }

    async fn missing(&self, entries: Vec<Listed>) -> Result<Vec<bool>, Status> {
        self.check_writable()?;
        check_count(entries.len(), MAX_ENTRIES)?;
        let place = self.place()?;
        let root = Arc::clone(&self.root);
        let step = holding(place, move |stop| {
            let mut missing = Vec::with_capacity(entries.len());
            for listed in &entries {
                step::check(stop)?;
                let path = FilePath::parse(&listed.path)?;
                missing.push(match listed.entry.kind {
                    Kind::Directory => root.directory(&path).is_err(),
                    _ => !root
                        .parent(&path, false)
                        .is_ok_and(|parent| parent.is_unchanged(&listed.entry.identity)),
                });
            }
            Ok(missing)
        });
        step.await.map(|(missing, _)| missing)
    }

    async fn make_directories(&self, paths: Vec<String>) -> Result<(), Status> {
        self.check_writable()?;
        check_count(paths.len(), MAX_ENTRIES)?;
        let place = self.place()?;
        let root = Arc::clone(&self.root);
        let step = holding(place, move |stop| {
            paths.iter().try_for_each(|path| {
                step::check(stop)?;
                root.make_directory(&FilePath::parse(path)?).map(drop)
            })
        });
        step.await.map(drop)
    }

    async fn write_small(&self, files: Vec<SmallFile>) -> Result<(), Status> {
        self.check_writable()?;
        check_count(files.len(), MAX_SMALL_FILES)?;
        let _place = self.place()?;
        let mut small = Vec::with_capacity(files.len());
        for SmallFile {
            path,
            modified,
            hash,
            bytes,
        } in files
        {
            let path = FilePath::parse_file(&path)?;
            self.check_size(&path, bytes.len() as u64)?;
            small.push((
                path,
                Small {
                    modified,
                    hash,
                    bytes,
                },
            ));
        }
        let bytes = small.iter().map(|(_, small)| small.bytes.len()).sum();
        tokio::select! {
            biased;
            () = self.wait_for(bytes) => {}
            () = given_up() => {
                let text = "the caller has gone; nothing was written";
                return Err(Status::new(Code::Cancelled, text));
            }
        }
        write_small_files(&self.root, small).await
    }
}

impl Folder {
    /// Receives the rest of a file, and sends the offsets up to which it is on disk, except the
    /// last.
    async fn receive(
        &self,
        upload: &Upload,
        part: Part,
        pieces: Streaming<Piece>,
        positions: &StreamSender<u64>,
        shutdown: impl Future<Output = Status> + Send,
    ) -> Result<Part, Status> {
        let rates: Vec<_> = self.rate.as_deref().into_iter().collect();
        let size = part.size();
        let (latest, mut changes) = watch::channel(part.position());
        let tell = |received: Received| {
            latest.send_if_modified(|durable| {
                std::mem::replace(durable, received.durable) != received.durable
            });
        };
        let stop = async {
            tokio::select! {
                biased;
                status = upload.replaced() => status,
                status = shutdown => status,
                status = upload.contact.silence(self.silence) => status,
            }
        };
        // A client that does not keep up with the positions gets only some of them.
        let telling = async {
            while changes.changed().await.is_ok() {
                let durable = *changes.borrow_and_update();
                if durable < size && positions.send(durable).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            outcome = receive(part, pieces, &rates, tell, stop) => outcome,
            outcome = telling => outcome,
        }
    }

    /// Starts a task that removes old unfinished files, if none has started within the last hour.
    pub(crate) fn remove_stale_parts_if_due(&self) {
        if !self.stale.is_due() {
            return;
        }
        let folder = self.clone();
        tokio::spawn(async move {
            match folder.remove_stale_parts().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed old unfinished files"),
                Err(error) => tracing::warn!(%error, "old unfinished files cannot be removed"),
            }
        });
    }
}

/// Removes an upload when it is dropped, unless the upload is kept.
struct Open<'a> {
    folder: &'a Folder,
    upload: &'a Upload,
    is_kept: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.folder.uploads.remove(self.upload);
        }
    }
}

/// The offsets up to which an upload is on disk. The stream is dropped when the client disconnects
/// or drops its end, which abandons the upload.
struct Positions {
    positions: Streaming<u64>,
    upload: Arc<Upload>,
}

impl Stream for Positions {
    type Item = Result<u64, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.positions).poll_next(cx)
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        self.upload.abandon();
    }
}

/// The pieces of an upload. Its client is awaited while there are none.
struct Pieces {
    pieces: Streaming<Piece>,
    upload: Arc<Upload>,
}

impl Stream for Pieces {
    type Item = Result<Piece, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.pieces).poll_next(cx);
        match &next {
            Poll::Pending => self.upload.contact.wait(),
            Poll::Ready(_) => self.upload.contact.pause(),
        }
        next
    }
}
