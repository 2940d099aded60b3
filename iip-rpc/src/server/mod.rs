//! The typed server: from a message to the arguments, and from the result to a reply.
//!
//! To follow one call, begin at [`MethodHandler::call`](handler::MethodHandler).

mod builder;
mod failures;
mod handler;
mod intercept;
mod method;
#[cfg(feature = "tower")]
mod mount;
mod names;
mod no_method;
mod raw;
mod registry;
mod reply;
mod stream;
mod unary;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use iip_core::stats::Snapshot;

pub use self::builder::ServerBuilder;
#[cfg(feature = "tower")]
pub use self::mount::ServiceHandler;
pub use self::registry::{Methods, Service};
pub use self::stream::{StreamCall, StreamReply};

/// A running server. Dropping it leaves it running; [`shutdown`](Self::shutdown) ends it.
///
/// It runs on the runtime that it was created in, and ends with it: when `main` returns, its server
/// ends too. A program that is only a server ends with `shutdown_on_signal` (feature `signal`),
/// [`serve_until`](Self::serve_until) or [`stopped`](Self::stopped).
#[derive(Debug)]
#[must_use = "a server ends with its runtime: wait with `shutdown_on_signal`, `serve_until` or \
    `stopped`"]
pub struct Server {
    core: iip_core::Server,
}

impl Server {
    /// Creates a builder for a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// The address it listens on, with the port that the system chose; `None` on Unix sockets and
    /// in memory.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.core.local_addr()
    }

    /// The address in the form that a client connects to.
    #[must_use]
    pub fn target(&self) -> &str {
        self.core.target()
    }

    /// Returns `true` if the server should get calls: no [shutdown](Self::shutdown) has begun, every
    /// condition of [`ServerBuilder::readiness`] holds, and its [`Health`](crate::Health), if it has
    /// one, is serving as a whole. A server that is not ready still serves the calls that it gets.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.core.is_ready()
    }

    /// The underlying server, for what takes one: `Handover::listener`.
    pub fn raw(&self) -> &iip_core::Server {
        &self.core
    }

    /// Returns what the server has counted since it was started: calls by method and code, their
    /// durations, bytes, and connections; see [`iip_core::Server::stats`] for the cost.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        self.core.stats()
    }

    /// Waits until every registry of [`ServerBuilder::register`] lists the server. Returns at once
    /// if there is none, and when a shutdown begins.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn registered(&self) {
        self.core.registered().await;
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
    /// The message cannot be sent. The server continues.
    pub fn notify_ready(&self) -> io::Result<bool> {
        self.core.notify_ready()
    }

    /// Shuts down the server. Always returns, at the latest about a second after `limit`, which is
    /// the time for all steps together:
    ///
    /// 1. Its [`Health`](crate::Health) is set to not serving.
    /// 2. It is removed from the registries of [`ServerBuilder::register`], for at most 5 s.
    /// 3. The lame duck period ([`ServerBuilder::lame_duck`]): it still accepts and serves, while
    ///    clients and load balancers learn that it leaves. Together with step 2 it takes at most
    ///    half of `limit`.
    /// 4. It takes no new connections, and notifies each connection, so that clients make further
    ///    calls elsewhere. Its subscriptions end, and handlers that wait for it are notified
    ///    ([`CallContext::shutting_down`]). Calls that arrive nevertheless are rejected as
    ///    UNAVAILABLE, not executed.
    /// 5. The running calls may end, until `limit`.
    /// 6. The rest is aborted; handlers with [`OnCancel::RunToEnd`](crate::OnCancel::RunToEnd) and
    ///    [`OnCancel::Token`](crate::OnCancel::Token) may continue after that.
    ///
    /// Without registrations and `lame_duck`, steps 2 and 3 take no time. With a `limit` of zero,
    /// only the first and the last steps are taken. A further call, while another runs, skips the
    /// first two steps.
    ///
    /// [`CallContext::shutting_down`]: crate::CallContext::shutting_down
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped during the lame duck period, the server continues to serve, and
    /// can be shut down by another call. Afterwards it has stopped accepting and continues to
    /// drain; nothing is aborted.
    pub async fn shutdown(&self, limit: Duration) {
        self.core.shutdown(limit).await;
    }

    /// Waits until the server has been shut down and its last connection has ended; never completes
    /// if it is not shut down.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn stopped(&self) {
        self.core.stopped().await;
    }

    /// Serves until `signal` completes, then [shuts down](Self::shutdown) within `limit`. Returns
    /// when the server has ended, also if it was shut down by other code before `signal` completed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before `signal` has completed, the server continues; afterwards
    /// like [`shutdown`](Self::shutdown).
    pub async fn serve_until(&self, signal: impl Future<Output = ()>, limit: Duration) {
        self.core.serve_until(signal, limit).await;
    }

    /// Serves until the process receives ctrl-c or SIGTERM, then [shuts down](Self::shutdown)
    /// within `limit`. A second signal aborts at once what still runs. Returns `Ok(())` when the
    /// server has ended, also if it was shut down by other code.
    ///
    /// ```no_run
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// let server = iip_rpc::Server::builder().bind("0.0.0.0:7070").await?;
    /// server.shutdown_on_signal(std::time::Duration::from_secs(20)).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The operating system does not deliver signals to this process; the server continues.
    ///
    /// # Cancel safety
    ///
    /// Like [`serve_until`](Self::serve_until). Once this was called, the signals no longer end the
    /// process by themselves.
    ///
    /// Needs the feature `signal`, which is on by default.
    #[cfg(feature = "signal")]
    pub async fn shutdown_on_signal(&self, limit: Duration) -> io::Result<()> {
        self.core.shutdown_on_signal(limit).await
    }
}
