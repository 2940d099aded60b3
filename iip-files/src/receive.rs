//! The receiving side of a transfer: writes the pieces of a stream to disk. The next batch is read
//! from the network while the previous one is written, and written chunks are synced concurrently
//! with both.

use std::future::Future;
use std::time::Duration;

use iip_rpc::{Status, Streaming};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::failure::{blocking, ended};
use crate::part::Part;
use crate::rate::Rate;
use crate::service::{MAX_PIECE_BYTES, Piece};

/// Bytes at which a batch is full and is written.
const BATCH_BYTES: usize = 1 << 20;
/// Pieces at which a batch is full, however small they are.
const MAX_BATCH_PIECES: usize = 1024;
/// Written bytes at which a sync starts.
const SYNC_BYTES: u64 = 32 << 20;
/// Written bytes that are not durable at which writing waits for the running sync.
const MAX_UNSYNCED_BYTES: u64 = 64 << 20;
/// Time after which written chunks are synced, however few they are.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The progress of receiving a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// Bytes that have arrived, including those of earlier transfers.
    pub(crate) bytes: u64,
    /// Bytes that have been synced to disk, including those of earlier transfers.
    pub(crate) durable: u64,
    /// Set while the sender is awaited, and not the disk.
    pub(crate) awaits_sender: bool,
}

/// Receives the rest of a file. The returned part is complete and durable. If the transfer fails,
/// the chunks that were written are synced if possible.
pub(crate) async fn receive(
    part: Part,
    pieces: Streaming<Piece>,
    rates: &[&Rate],
    tell: impl FnMut(Received) + Send,
    stop: impl Future<Output = Status> + Send,
) -> Result<Part, Status> {
    let durable = part.position();
    let mut receiver = Receiver {
        pieces,
        ended: false,
        batch: Vec::new(),
        batch_bytes: 0,
        next_at: None,
        size: part.size(),
        arrived: durable,
        written: durable,
        durable,
        part: Some(part),
        writing: None,
        syncing: None,
        sync_at: Instant::now() + SYNC_INTERVAL,
        awaits_sender: true,
    };
    let outcome = receiver.run(rates, tell, stop).await;
    receiver.finish(outcome).await
}

type Task<T> = JoinHandle<Result<T, Status>>;

struct Receiver {
    pieces: Streaming<Piece>,
    /// Set once the sender has no more pieces.
    ended: bool,
    /// Pieces that have arrived and are not being written yet.
    batch: Vec<Piece>,
    batch_bytes: usize,
    /// The time at which the rate limit allows the next piece.
    next_at: Option<Instant>,
    size: u64,
    arrived: u64,
    written: u64,
    durable: u64,
    /// `None` while a task writes to it.
    part: Option<Part>,
    writing: Option<Task<(Part, Result<(), Status>)>>,
    syncing: Option<Task<u64>>,
    /// The time of the next sync.
    sync_at: Instant,
    /// Set while the sender is awaited, and not the disk.
    awaits_sender: bool,
}

impl Receiver {
    async fn run(
        &mut self,
        rates: &[&Rate],
        mut tell: impl FnMut(Received),
        stop: impl Future<Output = Status>,
    ) -> Result<(), Status> {
        // One timer for all pieces: a new one for each piece would wake the runtime each time.
        let sync_time = sleep_until(self.sync_at);
        tokio::pin!(stop, sync_time);
        loop {
            // In this order: a write takes the part, which is needed to start a sync.
            self.start_syncing();
            self.start_writing();
            if sync_time.deadline() != self.sync_at {
                sync_time.as_mut().reset(self.sync_at);
            }
            if self.ended && self.batch.is_empty() && self.part.is_some() && self.syncing.is_none()
            {
                return self.check_complete();
            }
            let reads = !self.ended && !self.is_batch_full();
            if std::mem::replace(&mut self.awaits_sender, reads) != reads {
                tell(self.received());
            }
            // While the part is being written, nothing can be synced even if it is time.
            let sync_later =
                self.part.is_some() && self.syncing.is_none() && self.written > self.durable;
            tokio::select! {
                biased;
                status = &mut stop => return Err(status),
                done = join(&mut self.syncing), if self.syncing.is_some() => {
                    self.syncing = None;
                    self.durable = done?;
                    tell(self.received());
                }
                done = join(&mut self.writing), if self.writing.is_some() => {
                    self.writing = None;
                    let (part, outcome) = done?;
                    self.written = part.position();
                    self.part = Some(part);
                    outcome?;
                }
                piece = next(&mut self.pieces, self.next_at), if reads => {
                    self.take(piece, rates)?;
                    tell(self.received());
                }
                () = &mut sync_time, if sync_later => {}
            }
        }
    }

