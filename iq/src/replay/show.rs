//! Printing the records of a recording.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use bytes::Bytes;
use iip_core::Printable;
use iip_rpc::codec::CodecId;
use serde_json::{Map, Value, json};

use super::compare::code_name;
use crate::capture::{Begin, Body, Outcome as Kind, Part, Reader, Record, Services};
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// The maximum number of open calls that are tracked.
const MAX_OPEN: usize = 100_000;

/// The maximum number of bytes of a payload that are printed.
const MAX_SHOWN_BYTES: usize = 256;

/// Prints the records.
pub(super) fn run(mut reader: Reader<BufReader<File>>, begin: &Begin, output: &Output) -> Outcome {
    let mut show = Show {
        services: Services::default(),
        open: HashMap::new(),
        output,
    };
    show.print("begin", "", 0, &json!(begin))?;
    while let Some(record) = reader.next()? {
        show.record(record)?;
    }
    if let Some(remark) = reader.remark() {
        output.note(remark);
    }
    Ok(())
}

struct Show<'a> {
    services: Services,
    /// The path and the codec of each call.
    open: HashMap<u64, (Arc<str>, CodecId)>,
    output: &'a Output,
}

impl Show<'_> {
    fn record(&mut self, record: Record) -> Outcome {
        match record {
            Record::Begin(begin) => self.print("begin", "", 0, &json!(begin)),
            Record::Service(service) => {
                let name = service.service.clone();
                self.services.add(*service)?;
                self.print("service", "", 0, &json!({ "service": name }))
            }
            Record::Opened(opened) => {
                let value = json!({"connection": opened.connection, "peer": opened.peer});
                self.print("connected", "", opened.at, &value)
            }
            Record::Closed(closed) => {
                let value = json!({
                    "connection": closed.connection,
                    "unreadable": closed.unreadable,
                });
                self.print("closed", "", closed.at, &value)
            }
            Record::Request(request) => {
                let codec = CodecId::new(request.codec);
                if !request.one_way {
                    self.open(request.call, &request.path, codec)?;
                }
                let mut value = json!({
                    "call": request.call,
                    "connection": request.connection,
                    "path": request.path,
                    "codec": codec.to_string(),
                    "remaining_us": request.remaining,
                    "metadata": metadata(&request.metadata),
                });
                self.body(
                    &mut value,
                    &request.path,
                    Part::Arguments,
                    codec,
                    &request.body,
                );
                let name = self.name(&request.path);
                self.print("request", &name, request.at, &value)
            }
            Record::Message(message) => {
                let (path, codec) = self.call(message.call);
                let (part, kind) = match message.of_client {
                    true => (Part::Request, "client_message"),
                    false => (Part::Message, "server_message"),
                };
                let mut value = json!({"call": message.call});
                self.body(&mut value, &path, part, codec, &message.body);
                self.print(kind, &self.name(&path), message.at, &value)
            }
            Record::StreamEnd(moment) => {
                let (path, _) = self.call(moment.call);
                let value = json!({"call": moment.call});
                self.print("client_end", &self.name(&path), moment.at, &value)
            }
            Record::Cancelled(moment) => {
                let (path, _) = self.call(moment.call);
                let value = json!({"call": moment.call});
                self.print("cancelled", &self.name(&path), moment.at, &value)
            }
            Record::Reply(reply) => {
                let (path, _) = self.call(reply.call);
                self.open.remove(&reply.call);
                let codec = CodecId::new(reply.codec);
                let mut value = json!({"call": reply.call, "metadata": metadata(&reply.metadata)});
                let part = match &reply.outcome {
                    Kind::Value => {
                        value["outcome"] = "value".into();
                        Part::Result
                    }
                    Kind::Error => {
                        value["outcome"] = "error".into();
                        Part::error(reply.accepted)
                    }
                    Kind::Status { code, message } => {
                        value["outcome"] = "status".into();
                        value["code"] = code_name(*code).into();
                        value["message"] = message.clone().into();
                        Part::Result
                    }
                };
                if let Some((queue, handler)) = reply.timing {
                    value["queue_us"] = queue.into();
                    value["handler_us"] = handler.into();
                }
                if reply.incomplete {
                    value["incomplete"] = true.into();
                }
                self.body(&mut value, &path, part, codec, &reply.body);
                self.print("reply", &self.name(&path), reply.at, &value)
            }
            Record::Lost(lost) => self.print("dropped", "", 0, &json!({"records": lost.records})),
            Record::End(end) => {
                let value = json!({"reason": end.reason, "dropped": end.lost});
                self.print("end", "", end.at, &value)
            }
        }
    }

    fn open(&mut self, call: u64, path: &str, codec: CodecId) -> Outcome {
        if self.open.len() >= MAX_OPEN {
            let text = format!("more than {MAX_OPEN} calls are open at the same time");
            return Err(Failure::Own(text));
        }
        self.open.insert(call, (path.into(), codec));
        Ok(())
    }

    fn call(&self, call: u64) -> (Arc<str>, CodecId) {
        let found = self.open.get(&call).cloned();
        found.unwrap_or_else(|| ("(a request that is not recorded)".into(), CodecId::RAW))
    }

    fn name(&self, path: &str) -> String {
        match self.services.at(path) {
            Some(described) => described.name(),
            None => path.to_owned(),
        }
    }

    /// Adds a payload to a value.
    fn body(&self, value: &mut Value, path: &str, part: Part, codec: CodecId, body: &Body) {
        value["size"] = body.size.into();
        if let Some(reason) = &body.left_out {
            value["left_out"] = reason.clone().into();
        }
        let Some(bytes) = &body.bytes else { return };
        let described = self.services.at(path);
        let decoded = described.and_then(|described| described.decode(part, codec, bytes));
        if let Some(decoded) = decoded {
            value["value"] = decoded;
            return;
        }
        match str::from_utf8(bytes) {
            Ok(text) => value["text"] = text.into(),
            Err(_) => value["bytes"] = bytes.to_vec().into(),
        }
    }

    fn print(&self, kind: &str, name: &str, at: u64, value: &Value) -> Outcome {
        let mut fields = match value {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        fields.retain(|_, value| !value.is_null() && *value != json!({}));
        if self.output.is_json() {
            if !name.is_empty() {
                fields.insert("method".to_owned(), name.into());
            }
            fields.insert("at_us".to_owned(), at.into());
            return self.output.object(kind, fields);
        }
        self.output.line(Printable(line(kind, name, at, fields)))
    }
}

