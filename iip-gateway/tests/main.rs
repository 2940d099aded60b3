//! Tests over real sockets: clients of HTTP on one side of a gateway, IIP servers on the other.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod adapter;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod attacks;
mod backends;
mod common;
mod configuration;
#[cfg(any(feature = "tls", all(feature = "cli", unix)))]
mod dir;
mod http2;
mod large_replies;
mod lifecycle;
mod limits;
mod live;
#[cfg(all(feature = "cli", unix))]
mod program;
mod same_port;
mod same_port_typed;
mod shop;
mod smuggling;
mod times;
#[cfg(feature = "tls")]
mod tls;
mod typed;
mod typed_builds;
mod typed_http2;
mod typed_streams;
