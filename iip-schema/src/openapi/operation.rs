//! The operations of methods.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::http::{accepts_get, fits_path, http_path, is_protobuf, query_value};
use super::keys::Unique;
use super::objects::Object;
use super::problem::{self, LAST_EVENT_ID, add_failures, parameter};
use super::schema::Schemas;
use super::{deprecation, describe, paragraphs};
use crate::description::{Description, Format, Method, MethodKind};
use crate::types::{Shape, Type};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";
const BINARY: &str = "application/octet-stream";
const PROTOBUF: &str = "application/x-protobuf";

/// The operations of all services.
#[derive(Debug, Default)]
pub(super) struct Operations {
    pub(super) paths: BTreeMap<String, Value>,
    /// The methods that have no operation, with reasons.
    pub(super) left_out: Vec<Value>,
    ids: Unique,
}

impl Operations {
    pub(super) fn add_service(&mut self, service: &Description, schemas: &Schemas<'_>) {
        if !fits_path(&service.service) {
            self.left_out.push(json!({
                "service": service.service,
                "reason": "an HTTP path cannot contain the name of the service",
            }));
            return;
        }
        for method in &service.methods {
            if let Err(reason) = self.add(service, method, schemas) {
                self.left_out.push(json!({
                    "service": service.service,
                    "method": method.name,
                    "reason": reason,
                }));
            }
        }
    }

    fn add(
        &mut self,
        service: &Description,
        method: &Method,
        schemas: &Schemas<'_>,
    ) -> Result<(), &'static str> {
        let path = http_path(service, method)
            .ok_or("an HTTP path cannot contain the name of the method")?;
        if self.paths.contains_key(&path) {
            return Err("another method has the same HTTP path");
        }
        if is_protobuf(method) && !matches!(method.kind, MethodKind::Unary | MethodKind::OneWay) {
            return Err("a stream of protobuf messages has no form in HTTP here");
        }
        let id = self
            .ids
            .claim(&format!("{}.{}", service.service, method.name));
        let writer = Writer {
            service,
            method,
            schemas,
        };
        let mut item = json!({"post": writer.post(&id)});
        if accepts_get(method, schemas.types) {
            item["get"] = writer.get(&self.ids.claim(&format!("{id}.get")));
        }
        self.paths.insert(path, item);
        Ok(())
    }
}

/// Writes the operations of one method.
struct Writer<'a> {
    service: &'a Description,
    method: &'a Method,
    schemas: &'a Schemas<'a>,
}

