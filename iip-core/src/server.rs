//! The server: listens, accepts within its limits, creates a driver for every connection, and shuts
//! down gracefully.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use slab::Slab;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::calls::CallTable;
use crate::clock;
use crate::connection::{Closing, Peer, Shared};
use crate::driver::Driver;
use crate::error::ConfigError;
use crate::frame::Side;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::logs::{LogConfig, Logs};
use crate::path::check_label;
use crate::pending::{Network, Pending};
use crate::proto;
use crate::serve::{Dispatcher, Routes};
#[cfg(feature = "signal")]
use crate::shutdown::ShutdownSignal;
#[cfg(feature = "tls")]
use crate::tls::{Handshakes, ServerTls};
use crate::totals::{Share, Totals};
use crate::transport::{Connected, Listener, MemoryConnector, ToEndpoint, memory};

/// Number of connections from which a shutdown notifies them one after the other.
const FEW_CONNECTIONS: u32 = 16;

/// Average time between two notifications. At this rate, clients that connect elsewhere cause no
/// harm.
const TELL_TIME: Duration = Duration::from_millis(1);

/// Divisor of `max_connections`: unless `max_connections_per_peer` is set, one peer leaves one of
/// this many shares to others.
const SHARES: usize = 16;

/// Maximum number of evicted connections whose tasks have not ended yet.
const MAX_EVICTED: usize = 256;

/// Time that the operating system gets after the timeout of a shutdown.
const FORCE_TIME: Duration = Duration::from_secs(1);

/// The configuration of a [`Server`]: its handlers and options. Created by [`Server::builder`].
pub struct ServerConfig {
    handlers: HashMap<Box<[u8]>, Arc<dyn Handler>>,
    fallback: Option<Arc<dyn Handler>>,
    problem: Option<ConfigError>,
    limits: Limits,
    announce: Value,
    max_connections: usize,
    max_connections_per_peer: Option<usize>,
    max_running_calls: usize,
    max_total_bytes: usize,
    max_connection_age: Option<Duration>,
    max_connection_grace: Duration,
    on_shutdown: OnShutdown,
    log: LogConfig,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
}

/// The hooks that run when a shutdown begins.
#[derive(Default)]
struct OnShutdown(Vec<Box<dyn Fn() + Send + Sync>>);

