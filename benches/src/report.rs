//! The line of JSON that a client prints.

use serde::{Deserialize, Serialize};

/// What one run of calls measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Calls answered rightly per second.
    pub calls_s: f64,
    /// Half of the calls took no longer than this, in microseconds.
    pub p50: f64,
    /// 99 % of the calls took no longer than this, in microseconds.
    pub p99: f64,
    /// 99.9 % of the calls took no longer than this, in microseconds.
    pub p999: f64,
    /// Processor time of the client, in microseconds per call.
    pub cli_cpu: f64,
    /// Processor time of the server, in microseconds per call; absent without `--server-pid`.
    pub srv_cpu: Option<f64>,
    /// Calls that failed, came back changed or never came back, from the first to the last.
    pub errors: u64,
    /// What other streams keep of their rate while one stalls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<f64>,
}

/// What a server's memory grew by for connections that rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdleReport {
    /// How many there were.
    pub connections: usize,
    /// Calls that had been made at a time on each.
    pub channels: usize,
    /// Resident memory of the server before the first connection.
    pub rss_before_kib: u64,
    /// Resident memory of the server once it had settled.
    pub rss_after_kib: u64,
    /// The growth, shared out to the connections.
    pub bytes_per_connection: f64,
    /// The growth, shared out to all channels; absent where a connection has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_channel: Option<f64>,
}
