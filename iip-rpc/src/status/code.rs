//! Codes of failures, with the numbers of gRPC.

use std::fmt;

use iip_core::stats::CODE_NAMES;
use serde::{Deserialize, Serialize};

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
/// [`Status::execution`](super::Status::execution) says whether a call can be retried without harm.
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
        CODE_NAMES[self as usize]
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
#[error("{0} is not a status code, which is a number from 0 to 16")]
pub struct UnknownCode(u8);

#[cfg(test)]
mod tests {
    use super::*;

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
            "17 is not a status code, which is a number from 0 to 16"
        );
    }
}
