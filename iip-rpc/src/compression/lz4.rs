//! lz4 in its block format, in Rust without `unsafe`.

use lz4_flex::block;

/// Maximum number of bytes that one byte of a block decompresses to.
const MAX_RATIO: usize = 255;

pub(super) fn max_compressed(size: usize) -> usize {
    block::get_maximum_output_size(size)
}

/// Writes one block to `out`, and returns its length.
pub(super) fn compress(input: &[u8], out: &mut [u8]) -> Option<usize> {
    block::compress_into(input, out).ok()
}

/// Returns the decompressed bytes of one block, if these are at most `size`.
pub(super) fn decompress(input: &[u8], size: usize) -> Result<Vec<u8>, String> {
    if size > input.len().saturating_mul(MAX_RATIO) {
        return Err(format!(
            "{size} bytes are announced, more than can be in {}",
            input.len()
        ));
    }
    // The output is always new memory: a damaged block could expose its previous contents.
    block::decompress(input, size).map_err(|error| error.to_string())
}
