//! Metrics through the facade of the `metrics` crate.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use iip_core::balance::BackendInfo;
use iip_core::stats::names::{self, METHOD, Metrics, STATUS_CODE, SYSTEM_NAME};
use iip_core::transport::Endpoint;
use metrics::{IntoF64, counter, gauge, histogram, with_recorder};

use super::address::{SERVER_ADDRESS, SERVER_PORT, address_and_port};
use super::{Recorder, Side};
use crate::method::MethodDescriptor;
use crate::status::Code;

/// The maximum number of backends whose address is the value of a label.
const MAX_LABELLED: usize = 1000;

/// The address of all further backends.
const OTHER: &str = "other";

/// Sends metrics to the recorder that the program has installed with the `metrics` crate; without
/// one they are discarded.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `rpc.client.call.duration`, `rpc.server.call.duration` | histogram, seconds | `rpc.system.name`, `rpc.method`, `rpc.response.status_code`; at a client that balances its calls also `server.address`, `server.port` |
/// | `rpc.client.calls`, `rpc.server.calls` | counter | the same |
/// | `rpc.client.active_calls`, `rpc.server.active_calls` | gauge | `rpc.system.name`, `rpc.method` |
///
/// `rpc.system.name` is `iip`, `rpc.method` is `Service/method`, and the code is a name such as
/// `NOT_FOUND`. `server.address` and `server.port` are host and port of the backend of the last
/// attempt, or of the one whose reply counts if the call was hedged; a Unix socket has its path and
/// no port. Both are absent if no backend was found.
///
/// Labels come only from the methods in the program, from 17 codes, and from the first 1,000
/// addresses of backends that a facade and its clones see; `server.address` is `other` for the
/// calls of all further ones, without a port. No caller can add to them.
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
    labelled: Arc<Labelled>,
}

impl MetricsFacade {
    /// Creates the facade.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The addresses of backends that are values of labels. A source of addresses could otherwise make
/// the exporter keep metrics without limit.
#[derive(Debug, Default)]
struct Labelled(RwLock<HashSet<Endpoint>>);

impl Labelled {
    /// Adds the labels of a backend.
    fn add_to(&self, labels: &mut Vec<(&'static str, String)>, endpoint: &Endpoint) {
        if !self.admits(endpoint) {
            labels.push((SERVER_ADDRESS, OTHER.to_owned()));
            return;
        }
        let (address, port) = address_and_port(endpoint);
        labels.push((SERVER_ADDRESS, address.into_owned()));
        labels.extend(port.map(|port| (SERVER_PORT, port.to_string())));
    }

    /// Returns `true` if the address is, or becomes, one of those with labels of their own.
    fn admits(&self, endpoint: &Endpoint) -> bool {
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if known.contains(endpoint) {
                return true;
            }
            if known.len() >= MAX_LABELLED {
                return false;
            }
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another call may have added it, or the last one, in between.
        known.contains(endpoint) || (known.len() < MAX_LABELLED && known.insert(endpoint.clone()))
    }
}

impl Clone for MetricsFacade {
    fn clone(&self) -> Self {
        Self {
            nowhere: self.nowhere.load(Ordering::Relaxed).into(),
            labelled: Arc::clone(&self.labelled),
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
        self.call_ended_on(side, method, code, took, None);
    }

    fn call_ended_on(
        &self,
        side: Side,
        method: &'static MethodDescriptor,
        code: Code,
        took: Duration,
        backend: Option<&BackendInfo>,
    ) {
        let metrics = metrics_of(side);
        let mut labels = vec![
            (SYSTEM_NAME, names::SYSTEM.to_owned()),
            (METHOD, method.rpc_method()),
            (STATUS_CODE, code.name().to_owned()),
        ];
        if let Some(backend) = backend {
            self.labelled.add_to(&mut labels, &backend.endpoint);
        }
        let by_somebody = Cell::new(false);
        histogram!(metrics.duration, &labels).record(Noticed {
            took,
            by_somebody: &by_somebody,
        });
        if !by_somebody.get()
            && let Some(place) = place_of_nobody()
        {
            self.nowhere.store(place, Ordering::Relaxed);
        }
        counter!(metrics.calls, &labels).increment(1);
        active(side, method).decrement(1);
    }

    fn is_idle(&self) -> bool {
        let nowhere = self.nowhere.load(Ordering::Relaxed);
        nowhere != 0 && place_of_nobody() == Some(nowhere)
    }
}

/// Counts a call that is made in another codec because of the server's build. The recorder is that
/// of the program, whether or not a client has a [`MetricsFacade`].
#[cold]
pub(crate) fn count_codec_fallback(method: &MethodDescriptor) {
    counter!("iip_codec_fallback_total", METHOD => method.rpc_method()).increment(1);
}

fn active(side: Side, method: &MethodDescriptor) -> metrics::Gauge {
    let labels = [
        (SYSTEM_NAME, names::SYSTEM.to_owned()),
        (METHOD, method.rpc_method()),
    ];
    gauge!(metrics_of(side).active, &labels)
}

fn metrics_of(side: Side) -> &'static Metrics {
    Metrics::of(match side {
        Side::Client => iip_core::Side::Client,
        Side::Server => iip_core::Side::Server,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_backends_have_labels_of_their_own() {
        let facade = MetricsFacade::new();
        let labels = |facade: &MetricsFacade, port: usize| {
            let mut labels = Vec::new();
            let endpoint = format!("10.0.0.1:{port}").parse().unwrap();
            facade.labelled.add_to(&mut labels, &endpoint);
            labels
        };
        let own = |port: usize| {
            vec![
                ("server.address", "10.0.0.1".to_owned()),
                ("server.port", port.to_string()),
            ]
        };
        for port in 1..=MAX_LABELLED {
            assert_eq!(labels(&facade, port), own(port));
        }
        let other = [("server.address", "other".to_owned())];
        assert_eq!(labels(&facade, MAX_LABELLED + 1), other);
        let clone = facade.clone();
        assert_eq!(labels(&clone, MAX_LABELLED + 2), other);
        assert_eq!(labels(&facade, 1), own(1), "it was admitted before");
    }
}
