//! Tests against real servers of etcd, which each test starts for itself, and against servers that
//! misbehave.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod auth;
mod calls;
mod common;
mod hostile;
mod registering;
mod restarts;
mod watching;
