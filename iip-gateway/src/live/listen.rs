//! A separate listener for the page.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iip_core::transport::{Endpoint, Listener};
use tokio::sync::Semaphore;

use super::respond::LiveHandler;
use crate::connection::{self, Origin};
use crate::drain::Drainer;
use crate::exchange::Peer;
use crate::limits::Limits;
use crate::listen::ListenOptions;
use crate::service::App;

/// Maximum number of connections of the listener.
const MAX_CONNECTIONS: usize = 100;

/// The pause after an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Listens on an address.
pub(super) async fn bind(address: &str) -> io::Result<(Listener, SocketAddr)> {
    let explained = |error: io::Error| {
        let text = format!("the live page cannot listen on {address}: {error}");
        io::Error::new(error.kind(), text)
    };
    let endpoint: Endpoint = address
        .parse()
        .map_err(|error| explained(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let listener = Listener::bind(&endpoint).await.map_err(explained)?;
    let bound = listener.local_addr();
    let no_port = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a TCP port");
    let bound = bound.ok_or_else(no_port).map_err(explained)?;
    Ok((listener, bound))
}

/// Serves the page until the runtime shuts down.
pub(super) async fn serve(mut listener: Listener, page: LiveHandler) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let limits = Arc::new(Limits::new());
    let options = Arc::new(ListenOptions::new());
    // The page is not drained, so that it shows the end of the other servers.
    let drain = Drainer::new().drain();
    loop {
        // Connections beyond the limit wait in the queue of the system.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok(connected) => {
                let origin = Origin {
                    peer: Peer {
                        addr: connected.addr,
                        is_trusted: false,
                        is_tls: false,
                    },
                    limits: Arc::clone(&limits),
                    drain: drain.clone(),
                    app: App::Page(page.clone()),
                    place: None,
                };
                let options = Arc::clone(&options);
                tokio::spawn(async move {
                    connection::run(connected.io, origin, options).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for the live page was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
