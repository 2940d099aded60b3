//! The buffer into which messages are encoded: one per thread, which is reused so that a small
//! message costs no allocation.

use std::cell::RefCell;

use bytes::BytesMut;

/// Maximum capacity of a buffer that is kept.
pub(crate) const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Runs `work` with the thread's buffer, which is empty.
///
/// User code may run in `work`, and may call this function again: it then gets another buffer.
#[inline]
pub(crate) fn with<T>(work: impl FnOnce(&mut BytesMut) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.clear();
            let result = work(&mut buffer);
            if buffer.capacity() > KEPT_BYTES {
                *buffer = BytesMut::new();
            }
            result
        }
        Err(_) => work(&mut BytesMut::new()),
    })
}