/// Formats a record as one line.
fn line(kind: &str, name: &str, at: u64, mut fields: Map<String, Value>) -> String {
    let mut line = format!("{:>12.6}", at as f64 / 1e6);
    for (field, sign) in [("connection", 'c'), ("call", '#')] {
        if let Some(number) = fields.remove(field) {
            line.push_str(&format!(" {sign}{number}"));
        }
    }
    line.push_str(&format!(" {}", kind.replace('_', " ")));
    if !name.is_empty() {
        line.push_str(&format!(" {name}"));
    }
    // The most important fields come first, without their names.
    for field in [
        "service", "peer", "outcome", "code", "message", "value", "text",
    ] {
        let text = fields.remove(field).map(plain).unwrap_or_default();
        if !text.is_empty() {
            line.push_str(&format!(" {text}"));
        }
    }
    // These fields are only in the output for programs.
    let details = [
        "path",
        "codec",
        "size",
        "remaining_us",
        "queue_us",
        "handler_us",
    ];
    for (field, value) in fields {
        if !details.contains(&&*field) {
            line.push_str(&format!(" {field}={}", plain(value)));
        }
    }
    line
}

/// Returns the text of a value, without quotes around it.
fn plain(value: Value) -> String {
    shortened(match value {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_SHOWN_BYTES {
        let mut end = MAX_SHOWN_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("..");
    }
    text
}

fn metadata(metadata: &[(String, Bytes)]) -> Value {
    let entries = metadata.iter();
    let entries = entries.map(|(key, value)| {
        let text = String::from_utf8_lossy(value).into_owned();
        (key.clone(), Value::from(text))
    });
    Value::Object(entries.collect())
}
