//! What single calls set for themselves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::compression::Compression;
use crate::metadata::{Metadata, MetadataError};
use crate::policy::RetryPolicy;
use crate::subscription::Position;

/// What the calls made through a client set for themselves, see
/// [`Client::with_options`](crate::Client::with_options).
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CallOptions {
    pub(super) timeout: Option<Duration>,
    pub(super) wait_for_ready: Option<bool>,
    pub(super) max_transparent_retries: Option<u32>,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) compression: Option<Option<Compression>>,
    pub(super) metadata: Metadata,
    pub(super) reply_metadata: Option<ReplyMetadata>,
    pub(super) resume: Option<Position>,
}

impl CallOptions {
    /// The client's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long each call may take: connecting, waiting, and the answer. It replaces the method's
    /// and the client's default; the deadline of a call being handled still bounds it.
    /// [`Duration::MAX`]: as long as it takes; with no time at all a call fails at once.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Each call waits for a server that cannot be reached, until its deadline, or fails at once.
    /// It replaces the client's default, see
    /// [`ClientBuilder::wait_for_ready`](crate::ClientBuilder::wait_for_ready).
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }

    /// How each call is made again that may have run, or was refused for want of room;
    /// [`RetryPolicy::none`]: not at all. It replaces the policy of the method and of the client.
    /// The budget of the client, and whether the method is idempotent, count all the same.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// How often each call is made again that has not run, because its connection was lost or the
    /// server is going away. 0: never. It replaces the client's, see
    /// [`ClientBuilder::max_transparent_retries`](crate::ClientBuilder::max_transparent_retries),
    /// also where calls wait for the server.
    ///
    /// A call that shall be made once and no more has `max_transparent_retries(0)` and
    /// `retry(RetryPolicy::none())`.
    pub fn max_transparent_retries(mut self, repeats: u32) -> Self {
        self.max_transparent_retries = Some(repeats);
        self
    }

    /// Compresses what each call sends, or with `None` nothing. It replaces the method's and the
    /// client's default, see [`ClientBuilder::compression`](crate::ClientBuilder::compression).
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Self {
        self.compression = Some(compression.into());
        self
    }

    /// Sends `value` beside the arguments.
    ///
    /// # Errors
    ///
    /// The key is none (lower-case letters, digits, `-_.`), or all metadata together would exceed
    /// 16 KiB.
    pub fn metadata(mut self, key: &str, value: impl Into<Bytes>) -> Result<Self, MetadataError> {
        self.metadata.insert(key, value)?;
        Ok(self)
    }

    /// A [`Subscription`](crate::Subscription) goes on behind this position, which another one had;
    /// what is missing in between is its first item.
    pub fn resume(mut self, after: Position) -> Self {
        self.resume = Some(after);
        self
    }

    /// Keeps the metadata of each answer in `reply`.
    pub fn reply_metadata(mut self, reply: &ReplyMetadata) -> Self {
        self.reply_metadata = Some(reply.clone());
        self
    }
}

/// Where the metadata of an answer is kept, see [`CallOptions::reply_metadata`]. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ReplyMetadata(Arc<Mutex<Metadata>>);

impl ReplyMetadata {
    /// An empty place.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The metadata of the answer that came last.
    #[must_use]
    pub fn get(&self) -> Metadata {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, metadata: Metadata) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = metadata;
    }
}
