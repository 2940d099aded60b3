//! Figures through the facade of the `metrics` crate.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::{Recorder, SYSTEM, Side, otel_method};
use crate::method::MethodDescriptor;
use crate::status::Code;

/// Hands figures to the recorder that the program has installed with the `metrics` crate; without one they go nowhere.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `rpc.client.call.duration`, `rpc.server.call.duration` | histogram, seconds | `rpc.system.name`, `rpc.method`, `rpc.response.status_code` |
/// | `rpc.client.calls`, `rpc.server.calls` | counter | the same |
/// | `rpc.client.active_calls`, `rpc.server.active_calls` | gauge | `rpc.system.name`, `rpc.method` |
///
/// `rpc.system.name` is `iip`, `rpc.method` is `Service/method`, and the code is a name such as `NOT_FOUND`. Labels are of
/// methods in the program and of 17 codes: no caller can add to them.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct MetricsFacade;

impl MetricsFacade {
    /// The facade.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Recorder for MetricsFacade {
    fn call_started(&self, side: Side, method: &'static MethodDescriptor) {
        active(side, method).increment(1);
    }

    fn call_ended(
        &self,
        side: Side,
        method: &'static MethodDescriptor,
        code: Code,
        took: Duration,
    ) {
        let (duration, calls) = match side {
            Side::Client => ("rpc.client.call.duration", "rpc.client.calls"),
            Side::Server => ("rpc.server.call.duration", "rpc.server.calls"),
        };
        let labels = [
            ("rpc.system.name", SYSTEM.to_owned()),
            ("rpc.method", otel_method(method)),
            ("rpc.response.status_code", code.name().to_owned()),
        ];
        histogram!(duration, &labels).record(took);
        counter!(calls, &labels).increment(1);
        active(side, method).decrement(1);
    }
}

fn active(side: Side, method: &MethodDescriptor) -> metrics::Gauge {
    let name = match side {
        Side::Client => "rpc.client.active_calls",
        Side::Server => "rpc.server.active_calls",
    };
    let labels = [
        ("rpc.system.name", SYSTEM.to_owned()),
        ("rpc.method", otel_method(method)),
    ];
    gauge!(name, &labels)
}
