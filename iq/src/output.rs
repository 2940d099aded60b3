//! Output: data to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::Args;
use iip_core::Printable;
use serde::Serialize;
use serde_json::json;

use crate::exit::{Failure, Outcome};
use crate::wording::{in_options, is_reply, message_of};

/// Options of the output.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print one JSON object per line, each with a `type`; errors too, on stderr.
    #[arg(long, global = true)]
    json: bool,
    /// Print only errors on stderr.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print details of the connection, and how long each step takes, on stderr.
    #[arg(long, short, global = true)]
    verbose: bool,
}

/// Writes data, notes and errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    args: OutputArgs,
    ignores_broken_pipe: bool,
}

/// An object of JSON output.
#[derive(Serialize)]
struct Typed<'a, T> {
    r#type: &'a str,
    #[serde(flatten)]
    value: T,
}

impl Output {
    pub(crate) fn new(args: OutputArgs) -> Self {
        Self {
            args,
            ignores_broken_pipe: false,
        }
    }

    /// Drops what nobody reads any more instead of failing, for commands that do more than print.
    pub(crate) fn ignore_broken_pipe(self, ignore: bool) -> Self {
        Self {
            ignores_broken_pipe: ignore,
            ..self
        }
    }

    /// Creates an output in JSON.
    pub(crate) fn json() -> Self {
        Self::new(OutputArgs {
            json: true,
            ..OutputArgs::default()
        })
    }

    /// Returns `true` if data are JSON objects with a type.
    pub(crate) fn is_json(&self) -> bool {
        self.args.json
    }

    /// Returns `true` if only errors are printed on stderr.
    pub(crate) fn is_quiet(&self) -> bool {
        self.args.quiet
    }

    /// Writes a line of data.
    pub(crate) fn line(&self, text: impl Display) -> Outcome {
        let mut out = io::stdout().lock();
        self.written(writeln!(out, "{text}").and_then(|()| out.flush()))
    }

    /// Writes a line with JSON from a server.
    pub(crate) fn json_line(&self, json: &str) -> Outcome {
        self.line(harmless(json))
    }

    /// Writes JSON from a server, indented, with a line for each value.
    pub(crate) fn json_lines(&self, json: &str) -> Outcome {
        indented(json)
            .lines()
            .try_for_each(|line| self.json_line(line))
    }

    /// Writes data unchanged.
    pub(crate) fn bytes(&self, data: &[u8]) -> Outcome {
        let mut out = io::stdout().lock();
        self.written(out.write_all(data).and_then(|()| out.flush()))
    }

    /// Writes a JSON object with this type and the fields of `value`.
    pub(crate) fn object(&self, r#type: &str, value: impl Serialize) -> Outcome {
        self.line(object(r#type, value)?)
    }

    /// Writes an object if the output is JSON, and a line otherwise.
    pub(crate) fn either(
        &self,
        r#type: &str,
        value: impl Serialize,
        line: impl Display,
    ) -> Outcome {
        match self.is_json() {
            true => self.object(r#type, value),
            false => self.line(line),
        }
    }

    /// Writes a note on stderr, unless `--quiet` is set. Its text may come from a server.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.args.quiet {
            self.remark("note", "note", "33", text);
        }
    }

    /// Writes an error on stderr that does not end the command. Its text may come from a server.
    pub(crate) fn error(&self, text: impl Display) {
        self.remark("error", "error", "31", text);
    }

    /// Writes a text on stderr if `--verbose` is set. It may have several lines.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.args.verbose {
            for line in text.to_string().lines() {
                self.remark("detail", "iq", "2", line);
            }
        }
    }

    /// Writes the failure of the command on stderr.
    pub(crate) fn failure(&self, failure: &Failure) {
        match failure {
            Failure::BrokenPipe => {}
            Failure::Interrupted if !self.is_json() => {}
            failure if self.is_json() => self.failure_object(failure),
            failure => error_line("error", "31", failure),
        }
        if let Failure::Status(status) = failure
            && let Some(phases) = status.phases().filter(|_| is_reply(status))
        {
            self.detail(format_args!("{}, after {phases}", status.execution()));
        }
    }

    /// Writes a text on stderr that does not end the command.
    fn remark(&self, r#type: &str, label: &str, colour: &str, text: impl Display) {
        let text = text.to_string();
        let text = in_options(&text);
        match self.is_json() {
            true => error_object(r#type, json!({ "message": text })),
            false => error_line(label, colour, &Printable(text)),
        }
    }

    fn failure_object(&self, failure: &Failure) {
        let mut value = json!({
            "kind": failure.kind(),
            "message": failure.to_string(),
            "exit": failure.code(),
        });
        match failure {
            Failure::Status(status) => {
                value["code"] = status.code().name().into();
                value["message"] = message_of(status).into();
                value["execution"] = status.execution().to_string().into();
                if !status.details().is_empty() {
                    let details = String::from_utf8_lossy(status.details());
                    value["details"] = details.into();
                }
            }
            Failure::Method(error) => {
                value["code"] = "UNKNOWN".into();
                value["error"] = serde_json::from_str(error).unwrap_or_default();
            }
            _ => {}
        }
        error_object("error", value);
    }

    fn written(&self, result: io::Result<()>) -> Outcome {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => match self.ignores_broken_pipe {
                true => Ok(()),
                false => Err(Failure::BrokenPipe),
            },
            result => result
                .map_err(|error| Failure::Own(format!("the output cannot be written: {error}"))),
        }
    }
}

