//! A raw request, as Go's iq sends it.

use std::io::IsTerminal;
use std::path::Path;

use clap::CommandFactory;
use iip_core::CallError;
use iip_rpc::Status;
use iip_rpc::envelope::PlainError;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::args::{Cli, RawArgs};
use crate::closest;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
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
        let (mut beginning, mut ends_line) = (Vec::new(), true);
        while let Some(part) = parts.next().await {
            let part = part.map_err(failed)?;
            if beginning.len() <= MAX_ERROR_BYTES {
                beginning.extend_from_slice(&part);
            }
            ends_line = part.ends_with(b"\n");
            match (output.is_json(), str::from_utf8(&part)) {
                (false, _) => output.bytes(&part)?,
                (true, Ok(text)) => output.object("part", json!({ "data": text }))?,
                (true, Err(_)) => output.object("part", json!({"bytes": part.to_vec()}))?,
            }
        }
        if !ends_line && !output.is_json() && std::io::stdout().is_terminal() {
            output.line("")?;
        }
        Outcome::Ok(beginning)
    };
    let within = tokio::time::timeout(connection.remaining(), replying).await;
    let reply = within.unwrap_or_else(|_| {
        let text = "no reply in time (option --timeout)";
        Err(Status::deadline_exceeded(text).into())
    })?;
    // Only the content distinguishes an error from data.
    match PlainError::read(&reply) {
        Some(error) if reply.len() <= MAX_ERROR_BYTES => Err(error.into_status().into()),
        _ => Ok(()),
    }
}

/// Splits `HOST:PORT/PATH`, `SCHEME://HOST:PORT/PATH` or `NAME/PATH`; `None` for other forms.
pub(crate) fn split(uri: &str) -> Option<(&str, &str)> {
    let after_scheme = uri.find("://").map_or(0, |at| at + 3);
    let slash = uri.get(after_scheme..).and_then(|rest| rest.find('/'));
    let is_ambiguous = ["unix:", "file:", "etcd:"]
        .iter()
        .any(|scheme| uri.starts_with(scheme));
    let slash = slash.filter(|&at| at > 0 && !is_ambiguous)?;
    Some(uri.split_at(after_scheme + slash))
}

pub(crate) fn not_split(uri: &str) -> Failure {
    let program = Cli::command();
    let commands = program.get_subcommands().map(clap::Command::get_name);
    let close = closest::of(uri, commands);
    let hint = close.map(|close| format!("; the closest command is `{close}`"));
    Failure::Usage(format!(
        "`{uri}` is neither a command nor an address with a path: write `localhost:7000/echo`, or \
         the path as an argument of its own, as in `unix:/run/iip.sock /echo`{}",
        hint.unwrap_or_default()
    ))
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
    fn a_path_follows_the_address() {
        for (uri, target, path) in [
            ("localhost:7000/echo?a=/b", "localhost:7000", "/echo?a=/b"),
            ("[::1]:7000/a/b", "[::1]:7000", "/a/b"),
            ("tcp://h:1/", "tcp://h:1", "/"),
            ("dns://orders.:7000/echo", "dns://orders.:7000", "/echo"),
            ("prod/echo", "prod", "/echo"),
        ] {
            assert_eq!(split(uri).unwrap(), (target, path));
        }
        for uri in [
            "localhost:7000",
            "/echo",
            "unix:/run/iip.sock/echo",
            "",
            "dns://",
        ] {
            assert_eq!(split(uri), None, "{uri}");
        }
        let error = not_split("lst").to_string();
        assert!(error.contains("the closest command is `list`"), "{error}");
    }
}
