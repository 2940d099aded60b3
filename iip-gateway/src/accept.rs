//! Accepting connections, within the limits on their number.

use std::sync::Arc;
use std::time::Duration;

use iip_core::transport::{Connected, Listener};

use crate::connection::{self, Origin};
use crate::exchange::Peer;
use crate::listen::ListenOptions;
use crate::service::App;
use crate::worker::Worker;

/// The pause after an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

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
                peer: Peer {
                    addr: connected.addr,
                    is_trusted,
                    is_tls: false,
                },
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
