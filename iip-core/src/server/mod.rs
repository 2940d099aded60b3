//! The server: listens, accepts within its limits, creates a driver for every connection, and shuts
//! down gracefully.

mod accept;
mod builder;
mod fallback;
#[cfg(all(unix, feature = "inherit"))]
mod handover;
mod local;
mod observed;
mod registration;
mod remote_drain;
mod service_manager;
mod shutdown;
mod start;
mod statistics;
mod table;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

pub use self::builder::ServerBuilder;
use self::builder::{OnShutdown, Readiness};
pub use self::fallback::{DrainSignal, ProtocolConnection, ProtocolHandler};
#[cfg(all(unix, feature = "inherit"))]
pub use self::handover::Handover;
pub use self::local::ServerHandle;
pub use self::observed::ServerObserver;
use self::registration::Registrations;
use self::remote_drain::RemoteDrain;
use self::statistics::Statistics;
use self::table::{Stage, Table};
use crate::connection::Shared;
use crate::limits::Limits;
use crate::logs::Logs;
use crate::serve::Routes;
#[cfg(feature = "signal")]
use crate::shutdown::ShutdownSignal;
use crate::stats::{Connections, Registry, Snapshot};
#[cfg(feature = "tls")]
use crate::tls::ServerTls;
use crate::totals::Totals;
#[cfg(all(unix, feature = "inherit"))]
use crate::transport::Passable;
use crate::transport::ProxyProtocol;

/// A running server. Dropping it does not stop it; [`shutdown`](Self::shutdown) does.
///
/// It runs on the runtime in which it was made, and ends with it: if `main` returns, the server
/// stops. A program that is only a server ends with `shutdown_on_signal` (feature `signal`),
/// [`serve_until`](Self::serve_until) or [`stopped`](Self::stopped).
///
/// ```
/// use std::time::Duration;
/// use iip_core::{Client, HandlerError, Request, Response, Server, handler_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let echo = handler_fn(|request: Request| async move {
///     Ok::<_, HandlerError>(Response::from(request.into_body()))
/// });
/// let server = Server::builder().route("/echo", echo).bind("127.0.0.1:0").await?;
/// let client = Client::connect(server.target()).await?;
/// assert_eq!(&client.request("/echo", "hello").await?[..], b"hello");
/// server.shutdown(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a server ends with its runtime: wait with `shutdown_on_signal`, `serve_until` or \
    `stopped`"]
pub struct Server {
    inner: Arc<Inner>,
    local_addr: Option<SocketAddr>,
    describe: String,
}

#[derive(Debug)]
struct Inner {
    routes: Arc<Routes>,
    stats: Arc<Registry>,
    statistics: Option<Arc<Statistics>>,
    remote_drain: Option<Arc<RemoteDrain>>,
    totals: Arc<Totals>,
    limits: Arc<Limits>,
    announce: Arc<Value>,
    max_connections: usize,
    max_connection_age: Option<Duration>,
    max_connection_grace: Duration,
    max_connections_per_peer: usize,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    also_plain: bool,
    fallback_protocol: Option<Arc<dyn ProtocolHandler>>,
    extension: Option<Box<dyn Any + Send + Sync>>,
    /// The task that accepts connections.
    accept: OnceLock<AbortHandle>,
    table: Mutex<Table>,
    proxy_protocol: Option<ProxyProtocol>,
    on_shutdown: OnShutdown,
    readiness: Readiness,
    registrations: Registrations,
    lame_duck: Duration,
    /// The first step of a shutdown was done.
    is_unready: AtomicBool,
    /// The service manager was notified that the server is ready.
    has_manager: AtomicBool,
    /// A duplicate of the listening socket, as long as the server listens.
    #[cfg(all(unix, feature = "inherit"))]
    socket: Mutex<Option<Passable>>,
    logs: Arc<Logs>,
    /// Set once the connections are drained: those that are accepted from then on are drained too.
    leaving: watch::Sender<bool>,
    /// Notified when a connection has ended.
    changed: Notify,
}

