//! The reasons why a handler was not run, or has failed.

use crate::stats::UNKNOWN;

/// The reason why the reply to a request does not come from its handler.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The server is shutting down.
    #[error("server is shutting down")]
    ShuttingDown,
    /// The server is at capacity.
    #[error("server runs {limit} calls already (option max_running_calls)")]
    Overloaded {
        /// The limit in force.
        limit: usize,
    },
    /// The server runs many calls, and most of them are for this peer.
    #[error(
        "this peer runs more than its share of the {limit} calls that the server may run (option \
         max_running_calls)"
    )]
    ShareTaken {
        /// The limit of all peers together.
        limit: usize,
    },
    /// The server is at capacity for calls of this kind, see [`Places`](crate::Places).
    #[error("server runs {limit} calls of this kind already (option {option})")]
    NoPlace {
        /// The option to change.
        option: &'static str,
        /// The limit in force.
        limit: usize,
    },
    /// The connection is at capacity.
    #[error("the connection runs {limit} calls already (option max_calls)")]
    ConnectionBusy {
        /// The limit in force.
        limit: usize,
    },
    /// The calls of the connection hold all the bytes that the limit allows.
    #[error(
        "{size} bytes more would exceed what the calls of the connection may hold (option \
         max_buffered_bytes)"
    )]
    OutOfMemory {
        /// The number of bytes that would have been held for this call.
        size: usize,
    },
    /// The handler has run, but its reply was dropped because the peer does not read the replies
    /// before it.
    #[error(
        "a reply of {size} bytes was dropped because the caller has not read {unread} bytes \
         before it (option max_buffered_bytes)"
    )]
    Unread {
        /// The size of the reply, in bytes.
        size: usize,
        /// The number of bytes that waited for the caller to read them.
        unread: usize,
    },
    /// The caller opened a stream to a method that does not take one.
    #[error("this method takes no stream")]
    NoStream,
    /// The request exceeds the limit.
    #[error(
        "request of {size} bytes or more exceeds the limit of {limit} bytes (option \
         max_message_bytes)"
    )]
    TooLarge {
        /// The number of bytes that had arrived when it was rejected.
        size: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
}

/// The failure of a handler. Its text is sent to the caller as
/// `{"code":-1,"message":"handler fail:TEXT"}`.
///
/// Only the text given here is sent to the peer. Source of the format: recording `handler_error`.
/// The server logs it, see [`ServerBuilder::log_failures`](crate::ServerBuilder::log_failures).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct HandlerError {
    text: String,
    logged: bool,
    code: u8,
}

impl HandlerError {
    /// Creates a failure with this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            logged: false,
            code: UNKNOWN,
        }
    }

    /// Sets the number of the status code with which the statistics count the call. Default: 2,
    /// UNKNOWN.
    #[must_use]
    pub fn with_status_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub(crate) fn status_code(&self) -> u8 {
        self.code
    }

    /// Marks a failure that is in the log already, through
    /// [`Peer::log_failure`](crate::Peer::log_failure).
    #[must_use]
    pub fn already_logged(mut self) -> Self {
        self.logged = true;
        self
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.logged
    }
}

impl From<String> for HandlerError {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for HandlerError {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
