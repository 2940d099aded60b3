//! Calls by their status codes.

use crate::error::CallErrorKind;
use crate::handler_error::RejectReason;

/// The names of the status codes of gRPC, by their numbers.
pub const CODE_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(crate) const OK: u8 = 0;
pub(crate) const CANCELLED: u8 = 1;
pub(crate) const UNKNOWN: u8 = 2;
pub(crate) const INVALID_ARGUMENT: u8 = 3;
pub(crate) const DEADLINE_EXCEEDED: u8 = 4;
pub(crate) const PERMISSION_DENIED: u8 = 7;
pub(crate) const RESOURCE_EXHAUSTED: u8 = 8;
pub(crate) const FAILED_PRECONDITION: u8 = 9;
pub(crate) const UNIMPLEMENTED: u8 = 12;
pub(crate) const INTERNAL: u8 = 13;
pub(crate) const UNAVAILABLE: u8 = 14;
const DATA_LOSS: u8 = 15;

/// The codes of [`is_error`].
const ERRORS: [u8; 7] = [
    UNKNOWN,
    DEADLINE_EXCEEDED,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    INTERNAL,
    UNAVAILABLE,
    DATA_LOSS,
];

/// Returns `true` if a call with the code of this number failed because of the server or the
/// network: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE or
/// DATA_LOSS. All other failures are those of the call itself.
///
/// UNKNOWN is also the code of the errors of a method's own type.
#[must_use]
pub fn is_error(code: u8) -> bool {
    ERRORS.contains(&code)
}

impl CallErrorKind {
    /// Returns the number of the status code for a call that failed for this reason.
    #[doc(hidden)]
    #[must_use]
    pub fn status_code(&self) -> u8 {
        match self {
            Self::Timeout => DEADLINE_EXCEEDED,
            Self::QueueFull { .. }
            | Self::MessageTooLarge { .. }
            | Self::BufferFull { .. }
            | Self::ChannelRejected { .. } => RESOURCE_EXHAUSTED,
            Self::EmptyBody | Self::InvalidPath(_) | Self::Config(_) => INVALID_ARGUMENT,
            Self::Closed | Self::Unfinished => CANCELLED,
            Self::NoRuntime | Self::RejectedByPolicy { .. } => FAILED_PRECONDITION,
            // A connection that is missing, or was lost, may come back.
            _ => UNAVAILABLE,
        }
    }
}

impl RejectReason {
    /// Returns the number of the status code for a call that is rejected for this reason.
    #[doc(hidden)]
    #[must_use]
    pub fn status_code(&self) -> u8 {
        match self {
            Self::ShuttingDown => UNAVAILABLE,
            Self::NoStream => UNIMPLEMENTED,
            _ => RESOURCE_EXHAUSTED,
        }
    }
}

/// Numbers of calls by status code: the seventeen of gRPC, with the same numbers and names.
///
/// Typed calls count by the code of their status, and UNKNOWN for a method's own error. Raw calls
/// count as OK if there is a reply, whatever it contains; a handler that failed counts as UNKNOWN,
/// and one that panicked as INTERNAL. Failures of the connection, timeouts and limits have the codes
/// that they have for typed calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Codes([u64; CODE_NAMES.len()]);

impl Codes {
    pub(super) const fn new(counts: [u64; CODE_NAMES.len()]) -> Self {
        Self(counts)
    }

    /// Adds calls with the code of this number. If there is no such code, nothing happens.
    pub fn add(&mut self, code: u8, calls: u64) {
        if let Some(count) = self.0.get_mut(usize::from(code)) {
            *count = count.saturating_add(calls);
        }
    }

    /// Returns the number of calls with the code of this number, such as 5 for NOT_FOUND; 0 if there
    /// is no such code.
    #[must_use]
    pub fn get(&self, code: u8) -> u64 {
        self.0.get(usize::from(code)).copied().unwrap_or(0)
    }

    /// Returns the number of calls that succeeded.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.get(0)
    }

    /// Returns the number of calls that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.0.iter().skip(1).sum()
    }

    /// Returns the number of calls that failed because of the server or the network, see
    /// [`is_error`].
    #[must_use]
    pub fn errors(&self) -> u64 {
        ERRORS.iter().map(|&code| self.get(code)).sum()
    }

    /// Returns the number of all calls.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns the codes that calls ended with, in the order of their numbers: the number, the name
    /// and the number of calls.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'static str, u64)> + '_ {
        let named = (0_u8..).zip(CODE_NAMES).zip(self.0);
        named
            .filter(|&(_, count)| count > 0)
            .map(|((code, name), count)| (code, name, count))
    }

    /// Adds other calls.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Returns the calls that were counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.0.iter_mut().zip(earlier.0) {
            *count = count.saturating_sub(before);
        }
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_by_the_number_of_their_code() {
        let mut counts = [0; CODE_NAMES.len()];
        (counts[0], counts[5]) = (7, 2);
        let codes = Codes::new(counts);
        assert_eq!((codes.ok(), codes.failed(), codes.total()), (7, 2, 9));
        assert_eq!((codes.get(5), codes.get(17)), (2, 0));
        let listed: Vec<_> = codes.iter().collect();
        assert_eq!(listed, [(0, "OK", 7), (5, "NOT_FOUND", 2)]);
        let mut twice = codes;
        twice.merge(&codes);
        assert_eq!(twice.since(&codes), codes);
    }
}
