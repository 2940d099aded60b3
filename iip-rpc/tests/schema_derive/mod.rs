//! `#[derive(Schema)]` describes what serde writes and reads.

#![cfg(feature = "macros")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod reasons;
mod representations;
mod structs;
mod types;
mod written;
