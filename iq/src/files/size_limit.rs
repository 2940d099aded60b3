//! The limit on the size of files.

use crate::exit::{Failure, Outcome};

/// Makes writes beyond the limit on the size of files (`ulimit -f`) fail, instead of ending the
/// process by a signal.
pub(super) fn ignore_signal() -> Outcome {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};

        let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        let handler =
            signal(kind).map_err(|error| Failure::Own(format!("signal {kind:?}: {error}")))?;
        // The signal stays handled.
        drop(handler);
    }
    Ok(())
}