impl fmt::Debug for OnShutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnShutdown").field(&self.0.len()).finish()
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            handlers: HashMap::new(),
            fallback: None,
            problem: None,
            limits: Limits::default(),
            announce: Value::Null,
            max_connections: 10_000,
            max_connections_per_peer: None,
            max_running_calls: 65_536,
            max_total_bytes: 1024 * 1024 * 1024,
            max_connection_age: None,
            max_connection_grace: Duration::from_secs(30),
            on_shutdown: OnShutdown::default(),
            log: LogConfig::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl ServerConfig {
    /// Registers a handler for `path`, which is matched as a whole after decoding and without its
    /// query.
    ///
    /// If the path is taken, or cannot be the label of a reply, [`bind`](Self::bind) fails.
    #[must_use]
    pub fn route(self, path: &str, handler: impl Handler) -> Self {
        self.route_shared(path, Arc::new(handler))
    }

    /// Like [`route`](Self::route), but for a handler that is also used elsewhere.
    #[must_use]
    pub fn route_shared(mut self, path: &str, handler: Arc<dyn Handler>) -> Self {
        let problem = match check_label(path.as_bytes()) {
            Err(error) => Some(ConfigError::new("route", format!("{path:?}: {error}"))),
            Ok(()) => {
                let taken = self
                    .handlers
                    .insert(path.as_bytes().into(), handler)
                    .is_some();
                taken.then(|| ConfigError::new("route", format!("{path:?} is registered twice")))
            }
        };
        self.problem = self.problem.or(problem);
        self
    }

    /// Registers a handler for all paths without their own handler. Without it they get the in-band
    /// error 102.
    #[must_use]
    pub fn fallback(mut self, handler: impl Handler) -> Self {
        self.fallback = Some(Arc::new(handler));
        self
    }

    /// Sets the limits of each connection.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the fields of the reply to a client's hello, an object.
    #[must_use]
    pub fn announce(mut self, announce: Value) -> Self {
        self.announce = announce;
        self
    }

    /// Sets the maximum number of connections, handshakes included. Default: 10,000; 0 is rejected.
    ///
    /// Beyond the limit, a new connection replaces one that has not sent a byte of a frame yet, and
    /// that either belongs to the address with the most such connections or is older than a second.
    /// If there is none, the new connection is closed as soon as it is accepted.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets the maximum number of connections from one IPv4 address or one IPv6 network of 64 bits.
    /// Default: 15/16 of [`max_connections`](Self::max_connections), so that no single peer keeps
    /// all others out; 0 is rejected.
    ///
    /// Beyond the limit, a new connection replaces one of the same address that has not sent a byte
    /// of a frame for a second. If there is none, the new connection is closed as soon as it is
    /// accepted.
    #[must_use]
    pub fn max_connections_per_peer(mut self, connections: usize) -> Self {
        self.max_connections_per_peer = Some(connections);
        self
    }

    /// Sets the maximum number of handlers that had to wait and are running, on all connections
    /// together. Default: 65,536; 0 is rejected. Further requests are rejected.
    ///
    /// While there are others, a connection, and all connections from one IP address, may run at
    /// most four times the number of calls that is left: a peer that takes most of the limit never
    /// takes all of it.
    #[must_use]
    pub fn max_running_calls(mut self, calls: usize) -> Self {
        self.max_running_calls = calls;
        self
    }

    /// Sets the maximum number of bytes that the calls of all connections hold together: see
    /// [`Limits::max_buffered_bytes`] for what counts. Default: 1 GiB.
    ///
    /// A connection may hold what is left of them, and 64 KiB in any case. A connection that holds
    /// more is not read until others release memory. If that lasts longer than
    /// [`Limits::progress_timeout`] with incomplete messages, it is closed.
    #[must_use]
    pub fn max_total_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_total_bytes = bytes;
        self
    }

    /// Sets the maximum age of a connection, plus or minus a tenth, so that clients redistribute to
    /// servers that were added. Default: [`Duration::MAX`], no limit; less than a millisecond is
    /// rejected. At that age, the client is notified to make another connection for further calls,
    /// and the calls under way get [`max_connection_grace`](Self::max_connection_grace) to end.
    #[must_use]
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.max_connection_age = Some(age);
        self
    }

    /// Sets the time that the calls on a connection that has reached its maximum age may still
    /// take. Default: 30 s. Beyond it, the connection is closed. Zero closes it at once, and
    /// [`Duration::MAX`] never.
    #[must_use]
    pub fn max_connection_grace(mut self, grace: Duration) -> Self {
        self.max_connection_grace = grace;
        self
    }

    /// Adds a function that runs once, as the first step of a shutdown: nothing is rejected yet. It
    /// should be quick and must not block. Default: none; several hooks run in the order in which
    /// they were added.
    #[must_use]
    pub fn on_shutdown(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_shutdown.0.push(Box::new(hook));
        self
    }

    /// Sets the level at which handler failures are logged that a higher layer classifies as the
    /// server's fault; other failures have level DEBUG. Default:
    /// [`Level::WARN`](tracing::Level::WARN). `None`: no failure is logged. Panics are always
    /// logged, as ERROR, and failures of one-way calls, which are not reported anywhere else, as
    /// WARN.
    #[must_use]
    pub fn log_failures(mut self, level: impl Into<Option<tracing::Level>>) -> Self {
        self.log.level = level.into();
        self
    }

    /// Sets the maximum number of lines per minute that the server logs of each kind of event that
    /// its peers can cause or repeat: failures of handlers, their panics, failures of one-way
    /// calls, connections of other protocols. Default: 100. The next line contains the number of
    /// lines that were left out. 0: none of these are logged.
    #[must_use]
    pub fn max_log_lines(mut self, per_minute: u32) -> Self {
        self.log.per_minute = per_minute;
        self
    }

    /// Requires TLS on every connection. Default: no TLS. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Listens on `host:port`, `unix:/path`, `unix:@name` or a [`SocketAddr`], and starts the
    /// server; with port 0 the system chooses the port, see [`Server::local_addr`].
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be listened on, or the configuration cannot work.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, nothing listens.
    pub async fn bind(self, target: impl ToEndpoint) -> io::Result<Server> {
        let endpoint = target
            .to_endpoint()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = Listener::bind(&endpoint).await?;
        self.serve(listener)
    }

    /// Starts the server on an existing listener: tokio's `TcpListener` or `UnixListener`, or any
    /// [`Listener`]. Sockets of the standard library, such as those passed by a service manager,
    /// are converted to tokio's with `from_std`.
    ///
    /// # Errors
    ///
    /// Fails if the configuration cannot work.
    pub fn listen_on(self, listener: impl Into<Listener>) -> io::Result<Server> {
        self.serve(listener.into())
    }

    /// Starts the server in memory, for tests: clients connect through the second value.
    ///
    /// # Errors
    ///
    /// Fails if the configuration cannot work.
    pub fn in_memory(self) -> io::Result<(Server, MemoryConnector)> {
        let (connector, listener) = memory();
        Ok((self.serve(listener.into())?, connector))
    }

    /// Rejects a configuration that cannot work.
    fn check(&self) -> Result<(), ConfigError> {
        let per_peer = self.max_connections_per_peer.unwrap_or(usize::MAX);
        let counts = [
            ("max_connections", self.max_connections),
            ("max_connections_per_peer", per_peer),
            ("max_running_calls", self.max_running_calls),
        ];
        for (option, count) in counts {
            ConfigError::check_count(option, count, 1..=usize::MAX)?;
        }
        if let Some(age) = self.max_connection_age {
            ConfigError::check_time("max_connection_age", age)?;
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            ConfigError::check_time("handshake_timeout", tls.handshake_limit())?;
        }
        self.limits.check()
    }

    fn serve(self, listener: Listener) -> io::Result<Server> {
        if let Some(problem) = self.problem {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        self.check()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        let routes = Arc::new(Routes {
            handlers: self.handlers,
            fallback: self.fallback,
            shutting_down: AtomicBool::new(false),
        });
        let (local_addr, describe) = (listener.local_addr(), listener.describe());
        let inner = Arc::new(Inner {
            routes,
            totals: Totals::new(self.max_running_calls, self.max_total_bytes),
            limits: self.limits,
            announce: self.announce,
            max_connections: self.max_connections,
            max_connection_age: self.max_connection_age.filter(|&age| age < Duration::MAX),
            max_connection_grace: self.max_connection_grace,
            max_connections_per_peer: self
                .max_connections_per_peer
                .unwrap_or(self.max_connections - self.max_connections / SHARES),
            #[cfg(feature = "tls")]
            handshakes: Handshakes::new(self.tls.as_ref().map_or(0, ServerTls::handshakes)),
            #[cfg(feature = "tls")]
            tls: self.tls,
            on_shutdown: self.on_shutdown,
            logs: Arc::new(Logs::new(self.log)),
            leaving: watch::Sender::new(false),
            table: Mutex::new(Table {
                accepting: true,
                connections: Slab::new(),
                peers: HashMap::new(),
                silent: Pending::new(),
                evicted: 0,
            }),
            changed: Notify::new(),
        });
        let end = AcceptEnd(Arc::clone(&inner));
        let accept = tokio::spawn(accept_loop(Accepting { listener, end })).abort_handle();
        Ok(Server {
            inner,
            accept,
            local_addr,
            describe,
        })
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("routes", &self.handlers.len())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A running server. Dropping it does not stop it; [`shutdown`](Self::shutdown) does.
///
/// It runs on the runtime in which it was made, and ends with it: if `main` returns, the server
/// stops. A program that is only a server ends with `shutdown_on_signal` (feature `signal`),
/// [`serve_until`](Self::serve_until) or [`stopped`](Self::stopped).
///
/// ```
/// use std::time::Duration;
/// use iip_core::{Client, HandlerError, Request, Response, Server, handler_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let echo = handler_fn(|request: Request| async move { Ok::<_, HandlerError>(Response::from(request.into_body())) });
/// let server = Server::builder().route("/echo", echo).bind("127.0.0.1:0").await?;
/// let client = Client::connect(server.target()).await?;
/// assert_eq!(&client.request("/echo", "hello").await?[..], b"hello");
/// server.shutdown(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a server ends with its runtime: wait with `shutdown_on_signal`, `serve_until` or \
    `stopped`"]
pub struct Server {
    inner: Arc<Inner>,
    accept: AbortHandle,
    local_addr: Option<SocketAddr>,
    describe: String,
}

#[derive(Debug)]
struct Inner {
    routes: Arc<Routes>,
    totals: Arc<Totals>,
    limits: Limits,
    announce: Value,
    max_connections: usize,
    max_connection_age: Option<Duration>,
    max_connection_grace: Duration,
    max_connections_per_peer: usize,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    handshakes: Arc<Handshakes>,
    table: Mutex<Table>,
    on_shutdown: OnShutdown,
    logs: Arc<Logs>,
    /// Set once a shutdown has begun: connections that are accepted from then on are drained.
    leaving: watch::Sender<bool>,
    /// Notified when a connection has ended.
    changed: Notify,
}

/// The connections, including those whose TLS handshake is not complete.
#[derive(Debug)]
struct Table {
    /// The accept loop is running.
    accepting: bool,
    connections: Slab<Entry>,
    /// Number of connections of each peer, without the evicted ones.
    peers: HashMap<Network, usize>,
    /// Connections that have not sent a byte of a frame, by their keys.
    silent: Pending<usize>,
    /// Number of evicted connections.
    evicted: usize,
}

#[derive(Debug)]
struct Entry {
    shared: Option<Arc<Shared>>,
    task: Option<AbortHandle>,
    network: Network,
    /// The number of the connection among the silent ones.
    silent: Option<u64>,
    /// The connection was evicted to make room for another.
    evicted: bool,
}

impl Table {
    /// Stops counting a connection of this peer.
    fn uncount(&mut self, network: Network) {
        if let Some(count) = self.peers.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&network);
            }
        }
    }

    /// Evicts a connection: it no longer counts, and its task must be aborted.
    fn evict(&mut self, key: usize) -> Option<AbortHandle> {
        let entry = self.connections.get_mut(key)?;
        (entry.silent, entry.evicted) = (None, true);
        let (network, task) = (entry.network, entry.task.clone());
        self.evicted += 1;
        self.uncount(network);
        task
    }

    /// Reserves a place for one more connection. Returns its key and the task of the connection
    /// that was evicted for it, or the name of the limit that is reached.
    fn admit(
        &mut self,
        network: Network,
        max: usize,
        max_per_peer: usize,
        now: Instant,
    ) -> Result<(usize, Option<AbortHandle>), &'static str> {
        let count = self.peers.get(&network).copied().unwrap_or(0);
        let is_crowded = network.is_known() && count >= max_per_peer;
        let is_full = self.connections.len() - self.evicted >= max;
        let evicted = if is_crowded || is_full {
            let may_evict = self.evicted < MAX_EVICTED;
            let silent = &mut self.silent;
            let (silent, option) = if is_crowded {
                let oldest = may_evict.then(|| silent.make_room_within(network, now));
                (oldest.flatten(), "max_connections_per_peer")
            } else {
                let oldest = may_evict.then(|| silent.make_room(network, now));
                (oldest.flatten(), "max_connections")
            };
            self.evict(silent.ok_or(option)?)
        } else {
            None
        };
        *self.peers.entry(network).or_default() += 1;
        let places = self.connections.vacant_entry();
        let key = places.key();
        places.insert(Entry {
            shared: None,
            task: None,
            network,
            silent: Some(self.silent.insert(network, now, key)),
            evicted: false,
        });
        Ok((key, evicted))
    }

    /// Removes a connection that has ended.
    fn remove(&mut self, key: usize) {
        let Some(entry) = self.connections.try_remove(key) else {
            return;
        };
        if let Some(number) = entry.silent {
            self.silent.remove(number);
        }
        if entry.evicted {
            self.evicted -= 1;
        } else {
            self.uncount(entry.network);
        }
    }
}

