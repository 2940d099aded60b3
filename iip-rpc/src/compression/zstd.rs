//! zstd, by its C library.

use std::cell::Cell;

use zstd_safe::{
    CCtx, CParameter, DCtx, compress_bound, find_frame_compressed_size, get_error_name,
};

use super::scratch::KEPT_BYTES;

/// Maximum size, in bytes, of a context that is kept: high levels take many times the memory of the
/// low ones.
const KEPT_CONTEXT_BYTES: usize = 2 * 1024 * 1024;

thread_local! {
    /// Memory for compression and decompression, in addition to input and output; creating it anew
    /// would cost more than a small message.
    static COMPRESSOR: Cell<Option<CCtx<'static>>> = const { Cell::new(None) };
    static DECOMPRESSOR: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

pub(super) fn max_compressed(size: usize) -> usize {
    compress_bound(size)
}

/// Writes one frame to `out`, and returns its length.
pub(super) fn compress(input: &[u8], level: i32, out: &mut [u8]) -> Option<usize> {
    let kept = input.len() <= KEPT_BYTES;
    let before = if kept { COMPRESSOR.take() } else { None };
    let mut context = before.or_else(CCtx::try_create)?;
    context
        .set_parameter(CParameter::CompressionLevel(level))
        .ok()?;
    let written = context.compress2(out, input).ok()?;
    if kept && context.sizeof() <= KEPT_CONTEXT_BYTES {
        // A context that has compressed a large message takes megabytes, and is not kept.
        COMPRESSOR.set(Some(context));
    }
    Some(written)
}

/// Returns the decompressed bytes of one frame, if these are at most `size`. This is done in one
/// step: regardless of the window that the frame requests, memory is allocated only for the output.
pub(super) fn decompress(input: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let text = |code| get_error_name(code).to_owned();
    // The library would decompress several frames one after the other, but a message is one.
    let frame = find_frame_compressed_size(input).map_err(text)?;
    if frame != input.len() {
        let left = input.len().saturating_sub(frame);
        return Err(format!("{left} bytes follow after the end of the frame"));
    }
    let mut context = DECOMPRESSOR
        .take()
        .or_else(DCtx::try_create)
        .ok_or("no memory")?;
    let mut out = Vec::with_capacity(size);
    let outcome = context.decompress(&mut out, input);
    DECOMPRESSOR.set(Some(context));
    outcome.map_err(text)?;
    Ok(out)
}
