//! BLAKE3 hashing of a file chunk by chunk. The chunks are subtrees of the BLAKE3 tree, so the hash
//! of the file is computed from their values without reading the file again.

use std::fmt;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Serialize};

/// The BLAKE3 hash of a file, as printed by `b3sum`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Returns the bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Writes 64 hexadecimal digits in lower case.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// Returns the chunk size, in bytes, of a file of `size` bytes.
pub(crate) const fn chunk_bytes(size: u64) -> u64 {
    if size > 4 << 30 { 4 << 20 } else { 1 << 20 }
}

/// The value of a chunk: BLAKE3's chaining value, or the hash of the file if it has only one chunk.
pub(crate) type ChunkValue = [u8; 32];

/// Hashes a file, starting at the beginning of a chunk.
#[derive(Debug)]
pub(crate) struct ChunkHasher {
    size: u64,
    position: u64,
    /// Boxed: a `Hasher` is 2 KiB large, and a `ChunkHasher` is moved into the task of each read or
    /// write.
    hasher: Box<Hasher>,
}

impl ChunkHasher {
    /// Starts at `offset`: the beginning of a chunk, or the end of the file.
    pub(crate) fn new(size: u64, offset: u64) -> Self {
        Self {
            size,
            position: offset,
            hasher: Box::new(hasher_at(offset - offset % chunk_bytes(size))),
        }
    }

    /// Returns the number of bytes up to the end of the current chunk; 0 at the end of the file.
    pub(crate) fn left(&self) -> u64 {
        let chunk = chunk_bytes(self.size);
        (chunk - self.position % chunk).min(self.size - self.position)
    }

    /// Returns the offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Adds bytes of the current chunk, at most [`left`](Self::left). Returns the value of the
    /// chunk if they complete it.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> Option<ChunkValue> {
        self.hasher.update(bytes);
        let left = self.left();
        self.position += bytes.len() as u64;
        if bytes.is_empty() || left > bytes.len() as u64 {
            return None;
        }
        let value = if self.size <= chunk_bytes(self.size) {
            *self.hasher.finalize().as_bytes()
        } else {
            self.hasher.finalize_non_root()
        };
        if self.position < self.size {
            *self.hasher = hasher_at(self.position);
        }
        Some(value)
    }
}

/// Returns a hasher for the subtree that begins at `offset`, a multiple of the chunk size.
fn hasher_at(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// The chunk values of a file from its beginning, merged into the values of larger subtrees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// The values of complete subtrees, the largest first.
    stack: Vec<ChunkValue>,
    chunks: u64,
}

impl Tree {
    /// Adds the value of the next chunk.
    pub(crate) fn push(&mut self, value: ChunkValue) {
        // Two subtrees are merged only once another chunk follows: the last two of a file may be
        // the children of the root, whose hash is computed differently.
        while self.stack.len() > self.chunks.count_ones() as usize {
            self.merge_last();
        }
        self.stack.push(value);
        self.chunks += 1;
    }

    fn merge_last(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack
                .push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// Returns the number of chunks.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Returns the hash of the file. All of its chunks must have been added.
    pub(crate) fn root(mut self) -> Hash {
        while self.stack.len() > 2 {
            self.merge_last();
        }
        match self.stack[..] {
            [left, right] => Hash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()),
            [value] => Hash(value),
            _ => Hash(*blake3::hash(&[]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 1 << 20;

    fn hash_of(bytes: &[u8], piece: usize) -> Hash {
        let mut hasher = ChunkHasher::new(bytes.len() as u64, 0);
        let mut tree = Tree::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = piece.min(rest.len()).min(hasher.left() as usize);
            let (part, after) = rest.split_at(length);
            if let Some(value) = hasher.update(part) {
                tree.push(value);
            }
            rest = after;
        }
        assert_eq!(hasher.left(), 0);
        tree.root()
    }

    #[test]
    fn the_hash_of_a_file_is_that_of_blake3_for_every_number_of_chunks() {
        let bytes: Vec<u8> = (0..17 * CHUNK + 5).map(|at| (at / 7 % 251) as u8).collect();
        let mut sizes = vec![0, 1, 1023, 1024, 1025];
        for chunks in 1..=17 {
            sizes.extend([chunks * CHUNK - 1, chunks * CHUNK, chunks * CHUNK + 1]);
        }
        for size in sizes {
            let bytes = &bytes[..size];
            let expected = blake3::hash(bytes);
            let found = hash_of(bytes, 256 * 1024);
            assert_eq!(found.as_bytes(), expected.as_bytes(), "{size}");
            assert_eq!(found.to_string(), expected.to_hex().as_str());
        }
        let odd = &bytes[..3 * CHUNK + 11];
        assert_eq!(
            hash_of(odd, 12_345).as_bytes(),
            blake3::hash(odd).as_bytes()
        );
    }

    #[test]
    fn a_chunk_of_a_large_file_is_four_of_a_small_one() {
        let bytes: Vec<u8> = (0..4 * CHUNK).map(|at| (at % 241) as u8).collect();
        let offset = 4 << 30;
        let mut large = ChunkHasher::new(offset + 5 * CHUNK as u64, offset);
        assert_eq!(large.left(), 4 * CHUNK as u64);
        let large_value = large.update(&bytes).expect("a chunk");
        assert_eq!(large.left(), CHUNK as u64);
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset).update(&bytes);
        assert_eq!(large_value, hasher.finalize_non_root());
        assert_eq!(chunk_bytes(offset), CHUNK as u64);
    }

    #[test]
    fn a_file_is_hashed_on_from_each_chunk() {
        let bytes: Vec<u8> = (0..5 * CHUNK + 77).map(|at| (at % 253) as u8).collect();
        let mut whole = ChunkHasher::new(bytes.len() as u64, 0);
        let values: Vec<_> = bytes
            .chunks(CHUNK)
            .map(|chunk| whole.update(chunk))
            .collect();
        for (index, value) in values.iter().enumerate() {
            let offset = index * CHUNK;
            let mut part = ChunkHasher::new(bytes.len() as u64, offset as u64);
            let end = bytes.len().min(offset + CHUNK);
            assert!(value.is_some());
            assert_eq!(&part.update(&bytes[offset..end]), value, "{index}");
        }
    }
}