    fn received(&self) -> Received {
        Received {
            bytes: self.arrived,
            durable: self.durable,
            awaits_sender: self.awaits_sender,
        }
    }

    fn take(
        &mut self,
        piece: Option<Result<Piece, Status>>,
        rates: &[&Rate],
    ) -> Result<(), Status> {
        let Some(piece) = piece else {
            self.ended = true;
            return Ok(());
        };
        let piece = piece?;
        let length = piece.bytes.len();
        if length > MAX_PIECE_BYTES {
            let text = format!("a piece of {length} bytes, more than {MAX_PIECE_BYTES}");
            return Err(Status::invalid_argument(text));
        }
        self.next_at = rates.iter().map(|rate| rate.take(length)).max();
        self.batch_bytes += length;
        self.arrived += length as u64;
        self.batch.push(piece);
        Ok(())
    }

    fn is_batch_full(&self) -> bool {
        self.batch_bytes >= BATCH_BYTES || self.batch.len() >= MAX_BATCH_PIECES
    }

    /// Starts to write the batch if it is full or the last one, unless another write is running or
    /// too many written bytes wait for a sync.
    fn start_writing(&mut self) {
        let is_enough = self.is_batch_full() || self.arrived >= self.size || self.ended;
        let is_full = self.syncing.is_some() && self.written - self.durable >= MAX_UNSYNCED_BYTES;
        if self.batch.is_empty() || !is_enough || is_full {
            return;
        }
        let Some(mut part) = self.part.take() else {
            return;
        };
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let outcome = part.write(&batch);
            Ok((part, outcome))
        }));
    }

    /// Starts to sync the complete chunks if there are enough of them, if it is time, or if there
    /// will be no more.
    fn start_syncing(&mut self) {
        let now = Instant::now();
        let is_due = self.written - self.durable >= SYNC_BYTES
            || now >= self.sync_at
            || self.written >= self.size
            || (self.ended && self.batch.is_empty());
        let Some(part) = self
            .part
            .as_mut()
            .filter(|_| is_due && self.syncing.is_none())
        else {
            return;
        };
        self.sync_at = now + SYNC_INTERVAL;
        if let Some(unsynced) = part.take_unsynced() {
            let disk = part.disk();
            self.syncing = Some(tokio::task::spawn_blocking(move || disk.sync(unsynced)));
        }
    }

    fn check_complete(&self) -> Result<(), Status> {
        if self.durable == self.size {
            return Ok(());
        }
        let text = format!(
            "the sender ended after {} of {} bytes",
            self.written, self.size
        );
        Err(Status::invalid_argument(text))
    }

    /// Waits for the running tasks. After a failure, syncs the chunks that were written.
    async fn finish(mut self, outcome: Result<(), Status>) -> Result<Part, Status> {
        if let Some(writing) = self.writing.take() {
            self.part = writing.await.map_err(ended)?.ok().map(|(part, _)| part);
        }
        let synced = match self.syncing.take() {
            Some(syncing) => syncing.await.map_err(ended)?,
            None => Ok(self.durable),
        };
        let Some(mut part) = self.part else {
            return Err(outcome
                .err()
                .unwrap_or_else(|| Status::internal("the part is lost")));
        };
        let Err(status) = outcome else {
            return Ok(part);
        };
        // A failed sync may have left an incomplete entry; entries after it would not be read.
        if synced.is_ok()
            && let Some(unsynced) = part.take_unsynced()
        {
            let disk = part.disk();
            // The error is dropped: the transfer has failed already.
            let _ = blocking(move || disk.sync(unsynced)).await;
        }
        Err(status)
    }
}

