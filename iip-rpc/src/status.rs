//! Outcome of a call that failed: the error, the time spent in each phase, and whether the method
//! ran.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use iip_core::Printable;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metadata::{Metadata, MetadataError};
use crate::method::MethodDescriptor;
use crate::payload::Payload;

/// Kind of a failure: the seventeen codes of gRPC, with the same numbers.
///
/// Three of them are often confused. The test is what the caller may do:
///
/// * [`Unavailable`](Self::Unavailable): retry just this call, after a pause.
/// * [`Aborted`](Self::Aborted): start over at a higher level, at the read that this call was based
///   on.
/// * [`FailedPrecondition`](Self::FailedPrecondition): do not retry before the state of the system
///   has been changed.
///
/// [`Status::execution`] says whether a call can be retried without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Code {
    /// The call succeeded. No failure has this code; it exists so that the numbers are complete.
    Ok = 0,
    /// The caller gave up. Whether to retry is the caller's decision.
    Cancelled = 1,
    /// A failure of which nothing more is known, such as an error of another system that has no
    /// code.
    Unknown = 2,
    /// The arguments are wrong whatever the state of the system. A retry fails again.
    InvalidArgument = 3,
    /// The time for the call ran out before the reply arrived. The method may have run, even
    /// successfully. Retry with more time, and only if running twice does no harm.
    DeadlineExceeded = 4,
    /// The requested entity does not exist, or is hidden from all callers. A retry fails again.
    NotFound = 5,
    /// The entity to be created exists already. A retry fails again.
    AlreadyExists = 6,
    /// The caller is known but not allowed to do this. Not for unknown callers
    /// ([`Unauthenticated`](Self::Unauthenticated)) nor for exhausted quotas
    /// ([`ResourceExhausted`](Self::ResourceExhausted)).
    PermissionDenied = 7,
    /// A quota, a limit or a store is exhausted, or the server is overloaded. Retry after a pause;
    /// do not retry if a message was too large.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs, such as when deleting a directory that
    /// is not empty. Do not retry before the state has been changed.
    FailedPrecondition = 9,
    /// The call lost a race: a transaction was rolled back, or a version had changed. Retry the
    /// whole sequence of calls, beginning with the read.
    Aborted = 10,
    /// A position past the end, such as when reading past the end of a file. Unlike
    /// [`InvalidArgument`](Self::InvalidArgument), it can become valid later.
    OutOfRange = 11,
    /// The server has no such method, or does not support this use of it. A retry on the same
    /// server fails again.
    Unimplemented = 12,
    /// A broken invariant: a panic, a bug, or a reply that cannot be decoded.
    Internal = 13,
    /// The server cannot be reached or takes no calls at the moment. Retry just this call, after a
    /// pause.
    Unavailable = 14,
    /// Data is lost or damaged beyond repair.
    DataLoss = 15,
    /// The caller did not prove its identity. Retry with valid credentials.
    Unauthenticated = 16,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The number, the same as in gRPC.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The name in gRPC, such as `NOT_FOUND`: for metrics and for tools.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// Displays the name in words, such as `not found`.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid argument",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PermissionDenied => "permission denied",
            Self::ResourceExhausted => "resource exhausted",
            Self::FailedPrecondition => "failed precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out of range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data loss",
            Self::Unauthenticated => "unauthenticated",
        })
    }
}

impl From<Code> for u8 {
    fn from(code: Code) -> Self {
        code.as_u8()
    }
}

impl TryFrom<u8> for Code {
    type Error = UnknownCode;

    fn try_from(number: u8) -> Result<Self, UnknownCode> {
        Self::from_u8(number).ok_or(UnknownCode(number))
    }
}

/// The number does not belong to a [`Code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no status code: they go from 0 to 16")]
pub struct UnknownCode(u8);

/// Indication whether a call that failed may have run the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Execution {
    /// No byte of the request left this process.
    NotSent,
    /// The server rejected the call before the method ran.
    NotExecuted,
    /// The method may have run: not at all, in part, or to completion.
    MayHaveExecuted,
}

impl Execution {
    /// Returns `true` if the call can be retried without running the method twice.
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

/// Time that a call spent in each phase. A phase that the call did not reach is zero.
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
    pub answer: Duration,
    /// The part of `answer` in which the request waited on the server, if the server reported it.
    pub server_queue: Option<Duration>,
    /// The part of `answer` in which the handler ran, if the server reported it.
    pub server_handler: Option<Duration>,
}

