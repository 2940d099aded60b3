//! Error types. Each reports what happened; [`CallError`] also reports whether the call may have
//! run.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::discover::DiscoverError;
use crate::frame::{ChannelId, FrameStatus};
use crate::printable::Printable;
use crate::transport::Endpoint;

/// A violation of the protocol or of a limit by the peer: the connection is closed without a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first byte of a frame is not one of the nine statuses; the peer does not speak IIP.
    #[error("byte {0:#04x} is not a frame status; the peer does not speak plain IIP")]
    UnknownStatus(u8),
    /// The first bytes from the peer belong to another protocol.
    #[error("the peer seems to speak {protocol}, not IIP: {hint}")]
    OtherProtocol {
        /// The name of the protocol.
        protocol: &'static str,
        /// A hint about what to change.
        hint: &'static str,
    },
    /// A frame has a status that only this side may send.
    #[error("the peer sent a frame with status {0:?}, which only this side may send")]
    WrongDirection(FrameStatus),
    /// There is no NUL within the maximum length of a path.
    #[error("the path exceeds {limit} bytes (option max_path_bytes)")]
    PathTooLong {
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// A frame has no data; the protocol forbids it.
    #[error("the peer sent a frame without data")]
    EmptyBody,
    /// The length field exceeds the limit.
    #[error("a frame of {size} bytes exceeds the limit of {limit} bytes (option max_frame_bytes)")]
    FrameTooLarge {
        /// The value of the length field.
        size: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// A frame came on a channel that was never granted on this connection.
    #[error("channel {0} was never granted on this connection")]
    UnknownChannel(ChannelId),
    /// The status may not follow the previous one on its channel.
    #[error("a frame with status {status:?} is not allowed now on channel {channel}")]
    StatusOrder {
        /// The channel it came on.
        channel: ChannelId,
        /// The status it carried.
        status: FrameStatus,
    },
    /// A reply came on a channel without an unanswered request.
    #[error("a reply without a request on channel {0}")]
    Unsolicited(ChannelId),
    /// A reply does not belong to the oldest unanswered request of its channel, for example after a
    /// superfluous reply.
    #[error(
        "a reply to {replied:?} came on channel {channel}, whose oldest pending request is \
         {sent:?}"
    )]
    WrongPath {
        /// The channel it came on.
        channel: ChannelId,
        /// The beginning of the path that was sent.
        sent: String,
        /// The beginning of the path that the reply carried.
        replied: String,
    },
    /// The peer has more unfinished requests at a time than the limit allows.
    #[error("more than {limit} channels in use at a time (option max_channels)")]
    TooManyChannels {
        /// The limit in force.
        limit: usize,
    },
    /// A frame of a stream is invalid in the current state, or carries more bytes than the credit
    /// allows.
    #[error("an invalid frame in the stream on channel {0}")]
    BadStream(ChannelId),
    /// The peer's reply to an exchange of the protocol itself is malformed.
    #[error("the reply to {exchange} is malformed")]
    BadControl {
        /// The reserved path.
        exchange: &'static str,
    },
}

/// The reason why a connection ended. Every call that was on it gets the same reason.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer broke the protocol; this side closed the connection.
    #[error("the peer broke the protocol")]
    Protocol(#[source] ProtocolError),
    /// The peer closed between two frames.
    #[error("the peer closed the connection")]
    ClosedByPeer,
    /// The server announced that it is going away, to shut down or because the connection has
    /// reached its maximum age, and closed it while calls were unanswered.
    #[error(
        "the server was going away, and closed the connection before all calls had their replies \
         (the limit of its shutdown, or its option max_connection_grace)"
    )]
    WentAway,
    /// The peer ended the connection with status 8.
    #[error("the peer ended the connection (status 8)")]
    Ended,
    /// The peer closed in the middle of a frame, or of a message of several frames.
    #[error("the peer closed the connection in the middle of a message")]
    Truncated,
    /// The operating system or TLS reported an error.
    #[error("the connection failed")]
    Io(#[source] Arc<io::Error>),
    /// A time limit passed.
    #[error("timed out after {limit:?} waiting for {what} (option {option})")]
    Timeout {
        /// The event that did not happen in time.
        what: &'static str,
        /// The limit that was exceeded.
        limit: Duration,
        /// The option that sets the limit.
        option: &'static str,
    },
    /// This side closed the connection.
    #[error("the connection was closed by this side")]
    ClosedLocally,
    /// This side gave the connection up, because no channel became free and most of them wait for
    /// replies to calls whose callers have gone. Only calls that waited for a channel get this
    /// error; those that were sent may continue until their deadline.
    #[error(
        "{abandoned} of the {channels} channels of the connection wait for replies to abandoned \
         calls (options max_channels of the client, max_channels and max_calls of the server)"
    )]
    Stalled {
        /// Number of channels that wait for a reply without a caller.
        abandoned: usize,
        /// Number of all channels of the connection.
        channels: usize,
    },
}

