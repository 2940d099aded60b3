//! The sending side of a transfer: reads a file into a stream of pieces. The next batch is read
//! while the previous one is sent.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};

use iip_rpc::{Status, StreamSender};
use tokio::time::sleep_until;

use crate::failure::{ended, failed};
use crate::hash::{ChunkHasher, Hash, Tree, chunk_bytes};
use crate::rate::Rate;
use crate::root::{self, Parent};
use crate::service::{Identity, MAX_PIECE_BYTES, Piece};

/// Maximum number of bytes that are read in one step.
const BATCH_BYTES: u64 = 1 << 20;

/// Maximum number of pieces that are queued for the network.
pub(crate) const QUEUED_PIECES: usize = 32;

/// An open file that is being sent.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    label: String,
    identity: Identity,
    hasher: ChunkHasher,
    /// `None` if the file is not sent from the beginning.
    tree: Option<Tree>,
}

impl Source {
    /// Opens a file. Blocks.
    pub(crate) fn open(parent: &Parent) -> Result<Self, Status> {
        let (file, identity) = parent.open_source()?;
        Ok(Self {
            file,
            label: parent.label.clone(),
            identity,
            hasher: ChunkHasher::new(identity.size, 0),
            tree: Some(Tree::default()),
        })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Starts at an offset: the beginning of a chunk, or the end of the file. Blocks.
    pub(crate) fn at(mut self, offset: u64) -> Result<Self, Status> {
        let size = self.identity.size;
        if offset > size || (offset < size && !offset.is_multiple_of(chunk_bytes(size))) {
            let text = format!("{offset} is not the beginning of a chunk of {}", self.label);
            return Err(Status::invalid_argument(text));
        }
        self.file
            .seek(SeekFrom::Start(offset))
            .map_err(|error| failed(error, format_args!("reading {}", self.label)))?;
        self.hasher = ChunkHasher::new(size, offset);
        self.tree = (offset == 0).then(Tree::default);
        Ok(self)
    }

    /// Reads the next pieces. There are none at the end of the file. Blocks.
    fn read(&mut self) -> Result<Vec<Piece>, Status> {
        let mut left = self.hasher.left().min(BATCH_BYTES);
        let mut batch = Vec::with_capacity(left as usize);
        (&self.file)
            .take(left)
            .read_to_end(&mut batch)
            .map_err(|error| failed(error, format_args!("reading {}", self.label)))?;
        if (batch.len() as u64) < left {
            return Err(self.changed());
        }
        let mut batch = iip_rpc::Payload::from(batch).into_bytes();
        let mut pieces = Vec::new();
        while left > 0 {
            let bytes = batch.split_to(batch.len().min(MAX_PIECE_BYTES));
            left -= bytes.len() as u64;
            let chunk = self.hasher.update(&bytes);
            if let (Some(value), Some(tree)) = (chunk, &mut self.tree) {
                tree.push(value);
            }
            pieces.push(Piece {
                chunk,
                bytes: bytes.into(),
            });
        }
        Ok(pieces)
    }

    /// Fails if the file has changed since it was opened. Blocks.
    fn check_unchanged(&self) -> Result<(), Status> {
        let now = root::identity(&self.file)
            .map_err(|error| failed(error, format_args!("reading {}", self.label)))?;
        if now == self.identity {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn changed(&self) -> Status {
        Status::failed_precondition(format!("{} has changed while it was sent", self.label))
    }

    /// Returns the hash of the file if it was sent from the beginning. All of it must have been
    /// read.
    fn hash(self) -> Option<Hash> {
        self.tree.map(Tree::root)
    }

    /// Reads the whole file and returns its hash. Blocks.
    pub(crate) fn checksum(self) -> Result<Hash, Status> {
        self.checksum_unless(&AtomicBool::new(false))
    }

    /// Like [`checksum`](Self::checksum), but fails once `stop` is set.
    pub(crate) fn checksum_unless(self, stop: &AtomicBool) -> Result<Hash, Status> {
        let file = Stoppable {
            source: (&self.file).take(self.identity.size),
            stop,
        };
        let hash = crate::part::hash_of(file)
            .map_err(|error| failed(error, format_args!("reading {}", self.label)))?;
        self.check_unchanged()?;
        Ok(hash)
    }
}

/// A source of which nothing more is read once `stop` is set.
struct Stoppable<'a, R> {
    source: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the call was cancelled"));
        }
        self.source.read(buffer)
    }
}

/// Sends a file up to its end. Returns its hash if it was sent from the beginning. Also returns
/// `None` if the receiver has dropped the stream: the receiver knows the reason.
pub(crate) async fn send(
    source: Source,
    pieces: StreamSender<Piece>,
    rates: &[&Rate],
    tell: impl FnMut(u64) + Send,
    stop: impl Future<Output = Status> + Send,
) -> Result<Option<Hash>, Status> {
    let outcome = tokio::select! {
        biased;
        status = stop => Err(status),
        outcome = send_all(source, &pieces, rates, tell) => outcome,
    };
    match &outcome {
        Ok(_) => pieces.finish(),
        Err(status) => pieces.fail(status.clone()).await,
    }
    outcome
}

async fn send_all(
    source: Source,
    pieces: &StreamSender<Piece>,
    rates: &[&Rate],
    mut tell: impl FnMut(u64),
) -> Result<Option<Hash>, Status> {
    let mut sent = source.hasher.position();
    let mut reading = read(source);
    loop {
        let (source, batch) = reading.await?;
        if batch.is_empty() {
            return Ok(source.hash());
        }
        reading = read(source);
        for piece in batch {
            let length = piece.bytes.len();
            let next_at = rates.iter().map(|rate| rate.take(length)).max();
            if pieces.send(piece).await.is_err() {
                return Ok(None);
            }
            sent += length as u64;
            tell(sent);
            if let Some(at) = next_at {
                sleep_until(at).await;
            }
        }
    }
}

/// Starts to read the next pieces. There are none at the end of the file; it is then an error if
/// the file has changed.
fn read(mut source: Source) -> impl Future<Output = Result<(Source, Vec<Piece>), Status>> {
    let task = tokio::task::spawn_blocking(move || {
        let batch = source.read()?;
        if batch.is_empty() {
            source.check_unchanged()?;
        }
        Ok((source, batch))
    });
    async { task.await.map_err(ended)? }
}
