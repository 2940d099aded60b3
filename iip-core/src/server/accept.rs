//! The connections of a server: accepted within its limits, each with a driver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Inner;
use super::fallback::Detected;
use super::table::{Place, Stage};
use crate::clock;
use crate::connection::{Closing, Peer, Shared};
use crate::driver::Driver;
use crate::frame::Side;
use crate::pending::Network;
use crate::proto;
use crate::proto::calls::CallTable;
use crate::random;
use crate::serve::Dispatcher;
use crate::stats::Recorder;
use crate::totals::Share;
use crate::transport::{Connected, IoStream, Listener, read_header};

impl Inner {
    /// Reserves a place for one more connection, if the limits allow it.
    pub(super) fn admit(
        self: &Arc<Self>,
        addr: Option<SocketAddr>,
    ) -> Result<ConnectionGuard, &'static str> {
        let network = Network::of(addr.map(|addr| addr.ip()));
        let max = self.max_connections;
        let max_per_peer = match self.expects_header(addr) {
            // The limit applies to the client, which the header names.
            true => usize::MAX,
            false => self.max_connections_per_peer,
        };
        let admitted = self.lock().admit(network, max, max_per_peer, clock::now());
        // The lock is released, which the guard of the evicted task may need.
        let (place, evicted) = admitted?;
        if let Some(task) = evicted {
            tracing::debug!("a silent connection was closed in favor of a new one");
            task.abort();
        }
        Ok(ConnectionGuard {
            inner: Arc::clone(self),
            place,
        })
    }

    /// Records that a connection has sent its first bytes; it can no longer be evicted.
    pub(super) fn on_spoken(&self, key: usize) {
        let mut table = self.lock();
        let entry = table.connections.get_mut(key);
        if let Some(number) = entry.and_then(|entry| entry.silent.take()) {
            table.silent.remove(number);
        }
    }

    fn expects_header(&self, addr: Option<SocketAddr>) -> bool {
        let proxies = self.proxy_protocol.as_ref();
        proxies.is_some_and(|proxies| proxies.expects_header(addr))
    }

    /// Reads the header of a proxy. The connection then counts as that of the client that the
    /// header names. Returns `None` if it must be closed.
    async fn behind_proxy(&self, mut connected: Connected, key: usize) -> Option<Connected> {
        let limit = self.limits.get_frame_head_timeout();
        let proxy = connected.addr;
        match read_header(&mut connected.io, limit).await {
            // A connection of the proxy itself keeps its address.
            Ok(client) => connected.addr = client.or(proxy),
            Err(error) if error.is_violation() => {
                self.logs.stranger(proxy, &error);
                return None;
            }
            // Proxies and load balancers connect, and send nothing, to check that a server listens.
            Err(error) => {
                tracing::debug!(?proxy, %error, "connection closed");
                return None;
            }
        }
        let network = Network::of(connected.addr.map(|addr| addr.ip()));
        let max_per_peer = self.max_connections_per_peer;
        let moved = self
            .lock()
            .move_to(key, network, max_per_peer, clock::now());
        // The lock is released, which the guard of the evicted task may need.
        match moved {
            Ok(evicted) => {
                if let Some(task) = evicted {
                    tracing::debug!("a silent connection was closed in favor of a new one");
                    task.abort();
                }
                Some(connected)
            }
            Err(option) => {
                let addr = connected.addr;
                tracing::debug!(?addr, ?proxy, option, "connection rejected: limit reached");
                None
            }
        }
    }

    /// Serves an accepted byte stream until it ends.
    pub(super) async fn run(self: Arc<Self>, connected: Connected, guard: ConnectionGuard) {
        // What is needed to set a connection up is boxed, so that its task does not keep the space.
        let connected = match self.expects_header(connected.addr) {
            true => match Box::pin(self.behind_proxy(connected, guard.place.key)).await {
                Some(connected) => connected,
                None => return,
            },
            false => connected,
        };
        let (connected, first) = match self.is_plain_iip() {
            true => (connected, Bytes::new()),
            false => match Box::pin(self.detect(connected)).await {
                Some(Detected::Iip(connected, first)) => (connected, first),
                Some(Detected::Other(other)) => {
                    return Box::pin(self.serve_other(other, guard.place.key)).await;
                }
                None => return,
            },
        };
        self.driver(connected, &first, guard.place.key, self.ends())
            .await;
    }

    /// Creates the driver of a connection of IIP. `first` was read from its stream before.
    pub(super) fn driver(
        self: &Arc<Self>,
        connected: Connected,
        first: &[u8],
        key: usize,
        ends: Option<(Instant, Instant)>,
    ) -> Driver<IoStream> {
        let proto = self.new_machine();
        let peer = Peer::new(connected.addr, connected.certificates);
        let peer = peer.remembered_in(self.stats.notable());
        let peer = Arc::new(peer.of_server(self.leaving.subscribe(), Arc::clone(&self.logs)));
        let share = Share::new(&self.totals, connected.addr.map(|addr| addr.ip()));
        let shared = Shared::new(proto, CallTable::new(0, 0), peer, Some(share));
        // From now on a shutdown finds this connection in the table.
        if let Some(entry) = self.lock().connections.get_mut(key) {
            entry.stage = Stage::Iip(Arc::clone(&shared));
        }
        // A shutdown sets the flag before it iterates over the table.
        if *self.leaving.borrow() {
            shared.close(Closing::Drain);
        }
        let dispatcher = Dispatcher::new(Arc::clone(&self.routes));
        let driver = Driver::new(connected.io, Side::Server, shared, Some(dispatcher));
        let driver = driver.with_end(ends);
        if first.is_empty() {
            let inner = Arc::clone(self);
            driver.on_first_read(move || inner.on_spoken(key))
        } else {
            self.on_spoken(key);
            driver.with_first(first)
        }
    }

    /// Returns the state machine of a new connection.
    fn new_machine(&self) -> proto::Connection {
        let (limits, announce) = (Arc::clone(&self.limits), Arc::clone(&self.announce));
        let mut proto = proto::Connection::new(Side::Server, limits, announce, clock::now());
        proto.stats = Recorder::new(&self.stats);
        if self.statistics.is_some() {
            proto.count_frames();
        }
        proto
    }

    /// Returns the time at which a connection made now is drained, and the time at which it is
    /// closed at the latest.
    pub(super) fn ends(&self) -> Option<(Instant, Instant)> {
        // Connections that were made together should not end together.
        let age = self.max_connection_age?.as_secs_f64() * (0.9 + 0.2 * random::random_fraction());
        let age = Duration::try_from_secs_f64(age).unwrap_or(Duration::MAX);
        let drain_at = clock::after(clock::now(), age);
        Some((drain_at, clock::after(drain_at, self.max_connection_grace)))
    }
}

