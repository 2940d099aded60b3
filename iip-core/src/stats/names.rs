//! The names of OpenTelemetry for what is exported, in the form of Prometheus: with `_` for `.`.
//!
//! `rpc.response.status_code` is called `rpc.status_code` in the version of the conventions after
//! 1.44.0, which is not out. [`STATUS_CODE`] changes with it, and so does `observe` of `iip-rpc`.

use crate::frame::Side;

pub(super) const SYSTEM_NAME: &str = "rpc_system_name";
pub(super) const SYSTEM: &str = "iip";
pub(super) const METHOD: &str = "rpc_method";
pub(super) const STATUS_CODE: &str = "rpc_response_status_code";

/// The names of one side.
pub(super) struct Names {
    pub(super) duration: &'static str,
    pub(super) calls: &'static str,
    pub(super) active: &'static str,
    pub(super) received: &'static str,
    pub(super) sent: &'static str,
    pub(super) connections: &'static str,
    pub(super) started: &'static str,
}

impl Names {
    pub(super) const fn of(side: Side) -> &'static Self {
        match side {
            Side::Client => &Self {
                duration: "rpc_client_call_duration_seconds",
                calls: "rpc_client_calls",
                active: "rpc_client_active_calls",
                received: "rpc_client_received_bytes",
                sent: "rpc_client_sent_bytes",
                connections: "rpc_client_connections",
                started: "rpc_client_start_time_seconds",
            },
            Side::Server => &Self {
                duration: "rpc_server_call_duration_seconds",
                calls: "rpc_server_calls",
                active: "rpc_server_active_calls",
                received: "rpc_server_received_bytes",
                sent: "rpc_server_sent_bytes",
                connections: "rpc_server_connections",
                started: "rpc_server_start_time_seconds",
            },
        }
    }
}
