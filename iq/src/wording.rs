//! Texts of the library, whose options have other names on the command line.

use std::borrow::Cow;

use iip_core::Printable;
use iip_rpc::Status;

/// Names of the library, and those of the command line.
const NAMES: &[(&str, &str)] = &[
    (
        "option timeout of the client, of its CallOptions, or of the method",
        "option --timeout",
    ),
    (
        "option timeout of the call or of the client",
        "option --timeout",
    ),
    ("option connect_timeout", "option --connect-timeout"),
    ("option tls of the client", "option --tls"),
    ("ClientTls::roots_file", "--ca"),
    ("ClientTls::roots_pem", "--ca"),
    ("ClientTls::identity_files", "--cert and --key"),
    ("ClientTls::server_name", "--server-name"),
    ("ServerTls::from_files", "--cert and --key"),
    ("ServerTls::client_roots_file", "--ca"),
    ("`schema::file::to_text`", "`iq schema save`"),
    (
        "; pass a source of your own to `ClientBuilder::discover`",
        "",
    ),
];

/// Returns a text of the library with the names of the command line.
pub(crate) fn in_options(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for (name, option) in NAMES {
        if text.contains(name) {
            text = text.replace(name, option).into();
        }
    }
    text
}

/// Returns the text of a status. One that the server has sent is unchanged: it may be about options
/// of the server. For others, the text ends with what became of the call.
pub(crate) fn of_status(status: &Status) -> String {
    if !is_reply(status) {
        return in_options(&status.to_string()).into_owned();
    }
    match status.message() {
        "" => status.code().to_string(),
        message => format!("{}: {}", status.code(), Printable(message)),
    }
}

/// Returns the message of a status, for programs.
pub(crate) fn message_of(status: &Status) -> Cow<'_, str> {
    match is_reply(status) {
        true => status.message().into(),
        false => in_options(status.message()),
    }
}

/// Returns `true` if the server has sent this status: it is the outcome of a call, and has no cause
/// on this side.
pub(crate) fn is_reply(status: &Status) -> bool {
    status.phases().is_some() && status.cause().is_none()
}

#[cfg(test)]
mod tests {
    use iip_rpc::status::{Execution, Phases};

    use super::*;

    #[test]
    fn a_reply_is_unchanged_and_other_failures_name_options_and_doubt() {
        let text = "no reply in time (option timeout of the call or of the client)";
        let status = Status::unavailable(text).with_execution(Execution::NotSent);
        let own = "unavailable: no reply in time (option --timeout) [not sent]";
        assert_eq!(of_status(&status), own);
        let reply = status.with_phases(Phases::default());
        assert_eq!(of_status(&reply), format!("unavailable: {text}"));
        assert_eq!(message_of(&reply), text);
        let lost = reply.with_source(std::io::Error::other("lost"));
        assert!(of_status(&lost).contains("[not sent, after"), "{lost}");
    }
}
