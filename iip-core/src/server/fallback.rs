//! Connections of other protocols on the port of a server: their detection, TLS before it, and the
//! handler that serves them.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::table::Stage;
use super::{Inner, ServerHandle};
use crate::connection::Peer;
use crate::foreign;
use crate::shutdown;
use crate::sniff::Protocol;
use crate::transport::{Connected, IoStream, read_first};

/// A handler of connections of other protocols than IIP, for
/// [`ServerBuilder::fallback_protocol`](crate::ServerBuilder::fallback_protocol).
///
/// ```
/// use std::pin::Pin;
/// use iip_core::sniff::Protocol;
/// use iip_core::{ProtocolConnection, ProtocolHandler, Server};
/// use tokio::io::AsyncWriteExt;
///
/// /// Replies to whoever speaks HTTP/1.1 that this is no server of HTTP.
/// #[derive(Debug)]
/// struct NoHttp;
///
/// impl ProtocolHandler for NoHttp {
///     fn accepts(&self, protocol: Protocol) -> bool {
///         protocol == Protocol::Http1
///     }
///
///     fn serve(
///         &self,
///         mut connection: ProtocolConnection,
///     ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
///         Box::pin(async move {
///             let _ = connection.io.write_all(b"HTTP/1.1 501 Not Implemented\r\n\r\n").await;
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let server = Server::builder().fallback_protocol(NoHttp).bind("127.0.0.1:0").await?;
/// # server.shutdown(std::time::Duration::ZERO).await;
/// # Ok(())
/// # }
/// ```
pub trait ProtocolHandler: Send + Sync + fmt::Debug + 'static {
    /// Returns `true` if the handler serves connections of this protocol. It is not asked for
    /// [`Iip`](Protocol::Iip) and [`Tls`](Protocol::Tls), nor for peers that seem to speak another
    /// known protocol.
    fn accepts(&self, protocol: Protocol) -> bool;

    /// Serves a connection until it ends, in the task of the connection.
    ///
    /// The connection counts towards the limits of the server, but its time limits are those of the
    /// handler. It should end soon after [`ProtocolConnection::drain`] has begun. The future is
    /// dropped when the time of a [shutdown](crate::Server::shutdown), or the [grace
    /// period](crate::ServerBuilder::max_connection_grace) of a connection that has reached its
    /// maximum age, is over.
    fn serve(&self, connection: ProtocolConnection) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Returns the protocols that are offered in handshakes of TLS (ALPN) unless
    /// [`ServerTls::alpn`](crate::tls::ServerTls::alpn) was set, the preferred one first. Default:
    /// none.
    fn alpn(&self) -> &'static [&'static str] {
        &[]
    }

    /// Checks the configuration of the handler when the server starts. Default: it is valid.
    ///
    /// # Errors
    ///
    /// With an error the server does not start.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection of another protocol than IIP.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProtocolConnection {
    /// The byte stream, after TLS.
    pub io: IoStream,
    /// The bytes that were read from the stream before, at least one.
    pub first: Bytes,
    /// The protocol that begins with these bytes.
    pub protocol: Protocol,
    /// The peer: its address and its certificates.
    pub peer: Arc<Peer>,
    /// The connection uses TLS.
    pub is_encrypted: bool,
    /// Tells when the connection should end.
    pub drain: DrainSignal,
    /// The server that has accepted the connection.
    pub server: ServerHandle,
}

/// The signal that a connection should end once its requests have their replies: the server [shuts
/// down](crate::Server::shutdown), or the connection has reached its [maximum
/// age](crate::ServerBuilder::max_connection_age).
#[derive(Clone, Debug)]
pub struct DrainSignal(watch::Receiver<bool>);

impl DrainSignal {
    /// Returns `true` if the connection should end.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the connection should end.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn begun(&mut self) {
        shutdown::begun(Some(self.0.clone())).await;
    }
}

/// A connection whose protocol is known.
pub(super) enum Detected {
    /// IIP, or a protocol that is not served, with the bytes that were read.
    Iip(Connected, Bytes),
    Other(OtherConnection),
}

/// A connection that the handler of other protocols serves.
pub(super) struct OtherConnection {
    connected: Connected,
    first: Bytes,
    protocol: Protocol,
    is_encrypted: bool,
    handler: Arc<dyn ProtocolHandler>,
}

