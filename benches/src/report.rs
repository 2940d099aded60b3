//! The line of JSON that a client prints.

use serde::{Deserialize, Serialize};

/// The results of one run of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Number of calls with the right reply per second.
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
    /// Number of calls that failed or had a wrong reply or none, over the whole run.
    pub errors: u64,
    /// Resident memory of the server at the end of the measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srv_kib: Option<u64>,
    /// Growth of the server's memory per connection since before the first one; absent with a
    /// single connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srv_connection_kib: Option<f64>,
    /// The part of their rate that other streams keep while one stalls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<f64>,
}

/// The growth of a server's memory for idle connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdleReport {
    /// Number of connections.
    pub connections: usize,
    /// Number of calls that were made at the same time on each.
    pub channels: usize,
    /// Resident memory of the server before the first connection.
    pub rss_before_kib: u64,
    /// Resident memory of the server once it had settled.
    pub rss_after_kib: u64,
    /// The growth per connection.
    pub bytes_per_connection: f64,
    /// The growth per channel; absent if a connection has only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_channel: Option<f64>,
}
