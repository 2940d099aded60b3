//! Every bound of a connection as data, on by default. Pure.

use std::time::Duration;

use crate::error::ConfigError;
use crate::frame::{MAX_FRAME_BYTES, MAX_PATH_BYTES};

/// The shortest limit of paths: the protocol's own must fit.
const LEAST_PATH_BYTES: usize = 64;

/// The lowest limit of frames: the protocol's own messages must fit, such as a hello.
const LEAST_FRAME_BYTES: usize = 512;

/// The largest message by default: 64 MiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What one connection may cost, and how long its peer may take.
///
/// Of sizes and counts, 0 counts as the least that is named, and more than the most as the most. Of
/// times, [`Duration::MAX`] means no limit, and less than a millisecond is refused where a client
/// or a server is made with it, as is what leaves no room for the protocol itself.
///
/// Both sides use the same limits; the defaults are safe against a hostile peer. What bounds the
/// memory that one connection can be made to hold stands in the guide's page on limits:
/// `max_buffered_bytes` for what the peer has sent, as much for what it does not read, a message
/// beyond each of them, the frame being read, and about 4 KiB for each call; with streams
/// `stream_window + 64 KiB` for each, and `max_buffered_bytes` for what windows have grown by.
///
/// ```
/// use std::time::Duration;
/// use iip_core::Limits;
///
/// let limits = Limits::default().max_message_bytes(1 << 20).idle_timeout(Duration::from_secs(60));
/// assert_eq!(limits.message_bytes(), 1 << 20);
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
    /// The longest path accepted, query included, in bytes. Default and most: 2048; less than 64 is
    /// refused, because the protocol's own paths must fit. Beyond: the connection is closed.
    #[must_use]
    pub fn max_path_bytes(mut self, bytes: usize) -> Self {
        self.path_bytes = bytes.min(MAX_PATH_BYTES);
        self
    }

    /// The largest body of one frame accepted, in bytes. Default and most: 16 MiB; less than 512 is
    /// refused, because the protocol's own messages must fit. Beyond: the connection is closed.
    /// Peers cut messages into frames of their own [`chunk_bytes`](Self::chunk_bytes), 1 MiB by
    /// default.
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes.min(MAX_FRAME_BYTES);
        self
    }

    /// The largest message accepted or sent, all its frames together, in bytes. Default: 64 MiB,
    /// least 1.
    ///
    /// Beyond it that call alone fails, with an error naming this option; the connection lives on.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.message_bytes = Some(bytes.max(1));
        self
    }

    /// Bytes that the calls of a connection hold, in each direction. Default: 64 MiB, least 1.
    ///
    /// Of what the peer sends, these count: unfinished messages, requests that wait for their turn,
    /// the arguments of handlers that wait (from 1 KiB on), and arguments that were decompressed.
    /// Beyond it a server does not read the connection, refuses what would have to be decompressed,
    /// and grants streams with unfinished messages no more, but for one of them at a time. When
    /// unfinished messages and waiting requests alone take that much for longer than
    /// [`progress_timeout`](Self::progress_timeout), the connection is closed.
    ///
    /// A client reads on: a call whose answer is not complete and finds no room beside others fails
    /// with [`BufferFull`](crate::CallErrorKind::BufferFull).
    ///
    /// Of what the peer does not read, answers and pieces of streams count. Beyond it an answer of
    /// a handler that had to wait is dropped and its caller told so, streams that send pieces of 32
    /// KiB or more wait, and one whose piece does not move for
    /// [`progress_timeout`](Self::progress_timeout) fails.
    #[must_use]
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.buffered_bytes = bytes.max(1);
        self
    }

    /// Bytes of replies a server holds per connection that the peer has not read. Default: 1 MiB,
    /// least 1.
    ///
    /// Beyond it a server does not read further requests of that connection. The longest reply that
    /// is being written in turns with others does not count, and one more may exceed it.
    #[must_use]
    pub fn max_unsent_bytes(mut self, bytes: usize) -> Self {
        self.unsent_bytes = bytes.max(1);
        self
    }

    /// Bytes of a stream that are taken in before its reader has taken any; the peer sends no more
    /// than it is granted. Default: 64 KiB, least 1 KiB, most 1 GiB. Where this holds up a reader
    /// that keeps pace, it grows up to [`max_stream_window`](Self::max_stream_window).
    ///
    /// A reader that stands still holds up to this much and one frame of 64 KiB, and what its
    /// window has grown by; all windows of a connection together grow by
    /// [`max_buffered_bytes`](Self::max_buffered_bytes) at most.
    #[must_use]
    pub fn stream_window(mut self, bytes: usize) -> Self {
        self.stream_window = bytes.clamp(1024, 1 << 30);
        self
    }

    /// The most that the window of one stream grows to, in bytes. Default: 4 MiB, most 1 GiB. One
    /// that is no larger than [`stream_window`](Self::stream_window), such as 0, keeps windows as
    /// they are. See [`stream_window`](Self::stream_window).
    #[must_use]
    pub fn max_stream_window(mut self, bytes: usize) -> Self {
        self.max_stream_window = bytes.min(1 << 30);
        self
    }

    /// A message larger than this is cut into frames of this size where the peer is known to join
    /// them, so that frames of other channels go in between. In bytes; default 1 MiB, least 1 KiB,
    /// most 16 MiB.
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes.clamp(1024, MAX_FRAME_BYTES);
        self
    }

    /// Channels with a call on them, per connection. Default: 4096, least 1.
    ///
    /// A server beyond it refuses new channels with the in-band code 106; a channel at rest costs
    /// nothing and is not counted. A client opens at most this many.
    #[must_use]
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.channels = channels.max(1);
        self
    }

    /// Handlers a server runs at a time per connection. Default: 1024, least 1. Further requests
    /// wait for one of them to end, within [`max_buffered_bytes`](Self::max_buffered_bytes). Calls
    /// of the library's own services, such as health checks, do not.
    ///
    /// A handler that runs on when its caller has gone does not count any more.
    #[must_use]
    pub fn max_calls(mut self, calls: usize) -> Self {
        self.calls = calls.max(1);
        self
    }

    /// Requests of the protocol itself that a server answers per second and connection: those to
    /// `/sys/` paths that open channels and say hello, and cancellations of calls that are not, or
    /// no longer, open. Default: 10,000, least 1.
    ///
    /// As many may come at once. Beyond that the connection is read at this rate.
    #[must_use]
    pub fn max_control_requests(mut self, per_second: u32) -> Self {
        self.control_requests = per_second.max(1);
        self
    }

    /// How long a frame's head may take to arrive. Default: 10 s. Beyond: the connection is closed.
    #[must_use]
    pub fn frame_head_timeout(mut self, timeout: Duration) -> Self {
        self.frame_head = timeout;
        self
    }

    /// How long a body in either direction may rest without a byte moving. Default: 30 s. Beyond:
    /// the connection is closed. A message in several frames, or of a stream, of which nothing more
    /// comes for that long fails alone.
    #[must_use]
    pub fn progress_timeout(mut self, timeout: Duration) -> Self {
        self.progress = timeout;
        self
    }

    /// How long a server keeps a connection without calls. Default: 5 minutes. Clients reconnect by
    /// themselves.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle = timeout;
        self
    }

    /// How long a server may be silent while calls wait for its answers, before the client asks it
    /// whether it lives. Default: 5 s; [`Duration::MAX`]: never. Only servers that understand the
    /// question are asked, and it offends none of them.
    #[must_use]
    pub fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = interval;
        self
    }

    /// How long a server may stay silent when it was asked whether it lives. Default: 5 s;
    /// [`Duration::MAX`]: for ever. Beyond: the connection is closed, and its calls fail with that
    /// reason.
    #[must_use]
    pub fn keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.keepalive_timeout = timeout;
        self
    }

    /// What cannot work is refused before anything is done with it.
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

    /// See [`max_path_bytes`](Self::max_path_bytes).
    #[must_use]
    pub fn path_bytes(&self) -> usize {
        self.path_bytes
    }

    /// See [`max_frame_bytes`](Self::max_frame_bytes).
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// See [`max_message_bytes`](Self::max_message_bytes).
    #[must_use]
    #[inline]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes.unwrap_or(MAX_MESSAGE_BYTES)
    }

    /// What [`max_message_bytes`](Self::max_message_bytes) was set to, if it was: for a layer above
    /// that has a default of its own.
    #[must_use]
    pub fn own_message_bytes(&self) -> Option<usize> {
        self.message_bytes
    }

    /// See [`max_buffered_bytes`](Self::max_buffered_bytes).
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// See [`max_unsent_bytes`](Self::max_unsent_bytes).
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    pub(crate) fn window(&self) -> usize {
        self.stream_window
    }

    pub(crate) fn max_window(&self) -> usize {
        self.max_stream_window
    }

    pub(crate) fn chunk(&self) -> usize {
        self.chunk_bytes
    }

    /// See [`max_channels`](Self::max_channels).
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// See [`max_calls`](Self::max_calls).
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// See [`max_control_requests`](Self::max_control_requests).
    #[must_use]
    pub fn control_requests(&self) -> u32 {
        self.control_requests
    }

    pub(crate) fn frame_head(&self) -> Duration {
        self.frame_head
    }

    pub(crate) fn progress(&self) -> Duration {
        self.progress
    }

    /// Interval and timeout.
    pub(crate) fn keepalive(&self) -> (Duration, Duration) {
        (self.keepalive_interval, self.keepalive_timeout)
    }

    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }
}