/// The place of one connection in the table, released when its task ends for any reason.
pub(super) struct ConnectionGuard {
    pub(super) inner: Arc<Inner>,
    pub(super) place: Place,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.inner.lock().remove(self.place.key);
        self.inner.changed.notify_waiters();
    }
}

/// Accepts connections until the server is shut down. Errors do not end the loop: errors of the
/// process are temporary, and accepting continues after a pause.
pub(super) async fn accept_loop(mut accepting: Accepting) {
    let inner = &accepting.end.0;
    let mut pause = Duration::from_millis(5);
    loop {
        match accepting.listener.accept().await {
            Ok(connected) => {
                pause = Duration::from_millis(5);
                match inner.admit(connected.addr) {
                    Ok(guard) => {
                        let place = guard.place;
                        let task = tokio::spawn(Arc::clone(inner).run(connected, guard));
                        inner.lock().set_task(place, task.abort_handle());
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
pub(super) struct Accepting {
    pub(super) listener: Listener,
    pub(super) end: AcceptEnd,
}

/// Signals on drop that the accept loop has ended.
pub(super) struct AcceptEnd(pub(super) Arc<Inner>);

impl Drop for AcceptEnd {
    fn drop(&mut self) {
        #[cfg(all(unix, feature = "inherit"))]
        drop(self.0.lock_socket().take());
        // The flag comes before the notification: whoever is woken looks at it.
        self.0.lock().accepting = false;
        self.0.changed.notify_waiters();
        if !self.0.is_unready.load(Ordering::Relaxed) {
            tracing::warn!(
                "the server ends without a shutdown because its runtime ends: main returned, or \
                 did not wait for the server (Server::stopped)"
            );
        }
    }
}
