//! The signals that begin a server's shutdown, and the notification of it.

#[cfg(feature = "signal")]
use std::io;

use tokio::sync::watch;

/// Waits until a server has begun to shut down. Never completes if the server has gone without a
/// shutdown, or if there is none.
pub(crate) async fn begun(shutdown: Option<watch::Receiver<bool>>) {
    if let Some(mut shutdown) = shutdown
        && shutdown.wait_for(|&begun| begun).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The signals that ask a process to end: SIGINT, which ctrl-c sends, and SIGTERM, which service
/// managers and orchestrators send. On other systems than Unix: ctrl-c.
///
/// From the call of [`new`](Self::new) on, such a signal no longer ends the process, even after
/// this value is dropped. Most programs use
/// [`Server::shutdown_on_signal`](crate::Server::shutdown_on_signal) instead. Needs the feature
/// `signal`.
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
    /// Starts to listen for the signals.
    ///
    /// # Errors
    ///
    /// Fails if the operating system refuses to deliver them.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, like tokio's own signal functions.
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

    /// Waits for the next signal, and returns its name. Signals that arrived since the last one
    /// count as one.
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
