//! A file that is being received: the part file next to the target, and the journal of the chunks
//! that are on disk.

use std::fs::{File, FileTimes};
use std::io::{self, BufReader, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use cap_fs_ext::MetadataExt;
#[cfg(unix)]
use cap_std::fs::OpenOptionsExt;
use cap_std::fs::{Dir, OpenOptions};
use iip_rpc::Status;

use crate::failure::failed;
use crate::hash::{ChunkHasher, ChunkValue, Hash, Tree, chunk_bytes};
use crate::journal::{self, ENTRY_BYTES, Head};
use crate::path::part_names;
use crate::root::{Parent, open_regular, sync_directory};
use crate::service::{Identity, Piece};

/// A file that is being received. All methods block.
#[derive(Debug)]
pub(crate) struct Part {
    names: (String, String),
    identity: Identity,
    disk: Arc<Disk>,
    hasher: ChunkHasher,
    tree: Tree,
    /// The values of the chunks that were written but are not in the journal yet.
    unsynced: Vec<ChunkValue>,
    restarted: bool,
    /// Set if the file already has its final name: the last transfer was interrupted after the
    /// rename, before it removed the journal.
    is_named: bool,
}

/// The files of a part, shared so that they can be synced during further writes.
#[derive(Debug)]
pub(crate) struct Disk {
    parent: Parent,
    part: File,
    journal: File,
    head: Head,
}

/// Chunks that were written and have to be synced.
#[derive(Debug)]
pub(crate) struct Unsynced {
    first: u64,
    values: Vec<ChunkValue>,
    /// The offset at which the last of them ends.
    pub(crate) end: u64,
}

impl Part {
    /// Opens the part of a file, or creates it. The bytes of an earlier transfer are kept if its
    /// source was the same.
    pub(crate) fn open(parent: Parent, identity: Identity) -> Result<Self, Status> {
        let names = part_names(&parent.name);
        let label = parent.label.clone();
        let doing = |error| failed(error, format_args!("opening the part of {label}"));
        let journal = lock(&parent.dir, &names.1)
            .map_err(doing)?
            .ok_or_else(|| busy(&label, "another transfer, maybe of another process"))?;
        let found = journal::read(BufReader::new(&journal)).map_err(doing)?;
        let (found, is_other) = match found {
            Some(found) if found.identity == identity => (Some(found.tree), false),
            other => (None, other.is_some()),
        };
        let is_complete = found.as_ref().map(|tree| end_of(tree, &identity)) == Some(identity.size);
        let is_named = is_complete
            && parent.dir.symlink_metadata(&names.0).is_err()
            && parent.is_unchanged(&identity);
        let part = if is_named {
            open_regular(&parent.dir, &parent.name, OpenOptions::new().read(true))
        } else {
            open_part(&parent.dir, &names.0)
        };
        let part = part.map_err(doing)?;
        if !is_named {
            // The owner can write, so that a later transfer can open the part again.
            parent.keep_mode(&part, 0o600).map_err(doing)?;
        }
        let disk = Disk {
            parent,
            part,
            journal,
            head: Head::new(&identity),
        };
        let (tree, restarted) = match disk.resume(found, &identity).map_err(doing)? {
            Some(tree) => (tree, false),
            None => (Tree::default(), disk.restart().map_err(doing)? && is_other),
        };
        let offset = end_of(&tree, &identity);
        (&disk.part).seek(SeekFrom::Start(offset)).map_err(doing)?;
        Ok(Self {
            names,
            identity,
            disk: Arc::new(disk),
            hasher: ChunkHasher::new(identity.size, offset),
            tree,
            unsynced: Vec::new(),
            restarted,
            is_named,
        })
    }

    /// Returns the offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.hasher.position()
    }

    /// Returns the size of the file.
    pub(crate) fn size(&self) -> u64 {
        self.identity.size
    }

    /// Returns `true` if bytes of an earlier transfer were discarded because its source was
    /// different.
    pub(crate) fn restarted(&self) -> bool {
        self.restarted
    }

    /// Returns the files, for [`Disk::sync`].
    pub(crate) fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.disk)
    }

    /// Checks the next pieces against the hashes of the sender, and writes them. If a piece does
    /// not match, the pieces before it are still written. After an error, nothing more can be
    /// written: the position may be beyond the bytes in the file.
    pub(crate) fn write(&mut self, pieces: &[Piece]) -> Result<(), Status> {
        let mut values = Vec::new();
        let mut valid = 0;
        let checked = pieces.iter().try_for_each(|piece| {
            values.extend(self.check(piece)?);
            valid += 1;
            Ok(())
        });
        let slices = pieces[..valid]
            .iter()
            .map(|piece| IoSlice::new(&piece.bytes));
        write_all(&self.disk.part, &mut slices.collect::<Vec<_>>())
            .map_err(|error| failed(error, format_args!("writing {}", self.disk.parent.label)))?;
        for &value in &values {
            self.tree.push(value);
        }
        self.unsynced.append(&mut values);
        checked
    }

    /// Checks the next piece. Returns the value of its chunk if the piece completes it.
    fn check(&mut self, piece: &Piece) -> Result<Option<ChunkValue>, Status> {
        let label = &self.disk.parent.label;
        if piece.bytes.is_empty() || piece.bytes.len() as u64 > self.hasher.left() {
            let text = format!(
                "a piece of {} bytes of {label} does not end within its chunk and file",
                piece.bytes.len()
            );
            return Err(Status::invalid_argument(text));
        }
        let value = self.hasher.update(&piece.bytes);
        if value != piece.chunk {
            let text = format!(
                "the chunk of {label} that ends at {} is not what the sender has hashed",
                self.hasher.position()
            );
            return Err(Status::new(iip_rpc::Code::DataLoss, text));
        }
        Ok(value)
    }

    /// Takes the chunks that were written but are not in the journal yet.
    pub(crate) fn take_unsynced(&mut self) -> Option<Unsynced> {
        if self.unsynced.is_empty() {
            return None;
        }
        let values = std::mem::take(&mut self.unsynced);
        let first = self.tree.chunks() - values.len() as u64;
        let end = end_of(&self.tree, &self.identity);
        Some(Unsynced { first, values, end })
    }

    /// Reads the whole file again, and compares its hash with that of the received bytes. Discards
    /// the file if they differ.
    pub(crate) fn verify(&self) -> Result<(), Status> {
        let label = &self.disk.parent.label;
        let doing = |error| failed(error, format_args!("verifying {label}"));
        (&self.disk.part).seek(SeekFrom::Start(0)).map_err(doing)?;
        let hash = hash_of((&self.disk.part).take(self.identity.size)).map_err(doing)?;
        if hash != self.tree.clone().root() {
            self.discard();
            let text = format!("{label} is not on disk as it was received; it was discarded");
            return Err(Status::new(iip_rpc::Code::DataLoss, text));
        }
        Ok(())
    }

    /// Gives the file its name. Discards the file instead if its hash is not the expected one.
    /// Fails if chunks are missing or not synced.
    pub(crate) fn commit(self, expected: Option<Hash>) -> Result<Hash, Status> {
        let label = &self.disk.parent.label;
        if self.position() != self.size() || !self.unsynced.is_empty() {
            let text = format!(
                "{label} is not complete: {} of {} bytes",
                self.position(),
                self.size()
            );
            return Err(Status::failed_precondition(text));
        }
        let hash = self.tree.clone().root();
        if expected.is_some_and(|expected| expected != hash) {
            self.discard();
            let text = format!("the hash of {label} is not that of its source; it was discarded");
            return Err(Status::new(iip_rpc::Code::DataLoss, text));
        }
        self.rename()
            .map_err(|error| failed(error, format_args!("giving {label} its name")))?;
        Ok(hash)
    }

    fn rename(&self) -> io::Result<()> {
        let dir = &self.disk.parent.dir;
        if !self.is_named {
            self.complete()?;
            dir.rename(&self.names.0, dir, &self.disk.parent.name)?;
        }
        sync_directory(dir)?;
        dir.remove_file(&self.names.1)
    }

    /// Sets the length, modification time and mode of the part file, syncs it, and checks that its
    /// name still refers to it.
    fn complete(&self) -> io::Result<()> {
        let part = &self.disk.part;
        // Removes what an incomplete chunk has left.
        part.set_len(self.identity.size)?;
        if let Some(modified) = self.identity.modified.time() {
            part.set_times(FileTimes::new().set_modified(modified))?;
        }
        self.disk.parent.keep_mode(part, 0)?;
        part.sync_all()?;
        let found = self.disk.parent.dir.symlink_metadata(&self.names.0)?;
        if found.ino() != part.metadata()?.ino() {
            let text = format!("{:?} was replaced by another file", self.names.0);
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    /// Removes the unfinished file, so that the next transfer starts from the beginning.
    pub(crate) fn discard(&self) {
        // If this fails, the next transfer finds the file invalid, or it is removed as stale later.
        let _ = self.disk.parent.dir.remove_file(&self.names.1);
        let _ = self.disk.parent.dir.remove_file(&self.names.0);
    }
}

/// Returns the offset at which the chunks of the tree end.
fn end_of(tree: &Tree, identity: &Identity) -> u64 {
    (tree.chunks() * chunk_bytes(identity.size)).min(identity.size)
}

impl Disk {
    /// Resumes after the chunks in the journal. Returns `None` if there are none to resume from, or
    /// the part file is too short for them.
    fn resume(&self, found: Option<Tree>, identity: &Identity) -> io::Result<Option<Tree>> {
        let Some(tree) = found else {
            return Ok(None);
        };
        if self.part.metadata()?.len() < end_of(&tree, identity) {
            return Ok(None);
        }
        // Removes entries that are incomplete or invalid.
        let end = journal::length(tree.chunks());
        self.journal.set_len(end)?;
        (&self.journal).seek(SeekFrom::Start(end))?;
        Ok(Some(tree))
    }

    /// Starts from the beginning. Returns `true` if the journal had entries.
    fn restart(&self) -> io::Result<bool> {
        let length = self.journal.metadata()?.len();
        if length > 0 {
            // The journal is truncated before the part: it must never list chunks that are gone.
            self.journal.set_len(0)?;
            self.journal.sync_all()?;
        }
        self.part.set_len(0)?;
        (&self.journal).seek(SeekFrom::Start(0))?;
        // The head is synced with the first entries.
        (&self.journal).write_all(&self.head.0)?;
        Ok(length > journal::length(0))
    }

    /// Syncs the part file, then adds the chunks to the journal and syncs that. Returns the offset
    /// at which the chunks end. Calls must not overlap.
    pub(crate) fn sync(&self, unsynced: Unsynced) -> Result<u64, Status> {
        let doing = |error| failed(error, format_args!("making {} durable", self.parent.label));
        self.part.sync_data().map_err(doing)?;
        if unsynced.first == 0 {
            sync_directory(&self.parent.dir).map_err(doing)?;
        }
        let mut entries = Vec::with_capacity(unsynced.values.len() * ENTRY_BYTES);
        for (index, value) in (unsynced.first..).zip(&unsynced.values) {
            entries.extend(self.head.entry(index, value));
        }
        (&self.journal).write_all(&entries).map_err(doing)?;
        self.journal.sync_data().map_err(doing)?;
        Ok(unsynced.end)
    }
}

/// Returns the status for a second writer of a file.
pub(crate) fn busy(label: &str, writer: &str) -> Status {
    Status::new(
        iip_rpc::Code::Aborted,
        format!("{label} is being written by {writer}"),
    )
}

/// Writes all slices. One vectored write of many pieces takes much less kernel time than a write
/// for each piece.
fn write_all(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Hashes all bytes of a source.
pub(crate) fn hash_of(mut source: impl Read) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(Hash::from(*hasher.finalize().as_bytes())),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    options.mode(0o644);
    options
}

/// Opens or creates a file for writing. Fails if the file has further hard links.
fn open_part(dir: &Dir, name: &str) -> io::Result<File> {
    let file = open_regular(dir, name, &mut options())?;
    if file.metadata()?.nlink() > 1 {
        return Err(io::Error::other(format!("{name:?} has several names")));
    }
    Ok(file)
}

/// Opens or creates a journal and, on Unix, locks it. Returns `None` if it is locked already.
pub(crate) fn lock(dir: &Dir, name: &str) -> io::Result<Option<File>> {
    loop {
        let journal = open_part(dir, name)?;
        #[cfg(unix)]
        {
            use rustix::fs::{FlockOperation, flock};
            match flock(&journal, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                locked => locked?,
            }
        }
        // The previous holder of the lock may have removed the file in the meantime.
        match dir.symlink_metadata(name) {
            Ok(metadata) if metadata.ino() == journal.metadata()?.ino() => {
                return Ok(Some(journal));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads the journal of an unfinished file, without opening it for writing. Returns the identity of
/// the source and the number of bytes that are on disk; `None` if there is no valid journal.
pub(crate) fn unfinished(parent: &Parent) -> io::Result<Option<(Identity, u64)>> {
    let (_, name) = part_names(&parent.name);
    let journal = match open_regular(&parent.dir, &name, OpenOptions::new().read(true)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let found = journal::read(BufReader::new(journal))?;
    Ok(found.map(|found| (found.identity, end_of(&found.tree, &found.identity))))
}
