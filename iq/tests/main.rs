//! The program, run as by its users, against servers in the process of the test.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bank;
mod bash;
mod bench;
mod calls;
mod check;
mod common;
mod completions;
mod descriptions;
mod drain;
mod files;
mod health;
mod man;
mod output;
mod proxy;
mod raw;
mod readme;
mod record;
mod replay;
mod stats;
mod streams;
mod targets;
#[cfg(feature = "tls")]
mod tls;
mod top;
mod top_in_tmux;
mod typescript;
