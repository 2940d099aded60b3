//! Compressed messages, written independently of the code under test.

use iip_rpc::codec::CodecId;

use super::calls;

/// A number as a variable-length integer: seven bits a byte, the lowest first.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The bytes of a peer that claims that its compressed bytes become `size`.
pub(crate) fn claimed(size: u64, compressed: &[u8]) -> Vec<u8> {
    [&varint(size), compressed].concat()
}

/// The bytes in a zstd frame.
pub(crate) fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    zstd_safe::compress(&mut out, plain, 3).expect("a buffer that is large enough");
    out
}

/// The bytes in an lz4 block.
pub(crate) fn lz4(plain: &[u8]) -> Vec<u8> {
    lz4_flex::block::compress(plain)
}

/// A request in the envelope whose arguments are compressed in the way that has this id.
pub(crate) fn request(id: u8, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::from(calls::request(CodecId::BINCODE, None, body));
    request[1] |= id << 6;
    request
}
