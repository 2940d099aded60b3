//! The limits of a connection as data, on by default. Pure.

use std::time::Duration;

use crate::error::ConfigError;
use crate::frame::{MAX_FRAME_BYTES, MAX_PATH_BYTES};

/// The lowest path limit: the protocol's own paths must fit.
const LEAST_PATH_BYTES: usize = 64;

/// The lowest frame limit: the protocol's own messages must fit, such as a hello.
const LEAST_FRAME_BYTES: usize = 512;

/// The default limit of a message: 64 MiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The limits on the memory and sizes of one connection, and on the time its peer may take.
///
/// For sizes and counts, 0 is raised to the minimum given below, and values above the maximum are
/// lowered to the maximum. For times, [`Duration::MAX`] means no limit. Times of less than a
/// millisecond, and sizes that leave no room for the protocol itself, are rejected when a client or
/// a server is created.
///
/// Both sides use the same limits; the defaults are safe against a hostile peer. The guide's page
/// on limits describes the bound on the memory that one connection can be made to hold:
/// `max_buffered_bytes` for what the peer has sent, as much for what it does not read, one message
/// beyond each of them, the frame being read, and about 4 KiB for each call; with streams
/// `stream_window + 64 KiB` for each, and `max_buffered_bytes` for the growth of their windows.
///
/// ```
/// use std::time::Duration;
/// use iip_core::Limits;
///
/// let limits = Limits::default().max_message_bytes(1 << 20).idle_timeout(Duration::from_secs(60));
/// assert_eq!(limits.get_max_message_bytes(), 1 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    path_bytes: usize,
    frame_bytes: usize,
    /// `None`: not set.
    message_bytes: Option<usize>,
    buffered_bytes: usize,
    unsent_bytes: usize,
    stream_window: usize,
    max_stream_window: usize,
    chunk_bytes: usize,
    channels: usize,
    calls: usize,
    control_requests: u32,
    frame_head: Duration,
    progress: Duration,
    idle: Duration,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            path_bytes: MAX_PATH_BYTES,
            frame_bytes: MAX_FRAME_BYTES,
            message_bytes: None,
            buffered_bytes: 64 * 1024 * 1024,
            unsent_bytes: 1024 * 1024,
            stream_window: 64 * 1024,
            max_stream_window: 4 * 1024 * 1024,
            chunk_bytes: 1024 * 1024,
            channels: 4096,
            calls: 1024,
            control_requests: 10_000,
            frame_head: Duration::from_secs(10),
            progress: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Sets the maximum length of a path, query included, in bytes. Default and maximum: 2048; less
    /// than 64 is rejected, because the protocol's own paths must fit. A longer path closes the
    /// connection.
    #[must_use]
    pub fn max_path_bytes(mut self, bytes: usize) -> Self {
        self.path_bytes = bytes.min(MAX_PATH_BYTES);
        self
    }

    /// Sets the maximum size of the body of one frame, in bytes. Default and maximum: 16 MiB; less
    /// than 512 is rejected, because the protocol's own messages must fit. A larger frame closes
    /// the connection. Peers cut messages into frames of their own
    /// [`chunk_bytes`](Self::chunk_bytes), 1 MiB by default.
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes.min(MAX_FRAME_BYTES);
        self
    }

    /// Sets the maximum size of a message that is accepted or sent, all its frames together, in
    /// bytes. Default: 64 MiB, minimum 1.
    ///
    /// A larger message fails only its call, with an error that names this option; the connection
    /// stays open.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.message_bytes = Some(bytes.max(1));
        self
    }

    /// Sets the maximum number of bytes that the calls of a connection hold, in each direction.
    /// Default: 64 MiB, minimum 1.
    ///
    /// Of what the peer sends, these count: unfinished messages, requests that wait for their turn,
    /// the arguments of handlers that wait (from 1 KiB on), and arguments that were decompressed.
    /// Beyond the limit, a server does not read the connection, rejects requests that would have to
    /// be decompressed, and grants no more credit to streams with unfinished messages, except to
    /// one of them at a time. When unfinished messages and waiting requests alone take that much
    /// for longer than [`progress_timeout`](Self::progress_timeout), the connection is closed.
    ///
    /// A client continues to read: a call whose reply is incomplete and for which the other replies
    /// leave no room fails with [`BufferFull`](crate::CallErrorKind::BufferFull).
    ///
    /// Of what the peer does not read, replies and stream messages count. Beyond the limit, the
    /// reply of a handler that had to wait is dropped and its caller gets an error, streams that
    /// send pieces of 32 KiB or more wait, and a stream whose piece does not move for
    /// [`progress_timeout`](Self::progress_timeout) fails.
    #[must_use]
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.buffered_bytes = bytes.max(1);
        self
    }

    /// Sets the maximum number of reply bytes that a server holds per connection and that the peer
    /// has not read. Default: 1 MiB, minimum 1.
    ///
    /// Beyond the limit, a server does not read further requests of that connection. The longest
    /// reply that is being written in turns with others does not count, and one more may exceed the
    /// limit.
    #[must_use]
    pub fn max_unsent_bytes(mut self, bytes: usize) -> Self {
        self.unsent_bytes = bytes.max(1);
        self
    }

    /// Sets the initial window of a stream: the number of bytes that are buffered before its reader
    /// has taken any. The peer sends no more than its credit. Default: 64 KiB, minimum 1 KiB,
    /// maximum 1 GiB. Where the window slows down a reader that keeps pace, it grows up to
    /// [`max_stream_window`](Self::max_stream_window).
    ///
    /// A stream whose reader does not read holds up to this number of bytes, one frame of 64 KiB,
    /// and the growth of its window; all windows of a connection together grow by at most
    /// [`max_buffered_bytes`](Self::max_buffered_bytes).
    #[must_use]
    pub fn stream_window(mut self, bytes: usize) -> Self {
        self.stream_window = bytes.clamp(1024, 1 << 30);
        self
    }

    /// Sets the maximum size to which the window of one stream grows, in bytes. Default: 4 MiB,
    /// maximum 1 GiB. A value not larger than [`stream_window`](Self::stream_window), such as 0,
    /// disables the growth of windows. See [`stream_window`](Self::stream_window).
    #[must_use]
    pub fn max_stream_window(mut self, bytes: usize) -> Self {
        self.max_stream_window = bytes.min(1 << 30);
        self
    }

    /// Sets the maximum size of a chunk, in bytes. A larger message is cut into chunks of this size
    /// if the peer is known to join them, so that frames of other channels go in between. Default:
    /// 1 MiB, minimum 1 KiB, maximum 16 MiB.
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes.clamp(1024, MAX_FRAME_BYTES);
        self
    }

    /// Sets the maximum number of channels with a call on them, per connection. Default: 4096,
    /// minimum 1.
    ///
    /// Beyond the limit, a server rejects new channels with the in-band code 106. An idle channel
    /// costs nothing and is not counted. A client opens at most this number of channels.
    #[must_use]
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.channels = channels.max(1);
        self
    }

    /// Sets the maximum number of handlers that a server runs at a time per connection. Default:
    /// 1024, minimum 1. Further requests wait for one of them to end, within
    /// [`max_buffered_bytes`](Self::max_buffered_bytes). Calls of the library's own services, such
    /// as health checks, do not wait.
    ///
    /// A handler that continues after its caller has gone no longer counts.
    #[must_use]
    pub fn max_calls(mut self, calls: usize) -> Self {
        self.calls = calls.max(1);
        self
    }

    /// Sets the maximum number of requests of the protocol itself that a server handles per second
    /// and connection: requests to `/sys/` paths that open channels and say hello, and
    /// cancellations of calls that are not, or no longer, open. Default: 10,000, minimum 1.
    ///
    /// This is also the size of a burst. Beyond the limit, the connection is read at this rate.
    #[must_use]
    pub fn max_control_requests(mut self, per_second: u32) -> Self {
        self.control_requests = per_second.max(1);
        self
    }

    /// Sets the time in which the head of a frame must arrive. Default: 10 s. Beyond it, the
    /// connection is closed.
    #[must_use]
    pub fn frame_head_timeout(mut self, timeout: Duration) -> Self {
        self.frame_head = timeout;
        self
    }

    /// Sets the maximum time without progress of a body, in either direction. Default: 30 s. Beyond
    /// it, the connection is closed. A message of several frames, or of a stream, of which nothing
    /// more arrives for that long fails alone.
    #[must_use]
    pub fn progress_timeout(mut self, timeout: Duration) -> Self {
        self.progress = timeout;
        self
    }

    /// Sets the time that a server keeps a connection without calls. Default: 5 minutes. Clients
    /// reconnect automatically.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle = timeout;
        self
    }

    /// Sets the time that a server may be silent while calls wait for its replies, before the
    /// client sends it a ping. Default: 5 s; [`Duration::MAX`]: never. Pings are sent only to
    /// servers that understand them, so that none takes a ping for a violation of the protocol.
    #[must_use]
    pub fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = interval;
        self
    }

    /// Sets the time that a server may stay silent after a ping. Default: 5 s; [`Duration::MAX`]:
    /// no limit. Beyond it, the connection is closed, and its calls fail with that reason.
    #[must_use]
    pub fn keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.keepalive_timeout = timeout;
        self
    }

    /// Rejects limits that cannot work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("max_path_bytes", self.path_bytes, LEAST_PATH_BYTES),
            ("max_frame_bytes", self.frame_bytes, LEAST_FRAME_BYTES),
        ];
        for (option, bytes, least) in sizes {
            ConfigError::check_count(option, bytes, least..=usize::MAX)?;
        }
        let times = [
            ("frame_head_timeout", self.frame_head),
            ("progress_timeout", self.progress),
            ("idle_timeout", self.idle),
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
        ];
        times
            .into_iter()
            .try_for_each(|(option, time)| ConfigError::check_time(option, time))
    }

    /// Returns the value of [`max_path_bytes`](Self::max_path_bytes).
    #[must_use]
    pub fn get_max_path_bytes(&self) -> usize {
        self.path_bytes
    }

    /// Returns the value of [`max_frame_bytes`](Self::max_frame_bytes).
    #[must_use]
    pub fn get_max_frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Returns the value of [`max_message_bytes`](Self::max_message_bytes).
    #[must_use]
    #[inline]
    pub fn get_max_message_bytes(&self) -> usize {
        self.message_bytes.unwrap_or(MAX_MESSAGE_BYTES)
    }

    /// Returns the value of [`max_buffered_bytes`](Self::max_buffered_bytes).
    #[must_use]
    pub fn get_max_buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Returns the value of [`max_unsent_bytes`](Self::max_unsent_bytes).
    #[must_use]
    pub fn get_max_unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Returns the value of [`stream_window`](Self::stream_window).
    #[must_use]
    pub fn get_stream_window(&self) -> usize {
        self.stream_window
    }

    /// Returns the value of [`max_stream_window`](Self::max_stream_window).
    #[must_use]
    pub fn get_max_stream_window(&self) -> usize {
        self.max_stream_window
    }

    /// Returns the value of [`chunk_bytes`](Self::chunk_bytes).
    #[must_use]
    pub fn get_chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Returns the value of [`max_channels`](Self::max_channels).
    #[must_use]
    pub fn get_max_channels(&self) -> usize {
        self.channels
    }

    /// Returns the value of [`max_calls`](Self::max_calls).
    #[must_use]
    pub fn get_max_calls(&self) -> usize {
        self.calls
    }

    /// Returns the value of [`max_control_requests`](Self::max_control_requests).
    #[must_use]
    pub fn get_max_control_requests(&self) -> u32 {
        self.control_requests
    }

    /// Returns the value of [`frame_head_timeout`](Self::frame_head_timeout).
    #[must_use]
    pub fn get_frame_head_timeout(&self) -> Duration {
        self.frame_head
    }

    /// Returns the value of [`progress_timeout`](Self::progress_timeout).
    #[must_use]
    pub fn get_progress_timeout(&self) -> Duration {
        self.progress
    }

    /// Returns the value of [`idle_timeout`](Self::idle_timeout).
    #[must_use]
    pub fn get_idle_timeout(&self) -> Duration {
        self.idle
    }

    /// Returns the value of [`keepalive_interval`](Self::keepalive_interval).
    #[must_use]
    pub fn get_keepalive_interval(&self) -> Duration {
        self.keepalive_interval
    }

    /// Returns the value of [`keepalive_timeout`](Self::keepalive_timeout).
    #[must_use]
    pub fn get_keepalive_timeout(&self) -> Duration {
        self.keepalive_timeout
    }

    /// Returns the shortest of all timeouts and intervals.
    pub(crate) fn shortest_timeout(&self) -> Duration {
        self.frame_head
            .min(self.progress)
            .min(self.idle)
            .min(self.keepalive_interval)
            .min(self.keepalive_timeout)
    }

    /// Returns the value that [`max_message_bytes`](Self::max_message_bytes) was set to, if it was
    /// set: for a higher layer with its own default.
    #[doc(hidden)]
    #[must_use]
    pub fn own_message_bytes(&self) -> Option<usize> {
        self.message_bytes
    }
}
