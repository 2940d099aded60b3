//! Options of transfers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::progress::{Callback, Progress};
use crate::rate::Rate;

const RESUME_FOR: Duration = Duration::from_secs(30);
const MAX_FILES: usize = 1_000_000;

/// Options of the transfers of a [`FileClient`](crate::FileClient). Cheap to clone; the limit on
/// bytes per second applies to all clones together.
#[derive(Clone)]
pub struct TransferOptions {
    pub(super) verify: bool,
    pub(crate) rate: Option<Arc<Rate>>,
    pub(super) resume_for: Duration,
    pub(super) max_files: usize,
    pub(crate) max_file_bytes: u64,
    pub(crate) progress: Option<Arc<Callback>>,
}

impl TransferOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new() -> Self {
        Self {
            verify: false,
            rate: None,
            resume_for: RESUME_FOR,
            max_files: MAX_FILES,
            max_file_bytes: u64::MAX,
            progress: None,
        }
    }

    /// Sets whether both sides read the whole file again before it gets its name. The operating
    /// system may serve these reads from its page cache. Without this option, each chunk is checked
    /// on arrival, and the hash of the file is derived from the chunks. Files of less than 64 KiB
    /// in a directory are checked only on arrival. Default: no.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets the maximum number of bytes per second, in both directions together. 0 counts as 1.
    /// Default: no limit.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.rate = Some(Arc::new(Rate::new(bytes)));
        self
    }

    /// Sets how long a transfer is retried after its connection was lost. Progress resets the time.
    /// With 0, the transfer fails at once, and the next transfer of the same file resumes it. A
    /// server that neither sends nor takes anything for this time, and for at least 30 s, counts as
    /// lost. Default: 30 s.
    #[must_use]
    pub fn resume_for(mut self, time: Duration) -> Self {
        self.resume_for = time;
        self
    }

    /// Sets the maximum number of entries below a transferred directory. Their paths may have 256
    /// bytes on average. A larger directory fails with `RESOURCE_EXHAUSTED` before any file is
    /// transferred. Default: 1,000,000.
    #[must_use]
    pub fn max_files(mut self, files: usize) -> Self {
        self.max_files = files;
        self
    }

    /// Sets the maximum size, in bytes, of downloaded files. A larger file fails with
    /// `RESOURCE_EXHAUSTED`. Default: no limit.
    #[must_use]
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// Sets a callback for progress, called at least once per MiB. It runs on a thread of the
    /// runtime and must not block. Default: none.
    #[must_use]
    pub fn progress(mut self, callback: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// Waits until the rate limit allows this number of bytes.
    pub(crate) async fn pay(&self, bytes: usize) {
        if let Some(rate) = &self.rate {
            rate.pay(bytes).await;
        }
    }
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TransferOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferOptions")
            .field("verify", &self.verify)
            .field("rate", &self.rate)
            .field("resume_for", &self.resume_for)
            .field("max_files", &self.max_files)
            .field("max_file_bytes", &self.max_file_bytes)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}
