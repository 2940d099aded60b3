//! Detection of the protocol that a client speaks from its first bytes, so that one port can carry
//! IIP, TLS and HTTP. Pure.
//!
//! This works because the client speaks first in each of them.
//! [`read_first`](crate::transport::read_first) reads the bytes.

/// The number of bytes that [`detect`] needs at most.
pub const MAX_BYTES: usize = HTTP2_PREFACE.len();

/// The first bytes that a client of HTTP/2 sends. Source: RFC 9113, 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A protocol, detected by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Protocol {
    /// The first byte is a frame status of IIP.
    Iip,
    /// The first byte is that of a TLS handshake; another protocol follows inside.
    Tls,
    /// The first byte is a capital letter, as in a request line.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// None of them.
    Unknown,
}

/// Returns the protocol that begins with `first`, or `None` if more bytes are needed: for no bytes,
/// and for a part of the preface of HTTP/2.
///
/// ```
/// use iip_core::sniff::{Protocol, detect};
///
/// assert_eq!(detect(b""), None);
/// assert_eq!(detect(b"G"), Some(Protocol::Http1));
/// assert_eq!(detect(b"PRI * HTTP/"), None);
/// assert_eq!(detect(b"\x16\x03\x01"), Some(Protocol::Tls));
/// ```
#[must_use]
pub fn detect(first: &[u8]) -> Option<Protocol> {
    let protocol = match first {
        [] => return None,
        [0..=8, ..] => Protocol::Iip,
        [0x16, ..] => Protocol::Tls,
        _ if first.starts_with(HTTP2_PREFACE) => Protocol::Http2,
        _ if HTTP2_PREFACE.starts_with(first) => return None,
        [b'A'..=b'Z', ..] => Protocol::Http1,
        _ => Protocol::Unknown,
    };
    Some(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        for (first, protocol) in [
            (&b"\x01/sys/hello\0"[..], Protocol::Iip),
            (b"\x08", Protocol::Iip),
            (b"\x09", Protocol::Unknown),
            (b"\x16\x03\x01\x02\x00", Protocol::Tls),
            (b"GET / HTTP/1.1\r\n", Protocol::Http1),
            (b"PUT / HTTP/1.1\r\n", Protocol::Http1),
            (b"PRI / HTTP/1.1\r\n", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Protocol::Http2),
            (b"get / HTTP/1.1\r\n", Protocol::Unknown),
            (b"\r\nGET / HTTP/1.1\r\n", Protocol::Unknown),
        ] {
            assert_eq!(detect(first), Some(protocol), "{}", first.escape_ascii());
        }
    }

    #[test]
    fn a_part_of_the_preface_is_undecided() {
        for length in 0..MAX_BYTES {
            assert_eq!(detect(&HTTP2_PREFACE[..length]), None, "{length}");
        }
        assert_eq!(detect(HTTP2_PREFACE), Some(Protocol::Http2));
    }
}