async fn join<T>(task: &mut Option<Task<T>>) -> Result<T, Status> {
    match task {
        Some(task) => task.await.map_err(ended)?,
        None => std::future::pending().await,
    }
}

/// Returns the next piece, not before `at`.
async fn next(pieces: &mut Streaming<Piece>, at: Option<Instant>) -> Option<Result<Piece, Status>> {
    if let Some(at) = at {
        sleep_until(at).await;
    }
    pieces.next().await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::hash::ChunkHasher;
    use crate::root::Parent;
    use crate::service::Identity;

    /// Returns the part of a file of zeros in this folder, and the pieces of this size for it.
    fn zeros(folder: &tempfile::TempDir, size: u64, piece_bytes: usize) -> (Part, Vec<Piece>) {
        let parent = Parent::ambient(&folder.path().join("file")).expect("a folder");
        let identity = Identity {
            size,
            ..Identity::default()
        };
        let part = Part::open(parent, identity).expect("a part");
        let mut hasher = ChunkHasher::new(size, 0);
        let bytes = iip_rpc::Payload::from(vec![0; piece_bytes]);
        let mut pieces = Vec::new();
        while hasher.left() > 0 {
            let chunk = hasher.update(&bytes);
            pieces.push(Piece {
                chunk,
                bytes: bytes.clone(),
            });
        }
        (part, pieces)
    }

    #[tokio::test]
    async fn a_sender_that_is_faster_than_the_disk_is_never_far_ahead_of_it() {
        let size = 160 << 20;
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (part, pieces) = zeros(&temp, size, MAX_PIECE_BYTES);
        let mut ahead = 0;
        let tell = |received: Received| ahead = ahead.max(received.bytes - received.durable);
        let part = receive(part, Streaming::iter(pieces), &[], tell, pending()).await;
        assert_eq!(part.expect("all of it").position(), size);
        // In addition, one batch is being written and the next one collected.
        let limit = MAX_UNSYNCED_BYTES + 3 * BATCH_BYTES as u64;
        assert!(ahead <= limit, "{ahead}");
    }

    #[tokio::test]
    async fn a_file_in_pieces_of_one_byte_is_received_in_batches_of_limited_number() {
        let size = 5 * MAX_BATCH_PIECES as u64 / 2;
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (part, pieces) = zeros(&temp, size, 1);
        let part = receive(part, Streaming::iter(pieces), &[], |_| (), pending()).await;
        let part = part.expect("all of it");
        assert_eq!(part.position(), size);
        part.commit(None).expect("the file");
        let file = std::fs::read(temp.path().join("file")).expect("the file");
        assert_eq!(file, vec![0; size as usize]);
    }

    #[tokio::test]
    async fn pieces_before_one_that_is_damaged_are_kept() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (part, mut pieces) = zeros(&temp, 3 << 20, MAX_PIECE_BYTES);
        let first_of_third = 2 * pieces.len() / 3;
        pieces[first_of_third].bytes = iip_rpc::Payload::from(vec![1; MAX_PIECE_BYTES]);
        let received = receive(part, Streaming::iter(pieces), &[], |_| (), pending()).await;
        let status = received.expect_err("damaged");
        assert_eq!(status.code(), iip_rpc::Code::DataLoss, "{status}");
        let parent = Parent::ambient(&temp.path().join("file")).expect("a folder");
        let found = crate::part::unfinished(&parent).expect("readable");
        assert_eq!(found.expect("a part").1, 2 << 20);
    }
}
