//! OpenAPI documents of services.
//!
//! [`OpenApi`] writes an OpenAPI 3.1 document of the HTTP interface that a gateway serves for
//! typed services. A method is called by `POST /{service}/{method}` with a JSON object of its
//! arguments, and by `GET` with query parameters if [`accepts_get`] says so.
//!
//! | method | request | response |
//! |---|---|---|
//! | unary | JSON object of the arguments | 200, JSON |
//! | one-way | the same | 202, empty |
//! | server stream | the same | 200, `application/x-ndjson` or `text/event-stream` |
//! | subscription | the same, and the header `Last-Event-ID` to resume | as a server stream |
//! | client stream | `application/x-ndjson`: the arguments if any, then messages | 200, JSON |
//! | bidirectional | as a client stream | as a server stream |
//! | raw | `application/octet-stream` | 200, `application/octet-stream` |
//! | protobuf, without streams | `application/x-protobuf` | 200, `application/x-protobuf` |
//!
//! Failures are `application/problem+json`.
//!
//! OpenAPI 3.1 cannot describe the lines of a stream, so the schema of one message is in the
//! extension `x-itemSchema` of its media type, that of the arguments before them in
//! `x-iip-arguments`, and that of the problem that ends a stream in `x-errorSchema`, if it can be an
//! error of the method itself. What is not in the document is listed under `x-iip-left-out` at its
//! top, with reasons: methods of protobuf services with streams, methods whose path is not unique,
//! and schemas beyond the [limits](OpenApi::build).

mod enums;
mod graph;
mod http;
mod keys;
mod objects;
mod operation;
mod problem;
mod schema;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::keys::Keys;
use self::operation::Operations;
use self::schema::{Schemas, Tally};
use crate::description::Description;

pub use self::graph::circular;
pub use self::http::{QueryError, accepts_get, http_path, query_arguments};

const MAX_NODES: usize = 100_000;

const PRECISION: &str = "Integers of 64 and 128 bits are JSON numbers. Readers whose numbers are \
    64-bit floats, as those of JavaScript, lose digits beyond 2^53.";

/// Writes an OpenAPI 3.1 document of one or several services.
///
/// ```
/// use iip_schema::openapi::OpenApi;
/// use iip_schema::{Argument, Description, Method, Type};
///
/// let mut find = Method::new("find", "/users/find");
/// find.args = vec![Argument::new("id", Type::U64)];
/// find.result = Type::option(Type::Text);
/// let mut users = Description::new("Users");
/// users.methods = vec![find];
///
/// let document = OpenApi::new("Users", "1.0").service(&users).build();
/// assert_eq!(document["openapi"], "3.1.0");
/// assert!(document["paths"]["/Users/find"]["post"].is_object());
/// ```
#[derive(Debug, Clone)]
pub struct OpenApi<'a> {
    title: String,
    version: String,
    description: String,
    servers: Vec<String>,
    services: Vec<&'a Description>,
    int64_as_text: bool,
    max_nodes: usize,
}

