//! The calls to make: a method or a raw path, with its arguments.

use iip_core::Printable;
use iip_rpc::codec::{CodecId, DecodeLimits, dynamic};
use iip_rpc::schema::{Description, Format, Method, MethodKind};
use iip_rpc::{Client, Code, JsonError, Status};
use serde::Deserialize;

use super::args::BenchArgs;
use super::payload::{Messages, Payload};
use crate::call::{self, Callee};
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::raw;
use crate::services;
use crate::wording::message_of;

/// A method or a raw path, with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// The name of the method, or the path.
    pub(super) name: String,
    pub(super) targets: Vec<String>,
    pub(super) payload: Payload,
    /// The messages of the stream of the client, if the method has one.
    pub(super) messages: Option<Messages>,
    pub(super) path: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Raw,
    /// A method that is called without a description.
    Path,
    Method {
        described: Box<(Description, Method)>,
        codec: CodecId,
    },
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Work {
    /// Interprets the command line, and looks up typed methods at the server.
    pub(super) async fn prepare(
        args: &BenchArgs,
        connect: &ConnectArgs,
        output: &Output,
    ) -> Outcome<Self> {
        let has_data = args.data.is_some() || args.data_file.is_some();
        let (target, method) = match &args.method {
            Some(method) => (args.target.as_str(), method.as_str()),
            None => raw::split(&args.target).ok_or_else(|| raw::not_split(&args.target))?,
        };
        let mut work = match has_data || args.method.is_none() {
            true => Self::raw(args, method, connect).await?,
            false => Self::typed(args, target, method, connect, output).await?,
        };
        let has_messages = !args.message.is_empty() || args.messages.is_some();
        if has_messages && work.messages.is_none() {
            return Err(Failure::Usage(format!(
                "--message and --messages are for methods that take a stream, which {} does not",
                Printable(&work.name)
            )));
        }
        work.targets.push(target.to_owned());
        work.targets.extend_from_slice(&args.also);
        Ok(work)
    }

    async fn raw(args: &BenchArgs, path: &str, connect: &ConnectArgs) -> Outcome<Self> {
        if !path.starts_with('/') {
            let text = "raw requests, those with --data or --data-file, have a path, as /echo";
            return Err(Failure::Usage(text.to_owned()));
        }
        if connect.has_metadata() {
            let text = "raw requests carry no metadata: name the method";
            return Err(Failure::Usage(text.to_owned()));
        }
        let payload = match (&args.data, &args.data_file) {
            (Some(data), _) if !data.is_empty() => Payload::of_data(data, args.load.seed)?,
            (_, file) => Payload::Fixed(raw::body(None, file.as_deref()).await?.into()),
        };
        Ok(Self {
            name: path.to_owned(),
            targets: Vec::new(),
            payload,
            messages: None,
            path: path.to_owned(),
            kind: Kind::Raw,
        })
    }

    async fn typed(
        args: &BenchArgs,
        target: &str,
        method: &str,
        connect: &ConnectArgs,
        output: &Output,
    ) -> Outcome<Self> {
        let (seed, schema) = (args.load.seed, args.schema.as_deref());
        let BenchArgs {
            args,
            message,
            messages: count,
            ..
        } = args;
        let saved = schema.map(services::in_file).transpose()?;
        let connection = connect.connect(target, output).await?;
        let callee = match saved {
            Some(saved) => call::described(&saved, method)?,
            None => call::ask(&connection, method, output).await?,
        };
        let described = match callee {
            Callee::Described(described) => described,
            Callee::Path(path) => {
                return Ok(Self {
                    name: path.clone(),
                    targets: Vec::new(),
                    payload: Payload::of_unknown(args, seed).await?,
                    messages: None,
                    path,
                    kind: Kind::Path,
                });
            }
        };
        let (service, method) = &*described;
        callable(target, service, method)?;
        let name = format!("{}.{}", service.service, method.name);
        if method.kind == MethodKind::OneWay {
            one_way(&name, &connection.client)?;
        }
        let codecs = codecs(method, &connection.client);
        let made = Payload::of_arguments(args, service, method, &codecs, seed).await?;
        let (payload, codec) = made;
        let messages = match takes_stream(method.kind) {
            true => Some(Messages::read(message, *count, service, method, seed).await?),
            false => None,
        };
        output.detail(format_args!("the arguments are encoded in {codec}"));
        Ok(Self {
            name,
            targets: Vec::new(),
            payload,
            messages,
            path: method.path.clone(),
            kind: Kind::Method { described, codec },
        })
    }

    /// Returns `true` if the calls have no reply.
    pub(super) fn is_one_way(&self) -> bool {
        match &self.kind {
            Kind::Method { described, .. } => described.1.kind == MethodKind::OneWay,
            _ => false,
        }
    }

    /// Converts the error of a call into a failure.
    pub(super) fn failed(&self, error: JsonError) -> Failed {
        let own = |text: String| Failed {
            code: "the method's own error",
            text,
        };
        let status = match error {
            JsonError::Own(error) => return own(error.into_string()),
            JsonError::Status(status) => status,
        };
        match self.own_error(&status) {
            Some(error) => own(error),
            None => status.into(),
        }
    }

    /// Returns the method's own error in JSON, if a status carries one.
    fn own_error(&self, status: &Status) -> Option<String> {
        let Kind::Method { described, codec } = &self.kind else {
            return None;
        };
        let (service, method) = &**described;
        let error = method
            .error
            .as_ref()
            .filter(|_| status.code() == Code::Unknown)?;
        let limits = DecodeLimits::new();
        let error = dynamic::decode(*codec, error, &service.types, status.details(), &limits);
        Some(error.ok()?.to_string())
    }
}

