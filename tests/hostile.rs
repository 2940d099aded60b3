//! Peers that attack.

mod common;

mod hostile_client;
mod hostile_compression;
mod hostile_logs;
mod hostile_memory;
mod hostile_server;
mod hostile_streams;
