//! The protocol itself, through the public API of `iip-core`.

mod common;

mod conformance;
mod fairness;
mod fallback_protocol;
mod go_files;
mod go_statistics;
mod proxied;
mod raw_streams;
mod remote_drain;
mod replaced_connections;
mod rules;
mod tls;
