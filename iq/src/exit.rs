//! Failures of commands, and their exit codes.

use std::fmt;
use std::process::ExitCode;

use iip_core::Printable;
use iip_rpc::{Code, Status};

use crate::wording::{in_options, of_status};

/// The reason why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A local operation failed, such as reading a file.
    Own(String),
    /// A check failed. Its findings are in the output already.
    Check(String),
    /// The command line or the configuration is wrong.
    Usage(String),
    /// No connection to a server could be made.
    NotConnected(String),
    /// The call failed.
    Status(Status),
    /// The method returned its own error, in JSON.
    Method(String),
    /// The user has interrupted the command.
    Interrupted,
    /// The reader of the output has closed it.
    BrokenPipe,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Returns the exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Own(_) | Self::Check(_) => 1,
            Self::Usage(_) => 2,
            Self::NotConnected(_) => 3,
            Self::Status(status) => 64 + status.code().as_u8(),
            Self::Method(_) => 64 + Code::Unknown.as_u8(),
            Self::Interrupted => 130,
            // As for a program that SIGPIPE ends.
            Self::BrokenPipe => 141,
        }
    }

    /// Returns the kind of failure, for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Own(_) | Self::BrokenPipe => "own",
            Self::Check(_) => "check",
            Self::Usage(_) => "usage",
            Self::NotConnected(_) => "not_connected",
            Self::Status(_) => "status",
            Self::Method(_) => "method",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Displays one line, without control characters: the text may come from a server.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(text) | Self::Check(text) | Self::NotConnected(text) => {
                Printable(in_options(text)).fmt(f)
            }
            // This text comes from this program, and may have several lines.
            Self::Usage(text) => f.write_str(&in_options(text)),
            Self::Status(status) => f.write_str(&of_status(status)),
            Self::Method(error) => write!(f, "the method's own error: {}", Printable(error)),
            Self::Interrupted => f.write_str("interrupted"),
            Self::BrokenPipe => f.write_str("nobody reads the output"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_exit_code() {
        let text = String::new;
        assert_eq!(Failure::Own(text()).code(), 1);
        assert_eq!(Failure::Check(text()).code(), 1);
        assert_eq!(Failure::Usage(text()).code(), 2);
        assert_eq!(Failure::NotConnected(text()).code(), 3);
        assert_eq!(Failure::Status(Status::not_found("")).code(), 69);
        assert_eq!(Failure::Status(Status::unauthenticated("")).code(), 80);
        assert_eq!(Failure::Method(text()).code(), 66);
        assert_eq!(Failure::Interrupted.code(), 130);
        assert_eq!(Failure::BrokenPipe.code(), 141);
    }

    #[test]
    fn texts_of_servers_move_no_cursor() {
        let failure = Failure::Method("\"\u{1b}[2J\"".to_owned());
        assert_eq!(
            failure.to_string(),
            r#"the method's own error: "\u{1b}[2J""#
        );
    }
}