impl<'a> OpenApi<'a> {
    /// A document with the title and the version of the interface, without services.
    #[must_use]
    pub fn new(title: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            version: version.into(),
            description: String::new(),
            servers: Vec::new(),
            services: Vec::new(),
            int64_as_text: false,
            max_nodes: MAX_NODES,
        }
    }

    /// Sets the text about the whole interface, in Markdown. Default: none.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Adds a URL under which the interface is served, such as `https://api.example.com/v1`. The
    /// paths of methods follow it. Without any, clients use the host that the document came from.
    #[must_use]
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.servers.push(url.into());
        self
    }

    /// Adds a service. Types that several services describe alike are in the document once.
    #[must_use]
    pub fn service(mut self, description: &'a Description) -> Self {
        self.services.push(description);
        self
    }

    /// Describes integers of 64 and 128 bits as texts, for a gateway that writes them so. Default:
    /// as integers.
    #[must_use]
    pub fn int64_as_text(mut self, as_text: bool) -> Self {
        self.int64_as_text = as_text;
        self
    }

    /// Sets the maximum number of nodes of all schemas together. Default: 100,000; a document of
    /// this size takes up to a few hundred MB of memory. A node is a type, a field or a variant, and
    /// each 256 bytes of its texts. What is merged into several types counts each time.
    #[must_use]
    pub fn max_nodes(mut self, nodes: usize) -> Self {
        self.max_nodes = nodes;
        self
    }

    /// Builds the document. Equal descriptions in equal order result in equal documents, with the
    /// keys of all objects sorted.
    ///
    /// It never fails, so descriptions of peers need no check before. Types that are nested more
    /// than 32 levels deep, more than 8 levels of flattened fields, references to types that are
    /// not described, and all schemas beyond [`max_nodes`](Self::max_nodes) become `{}`, which is
    /// any value, with a text that says so.
    #[must_use]
    pub fn build(&self) -> Value {
        let tally = Tally::new(self.max_nodes, self.int64_as_text);
        let keys = Keys::of_document(&self.services);

        let mut components = Map::new();
        components.insert(problem::SCHEMA.to_owned(), problem::schema());
        let mut operations = Operations::default();
        let mut tags = Vec::new();
        for (place, service) in self.services.iter().enumerate() {
            let schemas = Schemas::new(&service.types, keys.of(place), &tally);
            for (name, definition) in service.types.iter() {
                if let Some(key) = keys.owned(place, name) {
                    components.insert(key.to_owned(), schemas.definition(name, definition));
                }
            }
            operations.add_service(service, &schemas);
            tags.push(tag(service));
        }
        tags.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        tags.dedup_by(|a, b| a["name"] == b["name"]);

        let mut left_out = operations.left_out;
        if tally.is_full() {
            left_out.push(json!({
                "reason": format!("there are more than {} nodes of schemas", self.max_nodes),
            }));
        }
        let mut info = json!({"title": self.title, "version": self.version});
        let precision = if tally.has_wide_integers() {
            PRECISION
        } else {
            ""
        };
        let text = paragraphs([self.description.clone(), precision.to_owned()]);
        describe(&mut info, &text);
        let components = object([
            ("schemas", components.into()),
            ("responses", problem::responses()),
            ("parameters", problem::parameters()),
        ]);
        let mut document = object([
            ("openapi", "3.1.0".into()),
            ("info", info),
            ("tags", tags.into()),
            (
                "paths",
                operations.paths.into_iter().collect::<Map<_, _>>().into(),
            ),
            ("components", components),
        ]);
        if !self.servers.is_empty() {
            document["servers"] = self.servers.iter().map(|url| json!({"url": url})).collect();
        }
        if !left_out.is_empty() {
            document["x-iip-left-out"] = left_out.into();
        }
        // Another crate may have chosen that serde_json keeps the order of insertion.
        document.sort_all_objects();
        document
    }
}

/// The keys of the types of each service among the components of a document of these services.
///
/// A type that several services describe alike has one key. Other types have keys that differ.
///
/// ```
/// use iip_schema::openapi::component_keys;
/// use iip_schema::{Definition, Description, Shape, Type};
///
/// let service = |name, of| {
///     let mut service = Description::new(name);
///     let definition = Definition::new(Shape::Newtype(of));
///     service.types.insert("Id", definition);
///     service
/// };
/// let (a, b) = (service("A", Type::U64), service("B", Type::U64));
/// let c = service("C", Type::Text);
/// let keys = component_keys(&[&a, &b, &c]);
/// let of_id = keys.iter().map(|keys| &*keys["Id"]);
/// assert_eq!(of_id.collect::<Vec<_>>(), ["Id", "Id", "C.Id"]);
/// ```
#[must_use]
pub fn component_keys<'a>(services: &[&'a Description]) -> Vec<BTreeMap<&'a str, String>> {
    Keys::of_document(services).into_all()
}

fn tag(service: &Description) -> Value {
    let mut tag = json!({"name": service.service});
    let doc = paragraphs([
        service.doc.clone(),
        deprecation(service.deprecated.as_deref()),
    ]);
    describe(&mut tag, &doc);
    tag
}

/// An object. Unlike `json!`, it moves the values.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members.into_iter();
    members
        .map(|(key, value)| (key.to_owned(), value))
        .collect::<Map<_, _>>()
        .into()
}

/// Sets the description of an object, before the one that it has. Does nothing for an empty text.
fn describe(object: &mut Value, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Value::Object(members) = object {
        let before = members.get("description").and_then(Value::as_str);
        let text = paragraphs([text.to_owned(), before.unwrap_or_default().to_owned()]);
        members.insert("description".to_owned(), text.into());
    }
}

/// Joins the texts that are not empty.
fn paragraphs(texts: impl IntoIterator<Item = String>) -> String {
    let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    texts.join("\n\n")
}

/// The text about a deprecation: empty if there is none.
fn deprecation(note: Option<&str>) -> String {
    match note {
        None => String::new(),
        Some("") => "Deprecated.".to_owned(),
        Some(note) => format!("Deprecated: {note}"),
    }
}
