//! The messages of a stream on stdin, one JSON value per line.

use iip_rpc::schema::dynamic::{DynamicValue, Layout, Options};
use iip_rpc::schema::{Description, Type};
use iip_rpc::{JsonText, Status, StreamSender, Streaming};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::oneshot;

use super::json;
use crate::exit::{Failure, Outcome};

/// Maximum length of a line, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Messages that are read from stdin.
pub(super) struct Lines {
    pub(super) messages: Streaming<JsonText>,
    /// Gets the reason if stdin cannot be read, before the messages end with an error.
    pub(super) failure: oneshot::Receiver<Failure>,
}

impl Lines {
    /// Reads messages of a type until stdin ends. An invalid line fails the stream.
    pub(super) fn read(service: &Description, ty: &Type) -> Self {
        let (sender, messages) = Streaming::channel(1);
        let (failed, failure) = oneshot::channel();
        let (service, ty) = (service.clone(), ty.clone());
        tokio::spawn(async move {
            match send(&sender, &service, &ty).await {
                Ok(()) => sender.finish(),
                Err(failure) => {
                    let status = Status::invalid_argument(failure.to_string());
                    // It is first noted, and then the call ends.
                    let _ = failed.send(failure);
                    sender.fail(status).await;
                }
            }
        });
        Self { messages, failure }
    }
}

/// Sends the lines of stdin until it ends, or the call.
async fn send(sender: &StreamSender<JsonText>, service: &Description, ty: &Type) -> Outcome {
    let mut stdin = BufReader::new(tokio::io::stdin());
    for number in 1_u64.. {
        let mut line = Vec::new();
        let mut limited = (&mut stdin).take(MAX_LINE_BYTES + 1);
        let read = limited.read_until(b'\n', &mut line).await;
        let read = read.map_err(|error| Failure::Own(format!("stdin cannot be read: {error}")))?;
        if read == 0 {
            break;
        }
        if line.len() as u64 > MAX_LINE_BYTES {
            let text = format!("stdin, line {number}: it has more than {MAX_LINE_BYTES} bytes");
            return Err(Failure::Usage(text));
        }
        let line = line.trim_ascii_end();
        if line.is_empty() {
            continue;
        }
        let message = message(line, service, ty)
            .map_err(|reason| Failure::Usage(format!("stdin, line {number}: {reason}")))?;
        // The call may have ended.
        if sender.send(message).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Checks a line against the type, and returns the JSON that the method reads.
pub(crate) fn message(line: &[u8], service: &Description, ty: &Type) -> Result<JsonText, String> {
    let text = str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let value = json::parse(text)
        .map_err(|error| format!("{} (column {})", json::reason(&error), error.column()))?;
    let options = Options::new(Layout::Named);
    let described = DynamicValue::new(ty, &service.types, &value, options);
    described.check(true).map_err(|error| error.to_string())?;
    let text = json::for_server(text, &value, &described).map_err(|error| error.to_string())?;
    text.parse()
        .map_err(|error: iip_rpc::codec::DecodeError| error.to_string())
}
