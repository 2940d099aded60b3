//! Typed RPC from a Rust trait: [`#[service]`](macro@service) on a trait generates a client and a
//! server. No IDL, no protoc, no build script.
//!
//! ```
//! use std::time::Duration;
//! use iip_rpc::{Server, Status, service};
//!
//! #[service]
//! pub trait Greeter {
//!     /// Greets someone.
//!     async fn hello(&self, name: String) -> Result<String, Status>;
//! }
//!
//! struct Polite;
//!
//! impl Greeter for Polite {
//!     async fn hello(&self, name: String) -> Result<String, Status> {
//!         Ok(format!("hello, {name}"))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().service(GreeterServer::new(Polite)).bind("127.0.0.1:0").await?;
//! let greeter = GreeterClient::connect(server.target()).await?;
//! assert_eq!(greeter.hello("world".into()).await?, "hello, world");
//! server.shutdown(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! The client implements the same trait, so code that takes `impl Greeter` works with a client,
//! with a mock, and with the implementation itself.
//!
//! The module `guide` of this documentation has a page for each topic, with complete programs, and
//! a page on migrating from gRPC. Load balancing over several addresses, service discovery and
//! server reflection are not available.
//!
//! # Overview
//!
//! | task | items |
//! |---|---|
//! | make calls: timeouts, metadata, wait-for-ready, several connections | [`Client`], [`ClientBuilder`], [`CallOptions`] |
//! | serve calls: several services, limits, graceful shutdown | [`Server`], [`ServerBuilder`] |
//! | retry policy, retry budget, hedging | [`RetryPolicy`], [`RetryBudget`], [`Hedge`], [`MethodPolicy`] |
//! | concurrency limits, load shedding, limits on deadlines | [`Concurrency`], [`Priority`], [`ServerPolicy`] |
//! | maximum message size, memory, flow-control windows, keepalive | [`Limits`] |
//! | health checking | [`Health`], [`HealthClient`] |
//! | server pushback: when to retry | [`Status::with_retry_after`], [`Status::with_no_retry`] |
//! | interceptors: authentication, authorization, logs, rejecting calls | [`interceptor`] |
//! | layers and services of tower | `tower`, with the feature of that name |
//! | TLS, mutual TLS | `tls`, with the feature of that name |
//! | metrics per method, spans, trace context | [`observe`] |
//! | caller, deadline, metadata and cancellation of a call | [`CallContext`] |
//! | errors: status codes, error details, your own error types, whether the call may have run | [`Status`], [`MethodError`], [`Execution`] |
//! | use `?` on errors of other crates in handlers | [`ResultExt`] |
//! | call or replace a Go service | `#[rpc(path = "..", raw)]` and `json`, see [`service`](macro@service) |
//! | server, client and bidirectional streaming: many messages in one call | [`Streaming`], [`Stream`] |
//! | one-way calls, without a reply | `#[rpc(oneway)]`, see [`service`](macro@service) |
//! | subscriptions, which resume after a lost connection | [`Topic`], [`Subscription`] |
//! | choose another codec | `#[service(codec = "..")]`, [`ClientBuilder::codec`], [`codec`] |
//! | compression | [`Compression`], [`ClientBuilder::compression`], [`ServerBuilder::compression`] |
//! | large data without copies | [`Payload`], or `bytes::Bytes` |
//! | wire format | `docs/wire.md` in the repository, [`envelope`], [`codec`] |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `macros` | yes | [`#[service]`](macro@service) and `#[derive(MethodError)]` |
//! | `codec-bincode` | yes | the default codec; without it, the default is JSON |
//! | `signal` | yes | `Server::shutdown_on_signal`: ctrl-c and SIGTERM |
//! | `codec-postcard` | no | the codec postcard |
//! | `codec-msgpack` | no | the codec MessagePack |
//! | `codec-prost` | no | services whose methods take and return protobuf messages, `Proto` |
//! | `compress-zstd` | no | [`Compression::zstd`](Compression), and decompression of zstd |
//! | `compress-lz4` | no | [`Compression::lz4`](Compression), and decompression of lz4 |
//! | `dns-srv` | no | targets such as `dns+srv://_service._tcp.host.`: backends from SRV records |
//! | `inherit` | no | `ServerBuilder::inherit_or_bind` and `Handover`: listening sockets that processes pass on, on Unix |
//! | `rules` | no | `iip_core::rules`: JSON rules choose the backends of calls |
//! | `tls` | no | `tls`: TLS by rustls |
//! | `metrics` | no | `observe::MetricsFacade`: metrics through the `metrics` crate |
//! | `tracing` | no | `observe::TracingInterceptor`: a span per call and W3C trace context |
//! | `tower` | no | `tower`: layers and services of tower on both sides |

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests have clocks and seeds of their own"
    )
)]

