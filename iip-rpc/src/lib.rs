//! Typed RPC from a Rust trait: write the trait, put [`#[service]`](macro@service) on it, and have
//! a client and a server. No IDL, no protoc, no build script.
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
//! The client implements the same trait, so code that takes `impl Greeter` runs against a server,
//! or without one.
//!
//! A page for each topic, with programs to copy, stands in the module `guide` of this
//! documentation.
//!
//! # Where to find what
//!
//! | you want | look at |
//! |---|---|
//! | call: timeouts, metadata, several connections | [`Client`], [`ClientBuilder`], [`CallOptions`] |
//! | serve: several services, limits, shutdown | [`Server`], [`ServerBuilder`] |
//! | repeat and hedge calls, and say which methods allow it | [`RetryPolicy`], [`RetryBudget`], [`Hedge`], [`MethodPolicy`] |
//! | bound a server's load and the time of its calls | [`Concurrency`], [`Priority`], [`ServerPolicy`] |
//! | tell whether a server can be called | [`Health`], [`HealthClient`] |
//! | tell clients when to come again | [`Status::with_retry_after`], [`Status::with_no_retry`] |
//! | see every call, refuse some: authorization, logs | [`interceptor`] |
//! | layers of tower, services of tower | `tower`, with the feature of that name |
//! | figures per method, spans, trace context | [`observe`] |
//! | know who calls, until when, with which metadata | [`CallContext`] |
//! | fail: codes, your own error types, may it have run? | [`Status`], [`MethodError`], [`Execution`] |
//! | use `?` on errors of other crates in handlers | [`ResultExt`] |
//! | call or replace a Go service | `#[rpc(path = "..", raw)]` and `json`, see [`service`](macro@service) |
//! | send and take many messages in one call | [`Streaming`], [`Stream`] |
//! | send without waiting for an answer | `#[rpc(oneway)]`, see [`service`](macro@service) |
//! | values for all who subscribe, also after their connection was lost | [`Topic`], [`Subscription`] |
//! | another codec | `#[service(codec = "..")]`, [`ClientBuilder::codec`], [`codec`] |
//! | fewer bytes on the network | [`Compression`], [`ClientBuilder::compression`], [`ServerBuilder::compression`] |
//! | large data without copies | [`Payload`], or `bytes::Bytes` |
//! | bytes on the wire | `docs/wire.md` in the repository, [`envelope`], [`codec`] |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `macros` | yes | [`#[service]`](macro@service) and `#[derive(MethodError)]` |
//! | `codec-bincode` | yes | the default codec; without it, JSON is |
//! | `signal` | yes | `Server::shutdown_on_signal`: ctrl-c and SIGTERM |
//! | `codec-postcard` | no | the codec postcard |
//! | `codec-msgpack` | no | the codec MessagePack |
//! | `codec-prost` | no | services whose methods take and return protobuf messages, `Proto` |
//! | `compress-zstd` | no | [`Compression::zstd`](Compression), and reading what peers have compressed with it |
//! | `compress-lz4` | no | [`Compression::lz4`](Compression), the same for lz4 |
//! | `tls` | no | TLS by rustls, `tls` |
//! | `metrics` | no | `observe::MetricsFacade`: figures through the `metrics` crate |
//! | `tracing` | no | `observe::TracingInterceptor`: a span per call and W3C trace context |
//! | `tower` | no | `tower`: layers and services of tower on both sides |

pub mod arguments;
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

/// Byte streams to speak over: addresses, memory, your own.
pub use iip_core::transport;

/// What a method answers with that sends many messages:
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

/// What methods return; their failure is a [`Status`] unless they have an error type of their own.
pub type Result<T, E = Status> = std::result::Result<T, E>;
