//! Where messages are encoded: one buffer per thread, used again and again, so that a small message
//! costs no allocation.

use std::cell::RefCell;

use bytes::BytesMut;

/// A buffer that has grown beyond this is not kept.
pub(crate) const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Gives `work` the thread's buffer, empty.
///
/// User code may run in `work`, and may come back here: it then gets a buffer of its own.
#[inline]
pub(crate) fn with<T>(work: impl FnOnce(&mut BytesMut) -> T) -> T {
    let mut buffer = SCRATCH.with(RefCell::take);
    buffer.clear();
    let result = work(&mut buffer);
    if buffer.capacity() <= KEPT_BYTES {
        SCRATCH.with(|scratch| drop(scratch.replace(buffer)));
    }
    result
}