impl ConnectionError {
    /// Returns `true` if the peer caused the error.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(
            self,
            Self::Protocol(_) | Self::ClosedByPeer | Self::WentAway | Self::Ended | Self::Truncated
        )
    }

    /// Returns `true` if a time limit expired.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<ProtocolError> for ConnectionError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// Indication whether a failed call may have run on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "these are all the cases there are")]
pub enum Execution {
    /// No complete request left this process: safe to retry.
    NotSent,
    /// The server rejected the call before its handler ran: safe to retry.
    NotExecuted,
    /// The request was sent and its outcome is unknown: the handler may have run, not at all, in
    /// part, or to completion. Only an idempotent call is safe to retry.
    MayHaveExecuted,
}

impl Execution {
    /// Returns `true` if the call can be retried without running the handler twice.
    #[must_use]
    pub const fn is_safe_to_repeat(self) -> bool {
        matches!(self, Self::NotSent | Self::NotExecuted)
    }
}

/// Displays `not sent`, `not executed` or `may have executed`.
impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotSent => "not sent",
            Self::NotExecuted => "not executed",
            Self::MayHaveExecuted => "may have executed",
        })
    }
}

/// Time that a call spent in each phase, as measured by the client. A phase that the call did not
/// reach is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Phases {
    /// Time until a connection was available: resolving the name, connecting, TLS.
    pub connect: Duration,
    /// Time until a channel of the connection was free.
    pub wait_for_channel: Duration,
    /// Time until the request was handed to the network.
    pub write: Duration,
    /// Time from then until the reply arrived, or until the caller stopped waiting for it.
    pub reply: Duration,
    // The frames of this crate carry no times: the envelope of a typed reply does, and iip-rpc
    // fills them in. They are here so that the phases of a call are one type in both crates.
    /// The part of `reply` in which the request waited on the server, if the server reported it:
    /// only servers of typed calls do.
    pub server_queue: Option<Duration>,
    /// The part of `reply` in which the handler ran, if the server reported it: only servers of
    /// typed calls do.
    pub server_handler: Option<Duration>,
}

impl Phases {
    /// Returns the total time, from the start of the call to its end.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.connect
            .saturating_add(self.wait_for_channel)
            .saturating_add(self.write)
            .saturating_add(self.reply)
    }
}

/// Displays `500 ms: connect 1.2 ms, reply 499 ms of which queue 3 µs, handler 498 ms`.
impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Short(self.total()))?;
        let parts = [
            ("connect", self.connect),
            ("wait for channel", self.wait_for_channel),
            ("write", self.write),
            ("reply", self.reply),
        ];
        let mut before = ": ";
        for (name, time) in parts.iter().filter(|(_, time)| !time.is_zero()) {
            write!(f, "{before}{name} {}", Short(*time))?;
            before = ", ";
        }
        let server = [
            ("queue", self.server_queue),
            ("handler", self.server_handler),
        ];
        before = " of which ";
        for (name, time) in server {
            if let Some(time) = time {
                write!(f, "{before}{name} {}", Short(time))?;
                before = ", ";
            }
        }
        Ok(())
    }
}

/// A duration formatted with three digits.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (unit, name) = match nanos {
            0..1_000 => return write!(f, "{nanos} ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let (whole, tenth) = (nanos / unit, nanos % unit * 10 / unit);
        if whole < 100 && tenth > 0 {
            write!(f, "{whole}.{tenth} {name}")
        } else {
            write!(f, "{whole} {name}")
        }
    }
}

