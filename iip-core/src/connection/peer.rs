//! The other end of a connection.

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::logs::Logs;
use crate::shutdown;
use crate::stats::{RecentCall, RecentCalls};

/// The peer of a connection.
#[derive(Debug)]
pub struct Peer {
    addr: Option<SocketAddr>,
    certificates: Vec<Vec<u8>>,
    hello: OnceLock<Option<Bytes>>,
    extension: OnceLock<Box<dyn Any + Send + Sync>>,
    server: Option<OfServer>,
    /// The list of the calls of the server that failed or were slow.
    recent: Option<Arc<RecentCalls>>,
    /// Set once the connection has ended, and then notified.
    closed: (AtomicBool, Notify),
}

/// The state shared by all peers of a server.
#[derive(Debug)]
struct OfServer {
    /// Set to `true` when the server begins to shut down.
    shutdown: watch::Receiver<bool>,
    logs: Arc<Logs>,
}

impl Peer {
    pub(crate) fn new(addr: Option<SocketAddr>, certificates: Vec<Vec<u8>>) -> Self {
        Self {
            addr,
            certificates,
            hello: OnceLock::new(),
            extension: OnceLock::new(),
            server: None,
            recent: None,
            closed: Default::default(),
        }
    }

    /// Marks the peer as that of a server.
    pub(crate) fn of_server(mut self, shutdown: watch::Receiver<bool>, logs: Arc<Logs>) -> Self {
        self.server = Some(OfServer { shutdown, logs });
        self
    }

    /// Sets where the server remembers calls of this peer.
    pub(crate) fn remembered_in(mut self, recent: &Arc<RecentCalls>) -> Self {
        self.recent = Some(Arc::clone(recent));
        self
    }

    /// Remembers a call of this peer that failed or was slow. On a client, nothing happens.
    #[doc(hidden)]
    #[cold]
    pub fn record_call(&self, mut call: RecentCall) {
        if let Some(recent) = &self.recent {
            call.peer = self.addr.map(|addr| addr.to_string());
            recent.add(call);
        }
    }

    /// Returns the address of the peer; `None` on Unix sockets and in memory.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Returns the verified certificates that the peer presented, DER, its own first; empty without
    /// TLS or client certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// Returns the description that the peer sent in `/sys/hello`, a JSON object of at most 16 KiB;
    /// `None` if it sent none, like Go peers.
    #[must_use]
    pub fn hello(&self) -> Option<&[u8]> {
        self.hello.get().and_then(Option::as_deref)
    }

    /// Returns a value that a higher layer has derived from this peer, made by `init` on the first
    /// call; on a client, that is after the hello exchange. There is room for only one type of
    /// value: another type gets `None`.
    #[doc(hidden)]
    pub fn extension<T: Any + Send + Sync>(&self, init: impl FnOnce(&Self) -> T) -> Option<&T> {
        self.extension
            .get_or_init(|| Box::new(init(self)))
            .downcast_ref()
    }

    /// Returns `true` if the server that handles this peer's calls has begun to [shut
    /// down](crate::Server::shutdown). Always `false` on a client.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        let server = self.server.as_ref();
        server.is_some_and(|server| *server.shutdown.borrow())
    }

    /// Waits until the server that handles this peer's calls begins to [shut
    /// down](crate::Server::shutdown), so that a long-running handler can end in time. On a client
    /// it never completes.
    ///
    /// The future borrows nothing: it can be moved into a stream or a task.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub fn shutting_down(&self) -> impl Future<Output = ()> + Send + use<> {
        let server = self.server.as_ref();
        shutdown::begun(server.map(|server| server.shutdown.clone()))
    }

    /// Waits until the connection to this peer has ended, for example to end what was begun for it
    /// in calls before.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn closed(&self) {
        let (closed, notify) = &self.closed;
        let mut notified = std::pin::pin!(notify.notified());
        // Registered before the state is looked at, so that an end in between is not missed.
        notified.as_mut().enable();
        if !closed.load(Ordering::Acquire) {
            notified.await;
        }
    }

    pub(crate) fn set_closed(&self) {
        let (closed, notify) = &self.closed;
        closed.store(true, Ordering::Release);
        notify.notify_waiters();
    }

    /// Logs the failure of a handler that replied to a call of this peer to `path`, with its
    /// causes, within the limits of
    /// [`ServerBuilder::log_failures`](crate::ServerBuilder::log_failures) and
    /// [`max_log_lines`](crate::ServerBuilder::max_log_lines). It is for higher layers, whose
    /// handlers reply even when they fail. A failure that is not the server's fault has level
    /// DEBUG. On a client, nothing is logged.
    pub fn log_failure(&self, path: &str, failure: &dyn Error, is_fault: bool) {
        if let Some(server) = &self.server {
            server.logs.failure(self.addr, path, failure, is_fault);
        }
    }

    /// Returns the description that the peer sent in `/sys/hello`, without copying it.
    pub(crate) fn shared_hello(&self) -> Option<Bytes> {
        self.hello.get().and_then(Option::as_ref).cloned()
    }

    pub(crate) fn logs(&self) -> Option<&Logs> {
        self.server.as_ref().map(|server| &*server.logs)
    }

    pub(crate) fn set_hello(&self, hello: Option<Bytes>) {
        // If a peer says hello twice, the first hello counts.
        let _ = self.hello.set(hello);
    }
}
