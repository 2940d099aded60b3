//! The names of OpenTelemetry for metrics, labels and spans.
//!
//! `rpc.response.status_code` is called `rpc.status_code` in the version of the conventions after
//! 1.44.0, which is not out. [`STATUS_CODE`] changes with it.

use crate::frame::Side;

pub const SYSTEM_NAME: &str = "rpc.system.name";
/// The value of [`SYSTEM_NAME`].
pub const SYSTEM: &str = "iip";
pub const METHOD: &str = "rpc.method";
pub const STATUS_CODE: &str = "rpc.response.status_code";
pub const ERROR_TYPE: &str = "error.type";

/// The metrics of one side.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is used by iip-rpc only")]
pub struct Metrics {
    pub duration: &'static str,
    pub calls: &'static str,
    pub active: &'static str,
    pub limit: &'static str,
    pub received: &'static str,
    pub sent: &'static str,
    pub credit_stalls: &'static str,
    pub connections: &'static str,
    pub started: &'static str,
}

impl Metrics {
    #[must_use]
    pub const fn of(side: Side) -> &'static Self {
        match side {
            Side::Client => &Self {
                duration: "rpc.client.call.duration",
                calls: "rpc.client.calls",
                active: "rpc.client.active_calls",
                limit: "rpc.client.concurrency.limit",
                received: "rpc.client.received",
                sent: "rpc.client.sent",
                credit_stalls: "rpc.client.credit_stalls",
                connections: "rpc.client.connections",
                started: "rpc.client.start_time",
            },
            Side::Server => &Self {
                duration: "rpc.server.call.duration",
                calls: "rpc.server.calls",
                active: "rpc.server.active_calls",
                limit: "rpc.server.concurrency.limit",
                received: "rpc.server.received",
                sent: "rpc.server.sent",
                credit_stalls: "rpc.server.credit_stalls",
                connections: "rpc.server.connections",
                started: "rpc.server.start_time",
            },
        }
    }
}
