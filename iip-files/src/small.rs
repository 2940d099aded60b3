//! Small files, several of which are sent in one message.

use std::io::Read;
use std::sync::{Arc, Mutex};

use iip_rpc::{Payload, Status};

use crate::failure::{blocking, ended, failed};
use crate::hash::Hash;
use crate::part::Part;
use crate::path::FilePath;
use crate::root::{Parent, Root};
use crate::service::{Identity, Modified, Piece, SMALL_FILE_BYTES};
use crate::sync::locked;

/// Number of files that are written concurrently.
const WRITERS: usize = 8;

/// The content of a small file, with its hash and modification time.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) modified: Modified,
    pub(crate) hash: Hash,
    pub(crate) bytes: Payload,
}

/// Reads a whole file. Returns `None` if it is not small. Blocks.
pub(crate) fn read_small_file(parent: &Parent) -> Result<Option<Small>, Status> {
    let (file, identity) = parent.open_source()?;
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error, format_args!("reading {}", parent.label)))?;
    if bytes.len() as u64 >= SMALL_FILE_BYTES {
        return Ok(None);
    }
    let hash = Hash::from(*blake3::hash(&bytes).as_bytes());
    Ok(Some(Small {
        modified: identity.modified,
        hash,
        bytes: bytes.into(),
    }))
}

/// Writes files, several concurrently: most of the time is spent waiting for the disk, which can
/// sync several files at once.
pub(crate) async fn write_small_files(
    root: &Arc<Root>,
    files: Vec<(FilePath, Small)>,
) -> Result<(), Status> {
    let files = Arc::new(Mutex::new(files.into_iter()));
    let start = |_| {
        let (root, files) = (Arc::clone(root), Arc::clone(&files));
        tokio::spawn(blocking(move || {
            write_each(&root, || locked(&files).next())
        }))
    };
    let writers: Vec<_> = (0..WRITERS).map(start).collect();
    for writer in writers {
        writer.await.map_err(ended)??;
    }
    Ok(())
}

/// Writes files until there are no more. Blocks.
fn write_each(
    root: &Root,
    mut next: impl FnMut() -> Option<(FilePath, Small)>,
) -> Result<(), Status> {
    while let Some((path, small)) = next() {
        write_small_file(root.parent(&path, true)?, small)?;
    }
    Ok(())
}

/// Writes a whole file. Blocks.
fn write_small_file(parent: Parent, small: Small) -> Result<(), Status> {
    let size = small.bytes.len() as u64;
    if size >= SMALL_FILE_BYTES {
        let text = format!(
            "{} has {size} bytes, which is not a small file",
            parent.label
        );
        return Err(Status::invalid_argument(text));
    }
    parent.check_replaceable()?;
    let mut part = Part::open(
        parent,
        Identity {
            size,
            modified: small.modified,
            inode: 0,
        },
    )?;
    if part.position() < size {
        let chunk = Some(*small.hash.as_bytes());
        let bytes = small.bytes;
        let written = part.write(&[Piece { chunk, bytes }]);
        // Nothing of it can be resumed.
        written.inspect_err(|_| part.discard())?;
        // Not synced here: the commit syncs the file.
        part.take_unsynced();
    }
    part.commit(Some(small.hash)).map(drop)
}
