//! Where messages are encoded: one buffer per thread, cut off message by message, so that a small one costs no allocation.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use iip_core::Body;

/// The buffer's size. Small messages share it while they are under way.
const SCRATCH_BYTES: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Gives `encode` the buffer and takes what it wrote, with the large tail it may return.
///
/// User code may run in `encode`, and may come back here: it then gets a buffer of its own.
pub(crate) fn encode<E>(
    encode: impl FnOnce(&mut BytesMut) -> Result<Option<Bytes>, E>,
) -> Result<Body, E> {
    let mut buffer = SCRATCH.with(RefCell::take);
    buffer.clear();
    if buffer.capacity() < 256 {
        buffer.reserve(SCRATCH_BYTES);
    }
    let result = encode(&mut buffer);
    let head = buffer.split().freeze();
    SCRATCH.with(|scratch| drop(scratch.replace(buffer)));
    result.map(|tail| Body::split(head, tail.unwrap_or_default()))
}
