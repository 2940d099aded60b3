//! Repetition of a recorded call.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use iip_core::CallError;
use iip_rpc::codec::{CodecId, DecodeLimits};
use iip_rpc::compression::decompress;
use iip_rpc::envelope::{
    Outcome as ReplyOutcome, PlainError, ReplyHead, RequestHead, is_envelope, read_status,
};
use iip_rpc::schema::MethodKind;
use iip_rpc::{
    CallOptions, Client, JsonCall, JsonError, JsonText, Metadata, ReplyMetadata, Status, Streaming,
};
use serde_json::value::RawValue;

use super::calls::Call;
use super::compare::code_name;
use crate::capture::{BLANK, Described, Part};
use crate::raw::status_of;

/// The maximum number of messages of a server that are counted beyond the recorded ones.
const MAX_SURPLUS: u64 = 1000;

/// The reply of a server to a repeated call.
#[derive(Debug)]
pub(super) struct Replayed {
    /// The messages, at most as many as were recorded.
    pub(super) messages: Vec<Bytes>,
    /// The number of all messages.
    pub(super) count: u64,
    pub(super) end: End,
    /// The metadata of the reply, after the entries with which a call with streams was accepted.
    pub(super) metadata: Vec<(String, Bytes)>,
}

/// The end of a call.
#[derive(Debug)]
pub(super) enum End {
    Value(CodecId, Bytes),
    /// The method's own error.
    Error(CodecId, Bytes),
    Status(Status),
    /// The end of a one-way call, or of a call that was cancelled where the recorded one was.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(..) => f.write_str("a value"),
            Self::Error(..) => f.write_str("the method's own error"),
            Self::Status(status) => {
                write!(
                    f,
                    "{}: {}",
                    code_name(status.code().as_u8()),
                    status.message()
                )
            }
            Self::Stopped => f.write_str("no reply"),
        }
    }
}

impl From<JsonError> for End {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Own(error) => Self::Error(CodecId::JSON, error.into_string().into()),
            JsonError::Status(status) => Self::Status(status),
        }
    }
}

/// A call that is ready to be made.
#[derive(Debug)]
pub(super) struct Prepared {
    path: String,
    kind: Kind,
    arguments: Bytes,
    requests: Vec<JsonText>,
    /// Set if the stream of the client stays open.
    stays_open: bool,
    /// The number of messages that the server sent in the recording.
    recorded: u64,
    /// Set if the recorded call was cancelled after these messages.
    is_cut: bool,
    metadata: Metadata,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A request of bytes, unchanged.
    Raw,
    /// A call with one reply, in JSON.
    Unary,
    /// A call with one reply, whose arguments have unknown types.
    Envelope(CodecId),
    OneWay(CodecId),
    /// A call with streams, in JSON.
    Streams(MethodKind),
}

impl Prepared {
    pub(super) fn new(call: &Call, described: Option<Described<'_>>, timeout: Duration) -> Self {
        let request = &call.request;
        let codec = CodecId::new(request.codec);
        let body = request.body.bytes.clone().unwrap_or_default();
        let kind = described.map_or(MethodKind::Unary, |described| described.method.kind);
        let is_raw = match described {
            Some(described) => described.is_raw(),
            None => request.plain,
        };
        // Known values are sent in JSON, because every server reads it.
        let decoded = described
            .and_then(|described| described.decode(Part::Arguments, codec, &body))
            .map(|value| Bytes::from(value.to_string()));
        let sent_in = if decoded.is_some() {
            CodecId::JSON
        } else {
            codec
        };
        let kind = match kind {
            _ if is_raw => Kind::Raw,
            MethodKind::OneWay => Kind::OneWay(sent_in),
            _ if request.one_way => Kind::OneWay(sent_in),
            kind if request.stream => Kind::Streams(kind),
            _ if sent_in == CodecId::JSON => Kind::Unary,
            _ => Kind::Envelope(sent_in),
        };
        let texts = call.requests.iter().filter_map(|message| {
            let bytes = message.bytes.as_ref()?;
            let value = described?.decode(Part::Request, codec, bytes)?;
            value.to_string().parse().ok()
        });
        Self {
            path: match is_raw {
                true => request.path.clone(),
                false => described
                    .map_or(&request.path, |found| &found.method.path)
                    .clone(),
            },
            kind,
            arguments: if is_raw {
                body
            } else {
                decoded.unwrap_or(body)
            },
            requests: texts.collect(),
            stays_open: !call.has_ended,
            recorded: call.messages.len() as u64,
            is_cut: call.cancelled || call.reply.is_none(),
            metadata: metadata(&request.metadata),
            timeout,
        }
    }

