//! Connections of a server to itself, in memory, for handlers of other protocols.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Inner;
use super::accept::ConnectionGuard;
use crate::clock;
use crate::connection::Peer;
use crate::stats::Snapshot;
use crate::transport::{ConnectFuture, Connected, Connector, IoStream, pipe};

/// A handle to a running server, for the code that serves its connections. Cheap to clone.
#[derive(Clone)]
pub struct ServerHandle(Arc<Inner>);

impl ServerHandle {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        Self(Arc::clone(inner))
    }

    /// Returns `true` if the server should get calls, see
    /// [`Server::is_ready`](crate::Server::is_ready).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Returns what the server has counted, see [`Server::stats`](crate::Server::stats).
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        self.0.stats()
    }

    /// Returns the value of
    /// [`ServerBuilder::extension`](crate::ServerBuilder::extension), if it has this type.
    #[doc(hidden)]
    #[must_use]
    pub fn extension<T: Any>(&self) -> Option<&T> {
        self.0.extension.as_ref()?.downcast_ref()
    }

    /// Returns a connector to the server itself, in memory, on behalf of `peer`: its calls have the
    /// address and the certificates of `peer`, and all limits for calls apply to them. The
    /// connections do not count towards
    /// [`max_connections`](crate::ServerBuilder::max_connections), because that of `peer` does.
    ///
    /// A server that shuts down refuses further connections, and waits for those that exist like
    /// for others.
    #[must_use]
    pub fn connector(&self, peer: &Peer) -> impl Connector + Clone + use<> {
        Local {
            server: self.clone(),
            addr: peer.addr(),
            certificates: peer.certificates().into(),
        }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").finish_non_exhaustive()
    }
}

/// Connects to a server in its own process.
#[derive(Clone, Debug)]
struct Local {
    server: ServerHandle,
    addr: Option<SocketAddr>,
    certificates: Arc<[Vec<u8>]>,
}

impl Connector for Local {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async {
            let (near, far) = pipe();
            self.server.0.accept_local(Connected {
                io: IoStream::from(far),
                addr: self.addr,
                certificates: self.certificates.to_vec(),
            })?;
            Ok(Connected::new(near))
        })
    }

    fn describe(&self) -> String {
        "this server".to_owned()
    }
}

impl Inner {
    /// Serves a connection of this process, unless the server shuts down.
    fn accept_local(self: &Arc<Self>, connected: Connected) -> io::Result<()> {
        if *self.leaving.borrow() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "the server shuts down",
            ));
        }
        let place = self.lock().admit_local(clock::now());
        let guard = ConnectionGuard {
            inner: Arc::clone(self),
            place,
        };
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let guard = guard;
            // The connection of the peer has its own maximum age.
            inner.driver(connected, &[], guard.place.key, None).await;
        });
        self.lock().set_task(place, task.abort_handle());
        Ok(())
    }
}
