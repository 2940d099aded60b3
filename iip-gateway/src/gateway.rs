//! The gateway: it serves listeners, and its configuration can be replaced meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use iip_core::transport::{Endpoint, Listener};

use crate::accept;
use crate::builder::{BuildError, Config, GatewayBuilder};
use crate::drain::Drainer;
use crate::listen::ListenOptions;
use crate::places::Places;
use crate::request_body::Buffered;
use crate::worker::{Live, Worker, Workers};

/// Maximum time for writing the last lines of the access log when the gateway ends.
const LOG_TIME: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Config>,
    workers: Arc<Workers>,
    places: Arc<Places>,
    buffered: Arc<Buffered>,
    drainer: Drainer,
}

/// A gateway: it accepts HTTP/1.1 and HTTP/2 and calls IIP servers. Cheap to clone.
///
/// It serves until its runtimes shut down, even if all clones are dropped.
///
/// ```
/// use iip_gateway::{Gateway, Group, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = Gateway::builder()
///     .group("users", Group::new("127.0.0.1:7000"))
///     .route(Route::pattern("^/users/", "users")?)
///     .build()?;
/// let address = gateway.bind("127.0.0.1:0").await?;
/// println!("http://{address}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            shared: Arc::new(Shared {
                current: ArcSwap::from_pointee(config),
                workers: Arc::default(),
                places: Arc::default(),
                buffered: Arc::default(),
                drainer: Drainer::new(),
            }),
        }
    }

    /// Creates a builder with the default configuration: no groups, no routes.
    #[must_use]
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::default()
    }

    /// Serves an address, such as `0.0.0.0:8080`, in the current runtime, without TLS. Returns the
    /// address with the port that the system chose if it was 0.
    ///
    /// # Errors
    ///
    /// Fails if the gateway cannot listen on the address.
    pub async fn bind(&self, address: &str) -> io::Result<SocketAddr> {
        let endpoint: Endpoint = address
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = Listener::bind(&endpoint).await?;
        let bound = listener.local_addr().ok_or_else(|| {
            let reason = format!("{address} is not a TCP port: use `Gateway::serve`");
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        })?;
        self.serve(listener, ListenOptions::new())?;
        Ok(bound)
    }

    /// Serves a listener in the current runtime. Each call makes a worker with its own connections
    /// to the backends: a program with one runtime per core calls it once in each of them, see
    /// [`worker_runtime`](crate::worker_runtime).
    ///
    /// # Errors
    ///
    /// Fails if a setting of a group, or the TLS configuration of the listener, is invalid.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn serve(&self, listener: impl Into<Listener>, options: ListenOptions) -> io::Result<()> {
        self.serve_all([(listener.into(), options)])
    }

    /// Like [`serve`](Self::serve), for several listeners, which share the connections to the
    /// backends.
    ///
    /// # Errors
    ///
    /// See [`serve`](Self::serve). After an error, no listener is served.
    ///
    /// # Panics
    ///
    /// See [`serve`](Self::serve).
    pub fn serve_all(
        &self,
        listeners: impl IntoIterator<Item = (Listener, ListenOptions)>,
    ) -> io::Result<()> {
        let invalid = |error: BuildError| io::Error::new(io::ErrorKind::InvalidInput, error);
        let listeners: Vec<_> = listeners.into_iter().collect();
        for (_, options) in &listeners {
            options.check()?;
        }
        let mut workers = self.shared.workers.lock();
        let live = Live::new(&self.shared.current.load_full(), None).map_err(invalid)?;
        let worker = Arc::new(Worker {
            live: ArcSwap::from_pointee(live),
            places: Arc::clone(&self.shared.places),
            buffered: Arc::clone(&self.shared.buffered),
            drain: self.shared.drainer.drain(),
        });
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(&worker));
        drop(workers);
        for (listener, options) in listeners {
            let (options, worker) = (Arc::new(options), Arc::clone(&worker));
            tokio::spawn(accept::run(listener, options, worker));
        }
        Ok(())
    }

    /// Replaces the configuration: groups, routes, limits and everything else of the builder.
    /// Requests that begin afterwards use it, also on existing connections. Unchanged groups keep
    /// their connections to backends; connections that are no longer used are closed once their
    /// calls have ended.
    ///
    /// The new configuration is built completely before the old one is replaced.
    ///
    /// # Errors
    ///
    /// Fails with the first invalid setting. The gateway then continues with the old configuration.
    pub fn replace(&self, builder: GatewayBuilder) -> Result<(), BuildError> {
        let config = Arc::new(builder.checked()?);
        let workers = self.shared.workers.lock();
        let workers = workers.iter().filter_map(Weak::upgrade);
        let made = workers.map(|worker| {
            let live = Live::new(&config, Some(&worker.live()))?;
            Ok((worker, live))
        });
        let made: Vec<(Arc<Worker>, Live)> = made.collect::<Result<_, BuildError>>()?;
        for (worker, live) in made {
            worker.live.store(Arc::new(live));
        }
        self.shared.current.store(config);
        Ok(())
    }

    /// Returns the names of the groups.
    pub(crate) fn groups(&self) -> Vec<Arc<str>> {
        let config = self.shared.current.load();
        config
            .groups
            .iter()
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    pub(crate) fn workers(&self) -> &Arc<Workers> {
        &self.shared.workers
    }

    /// Returns the number of connections of clients.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.places.count()
    }

    /// Stops accepting connections, closes those without a request, and waits for at most `limit`
    /// until the other requests are replied to. Then closes the remaining connections. Returns
    /// `true` if all requests were replied to.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the gateway still ends once all requests are replied to.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        let ended = self.shared.drainer.drain_within(limit).await;
        if let Some(log) = self.shared.current.load().access_log.clone() {
            let _ = tokio::task::spawn_blocking(move || log.flush(LOG_TIME)).await;
        }
        ended
    }
}

impl GatewayBuilder {
    /// Builds the gateway. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// Fails with the first invalid setting.
    pub fn build(self) -> Result<Gateway, BuildError> {
        Ok(Gateway::new(self.checked()?))
    }

    /// Builds the gateway and serves an address in the current runtime, see [`Gateway::bind`].
    /// Returns the gateway and the address.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`build`](Self::build) and [`Gateway::bind`].
    pub async fn bind(self, address: &str) -> io::Result<(Gateway, SocketAddr)> {
        let gateway = self.build();
        let gateway =
            gateway.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let address = gateway.bind(address).await?;
        Ok((gateway, address))
    }
}
