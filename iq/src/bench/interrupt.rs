//! Interrupts of the user.

use std::process;

use tokio::sync::watch;

use crate::exit::Failure;

/// The interrupt of the program by the user. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Starts to listen. A second interrupt ends the program. Must be called in a runtime.
    pub(super) fn listen() -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if sender.send_replace(true) {
                    process::exit(Failure::Interrupted.code().into());
                }
            }
            // Without signals, there are no interrupts.
            std::future::pending::<()>().await
        });
        Self(receiver)
    }

    /// Waits for the interrupt. Cancel safe.
    pub(super) async fn wait(&mut self) {
        if self
            .0
            .wait_for(|is_interrupted| *is_interrupted)
            .await
            .is_err()
        {
            // The runtime that listens has ended, so the program is about to end.
            std::future::pending().await
        }
    }
}
