//! A client of one address: the calls and their connections, which are made when needed and
//! replaced when lost.

mod builder;
mod chunks;
mod pool;
mod request;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::builder::{CallOptions, ClientBuilder};
pub use self::chunks::{Channel, ReplyParts};
use self::pool::Pool;
use self::request::{Kept, Request};
use crate::body::Body;
use crate::clock;
use crate::connection::{
    Call, CallTimes, Closing, Connection, Peer, RecvStream, SendStream, Shared,
};
use crate::driver::Driver;
use crate::error::{CallError, CallErrorKind, ConnectionError, Execution};
use crate::frame::Side;
use crate::path::check_path;
use crate::proto::calls::{CallTable, Retirement, Start};
use crate::proto::{self, Mode};
use crate::transport::{Connected, Connector, ToEndpoint};

/// Maximum number of transparent retries of a raw call on other connections.
const MAX_MOVES: u32 = 5;

/// Number of transparent retries of a raw call on other connections.
#[derive(Default)]
pub(crate) struct Moves(u32);

impl Moves {
    /// Returns `true` if a failed call is retried on another connection. This is the case if its
    /// connection was lost and the call has not run; it then needs another connection from now on.
    /// If the server broke the protocol, only a call that was `unbegun` when the connection ended
    /// is retried: the other callers get the error, because a retry would meet the same violation.
    #[cold]
    pub(crate) fn goes_on(
        &mut self,
        error: &CallError,
        unbegun: bool,
        times: &mut CallTimes,
    ) -> bool {
        let lost = match error.kind() {
            CallErrorKind::ConnectionLost(ConnectionError::Protocol(_)) => unbegun,
            CallErrorKind::ConnectionLost(_) => true,
            _ => false,
        };
        let has_not_run = error.execution() != Execution::MayHaveExecuted;
        let goes_on = lost && has_not_run && self.0 < MAX_MOVES;
        if goes_on {
            self.0 += 1;
            times.connected = clock::now();
        }
        goes_on
    }
}

/// A client for one server, which calls paths. Cheap to clone; all clones share the connections.
///
/// A lost connection fails the calls that were sent on it at once, with the reason. Calls that were
/// not sent, or that the server reports as not run, are retried on another connection before their
/// deadline, unless the server broke the protocol. Failed attempts to connect are followed by a
/// pause with full jitter, during which calls fail at once with the last reason, unless another
/// [connection](ClientBuilder::connections) is alive.
///
/// A connection is made in the Tokio runtime of the call that needs it, and runs in that runtime.
/// It ends with the runtime, and the next call makes another connection in its own. A call that
/// needs a new connection outside a runtime fails at once.
///
/// The channel of a call that was given up, for example because its deadline passed, becomes free
/// again when the server replies after all. A connection is retired if none of its channels has
/// become free for half a second while most of them wait for such replies: its calls continue, and
/// further calls use a new connection. If a server repeatedly leaves calls unanswered, new
/// connections to it are made at growing intervals of up to ten seconds.
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
    config: ClientBuilder,
    connector: Arc<dyn Connector>,
    pool: Pool,
}

