//! Tests against real servers of etcd, which each test starts for itself, and against servers that
//! misbehave.

mod auth;
mod common;
mod hostile;
mod registering;
mod restarts;
mod watching;
