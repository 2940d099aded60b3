//! The protocol itself, through the public API of `iip-core`.

mod common;

mod conformance;
mod raw_streams;
mod tls;
