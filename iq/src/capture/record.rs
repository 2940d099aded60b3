//! The records of a recording.

use bytes::Bytes;
use iip_rpc::schema::Description;
use serde::{Deserialize, Serialize};

/// The replacement of a secret text.
pub(crate) const BLANK: &str = "***";

/// A record. Times are microseconds since the recording began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first record.
    Begin(Begin),
    /// The description of a service, recorded once.
    Service(Box<Description>),
    /// The beginning of a connection.
    Opened(Opened),
    /// The end of a connection, or of what can be recorded of it.
    Closed(Closed),
    /// A request, or the arguments of a call with streams.
    Request(Request),
    /// A message of a stream.
    Message(Message),
    /// The end of the stream of the client.
    StreamEnd(Moment),
    /// The reply, which ends the call.
    Reply(Reply),
    /// The cancellation of the call by the client.
    Cancelled(Moment),
    /// Missing records, because the file could not be written fast enough.
    Lost(Lost),
    /// The last record.
    End(End),
}

/// The beginning of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// The start of the recording, in microseconds since the Unix epoch.
    pub(crate) unix_us: u64,
    /// The program that writes the file, with its version.
    pub(crate) program: String,
    /// The address of the server.
    pub(crate) server: String,
    /// Set if payloads are recorded.
    pub(crate) payloads: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) connection: u64,
    pub(crate) at: u64,
    /// The address of the client, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) connection: u64,
    pub(crate) at: u64,
    /// The reason why the connection is no longer recorded, although it may continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unreadable: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) call: u64,
    pub(crate) connection: u64,
    pub(crate) at: u64,
    /// The path. The query is part of it in recordings with payloads.
    pub(crate) path: String,
    /// The codec of the arguments, as in an envelope; 0 for bytes of unknown form.
    pub(crate) codec: u8,
    /// Set if the request had no envelope.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) plain: bool,
    /// Set if the request gets no reply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) one_way: bool,
    /// Set if the call has streams.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) stream: bool,
    /// The time that was left until the deadline of the call, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remaining: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) metadata: Vec<(String, Bytes)>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) call: u64,
    pub(crate) at: u64,
    /// Set if the client has sent the message.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) of_client: bool,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) call: u64,
    pub(crate) at: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) call: u64,
    pub(crate) at: u64,
    pub(crate) outcome: Outcome,
    /// The codec of the body.
    pub(crate) codec: u8,
    /// The time before the handler started, and the time that it ran, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timing: Option<(u64, u64)>,
    /// The metadata, after the entries with which the method accepted a call with streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) metadata: Vec<(String, Bytes)>,
    /// The value, the error, or the details of a status.
    pub(crate) body: Body,
    /// Set if the call has streams, and the method had accepted it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) accepted: bool,
    /// Set if records of the call are missing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) incomplete: bool,
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Value,
    /// The method's own error.
    Error,
    Status {
        code: u8,
        /// The message, which is recorded only with payloads.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lost {
    pub(crate) records: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) at: u64,
    /// The reason why the recording ended.
    pub(crate) reason: String,
    /// The total number of missing records.
    pub(crate) lost: u64,
}

/// Bytes of a payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    /// The number of bytes that were sent.
    pub(crate) size: u64,
    /// The bytes without compression, with secrets blanked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<Bytes>,
    /// The reason why the bytes are missing in a recording with payloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<String>,
}

impl Record {
    /// Returns the payload of the record.
    pub(crate) fn body_mut(&mut self) -> Option<&mut Body> {
        match self {
            Self::Request(request) => Some(&mut request.body),
            Self::Message(message) => Some(&mut message.body),
            Self::Reply(reply) => Some(&mut reply.body),
            _ => None,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde requires"
)]
fn is_false(value: &bool) -> bool {
    !*value
}