/// A failed attempt of a call on one backend of a balanced client.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackendAttempt {
    /// The stable id of the backend.
    pub id: Arc<str>,
    /// Its address.
    pub endpoint: Endpoint,
    /// The error with its causes.
    pub error: String,
    /// Indicates whether this attempt may have run.
    pub execution: Execution,
    /// The time that it spent in each phase.
    pub phases: Phases,
}

/// Displays `orders-1 (10.0.0.1:7000): the connection was lost (may have executed; after 3 ms)`.
impl fmt::Display for BackendAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.endpoint.to_string();
        match *self.id == *address {
            true => f.write_str(&address)?,
            false => write!(f, "{} ({address})", Printable(&self.id))?,
        }
        let (error, execution) = (Printable(&self.error), self.execution);
        write!(f, ": {error} ({execution}; after {})", self.phases)
    }
}

/// The cause of a failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// No connection could be made.
    #[error("cannot connect to {target}")]
    Connect {
        /// The address as it was given.
        target: String,
        /// The error of the attempt.
        #[source]
        source: Arc<io::Error>,
    },
    /// There is no connection, and none can be made in the context of the call.
    #[error(
        "there is no connection, and none can be made outside a Tokio runtime, or in one that is \
         shutting down"
    )]
    NoRuntime,
    /// The connection was lost while the call was on it.
    #[error("the connection was lost")]
    ConnectionLost(#[source] ConnectionError),
    /// The deadline of the call has passed.
    #[error("no reply in time (option timeout of the call or of the client)")]
    Timeout,
    /// The number of calls that wait for a channel has reached the limit.
    #[error("{limit} calls wait for a channel already (option max_queued_calls)")]
    QueueFull {
        /// The limit in force.
        limit: usize,
    },
    /// A message is larger than the limit; nothing was sent, or the rest of the reply is skipped.
    #[error(
        "a message of {size} bytes exceeds the limit of {limit} bytes (option max_message_bytes)"
    )]
    MessageTooLarge {
        /// The size of the message, as far as it is known.
        size: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// The replies of the connection that are incomplete or not taken yet hold all the bytes that
    /// the limit allows; the rest of this reply is skipped. Other calls are not affected.
    #[error(
        "incomplete replies hold all the {limit} bytes that a connection may hold (option \
         max_buffered_bytes of the client)"
    )]
    BufferFull {
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// The request has no data; the protocol forbids it.
    #[error("a request needs at least one byte of data")]
    EmptyBody,
    /// The path is empty, longer than 2048 bytes, or holds a NUL.
    #[error(
        "the path {0:?} cannot be sent: it must have 1 to 2048 bytes and no NUL, escaped or not"
    )]
    InvalidPath(String),
    /// The server rejected a new channel.
    #[error(
        "the server rejected a new channel: {} (code {code})",
        Printable(message)
    )]
    ChannelRejected {
        /// The in-band code, 106 from an IIP server at its limit.
        code: i64,
        /// The message of the server.
        message: String,
    },
    /// The server does not support calls with streams. A Go server does not, and without a hello
    /// neither side knows that the other does.
    #[error(
        "the server does not support calls with streams, or the client sent no hello (option \
         hello of the client)"
    )]
    NoStreams,
    /// The caller dropped its sending half of a stream before the end of the stream.
    #[error("the stream to send was dropped before it was finished (SendStream::finish)")]
    Unfinished,
    /// An option of the client cannot work.
    #[error("{0}")]
    Config(ConfigError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The source of addresses has returned no backend, or none with a weight above 0.
    #[error("no backend of {target} is known")]
    NoBackend {
        /// The source.
        target: String,
        /// The last error of the source, if it has failed since.
        #[source]
        source: Option<DiscoverError>,
    },
    /// The balancing policy `Choose` has chosen backends that are not known, or are drained.
    #[error("no backend fits the call: {reason}")]
    NoChosenBackend {
        /// The choice, or the reason why nothing was chosen.
        reason: String,
    },
    /// The balancing policy `Choose` has rejected the call.
    #[error("the balancing policy rejected the call: {reason}")]
    RejectedByPolicy {
        /// The reason of the policy.
        reason: String,
    },
    /// Backends return after an outage of all, and the call is one of those that are rejected to
    /// spare them (option recovery of `BalanceOptions`).
    #[error("backends recover from an outage: retry after {}", Short(*retry_after))]
    Recovering {
        /// The time after which the call should be retried.
        retry_after: Duration,
    },
}