impl Writer<'_> {
    fn post(&self, id: &str) -> Value {
        let mut operation = self.operation(id);
        if let Some(body) = self.body() {
            operation["requestBody"] = body;
        }
        operation
    }

    fn get(&self, id: &str) -> Value {
        let mut operation = self.operation(id);
        let mut parameters = Vec::new();
        let mut names = BTreeSet::new();
        for arg in &self.method.args {
            let (ty, optional) = query_value(&arg.ty);
            if names.insert(&arg.name) {
                parameters.push(json!({
                    "name": arg.name,
                    "in": "query",
                    "required": !optional,
                    "schema": self.schemas.value(ty),
                }));
            }
        }
        if let Some(Value::Array(headers)) = operation.get_mut("parameters") {
            parameters.append(headers);
        }
        operation["parameters"] = parameters.into();
        operation
    }

    /// Returns the parts that `POST` and `GET` have in common.
    fn operation(&self, id: &str) -> Value {
        let method = self.method;
        let mut parameters = vec![parameter("RequestTimeout"), parameter("TraceParent")];
        if method.kind == MethodKind::Subscription {
            parameters.push(parameter(LAST_EVENT_ID));
        }
        let mut operation = json!({
            "operationId": id,
            "tags": [self.service.service],
            "parameters": parameters,
            "responses": self.responses(),
        });
        let (summary, more) = match method.doc.split_once('\n') {
            Some((first, _)) => (first, &*method.doc),
            None => (&*method.doc, ""),
        };
        if !summary.is_empty() {
            operation["summary"] = summary.into();
        }
        let timeout = method
            .timeout_ms
            .map(|ms| format!("Without `Request-Timeout`, the call may take {ms} ms."));
        let text = paragraphs([
            more.to_owned(),
            deprecation(method.deprecated.as_deref()),
            self.note().to_owned(),
            timeout.unwrap_or_default(),
        ]);
        describe(&mut operation, &text);
        if method.deprecated.is_some() || self.service.deprecated.is_some() {
            operation["deprecated"] = true.into();
        }
        operation["x-iip-path"] = method.path.as_str().into();
        operation["x-iip-idempotent"] = method.idempotent.into();
        if let Some(auth) = &method.auth {
            operation["x-iip-auth"] = auth.as_str().into();
        }
        if let Some(priority) = &method.priority {
            operation["x-iip-priority"] = priority.as_str().into();
        }
        operation
    }

    /// The text about the form of requests and replies.
    fn note(&self) -> &'static str {
        match self.method.kind {
            MethodKind::Unary => "",
            MethodKind::OneWay => {
                "The response says that the call was accepted, not that it was executed."
            }
            MethodKind::ServerStream | MethodKind::Subscription => "The response is a stream.",
            MethodKind::ClientStream => "",
            MethodKind::Bidirectional => {
                "The response begins before the request ends, so it needs HTTP/2."
            }
        }
    }

    fn body(&self) -> Option<Value> {
        let method = self.method;
        if is_protobuf(method) {
            let text = match method.args.first() {
                Some(arg) => protobuf(&arg.ty),
                None => "A protobuf message.".to_owned(),
            };
            return Some(json!({"description": text, "content": {PROTOBUF: {}}}));
        }
        if method.format == Format::Raw {
            return Some(json!({"required": true, "content": {BINARY: {}}}));
        }
        if matches!(
            method.kind,
            MethodKind::ClientStream | MethodKind::Bidirectional
        ) {
            let mut lines = lines(
                self.schemas
                    .value(method.requests.as_ref().unwrap_or(&Type::Unit)),
            );
            if !method.args.is_empty() {
                let text = "Lines of JSON: the object of the arguments, then each message.";
                lines["schema"]["description"] = text.into();
                lines["x-iip-arguments"] = self.arguments();
            }
            return Some(json!({"required": true, "content": {NDJSON: lines}}));
        }
        if method.args.is_empty() {
            return None;
        }
        let arguments = self.arguments();
        let required = arguments.get("required").is_some();
        Some(json!({"required": required, "content": {JSON: {"schema": arguments}}}))
    }

    fn arguments(&self) -> Value {
        let mut object = Object::default();
        for arg in &self.method.args {
            let optional = matches!(arg.ty, Type::Option(_));
            object.property(&arg.name, self.schemas.value(&arg.ty), !optional);
        }
        object.build(false)
    }

    fn responses(&self) -> Value {
        let method = self.method;
        let mut responses = Map::new();
        let (status, response) = match method.kind {
            MethodKind::OneWay => ("202", json!({"description": "The call was accepted."})),
            _ if is_protobuf(method) => {
                let content = json!({PROTOBUF: {}});
                (
                    "200",
                    json!({"description": protobuf(&method.result), "content": content}),
                )
            }
            _ if method.format == Format::Raw => {
                let content = json!({BINARY: {}});
                (
                    "200",
                    json!({"description": "The reply.", "content": content}),
                )
            }
            MethodKind::Unary | MethodKind::ClientStream => {
                let content = json!({JSON: {"schema": self.schemas.value(&method.result)}});
                (
                    "200",
                    json!({"description": "The result.", "content": content}),
                )
            }
            MethodKind::ServerStream | MethodKind::Bidirectional | MethodKind::Subscription => {
                ("200", self.stream())
            }
        };
        responses.insert(status.to_owned(), response);
        let error = method.error.as_ref().map(|error| self.schemas.value(error));
        add_failures(&mut responses, error, &self.own_statuses());
        responses.into()
    }

    /// The statuses of the method's own errors, with the names of their variants.
    fn own_statuses(&self) -> BTreeMap<u16, Vec<&str>> {
        let mut statuses: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        let Some(Type::Named(name)) = &self.method.error else {
            return statuses;
        };
        let definition = self.schemas.types.get(name);
        let Some(Shape::Enum(shape)) = definition.map(|definition| &definition.shape) else {
            return statuses;
        };
        for variant in &shape.variants {
            // The document has a maximum size, and many methods may have the same errors.
            if !self.schemas.tally.take(variant.name.len()) {
                break;
            }
            if let Some(status) = variant.http_status() {
                statuses.entry(status).or_default().push(&variant.name);
            }
        }
        statuses
    }

    fn stream(&self) -> Value {
        let item = self.schemas.value(&self.method.result);
        let mut events = lines(item.clone());
        let id = if self.method.kind == MethodKind::Subscription {
            " Its `id` is the position for `Last-Event-ID`. The event `gap` has the number of values that \
             are missing in `missed`, or null."
        } else {
            ""
        };
        events["schema"]["description"] = format!(
            "Events whose `data` is a message as JSON.{id} The last event is `end`, or `error` with \
             a problem as its `data`."
        )
        .into();
        let mut ndjson = lines(item);
        let gap = match self.method.kind {
            MethodKind::Subscription => {
                " A line `{\"gap\": {\"missed\": number or null}}` stands for missing values."
            }
            _ => "",
        };
        ndjson["schema"]["description"] = format!(
            "Lines of JSON, each a message.{gap} If the stream fails, the last line is \
             `{{\"error\": problem}}`."
        )
        .into();
        if let Some(error) = &self.method.stream_error {
            let error = problem::own(self.schemas.value(error));
            events["x-errorSchema"] = error.clone();
            ndjson["x-errorSchema"] = error;
        }
        json!({
            "description": "A stream. Without a header `Accept`, it is `application/x-ndjson`.",
            "content": {NDJSON: ndjson, EVENTS: events},
        })
    }
}

/// A media type of which each line or event is a message.
fn lines(item: Value) -> Value {
    json!({
        "schema": {"type": "string", "description": "Lines of JSON, each a message."},
        "x-itemSchema": item,
    })
}

fn protobuf(ty: &Type) -> String {
    match ty {
        Type::Named(name) | Type::Opaque { name, .. } => format!("The protobuf message `{name}`."),
        _ => "A protobuf message.".to_owned(),
    }
}
