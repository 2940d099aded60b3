//! Small files, of which several are in one message.

use std::io::Read;

use iip_rpc::{Payload, Status};

use crate::failure::failed;
use crate::hash::Hash;
use crate::part::Part;
use crate::root::Parent;
use crate::service::{Identity, Modified, Piece, SMALL_FILE_BYTES};

/// The content of a small file.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) modified: Modified,
    pub(crate) hash: Hash,
    pub(crate) bytes: Payload,
}

/// Reads a file as a whole; `None` if it is not small. Blocks.
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

/// Writes a file as a whole. Blocks.
pub(crate) fn write_small_file(parent: Parent, small: Small) -> Result<(), Status> {
    let size = small.bytes.len() as u64;
    if size >= SMALL_FILE_BYTES {
        let text = format!(
            "{} has {size} bytes, which is not a small file",
            parent.label
        );
        return Err(Status::invalid_argument(text));
    }
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
        part.write(&Piece {
            chunk,
            bytes: small.bytes,
        })?;
        // It is made durable with its name.
        part.take_unsynced();
    }
    part.commit(Some(small.hash)).map(drop)
}
