//! Execution of a call, by the kind of the method.

use std::time::Instant;

use iip_rpc::schema::MethodKind;
use iip_rpc::{CallOptions, JsonCall, JsonError, JsonText, Streaming, Update};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Callee, lines};
use crate::args::CallArgs;
use crate::connection::Connection;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Own(error) => Self::Method(error.into_string()),
            JsonError::Status(status) => Self::Status(status),
        }
    }
}

/// Calls the method, and prints what it returns.
pub(super) async fn call(
    args: &CallArgs,
    callee: &Callee,
    arguments: String,
    connection: &Connection,
    output: &Output,
) -> Outcome {
    let (path, kind, idempotent) = match callee {
        Callee::Path(path) => (path, MethodKind::Unary, false),
        Callee::Described(described) => {
            let method = &described.1;
            (&method.path, method.kind, method.idempotent)
        }
    };
    let started = Instant::now();
    // A stream that has started may take any time.
    let client = match kind {
        MethodKind::Unary | MethodKind::OneWay => connection.within_time(),
        _ => connection.client.clone(),
    };
    let client = match args.resume {
        Some(position) => client.with_options(CallOptions::new().resume(position)),
        None => client,
    };
    let call = client.json(path);
    let call = if idempotent { call.idempotent() } else { call };
    let printer = Printer { args, output };
    match kind {
        MethodKind::Unary => printer.result(&call.unary(arguments).await?)?,
        MethodKind::OneWay => {
            call.one_way(arguments).await?;
            // Writes the queued message before the program ends.
            connection.client.close(connection.remaining()).await;
        }
        MethodKind::ServerStream => printer.items(call.server_stream(arguments).await?).await?,
        MethodKind::Subscription => printer.updates(call, arguments).await?,
        MethodKind::ClientStream => {
            let reply = call
                .client_stream(arguments, requests(callee, args)?)
                .await?;
            printer.result(&reply)?;
        }
        MethodKind::Bidirectional => {
            let items = call.bidi_stream(arguments, requests(callee, args)?).await?;
            printer.items(items).await?;
        }
        other => {
            let text = format!("this iq is too old for methods of the kind {other:?}");
            return Err(Failure::Own(text));
        }
    }
    output.detail(format_args!("the call took {:.1?}", started.elapsed()));
    Ok(())
}

/// Returns the messages to send, read from stdin.
fn requests(callee: &Callee, args: &CallArgs) -> Outcome<Streaming<JsonText>> {
    if args.args.iter().any(|arg| arg == "-") {
        let text = "stdin has the messages of the stream: give the arguments in another way";
        return Err(Failure::Usage(text.to_owned()));
    }
    match callee {
        Callee::Described(described) => {
            let (service, method) = &**described;
            let ty = method.requests.clone().unwrap_or_default();
            Ok(lines::messages(service, &ty))
        }
        // A path is called as a unary method.
        Callee::Path(path) => Err(Failure::Own(format!("{path} has no description"))),
    }
}

/// Prints results and messages.
struct Printer<'a> {
    args: &'a CallArgs,
    output: &'a Output,
}

impl Printer<'_> {
    fn result(&self, text: &[u8]) -> Outcome {
        let value: &RawValue = serde_json::from_slice(text)
            .map_err(|error| Failure::Own(format!("the result is not JSON: {error}")))?;
        if self.output.is_json() {
            return self.value("result", value);
        }
        match self.args.pretty {
            true => self.output.json_lines(value.get()),
            false => self.output.json_line(value.get()),
        }
    }

    /// Writes an object with a JSON value that is passed on unchanged.
    fn value(&self, r#type: &str, value: &RawValue) -> Outcome {
        #[derive(serde::Serialize)]
        struct Valued<'a> {
            value: &'a RawValue,
        }

        self.output.object(r#type, Valued { value })
    }

    async fn items(&self, mut items: Streaming<JsonText, JsonError>) -> Outcome {
        for _ in 0..self.args.limit.unwrap_or(u64::MAX) {
            match items.next().await {
                Some(item) => self.item(&item?, None)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn updates(&self, call: JsonCall, arguments: String) -> Outcome {
        let mut updates = call.subscribe(arguments).await?;
        let mut left = self.args.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(update) = updates.next().await
        {
            match update? {
                Update::Value { sequence, value } => {
                    self.item(&value, Some(sequence))?;
                    left -= 1;
                }
                Update::Gap(gap) if self.output.is_json() => {
                    self.output.object("gap", json!({"missed": gap.missed}))?;
                }
                Update::Gap(gap) => self.output.note(match gap.missed {
                    Some(missed) => format!("{missed} values are missing here"),
                    None => "values are missing here".to_owned(),
                }),
            }
        }
        if let Some(position) = updates.position() {
            self.output
                .detail(format_args!("to go on from here: --resume {position}"));
        }
        Ok(())
    }

    fn item(&self, text: &JsonText, sequence: Option<u64>) -> Outcome {
        #[derive(serde::Serialize)]
        struct Item<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            sequence: Option<u64>,
            value: &'a JsonText,
        }

        if self.output.is_json() {
            return self.output.object(
                "item",
                Item {
                    sequence,
                    value: text,
                },
            );
        }
        self.output.json_line(text.as_str())
    }
}
