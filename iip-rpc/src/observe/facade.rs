//! Figures through the facade of the `metrics` crate.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{IntoF64, counter, gauge, histogram, with_recorder};

use super::{Recorder, SYSTEM, Side, otel_method};
use crate::method::MethodDescriptor;
use crate::status::Code;

/// Hands figures to the recorder that the program has installed with the `metrics` crate; without
/// one they go nowhere.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `rpc.client.call.duration`, `rpc.server.call.duration` | histogram, seconds | `rpc.system.name`, `rpc.method`, `rpc.response.status_code` |
/// | `rpc.client.calls`, `rpc.server.calls` | counter | the same |
/// | `rpc.client.active_calls`, `rpc.server.active_calls` | gauge | `rpc.system.name`, `rpc.method` |
///
/// `rpc.system.name` is `iip`, `rpc.method` is `Service/method`, and the code is a name such as
/// `NOT_FOUND`. Labels are of methods in the program and of 17 codes: no caller can add to them.
///
/// While no recorder is installed, calls cost what they cost without this; one that is installed
/// later is told of those that begin then.
///
/// Needs the feature `metrics`.
#[derive(Debug, Default)]
pub struct MetricsFacade {
    /// The place of the recorder that was there when figures went nowhere; 0 if that was never so.
    nowhere: AtomicUsize,
}

impl MetricsFacade {
    /// The facade.
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

/// The place of the recorder that is there now, if it is one of no size: that of the `metrics`
/// crate which stands for none is such a one. Others have something to write to.
fn place_of_nobody() -> Option<usize> {
    with_recorder(|recorder| {
        let place = std::ptr::from_ref(recorder).cast::<()>().addr();
        (size_of_val(recorder) == 0).then_some(place)
    })
}

/// A time that notes when it is looked at: nobody looks at what goes nowhere.
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