impl Phases {
    /// The total time, from the start of the call to its end.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.connect
            .saturating_add(self.wait_for_channel)
            .saturating_add(self.write)
            .saturating_add(self.answer)
    }
}

/// Displays `500 ms: connect 1.2 ms, answer 499 ms of which queue 3 µs, handler 498 ms`.
impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Short(self.total()))?;
        let parts = [
            ("connect", self.connect),
            ("wait for channel", self.wait_for_channel),
            ("write", self.write),
            ("answer", self.answer),
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

/// Failure of a call, on both sides of the connection.
///
/// A handler creates one with the constructor of its code; the caller receives the same code,
/// message, details and metadata. Failures that do not come from a handler (no connection, no time
/// left, a rejected request) are statuses too, created by this crate; they also contain the [time
/// spent in each phase](Self::phases) and their [cause](Self::cause).
///
/// A status is one pointer in size and cheap to clone. Two are equal if their code, message,
/// details and metadata are equal; the other fields are ignored.
///
/// # Examples
///
/// ```
/// use iip_rpc::status::{Code, Status};
///
/// fn find(name: &str) -> Result<u32, Status> {
///     match name {
///         "ann" => Ok(7),
///         _ => Err(Status::not_found(format!("no user {name:?}"))),
///     }
/// }
///
/// let status = find("bob").unwrap_err();
/// assert_eq!(status.code(), Code::NotFound);
/// assert_eq!(status.to_string(), r#"not found: no user "bob""#);
/// ```
#[derive(Clone)]
pub struct Status(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    execution: Execution,
    message: Cow<'static, str>,
    details: Bytes,
    metadata: Metadata,
    phases: Option<Phases>,
    /// The status was decoded from inside another value.
    travelled: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// The message already contains the text of the source.
    source_is_told: bool,
}

macro_rules! constructors {
    ($($name:ident $code:ident)*) => { $(
        #[doc = concat!("A failure of the kind [`Code::", stringify!($code), "`].")]
        #[must_use]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Code::$code, message)
        }
    )* };
}

