//! Transfers over real sockets, through the public API.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod beside;
mod cancelled;
mod common;
mod directories;
mod disk;
mod escapes;
mod files;
mod hostile_server;
mod kills;
mod lost_replies;
mod resume;
mod silence;
mod writers;
