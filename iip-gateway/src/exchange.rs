//! A request that has passed the checks, with the client that it is from.

use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::http::request::Parts;

use crate::request::{self, Checked};
use crate::trace::Trace;

/// The client of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) is_trusted: bool,
    pub(crate) is_tls: bool,
}

/// A request that has passed the checks.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) checked: Checked,
    pub(crate) parts: Parts,
    pub(crate) body: Incoming,
    pub(crate) trace: &'a Trace,
}

impl Exchange<'_> {
    /// Removes headers that are not for backends, and adds those that identify the client.
    pub(crate) fn clean_headers(&mut self, adds_forwarded: bool) {
        let (peer, headers) = (self.peer, &mut self.parts.headers);
        request::remove_hop_by_hop(headers, peer.is_trusted);
        if adds_forwarded {
            let client = peer.addr.map(|addr| addr.ip());
            request::add_forwarded(headers, client, peer.is_tls, &self.checked.host);
        }
    }
}