impl Status {
    /// Creates a failure with the code `code` and a text for people at the caller's side.
    ///
    /// It counts as possibly executed, like everything that a handler returns;
    /// [`with_execution`](Self::with_execution) changes that. [`Code::Ok`] is not a failure: it
    /// becomes [`Code::Unknown`].
    #[must_use]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code: if code == Code::Ok {
                Code::Unknown
            } else {
                code
            },
            execution: Execution::MayHaveExecuted,
            message: message.into(),
            details: Bytes::new(),
            metadata: Metadata::new(),
            phases: None,
            travelled: false,
            source: None,
            source_is_told: false,
        }))
    }

    /// Returns `true` if the status describes an outgoing call rather than the one being handled.
    pub(crate) fn is_of_a_call(&self) -> bool {
        self.0.phases.is_some() || self.0.travelled
    }

    constructors! {
        cancelled Cancelled
        unknown Unknown
        invalid_argument InvalidArgument
        deadline_exceeded DeadlineExceeded
        not_found NotFound
        already_exists AlreadyExists
        permission_denied PermissionDenied
        resource_exhausted ResourceExhausted
        failed_precondition FailedPrecondition
        aborted Aborted
        out_of_range OutOfRange
        unimplemented Unimplemented
        internal Internal
        unavailable Unavailable
        data_loss DataLoss
        unauthenticated Unauthenticated
    }

    /// Creates a failure with [`Code::Internal`] whose message is only `internal error`; `error` is
    /// kept for the log of this process ([`with_source`](Self::with_source)). For
    /// `map_err(Status::internal_from)?` on errors of any type; for results there is
    /// [`ResultExt::or_internal`](crate::ResultExt::or_internal). To send the text to the caller,
    /// use `Status::internal(error.to_string())`.
    #[must_use]
    pub fn internal_from(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::internal("internal error").with_source(error)
    }

    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The text for people. Programs should use [`code`](Self::code) and
    /// [`details`](Self::details).
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Bytes for programs, in an encoding that both sides agreed on; often empty.
    #[must_use]
    pub fn details(&self) -> &Bytes {
        &self.0.details
    }

    /// The metadata sent with the failure.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The metadata sent with the failure, mutably.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.0.metadata
    }

    /// Returns an indication whether the method may have run.
    #[must_use]
    pub fn execution(&self) -> Execution {
        self.0.execution
    }

    /// Time that the call spent in each phase; `None` if no call was measured, as in a handler.
    #[must_use]
    pub fn phases(&self) -> Option<&Phases> {
        self.0.phases.as_ref()
    }

    /// Replaces the message.
    pub(crate) fn reworded(mut self, message: String) -> Self {
        self.0.message = message.into();
        self
    }

    /// Prefixes the message with the name of `method`.
    #[must_use]
    pub(crate) fn in_method(mut self, method: &MethodDescriptor) -> Self {
        self.0.message = format!("{method}: {}", self.0.message).into();
        self
    }

    /// Adds bytes for programs.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<Bytes>) -> Self {
        self.0.details = details.into();
        self
    }

    /// Sets the metadata to send with the failure.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Sets whether the method may have run. A handler that rejects a call before it has changed
    /// anything can set [`Execution::NotExecuted`]: the caller may then retry at once.
    #[must_use]
    pub fn with_execution(mut self, execution: Execution) -> Self {
        self.0.execution = execution;
        self
    }

    /// Sets the time that the call spent in each phase.
    #[must_use]
    pub fn with_phases(mut self, phases: Phases) -> Self {
        self.0.phases = Some(phases);
        self
    }

    /// Keeps the error that caused this one, for logs of this process; it is never sent. A server
    /// logs it with the failure, see
    /// [`ServerBuilder::log_failures`](crate::ServerBuilder::log_failures).
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self.0.source_is_told = false;
        self
    }

    /// Keeps the error that caused this one and whose text the message already contains.
    #[must_use]
    pub(crate) fn with_told_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self.0.source_is_told = true;
        self
    }

    /// The error that caused this one, on this side of the connection: the one that a handler
    /// passed to [`with_source`](Self::with_source), or, for a failure that does not come from a
    /// handler, the underlying error, such as [`iip_core::CallError`]. [`Error::source`] is the
    /// same, but leaves out an error whose text the message already contains, because code that
    /// prints a chain of errors would print it twice.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }
}

/// Displays `not found: no user "bob"`, and for a failure that does not come from a handler also
/// `[not sent, after 3 s: connect 3 s]`.
///
/// Control characters, including line ends, are escaped: the text may come from a peer.
/// [`Status::message`] returns it unescaped.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "{}", inner.code)?;
        if !inner.message.is_empty() {
            write!(f, ": {}", Printable(&inner.message))?;
        }
        match (&inner.phases, inner.execution) {
            (Some(phases), execution) => write!(f, " [{execution}, after {phases}]"),
            (None, Execution::MayHaveExecuted) => Ok(()),
            (None, execution) => write!(f, " [{execution}]"),
        }
    }
}

/// The same text as `Display`, for programs that exit with a status; `{:#?}` shows the parts.
impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let inner = &*self.0;
        let mut out = f.debug_struct("Status");
        out.field("code", &inner.code)
            .field("message", &inner.message);
        out.field("execution", &inner.execution);
        if !inner.details.is_empty() {
            out.field("details", &inner.details);
        }
        if !inner.metadata.is_empty() {
            out.field("metadata", &inner.metadata);
        }
        if let Some(phases) = &inner.phases {
            out.field("phases", phases);
        }
        if let Some(source) = &inner.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl Error for Status {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.0.source.as_deref().filter(|_| !self.0.source_is_told);
        source.map(|source| source as &(dyn Error + 'static))
    }
}

#[diagnostic::do_not_recommend]
impl From<MetadataError> for Status {
    fn from(error: MetadataError) -> Self {
        Self::invalid_argument(error.to_string()).with_told_source(error)
    }
}

impl PartialEq for Status {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        a.code == b.code
            && a.message == b.message
            && a.details == b.details
            && a.metadata == b.metadata
    }
}

impl Eq for Status {}

