//! The command line up to the cursor.

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::{ArgMatches, Command, FromArgMatches};

use super::adapter::index;
use super::bash;
use crate::connection::ConnectArgs;
use crate::go_options::with_long_options;

static LINE: OnceLock<Line> = OnceLock::new();

/// The line to complete.
#[derive(Debug)]
struct Line {
    command: fn() -> Command,
    /// The words before the cursor.
    words: Vec<OsString>,
}

/// The arguments before the cursor.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) target: Option<String>,
    pub(super) method: Option<String>,
    /// The arguments of a call.
    pub(super) args: Vec<String>,
    pub(super) connect: Option<ConnectArgs>,
    /// Set if a target of the command may be a file.
    pub(super) may_be_file: bool,
}

/// Stores the words that a shell has passed after `--`, which are arguments of `command`.
pub(super) fn remember(args: &[OsString], command: fn() -> Command) {
    let after = args
        .iter()
        .position(|arg| arg == "--")
        .map_or(args.len(), |at| at + 1);
    let mut words = args[after..].to_vec();
    let mut index = index();
    if std::env::var_os("COMPLETE").is_some_and(|shell| shell == "bash") {
        let joined = bash::joined(&words, index.unwrap_or(0));
        (words, index) = (joined.words, Some(joined.index));
    }
    let before = index.unwrap_or_else(|| words.len().saturating_sub(1));
    words.truncate(before);
    // This function is called once.
    let _ = LINE.set(Line { command, words });
}

/// Reads the line before the cursor.
pub(super) fn given() -> Given {
    let Some(line) = LINE.get() else {
        return Given::default();
    };
    let words = with_long_options(line.words.iter().cloned());
    let command = (line.command)().ignore_errors(true);
    let Ok(matches) = command.try_get_matches_from(words) else {
        return Given::default();
    };
    let (mut name, mut inner) = matches.subcommand().unwrap_or(("", &matches));
    if let Some((deeper, matches)) = inner.subcommand().filter(|_| !name.is_empty()) {
        (name, inner) = (deeper, matches);
    }
    Given {
        target: text(inner, "target"),
        method: text(inner, "method"),
        args: texts(inner, "args"),
        connect: ConnectArgs::from_arg_matches(inner).ok(),
        may_be_file: matches!(name, "list" | "describe" | "diff" | "check" | "openapi"),
    }
}

fn text(matches: &ArgMatches, id: &str) -> Option<String> {
    matches.try_get_one::<String>(id).ok().flatten().cloned()
}

fn texts(matches: &ArgMatches, id: &str) -> Vec<String> {
    let given = matches.try_get_many::<String>(id).ok().flatten();
    given.map(|all| all.cloned().collect()).unwrap_or_default()
}
