//! Download of a file.

use std::future::pending;

use iip_rpc::{CallContext, Status};

use super::progress::{Phase, Tracker};
use super::{FileClient, describe};
use crate::failure::blocking;
use crate::hash::Hash;
use crate::part::Part;
use crate::path::FilePath;
use crate::receive::receive;
use crate::root::Parent;
use crate::service::{Files, Kind, ReadRequest};

impl FileClient {
    /// Downloads a file, with retries.
    pub(super) async fn get_file(
        &self,
        remote: &FilePath,
        parent: Parent,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        let mut attempts = self.attempts();
        loop {
            match self.try_get(remote, parent.try_clone()?, tracker).await {
                Ok(hash) => {
                    tracker.done(hash);
                    return Ok(());
                }
                Err(status) => attempts.next(status, tracker).await?,
            }
        }
    }

    async fn try_get(
        &self,
        remote: &FilePath,
        parent: Parent,
        tracker: &Tracker<'_>,
    ) -> Result<Hash, Status> {
        let entry = self.files.stat(remote.as_str()).await?;
        if entry.kind != Kind::File {
            let text = format!("{:?} is now {}", remote.as_str(), describe(entry.kind));
            return Err(Status::failed_precondition(text));
        }
        let (path, identity) = (remote.as_str().to_owned(), entry.identity);
        if identity.size > self.options.max_file_bytes {
            let text = format!(
                "{path:?} has {} bytes, more than {} (TransferOptions::max_file_bytes)",
                identity.size, self.options.max_file_bytes
            );
            return Err(Status::resource_exhausted(text));
        }
        let mut part = blocking(move || {
            parent.check_replaceable()?;
            Part::open(parent, identity)
        })
        .await?;
        let offset = part.position();
        tracker.begin(identity.size, offset, part.restarted());
        if offset < identity.size {
            let request = ReadRequest {
                path,
                identity,
                offset,
            };
            let pieces = self.files.read(&CallContext::new(), request).await?;
            let tell = |received: crate::receive::Received| {
                tracker.received(received.bytes.min(identity.size), received.durable);
            };
            part = receive(part, pieces, &self.rates(), tell, pending()).await?;
        }
        let mut expected = None;
        if self.options.verify {
            tracker.phase(Phase::Verifying);
            let files = self.patient(identity.size);
            let verified = blocking(move || part.verify().map(|()| part));
            let (verified, checksum) =
                tokio::join!(verified, files.checksum(remote.as_str(), identity));
            (part, expected) = (verified?, Some(checksum?));
        }
        tracker.phase(Phase::Committing);
        blocking(move || part.commit(expected)).await
    }
}
