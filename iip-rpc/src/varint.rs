//! Numbers of variable length, in envelopes and before compressed bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Maximum number of bytes of a 64-bit number, at seven bits each.
pub(crate) const MAX_LEN: usize = 10;

/// The bytes of a number in LEB128: seven bits each, the lowest first, all but the last with the
/// high bit set.
#[inline]
fn encoded(mut value: u64) -> impl Iterator<Item = u8> {
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let low = value as u8 & 0x7f;
        value >>= 7;
        done = value == 0;
        Some(if done { low } else { low | 0x80 })
    })
}

/// Appends `value` to `out`.
pub(crate) fn write(value: u64, out: &mut BytesMut) {
    for byte in encoded(value) {
        out.put_u8(byte);
    }
}

/// The number of bytes of an encoded number.
pub(crate) fn len(value: u64) -> usize {
    encoded(value).count()
}

/// The reason why a number cannot be read, with the part of the message that contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VarintError {
    #[error("the message ends within {part}")]
    Truncated { part: &'static str },
    #[error("the number in {part} has more than 64 bits")]
    TooLarge { part: &'static str },
    #[error("the number in {part} is not in its shortest form")]
    NotShortest { part: &'static str },
}

/// Takes the number at the beginning of `message`.
#[inline]
pub(crate) fn read(message: &mut Bytes, part: &'static str) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for (at, &byte) in message.iter().enumerate().take(MAX_LEN) {
        let bits = u64::from(byte & 0x7f);
        if at == MAX_LEN - 1 && byte > 1 {
            return Err(VarintError::TooLarge { part });
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err(VarintError::NotShortest { part });
            }
            message.advance(at + 1);
            return Ok(value);
        }
    }
    Err(VarintError::Truncated { part })
}
