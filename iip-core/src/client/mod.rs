//! A client to one address: connections, made when needed and replaced when lost, and the calls on them.

mod config;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Notify;

pub use self::config::{CallOptions, ClientConfig};
use crate::body::Body;
use crate::call::{CallTimes, Channel, ReplyParts, Request};
use crate::calls::{CallTable, Start};
use crate::clock;
use crate::connection::{Closing, Connection, Peer, Shared, check_path};
use crate::driver::Driver;
use crate::error::{CallError, CallErrorKind, ConnectionError, Execution, Phases};
use crate::frame::Side;
use crate::proto::{self, Mode};
use crate::stream::{RecvStream, SendStream};
use crate::transport::{Connected, Connector, ToEndpoint};

/// The first pause after a failed attempt to connect is at most this long; each further one at most twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// No pause is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Calls paths on one server. Cheap to clone; all clones share the connections.
///
/// A lost connection fails the calls on it at once, with the reason; the next call connects anew. After failed attempts
/// there is a pause with full jitter, during which calls fail at once with the last reason.
///
/// ```no_run
/// # async fn run() -> Result<(), iip_core::CallError> {
/// let client = iip_core::Client::connect("127.0.0.1:9000").await?;
/// assert_eq!(&client.request("/echo", "hello").await?[..], b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    connector: Arc<dyn Connector>,
    lanes: Box<[Lane]>,
    next: AtomicUsize,
    closed: AtomicBool,
}

/// The place of one connection.
#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
    changed: Notify,
}

#[derive(Default)]
struct LaneState {
    phase: Phase,
    /// Attempts that failed since the last success.
    failures: u32,
    /// Counts attempts, so that a waiter knows the outcome of the one it waited for.
    attempt: u64,
}

