//! Download of a file.

use std::future::pending;

use iip_rpc::{CallContext, Code, Status};

use super::attempts::Failure;
use super::progress::{Phase, Tracker};
use super::{FileClient, describe, time_to_read};
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
    ) -> Result<(), Failure> {
        let mut attempts = self.attempts();
        loop {
            match self.try_get(remote, parent.try_clone()?, tracker).await {
                Ok(hash) => {
                    tracker.done(hash);
                    return Ok(());
                }
                Err(failure) => attempts.next(failure, tracker).await?,
            }
        }
    }

    async fn try_get(
        &self,
        remote: &FilePath,
        parent: Parent,
        tracker: &Tracker<'_>,
    ) -> Result<Hash, Failure> {
        let entry = self.files.stat(remote.as_str()).await;
        let entry = entry.map_err(Failure::of_source)?;
        if entry.kind != Kind::File {
            let text = format!("{:?} is now {}", remote.as_str(), describe(entry.kind));
            return Err(Failure::Source(Status::failed_precondition(text)));
        }
        let (path, identity) = (remote.as_str().to_owned(), entry.identity);
        self.check_size(&path, identity.size)?;
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
            let pieces = self.files.read(&CallContext::new(), request).await;
            let pieces = pieces.map_err(Failure::of_source)?;
            let tell = |received| tracker.received(received);
            let rates = self.rates();
            let receiving = receive(part, pieces, &rates, tell, pending());
            part =
                self.watched(tracker, receiving)
                    .await
                    .map_err(|status| match status.code() {
                        // The source has changed; writing to an open file does not fail like this.
                        Code::FailedPrecondition => Failure::Source(status),
                        _ => Failure::Other(status),
                    })?;
        }
        let mut expected = None;
        if self.options.verify {
            tracker.phase(Phase::Verifying);
            let files = self.patient(time_to_read(identity.size));
            let verified = blocking(move || part.verify().map(|()| part));
            let (verified, checksum) =
                tokio::join!(verified, files.checksum(remote.as_str(), identity));
            (part, expected) = (verified?, Some(checksum?));
        }
        tracker.phase(Phase::Committing);
        Ok(blocking(move || part.commit(expected)).await?)
    }
}
