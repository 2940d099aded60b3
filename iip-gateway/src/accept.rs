//! Accepting connections, within the limits on their number.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iip_core::transport::{Connected, Listener};
use tokio::time::Instant;

use crate::connection::{self, Origin};
use crate::gateway::Worker;
use crate::limits::Limits;
use crate::listen::ListenOptions;
use crate::networks::counted;
use crate::service::App;

/// The pause after an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// The time between two lines in the log about refused connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The connections of all listeners of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Places {
    count: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    /// The time of the last line in the log about a connection that was refused.
    logged: Mutex<Option<Instant>>,
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

impl Places {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Logs that a connection was refused, unless another one was a short time ago.
    fn log_refused(&self, option: &str, address: Option<IpAddr>) {
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

    /// Takes a place, or returns the limit that is reached. `address` is counted.
    fn enter(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        limits: &Limits,
    ) -> Result<Place, &'static str> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= limits.max_connections {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err("max_connections");
        }
        // The place is given back when it is dropped.
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

/// Accepts connections until the gateway shuts down.
pub(crate) async fn run(mut listener: Listener, options: Arc<ListenOptions>, worker: Arc<Worker>) {
    let mut drain = worker.drain.clone();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.begun() => return,
        };
        match accepted {
            Ok(connected) => {
                is_failing = false;
                start(connected, &options, &worker);
            }
            Err(error) => {
                if !is_failing {
                    is_failing = true;
                    tracing::warn!(%error, "connections cannot be accepted for now");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn start(connected: Connected, options: &Arc<ListenOptions>, worker: &Arc<Worker>) {
    let live = worker.live();
    let address = connected.addr.map(|addr| addr.ip());
    let is_trusted = address.is_some_and(|address| {
        live.config
            .trusted
            .iter()
            .any(|network| network.contains(address))
    });
    let counted = address.filter(|_| !is_trusted);
    match worker.places.enter(counted, &live.config.limits) {
        Ok(place) => {
            let origin = Origin {
                peer: connected.addr,
                is_trusted,
                is_tls: false,
                limits: Arc::clone(&live.config.limits),
                drain: worker.drain.clone(),
                app: App::Gateway(Arc::clone(worker)),
                place: Some(place),
            };
            tokio::spawn(connection::run(connected.io, origin, Arc::clone(options)));
        }
        Err(option) => worker.places.log_refused(option, address),
    }
}
