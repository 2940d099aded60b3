//! The line of JSON that a client prints.

use serde::{Deserialize, Serialize};

/// What one run measured.
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
}
