//! The client of a request, for checks.

use std::net::SocketAddr;

use hyper::HeaderMap;

/// The client of a request, for checks such as [`Http::metrics_if`](crate::Http::metrics_if).
#[derive(Clone, Copy, Debug)]
pub struct HttpPeer<'a> {
    peer: &'a iip_core::Peer,
    is_encrypted: bool,
    headers: &'a HeaderMap,
}

impl<'a> HttpPeer<'a> {
    pub(super) fn new(
        peer: &'a iip_core::Peer,
        is_encrypted: bool,
        headers: &'a HeaderMap,
    ) -> Self {
        Self {
            peer,
            is_encrypted,
            headers,
        }
    }

    /// Returns the address of the client, or that of the last HTTP proxy before it; `None` on Unix
    /// sockets and in memory.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.peer.addr()
    }

    /// Returns the verified certificates of the client, DER, its own first; empty without TLS or
    /// client certificates.
    #[must_use]
    pub fn certificates(&self) -> &'a [Vec<u8>] {
        self.peer.certificates()
    }

    /// Returns `true` if the connection uses TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Returns the first value of a header of the request, such as `authorization`; `None` if it is
    /// missing or has characters other than visible ASCII. The case of names is ignored.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }
}