impl Server {
    /// Returns the default configuration of a server.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Returns the address the server listens on, with the port chosen by the system; `None` on
    /// Unix sockets and in memory.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// Returns the address in the form to which clients connect: `127.0.0.1:9000`, `unix:/path` or
    /// `unix:@name`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.describe
    }

    /// Returns the number of connections, those of other protocols included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.lock().len()
    }

    /// Returns `true` if the server should get calls: no [shutdown](Self::shutdown) has begun, and
    /// every condition of [`ServerBuilder::readiness`] holds. A server that is not ready still
    /// serves the calls that it gets.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    /// Returns what the server has counted since it was started: calls by method, their durations,
    /// bytes, and connections.
    ///
    /// Takes the lock of each connection for a moment. With 100 methods and 1,000 connections it
    /// takes about a millisecond, so call it now and then, and not for every call.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        self.inner.stats()
    }

    /// Waits until every registry of [`ServerBuilder::register`] lists the server. Returns at once
    /// if there is none, and when a shutdown begins.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn registered(&self) {
        self.inner.registrations.all_listed().await;
    }

    /// Tells the service manager that the server is ready (`READY=1`), by systemd's protocol
    /// (`Type=notify` in the service unit). From then on a shutdown begins with `STOPPING=1`.
    /// Returns `false` if no manager waits for it: the environment variable `NOTIFY_SOCKET` is not
    /// set, or the system is not Unix.
    ///
    /// A predecessor that started this process by a `Handover` waits for it too. A program with
    /// several servers calls it once, on the last one that becomes ready.
    ///
    /// # Errors
    ///
    /// Fails if the message cannot be sent. The server continues.
    pub fn notify_ready(&self) -> io::Result<bool> {
        let is_sent = service_manager::notify(service_manager::READY)?;
        self.inner.has_manager.store(is_sent, Ordering::Relaxed);
        Ok(is_sent)
    }

    /// Waits until the server has been shut down and its last connection has ended; never completes
    /// if it is not shut down.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn stopped(&self) {
        self.inner.all_ended().await;
    }

    /// Serves until `signal` completes, then [shuts down](Self::shutdown) within `limit`. Returns
    /// when the server has ended, also if it was shut down elsewhere before `signal` completed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before `signal` has completed, the server continues; afterwards see
    /// [`shutdown`](Self::shutdown).
    pub async fn serve_until(&self, signal: impl Future<Output = ()>, limit: Duration) {
        tokio::select! {
            biased;
            () = self.stopped() => {}
            () = signal => self.shutdown(limit).await,
        }
    }

    /// Serves until the process is asked to end, by ctrl-c or SIGTERM, then [shuts
    /// down](Self::shutdown) within `limit`. A second signal immediately ends the calls that still
    /// run. Returns `Ok(())` when the server has ended, also if it was shut down elsewhere.
    ///
    /// ```no_run
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// let server = iip_core::Server::builder().bind("0.0.0.0:9000").await?;
    /// server.shutdown_on_signal(std::time::Duration::from_secs(20)).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the operating system does not deliver signals to this process; the server
    /// continues.
    ///
    /// # Cancel safety
    ///
    /// See [`serve_until`](Self::serve_until). Once this was called, the signals no longer end the
    /// process by themselves.
    ///
    /// Needs the feature `signal`.
    #[cfg(feature = "signal")]
    pub async fn shutdown_on_signal(&self, limit: Duration) -> io::Result<()> {
        let mut signals = ShutdownSignal::new()?;
        tokio::select! {
            biased;
            () = self.stopped() => return Ok(()),
            signal = signals.recv() => tracing::info!(signal, ?limit, "the server shuts down"),
        }
        tokio::select! {
            biased;
            () = self.shutdown(limit) => {}
            signal = signals.recv() => {
                tracing::warn!(signal, "second signal: ending the calls that still run");
                self.shutdown(Duration::ZERO).await;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(all(unix, feature = "inherit"))]
    fn lock_socket(&self) -> MutexGuard<'_, Option<Passable>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_shared(&self) -> Vec<Arc<Shared>> {
        let table = self.lock();
        let entries = table.connections.iter();
        entries
            .filter_map(|(_, entry)| match &entry.stage {
                Stage::Iip(shared) => Some(Arc::clone(shared)),
                Stage::SettingUp | Stage::Other => None,
            })
            .collect()
    }

    fn stats(&self) -> Snapshot {
        let mut snapshot = self.stats.snapshot(self.connection_stats());
        for method in &mut snapshot.methods {
            let handler = self.routes.handlers.get(method.path.as_bytes());
            method.max_concurrency = handler.and_then(|handler| handler.max_concurrency());
        }
        snapshot
    }

    /// Adds what the connections have counted to the counters that they share, and returns the
    /// figures of the connections.
    fn connection_stats(&self) -> Connections {
        let shared = self.all_shared();
        Connections::of(self.lock().len(), &shared)
    }

    async fn all_ended(&self) {
        loop {
            // Registered before the table is looked at, so that a change in between is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let ended = {
                let table = self.lock();
                !table.accepting && table.connections.is_empty()
            };
            if ended {
                return;
            }
            changed.await;
        }
    }

    fn is_ready(&self) -> bool {
        !self.is_unready.load(Ordering::Relaxed) && self.readiness.0.iter().all(|check| check())
    }
}
