//! Upload of a file.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iip_rpc::{CallContext, Code, Status, Streaming};

use super::attempts::Failure;
use super::broken;
use super::progress::{Phase, Tracker};
use super::{FileClient, time_to_read};
use crate::failure::{blocking, failed};
use crate::hash::Hash;
use crate::path::FilePath;
use crate::root::{Parent, Root};
use crate::send::{QUEUED_PIECES, Source, send};
use crate::service::{CommitRequest, Files, OpenRequest};

/// The file or directory at a path of this machine.
pub(super) enum Found {
    File(Parent),
    Directory(Arc<Root>),
}

/// Finds the file or directory to send. The path comes from the user, so symbolic links in it are
/// followed. Blocks.
pub(super) fn find(path: &Path) -> Result<Found, Status> {
    let doing = |error| failed(error, format_args!("opening {}", path.display()));
    let real = path.canonicalize().map_err(doing)?;
    if !real.is_dir() {
        return Ok(Found::File(Parent::ambient(&real)?));
    }
    let label = format!("{}/", path.display());
    Ok(Found::Directory(Arc::new(
        Root::open(&real, label).map_err(doing)?,
    )))
}

impl FileClient {
    /// Uploads a file, with retries.
    pub(super) async fn put_file(
        &self,
        parent: Parent,
        remote: &FilePath,
        tracker: &Tracker<'_>,
    ) -> Result<(), Failure> {
        let parent = Arc::new(parent);
        let mut attempts = self.attempts();
        let mut earlier = Earlier::default();
        loop {
            match self.try_put(&parent, remote, &mut earlier, tracker).await {
                Ok(hash) => {
                    tracker.done(hash);
                    return Ok(());
                }
                Err(failure) => attempts.next(failure, tracker).await?,
            }
        }
    }

    async fn try_put(
        &self,
        parent: &Arc<Parent>,
        remote: &FilePath,
        earlier: &mut Earlier,
        tracker: &Tracker<'_>,
    ) -> Result<Hash, Failure> {
        if let Some(request) = &earlier.commit {
            // The server may have committed the upload, and only the reply was lost.
            match self.commit(request, tracker).await {
                Err(status) if status.code() == Code::NotFound => {}
                outcome => return Ok(outcome?),
            }
        }
        let source = open(parent).await?;
        let identity = *source.identity();
        let request = OpenRequest {
            path: remote.as_str().to_owned(),
            identity,
            previous: earlier.transfer,
        };
        let opened = self.patient(Duration::ZERO).open(request).await?;
        *earlier = Earlier {
            transfer: Some(opened.transfer),
            commit: None,
        };
        if opened.offset > identity.size {
            let text = format!("an offset of {} of {} bytes", opened.offset, identity.size);
            return Err(broken(&Status::internal(text)).into());
        }
        tracker.begin(identity.size, opened.offset, opened.restarted);
        let source = blocking(move || source.at(opened.offset)).await?;
        let sending = self.send(source, opened.transfer, tracker);
        let (mut hash, _open) = self.watched(tracker, sending).await?;
        if self.options.verify {
            tracker.phase(Phase::Verifying);
            let source = open(parent).await?;
            if *source.identity() != identity {
                let text = format!("{} has changed while it was sent", parent.label);
                return Err(Failure::Source(Status::failed_precondition(text)));
            }
            let checked = blocking(move || source.checksum()).await;
            hash = Some(checked.map_err(Failure::Source)?);
        }
        let request = earlier.commit.insert(CommitRequest {
            transfer: opened.transfer,
            hash,
            verify: self.options.verify,
        });
        let committed = self.commit(request, tracker).await;
        Ok(committed.map_err(forgotten)?)
    }

    /// Completes an upload, and compares the hash that the server returns.
    async fn commit(&self, request: &CommitRequest, tracker: &Tracker<'_>) -> Result<Hash, Status> {
        tracker.phase(Phase::Committing);
        let read_bytes = if request.verify {
            tracker.size_of_file()
        } else {
            0
        };
        let found = self
            .patient(time_to_read(read_bytes))
            .commit(request.clone())
            .await?;
        if request.hash.is_some_and(|sent| sent != found) {
            let text = format!("the server has the hash {found}, which is not that of the source");
            return Err(Status::new(Code::DataLoss, text));
        }
        Ok(found)
    }

    /// Sends the rest of a file. Returns its hash if it was sent from the beginning, and the reply
    /// stream: dropping it before the commit abandons the upload.
    async fn send(
        &self,
        source: Source,
        transfer: u64,
        tracker: &Tracker<'_>,
    ) -> Result<(Option<Hash>, Streaming<u64>), Failure> {
        let size = source.identity().size;
        let (sender, pieces) = Streaming::channel(QUEUED_PIECES);
        let rates = self.rates();
        let sending = send(source, sender, &rates, |sent| tracker.sent(sent), pending());
        let telling = async {
            let ctx = CallContext::new();
            let mut positions = self.files.write(&ctx, transfer, pieces).await?;
            while let Some(position) = positions.next().await {
                let durable = position?.min(size);
                tracker.durable(durable);
                if durable == size {
                    return Ok(positions);
                }
            }
            Err(Status::unavailable(
                "the server ended before all of the file was on its disk",
            ))
        };
        let (sent, told) = tokio::join!(sending, telling);
        let (hash, positions) = (sent.map_err(Failure::Source)?, told.map_err(forgotten)?);
        if tracker.sent_bytes() < size {
            let text = "the end of an upload of which it has not read all bytes";
            return Err(broken(&Status::internal(text)).into());
        }
        Ok((hash, positions))
    }
}

/// What earlier attempts to upload a file have left on the server.
#[derive(Default)]
struct Earlier {
    /// The number of the last upload.
    transfer: Option<u64>,
    /// The request that completes it, if it was sent already.
    commit: Option<CommitRequest>,
}

async fn open(parent: &Arc<Parent>) -> Result<Source, Failure> {
    let parent = Arc::clone(parent);
    let opened = blocking(move || Source::open(&parent)).await;
    opened.map_err(Failure::Source)
}

/// Makes `NOT_FOUND` an error that is retried: a restarted server no longer knows the upload, but
/// it can be opened again.
fn forgotten(status: Status) -> Status {
    match status.code() {
        Code::NotFound => Status::unavailable(status.message().to_owned()),
        _ => status,
    }
}
