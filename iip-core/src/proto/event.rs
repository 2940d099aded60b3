//! Events: the notices of the machine to the layer above.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::request_path::RequestPath;
use crate::error::CallErrorKind;
use crate::frame::ChannelId;
use crate::proto::slots::CallId;

/// An event of a client, for the layer above.
#[derive(Debug)]
pub(crate) enum ClientEvent {
    /// The reply to a call is complete, or cannot be accepted.
    Reply {
        call: CallId,
        result: Result<Bytes, CallErrorKind>,
    },
    /// A chunk of a reply that is delivered as it arrives, except the last.
    ReplyPart { call: CallId, body: Bytes },
    /// A frame of a call's stream.
    Stream { call: CallId, frame: StreamFrame },
    /// The reply to an abandoned call was discarded; the channel is free again.
    Swallowed { channel: ChannelId },
    /// A channel for calls was granted.
    ChannelOpened(ChannelId),
    /// The server rejected a request for a channel.
    ChannelRejected { code: i64, message: String },
    /// The server takes no further calls on this connection.
    GoingAway,
    /// The server's hello as JSON; `None` if the server does not know the hello.
    PeerHello(Option<Bytes>),
}

/// An event of a server, for the layer above.
#[derive(Debug)]
pub(crate) enum ServerEvent {
    /// A complete request whose turn has come.
    Request {
        channel: ChannelId,
        path: Arc<RequestPath>,
        body: Bytes,
        /// Time at which the request was complete; it may have waited since.
        received_at: Instant,
    },
    /// A request of several frames has begun, and its turn has come. `stream_request` makes its
    /// chunks visible; otherwise it is delivered as `Request` when it is complete.
    RequestBegun {
        channel: ChannelId,
        path: Arc<RequestPath>,
    },
    /// A chunk of a request that is delivered as it arrives.
    RequestPart {
        channel: ChannelId,
        body: Bytes,
        ends: bool,
    },
    /// The open request was larger than the limit; it was skipped and waits for a reply.
    RequestTooLarge {
        channel: ChannelId,
        path: Arc<RequestPath>,
        size: usize,
    },
    /// A request whose turn has come has begun as a stream.
    StreamBegun {
        channel: ChannelId,
        path: Arc<RequestPath>,
        /// `true` if the server is at capacity.
        is_busy: bool,
    },
    /// A frame of the open request's stream.
    Stream {
        channel: ChannelId,
        frame: StreamFrame,
    },
    /// The caller of the open request has gone.
    Cancelled { channel: ChannelId },
    /// The client's hello as JSON.
    PeerHello(Bytes),
}

/// The content of a frame of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StreamFrame {
    /// Bytes of the stream.
    Data(Bytes),
    /// Number of further bytes that may be sent.
    WindowUpdate(u32),
    /// The peer has more to send than its credit.
    Blocked,
    /// The peer sends no further bytes.
    End,
}

/// The owner of a stream: the call at a client, the channel at a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StreamKey {
    Call(CallId),
    Channel(ChannelId),
}
