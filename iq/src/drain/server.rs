//! Draining of an IIP server.

use std::time::{Duration, Instant};

use iip_core::{CallError, ReplyParts};
use iip_rpc::envelope::PlainError;
use iip_rpc::{Code, Status};
use serde::Deserialize;

use super::{begun, ended, not_in_time, running};
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::raw::status_of;

/// The path of requests to drain.
const DRAIN: &str = "/sys/drain";

/// Maximum length of a line, in bytes.
const MAX_LINE: usize = 4096;

pub(super) async fn drain(
    target: &str,
    wait: Option<Duration>,
    connect: &ConnectArgs,
    output: &Output,
) -> Outcome {
    let time = wait.unwrap_or(Duration::ZERO);
    let connection = connect.connect_to_one(target, time, output).await;
    let connection = connection.map_err(|failure| match failure {
        Failure::NotConnected(reason) => Failure::NotConnected(format!(
            "{reason} (a server that drains already takes no connections)"
        )),
        failure => failure,
    })?;
    let asked = connection.client.raw().stream(DRAIN, "{}").await;
    let reply = asked.map_err(|error| Failure::from(status_of(&error)))?;
    let mut lines = Lines {
        reply,
        read: Vec::new(),
    };
    let first = tokio::time::timeout(connection.timeout, lines.next()).await;
    let first = first.map_err(|_| {
        let text = "no reply in time (option --timeout)";
        Failure::from(Status::deadline_exceeded(text))
    })?;
    let Some(first) = first.map_err(Broken::into_failure)? else {
        return Err(malformed());
    };
    let mut last = first.calls;
    begun(last, Some(Duration::from_millis(first.limit_ms)), output)?;
    let Some(wait) = wait else { return Ok(()) };
    let deadline = Instant::now() + wait;
    loop {
        match tokio::time::timeout_at(deadline.into(), lines.next()).await {
            Err(_) => return Err(not_in_time(last, wait)),
            Ok(Ok(Some(line))) => {
                if last != line.calls {
                    output.note(running(line.calls));
                }
                last = line.calls;
            }
            Ok(Ok(None)) => return ended(output),
            Ok(Err(Broken::Lost(error))) => {
                output.detail(format_args!("{error:?}"));
                return Err(Failure::Check(cut_off(last)));
            }
            Ok(Err(broken)) => return Err(broken.into_failure()),
        }
    }
}

/// Returns the text for a connection that has ended before the server was drained.
fn cut_off(calls: u64) -> String {
    let what = match calls {
        0 => return "the connection was lost before the server reported its end".to_owned(),
        1 => "1 call was".to_owned(),
        calls => format!("{calls} calls were"),
    };
    format!("{what} cut off when the connection ended")
}

/// The state that the server reports, at first and after each change.
#[derive(Deserialize)]
struct Line {
    calls: u64,
    limit_ms: u64,
}

/// The lines of a reply.
struct Lines {
    reply: ReplyParts,
    read: Vec<u8>,
}

/// The reason why there is no line.
enum Broken {
    Lost(CallError),
    Other(Failure),
}

impl Broken {
    fn into_failure(self) -> Failure {
        match self {
            Self::Lost(error) => status_of(&error).into(),
            Self::Other(failure) => failure,
        }
    }
}

impl Lines {
    /// Reads the next line; `None` at the end.
    async fn next(&mut self) -> Result<Option<Line>, Broken> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = serde_json::from_slice(&line);
                return line.map(Some).map_err(|_| Broken::Other(malformed()));
            }
            if self.read.len() > MAX_LINE {
                return Err(Broken::Other(malformed()));
            }
            match self.reply.next().await {
                Some(Ok(part)) => self.read.extend_from_slice(&part),
                Some(Err(error)) => return Err(Broken::Lost(error)),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Broken::Other(self.refusal())),
            }
        }
    }

    /// Returns the failure for a reply that does not end with a line.
    fn refusal(&self) -> Failure {
        let Some(error) = PlainError::read(&self.read) else {
            return malformed();
        };
        let status = error.into_status();
        Failure::Status(match status.code() {
            Code::Unimplemented => {
                let text = "the server cannot be drained by a request (option drain_on_request)";
                Status::unimplemented(text)
            }
            _ => status,
        })
    }
}

fn malformed() -> Failure {
    Failure::Own(format!("the reply of {DRAIN} is malformed"))
}