/// Inside another type, a status is a tuple of code, execution (0 may have executed, 1 not),
/// message, details and metadata; in JSON, an object without the empty parts. Phases and source are
/// not included.
impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = &*self.0;
        let details = Payload::from(inner.details.clone());
        if !serializer.is_human_readable() {
            let mut out = serializer.serialize_tuple(5)?;
            out.serialize_element(&inner.code)?;
            out.serialize_element(&u8::from(inner.execution.is_safe_to_repeat()))?;
            out.serialize_element(&inner.message)?;
            out.serialize_element(&details)?;
            out.serialize_element(&inner.metadata)?;
            return out.end();
        }
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("code", &inner.code)?;
        out.serialize_entry("message", &inner.message)?;
        if inner.execution.is_safe_to_repeat() {
            out.serialize_entry("executed", &false)?;
        }
        if !details.is_empty() {
            out.serialize_entry("details", &details)?;
        }
        if !inner.metadata.is_empty() {
            out.serialize_entry("metadata", &inner.metadata)?;
        }
        out.end()
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(StatusVisitor)
        } else {
            deserializer.deserialize_tuple(5, StatusVisitor)
        }
    }
}

struct StatusVisitor;

impl StatusVisitor {
    fn build(
        code: Code,
        refused: bool,
        message: String,
        details: Payload,
        metadata: Metadata,
    ) -> Status {
        let execution = if refused {
            Execution::NotExecuted
        } else {
            Execution::MayHaveExecuted
        };
        let mut status = Status::new(code, message)
            .with_execution(execution)
            .with_details(details)
            .with_metadata(metadata);
        status.0.travelled = true;
        status
    }
}

impl<'de> Visitor<'de> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Status, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
            seq: &mut A,
            at: usize,
        ) -> Result<T, A::Error> {
            let missing = || serde::de::Error::invalid_length(at, &StatusVisitor);
            seq.next_element()?.ok_or_else(missing)
        }
        let code = next(&mut seq, 0)?;
        let refused = next::<u8, A>(&mut seq, 1)? == 1;
        Ok(Self::build(
            code,
            refused,
            next(&mut seq, 2)?,
            next(&mut seq, 3)?,
            next(&mut seq, 4)?,
        ))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Status, A::Error> {
        let (mut code, mut executed, mut message) = (None, true, String::new());
        let (mut details, mut metadata) = (Payload::default(), Metadata::new());
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "code" => code = Some(map.next_value()?),
                "message" => message = map.next_value()?,
                "executed" => executed = map.next_value()?,
                "details" => details = map.next_value()?,
                "metadata" => metadata = map.next_value()?,
                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        let code = code.ok_or_else(|| serde::de::Error::missing_field("code"))?;
        Ok(Self::build(code, !executed, message, details, metadata))
    }
}

/// Error type of a method: a user-defined type that is sent as a value, and that can also hold a
/// [`Status`] for every failure that does not come from the method.
///
/// [`Status`] itself implements it. Derive it for your own enum:
///
/// ```ignore
/// #[derive(Debug, thiserror::Error, Serialize, Deserialize, iip_rpc::MethodError)]
/// enum GreetError {
///     #[error("name is empty")]
///     EmptyName,
///     #[error(transparent)]
///     #[status]
///     Rpc(Status),
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error type of a method",
    label = "not a method error",
    note = "use `Status`, or derive `iip_rpc::MethodError` on your enum and mark the variant that \
        holds a `Status` with `#[status]`"
)]
pub trait MethodError:
    Error + Serialize + DeserializeOwned + From<Status> + Send + Sync + 'static
{
    /// Returns the status inside, if this value is not an error of the application: it is then sent
    /// as a status.
    fn as_status(&self) -> Option<&Status> {
        None
    }
}

impl MethodError for Status {
    fn as_status(&self) -> Option<&Status> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Status {
        let mut metadata = Metadata::new();
        metadata.insert_text("retry-after", "3").unwrap();
        Status::unavailable("draining")
            .with_details(vec![1, 2])
            .with_metadata(metadata)
            .with_execution(Execution::NotExecuted)
            .with_phases(Phases::default())
            .with_source(std::io::Error::other("cause"))
    }

