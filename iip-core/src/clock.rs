//! The one clock of this crate: the runtime's, so that tests can stop it.

use std::time::Instant;

#[inline]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
