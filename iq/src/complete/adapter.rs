//! The common parts of the adapters of the shells.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::engine::{self, CompletionCandidate};

/// Returns the candidates for the word at `index`. Options are left out if the word is empty:
/// otherwise, a shell would not insert the common beginning of the other candidates, and would
/// insert the dashes if there are no others.
pub(super) fn candidates(
    cmd: &mut clap::Command,
    args: Vec<OsString>,
    index: usize,
    current_dir: Option<&Path>,
) -> io::Result<Vec<CompletionCandidate>> {
    let is_empty = args.get(index).is_none_or(|word| word.is_empty());
    let all = engine::complete(cmd, args, index, current_dir)?;
    let is_option = |one: &CompletionCandidate| one.get_value().to_string_lossy().starts_with('-');
    let fits = |one: &CompletionCandidate| !is_empty || !is_option(one);
    Ok(all.into_iter().filter(fits).collect())
}

/// Returns the index of the word at the cursor, if the shell has passed it.
pub(super) fn index() -> Option<usize> {
    std::env::var("_CLAP_COMPLETE_INDEX").ok()?.parse().ok()
}

/// Writes the script that registers the completions of `{bin}` with a shell. It runs `{completer}`,
/// in single quotes, with the name of the shell in the variable `{var}`.
pub(super) fn write_script(
    script: &str,
    var: &str,
    bin: &str,
    completer: &str,
    buf: &mut dyn Write,
) -> io::Result<()> {
    let completer = completer.replace('\'', r"'\''");
    let script = script.replace("{var}", var).replace("{bin}", bin);
    buf.write_all(script.replace("{completer}", &completer).as_bytes())
}

/// Writes a line for each candidate: its value, then a tab and its help.
pub(super) fn write_lines(
    candidates: &[CompletionCandidate],
    buf: &mut dyn Write,
) -> io::Result<()> {
    for candidate in candidates {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string);
        match help.as_deref().and_then(|help| help.lines().next()) {
            Some(help) => writeln!(buf, "{value}\t{help}")?,
            None => writeln!(buf, "{value}")?,
        }
    }
    Ok(())
}
