//! The counts of a server or client as values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::code::Codes;
use super::histogram::Histogram;
use crate::clock;
use crate::connection::Shared;
use crate::frame::Side;

/// The name of the methods that are not listed one by one.
pub const OTHER: &str = "_OTHER";

/// The maximum number of methods with figures of their own.
pub const MAX_METHODS: usize = 1000;

/// The maximum number of connections that a [`Snapshot`] lists.
pub const MAX_LISTED_CONNECTIONS: usize = 1000;

/// The counts of a server or client since it started.
///
/// The figures of different methods, and of a method and the connections, may be of moments that
/// differ by the time it takes to read them. Every figure that is called a counter only grows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The side that has counted.
    pub side: Side,
    /// The time at which the server or client was started.
    pub started_at: SystemTime,
    /// The time between the start and this snapshot.
    pub uptime: Duration,
    /// The methods that had calls, in the order of their paths; [`OTHER`] is the last one.
    pub methods: Vec<MethodStats>,
    /// The connections.
    pub connections: Connections,
}

impl Snapshot {
    /// Returns the figures of the method with this path, such as `/greeter/hello`.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&MethodStats> {
        self.methods.iter().find(|method| &*method.path == path)
    }

    /// Returns the sum of all methods. Its path is empty.
    #[must_use]
    pub fn total(&self) -> MethodStats {
        let mut total = MethodStats::new("".into());
        for method in &self.methods {
            total.merge(method);
        }
        total
    }

    /// Returns what was counted since `earlier`, an earlier snapshot of the same server or client.
    /// What is not a counter, such as calls in flight, stays as it is. `uptime` is the time in
    /// between, so that a rate is a count divided by it.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let methods = self.methods.iter();
        let methods = methods.map(|method| match earlier.method(&method.path) {
            Some(before) => method.since(before),
            None => method.clone(),
        });
        Self {
            uptime: self.uptime.saturating_sub(earlier.uptime),
            methods: methods.collect(),
            ..self.clone()
        }
    }
}

/// The figures of one method, on one side.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct MethodStats {
    /// The path, such as `/greeter/hello`, or [`OTHER`]: at a server for paths without a route of
    /// their own, and for all but the first [`MAX_METHODS`].
    pub path: Arc<str>,
    pub(super) rpc_method: Option<Arc<str>>,
    /// The calls that have ended, by their codes. A counter.
    ///
    /// A client counts every attempt: a call that is retried or hedged counts more than once. Calls
    /// that failed before they had a connection are not counted.
    pub codes: Codes,
    /// The calls that have begun and not ended.
    pub in_flight: u64,
    /// The limit on concurrent calls of this method alone, at a server whose handler has one, see
    /// [`Handler::max_concurrency`](crate::Handler::max_concurrency).
    pub max_concurrency: Option<u32>,
    /// Traffic received for the method: requests at a server, replies at a client. A counter.
    pub received: Traffic,
    /// Traffic sent for the method, up to the transport. A counter.
    pub sent: Traffic,
    /// The number of times that a stream of the method had to wait because the peer had granted no
    /// more credit. A counter.
    pub credit_stalls: u64,
    /// Durations of the calls in `codes`. A counter.
    ///
    /// At a server, from the time when the request had been read until its reply was passed to the
    /// connection to be written; at a client, from the start of the call, or of the attempt, until
    /// the reply had been read. Calls that are read and replied to together are timed together.
    pub latency: Histogram,
}

impl MethodStats {
    pub(super) fn new(path: Arc<str>) -> Self {
        Self {
            path,
            rpc_method: None,
            codes: Codes::default(),
            in_flight: 0,
            max_concurrency: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            credit_stalls: 0,
            latency: Histogram::new(),
        }
    }

    /// Returns `true` if there is anything to show.
    pub(super) fn is_used(&self) -> bool {
        let frames = self.received.frames + self.sent.frames;
        frames + self.codes.total() + self.in_flight > 0
    }