impl Client {
    fn new(config: ClientBuilder, connector: impl Connector) -> Self {
        let inner = Inner {
            pool: Pool::new(config.connections),
            config,
            connector: Arc::new(connector),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Creates a builder with the default configuration.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects with the default configuration, see [`ClientBuilder`].
    ///
    /// # Errors
    ///
    /// See [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt.
    pub async fn connect(target: impl ToEndpoint) -> Result<Self, CallError> {
        Self::builder().connect(target).await
    }

    async fn first_connection(&self) -> Result<(), CallError> {
        // The attempt has a limit of its own, whose error is more informative, so this one is
        // longer.
        let deadline = clock::after(
            clock::now(),
            self.inner
                .config
                .connect_timeout
                .saturating_add(Duration::from_secs(1)),
        );
        self.connection(deadline).await.map(drop)
    }

    /// Calls `path` with `body` within the client's [`timeout`](ClientBuilder::timeout).
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]; [`CallError::execution`] returns whether the call may have run. An
    /// in-band error of the server is not an error here: it cannot be distinguished from a
    /// handler's own data.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call and has no other effect.
    pub fn request<'a>(
        &'a self,
        path: &'a str,
        body: impl Into<Body>,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send {
        Request::new(self, path, body.into(), None)
    }

    /// Like [`request`](Self::request), but with options for this call.
    ///
    /// # Errors
    ///
    /// See [`request`](Self::request).
    ///
    /// # Cancel safety
    ///
    /// See [`request`](Self::request).
    pub fn request_with<'a>(
        &'a self,
        path: &'a str,
        body: impl Into<Body>,
        options: CallOptions,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send {
        Request::new(self, path, body.into(), options.timeout)
    }

    /// Sends `body` to `path` as a one-way request, without waiting for a reply. The future is
    /// ready once the request is queued for writing, within the client's
    /// [`timeout`](ClientBuilder::timeout). The caller does not learn whether the request arrives,
    /// nor its outcome.
    ///
    /// For servers of this crate, one-way requests are sent on a channel without replies, and they
    /// run concurrently. If the client goes away while one runs, the policy of its handler applies
    /// ([`OnCancel`](crate::OnCancel)). For other servers, and until that channel is open, it is an
    /// ordinary call whose reply is skipped. While 256 KiB wait to be written, further requests
    /// wait for room. [`close`](Self::close) writes the requests that are queued.
    ///
    /// # Errors
    ///
    /// The reason why it was not sent, see [`request`](Self::request); [`CallErrorKind::Timeout`]
    /// if there was no room in time.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the request is not sent.
    pub async fn send(&self, path: &str, body: impl Into<Body>) -> Result<(), CallError> {
        let (mut body, mut times, mut moves) = (body.into(), self.times(None), Moves::default());
        loop {
            let connection = self.connection_for(&mut times).await?;
            connection.room_for_one_way(times.deadline).await?;
            let mut sent = Call::new(connection, &times);
            let start = Start::new(Mode::OneWay, times.connected, times.deadline);
            sent.start(check_path(path), &start, &mut Kept::new(&mut body), None);
            let unbegun = sent.failure().is_some();
            match sent.await {
                // An empty body means that it was too large to be kept for a retry.
                Err(error) if !body.is_empty() && moves.goes_on(&error, unbegun, &mut times) => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// Returns a connection for a call that has needed one since `times.connected`, and sets that
    /// to the time at which the connection is available.
    pub(crate) async fn connection_for(
        &self,
        times: &mut CallTimes,
    ) -> Result<Connection, CallError> {
        if let Some(connection) = self.ready_connection() {
            return Ok(connection);
        }
        let waiting = self.wait_for_connection(times.connected, times.deadline);
        let (connection, connected) = waiting.await?;
        times.connected = connected;
        Ok(connection)
    }

    /// Returns the times of a call that begins now and has its connection.
    #[inline]
    pub(crate) fn times(&self, timeout: Option<Duration>) -> CallTimes {
        let started = clock::now();
        let timeout = timeout.unwrap_or(self.inner.config.timeout);
        CallTimes::new(started, clock::after(started, timeout))
    }

    /// Calls `path` and receives the reply in parts, as its frames arrive.
    ///
    /// # Errors
    ///
    /// See [`request`](Self::request), if there is no connection; later errors come with the parts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the parts, cancels the call.
    pub async fn stream(&self, path: &str, body: impl Into<Body>) -> Result<ReplyParts, CallError> {
        let (mut body, mut times, mut moves) = (body.into(), self.times(None), Moves::default());
        loop {
            let connection = self.connection_for(&mut times).await?;
            let mut call = Call::new(connection, &times);
            let start = Start::new(Mode::Parts, times.connected, times.deadline);
            call.start(check_path(path), &start, &mut body, None);
            if !call
                .failure()
                .is_some_and(|error| moves.goes_on(error, true, &mut times))
            {
                return Ok(ReplyParts::new(call));
            }
        }
    }

    /// Calls `path` with a stream of bytes in each direction, where `first` is the beginning of the
    /// outgoing one. Only servers that understand such calls support them, which a Go server does
    /// not; therefore the client must send a [hello](ClientBuilder::hello).
    ///
    /// The duration of the call is not limited once there is a connection;
    /// [`RecvStream::set_deadline`] limits it.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = iip_core::Client::builder().hello(serde_json::json!({}));
    /// let client = config.connect("127.0.0.1:9000").await?;
    /// let (mut send, mut recv) = client.open_stream("/count", "how many bytes ").await?;
    /// send.send("are these?").await?;
    /// send.finish();
    /// while let Some(part) = recv.next().await {
    ///     println!("{:?}", part?);
    /// }
    /// println!("the reply: {:?}", recv.reply());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`request`](Self::request), if there is no connection; [`RecvStream::reply`] returns
    /// later errors.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the [`RecvStream`], cancels the call.
    pub async fn open_stream(
        &self,
        path: &str,
        first: impl Into<Body>,
    ) -> Result<(SendStream, RecvStream), CallError> {
        let (first, mut times, mut moves) = (first.into(), self.times(None), Moves::default());
        loop {
            let connection = self.connection_for(&mut times).await?;
            let endless = CallTimes {
                deadline: clock::after(times.connected, Duration::MAX),
                ..times
            };
            let ends = connection.start_stream_with(check_path(path), &endless, first.clone());
            if !ends
                .1
                .failure()
                .is_some_and(|error| moves.goes_on(error, true, &mut times))
            {
                return Ok(ends);
            }
        }
    }

    /// Takes a channel out of the pool, for several requests that are handled in order.
    ///
    /// # Errors
    ///
    /// See [`request`](Self::request).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future returns the channel to the pool.
    pub async fn open_channel(&self) -> Result<Channel, CallError> {
        let (mut times, mut moves) = (self.times(None), Moves::default());
        let timeout = self.inner.config.timeout;
        loop {
            let connection = self.connection_for(&mut times).await?;
            let lease = connection.lease(clock::now(), times.deadline);
            let unbegun = lease.failure().is_some();
            match Channel::leased(connection, lease, timeout).await {
                Err(error) if moves.goes_on(&error, unbegun, &mut times) => {}
                leased => return leased,
            }
        }
    }

    /// Returns a live connection; makes one if needed, until `deadline`.
    ///
    /// # Errors
    ///
    /// Fails if no connection could be made, or the client is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not cancel the attempt: other calls may wait for it.
    pub async fn connection(&self, deadline: Instant) -> Result<Connection, CallError> {
        match self.ready_connection() {
            Some(connection) => Ok(connection),
            None => Ok(self.wait_for_connection(clock::now(), deadline).await?.0),
        }
    }

    /// Returns a live connection, if there is one.
    #[inline]
    #[must_use]
    pub fn ready_connection(&self) -> Option<Connection> {
        self.inner.ready_connection()
    }

    /// Returns a live connection, made if needed until `deadline`, and the time at which it was
    /// available. `started` is the current time.
    ///
    /// Try [`ready_connection`](Self::ready_connection) first: it costs neither an allocation nor a
    /// reading of the clock.
    ///
    /// # Errors
    ///
    /// See [`connection`](Self::connection).
    ///
    /// # Cancel safety
    ///
    /// See [`connection`](Self::connection).
    #[doc(hidden)]
    pub async fn wait_for_connection(
        &self,
        started: Instant,
        deadline: Instant,
    ) -> Result<(Connection, Instant), CallError> {
        let connection = self.inner.make_connection(started, deadline).await?;
        Ok((connection, clock::now()))
    }

    /// Closes all connections once their calls are replied, at the latest after `limit`. Later
    /// calls fail.
    ///
    /// Dropping the last clone does the same without waiting.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connections still end.
    pub async fn close(&self, limit: Duration) {
        // The pool is closed first, or an attempt that ends now could add a connection.
        self.inner.pool.close();
        let connections = self.inner.pool.drain();
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
    async fn connect(&self, retirement: Retirement) -> Result<Connection, CallError> {
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
            // If the attempt is cancelled, its connection is closed as well.
            let attempt = Unready(Some(self.start(connected, retirement)));
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

    /// Explains the error of a connection that ended before the server had granted a channel.
    fn explain(&self, error: ConnectionError) -> io::Error {
        #[cfg(feature = "tls")]
        let plain = self.config.tls.is_none();
        #[cfg(not(feature = "tls"))]
        let plain = true;
        let hint = match &error {
            ConnectionError::ClosedByPeer | ConnectionError::Io(_) if plain => {
                NoReplyHint::OrTls(error)
            }
            ConnectionError::ClosedByPeer => NoReplyHint::Full(error),
            _ => return io::Error::new(io::ErrorKind::ConnectionAborted, error),
        };
        io::Error::new(io::ErrorKind::ConnectionAborted, hint)
    }

    /// Starts IIP on a byte stream.
    fn start(&self, connected: Connected, retirement: Retirement) -> Connection {
        let config = &self.config;
        let announce = config.hello.clone().unwrap_or_default();
        let mut proto = proto::Connection::new(
            Side::Client,
            Arc::clone(&config.limits),
            announce,
            clock::now(),
        );
        let mut calls = CallTable::new(config.limits.get_max_channels(), config.max_queued_calls);
        calls.may_retire(retirement, clock::now());
        // The hello comes first on channel 0: when the first channel is granted, the server's hello
        // is known.
        if config.hello.is_some() {
            proto.say_hello();
        }
        calls.open_first(&mut proto);
        let peer = Arc::new(Peer::new(connected.addr, connected.certificates));
        let shared = Shared::new(proto, calls, peer, None);
        tokio::spawn(Driver::new(
            connected.io,
            Side::Client,
            Arc::clone(&shared),
            None,
        ));
        Connection { shared }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.drain();
    }
}

/// A connection that is not ready yet; closed on drop unless it becomes ready.
struct Unready(Option<Connection>);

impl Unready {
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

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.shared.close(Closing::Force);
        }
    }
}

/// The server, or another service at its address, closed the connection without a reply.
#[derive(Debug, thiserror::Error)]
enum NoReplyHint {
    #[error(
        "the server closed the connection without a reply: it may be at its limit of connections \
         (option max_connections), expect TLS (option tls of the client), or speak another protocol"
    )]
    OrTls(#[source] ConnectionError),
    #[error(
        "the server closed the connection without a reply: it may be at its limit of connections \
         (option max_connections)"
    )]
    Full(#[source] ConnectionError),
}

/// Waits until the server has granted the first channel, or rejected it. An error before that
/// counts as a failed attempt: a server that rejects a client certificate does so only after the
/// handshake.
async fn wait_until_ready(connection: &Connection) -> Result<(), ConnectionError> {
    loop {
        // Registered before the state is looked at, so that a notification in between is not
        // missed.
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
