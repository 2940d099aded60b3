//! IIP: many concurrent calls over one TCP connection, with an overhead of ten bytes per frame.
//!
//! This crate implements the protocol: frames, channels, connections, a raw client and a raw
//! server. It works on paths and bytes; typed calls are in `iip-rpc`. It is compatible with the Go
//! implementation byte for byte, in both directions.
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
//! let answer = client.request("/echo", "hello").await?;
//! assert_eq!(&answer[..], b"hello");
//! server.shutdown(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//!
//! | task | items |
//! |---|---|
//! | call: one request and its reply, requests in order, one-way requests | [`Client::request`], [`Client::open_channel`], [`Client::send`] |
//! | receive a reply in parts, open a stream in each direction | [`Client::stream`], [`Client::open_stream`] |
//! | timeouts, several connections, lazy connecting | [`ClientConfig`], [`CallOptions`] |
//! | serve paths, limits, shutdown | [`Server`], [`ServerConfig`] |
//! | handle requests: whole, in parts, with streams | [`handler_fn`], [`Handler`], [`RequestMode`], [`Request`], [`Response`] |
//! | policy for a handler whose caller has gone | [`OnCancel`], [`CancelToken`] |
//! | information about the peer | [`Peer`] |
//! | the cause of an error, and whether a call may have run | [`CallError`], [`CallErrorKind`], [`Execution`], [`ConnectionError`] |
//! | limits of memory, sizes and times | [`Limits`] |
//! | addresses, Unix sockets, in-memory transport, custom byte streams | [`transport`] |
//! | TLS | `tls`, with the feature of that name |
//! | frames and paths as bytes, without a connection | [`decoder`], [`frame`], [`path`] |
//!
//! The internal structure is described in `docs/architecture.md` of the repository.
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `signal` | no | `Server::shutdown_on_signal`: ctrl-c and SIGTERM |
//! | `tls` | no | TLS by rustls on both sides, with the ring provider |

mod body;
mod cancel;
mod client;
mod clock;
mod connection;
pub mod decoder;
mod deferred;
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
mod scratch;
mod serve;
mod server;
mod shutdown;
#[cfg(feature = "tls")]
pub mod tls;
mod totals;
pub mod transport;

pub use self::body::Body;
pub use self::cancel::{CancelToken, OnCancel};
pub use self::client::{CallOptions, Channel, Client, ClientConfig, ReplyParts};
pub use self::connection::{
    Call, CallTimes, Connection, Peer, RecvStream, ReplyStream, RequestParts, RunningCall,
    SendStream, StreamError, with_context,
};
pub use self::error::{
    CallError, CallErrorKind, ConfigError, ConnectionError, Execution, Phases, ProtocolError,
};
pub use self::frame::{ChannelId, Frame, FrameStatus, Side};
pub use self::handler::{
    Handler, HandlerFn, HandlerFuture, Request, RequestMode, Response, handler_fn,
};
pub use self::handler_error::{HandlerError, RejectReason};
pub use self::limits::Limits;
pub use self::printable::Printable;
pub use self::server::{Server, ServerConfig};
#[cfg(feature = "signal")]
pub use self::shutdown::ShutdownSignal;
pub use self::totals::Places;

/// The levels of the `tracing` crate.
pub use tracing::Level;

/// Items that only `iip-rpc` needs. They are not part of the public API.
#[doc(hidden)]
pub mod __rpc {
    pub use crate::clock::{after, now};
}

#[cfg(fuzzing)]
#[doc(hidden)]
pub use self::proto::fuzz::machine as __fuzz_machine;
