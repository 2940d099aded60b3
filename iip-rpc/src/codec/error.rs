//! Errors of codecs.

use std::fmt;

use iip_core::Printable;

use super::id::CodecId;
use crate::compression::id::CompressionId;
use crate::status::{Code, Execution, Status};

/// The reason why a value could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct EncodeError(Box<EncodeErrorKind>);

/// The reasons for an [`EncodeError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeErrorKind {
    /// This build does not have the codec.
    #[error("{0} is not supported by this build; {remedy}", remedy = .0.remedy())]
    Unsupported(CodecId),
    /// A sequence or map did not announce its number of elements, which `#[serde(flatten)]` causes.
    #[error(
        "bincode and postcard need the length of a sequence or map beforehand; avoid \
         `serde(flatten)` or choose json or msgpack"
    )]
    UnknownLength,
    /// A field is left out, and the receiver would take the next one for it.
    #[error(
        "the field `{field}` is left out, and bincode and postcard identify fields by their \
         position; remove `serde(skip_serializing_if)` or choose json or msgpack"
    )]
    SkippedField {
        /// The name of the field.
        field: &'static str,
    },
    /// A sequence, a map or a struct has a different number of parts than its `Serialize`
    /// announced.
    #[error("{announced} parts were announced, and {written} were written")]
    WrongLength {
        /// The number that was announced.
        announced: usize,
        /// The number that was written.
        written: usize,
    },
    /// Values are nested deeper than receivers accept.
    #[error("nested deeper than the limit of {limit} levels that receivers accept")]
    TooDeep {
        /// The limit in levels.
        limit: u16,
    },
    /// A floating-point number is NaN or infinite.
    #[error(
        "NaN and infinities have no form in json; send an option or a string, or choose another \
         codec"
    )]
    NotFinite,
    /// The elements of a sequence take no bytes at all. A receiver must reject them: a few bytes
    /// could claim any number.
    #[error(
        "a sequence of {elements} elements that take no bytes cannot be sent in bincode and \
         postcard; send their number"
    )]
    EmptyElements {
        /// Number of elements.
        elements: usize,
    },
    /// The value's own `Serialize` failed, or the codec cannot represent the value.
    #[error("{0}")]
    Value(String),
}

impl EncodeError {
    #[cold]
    pub(crate) fn new(kind: EncodeErrorKind) -> Self {
        Self(Box::new(kind))
    }

    #[cold]
    pub(crate) fn unsupported(codec: CodecId) -> Self {
        Self::new(EncodeErrorKind::Unsupported(codec))
    }

    /// Returns the reason.
    #[must_use]
    pub fn kind(&self) -> &EncodeErrorKind {
        &self.0
    }
}

impl serde::ser::Error for EncodeError {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(EncodeErrorKind::Value(text.to_string()))
    }
}

/// The reason why bytes are not a value of the expected type, or are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(Box<(DecodeErrorKind, Option<&'static str>)>);

/// The reasons for a [`DecodeError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// This build does not have the codec.
    #[error("{0} is not supported by this build; {remedy}", remedy = .0.remedy())]
    Unsupported(CodecId),
    /// The encoding exceeds the limit on its size.
    #[error("a value of {size} bytes is over the limit of {limit} bytes (max_message_bytes)")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// This build cannot decompress the encoding.
    #[error("{0} is not supported by this build; {remedy}", remedy = .0.remedy())]
    UnsupportedCompression(CompressionId),
    /// The ratio of the encoding to its compressed form exceeds the limit.
    #[error(
        "a value of {size} bytes in {compressed} compressed bytes is over the ratio of {limit} \
         (max_compression_ratio)"
    )]
    TooCompressed {
        /// Its size in bytes, as announced.
        size: usize,
        /// Number of bytes that were received.
        compressed: usize,
        /// The maximum ratio.
        limit: usize,
    },
    /// The compressed form is damaged.
    #[error("the compressed bytes cannot be read: {}", Printable(.0))]
    Compressed(String),
    /// Values are nested deeper than the limit.
    #[error("nested deeper than the limit of {limit} levels (max_depth)")]
    TooDeep {
        /// The limit in levels.
        limit: u16,
    },
    /// Decoding nested values takes more stack than is safe.
    #[error("nested so deep that reading takes more than {limit} bytes of stack")]
    TooMuchStack {
        /// The limit in bytes.
        limit: usize,
    },
    /// A text, a byte string, a sequence or a map claims to be longer than the rest of the message.
    #[error("a length of {claimed} is claimed where only {left} bytes are left")]
    TooLong {
        /// The claimed number of bytes or elements.
        claimed: u64,
        /// Number of bytes that are left.
        left: usize,
    },
    /// An element of a sequence or map took no bytes, so that any number could have been claimed.
    #[error("an element of a sequence or map takes no bytes")]
    EmptyElement,
    /// The message ends within the value.
    #[error("the message ends {missing} bytes too early")]
    UnexpectedEnd {
        /// Minimum number of missing bytes.
        missing: usize,
    },
    /// The value ends before the message does.
    #[error("{left} bytes follow after the end of the value")]
    TrailingBytes {
        /// Number of bytes.
        left: usize,
    },
    /// The codec is not self-describing, and the type requires that.
    #[error("{0}")]
    NotSelfDescribing(&'static str),
    /// The bytes are not a value of the type. The text may contain what the peer has sent.
    #[error("{}", Printable(.0))]
    Value(String),
}

