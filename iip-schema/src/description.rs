//! Services and their methods.

use serde::{Deserialize, Serialize};

use crate::types::{Type, Types};

/// The interface of a service: its methods, and the types that they take and return.
///
/// Serialized, it is meant for formats with field names, such as JSON: fields with their default
/// are left out, and fields that a later version adds are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Description {
    /// The full name of the service.
    pub service: String,
    /// Its documentation; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
    /// The note of its `#[deprecated]` attribute, which may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// Its methods, in the order of the trait.
    pub methods: Vec<Method>,
    /// The types with names that the methods use.
    #[serde(default, skip_serializing_if = "Types::is_empty")]
    pub types: Types,
}

impl Description {
    /// A service without methods.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            ..Self::default()
        }
    }

    /// The method with this name.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// The method with this path.
    #[must_use]
    pub fn method_at(&self, path: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.path == path)
    }
}

/// One method of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Method {
    /// Its name on the wire.
    pub name: String,
    /// The IIP path of its calls.
    pub path: String,
    /// The number of messages that each side sends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: MethodKind,
    /// The encoding of arguments and results in messages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub format: Format,
    /// The only codec of the method, such as `protobuf`; `None` if the client chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Its arguments in order, without the context and without a stream of requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
    /// The type of each message from the client, if the client sends a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Type>,
    /// The type of the result, or of each message from the server.
    #[serde(default, skip_serializing_if = "Type::is_unit")]
    pub result: Type,
    /// The type of the method's own errors; `None` if it fails with a status only. Of a method with a
    /// stream of replies: the errors before the stream begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Type>,
    /// The type of the errors that end a stream of replies; `None` if it fails with a status only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_error: Option<Type>,
    /// `true` if running the method twice does no more than running it once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub idempotent: bool,
    /// The timeout of a call in milliseconds, if the method sets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The priority of calls under load: `low`, `normal` or `high`; `None` means normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// The requirement for callers, in the program's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// Its documentation; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
    /// The note of its `#[deprecated]` attribute, which may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
}

impl Method {
    /// A unary method without arguments and result.
    #[must_use]
    pub fn new(name: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            kind: MethodKind::default(),
            format: Format::default(),
            codec: None,
            args: Vec::new(),
            requests: None,
            result: Type::Unit,
            error: None,
            stream_error: None,
            idempotent: false,
            timeout_ms: None,
            priority: None,
            auth: None,
            doc: String::new(),
            deprecated: None,
        }
    }

    /// The types that the method takes and returns: those of the arguments, the requests, the
    /// result and the errors. Named types are not followed.
    pub fn parts(&self) -> Vec<&Type> {
        let args = self.args.iter().map(|argument| &argument.ty);
        let errors = self.error.iter().chain(&self.stream_error);
        let others = self.requests.iter().chain([&self.result]).chain(errors);
        args.chain(others).collect()
    }

    /// Like [`parts`](Self::parts), to change them.
    pub fn parts_mut(&mut self) -> Vec<&mut Type> {
        let args = self.args.iter_mut().map(|argument| &mut argument.ty);
        let errors = self.error.iter_mut().chain(&mut self.stream_error);
        let others = self
            .requests
            .iter_mut()
            .chain([&mut self.result])
            .chain(errors);
        args.chain(others).collect()
    }
}

/// One argument of a method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Argument {
    /// Its name, which is its key in JSON and MessagePack.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: Type,
}

impl Argument {
    /// An argument.
    #[must_use]
    pub fn new(name: impl Into<String>, ty: Type) -> Self {
        Self {
            name: name.into(),
            ty,
        }
    }
}

/// The kind of a method, by the number of messages that each side of a call sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MethodKind {
    /// One request, one reply.
    #[default]
    Unary,
    /// One request, no reply.
    OneWay,
    /// A stream of requests, one reply.
    ClientStream,
    /// One request, a stream of replies.
    ServerStream,
    /// A stream in both directions.
    Bidirectional,
    /// One request, a stream of values with positions, which can be resumed.
    Subscription,
}

/// The encoding of arguments and results in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// Inside the envelope of typed calls, or in plain JSON.
    #[default]
    Envelope,
    /// In plain JSON only.
    Json,
    /// The argument and the result are the raw bytes of the messages.
    Raw,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