/// The error of a failed call: its cause, whether it may have run, and the time spent in each
/// phase.
#[derive(Clone)]
pub struct CallError(Box<CallErrorInner>);

#[derive(Clone, Debug)]
struct CallErrorInner {
    kind: CallErrorKind,
    execution: Execution,
    phases: Phases,
    tried: Vec<BackendAttempt>,
}

impl CallError {
    pub(crate) fn new(kind: CallErrorKind, execution: Execution, phases: Phases) -> Self {
        Self(Box::new(CallErrorInner {
            kind,
            execution,
            phases,
            tried: Vec::new(),
        }))
    }

    /// Creates the error of a call that failed before anything of it left this process.
    pub(crate) fn not_sent(kind: CallErrorKind) -> Self {
        Self::new(kind, Execution::NotSent, Phases::default())
    }

    pub(crate) fn with_phases(mut self, phases: Phases) -> Self {
        self.0.phases = phases;
        self
    }

    pub(crate) fn with_tried(mut self, tried: Vec<BackendAttempt>) -> Self {
        self.0.tried = tried;
        self
    }

    /// Returns the attempts of the call on the backends of a balanced client, in order; the last 16
    /// if there were more. Empty if the client has a single address.
    #[must_use]
    pub fn tried(&self) -> &[BackendAttempt] {
        &self.0.tried
    }

    /// Returns the cause of the error.
    #[must_use]
    pub fn kind(&self) -> &CallErrorKind {
        &self.0.kind
    }

    /// Returns whether the call may have run on the server.
    #[must_use]
    pub fn execution(&self) -> Execution {
        self.0.execution
    }

    /// Returns the time spent in each phase.
    #[must_use]
    pub fn phases(&self) -> Phases {
        self.0.phases
    }

    /// Returns `true` if the deadline of the call has passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, CallErrorKind::Timeout)
    }
}

/// Formats the error with all its causes, for a program that ends with it; `{:#?}` shows the
/// fields.
impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.0.fmt(f);
        }
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}; after {})",
            self.0.kind, self.0.execution, self.0.phases
        )?;
        let mut before = "; backends tried: ";
        for attempt in &self.0.tried {
            write!(f, "{before}{attempt}")?;
            before = ", ";
        }
        Ok(())
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0.kind)
    }
}

/// The shortest time accepted for an option that ends something on expiry.
const LEAST_TIME: Duration = Duration::from_millis(1);

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option {option}: {reason}")]
pub struct ConfigError {
    option: &'static str,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(option: &'static str, reason: impl Into<String>) -> Self {
        Self {
            option,
            reason: reason.into(),
        }
    }

    /// Checks an option that ends something on expiry. Nothing can be done in less than a
    /// millisecond.
    pub(crate) fn check_time(option: &'static str, time: Duration) -> Result<(), Self> {
        if time >= LEAST_TIME {
            return Ok(());
        }
        let reason = format!(
            "{time:?} is too short: write at least {LEAST_TIME:?}, or `Duration::MAX` for no limit"
        );
        Err(Self::new(option, reason))
    }

    /// Checks a count.
    pub(crate) fn check_count(
        option: &'static str,
        count: usize,
        range: RangeInclusive<usize>,
    ) -> Result<(), Self> {
        if range.contains(&count) {
            return Ok(());
        }
        let reason = match range.into_inner() {
            (min, usize::MAX) => format!("{count} is too few: write at least {min}"),
            (min, max) => format!("{count} is not between {min} and {max}"),
        };
        Err(Self::new(option, reason))
    }

    /// Checks the fields that are added to a hello.
    pub(crate) fn check_fields(option: &'static str, fields: &Value) -> Result<(), Self> {
        if fields.is_object() {
            return Ok(());
        }
        Err(Self::new(option, format!("{fields} is not a JSON object")))
    }

    /// Returns the option to change.
    #[must_use]
    pub fn option(&self) -> &'static str {
        self.option
    }
}