    #[test]
    fn the_codes_have_the_numbers_and_names_of_grpc() {
        assert_eq!(Code::ALL.len(), 17);
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.as_u8()), number);
            assert_eq!(Code::from_u8(code.as_u8()), Some(code));
            assert_eq!(
                code.name().to_lowercase().replace('_', " "),
                code.to_string()
            );
        }
        assert_eq!(Code::from_u8(17), None);
        assert_eq!(
            Code::try_from(17).unwrap_err().to_string(),
            "17 is no status code: they go from 0 to 16"
        );
    }

    #[test]
    fn a_status_is_one_pointer_large() {
        assert_eq!(size_of::<Status>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Status>>(), size_of::<usize>());
    }

    #[test]
    fn every_constructor_makes_its_code() {
        assert_eq!(Status::cancelled("").code(), Code::Cancelled);
        assert_eq!(Status::not_found("").code(), Code::NotFound);
        assert_eq!(Status::unauthenticated("").code(), Code::Unauthenticated);
        assert_eq!(Status::new(Code::Ok, "").code(), Code::Unknown);
    }

    #[test]
    fn a_status_of_a_handler_prints_code_and_message() {
        assert_eq!(
            Status::not_found("no user").to_string(),
            "not found: no user"
        );
        assert_eq!(Status::aborted("").to_string(), "aborted");
        let refused = Status::unavailable("draining").with_execution(Execution::NotExecuted);
        assert_eq!(refused.to_string(), "unavailable: draining [not executed]");
    }

    #[test]
    fn control_characters_in_the_text_of_a_peer_are_escaped() {
        let text = "gone\x1b[2J\r\nERROR forged\u{202e}";
        let status = Status::not_found(text);
        assert_eq!(status.message(), text);
        let shown = r"not found: gone\u{1b}[2J\r\nERROR forged\u{202e}";
        assert_eq!(status.to_string(), shown);
        assert_eq!(format!("{status:?}"), shown);
        let parts = format!("{status:#?}");
        assert!(
            parts.contains(r#"message: "gone\u{1b}[2J\r\nERROR forged\u{202e}""#),
            "{parts}"
        );
    }

    #[test]
    fn a_status_of_a_call_prints_where_the_time_went() {
        let phases = Phases {
            connect: Duration::from_micros(1_234),
            write: Duration::from_nanos(900),
            answer: Duration::from_millis(498),
            server_queue: Some(Duration::from_micros(12)),
            server_handler: Some(Duration::from_secs(1)),
            ..Phases::default()
        };
        let status = Status::deadline_exceeded("no answer within 500 ms").with_phases(phases);
        assert_eq!(
            status.to_string(),
            "deadline exceeded: no answer within 500 ms [may have executed, after 499 ms: connect 1.2 ms, write 900 ns, \
             answer 498 ms of which queue 12 µs, handler 1 s]"
        );
        let status = Status::unavailable("queue full")
            .with_execution(Execution::NotSent)
            .with_phases(Phases::default());
        assert_eq!(
            status.to_string(),
            "unavailable: queue full [not sent, after 0 ns]"
        );
    }

    #[test]
    fn the_source_is_kept_here_and_cloned_along() {
        let status = full();
        let copy = status.clone();
        assert_eq!(status.source().unwrap().to_string(), "cause");
        assert!(copy.source().unwrap().is::<std::io::Error>());
    }

    #[test]
    fn json_leaves_out_what_is_empty_and_reads_back() {
        let json = serde_json::to_string(&Status::not_found("no")).unwrap();
        assert_eq!(json, r#"{"code":5,"message":"no"}"#);
        assert_eq!(
            serde_json::from_str::<Status>(&json).unwrap(),
            Status::not_found("no")
        );
        let json = serde_json::to_string(&full()).unwrap();
        let back: Status = serde_json::from_str(&json).unwrap();
        assert_eq!(back, full());
        assert_eq!(back.execution(), Execution::NotExecuted);
        assert!(back.source().is_none() && back.phases().is_none());
        assert!(serde_json::from_str::<Status>(r#"{"message":"x"}"#).is_err());
    }

    #[test]
    #[cfg(feature = "codec-bincode")]
    fn a_status_inside_another_type_survives_bincode() {
        use crate::codec::{Bincode, Codec, DecodeLimits};
        let mut out = bytes::BytesMut::new();
        Bincode::encode(&(1u8, full()), &mut out).unwrap();
        let (one, back): (u8, Status) = Bincode::decode(&out, &DecodeLimits::new()).unwrap();
        assert_eq!((one, &back), (1, &full()));
        assert_eq!(back.execution(), Execution::NotExecuted);
    }
}
