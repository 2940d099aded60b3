//! A buffer for compressed bytes, whose length is not known before they are written.

use std::cell::Cell;

/// Maximum memory, in bytes, that a thread keeps for compression, and maximum size of a message for
/// which it is kept.
pub(super) const KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(super) fn with<R>(len: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut space = SCRATCH.take();
    if space.len() < len {
        space = vec![0; len];
    }
    let result = work(&mut space);
    if space.len() <= KEPT_BYTES {
        SCRATCH.set(space);
    }
    result
}
