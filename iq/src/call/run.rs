//! Execution of a call, by the kind of the method.

use std::time::Instant;

use iip_core::Printable;
use iip_rpc::schema::MethodKind;
use iip_rpc::{CallOptions, JsonCall, JsonError, JsonText, Position, Streaming, Update};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::Callee;
use super::lines::Lines;
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
    check_options(args, &args.method, kind)?;
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
            let lines = requests(callee, args)?;
            let reply = call.client_stream(arguments, lines.messages).await;
            let printed = reply
                .map_err(Failure::from)
                .and_then(|reply| printer.result(&reply));
            cause_in(lines.failure, printed)?;
        }
        MethodKind::Bidirectional => {
            let lines = requests(callee, args)?;
            let printed = async {
                let items = call.bidi_stream(arguments, lines.messages).await?;
                printer.items(items).await
            };
            cause_in(lines.failure, printed.await)?;
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
fn requests(callee: &Callee, args: &CallArgs) -> Outcome<Lines> {
    if args.args.iter().any(|arg| arg == "-") {
        let text = "stdin has the messages of the stream: give the arguments in another way";
        return Err(Failure::Usage(text.to_owned()));
    }
    match callee {
        Callee::Described(described) => {
            let (service, method) = &**described;
            let ty = method.requests.clone().unwrap_or_default();
            Ok(Lines::read(service, &ty))
        }
        // A path is called as a unary method.
        Callee::Path(path) => Err(Failure::Own(format!("{path} has no description"))),
    }
}

/// Returns the failure of stdin if it has ended the call.
fn cause_in(mut of_stdin: oneshot::Receiver<Failure>, outcome: Outcome) -> Outcome {
    match of_stdin.try_recv() {
        Ok(failure) => Err(failure),
        Err(_) => outcome,
    }
}

/// Checks that the method has what the options are about.
fn check_options(args: &CallArgs, name: &str, kind: MethodKind) -> Outcome {
    let is_subscription = kind == MethodKind::Subscription;
    let returns_many =
        is_subscription || matches!(kind, MethodKind::ServerStream | MethodKind::Bidirectional);
    let name = Printable(name);
    let text = if args.resume.is_some() && !is_subscription {
        format!("--resume: {name} is not a subscription")
    } else if args.limit.is_some() && !returns_many {
        format!("--limit: {name} does not return a stream")
    } else if args.pretty && kind == MethodKind::OneWay {
        format!("--pretty: {name} returns nothing")
    } else {
        return Ok(());
    };
    Err(Failure::Usage(text))
}

/// Prints, once a subscription has ended for any reason, how to resume it.
struct Resumable<'a> {
    output: &'a Output,
    /// The position after the last value that was printed.
    position: Option<Position>,
}

impl Drop for Resumable<'_> {
    fn drop(&mut self) {
        if let Some(position) = self.position {
            self.output
                .detail(format_args!("to go on from here: --resume {position}"));
        }
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
        self.text(value.get())
    }

    fn text(&self, json: &str) -> Outcome {
        match self.args.pretty {
            true => self.output.json_lines(json),
            false => self.output.json_line(json),
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
        let mut resumable = Resumable {
            output: self.output,
            position: updates.position(),
        };
        let mut left = self.args.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(update) = updates.next().await
        {
            match update? {
                Update::Value { sequence, value } => {
                    let position = updates.position();
                    self.item(&value, Some((sequence, position)))?;
                    resumable.position = position;
                    left -= 1;
                }
                Update::Gap(gap) if self.output.is_json() => {
                    self.output.object("gap", json!({"missed": gap.missed}))?;
                }
                Update::Gap(gap) => self.output.note(match gap.missed {
                    Some(1) => "1 value is missing here".to_owned(),
                    Some(missed) => format!("{missed} values are missing here"),
                    None => "values are missing here".to_owned(),
                }),
            }
        }
        Ok(())
    }

    /// Writes an item, with its number and position in a topic.
    fn item(&self, text: &JsonText, place: Option<(u64, Option<Position>)>) -> Outcome {
        #[derive(serde::Serialize)]
        struct Item<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            sequence: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            position: Option<String>,
            value: &'a JsonText,
        }

        if !self.output.is_json() {
            return self.text(text.as_str());
        }
        let (sequence, position) = place.unzip();
        let position = position.flatten().map(|position| position.to_string());
        let item = Item {
            sequence,
            position,
            value: text,
        };
        self.output.object("item", item)
    }
}
