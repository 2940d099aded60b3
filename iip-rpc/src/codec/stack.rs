//! How much stack reading takes.

/// How much stack reading may take: half of what a thread of a tokio runtime has. A level of a
/// small type takes a few hundred bytes, but that of a type with large arrays in it any number.
pub(super) const MAX_STACK_BYTES: usize = 1024 * 1024;

/// Where on the stack the caller is, give or take a frame.
#[inline(always)]
pub(super) fn stack_position() -> usize {
    let here = 0u8;
    std::hint::black_box(&raw const here).addr()
}