impl Inner {
    /// Returns `true` if every connection is IIP without TLS, so that nothing has to be detected.
    pub(super) fn is_plain_iip(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return false;
        }
        self.fallback_protocol.is_none()
    }

    /// Performs the handshake of TLS, if there is one, and finds out the protocol. `None` if the
    /// connection must be closed.
    pub(super) async fn detect(&self, connected: Connected) -> Option<Detected> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return self.detect_with_tls(connected).await;
        }
        self.detect_protocol(connected, false).await
    }

    /// Performs the handshake of TLS, unless the connection may begin with another protocol and
    /// does, and finds out the protocol.
    #[cfg(feature = "tls")]
    async fn detect_with_tls(&self, mut connected: Connected) -> Option<Detected> {
        let mut hello = Bytes::new();
        if self.also_plain {
            let (protocol, first) = self.first_bytes(&mut connected).await?;
            if protocol != Protocol::Tls {
                return Some(self.detected(connected, protocol, first, false));
            }
            hello = first;
        }
        let connected = self.encrypted(connected, hello).await?;
        self.detect_protocol(connected, true).await
    }

    /// Finds out the protocol of a stream from its first bytes. They are not read if it can only be
    /// IIP.
    async fn detect_protocol(
        &self,
        mut connected: Connected,
        is_encrypted: bool,
    ) -> Option<Detected> {
        if self.fallback_protocol.is_none() {
            return Some(Detected::Iip(connected, Bytes::new()));
        }
        let (protocol, first) = self.first_bytes(&mut connected).await?;
        Some(self.detected(connected, protocol, first, is_encrypted))
    }

    /// Returns a connection whose first bytes were read, with its handler if it has one.
    fn detected(
        &self,
        connected: Connected,
        protocol: Protocol,
        first: Bytes,
        is_encrypted: bool,
    ) -> Detected {
        let handler = self.fallback_protocol.as_ref().filter(|handler| {
            !matches!(protocol, Protocol::Iip | Protocol::Tls)
                && !foreign::is_known_but_not_http(&first)
                && handler.accepts(protocol)
        });
        match handler {
            None => Detected::Iip(connected, first),
            Some(handler) => Detected::Other(OtherConnection {
                handler: Arc::clone(handler),
                connected,
                first,
                protocol,
                is_encrypted,
            }),
        }
    }

    async fn first_bytes(&self, connected: &mut Connected) -> Option<(Protocol, Bytes)> {
        let limit = self.limits.get_frame_head_timeout();
        let reading = read_first(&mut connected.io, Bytes::new());
        let addr = connected.addr;
        match tokio::time::timeout(limit, reading).await {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => tracing::debug!(?addr, %error, "connection closed"),
            Err(_) => tracing::debug!(
                ?addr,
                ?limit,
                "connection closed: its first byte did not arrive in time (option \
                 frame_head_timeout)"
            ),
        }
        None
    }

    /// Performs the handshake of TLS on a stream of which `first` was read before.
    #[cfg(feature = "tls")]
    async fn encrypted(&self, connected: Connected, first: Bytes) -> Option<Connected> {
        let tls = self.tls.as_ref()?;
        let Connected { io, addr, .. } = connected;
        let io = if first.is_empty() {
            io
        } else {
            io.rewound(first)
        };
        match tls.accept_from(io, addr).await {
            Ok((io, certificates)) => Some(Connected {
                io,
                addr,
                certificates,
            }),
            Err(error) => {
                tracing::debug!(?addr, %error, "tls handshake failed");
                None
            }
        }
    }

    /// Serves a connection of another protocol until it ends. `key` is that of its place.
    pub(super) async fn serve_other(self: &Arc<Self>, other: OtherConnection, key: usize) {
        if let Some(entry) = self.lock().connections.get_mut(key) {
            entry.stage = Stage::Other;
        }
        self.on_spoken(key);
        let Connected {
            io,
            addr,
            certificates,
        } = other.connected;
        let peer = Peer::new(addr, certificates);
        let leaving = self.leaving.subscribe();
        let peer = peer.of_server(leaving.clone(), Arc::clone(&self.logs));
        let (drain, signal) = watch::channel(false);
        let serving = other.handler.serve(ProtocolConnection {
            io,
            first: other.first,
            protocol: other.protocol,
            peer: Arc::new(peer),
            is_encrypted: other.is_encrypted,
            drain: DrainSignal(signal),
            server: ServerHandle::new(self),
        });
        let is_over = async {
            let (drain_at, end_at) = self.ends().unzip();
            tokio::select! {
                () = shutdown::begun(Some(leaving)) => {}
                () = at(drain_at) => {}
            }
            drain.send_replace(true);
            at(end_at).await;
        };
        tokio::select! {
            () = serving => {}
            () = pin!(is_over) => tracing::debug!(
                ?addr,
                "connection closed: it had reached its maximum age (option max_connection_grace)"
            ),
        }
    }
}

/// Waits until a point in time; without one, for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
