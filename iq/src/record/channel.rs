//! The requests and replies in progress on a channel.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use iip_rpc::__wire::Records;
use iip_rpc::codec::{CodecId, DecodeLimits};

use super::message::{Collected, Form};

/// A channel with its requests.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// The request that is arriving.
    pub(super) incoming: Option<Incoming>,
    /// The requests that wait for a reply, in their order.
    pub(super) waiting: VecDeque<Waiting>,
}

/// A request that is not complete.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The last of the waiting requests.
    Last,
    /// A request that gets no reply.
    OneWay(Call, Collected),
    /// A request whose reply has arrived already, or that needs none.
    Replied,
}

/// A request that waits for its reply.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) exchange: Exchange,
    /// The reply, once its first frame has arrived.
    pub(super) reply: Option<Collected>,
}

#[derive(Debug)]
pub(super) enum Exchange {
    /// The hello of both sides.
    Hello(Collected),
    /// The control stream.
    Control,
    /// Another request on a reserved path.
    Other,
    /// A call, with its request while the request is arriving.
    Call(Call, Option<Collected>),
    Stream(Box<Stream>),
}

/// A call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: u64,
    /// The time at which its request began.
    pub(super) at: u64,
    /// The path to record.
    pub(super) path: Arc<str>,
    pub(super) form: Form,
    /// Set if its request was queued for the file.
    pub(super) is_known: bool,
    /// Set if records of it were lost.
    pub(super) is_incomplete: bool,
}

impl Call {
    pub(super) fn new(id: u64, at: u64, path: Arc<str>) -> Self {
        Self {
            id,
            at,
            path,
            form: Form {
                codec: CodecId::RAW,
                plain: false,
            },
            is_known: false,
            is_incomplete: false,
        }
    }
}

/// A call with streams.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) call: Call,
    pub(super) requests: Records,
    pub(super) replies: Records,
    /// Set once the arguments have arrived.
    pub(super) begun: bool,
    /// Set once the method has accepted the call.
    pub(super) accepted: bool,
    /// The metadata with which the method has accepted the call.
    pub(super) metadata: Vec<(String, Bytes)>,
}

impl Stream {
    pub(super) fn new(call: Call) -> Self {
        let limits = DecodeLimits::new();
        Self {
            call,
            requests: Records::new(limits),
            replies: Records::new(limits),
            begun: false,
            accepted: false,
            metadata: Vec::new(),
        }
    }

    fn held(&self) -> usize {
        let metadata = self.metadata.iter();
        let metadata: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
        self.requests.unfinished() + self.replies.unfinished() + metadata
    }
}

impl Waiting {
    pub(super) fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            reply: None,
        }
    }

    /// Returns the call, if the exchange is one.
    pub(super) fn call(&self) -> Option<&Call> {
        match &self.exchange {
            Exchange::Call(call, _) => Some(call),
            Exchange::Stream(stream) => Some(&stream.call),
            _ => None,
        }
    }

    /// Returns the number of bytes of unfinished messages.
    pub(super) fn held(&self) -> usize {
        let own = match &self.exchange {
            Exchange::Hello(hello) => hello.kept(),
            Exchange::Call(_, request) => request.as_ref().map_or(0, Collected::kept),
            Exchange::Stream(stream) => stream.held(),
            Exchange::Control | Exchange::Other => 0,
        };
        own + self.reply.as_ref().map_or(0, Collected::kept)
    }
}

impl Channel {
    pub(super) fn is_idle(&self) -> bool {
        self.incoming.is_none() && self.waiting.is_empty()
    }

    /// Returns the number of bytes of messages that are arriving. Of the waiting requests, only the
    /// last may be incomplete, and only the first receives a reply.
    pub(super) fn held(&self) -> usize {
        let one_way = match &self.incoming {
            Some(Incoming::OneWay(_, request)) => request.kept(),
            _ => 0,
        };
        let first = self.waiting.front().map_or(0, Waiting::held);
        let last = match self.waiting.len() {
            0 | 1 => 0,
            _ => self.waiting.back().map_or(0, Waiting::held),
        };
        one_way + first + last
    }
}
