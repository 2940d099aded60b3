//! Stack usage of decoding.

/// Maximum stack, in bytes, that decoding may use: half of the stack of a thread of a tokio
/// runtime. A level of a small type takes a few hundred bytes, but a level of a type with large
/// arrays in it can take any number.
pub(super) const MAX_STACK_BYTES: usize = 1024 * 1024;

/// Returns the caller's position on the stack, to within about a frame.
#[inline(always)]
pub(super) fn stack_position() -> usize {
    let here = 0u8;
    std::hint::black_box(&raw const here).addr()
}
