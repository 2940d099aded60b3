//! A file that is being received: its part beside the target, and the journal of what is on disk.

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
    /// The chunks that were written and are not in the journal.
    unsynced: Vec<ChunkValue>,
    restarted: bool,
    /// Set if the file has its name already: the last transfer ended between that and its end.
    is_named: bool,
}

/// What makes a part durable, beside further writes.
#[derive(Debug)]
pub(crate) struct Disk {
    parent: Parent,
    part: File,
    journal: File,
    head: Head,
}

/// Chunks that are written and have to be made durable.
#[derive(Debug)]
pub(crate) struct Unsynced {
    first: u64,
    values: Vec<ChunkValue>,
    /// Where the last of them ends.
    pub(crate) end: u64,
}

impl Part {
    /// Opens the part of a file, or creates it. What an earlier transfer has left is kept if its
    /// source is the same.
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
        let disk = Disk {
            parent,
            part: part.map_err(doing)?,
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

    /// The offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.hasher.position()
    }

    /// The size of the file.
    pub(crate) fn size(&self) -> u64 {
        self.identity.size
    }

    /// Returns `true` if bytes of an earlier transfer were discarded, whose source was different.
    pub(crate) fn restarted(&self) -> bool {
        self.restarted
    }

    /// What makes written chunks durable.
    pub(crate) fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.disk)
    }

    /// Writes the next pieces, after a check that they are what the sender has hashed. If one is not,
    /// those before it are written. After an error nothing more can be written: the position may be
    /// beyond what is in the file.
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

    /// Checks the next piece. Returns the value of its chunk if it is the last one of it.
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

    /// Takes the chunks that were written and are not in the journal.
    pub(crate) fn take_unsynced(&mut self) -> Option<Unsynced> {
        if self.unsynced.is_empty() {
            return None;
        }
        let values = std::mem::take(&mut self.unsynced);
        let first = self.tree.chunks() - values.len() as u64;
        let end = end_of(&self.tree, &self.identity);
        Some(Unsynced { first, values, end })
    }

    /// Reads the whole file again, and checks that it is what was received.
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

    /// Gives the file its name, after a check of its hash if the sender knows it. All of it must be
    /// durable.
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

    /// Makes the part what the file will be.
    fn complete(&self) -> io::Result<()> {
        let part = &self.disk.part;
        // What a chunk that was not complete has left.
        part.set_len(self.identity.size)?;
        if let Some(modified) = self.identity.modified.time() {
            part.set_times(FileTimes::new().set_modified(modified))?;
        }
        part.sync_all()?;
        let found = self.disk.parent.dir.symlink_metadata(&self.names.0)?;
        if found.ino() != part.metadata()?.ino() {
            let text = format!("{:?} was replaced by another file", self.names.0);
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    /// Makes the next transfer start again.
    fn discard(&self) {
        // A file that stays is found not to be valid by the next transfer, or is removed later.
        let _ = self.disk.parent.dir.remove_file(&self.names.1);
        let _ = self.disk.parent.dir.remove_file(&self.names.0);
    }
}

/// Where the chunks of a file end.
fn end_of(tree: &Tree, identity: &Identity) -> u64 {
    (tree.chunks() * chunk_bytes(identity.size)).min(identity.size)
}

impl Disk {
    /// Continues after the chunks of the journal, if the part has them.
    fn resume(&self, found: Option<Tree>, identity: &Identity) -> io::Result<Option<Tree>> {
        let Some(tree) = found else {
            return Ok(None);
        };
        if self.part.metadata()?.len() < end_of(&tree, identity) {
            return Ok(None);
        }
        // What follows was not complete.
        let end = journal::length(tree.chunks());
        self.journal.set_len(end)?;
        (&self.journal).seek(SeekFrom::Start(end))?;
        Ok(Some(tree))
    }

    /// Begins again. Returns `true` if something was there.
    fn restart(&self) -> io::Result<bool> {
        let length = self.journal.metadata()?.len();
        if length > 0 {
            // Before the part: a journal never speaks of bytes that are gone.
            self.journal.set_len(0)?;
            self.journal.sync_all()?;
        }
        self.part.set_len(0)?;
        (&self.journal).seek(SeekFrom::Start(0))?;
        // It is made durable with the first entries.
        (&self.journal).write_all(&self.head.0)?;
        Ok(length > journal::length(0))
    }

    /// Makes chunks durable, and returns where they end. Calls must not overlap.
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

/// The status of a second writer.
pub(crate) fn busy(label: &str, writer: &str) -> Status {
    Status::new(
        iip_rpc::Code::Aborted,
        format!("{label} is being written by {writer}"),
    )
}

/// Writes all of the slices. One write of many pieces takes much less of the kernel's time than many
/// writes.
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

/// The hash of everything that can be read.
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

/// Opens a file for writing that nobody else can reach by another name.
fn open_part(dir: &Dir, name: &str) -> io::Result<File> {
    let file = open_regular(dir, name, &mut options())?;
    if file.metadata()?.nlink() > 1 {
        return Err(io::Error::other(format!("{name:?} has several names")));
    }
    Ok(file)
}

/// Opens a journal and locks it; `None` if another process has locked it.
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
        // The process that had locked it may have removed it in the meantime.
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

/// What a journal says about an unfinished file, without opening it for writing.
pub(crate) fn unfinished(parent: &Parent) -> io::Result<Option<(Identity, u64)>> {
    let (_, name) = part_names(&parent.name);
    let journal = match open_regular(&parent.dir, &name, OpenOptions::new().read(true)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let found = journal::read(BufReader::new(journal))?;
    Ok(found.map(|found| (found.identity, end_of(&found.tree, &found.identity))))
}