    /// Returns the path without the leading `/`, such as `greeter/hello`.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(&self.path)
    }

    /// Returns the name of the method in metrics, as OpenTelemetry defines it: service and method,
    /// such as `shop.v1.Greeter/hello`. Where the service is not known, as at clients, it is the
    /// [`name`](Self::name).
    #[must_use]
    pub fn rpc_method(&self) -> &str {
        self.rpc_method.as_deref().unwrap_or_else(|| self.name())
    }

    /// Adds the figures of another method, or of the same one on another server. The limit stays
    /// as it is.
    pub fn merge(&mut self, other: &Self) {
        self.codes.merge(&other.codes);
        self.in_flight += other.in_flight;
        self.received.merge(other.received);
        self.sent.merge(other.sent);
        self.credit_stalls += other.credit_stalls;
        self.latency.merge(&other.latency);
    }

    /// Returns what was counted since `earlier`. The calls in flight and the limit stay as they
    /// are.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            path: Arc::clone(&self.path),
            rpc_method: self.rpc_method.clone(),
            codes: self.codes.since(&earlier.codes),
            in_flight: self.in_flight,
            max_concurrency: self.max_concurrency,
            received: self.received.since(earlier.received),
            sent: self.sent.since(earlier.sent),
            credit_stalls: self.credit_stalls.saturating_sub(earlier.credit_stalls),
            latency: self.latency.since(&earlier.latency),
        }
    }
}

/// Returns a path without the leading `/`.
pub(super) fn name_of(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// Numbers of frames, messages and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Frames. A message has one frame unless it is large, or a stream.
    pub frames: u64,
    /// Whole messages: requests and replies. A stream is a part of the message that it belongs to.
    pub messages: u64,
    /// Bytes of whole frames: their heads, paths and data, without TLS.
    pub bytes: u64,
}

impl Traffic {
    /// Adds another count.
    pub fn merge(&mut self, other: Self) {
        self.frames += other.frames;
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    /// Returns what was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(earlier.frames),
            messages: self.messages.saturating_sub(earlier.messages),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// The connections of a server or client.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Connections {
    /// Number of connections that are open.
    pub open: usize,
    /// The first [`MAX_LISTED_CONNECTIONS`] of them, without those whose TLS handshake has not
    /// ended.
    pub list: Vec<ConnectionStats>,
}

impl Connections {
    /// Returns the figures of these connections, of which `open` are open. Adds what they have
    /// counted to the counters that they share.
    pub(crate) fn of(open: usize, shared: &[Arc<Shared>]) -> Self {
        let now = clock::now();
        let mut list = Vec::with_capacity(shared.len().min(MAX_LISTED_CONNECTIONS));
        for shared in shared {
            let stats = shared.stats(now);
            if list.len() < MAX_LISTED_CONNECTIONS {
                list.push(stats);
            }
        }
        Self { open, list }
    }
}

/// The figures of one connection.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The address of the peer; `None` on Unix sockets and in memory.
    pub peer: Option<SocketAddr>,
    /// The time since it was made.
    pub age: Duration,
    /// Bytes received, without TLS.
    pub received_bytes: u64,
    /// Bytes sent, without TLS, including those that wait to be written.
    pub sent_bytes: u64,
    /// Bytes that wait to be written: the peer does not read them, or not yet.
    pub unsent_bytes: usize,
    /// The calls that have begun and not ended.
    pub in_flight: usize,
    /// The last round trip that was measured: when the connection began, and at a client also by
    /// each ping of the keepalive. It includes the time that the peer needed to reply. `None` until
    /// then, and at a server for clients that do not speak this library's extensions.
    pub round_trip: Option<Duration>,
    /// The number of times that a stream had to wait because the peer had granted no more credit.
    pub credit_stalls: u64,
    /// The hello of the peer, see [`Peer::hello`](crate::Peer::hello).
    pub hello: Option<Bytes>,
}