/// A failure to make a body.
impl From<String> for Failed {
    fn from(text: String) -> Self {
        Self {
            code: Code::InvalidArgument.name(),
            text,
        }
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self {
            code: status.code().name(),
            text: message_of(&status).into_owned(),
        }
    }
}

/// Refuses methods that cannot be called repeatedly in JSON.
fn callable(target: &str, service: &Description, method: &Method) -> Outcome {
    let name = Printable(format!("{}.{}", service.service, method.name));
    if method.format == Format::Raw {
        let path = Printable(&method.path);
        return Err(Failure::Usage(format!(
            "{name} takes and returns raw bytes: use `iq bench {target} {path} -d DATA`"
        )));
    }
    call::callable(target, service, method)?;
    match method.kind {
        MethodKind::Subscription => Err(Failure::Usage(format!(
            "{name} is a subscription, which has no end: load can be made with calls that end"
        ))),
        MethodKind::Unary | MethodKind::OneWay | MethodKind::ServerStream => Ok(()),
        MethodKind::ClientStream | MethodKind::Bidirectional => Ok(()),
        _ => Err(Failure::Own(format!(
            "this iq is too old for methods of the kind of {name}"
        ))),
    }
}

fn takes_stream(kind: MethodKind) -> bool {
    matches!(kind, MethodKind::ClientStream | MethodKind::Bidirectional)
}

/// The fields of a hello that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Hello {
    one_way: u8,
    rpc: Announced,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Announced {
    codecs: Vec<u8>,
}

impl Hello {
    /// Reads the hello of a server; `None` if there is no connection now.
    fn of(client: &Client) -> Option<Self> {
        let connection = client.raw().ready_connection()?;
        let hello = connection.peer().hello();
        let read = hello.and_then(|hello| serde_json::from_slice(hello).ok());
        Some(read.unwrap_or_default())
    }
}

/// Refuses one-way calls to a server that does not support them. They would be ordinary calls whose
/// replies nobody waits for, and only memory would limit the number in flight.
fn one_way(name: &str, client: &Client) -> Outcome {
    match Hello::of(client) {
        Some(hello) if hello.one_way == 0 => Err(Failure::Usage(format!(
            "{} is one-way, and the server does not support one-way calls: they would be ordinary \
             calls that nobody waits for, without a limit",
            Printable(name)
        ))),
        _ => Ok(()),
    }
}

/// Returns the codecs in which a method can be called, the cheapest first.
fn codecs(method: &Method, client: &Client) -> Vec<CodecId> {
    // The messages of streams are in JSON.
    let has_streams = !matches!(method.kind, MethodKind::Unary | MethodKind::OneWay);
    if has_streams || method.format == Format::Json {
        return vec![CodecId::JSON];
    }
    let announced = Hello::of(client).unwrap_or_default().rpc.codecs;
    let all = [CodecId::BINCODE, CodecId::POSTCARD, CodecId::MSGPACK];
    let mut codecs: Vec<CodecId> = all
        .into_iter()
        .filter(|codec| announced.contains(&codec.as_u8()))
        .collect();
    if let Some(own) = &method.codec {
        codecs.retain(|codec| codec.to_string() == *own);
    }
    codecs.push(CodecId::JSON);
    codecs
}
