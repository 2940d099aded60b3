//! Metrics through the facade of the `metrics` crate.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{IntoF64, counter, gauge, histogram, with_recorder};

use super::{Recorder, SYSTEM, Side, otel_method};
use crate::method::MethodDescriptor;
use crate::status::Code;

/// Sends metrics to the recorder that the program has installed with the `metrics` crate; without
/// one they are discarded.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `rpc.client.call.duration`, `rpc.server.call.duration` | histogram, seconds | `rpc.system.name`, `rpc.method`, `rpc.response.status_code` |
/// | `rpc.client.calls`, `rpc.server.calls` | counter | the same |
/// | `rpc.client.active_calls`, `rpc.server.active_calls` | gauge | `rpc.system.name`, `rpc.method` |
///
/// `rpc.system.name` is `iip`, `rpc.method` is `Service/method`, and the code is a name such as
/// `NOT_FOUND`. Labels come only from the methods in the program and from 17 codes: no caller can
/// add to them.
///
/// While no recorder is installed, it adds no cost to calls; a recorder that is installed later
/// gets the calls that begin from then on.
///
/// Needs the feature `metrics`.
#[derive(Debug, Default)]
pub struct MetricsFacade {
    /// Address of the recorder that was current when a metric was discarded; 0 if that has not
    /// happened.
    nowhere: AtomicUsize,
}

impl MetricsFacade {
    /// Creates the facade.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Clone for MetricsFacade {
    fn clone(&self) -> Self {
        Self {
            nowhere: self.nowhere.load(Ordering::Relaxed).into(),
        }
    }
}

/// Returns the address of the current recorder if its type has size zero, like the no-op recorder
/// of the `metrics` crate. Other recorders hold something to write to.
fn place_of_nobody() -> Option<usize> {
    with_recorder(|recorder| {
        let place = std::ptr::from_ref(recorder).cast::<()>().addr();
        (size_of_val(recorder) == 0).then_some(place)
    })
}

/// A duration that records that it was read: a no-op recorder never reads it.
struct Noticed<'a> {
    took: Duration,
    by_somebody: &'a Cell<bool>,
}

impl IntoF64 for Noticed<'_> {
    fn into_f64(self) -> f64 {
        self.by_somebody.set(true);
        self.took.as_secs_f64()
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
        let by_somebody = Cell::new(false);
        histogram!(duration, &labels).record(Noticed {
            took,
            by_somebody: &by_somebody,
        });
        if !by_somebody.get()
            && let Some(place) = place_of_nobody()
        {
            self.nowhere.store(place, Ordering::Relaxed);
        }
        counter!(calls, &labels).increment(1);
        active(side, method).decrement(1);
    }

    fn is_idle(&self) -> bool {
        let nowhere = self.nowhere.load(Ordering::Relaxed);
        nowhere != 0 && place_of_nobody() == Some(nowhere)
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
