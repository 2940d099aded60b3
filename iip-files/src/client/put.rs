//! Upload of a file.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use iip_rpc::{CallContext, Code, Status, Streaming};

use super::FileClient;
use super::broken;
use super::progress::{Phase, Tracker};
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
    ) -> Result<(), Status> {
        let parent = Arc::new(parent);
        let mut attempts = self.attempts();
        let mut previous = None;
        loop {
            match self.try_put(&parent, remote, &mut previous, tracker).await {
                Ok(hash) => {
                    tracker.done(hash);
                    return Ok(());
                }
                Err(status) => attempts.next(status, tracker).await?,
            }
        }
    }

    async fn try_put(
        &self,
        parent: &Arc<Parent>,
        remote: &FilePath,
        previous: &mut Option<u64>,
        tracker: &Tracker<'_>,
    ) -> Result<Hash, Status> {
        let source = open(parent).await?;
        let identity = *source.identity();
        let request = OpenRequest {
            path: remote.as_str().to_owned(),
            identity,
            previous: *previous,
        };
        let opened = self.patient(0).open(request).await?;
        *previous = Some(opened.transfer);
        if opened.offset > identity.size {
            let text = format!("an offset of {} of {} bytes", opened.offset, identity.size);
            return Err(broken(&Status::internal(text)));
        }
        tracker.begin(identity.size, opened.offset, opened.restarted);
        let source = blocking(move || source.at(opened.offset)).await?;
        let (mut hash, _open) = self
            .send(source, opened.transfer, tracker)
            .await
            .map_err(forgotten)?;
        if self.options.verify {
            tracker.phase(Phase::Verifying);
            let source = open(parent).await?;
            if *source.identity() != identity {
                let text = format!("{} has changed while it was sent", parent.label);
                return Err(Status::failed_precondition(text));
            }
            hash = Some(blocking(move || source.checksum()).await?);
        }
        tracker.phase(Phase::Committing);
        let verify = self.options.verify;
        let files = self.patient(if verify { identity.size } else { 0 });
        let request = CommitRequest {
            transfer: opened.transfer,
            hash,
            verify,
        };
        files.commit(request).await.map_err(forgotten)
    }

    /// Sends the rest of a file. Returns its hash if it was sent from the beginning, and the reply
    /// stream: dropping it before the commit abandons the upload.
    async fn send(
        &self,
        source: Source,
        transfer: u64,
        tracker: &Tracker<'_>,
    ) -> Result<(Option<Hash>, Streaming<u64>), Status> {
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
        Ok((sent?, told?))
    }
}

async fn open(parent: &Arc<Parent>) -> Result<Source, Status> {
    let parent = Arc::clone(parent);
    blocking(move || Source::open(&parent)).await
}

/// Makes `NOT_FOUND` an error that is retried: a restarted server no longer knows the upload, but
/// it can be opened again.
fn forgotten(status: Status) -> Status {
    match status.code() {
        Code::NotFound => Status::unavailable(status.message().to_owned()),
        _ => status,
    }
}