impl Server {
    /// Returns the default configuration of a server.
    #[must_use]
    pub fn builder() -> ServerConfig {
        ServerConfig::default()
    }

    /// Returns the address the server listens on, with the port chosen by the system; `None` on
    /// Unix sockets and in memory.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// Returns the address in the form to which clients connect: `127.0.0.1:9000`, `unix:/path` or
    /// `unix:@name`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.describe
    }

    /// Returns the number of connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.lock().connections.len()
    }

    /// Shuts the server down, in three phases: new connections and calls are no longer taken; the
    /// running calls get `limit` to end; the remaining ones are ended by force. Always returns, at
    /// the latest about a second after `limit`.
    ///
    /// Requests that arrive in the meantime are rejected. Each connection whose calls are answered
    /// is ended with status 8. If there are more than a few connections, they are notified at
    /// random times, a thousand per second, within at most a tenth of `limit`, so that their
    /// clients do not all move at once; until a connection is notified, its calls are served.
    /// Further calls of this function return when the server has ended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the server has stopped accepting and continues to drain; nothing
    /// is ended by force.
    pub async fn shutdown(&self, limit: Duration) {
        let inner = &self.inner;
        inner.leave();
        self.accept.abort();
        // Connections whose handshake is under way have no calls yet.
        inner.abort(|entry| entry.shared.is_none());
        let spread = inner.spread(limit);
        if !spread.is_zero() {
            inner.drain_within(spread);
            let _ = tokio::time::timeout(spread, inner.all_ended()).await;
        }
        let limit = limit.saturating_sub(spread);
        inner.routes.shutting_down.store(true, Ordering::Relaxed);
        inner.close_all(Closing::Drain);
        let ended = async {
            inner.all_ended().await;
            // Handlers whose callers have gone still run.
            inner.totals.idle().await;
        };
        if tokio::time::timeout(limit, ended).await.is_ok() {
            return;
        }
        inner.close_all(Closing::Force);
        if tokio::time::timeout(FORCE_TIME, inner.all_ended())
            .await
            .is_ok()
        {
            return;
        }
        inner.abort(|_| true);
    }

    /// Waits until the server has been shut down and its last connection has ended; never completes
    /// if it is not shut down.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn stopped(&self) {
        self.inner.all_ended().await;
    }

    /// Serves until `signal` completes, then [shuts down](Self::shutdown) within `limit`. Returns
    /// when the server has ended, also if it was shut down elsewhere before `signal` completed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before `signal` has completed, the server continues; afterwards see
    /// [`shutdown`](Self::shutdown).
    pub async fn serve_until(&self, signal: impl Future<Output = ()>, limit: Duration) {
        tokio::select! {
            biased;
            () = self.stopped() => {}
            () = signal => self.shutdown(limit).await,
        }
    }

    /// Serves until the process is asked to end, by ctrl-c or SIGTERM, then [shuts
    /// down](Self::shutdown) within `limit`. A second signal immediately ends the calls that still
    /// run. Returns `Ok(())` when the server has ended, also if it was shut down elsewhere.
    ///
    /// ```no_run
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// let server = iip_core::Server::builder().bind("0.0.0.0:9000").await?;
    /// server.shutdown_on_signal(std::time::Duration::from_secs(20)).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the operating system does not deliver signals to this process; the server
    /// continues.
    ///
    /// # Cancel safety
    ///
    /// See [`serve_until`](Self::serve_until). Once this was called, the signals no longer end the
    /// process by themselves.
    ///
    /// Needs the feature `signal`.
    #[cfg(feature = "signal")]
    pub async fn shutdown_on_signal(&self, limit: Duration) -> io::Result<()> {
        let mut signals = ShutdownSignal::new()?;
        tokio::select! {
            biased;
            () = self.stopped() => return Ok(()),
            signal = signals.recv() => tracing::info!(signal, ?limit, "the server shuts down"),
        }
        tokio::select! {
            biased;
            () = self.shutdown(limit) => {}
            signal = signals.recv() => {
                tracing::warn!(signal, "second signal: ending the calls that still run");
                self.shutdown(Duration::ZERO).await;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a shutdown.
    fn leave(&self) {
        if !self.leaving.send_replace(true) {
            self.on_shutdown.0.iter().for_each(|hook| hook());
        }
    }

    /// Returns the time over which the connections are notified of the shutdown, so that their
    /// clients do not all connect to another server at the same moment.
    fn spread(&self, limit: Duration) -> Duration {
        match u32::try_from(self.lock().connections.len()) {
            Ok(..FEW_CONNECTIONS) => Duration::ZERO,
            Ok(count) => (TELL_TIME * count).min(limit / 10),
            Err(_) => limit / 10,
        }
    }

    /// Drains each connection at a random time within `spread`. Until then its calls are served.
    fn drain_within(&self, spread: Duration) {
        let now = clock::now();
        for shared in self.all_shared() {
            let at = now + spread.mul_f64(fastrand::f64());
            shared.command(|state| state.drain_at = Some(at));
        }
    }

    fn close_all(&self, how: Closing) {
        for shared in self.all_shared() {
            shared.close(how);
        }
    }

    fn all_shared(&self) -> Vec<Arc<Shared>> {
        let table = self.lock();
        let entries = table.connections.iter();
        entries
            .filter_map(|(_, entry)| entry.shared.clone())
            .collect()
    }

    fn abort(&self, which: impl Fn(&Entry) -> bool) {
        let table = self.lock();
        let tasks = table.connections.iter().filter(|(_, entry)| which(entry));
        let tasks: Vec<_> = tasks.filter_map(|(_, entry)| entry.task.clone()).collect();
        drop(table);
        tasks.iter().for_each(AbortHandle::abort);
    }

    async fn all_ended(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let ended = {
                let table = self.lock();
                !table.accepting && table.connections.is_empty()
            };
            if ended {
                return;
            }
            changed.await;
        }
    }

    /// Reserves a place for one more connection, if the limits allow it.
    fn admit(self: &Arc<Self>, network: Network) -> Result<ConnectionGuard, &'static str> {
        let (max, max_per_peer) = (self.max_connections, self.max_connections_per_peer);
        let admitted = self.lock().admit(network, max, max_per_peer, clock::now());
        let (key, evicted) = admitted?;
        if let Some(task) = evicted {
            tracing::debug!("a silent connection was closed in favor of a new one");
            task.abort();
        }
        Ok(ConnectionGuard {
            inner: Arc::clone(self),
            key,
        })
    }

    /// Records that a connection has sent its first bytes; it can no longer be evicted.
    fn on_spoken(&self, key: usize) {
        let mut table = self.lock();
        let entry = table.connections.get_mut(key);
        if let Some(number) = entry.and_then(|entry| entry.silent.take()) {
            table.silent.remove(number);
        }
    }

    /// Runs IIP on an accepted byte stream until it ends.
    async fn run(self: Arc<Self>, connected: Connected, guard: ConnectionGuard) {
        #[cfg(feature = "tls")]
        let connected = match &self.tls {
            Some(tls) => {
                let Connected { io, addr, .. } = connected;
                let network = Network::of(addr.map(|addr| addr.ip()));
                // Boxed, so that the task of a connection does not keep the space for its
                // handshake.
                let handshake = Box::pin(tls.accept_beside(io, &self.handshakes, network));
                match handshake.await {
                    Ok((io, certificates)) => Connected {
                        io,
                        addr,
                        certificates,
                    },
                    Err(error) => {
                        tracing::debug!(?addr, %error, "tls handshake failed");
                        return;
                    }
                }
            }
            None => connected,
        };
        let proto = proto::Connection::new(
            Side::Server,
            self.limits.clone(),
            self.announce.clone(),
            clock::now(),
        );
        let peer = Peer::new(connected.addr, connected.certificates);
        let peer = Arc::new(peer.of_server(self.leaving.subscribe(), Arc::clone(&self.logs)));
        let share = Share::new(&self.totals, connected.addr.map(|addr| addr.ip()));
        let shared = Shared::new(proto, CallTable::new(0, 0), peer, Some(share));
        if let Some(entry) = self.lock().connections.get_mut(guard.key) {
            entry.shared = Some(Arc::clone(&shared));
        }
        // A shutdown sets the flag before it iterates over the table.
        if *self.leaving.borrow() {
            shared.close(Closing::Drain);
        }
        let dispatcher = Dispatcher::new(Arc::clone(&self.routes));
        let (inner, key) = (Arc::clone(&self), guard.key);
        Driver::new(connected.io, Side::Server, shared, Some(dispatcher))
            .with_end(self.ends())
            .on_first_read(move || inner.on_spoken(key))
            .await;
    }

    /// Returns the time at which a connection made now is drained, and the time at which it is
    /// closed at the latest.
    fn ends(&self) -> Option<(Instant, Instant)> {
        // Connections that were made together should not end together.
        let age = self.max_connection_age?.as_secs_f64() * (0.9 + 0.2 * fastrand::f64());
        let age = Duration::try_from_secs_f64(age).unwrap_or(Duration::MAX);
        let drain_at = clock::after(clock::now(), age);
        Some((drain_at, clock::after(drain_at, self.max_connection_grace)))
    }
}

