//! Status of a call that failed: the status code, the message, the time spent in each phase, and
//! whether the call may have run.

mod code;
mod method_error;
mod serde;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use iip_core::{BackendAttempt, Printable};
pub use iip_core::{Execution, Phases};

pub use self::code::{Code, UnknownCode};
pub use self::method_error::MethodError;
use crate::metadata::{Metadata, MetadataError};

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
    /// The number of bytes of the message before the backends that were tried, if it lists them.
    own_bytes: Option<usize>,
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
            own_bytes: None,
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

    /// The message without the backends that this side has tried, which it lists with their
    /// addresses: for replies to callers who must not learn them.
    #[must_use]
    pub fn own_message(&self) -> &str {
        let message = self.message();
        let own = self.0.own_bytes.and_then(|bytes| message.get(..bytes));
        own.unwrap_or(message)
    }

    /// Adds the backends that a call was sent to without success.
    #[cold]
    pub(crate) fn with_tried(self, tried: &[BackendAttempt]) -> Self {
        if tried.is_empty() {
            return self;
        }
        let own = self.own_message().len();
        let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
        let text = format!("{}; backends tried: {}", self.message(), tried.join(", "));
        let mut status = self.reworded(text);
        status.0.own_bytes = Some(own);
        status
    }

    /// Replaces the message.
    pub(crate) fn reworded(mut self, message: String) -> Self {
        self.0.message = message.into();
        self.0.own_bytes = None;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let rejected = Status::unavailable("draining").with_execution(Execution::NotExecuted);
        assert_eq!(rejected.to_string(), "unavailable: draining [not executed]");
    }

    #[test]
    fn a_text_of_a_peer_moves_no_cursor_and_ends_no_line() {
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
        let mut phases = Phases::default();
        phases.connect = Duration::from_micros(1_234);
        phases.write = Duration::from_nanos(900);
        phases.reply = Duration::from_millis(498);
        phases.server_queue = Some(Duration::from_micros(12));
        phases.server_handler = Some(Duration::from_secs(1));
        let status = Status::deadline_exceeded("no reply within 500 ms").with_phases(phases);
        assert_eq!(
            status.to_string(),
            "deadline exceeded: no reply within 500 ms [may have executed, after 499 ms: connect \
             1.2 ms, write 900 ns, reply 498 ms of which queue 12 µs, handler 1 s]"
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