    /// Makes the call. Metadata of the command line replaces recorded metadata.
    pub(super) async fn send(self, client: Client, given: &Metadata) -> Replayed {
        let mut metadata = self.metadata.clone();
        for (key, _) in given.iter() {
            metadata.remove(key);
        }
        let place = ReplyMetadata::new();
        let options = CallOptions::new()
            .timeout(self.timeout)
            .reply_metadata(&place)
            .append_metadata(&metadata);
        let client = match options {
            Ok(options) => client.with_options(options),
            Err(error) => {
                let status = Status::invalid_argument(error.to_string());
                return Replayed::end(End::Status(status));
            }
        };
        let mut replayed = match self.kind {
            Kind::Raw => Replayed::end(self.raw(&client).await),
            Kind::Unary => Replayed::end(self.unary(&client).await),
            Kind::Envelope(codec) => {
                // This call bypasses the client, so the client's metadata is added here.
                let added = metadata.append_all(given);
                let added = added.map_err(|error| Status::invalid_argument(error.to_string()));
                match added {
                    Ok(()) => self.envelope(&client, codec, &metadata).await,
                    Err(status) => Replayed::end(End::Status(status)),
                }
            }
            Kind::OneWay(codec) => {
                let sent = self
                    .call(&client)
                    .encoded_in(codec)
                    .one_way(self.arguments)
                    .await;
                Replayed::end(sent.map_or_else(End::from, |()| End::Stopped))
            }
            Kind::Streams(kind) => self.streams(&client, kind, &place).await,
        };
        replayed.metadata.extend(entries(&place.get()));
        replayed
    }

    fn call(&self, client: &Client) -> JsonCall {
        client.json(&*self.path)
    }

    async fn raw(self, client: &Client) -> End {
        match self.request(client, self.arguments.clone()).await {
            Ok(reply) => plain(reply),
            Err(error) => End::Status(status_of(&error)),
        }
    }

    async fn request(&self, client: &Client, body: Bytes) -> Result<Bytes, CallError> {
        let options = iip_core::CallOptions::default().timeout(self.timeout);
        client.raw().request_with(&self.path, body, options).await
    }

    async fn unary(self, client: &Client) -> End {
        let reply = self.call(client).unary(self.arguments).await;
        reply.map_or_else(End::from, |value| End::Value(CodecId::JSON, value))
    }

    async fn envelope(self, client: &Client, codec: CodecId, metadata: &Metadata) -> Replayed {
        let mut out = BytesMut::new();
        RequestHead::write(codec, Some(self.timeout), metadata, &mut out);
        out.extend_from_slice(&self.arguments);
        match self.request(client, out.freeze()).await {
            Ok(reply) if is_envelope(&reply) => enveloped(reply)
                .unwrap_or_else(|error| Replayed::end(End::Status(Status::internal(error)))),
            Ok(reply) => Replayed::end(plain(reply)),
            Err(error) => Replayed::end(End::Status(status_of(&error))),
        }
    }