impl DecodeError {
    #[cold]
    pub(crate) fn new(kind: DecodeErrorKind) -> Self {
        Self(Box::new((kind, None)))
    }

    #[cold]
    pub(crate) fn unsupported(codec: CodecId) -> Self {
        Self::new(DecodeErrorKind::Unsupported(codec))
    }

    /// Sets the argument of a call in which the error occurred.
    #[cold]
    pub(crate) fn in_argument(mut self, name: &'static str) -> Self {
        self.0.1 = Some(name);
        self
    }

    /// Returns the reason.
    #[must_use]
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.0
    }

    /// Returns the argument that could not be read, if it was one.
    #[must_use]
    pub fn argument(&self) -> Option<&'static str> {
        self.0.1
    }

    /// Returns the status for a request that could not be read: the method did not run.
    #[must_use]
    pub fn request_status(&self) -> Status {
        let code = match self.kind() {
            DecodeErrorKind::TooLarge { .. } | DecodeErrorKind::TooCompressed { .. } => {
                Code::ResourceExhausted
            }
            DecodeErrorKind::Unsupported(_) | DecodeErrorKind::UnsupportedCompression(_) => {
                Code::Unimplemented
            }
            _ => Code::InvalidArgument,
        };
        Status::new(code, self.to_string()).with_execution(Execution::NotExecuted)
    }

    /// Returns the status for a reply that could not be read: the method did run.
    #[must_use]
    pub fn reply_status(&self) -> Status {
        let code = match self.kind() {
            DecodeErrorKind::TooLarge { .. } | DecodeErrorKind::TooCompressed { .. } => {
                Code::ResourceExhausted
            }
            _ => Code::Internal,
        };
        Status::new(code, format!("the reply cannot be read: {self}"))
            .with_told_source(self.clone())
    }
}

impl DecodeError {
    /// Returns the status for arguments, or a message from a caller, that could not be read.
    pub(crate) fn status_of_request(&self, what: &str, codec: CodecId) -> Status {
        self.request_status().reworded(self.explained(what, codec))
    }

    /// Returns the status for a reply, or a message of it, that could not be read.
    pub(crate) fn status_of_reply(&self, what: &str, codec: CodecId) -> Status {
        self.reply_status().reworded(self.explained(what, codec))
    }

    #[cold]
    fn explained(&self, what: &str, codec: CodecId) -> String {
        let hint = match self.kind() {
            DecodeErrorKind::TooLong { .. }
            | DecodeErrorKind::EmptyElement
            | DecodeErrorKind::UnexpectedEnd { .. }
            | DecodeErrorKind::TrailingBytes { .. }
            | DecodeErrorKind::Value(_) => "; the types of client and server may differ",
            _ => "",
        };
        format!("cannot read the {what} in {codec}: {self}{hint}")
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.argument() {
            write!(f, "argument `{name}`: ")?;
        }
        write!(f, "{}", self.kind())
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(DecodeErrorKind::Value(text.to_string()))
    }
}