// A failure to write on stderr cannot be reported.

fn error_object(r#type: &str, value: impl Serialize) {
    if let Ok(line) = object(r#type, value) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

fn error_line(label: &str, colour: &str, text: &dyn Display) {
    let mut err = io::stderr().lock();
    let _ = match is_coloured() {
        true => writeln!(err, "\u{1b}[{colour}m{label}:\u{1b}[0m {text}"),
        false => writeln!(err, "{label}: {text}"),
    };
}

/// Returns a line with an object of JSON output.
pub(crate) fn object(r#type: &str, value: impl Serialize) -> Outcome<String> {
    serde_json::to_string(&Typed { r#type, value })
        .map(|json| harmless(&json))
        .map_err(|error| Failure::Own(format!("the output cannot be written in JSON: {error}")))
}

/// Returns JSON in one line, without characters that move the cursor or change the direction of
/// text.
fn harmless(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            ' '..='~' => line.push(c),
            // These occur only between values: in strings they are escaped.
            '\n' | '\r' | '\t' => line.push(' '),
            c if Printable(c).to_string().chars().count() > 1 => {
                line.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => line.push(c),
        }
    }
    line
}

/// Returns indented JSON with a line for each value. Numbers and strings are unchanged.
fn indented(json: &str) -> String {
    let mut out = String::new();
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut chars = json
        .chars()
        .filter(|c| !matches!(c, '\n' | '\r' | '\t'))
        .peekable();
    while let Some(c) = chars.next() {
        if in_text {
            out.push(c);
            in_text = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
            continue;
        }
        let new_line = |out: &mut String, depth: usize| {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        };
        match c {
            ' ' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if_eq(&' ').is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_text = c == '"';
                out.push(c);
            }
        }
    }
    out
}

/// Returns `true` if stderr is a terminal, and the user has not disabled colours.
fn is_coloured() -> bool {
    allows_colours() && io::stderr().is_terminal()
}

/// Returns `false` if the user has disabled colours with `NO_COLOR`, or the terminal has none.
pub(crate) fn allows_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_a_server_is_one_line_and_moves_no_cursor() {
        let json = "{\"a\":\n\t\"\u{9b}31m\u{202e}\u{e9}\\n\"}";
        assert_eq!(harmless(json), "{\"a\":  \"\\u009b31m\\u202e\u{e9}\\n\"}");
        let before: serde_json::Value = serde_json::from_str(json).unwrap();
        let after: serde_json::Value = serde_json::from_str(&harmless(json)).unwrap();
        assert_eq!(before, after);
    }

    #[test]
    fn indented_json_has_the_same_values() {
        let json = r#"{"a": [1,{ },[] , 2.50],"b\\\"":"x, {y}: \"[","n":18446744073709551616}"#;
        let wanted = "{\n  \"a\": [\n    1,\n    {},\n    [],\n    2.50\n  ],\n  \
                      \"b\\\\\\\"\": \"x, {y}: \\\"[\",\n  \"n\": 18446744073709551616\n}";
        assert_eq!(indented(json), wanted);
    }
}