/// The place of one connection in the table, released when its task ends for any reason.
struct ConnectionGuard {
    inner: Arc<Inner>,
    key: usize,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.inner.lock().remove(self.key);
        self.inner.changed.notify_waiters();
    }
}

/// Accepts connections until the server is shut down. Errors do not end the loop: errors of the
/// process are temporary, and accepting continues after a pause.
async fn accept_loop(mut accepting: Accepting) {
    let inner = &accepting.end.0;
    let mut pause = Duration::from_millis(5);
    loop {
        match accepting.listener.accept().await {
            Ok(connected) => {
                pause = Duration::from_millis(5);
                match inner.admit(Network::of(connected.addr.map(|addr| addr.ip()))) {
                    Ok(guard) => {
                        let key = guard.key;
                        let task =
                            tokio::spawn(Arc::clone(inner).run(connected, guard)).abort_handle();
                        if let Some(entry) = inner.lock().connections.get_mut(key) {
                            entry.task = Some(task);
                        }
                    }
                    Err(option) => {
                        tracing::debug!(
                            addr = ?connected.addr,
                            option,
                            "connection rejected: limit reached"
                        );
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept connections");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// The state of the accept loop's task. The listener is dropped before waiting tasks are notified.
struct Accepting {
    listener: Listener,
    end: AcceptEnd,
}

/// Signals on drop that the accept loop has ended.
struct AcceptEnd(Arc<Inner>);

impl Drop for AcceptEnd {
    fn drop(&mut self) {
        self.0.lock().accepting = false;
        self.0.changed.notify_waiters();
        if !*self.0.leaving.borrow() {
            tracing::warn!(
                "the server ends without a shutdown because its runtime ends: main returned, or \
                 did not wait for the server (Server::stopped)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::OnceLock;
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::error::ConnectionError;
    use crate::transport::{Connector, IoStream};

    /// Records, when it is woken, whether the server had stopped listening.
    struct Looks {
        connector: MemoryConnector,
        was_gone: OnceLock<bool>,
    }

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let mut connecting = self.connector.connect();
            let connected = connecting
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            self.was_gone
                .get_or_init(|| matches!(connected, std::task::Poll::Ready(Err(_))));
        }
    }

    #[tokio::test]
    async fn many_connections_are_drained_at_different_moments_and_served_until_then() {
        const CONNECTIONS: usize = 200;
        let echo = crate::handler_fn(|request: crate::Request| async move {
            Ok::<_, crate::HandlerError>(crate::Response::from(request.into_body()))
        });
        let config = Server::builder().route("/echo", echo);
        let (server, connector) = config.in_memory().expect("a server");
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            // With a hello the client learns which calls were not executed.
            let client = crate::ClientConfig::new().hello(serde_json::json!({}));
            let client = client.connect_with(connector.clone());
            clients.push(client.await.expect("a client"));
        }
        let connections: Vec<_> = clients
            .iter()
            .map(|client| client.ready_connection().expect("a connection"))
            .collect();
        let begun = clock::now();
        let ends = connections.iter().map(|connection| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let error = connection.closed().await;
                assert!(matches!(error, ConnectionError::Ended), "{error}");
                begun.elapsed()
            })
        });
        let ends: Vec<_> = ends.collect();
        let shutdown = tokio::spawn(async move { server.shutdown(Duration::from_secs(100)).await });
        while connections
            .iter()
            .all(|connection| connection.ended().is_none())
        {
            tokio::task::yield_now().await;
        }
        let others = connections
            .iter()
            .filter(|connection| connection.ended().is_none());
        let mut answers = 0;
        for other in others {
            let call = other.call("/echo", "x", clock::after(begun, Duration::from_secs(60)));
            // The connection may have been notified since; such a call is not executed.
            match call.await {
                Ok(answer) => {
                    assert_eq!(answer, "x");
                    answers += 1;
                }
                Err(error) => assert_ne!(
                    error.execution(),
                    crate::Execution::MayHaveExecuted,
                    "{error}"
                ),
            }
        }
        assert!(answers > 0, "those that were not told are served");
        let mut took = Vec::new();
        for end in ends {
            took.push(end.await.expect("the end"));
        }
        shutdown.await.expect("the shutdown");
        let (first, last) = (took.iter().min(), took.iter().max());
        let apart = first.zip(last).map(|(first, last)| *last - *first);
        assert!(apart >= Some(TELL_TIME * 100), "{apart:?}");
    }

    #[tokio::test]
    async fn the_ages_of_connections_differ_by_a_tenth_more_or_less() {
        let (age, grace) = (Duration::from_secs(1000), Duration::from_secs(7));
        let config = Server::builder().max_connection_age(age);
        let (server, _connector) = config
            .max_connection_grace(grace)
            .in_memory()
            .expect("a server");
        let mut ages = Vec::new();
        for _ in 0..100 {
            let before = clock::now();
            let (drain_at, end_at) = server.inner.ends().expect("an age is set");
            assert_eq!(end_at, drain_at + grace);
            let drawn = drain_at - before;
            assert!(
                (age * 9 / 10..age * 11 / 10 + grace).contains(&drawn),
                "{drawn:?}"
            );
            ages.push(drawn);
        }
        let (least, most) = (ages.iter().min(), ages.iter().max());
        assert!(
            most.zip(least)
                .is_some_and(|(most, least)| *most - *least > age / 20)
        );

        let (server, _connector) = Server::builder().in_memory().expect("a server");
        assert!(
            server.inner.ends().is_none(),
            "by default they live for ever"
        );
    }

    #[tokio::test]
    async fn the_end_of_a_server_is_told_once_its_listener_is_gone() {
        let (server, connector) = Server::builder().in_memory().expect("a server");
        let looks = Arc::new(Looks {
            connector,
            was_gone: OnceLock::new(),
        });
        let waker = Waker::from(Arc::clone(&looks));
        let mut stopped = std::pin::pin!(server.stopped());
        let mut cx = Context::from_waker(&waker);
        assert!(stopped.as_mut().poll(&mut cx).is_pending());
        // The accept loop must have started to listen.
        tokio::task::yield_now().await;
        server.accept.abort();
        while looks.was_gone.get().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(looks.was_gone.get(), Some(&true));
    }

    #[tokio::test]
    async fn a_connection_that_is_forced_to_end_before_it_could_drain_says_goodbye_if_nothing_runs()
    {
        let (server, connector) = Server::builder().in_memory().expect("a server");
        let client = crate::ClientConfig::new().connect_with(connector).await;
        let client = client.expect("a client");
        let connection = client.ready_connection().expect("a connection");
        server.inner.close_all(Closing::Force);
        assert!(matches!(connection.closed().await, ConnectionError::Ended));
        server.shutdown(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn the_task_of_a_connection_is_no_larger_than_its_driver_needs() {
        let (server, _connector) = Server::builder().in_memory().expect("a server");
        let (io, _other) = tokio::io::duplex(64);
        let connected = Connected {
            io: IoStream::new(io),
            addr: None,
            certificates: Vec::new(),
        };
        let guard = server.inner.admit(Network::of(None)).expect("a place");
        let task = Arc::clone(&server.inner).run(connected, guard);
        let driver = size_of::<Driver<IoStream>>();
        let task = size_of_val(&task);
        assert!(
            task < 2 * driver,
            "{task} bytes, of which the driver needs {driver}"
        );
    }
}
