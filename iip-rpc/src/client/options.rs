//! Options of single calls.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::compression::Compression;
use crate::interceptor::CalledBackend;
use crate::metadata::{Metadata, MetadataError};
use crate::policy::RetryPolicy;
use crate::subscription::Position;

/// Options for the calls made through a client, see
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
    pub(super) hash_key: Option<Arc<[u8]>>,
    /// The backend of the call, for interceptors; empty for calls without interceptors.
    pub(super) called: CalledBackend,
    /// Metadata that did not fit when options were merged: the calls fail.
    pub(super) invalid: Option<MetadataError>,
}

impl CallOptions {
    /// Creates options that change nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns these options with those that are set in `other`, which take precedence.
    pub(super) fn merge(&self, other: Self) -> Self {
        let mut metadata = self.metadata.clone();
        let merged = metadata.replace_all(&other.metadata);
        Self {
            timeout: other.timeout.or(self.timeout),
            wait_for_ready: other.wait_for_ready.or(self.wait_for_ready),
            max_transparent_retries: other
                .max_transparent_retries
                .or(self.max_transparent_retries),
            retry: other.retry.or(self.retry),
            compression: other.compression.or(self.compression),
            metadata,
            reply_metadata: other.reply_metadata.or_else(|| self.reply_metadata.clone()),
            resume: other.resume.or(self.resume),
            hash_key: other.hash_key.or_else(|| self.hash_key.clone()),
            // That of the call, which nothing else replaces.
            called: self.called.clone(),
            // Reported by the call: the setters of options return no errors.
            invalid: merged.err().or_else(|| self.invalid.clone()),
        }
    }

    /// Sets the timeout of each call: for connecting, waiting, and the reply. It replaces the
    /// method's and the client's default; the deadline of a call being handled still bounds it.
    /// [`Duration::MAX`]: no limit; with zero a call fails at once.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets whether each call waits for a server that cannot be reached, until its deadline, or
    /// fails at once. It replaces the client's default, see
    /// [`ClientBuilder::wait_for_ready`](crate::ClientBuilder::wait_for_ready).
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }

    /// Sets the policy for retries of each call that may have run, or was rejected because the
    /// server is at capacity; [`RetryPolicy::none`]: no retries. It replaces the policy of the
    /// method and of the client. The client's budget, and the method's idempotency, still apply.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets the maximum number of transparent retries of each call that has not run, because its
    /// connection was lost or the server is going away. 0: none. It replaces the client's setting,
    /// see
    /// [`ClientBuilder::max_transparent_retries`](crate::ClientBuilder::max_transparent_retries),
    /// even if calls wait for the server.
    ///
    /// To make a call at most once, use `max_transparent_retries(0)` and
    /// `retry(RetryPolicy::none())`.
    pub fn max_transparent_retries(mut self, repeats: u32) -> Self {
        self.max_transparent_retries = Some(repeats);
        self
    }

    /// Sets the compression of what each call sends; `None`: no compression. It replaces the
    /// method's and the client's default, see
    /// [`ClientBuilder::compression`](crate::ClientBuilder::compression).
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Self {
        self.compression = Some(compression.into());
        self
    }

    /// Sets a value of the metadata to send with the arguments of each call, in place of those that
    /// `key` has.
    ///
    /// # Errors
    ///
    /// The key is invalid (it may have lower-case letters, digits, `-_.`), or all metadata together
    /// would exceed 16 KiB.
    pub fn metadata(mut self, key: &str, value: impl Into<Bytes>) -> Result<Self, MetadataError> {
        self.metadata.insert(key, value)?;
        Ok(self)
    }

    /// Adds all entries of `metadata`, after those that are set already.
    ///
    /// # Errors
    ///
    /// All metadata together would exceed 16 KiB.
    pub fn append_metadata(mut self, metadata: &Metadata) -> Result<Self, MetadataError> {
        self.metadata.append_all(metadata)?;
        Ok(self)
    }

    /// Resumes a [`Subscription`](crate::Subscription) after this position, which another one had;
    /// its first item reports what is missing in between.
    pub fn resume(mut self, after: Position) -> Self {
        self.resume = Some(after);
        self
    }

    /// Sets the key by which a policy such as [`Policy::RingHash`](iip_core::balance::Policy)
    /// chooses the backend of each call: calls with equal keys go to the same one. Other policies,
    /// and clients with a single address, ignore it.
    pub fn hash_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.hash_key = Some(key.as_ref().into());
        self
    }

    /// Keeps the metadata of each reply in `reply`.
    pub fn reply_metadata(mut self, reply: &ReplyMetadata) -> Self {
        self.reply_metadata = Some(reply.clone());
        self
    }
}

/// Storage for the metadata of a reply, see [`CallOptions::reply_metadata`]. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ReplyMetadata(Arc<Mutex<Metadata>>);

impl ReplyMetadata {
    /// Creates an empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The metadata of the most recent reply.
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