#[derive(Default)]
enum Phase {
    #[default]
    Down,
    Connecting,
    Up(Connection),
    Pausing {
        until: Instant,
        error: CallError,
    },
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn new(config: ClientConfig, connector: impl Connector) -> Self {
        let lanes = (0..config.connections).map(|_| Lane::default()).collect();
        let inner = Inner {
            config,
            connector: Arc::new(connector),
            lanes,
            next: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Connects with the defaults, see [`ClientConfig`].
    ///
    /// # Errors
    ///
    /// As [`ClientConfig::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt.
    pub async fn connect(target: impl ToEndpoint) -> Result<Self, CallError> {
        ClientConfig::new().connect(target).await
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    async fn first_connection(&self) -> Result<(), CallError> {
        let deadline = clock::after(
            clock::now(),
            self.inner
                .config
                .connect_timeout
                .saturating_add(Duration::from_secs(1)),
        );
        self.connection(deadline).await.map(drop)
    }

    /// Calls `path` with `body` within the client's `call_timeout`.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]; [`CallError::execution`] tells whether the call may have run. An in-band error of the
    /// server is no error here: it cannot be told from a handler's own data.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; nothing else is touched.
    pub fn request<'a>(
        &'a self,
        path: &'a str,
        body: impl Into<Body>,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send {
        Request::new(self, path, body.into(), None)
    }

    /// As [`request`](Self::request), with options of its own.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    ///
    /// # Cancel safety
    ///
    /// As [`request`](Self::request).
    pub fn request_with<'a>(
        &'a self,
        path: &'a str,
        body: impl Into<Body>,
        options: CallOptions,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send {
        Request::new(self, path, body.into(), options.timeout)
    }

    /// Sends `body` to `path` and does not wait for an answer: ready once the request is queued to be written, within the
    /// client's `call_timeout`. Whether it arrives and what becomes of it, nobody says.
    ///
    /// Servers of this crate get such requests on a channel where none is answered; they run side by side. What becomes
    /// of one that runs when the client goes, its handler says ([`OnCancel`](crate::OnCancel)). For others, and until that
    /// channel is there, it is a call like any other whose answer is skipped.
    /// While 256 KiB wait to be written, further requests wait for room. [`close`](Self::close) writes what is queued.
    ///
    /// # Errors
    ///
    /// Why it was not sent, as with [`request`](Self::request); [`CallErrorKind::Timeout`] if there was no room in time.
    ///
    /// # Cancel safety
    ///
    /// When dropped before it is ready, the request was not sent.
    pub async fn send(&self, path: &str, body: impl Into<Body>) -> Result<(), CallError> {
        let (connection, times) = self.begin().await?;
        connection.room_for_one_way(times.deadline).await?;
        let call = connection.start_one_way_with(check_path(path), &times, &mut body.into());
        call.await.map(drop)
    }

    /// A connection for a call that begins now, and the times of that call.
    async fn begin(&self) -> Result<(Connection, CallTimes), CallError> {
        let times = self.times(None);
        let (connection, connected) = match self.ready_connection() {
            Some(connection) => (connection, times.started),
            None => {
                self.wait_for_connection(times.started, times.deadline)
                    .await?
            }
        };
        Ok((connection, CallTimes { connected, ..times }))
    }

    /// The times of a call that begins now and has its connection.
    #[inline]
    pub(crate) fn times(&self, timeout: Option<Duration>) -> CallTimes {
        let started = clock::now();
        let timeout = timeout.unwrap_or(self.inner.config.call_timeout);
        CallTimes {
            started,
            connected: started,
            deadline: clock::after(started, timeout),
        }
    }

    /// Calls `path` and takes the answer in parts, as its frames arrive.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request), if there is no connection; later errors come with the parts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the parts, cancels the call.
    pub async fn stream(&self, path: &str, body: impl Into<Body>) -> Result<ReplyParts, CallError> {
        let deadline = self.times(None).deadline;
        let connection = self.connection(deadline).await?;
        let now = clock::now();
        let start = Start {
            now,
            deadline,
            on: None,
            mode: Mode::Parts,
        };
        let call = connection.start(check_path(path), &start, now, &mut body.into(), None);
        Ok(ReplyParts::new(call))
    }

    /// Calls `path` with a stream of bytes each way, of which `first` is the beginning of ours. Only servers that understand it
    /// can be called so, a Go server cannot; that is why the client must say [hello](ClientConfig::hello).
    ///
    /// The call may take as long as it likes once there is a connection; [`RecvStream::set_deadline`] limits it.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = iip_core::ClientConfig::new().hello(serde_json::json!({}));
    /// let client = config.connect("127.0.0.1:9000").await?;
    /// let (mut send, mut recv) = client.open_stream("/count", "how many bytes ").await?;
    /// send.send("are these?").await?;
    /// send.finish();
    /// while let Some(part) = recv.next().await {
    ///     println!("{:?}", part?);
    /// }
    /// println!("the answer: {:?}", recv.answer());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request), if there is no connection; [`RecvStream::answer`] has later ones.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the [`RecvStream`], cancels the call.
    pub async fn open_stream(
        &self,
        path: &str,
        first: impl Into<Body>,
    ) -> Result<(SendStream, RecvStream), CallError> {
        let (connection, times) = self.begin().await?;
        let times = CallTimes {
            deadline: clock::after(times.connected, Duration::MAX),
            ..times
        };
        Ok(connection.start_stream_with(check_path(path), &times, first.into()))
    }

    /// Takes a channel out of the pool, for many requests in order.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the channel back.
    pub async fn open_channel(&self) -> Result<Channel, CallError> {
        let deadline = self.times(None).deadline;
        let connection = self.connection(deadline).await?;
        Channel::lease(connection, deadline, self.inner.config.call_timeout).await
    }

    /// A living connection; makes one if needed, until `deadline`.
    ///
    /// # Errors
    ///
    /// None could be made, or the client is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the attempt to others that wait for it.
    pub async fn connection(&self, deadline: Instant) -> Result<Connection, CallError> {
        match self.ready_connection() {
            Some(connection) => Ok(connection),
            None => Ok(self.wait_for_connection(clock::now(), deadline).await?.0),
        }
    }

    /// A living connection, if there is one.
    #[inline]
    #[must_use]
    pub fn ready_connection(&self) -> Option<Connection> {
        match &self.lane().lock().phase {
            Phase::Up(connection) if connection.shared.is_alive() => {
                self.turn();
                Some(connection.clone())
            }
            _ => None,
        }
    }

    /// Whose turn it is: calls go to the connections one after the other.
    #[inline]
    fn lane(&self) -> &Lane {
        match &*self.inner.lanes {
            [lane] => lane,
            lanes => &lanes[self.inner.next.load(Ordering::Relaxed) % lanes.len()],
        }
    }

    #[inline]
    fn turn(&self) {
        if self.inner.lanes.len() > 1 {
            self.inner.next.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A living connection, made if needed until `deadline`, and the time when it was there. `started` is the time now.
    ///
    /// Ask for the [`ready_connection`](Self::ready_connection) first: it costs neither an allocation nor a look at the clock.
    ///
    /// # Errors
    ///
    /// As [`connection`](Self::connection).
    ///
    /// # Cancel safety
    ///
    /// As [`connection`](Self::connection).
    pub async fn wait_for_connection(
        &self,
        started: Instant,
        deadline: Instant,
    ) -> Result<(Connection, Instant), CallError> {
        let lane = self.lane();
        self.turn();
        let connection = self.make_connection(lane, started, deadline).await?;
        Ok((connection, clock::now()))
    }

    async fn make_connection(
        &self,
        lane: &Lane,
        started: Instant,
        deadline: Instant,
    ) -> Result<Connection, CallError> {
        let mut waited_for = None;
        loop {
            let changed = lane.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.inner.closed.load(Ordering::Acquire) {
                return Err(CallError::not_sent(CallErrorKind::Closed));
            }
            {
                let mut state = lane.lock();
                match &state.phase {
                    Phase::Up(connection) if connection.shared.is_alive() => {
                        return Ok(connection.clone());
                    }
                    Phase::Pausing { until, error }
                        if waited_for == Some(state.attempt) || clock::now() < *until =>
                    {
                        let connect = clock::now().saturating_duration_since(started);
                        return Err(error.clone().with_phases(Phases {
                            connect,
                            ..Phases::default()
                        }));
                    }
                    Phase::Connecting => {}
                    _ => {
                        state.phase = Phase::Connecting;
                        state.attempt += 1;
                        self.spawn_attempt(lane);
                    }
                }
                waited_for = Some(state.attempt);
            }
            if tokio::time::timeout_at(tokio::time::Instant::from_std(deadline), changed)
                .await
                .is_err()
            {
                let connect = clock::now().saturating_duration_since(started);
                let phases = Phases {
                    connect,
                    ..Phases::default()
                };
                return Err(CallError::new(
                    CallErrorKind::Timeout,
                    Execution::NotSent,
                    phases,
                ));
            }
        }
    }

    /// Connects in a task of its own: who waits for it may go away.
    fn spawn_attempt(&self, lane: &Lane) {
        let Some(index) = self
            .inner
            .lanes
            .iter()
            .position(|other| std::ptr::eq(other, lane))
        else {
            return;
        };
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let result = inner.connect().await;
            let lane = &inner.lanes[index];
            let mut state = lane.lock();
            match result {
                Ok(connection) if inner.closed.load(Ordering::Acquire) => {
                    connection.shared.close(Closing::Force);
                    state.phase = Phase::Down;
                }
                Ok(connection) => {
                    state.failures = 0;
                    state.phase = Phase::Up(connection);
                }
                Err(error) => {
                    let most = FIRST_BACKOFF
                        .saturating_mul(1 << state.failures.min(16))
                        .min(MAX_BACKOFF);
                    let pause = most.mul_f64(fastrand::f64());
                    let causes =
                        std::iter::successors(std::error::Error::source(&error), |cause| {
                            cause.source()
                        });
                    let causes: Vec<String> = causes.map(ToString::to_string).collect();
                    tracing::debug!(target = %inner.connector.describe(), %error, ?causes, ?pause, "cannot connect");
                    state.failures += 1;
                    state.phase = Phase::Pausing {
                        until: clock::now() + pause,
                        error,
                    };
                }
            }
            drop(state);
            lane.changed.notify_waiters();
        });
    }

    /// Ends all connections once their calls are answered, at the latest after `limit`. Later calls fail.
    ///
    /// Dropping the last clone does the same without waiting.
    ///
    /// # Cancel safety
    ///
    /// The end goes on when the future is dropped.
    pub async fn close(&self, limit: Duration) {
        self.inner.closed.store(true, Ordering::Release);
        let connections = self.inner.drain();
        let all = async {
            for connection in &connections {
                connection.closed().await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            for connection in &connections {
                connection.shared.close(Closing::Force);
            }
            for connection in &connections {
                connection.closed().await;
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("target", &self.inner.connector.describe())
            .finish_non_exhaustive()
    }
}

impl Inner {
    async fn connect(&self) -> Result<Connection, CallError> {
        let config = &self.config;
        let target = || self.connector.describe();
        let fail = |error: io::Error| {
            CallError::not_sent(CallErrorKind::Connect {
                target: target(),
                source: Arc::new(error),
            })
        };
        let attempt = async {
            let connected = self.connector.connect().await?;
            #[cfg(feature = "tls")]
            let connected = match &config.tls {
                Some(tls) => {
                    let Connected { io, addr, .. } = connected;
                    let (io, certificates) = tls.connect(io, self.connector.host()).await?;
                    Connected {
                        io,
                        addr,
                        certificates,
                    }
                }
                None => connected,
            };
            // An attempt that is given up takes its connection along.
            let attempt = Attempt(Some(self.start(connected)));
            wait_until_ready(attempt.connection()?)
                .await
                .map_err(|error| self.explain(error))?;
            attempt.succeed()
        };
        match tokio::time::timeout(config.connect_timeout, attempt).await {
            Ok(result) => result.map_err(fail),
            Err(_) => Err(fail(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "no connection within {:?} (option connect_timeout)",
                    config.connect_timeout
                ),
            ))),
        }
    }

    /// What made a connection end before the server had granted a channel.
    fn explain(&self, error: ConnectionError) -> io::Error {
        #[cfg(feature = "tls")]
        let plain = self.config.tls.is_none();
        #[cfg(not(feature = "tls"))]
        let plain = true;
        let refused = match &error {
            ConnectionError::ClosedByPeer | ConnectionError::Io(_) if plain => {
                Refused::OrTls(error)
            }
            ConnectionError::ClosedByPeer => Refused::Full(error),
            _ => return io::Error::new(io::ErrorKind::ConnectionAborted, error),
        };
        io::Error::new(io::ErrorKind::ConnectionAborted, refused)
    }

    /// Speaks IIP on a stream.
    fn start(&self, connected: Connected) -> Connection {
        let config = &self.config;
        let announce = config.hello.clone().unwrap_or(Value::Null);
        let mut proto =
            proto::Connection::new(Side::Client, config.limits.clone(), announce, clock::now());
        let mut calls = CallTable::new(config.limits.channels(), config.max_queued_calls);
        if config.hello.is_some() {
            proto.say_hello();
        }
        calls.open_first(&mut proto);
        let peer = Arc::new(Peer::new(connected.addr, connected.certificates));
        let shared = Shared::new(proto, calls, peer);
        tokio::spawn(Driver::new(
            connected.io,
            Side::Client,
            Arc::clone(&shared),
            None,
        ));
        Connection { shared }
    }

    fn drain(&self) -> Vec<Connection> {
        let mut connections = Vec::new();
        for lane in &self.lanes {
            if let Phase::Up(connection) = std::mem::take(&mut lane.lock().phase) {
                connection.shared.close(Closing::Drain);
                connections.push(connection);
            }
            lane.changed.notify_waiters();
        }
        connections
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.drain();
    }
}

/// A connection that is not ready; closed unless it gets there.
struct Attempt(Option<Connection>);

impl Attempt {
    fn connection(&self) -> io::Result<&Connection> {
        self.0
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn succeed(mut self) -> io::Result<Connection> {
        self.0
            .take()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.shared.close(Closing::Force);
        }
    }
}

/// The server, or what stands in its place, ended the connection without a word.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "it was closed without an answer: the server may have all the connections it takes (option max_connections), speak TLS (option tls of the client), or speak another protocol"
    )]
    OrTls(#[source] ConnectionError),
    #[error(
        "it was closed without an answer: the server may have all the connections it takes (option max_connections)"
    )]
    Full(#[source] ConnectionError),
}

/// Waits until the server has granted the first channel, or refused it. What goes wrong before counts as a failed attempt:
/// a server that refuses a client certificate does so only after the handshake.
async fn wait_until_ready(connection: &Connection) -> Result<(), ConnectionError> {
    loop {
        let ready = connection.shared.ready.notified();
        let mut ready = std::pin::pin!(ready);
        ready.as_mut().enable();
        {
            let state = connection.shared.lock();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            if state.calls.is_ready() {
                return Ok(());
            }
        }
        ready.await;
    }
}
