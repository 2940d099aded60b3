//! The server: listens, accepts within its limits, creates a driver for every connection, and shuts
//! down gracefully.

mod builder;
mod table;

use std::future::Future;
#[cfg(feature = "signal")]
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use self::builder::OnShutdown;
pub use self::builder::ServerBuilder;
use self::table::{Entry, Table};
use crate::clock;
use crate::connection::{Closing, Peer, Shared};
use crate::driver::Driver;
use crate::frame::Side;
use crate::limits::Limits;
use crate::logs::Logs;
use crate::pending::Network;
use crate::proto;
use crate::proto::calls::CallTable;
use crate::random;
use crate::serve::{Dispatcher, Routes};
#[cfg(feature = "signal")]
use crate::shutdown::ShutdownSignal;
#[cfg(feature = "tls")]
use crate::tls::{Handshakes, ServerTls};
use crate::totals::{Share, Totals};
use crate::transport::{Connected, Listener};

/// Number of connections from which a shutdown notifies them one after the other.
const FEW_CONNECTIONS: u32 = 16;

/// Average time between two notifications. At this rate, clients that connect elsewhere cause no
/// harm.
const TELL_TIME: Duration = Duration::from_millis(1);

/// Time that the operating system gets after the timeout of a shutdown.
const FORCE_TIME: Duration = Duration::from_secs(1);

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
/// let echo = handler_fn(|request: Request| async move {
///     Ok::<_, HandlerError>(Response::from(request.into_body()))
/// });
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
    limits: Arc<Limits>,
    announce: Arc<Value>,
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

impl Server {
    /// Returns the default configuration of a server.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
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
    /// Requests that arrive in the meantime are rejected. Each connection whose calls are replied
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
            // Either the time is over or all connections have ended; the next phase is the same.
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
        // The connections end by themselves, and tell their peers why. Tasks that have not ended
        // within a second are aborted.
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
            let at = now + spread.mul_f64(random::random_fraction());
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
        // Aborting may drop a task here, whose guard takes the lock of the table.
        drop(table);
        tasks.iter().for_each(AbortHandle::abort);
    }

    async fn all_ended(&self) {
        loop {
            // Registered before the table is looked at, so that a change in between is not missed.
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
        // The lock is released, which the guard of the evicted task may need.
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
            Arc::clone(&self.limits),
            Arc::clone(&self.announce),
            clock::now(),
        );
        let peer = Peer::new(connected.addr, connected.certificates);
        let peer = Arc::new(peer.of_server(self.leaving.subscribe(), Arc::clone(&self.logs)));
        let share = Share::new(&self.totals, connected.addr.map(|addr| addr.ip()));
        let shared = Shared::new(proto, CallTable::new(0, 0), peer, Some(share));
        // From now on a shutdown finds this connection in the table.
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
        let age = self.max_connection_age?.as_secs_f64() * (0.9 + 0.2 * random::random_fraction());
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
                        // The task may have ended already. No other connection can have its key,
                        // because only this loop admits any.
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
        // The flag comes before the notification: whoever is woken looks at it.
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
    use crate::transport::MemoryConnector;
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
            let client = crate::Client::builder().hello(serde_json::json!({}));
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
        let mut replies = 0;
        for other in others {
            let call = other.call("/echo", "x", clock::after(begun, Duration::from_secs(60)));
            // The connection may have been notified since; such a call is not executed.
            match call.await {
                Ok(answer) => {
                    assert_eq!(answer, "x");
                    replies += 1;
                }
                Err(error) => assert_ne!(
                    error.execution(),
                    crate::Execution::MayHaveExecuted,
                    "{error}"
                ),
            }
        }
        assert!(replies > 0, "those that were not told are served");
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
        let client = crate::Client::builder().connect_with(connector).await;
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
