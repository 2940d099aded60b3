//! The limits on the number of connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;
use crate::networks::counted;

/// Minimum time between two log lines about rejected connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The connections of all listeners of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Places {
    count: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    /// The time of the last log line about a rejected connection.
    logged: Mutex<Option<Instant>>,
}

/// The slot of one connection.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

impl Places {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Logs that a connection was rejected, unless the last such line is recent.
    pub(crate) fn log_refused(&self, option: &str, address: Option<IpAddr>) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() > LOG_INTERVAL) {
            *logged = Some(Instant::now());
            tracing::warn!(
                option,
                ?address,
                "connections are refused: a limit is reached"
            );
        }
    }

    /// Takes a slot for a connection from `address`, or returns the limit that is reached.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        limits: &Limits,
    ) -> Result<Place, &'static str> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= limits.max_connections {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err("max_connections");
        }
        // The slot is released when it is dropped.
        let mut place = Place {
            places: Arc::clone(self),
            address: None,
        };
        if let Some(address) = address
            .map(counted)
            .filter(|_| limits.max_connections_per_address > 0)
        {
            let mut addresses = self
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(address).or_default();
            if *count >= limits.max_connections_per_address {
                return Err("max_connections_per_address");
            }
            *count += 1;
            place.address = Some(address);
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.count.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else {
            return;
        };
        let addresses = self.places.addresses.lock();
        let mut addresses = addresses.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}
