//! The messages of a stream on stdin, one JSON value per line.

use iip_rpc::schema::dynamic::{DynamicValue, Layout, Options};
use iip_rpc::schema::{Description, Type};
use iip_rpc::{JsonText, Status, Streaming};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// Maximum length of a line, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Reads messages of a type until stdin ends. An invalid line fails the stream.
pub(super) fn messages(service: &Description, ty: &Type) -> Streaming<JsonText> {
    let (sender, messages) = Streaming::channel(1);
    let (service, ty) = (service.clone(), ty.clone());
    tokio::spawn(async move {
        let mut stdin = BufReader::new(tokio::io::stdin());
        for number in 1_u64.. {
            let mut line = Vec::new();
            let mut limited = (&mut stdin).take(MAX_LINE_BYTES + 1);
            match limited.read_until(b'\n', &mut line).await {
                Ok(0) => return sender.finish(),
                Ok(_) if line.len() as u64 > MAX_LINE_BYTES => {
                    let text = format!("line {number} has more than {MAX_LINE_BYTES} bytes");
                    return sender.fail(Status::invalid_argument(text)).await;
                }
                Ok(_) if line.trim_ascii().is_empty() => continue,
                Ok(_) => {}
                Err(error) => {
                    let text = format!("stdin cannot be read: {error}");
                    return sender.fail(Status::invalid_argument(text)).await;
                }
            }
            let message = match message(&line, &service, &ty) {
                Ok(message) => message,
                Err(reason) => {
                    let text = format!("line {number}: {reason}");
                    return sender.fail(Status::invalid_argument(text)).await;
                }
            };
            // The call may have ended.
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    messages
}

/// Checks a line against the type, and returns its text unchanged.
pub(crate) fn message(line: &[u8], service: &Description, ty: &Type) -> Result<JsonText, String> {
    let text = str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let options = Options::new(Layout::Named);
    let checked = DynamicValue::new(ty, &service.types, &value, options).check(true);
    checked.map_err(|error| error.to_string())?;
    text.parse()
        .map_err(|error: iip_rpc::codec::DecodeError| error.to_string())
}
