//! The typed server: from a message to the arguments, and from the result to a reply.
//!
//! To follow one call, begin at [`MethodHandler::call`](handler::MethodHandler).

mod builder;
mod closest;
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
#[cfg(feature = "signal")]
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

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

    /// Shuts down the server: sets its [`Health`](crate::Health) to not serving, ends its
    /// subscriptions so that their clients go elsewhere, notifies handlers that wait for it
    /// ([`CallContext::shutting_down`]), takes no new connections and calls, and gives the running
    /// calls `limit` to end before it aborts them. Always returns, at the latest about a second
    /// after `limit`; handlers with [`OnCancel::RunToEnd`](crate::OnCancel::RunToEnd) and
    /// [`OnCancel::Token`](crate::OnCancel::Token) may continue after that.
    ///
    /// [`CallContext::shutting_down`]: crate::CallContext::shutting_down
    /// [`OnCancel::RunToEnd`]: crate::OnCancel::RunToEnd
    /// [`OnCancel::Token`]: crate::OnCancel::Token
    ///
    /// Calls that arrive meanwhile are rejected as UNAVAILABLE, not executed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the server has stopped accepting and continues to drain; nothing
    /// is aborted.
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
