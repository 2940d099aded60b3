//! The journal of an unfinished file: the identity of its source, and the values of the chunks that
//! are on disk.
//!
//! ```text
//! head   8 magic, version | 8 size | 8 seconds | 4 nanoseconds | 4 chunk size | 8 inode | 8 check
//! entry  32 value of the chunk | 8 check
//! ```
//!
//! Numbers are little-endian. A check is the first 8 bytes of a BLAKE3 hash. The check of an entry
//! also covers the head and the index of the entry, so that a torn last entry, or an entry of an
//! earlier journal, is detected as invalid.

use std::io::{self, Read};

use crate::hash::{ChunkValue, Tree, chunk_bytes};
use crate::service::{Identity, Modified};

const MAGIC: [u8; 8] = *b"IIPfile\x01";

pub(crate) const HEAD_BYTES: usize = 48;
pub(crate) const ENTRY_BYTES: usize = 40;
const CHECK_BYTES: usize = 8;

/// The head of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head(pub(crate) [u8; HEAD_BYTES]);

impl Head {
    pub(crate) fn new(identity: &Identity) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(identity.size.to_le_bytes());
        bytes.extend(identity.modified.seconds.to_le_bytes());
        bytes.extend(identity.modified.nanoseconds.to_le_bytes());
        let chunk = u32::try_from(chunk_bytes(identity.size)).unwrap_or(u32::MAX);
        bytes.extend(chunk.to_le_bytes());
        bytes.extend(identity.inode.to_le_bytes());
        bytes.extend(check(&[&bytes]));
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&bytes);
        Self(head)
    }

    /// Returns the identity of the source; `None` if this is not a valid head of this version.
    fn identity(&self) -> Option<Identity> {
        let size = u64::from_le_bytes(self.field(8)?);
        let modified = Modified {
            seconds: i64::from_le_bytes(self.field(16)?),
            nanoseconds: u32::from_le_bytes(self.field(24)?),
        };
        let inode = u64::from_le_bytes(self.field(32)?);
        let identity = Identity {
            size,
            modified,
            inode,
        };
        (Self::new(&identity) == *self).then_some(identity)
    }

    fn field<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }

    /// Encodes the entry of a chunk.
    pub(crate) fn entry(&self, index: u64, value: &ChunkValue) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..value.len()].copy_from_slice(value);
        entry[value.len()..].copy_from_slice(&check(&[&self.0, &index.to_le_bytes(), value]));
        entry
    }
}

fn check(parts: &[&[u8]]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// The content of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    /// The chunks that are on disk.
    pub(crate) tree: Tree,
}

/// Reads a journal up to the first entry that is incomplete or invalid. Returns `None` without a
/// valid head.
pub(crate) fn read(mut journal: impl Read) -> io::Result<Option<Recovered>> {
    let mut head = [0; HEAD_BYTES];
    if !read_whole(&mut journal, &mut head)? {
        return Ok(None);
    }
    let head = Head(head);
    let Some(identity) = head.identity() else {
        return Ok(None);
    };
    let chunks = identity.size.div_ceil(chunk_bytes(identity.size));
    let mut tree = Tree::default();
    let mut entry = [0; ENTRY_BYTES];
    while tree.chunks() < chunks && read_whole(&mut journal, &mut entry)? {
        let mut value = [0; 32];
        value.copy_from_slice(&entry[..32]);
        if head.entry(tree.chunks(), &value) != entry {
            break;
        }
        tree.push(value);
    }
    Ok(Some(Recovered { identity, tree }))
}

/// Returns `false` if the journal ends before the buffer is full.
fn read_whole(journal: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match journal.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the length, in bytes, of a journal with this number of chunks.
pub(crate) const fn length(chunks: u64) -> u64 {
    HEAD_BYTES as u64 + chunks * ENTRY_BYTES as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(size: u64, seed: u64) -> Identity {
        let modified = Modified {
            seconds: -(seed as i64),
            nanoseconds: seed as u32,
        };
        Identity {
            size,
            modified,
            inode: seed ^ 77,
        }
    }

    fn journal(identity: &Identity, chunks: u64) -> Vec<u8> {
        let head = Head::new(identity);
        let mut bytes = head.0.to_vec();
        for index in 0..chunks {
            bytes.extend(head.entry(index, &[index as u8; 32]));
        }
        bytes
    }

    fn chunks_of(bytes: &[u8]) -> Option<u64> {
        let recovered = read(bytes).expect("memory can be read");
        recovered.map(|recovered| recovered.tree.chunks())
    }

    #[test]
    fn an_entry_of_another_journal_or_place_is_not_valid() {
        let mine = identity(9 << 20, 1);
        let mut bytes = journal(&mine, 3);
        let other = journal(&identity(9 << 20, 2), 9);
        bytes.extend(&other[length(3) as usize..]);
        assert_eq!(chunks_of(&bytes), Some(3));
        let mut swapped = journal(&mine, 2);
        let (first, second) = swapped[HEAD_BYTES..].split_at_mut(ENTRY_BYTES);
        first.swap_with_slice(second);
        assert_eq!(chunks_of(&swapped), Some(0));
    }

    #[test]
    fn entries_beyond_the_file_are_ignored() {
        assert_eq!(chunks_of(&journal(&identity(2 << 20, 1), 5)), Some(2));
    }

    proptest! {
        #[test]
        fn a_journal_is_read_as_it_was_written(size in 0..40u64 << 20, seed: u64) {
            let identity = identity(size, seed);
            let chunks = size.div_ceil(1 << 20);
            let bytes = journal(&identity, chunks);
            prop_assert_eq!(bytes.len() as u64, length(chunks));
            let recovered = read(&bytes[..]).unwrap().unwrap();
            prop_assert_eq!(recovered.identity, identity);
            prop_assert_eq!(recovered.tree.chunks(), chunks);
        }

        #[test]
        fn a_torn_journal_yields_its_complete_entries(chunks in 0..20u64, cut: prop::sample::Index) {
            let bytes = journal(&identity(20 << 20, 3), chunks);
            let length = cut.index(bytes.len() + 1);
            let expected = length.checked_sub(HEAD_BYTES).map(|rest| (rest / ENTRY_BYTES) as u64);
            prop_assert_eq!(chunks_of(&bytes[..length]), expected);
        }

        #[test]
        fn no_entry_from_a_damaged_byte_on_is_believed(
            chunks in 1..20u64,
            at: prop::sample::Index,
            flip in 1..=255u8,
        ) {
            let mut bytes = journal(&identity(20 << 20, 3), chunks);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let expected = at.checked_sub(HEAD_BYTES).map(|rest| (rest / ENTRY_BYTES) as u64);
            prop_assert_eq!(chunks_of(&bytes), expected);
        }

        #[test]
        fn bytes_of_any_kind_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = chunks_of(&bytes);
        }
    }
}