    async fn streams(
        mut self,
        client: &Client,
        kind: MethodKind,
        place: &ReplyMetadata,
    ) -> Replayed {
        let (call, timeout) = (self.call(client), self.timeout);
        let requests = std::mem::take(&mut self.requests);
        let (sender, stream) = Streaming::channel(1);
        let stays_open = self.stays_open;
        let sending = tokio::spawn(async move {
            for request in requests {
                if sender.send(request).await.is_err() {
                    return;
                }
            }
            match stays_open {
                true => std::future::pending().await,
                false => sender.finish(),
            }
        });
        let arguments = std::mem::take(&mut self.arguments);
        let calling = async {
            match kind {
                MethodKind::ClientStream => match call.client_stream(arguments, stream).await {
                    Ok(value) => Err(End::Value(CodecId::JSON, value)),
                    Err(error) => Err(End::from(error)),
                },
                MethodKind::Bidirectional => {
                    call.bidi_stream(arguments, stream).await.map_err(End::from)
                }
                // A subscription is a stream of values with their numbers.
                _ => call.server_stream(arguments).await.map_err(End::from),
            }
        };
        let replayed = match tokio::time::timeout(timeout, calling).await {
            Ok(Ok(messages)) => {
                let accepted = entries(&place.get());
                let received = self.receive(messages).await;
                Replayed {
                    metadata: accepted,
                    ..received
                }
            }
            Ok(Err(end)) => Replayed::end(end),
            Err(_) => Replayed::end(late()),
        };
        sending.abort();
        replayed
    }

    /// Receives messages, up to where the recorded call ended.
    async fn receive(self, mut from: Streaming<JsonText, JsonError>) -> Replayed {
        let mut messages = Vec::new();
        let mut count = 0;
        let end = loop {
            let is_enough = self.is_cut && count == self.recorded;
            if is_enough || count > self.recorded.saturating_add(MAX_SURPLUS) {
                break End::Stopped;
            }
            let Ok(next) = tokio::time::timeout(self.timeout, from.next()).await else {
                break late();
            };
            match next {
                Some(Ok(message)) => {
                    count += 1;
                    if count <= self.recorded {
                        messages.push(Bytes::from(message.into_string()));
                    }
                }
                Some(Err(error)) => break End::from(error),
                None => break End::Value(CodecId::JSON, Bytes::from_static(b"null")),
            }
        };
        Replayed {
            messages,
            count,
            end,
            metadata: Vec::new(),
        }
    }
}

impl Replayed {
    fn end(end: End) -> Self {
        Self {
            messages: Vec::new(),
            count: 0,
            end,
            metadata: Vec::new(),
        }
    }
}

/// Reads a reply with an envelope.
fn enveloped(reply: Bytes) -> Result<Replayed, String> {
    let (head, body) = ReplyHead::read(reply).map_err(|error| error.to_string())?;
    let body = decompress(head.compression, body, &DecodeLimits::new());
    let body = body.map_err(|error| error.to_string())?;
    let metadata = entries(&head.metadata);
    let end = match head.outcome {
        ReplyOutcome::Value => End::Value(head.codec, body),
        ReplyOutcome::Error => End::Error(head.codec, body),
        ReplyOutcome::Status => {
            let status = read_status(body, head.metadata);
            End::Status(status.map_err(|error| error.to_string())?)
        }
    };
    Ok(Replayed {
        metadata,
        ..Replayed::end(end)
    })
}

/// Reads a reply without an envelope.
fn plain(reply: Bytes) -> End {
    let Some(plain) = PlainError::read(&reply) else {
        return End::Value(CodecId::RAW, reply);
    };
    let own = serde_json::from_slice::<PlainError<Box<RawValue>>>(&reply);
    match own.ok().and_then(|plain| plain.error) {
        Some(own) => End::Error(CodecId::JSON, Bytes::copy_from_slice(own.get().as_bytes())),
        None => End::Status(plain.into_status()),
    }
}

fn late() -> End {
    End::Status(Status::deadline_exceeded(
        "nothing arrived in time (option --timeout)",
    ))
}

fn entries(metadata: &Metadata) -> Vec<(String, Bytes)> {
    let entries = metadata.iter();
    entries
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
}

/// Returns the metadata to send again, without blanked values and the keys of the format.
fn metadata(recorded: &[(String, Bytes)]) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in recorded {
        if &value[..] != BLANK.as_bytes() && !key.starts_with("iip-") {
            // A key that cannot be sent was changed in the file.
            let _ = metadata.append(key, value.clone());
        }
    }
    metadata
}
