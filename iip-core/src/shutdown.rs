//! What begins a server's shutdown, and who is told of it.

#[cfg(feature = "signal")]
use std::io;

use tokio::sync::watch;

/// Waits until a server has begun to shut down. A server that has gone without that, or none, never
/// does.
pub(crate) async fn begun(shutdown: Option<watch::Receiver<bool>>) {
    if let Some(mut shutdown) = shutdown
        && shutdown.wait_for(|&begun| begun).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The signals that ask a process to end: SIGINT, which ctrl-c sends, and SIGTERM, which service
/// managers and orchestrators send. Elsewhere than on Unix: ctrl-c.
///
/// From [`new`](Self::new) on such a signal no longer ends the process, also once this value is
/// dropped. See [`Server::shutdown_on_signal`](crate::Server::shutdown_on_signal) for the usual
/// way. Needs the feature `signal`.
#[cfg(feature = "signal")]
#[derive(Debug)]
pub struct ShutdownSignal {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(feature = "signal")]
impl ShutdownSignal {
    /// Begins to listen for the signals.
    ///
    /// # Errors
    ///
    /// The operating system refuses to deliver them.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, as all of tokio's own.
    pub fn new() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next of them, and returns its name. Signals that came since the last one count
    /// once.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; no signal is lost.
    pub async fn recv(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
        #[cfg(not(unix))]
        match tokio::signal::ctrl_c().await {
            Ok(()) => "ctrl-c",
            Err(_) => std::future::pending().await,
        }
    }
}
