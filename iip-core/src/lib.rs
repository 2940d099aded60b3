//! IIP: many concurrent calls over one TCP connection, with an overhead of ten bytes per frame.
//!
//! This crate implements the protocol: frames, channels, connections, a raw client and a raw
//! server. It works on paths and bytes; typed calls, metadata, status codes and interceptors are in
//! `iip-rpc`. It is compatible with the Go implementation byte for byte, in both directions.
//!
//! A channel is one of the independent sequences of messages on a connection, and carries one call
//! at a time. A channel of gRPC corresponds to a [`Client`], which makes, pools and replaces the
//! connections to one server, or to several.
//!
//! ```
//! use std::time::Duration;
//! use iip_core::{Client, HandlerError, Request, Response, Server, handler_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let echo = handler_fn(|request: Request| async move {
//!     Ok::<_, HandlerError>(Response::from(request.into_body()))
//! });
//! let server = Server::builder().route("/echo", echo).bind("127.0.0.1:0").await?;
//!
//! let client = Client::connect(server.target()).await?;
//! let reply = client.request("/echo", "hello").await?;
//! assert_eq!(&reply[..], b"hello");
//! server.shutdown(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//!
//! | task | items |
//! |---|---|
//! | make calls: one request and its reply, pipelined requests on one channel, one-way calls | [`Client::request`], [`Client::open_channel`], [`Client::send`] |
//! | receive a reply in chunks, open a stream in each direction, with flow control | [`Client::stream`], [`Client::open_stream`] |
//! | timeouts, several connections, connecting on the first call | [`ClientBuilder`], [`CallOptions`] |
//! | serve paths, limits, graceful shutdown | [`Server`], [`ServerBuilder`] |
//! | handle requests: whole, in chunks, as streams | [`handler_fn`], [`Handler`], [`RequestMode`], [`Request`], [`Response`] |
//! | cancellation: the policy for a handler whose caller has gone | [`OnCancel`], [`CancelToken`] |
//! | the address, certificates and hello of the peer | [`Peer`] |
//! | the cause of an error, and whether a call may have run | [`CallError`], [`CallErrorKind`], [`Execution`], [`ConnectionError`] |
//! | limits of memory, sizes and times, keepalive | [`Limits`] |
//! | addresses, Unix sockets, in-memory transport, custom byte streams | [`transport`] |
//! | several servers: policies, health, zones | [`balance`], [`ClientBuilder::balance`], [`Client::explain`] |
//! | where the servers come from: a list, a file, DNS, a registry | [`discover`], [`ClientBuilder::discover`] |
//! | what was counted: calls by path and code, durations, bytes, connections | [`stats`], [`Server::stats`], [`Client::stats`] |
//! | TLS, mutual TLS | `tls`, with the feature of that name |
//! | frames and paths as bytes, without a connection | [`decoder`], [`frame`], [`path`] |
//!
//! The internal structure is described in `docs/architecture.md` of the repository.
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `dns-srv` | no | `discover::DnsSrv`: backends from SRV records, with a resolver in Rust |
//! | `inherit` | no | `Listener::inherited`, `ServerBuilder::inherit_or_bind` and `Handover`: listening sockets that processes pass on, on Unix |
//! | `rules` | no | `rules::Rules`: the JSON rules of the Go client choose the backends of calls |
//! | `signal` | no | `Server::shutdown_on_signal`: ctrl-c and SIGTERM |
//! | `tls` | no | TLS by rustls on both sides, with the ring provider |

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests have clocks and seeds of their own"
    )
)]

pub mod balance;
mod body;
mod cancel;
mod client;
mod clock;
mod connection;
pub mod decoder;
mod deferred;
pub mod discover;
mod driver;
mod error;
mod foreign;
pub mod frame;
mod handler;
mod handler_error;
pub mod limits;
mod logs;
pub mod path;
mod pending;
mod printable;
mod proto;
mod random;
#[cfg(feature = "rules")]
pub mod rules;
mod scratch;
mod serve;
mod server;
mod shutdown;
pub mod sniff;
pub mod stats;
#[cfg(feature = "tls")]
pub mod tls;
mod totals;
pub mod transport;

pub use self::body::Body;
pub use self::cancel::{CancelToken, OnCancel};
pub use self::client::{CallOptions, Channel, Client, ClientBuilder, Explanation, ReplyParts};
pub use self::connection::{
    Call, Connection, Peer, RecvStream, ReplyStream, RequestParts, RunningCall, SendStream,
    StreamError,
};
pub use self::error::{
    BackendAttempt, CallError, CallErrorKind, ConfigError, ConnectionError, Execution, Phases,
    ProtocolError,
};
pub use self::frame::{ChannelId, Frame, FrameStatus, Side};
pub use self::handler::{
    Handler, HandlerFn, HandlerFuture, Request, RequestMode, Response, handler_fn,
};
pub use self::handler_error::{HandlerError, RejectReason};
pub use self::limits::Limits;
pub use self::printable::Printable;
#[cfg(all(unix, feature = "inherit"))]
pub use self::server::Handover;
pub use self::server::{
    DrainSignal, ProtocolConnection, ProtocolHandler, Server, ServerBuilder, ServerHandle,
    ServerObserver,
};
#[cfg(feature = "signal")]
pub use self::shutdown::ShutdownSignal;
pub use self::totals::Places;

/// The levels of the `tracing` crate.
pub use tracing::Level;

/// Checks that tasks can share these types, or pass them on.
const _: () = {
    const fn shared<T: Send + Sync + 'static>() {}
    const fn sent<T: Send + 'static>() {}
    shared::<Client>();
    shared::<ClientBuilder>();
    shared::<Server>();
    shared::<Connection>();
    shared::<Peer>();
    shared::<CancelToken>();
    shared::<CallError>();
    shared::<ConnectionError>();
    shared::<HandlerError>();
    sent::<ServerBuilder>();
    sent::<Call>();
    sent::<Channel>();
    sent::<Request>();
    sent::<RequestParts>();
    sent::<Response>();
    sent::<ReplyParts>();
    sent::<ReplyStream>();
    sent::<SendStream>();
    sent::<RecvStream>();
};

/// Items that only other crates of this project need. They are not part of the public API.
#[doc(hidden)]
pub mod __rpc {
    pub use crate::client::{CallTracker, NotPicked, PickArgs, Picked, Tried, outcome_of};
    #[cfg(feature = "rules")]
    pub use crate::clock::local_time;
    pub use crate::clock::{after, now};
    pub use crate::connection::{CallTimes, with_context};
    pub use crate::random::{random_fraction, random_id, random_wide_id, seed_random};
}

/// Like `__rpc`, for tools that look at the frames of others.
#[doc(hidden)]
pub mod __wire {
    pub use crate::proto::control::ControlMessage;
    pub use crate::proto::stream::{StreamMark, begins_stream};
}

#[cfg(fuzzing)]
#[doc(hidden)]
pub use self::proto::fuzz::machine as __fuzz_machine;
