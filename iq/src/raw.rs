//! A raw request, as Go's iq sends it.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::Path;

use clap::CommandFactory;
use iip_core::balance::Target;
use iip_core::{CallError, Printable};
use iip_rpc::envelope::PlainError;
use iip_rpc::{Code, Status};
use serde_json::json;
use tokio::io::AsyncReadExt;

pub(crate) use crate::address::split;
use crate::args::{Cli, RawArgs};
use crate::closest;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::live::without_user;
use crate::output::Output;

/// The body of a request without data, as in Go's iq: a frame cannot be empty.
const EMPTY: &str = "{}";

/// Maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Maximum size of a reply that may be an error of the protocol, in bytes.
const MAX_ERROR_BYTES: usize = 4096;

/// Sends the request, and writes the reply as it arrives.
pub(crate) async fn run(args: &RawArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let Some(uri) = &args.uri else {
        return Err(Failure::Usage(
            "a command, or what to call, is missing: try `iq --help`".to_owned(),
        ));
    };
    let (target, path) = match &args.path {
        Some(path) => (uri.as_str(), path.as_str()),
        None => split(uri).ok_or_else(|| not_split(uri))?,
    };
    if !path.starts_with('/') {
        let mistyped = mistyped_command(&["iq", target]).filter(|_| !connect.is_named(target));
        return Err(mistyped.unwrap_or_else(|| not_a_path(target, path)));
    }
    if connect.has_metadata() {
        let text = "raw requests carry no metadata: use `iq call`";
        return Err(Failure::Usage(text.to_owned()));
    }
    let body = body(args.data.as_deref(), args.data_file.as_deref()).await?;
    let connection = connect.connect(target, output).await?;
    let client = connection.client.raw();
    let replying = async {
        let failed = |error: CallError| Failure::from(status_of(&error));
        let mut parts = client.stream(path, body).await.map_err(failed)?;
        let (mut beginning, mut ends_line, mut written) = (Vec::new(), true, Ok(()));
        while let Some(part) = parts.next().await {
            let part = part.map_err(failed)?;
            if beginning.len() <= MAX_ERROR_BYTES {
                beginning.extend_from_slice(&part);
            }
            ends_line = part.ends_with(b"\n");
            written = match (output.is_json(), str::from_utf8(&part)) {
                (false, _) => output.bytes(&part),
                (true, Ok(text)) => output.object("part", json!({ "data": text })),
                (true, Err(_)) => output.object("part", json!({"bytes": part.to_vec()})),
            };
            if written.is_err() {
                break;
            }
        }
        if written.is_ok() && !ends_line && !output.is_json() && std::io::stdout().is_terminal() {
            written = output.line("");
        }
        Outcome::Ok((beginning, written))
    };
    let within = tokio::time::timeout(connection.remaining(), replying).await;
    let (reply, written) = within.unwrap_or_else(|_| {
        let text = "no reply in time (option --timeout)";
        Err(Status::deadline_exceeded(text).into())
    })?;
    // Only the content distinguishes an error from data.
    match PlainError::read(&reply) {
        Some(error) if reply.len() <= MAX_ERROR_BYTES => {
            let status = error.into_status();
            let method = path.trim_start_matches('/');
            if status.code() == Code::Unimplemented && method.contains('.') {
                let method = Printable(method);
                output.note(format_args!(
                    "to call a method, write `iq call {target} {method}`"
                ));
            }
            Err(status.into())
        }
        _ => written,
    }
}

pub(crate) fn not_split(uri: &str) -> Failure {
    let examples = "write `localhost:7000/echo`, or the path as an argument of its own, as in \
                    `unix:/run/iip.sock /echo`";
    Failure::Usage(match uri.parse::<Target>() {
        Ok(_) => format!(
            "`{uri}` is only an address: the METHOD of `iq call` or `iq bench` is missing, or a \
             path: {examples}"
        ),
        Err(_) => format!(
            "`{}` is neither a command nor an address with a path: {examples}{}",
            without_user(uri),
            closest_command(uri)
        ),
    })
}

/// Returns the error for an argument in the place of a path.
fn not_a_path(target: &str, path: &str) -> Failure {
    Failure::Usage(format!(
        "`{path}` is not a path, which begins with `/`; to call a method, write `iq call {target} \
         {path}`"
    ))
}

/// Returns the error for arguments that begin with a mistyped command, if they do.
pub(crate) fn mistyped_command(args: &[impl AsRef<OsStr>]) -> Option<Failure> {
    let mut words = args.iter().skip(1).filter_map(|arg| arg.as_ref().to_str());
    let first = words.find(|word| !word.starts_with('-'))?;
    let is_command = Cli::command().find_subcommand(first).is_some();
    let hint = closest_command(first);
    (!is_command && !hint.is_empty())
        .then(|| Failure::Usage(format!("`{first}` is not a command{hint}")))
}

/// Returns a hint at the command whose name is close, or nothing.
fn closest_command(name: &str) -> String {
    let program = Cli::command();
    let commands = program.get_subcommands().map(clap::Command::get_name);
    let close = closest::of(name, commands);
    close.map_or_else(String::new, |close| {
        format!("; the closest command is `{close}`")
    })
}

/// Returns the body of the request: the data, the content of a file, or [`EMPTY`].
pub(crate) async fn body(data: Option<&str>, file: Option<&Path>) -> Outcome<Vec<u8>> {
    let body = match (data, file) {
        (Some(data), _) => data.into(),
        (None, Some(file)) => contents(file).await?,
        (None, None) => Vec::new(),
    };
    Ok(match body.is_empty() {
        true => EMPTY.into(),
        false => body,
    })
}

/// Reads a file, or stdin if its name is `-`.
pub(crate) async fn contents(file: &Path) -> Outcome<Vec<u8>> {
    let read = if file == Path::new("-") {
        let mut data = Vec::new();
        let stdin = tokio::io::stdin().take(MAX_FILE_BYTES + 1);
        let mut stdin = std::pin::pin!(stdin);
        stdin.read_to_end(&mut data).await.map(|_| data)
    } else {
        tokio::fs::read(file).await
    };
    match read {
        Ok(data) if data.len() as u64 <= MAX_FILE_BYTES => Ok(data),
        Ok(_) => Err(Failure::Usage(format!(
            "{}: there are more than {MAX_FILE_BYTES} bytes",
            file.display()
        ))),
        Err(error) => Err(Failure::Usage(format!("{}: {error}", file.display()))),
    }
}

/// Returns the failure of a raw call as a status.
pub(crate) fn status_of(error: &CallError) -> Status {
    // `Debug` includes all causes.
    let text = format!("{error:?}");
    let status = match error.is_timeout() {
        true => Status::deadline_exceeded(text),
        false => Status::unavailable(text),
    };
    status.with_execution(error.execution())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_command_is_corrected() {
        let error = not_split("lst").to_string();
        assert!(error.contains("the closest command is `list`"), "{error}");
        for (args, wanted) in [
            (
                &["iq", "--json", "cal", "localhost:7000", "a.b"][..],
                Some("`call`"),
            ),
            (&["iq", "call", "localhost:7000", "a.b", "--nope"], None),
            (&["iq", "localhost:7000", "/a", "b"], None),
            (&["iq", "-x"], None),
        ] {
            let error = mistyped_command(args).map(|failure| failure.to_string());
            assert_eq!(error.is_some(), wanted.is_some(), "{args:?}: {error:?}");
            assert!(
                error
                    .unwrap_or_default()
                    .contains(wanted.unwrap_or_default())
            );
        }
    }
}
