//! The header of the PROXY protocol, version 2. Pure. Source: "The PROXY protocol, versions 1 & 2",
//! section 2.2, of HAProxy.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of every header.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Length of the part that every header has: the signature, command, family and length.
pub(super) const FIXED_BYTES: usize = 16;

/// Maximum length of the rest: the addresses, of up to 216 bytes, and further fields (TLVs), which
/// are skipped. A certificate of the client's fits.
pub(super) const MAX_REST_BYTES: usize = 4096;

/// Length of the longest addresses that are read, those of IPv6.
pub(super) const ADDRESS_BYTES: usize = 36;

/// The reason why a connection from a listed network is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error(
        "the PROXY protocol is expected from this address (option proxy_protocol), but the \
         connection does not begin with its header: configure the proxy to send version 2"
    )]
    NoHeader,
    #[error(
        "the PROXY protocol of version 1 is not supported: configure the proxy to send version 2"
    )]
    Version1,
    #[error("the PROXY protocol has an unknown version or command: {0:#04x}")]
    Command(u8),
    #[error("the PROXY protocol has an unknown address family or transport: {0:#04x}")]
    Family(u8),
    #[error("the header of the PROXY protocol has {0} bytes, the maximum is {MAX_REST_BYTES}")]
    TooLong(usize),
    #[error("the header of the PROXY protocol has {0} bytes, which is too short for its addresses")]
    TooShort(usize),
    #[error("the connection ended before the header of the PROXY protocol")]
    Closed,
    #[error("the header of the PROXY protocol did not arrive in time")]
    Late,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl HeaderError {
    /// Returns `true` if the peer has sent something that is not a header, rather than nothing.
    pub(crate) fn is_violation(&self) -> bool {
        !matches!(self, Self::Closed | Self::Late | Self::Io(_))
    }
}

/// The variable part of a header, which follows the fixed part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rest {
    pub(super) length: usize,
    addresses: Addresses,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Addresses {
    /// The connection is the proxy's own, or the proxy does not know an IP address of its client.
    None,
    V4,
    V6,
}

/// Checks the beginning of a header, so that a peer that speaks something else is noticed before it
/// has sent a whole header.
pub(super) fn check_start(start: &[u8]) -> Result<(), HeaderError> {
    const VERSION_1: &[u8] = b"PROXY ";
    let length = start.len().min(SIGNATURE.len());
    if start[..length] == SIGNATURE[..length] {
        return Ok(());
    }
    Err(match start.starts_with(VERSION_1) {
        true => HeaderError::Version1,
        // It may still become a header of version 1, which has an error of its own.
        false if VERSION_1.starts_with(start) => return Ok(()),
        false => HeaderError::NoHeader,
    })
}

/// Reads the fixed part of a header.
pub(super) fn parse_fixed(fixed: [u8; FIXED_BYTES]) -> Result<Rest, HeaderError> {
    check_start(&fixed)?;
    let [.., command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST_BYTES {
        return Err(HeaderError::TooLong(length));
    }
    let addresses = match (command, family) {
        // LOCAL: a check of the proxy's; the rest is to be ignored.
        (0x20, _) => Addresses::None,
        (0x21, 0x11) => Addresses::V4,
        (0x21, 0x21) => Addresses::V6,
        // A client of the proxy on a Unix socket, or of unknown address.
        (0x21, 0x00 | 0x31) => Addresses::None,
        (0x21, other) => return Err(HeaderError::Family(other)),
        (other, _) => return Err(HeaderError::Command(other)),
    };
    let rest = Rest { length, addresses };
    if length < rest.address_bytes() {
        return Err(HeaderError::TooShort(length));
    }
    Ok(rest)
}

impl Rest {
    /// Returns the number of bytes of the addresses that are read.
    pub(super) fn address_bytes(self) -> usize {
        match self.addresses {
            Addresses::None => 0,
            Addresses::V4 => 12,
            Addresses::V6 => ADDRESS_BYTES,
        }
    }

    /// Reads the address of the client from the addresses; `None` if the header has none.
    pub(super) fn source(self, bytes: &[u8]) -> Option<SocketAddr> {
        // Source address, destination address, source port, destination port.
        match self.addresses {
            Addresses::None => None,
            Addresses::V4 => {
                let addr: [u8; 4] = *bytes.first_chunk()?;
                let port: [u8; 2] = *bytes.get(8..)?.first_chunk()?;
                let addr = Ipv4Addr::from(addr);
                Some((addr, u16::from_be_bytes(port)).into())
            }
            Addresses::V6 => {
                let addr: [u8; 16] = *bytes.first_chunk()?;
                let port: [u8; 2] = *bytes.get(32..)?.first_chunk()?;
                let addr = Ipv6Addr::from(addr);
                Some((addr, u16::from_be_bytes(port)).into())
            }
        }
    }
}
