//! Downloads and listings.

use std::future::Future;
use std::sync::Arc;

use iip_rpc::{CallContext, Status, StreamSender};
use tokio::time::Instant;

use super::folder::{Folder, MAX_WAIT};
use super::replies::{self, Replies, Watch};
use super::step::{self, holding};
use crate::failure::blocking;
use crate::hash::Hash;
use crate::listing::Listing;
use crate::path::FilePath;
use crate::root::Root;
use crate::send::{QUEUED_PIECES, Source, send};
use crate::service::{Identity, Listed, MAX_SMALL_FILES, Piece, ReadRequest, SmallRead};
use crate::small::read_small_file;

/// Maximum size, in bytes, of the paths of directories that a listing still has to read.
const MAX_STACK_BYTES: usize = 8 << 20;

impl Folder {
    pub(super) async fn send_file(
        &self,
        ctx: &CallContext,
        request: ReadRequest,
    ) -> Result<Replies<Piece>, Status> {
        let place = self.place()?;
        let path = FilePath::parse_file(&request.path)?;
        let root = Arc::clone(&self.root);
        let step = holding(place, move |_| {
            open(&root, &path, &request.identity)?.at(request.offset)
        });
        let (source, place) = step.await?;
        let rate = self.rate.clone();
        let (sender, watch, pieces) = replies::channel(QUEUED_PIECES, place, self.silence);
        let stop = shutting_down(ctx);
        tokio::spawn(async move {
            let rates: Vec<_> = rate.as_deref().into_iter().collect();
            // The client has received the reason of a failure.
            let sending = send(source, sender, &rates, |_| (), stop);
            if watch.run(sending).await.is_some() {
                watch.finish().await;
            }
        });
        Ok(pieces)
    }

    pub(super) async fn checksum_of(&self, path: &str, identity: Identity) -> Result<Hash, Status> {
        let place = self.place()?;
        let path = FilePath::parse_file(path)?;
        let root = Arc::clone(&self.root);
        let step = holding(place, move |stop| {
            open(&root, &path, &identity)?.checksum_unless(stop)
        });
        step.await.map(|(hash, _)| hash)
    }

    pub(super) async fn send_listing(&self, path: &str) -> Result<Replies<Vec<Listed>>, Status> {
        let place = self.place()?;
        let path = FilePath::parse(path)?;
        let root = Arc::clone(&self.root);
        let step = holding(place, |_| {
            Ok(Listing::new(root, path)?.max_stack_bytes(MAX_STACK_BYTES))
        });
        let (listing, place) = step.await?;
        let (sender, watch, listed) = replies::channel(1, place, self.silence);
        tokio::spawn(async move {
            let Some(outcome) = send_batches(listing, &sender, &watch).await else {
                return;
            };
            let end = async {
                match outcome {
                    Ok(()) => sender.finish(),
                    Err(status) => sender.fail(status).await,
                }
            };
            if watch.run(end).await.is_some() {
                watch.finish().await;
            }
        });
        Ok(listed)
    }

    pub(super) async fn send_small(&self, paths: Vec<String>) -> Result<Vec<SmallRead>, Status> {
        check_count(paths.len(), MAX_SMALL_FILES)?;
        let place = self.place()?;
        let root = Arc::clone(&self.root);
        let step = holding(place, move |stop| {
            let read = |path: &String| {
                step::check(stop)?;
                Ok(match read_small(&root, path) {
                    Ok(read) => read,
                    Err(status) => SmallRead::Refused(status.message().to_owned()),
                })
            };
            paths.iter().map(read).collect::<Result<Vec<_>, Status>>()
        });
        let (mut read, _place) = step.await?;
        let until = Instant::now() + MAX_WAIT;
        for read in &mut read {
            let bytes = read.bytes();
            if self.wait_until(bytes, until).await < bytes {
                // A stream may take any time.
                *read = SmallRead::Large;
            }
        }
        Ok(read)
    }
}

impl SmallRead {
    fn bytes(&self) -> usize {
        match self {
            Self::File { bytes, .. } => bytes.len(),
            Self::Large | Self::Refused(_) => 0,
        }
    }
}

/// Sends the batches of a listing until its end, or until the client stops reading. Returns `None`
/// if the client was silent.
async fn send_batches(
    mut listing: Listing,
    sender: &StreamSender<Vec<Listed>>,
    watch: &Watch<Vec<Listed>>,
) -> Option<Result<(), Status>> {
    loop {
        let step = blocking(move || {
            let next = listing.next()?;
            Ok((listing, next))
        });
        let next;
        (listing, next) = match step.await {
            Ok(step) => step,
            Err(status) => return Some(Err(status)),
        };
        if next.is_empty() {
            return Some(Ok(()));
        }
        if let Err(gone) = watch.run(sender.send(next)).await? {
            return Some(Err(gone.into()));
        }
    }
}

/// Opens a file. Fails if it does not have this identity. Blocks.
fn open(root: &Root, path: &FilePath, identity: &Identity) -> Result<Source, Status> {
    let source = Source::open(&root.parent(path, false)?)?;
    if identity != source.identity() {
        let text = format!("{} has changed since it was described", root.label(path));
        return Err(Status::failed_precondition(text));
    }
    Ok(source)
}

fn read_small(root: &Root, path: &str) -> Result<SmallRead, Status> {
    let parent = root.parent(&FilePath::parse_file(path)?, false)?;
    read_small_file(&parent).map(|read| match read {
        Some(small) => SmallRead::File {
            modified: small.modified,
            hash: small.hash,
            bytes: small.bytes,
        },
        None => SmallRead::Large,
    })
}

/// Fails if a message has too many files or entries.
pub(super) fn check_count(count: usize, limit: usize) -> Result<(), Status> {
    if count <= limit {
        return Ok(());
    }
    let text = format!("{count} files or entries in a message, more than {limit}");
    Err(Status::invalid_argument(text))
}

/// Completes when the server shuts down, with the status for its transfers.
pub(super) fn shutting_down(ctx: &CallContext) -> impl Future<Output = Status> + Send + use<> {
    let shutting_down = ctx.shutting_down();
    async move {
        shutting_down.await;
        Status::unavailable("the server shuts down; the transfer can be resumed")
    }
}
