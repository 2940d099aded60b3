//! lz4 in its block format, in Rust without `unsafe`.

use lz4_flex::block;

/// A byte of a block says at most so many bytes of what it decompresses to.
const MAX_RATIO: usize = 255;

pub(super) fn max_compressed(size: usize) -> usize {
    block::get_maximum_output_size(size)
}

/// Writes one block to `out`, and returns its length.
pub(super) fn compress(input: &[u8], out: &mut [u8]) -> Option<usize> {
    block::compress_into(input, out).ok()
}

/// What one block decompresses to, if that is at most `size` bytes.
pub(super) fn decompress(input: &[u8], size: usize) -> Result<Vec<u8>, String> {
    if size > input.len().saturating_mul(MAX_RATIO) {
        return Err(format!(
            "{size} bytes are announced, more than can be in {}",
            input.len()
        ));
    }
    // Always into new memory: a damaged block may show what was in it before.
    block::decompress(input, size).map_err(|error| error.to_string())
}