pub mod arguments;
mod boxed;
mod budget;
mod checked;
mod client;
pub mod codec;
pub mod compression;
mod context;
pub mod envelope;
mod extensions;
#[cfg(all(any(doc, doctest), feature = "macros"))]
pub mod guide;
mod health;
mod hello;
pub mod interceptor;
mod limits;
pub mod metadata;
pub mod method;
pub mod observe;
mod overload;
pub mod payload;
mod policy;
mod pushback;
mod raw;
mod recent;
mod result_ext;
mod retry;
pub mod schema;
mod server;
pub mod status;
mod streaming;
mod subscription;
#[cfg(feature = "tower")]
pub mod tower;
mod varint;

#[doc(hidden)]
pub mod __private;

/// Items that only other crates of this project need. They are not part of the public API.
#[doc(hidden)]
pub mod __wire {
    pub use crate::streaming::messages::{Records, TooLarge};
}

pub use self::budget::RetryBudget;
pub use self::client::{
    CallOptions, Client, ClientBuilder, JsonCall, JsonError, JsonText, ReplyMetadata,
};
#[cfg(feature = "codec-prost")]
#[doc(inline)]
pub use self::codec::Proto;
#[doc(inline)]
pub use self::compression::Compression;
pub use self::context::CallContext;
pub use self::health::{Health, HealthClient, HealthState};
#[doc(inline)]
pub use self::metadata::Metadata;
#[doc(inline)]
pub use self::method::{Concurrency, Hedge, MethodDescriptor, OnCancel, Priority};
#[doc(inline)]
pub use self::payload::Payload;
pub use self::policy::{MethodPolicy, RetryPolicy, ServerPolicy};
pub use self::pushback::Pushback;
pub use self::raw::RawBody;
pub use self::result_ext::ResultExt;
pub use self::server::{Methods, Server, ServerBuilder, Service, StreamCall, StreamReply};
#[doc(inline)]
pub use self::status::{Code, Execution, MethodError, Phases, Status};
pub use self::streaming::{SendError, StreamSender, Streaming};
pub use self::subscription::{
    Gap, Position, PositionError, SlowConsumer, Subscription, Topic, TopicBuilder, TryPublishError,
    Update,
};

/// Byte streams to connect over: network addresses, memory, or your own.
pub use iip_core::transport;
/// Clients of several servers: how calls are balanced, and where the servers come from.
pub use iip_core::{balance, discover, stats};

/// Return type of a method that sends many messages:
/// `Result<impl Stream<Item = Result<T, Status>>, Status>`.
pub use futures_core::Stream;

/// TLS for both sides. Needs the feature `tls`.
#[cfg(feature = "tls")]
pub use iip_core::tls;

/// The start of a successor process. Needs the feature `inherit`, on Unix.
#[cfg(all(unix, feature = "inherit"))]
pub use iip_core::Handover;

pub use iip_core::{ConfigError, Explanation, Limits, Peer};

/// The layer below: raw calls, handlers, and the errors of connections.
#[doc(no_inline)]
pub use iip_core;

/// The levels of the `tracing` crate, through which the library logs.
pub use iip_core::Level;

#[cfg(feature = "macros")]
pub use iip_macros::{MethodError, Schema, service};

/// Types that describe themselves, see [`derive(Schema)`](derive@Schema).
pub use iip_schema::Schema;

/// Checks that tasks can share these types, or pass them on.
const _: () = {
    const fn shared<T: Send + Sync + 'static>() {}
    const fn sent<T: Send + 'static>() {}
    shared::<Client>();
    shared::<CallContext>();
    shared::<CallOptions>();
    shared::<Health>();
    shared::<HealthClient>();
    shared::<Metadata>();
    shared::<ReplyMetadata>();
    shared::<RetryBudget>();
    shared::<Server>();
    shared::<Status>();
    shared::<Topic<u8>>();
    sent::<ClientBuilder>();
    sent::<ServerBuilder>();
    sent::<Streaming<u8>>();
    sent::<StreamSender<u8>>();
    sent::<Subscription<u8>>();
};

/// Return type of methods; the error is a [`Status`] unless the method has its own error type.
pub type Result<T, E = Status> = std::result::Result<T, E>;
