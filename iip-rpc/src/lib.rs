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
//! The client implements the same trait, so code that takes `impl Greeter` runs with or without a
//! server.
//!
//! The module `guide` of this documentation has a page for each topic, with programs to copy.
//!
//! # Overview
//!
//! | task | items |
//! |---|---|
//! | call: timeouts, metadata, several connections | [`Client`], [`ClientBuilder`], [`CallOptions`] |
//! | serve: several services, limits, shutdown | [`Server`], [`ServerBuilder`] |
//! | retry and hedge calls, as their methods allow | [`RetryPolicy`], [`RetryBudget`], [`Hedge`], [`MethodPolicy`] |
//! | bound a server's load and the time of its calls | [`Concurrency`], [`Priority`], [`ServerPolicy`] |
//! | report whether a server can be called | [`Health`], [`HealthClient`] |
//! | tell clients when to retry | [`Status::with_retry_after`], [`Status::with_no_retry`] |
//! | observe every call, reject some: authorization, logs | [`interceptor`] |
//! | layers of tower, services of tower | `tower`, with the feature of that name |
//! | metrics per method, spans, trace context | [`observe`] |
//! | caller, deadline and metadata of a call | [`CallContext`] |
//! | fail: codes, your own error types, execution state | [`Status`], [`MethodError`], [`Execution`] |
//! | use `?` on errors of other crates in handlers | [`ResultExt`] |
//! | call or replace a Go service | `#[rpc(path = "..", raw)]` and `json`, see [`service`](macro@service) |
//! | send and receive many messages in one call | [`Streaming`], [`Stream`] |
//! | send without waiting for a reply | `#[rpc(oneway)]`, see [`service`](macro@service) |
//! | values for all subscribers, also after a lost connection | [`Topic`], [`Subscription`] |
//! | another codec | `#[service(codec = "..")]`, [`ClientBuilder::codec`], [`codec`] |
//! | fewer bytes on the network | [`Compression`], [`ClientBuilder::compression`], [`ServerBuilder::compression`] |
//! | large data without copies | [`Payload`], or `bytes::Bytes` |
//! | bytes on the wire | `docs/wire.md` in the repository, [`envelope`], [`codec`] |
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
//! | `compress-zstd` | no | [`Compression::zstd`](Compression), and reading what peers have compressed with it |
//! | `compress-lz4` | no | [`Compression::lz4`](Compression), the same for lz4 |
//! | `tls` | no | TLS by rustls, `tls` |
//! | `metrics` | no | `observe::MetricsFacade`: metrics through the `metrics` crate |
//! | `tracing` | no | `observe::TracingInterceptor`: a span per call and W3C trace context |
//! | `tower` | no | `tower`: layers and services of tower on both sides |

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
mod result_ext;
mod retry;
mod server;
pub mod status;
mod streaming;
mod subscription;
#[cfg(feature = "tower")]
pub mod tower;
mod varint;

#[doc(hidden)]
pub mod __private;

pub use self::budget::RetryBudget;
pub use self::client::{CallOptions, Client, ClientBuilder, ReplyMetadata};
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

/// Return type of a method that sends many messages:
/// `Result<impl Stream<Item = Result<T, Status>>, Status>`.
pub use futures_core::Stream;

/// TLS for both sides. Needs the feature `tls`.
#[cfg(feature = "tls")]
pub use iip_core::tls;

pub use iip_core::{ConfigError, Limits};

/// The levels of the `tracing` crate, through which the library logs.
pub use iip_core::Level;

#[cfg(feature = "macros")]
pub use iip_macros::{MethodError, service};

/// Return type of methods; the error is a [`Status`] unless the method has its own error type.
pub type Result<T, E = Status> = std::result::Result<T, E>;
