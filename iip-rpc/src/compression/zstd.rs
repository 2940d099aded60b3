//! zstd, by its C library.

use std::cell::Cell;

use zstd_safe::{
    CCtx, CParameter, DCtx, compress_bound, find_frame_compressed_size, get_error_name,
};

use super::compressor::KEPT_BYTES;

/// A context that has grown beyond this is not kept: high levels take many times what the low ones
/// do.
const KEPT_CONTEXT_BYTES: usize = 2 * 1024 * 1024;

thread_local! {
    /// What compressing and decompressing take beside input and output; made anew it would cost
    /// more than a small message.
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
        // With a large message it takes megabytes.
        COMPRESSOR.set(Some(context));
    }
    Some(written)
}

/// What one frame decompresses to, if that is at most `size` bytes. It is done in one go: whatever
/// window the frame asks for, no memory is taken but for the output.
pub(super) fn decompress(input: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let text = |code| get_error_name(code).to_owned();
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
