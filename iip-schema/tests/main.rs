//! Tests of descriptions from the outside.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;
mod compat;
mod dynamic;
mod file;
mod fingerprint;
mod hostile;
mod openapi;
mod probe;
