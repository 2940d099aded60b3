//! A client: its calls, the backends that they are sent to, and the connections, which are made
//! when needed and replaced when lost.

mod attempt;
mod balanced;
mod builder;
mod chunks;
mod connect;
mod demand;
mod explain;
mod find;
mod observed;
mod owner;
mod pick;
mod pool;
mod request;
mod snapshots;
mod subchannel;
mod watch;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::coop::consume_budget;

use self::balanced::Balanced;
pub use self::builder::{CallOptions, ClientBuilder};
pub use self::chunks::{Channel, ReplyParts};
pub use self::explain::Explanation;
pub use self::pick::{CallTracker, NotPicked, PickArgs, Picked, Tried, outcome_of};
use self::request::{Kept, Request};
use self::subchannel::Subchannel;
use crate::balance::ToTarget;
use crate::body::Body;
use crate::clock;
use crate::connection::{Call, CallTimes, Closing, Connection, RecvStream, SendStream};
use crate::error::{CallError, CallErrorKind, ConnectionError, Execution};
use crate::path::callable;
use crate::proto::Mode;
use crate::proto::calls::Start;
use crate::stats::{Connections, Registry, Snapshot};
use crate::transport::Connector;

/// Maximum number of transparent retries of a raw call on other connections.
const MAX_MOVES: u32 = 5;

/// The attempts of a raw call so far.
#[derive(Default)]
pub(crate) struct Moves {
    /// Number of transparent retries on other connections.
    count: u32,
    /// The backends of a balanced client that it was sent to.
    tried: Tried,
}

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
        let goes_on = lost && has_not_run && self.count < MAX_MOVES;
        if goes_on {
            self.count += 1;
            times.connected = clock::now();
        }
        goes_on
    }

    /// Records the failure of an attempt.
    #[cold]
    pub(crate) fn failed(&mut self, error: CallError, call: &Call) -> CallError {
        if let Some(tracker) = call.tracker() {
            self.tried.add_error(tracker, &error);
        }
        error
    }

    /// Returns the error of the call as a whole.
    #[cold]
    pub(crate) fn outcome(&mut self, error: CallError) -> CallError {
        let mut tried = self.tried.take();
        // The last error may list attempts to connect.
        tried.extend_from_slice(error.tried());
        error.with_tried(tried)
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
    backends: Backends,
}

/// The backends of a client.
#[derive(Clone)]
enum Backends {
    Single(Arc<Subchannel>),
    Balanced(Arc<Balanced>),
}

impl Client {
    fn single(config: ClientBuilder, connector: impl Connector) -> Self {
        let stats = Registry::of_client();
        let subchannel = Subchannel::new(Arc::new(config), Arc::new(connector), stats, None);
        Self {
            backends: Backends::Single(Arc::new(subchannel)),
        }
    }

    fn balanced(balanced: Arc<Balanced>) -> Self {
        Self {
            backends: Backends::Balanced(balanced),
        }
    }

    #[inline]
    fn config(&self) -> &ClientBuilder {
        match &self.backends {
            Backends::Single(subchannel) => &subchannel.config,
            Backends::Balanced(balanced) => &balanced.config,
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
    pub async fn connect(target: impl ToTarget) -> Result<Self, CallError> {
        Self::builder().connect(target).await
    }

    async fn first_connection(&self) -> Result<(), CallError> {
        // The attempt has a limit of its own, whose error is more informative, so this one is
        // longer.
        let deadline = clock::after(
            clock::now(),
            self.config()
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
        Request::new(self, path, body.into(), CallOptions::default())
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
        Request::new(self, path, body.into(), options)
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
            let picked = self.pick_for(path, None, &moves, &mut times).await?;
            picked.connection.room_for_one_way(times.deadline).await?;
            let mut sent = Call::new(picked.connection, &times);
            sent.track(picked.tracker);
            let start = Start::new(Mode::OneWay, times.connected, times.deadline);
            sent.start(callable(path), &start, &mut Kept::new(&mut body), None);
            let unbegun = sent.failure().is_some();
            let Err(error) = (&mut sent).await else {
                return Ok(());
            };
            let error = moves.failed(error, &sent);
            // An empty body means that it was too large to be kept for a retry.
            if body.is_empty() || !moves.goes_on(&error, unbegun, &mut times) {
                return Err(moves.outcome(error));
            }
        }
    }

    /// Returns a connection for a raw call that has needed one since `times.connected`, and sets
    /// that to the time at which the connection is available.
    pub(crate) async fn pick_for(
        &self,
        path: &str,
        key: Option<&[u8]>,
        moves: &Moves,
        times: &mut CallTimes,
    ) -> Result<Picked, CallError> {
        let args = PickArgs {
            path,
            key,
            tried: &moves.tried,
            ..PickArgs::of_no_call()
        };
        match self.pick(times.connected, || args) {
            Ok(picked) => Ok(picked),
            Err(not_picked) => self.wait_for(args, not_picked, times).await,
        }
    }

    /// Waits for a connection for a raw call, after a pick without success.
    pub(crate) async fn wait_for(
        &self,
        args: PickArgs<'_>,
        not_picked: NotPicked,
        times: &mut CallTimes,
    ) -> Result<Picked, CallError> {
        let waiting = self.wait_for_pick(args, not_picked, times.connected, times.deadline);
        let (picked, connected) = waiting.await?;
        times.connected = connected;
        Ok(picked)
    }

    /// Returns the times of a call that begins now and has its connection.
    #[inline]
    pub(crate) fn times(&self, timeout: Option<Duration>) -> CallTimes {
        let started = clock::now();
        let timeout = timeout.unwrap_or_else(|| self.config().timeout);
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
            let picked = self.pick_for(path, None, &moves, &mut times).await?;
            let mut call = Call::new(picked.connection, &times);
            call.track(picked.tracker);
            let start = Start::new(Mode::Parts, times.connected, times.deadline);
            call.start(callable(path), &start, &mut body, None);
            if !call
                .failure()
                .is_some_and(|error| moves.goes_on(error, true, &mut times))
            {
                return Ok(ReplyParts::new(call));
            }
        }
    }

    /// Like [`request_with`](Self::request_with), but receives the reply in parts, as its frames
    /// arrive. Ready once the first part has arrived.
    ///
    /// # Errors
    ///
    /// See [`request`](Self::request); errors after the first part come with the parts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the parts, cancels the call.
    pub fn stream_with<'a>(
        &'a self,
        path: &'a str,
        body: impl Into<Body>,
        options: CallOptions,
    ) -> impl Future<Output = Result<ReplyParts, CallError>> + Send {
        Request::new(self, path, body.into(), options).into_parts()
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
            let picked = self.pick_for(path, None, &moves, &mut times).await?;
            let endless = CallTimes {
                deadline: clock::after(times.connected, Duration::MAX),
                ..times
            };
            let connection = picked.connection;
            let mut ends = connection.start_stream_with(callable(path), &endless, first.clone());
            ends.1.track(picked.tracker);
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
        let timeout = self.config().timeout;
        loop {
            let picked = self.pick_for("", None, &moves, &mut times).await?;
            let lease = picked.connection.lease(clock::now(), times.deadline);
            let unbegun = lease.failure().is_some();
            match Channel::leased(picked, lease, timeout).await {
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
        let (args, now) = (PickArgs::of_no_call(), clock::now());
        match self.pick(now, || args) {
            Ok(picked) => Ok(picked.connection),
            Err(not_picked) => {
                let waiting = self.wait_for_pick(args, not_picked, now, deadline);
                Ok(waiting.await?.0.connection)
            }
        }
    }

    /// Returns a live connection, if there is one.
    #[must_use]
    pub fn ready_connection(&self) -> Option<Connection> {
        let picked = self.pick(clock::now(), PickArgs::of_no_call).ok()?;
        Some(picked.connection)
    }

    /// Returns `true` if each call has a backend that is picked for it.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        matches!(self.backends, Backends::Balanced(_))
    }

    /// Returns a live connection for a call at `now`, if there is one.
    ///
    /// # Errors
    ///
    /// Returns the reason for [`wait_for_pick`](Self::wait_for_pick).
    #[doc(hidden)]
    #[inline]
    pub fn pick<'a>(
        &self,
        now: Instant,
        args: impl FnOnce() -> PickArgs<'a>,
    ) -> Result<Picked, NotPicked> {
        match &self.backends {
            Backends::Single(subchannel) => {
                let ready = subchannel.ready_connection();
                let connection = ready.ok_or_else(NotPicked::default)?;
                Ok(Picked {
                    connection,
                    tracker: None,
                })
            }
            Backends::Balanced(balanced) => balanced.pick(&args(), now),
        }
    }

    /// Returns a live connection for a call, made if needed until `deadline`, and the time at which
    /// it was available. `started` is the current time.
    ///
    /// Try [`pick`](Self::pick) first: it costs neither an allocation nor a reading of the clock.
    /// `not_picked` is its error; by default, the call looks for a backend anew.
    ///
    /// # Errors
    ///
    /// See [`connection`](Self::connection).
    ///
    /// # Cancel safety
    ///
    /// See [`connection`](Self::connection).
    #[doc(hidden)]
    pub async fn wait_for_pick(
        &self,
        args: PickArgs<'_>,
        not_picked: NotPicked,
        started: Instant,
        deadline: Instant,
    ) -> Result<(Picked, Instant), CallError> {
        // A task whose calls all fail here at once must still give other tasks their turn.
        consume_budget().await;
        match &self.backends {
            Backends::Single(subchannel) => {
                let connection = subchannel.make_connection(started, deadline).await?;
                let picked = Picked {
                    connection,
                    tracker: None,
                };
                Ok((picked, clock::now()))
            }
            Backends::Balanced(balanced) => {
                balanced.wait(&args, not_picked, started, deadline).await
            }
        }
    }

    /// Returns what the client knows of its backends: their states, scores and reasons, and the
    /// state of the source of addresses. Its text is for people.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        match &self.backends {
            Backends::Single(subchannel) => Explanation::single(subchannel),
            Backends::Balanced(balanced) => Explanation::balanced(balanced),
        }
    }

    /// Returns what the client has counted since it was made: calls by method, their durations,
    /// bytes, and connections. All clones of a client count together, and so do its raw and typed
    /// calls.
    ///
    /// Takes the lock of each connection for a moment, so call it now and then, and not for every
    /// call.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        let shared = match &self.backends {
            Backends::Single(subchannel) => subchannel.pool.all_shared(),
            Backends::Balanced(balanced) => balanced.all_shared(),
        };
        let connections = Connections::of(shared.len(), &shared);
        self.registry().snapshot(connections)
    }

    fn registry(&self) -> &Registry {
        match &self.backends {
            Backends::Single(subchannel) => &subchannel.stats,
            Backends::Balanced(balanced) => &balanced.stats,
        }
    }

    /// Counts a call of this path, which has its reply, as failed.
    #[doc(hidden)]
    #[cold]
    pub fn count_failure(&self, path: &str, code: u8) {
        self.registry().failed(path.as_bytes(), code);
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
        let connections = match &self.backends {
            Backends::Single(subchannel) => subchannel.close(),
            Backends::Balanced(balanced) => balanced.close(),
        };
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
        let target = match &self.backends {
            Backends::Single(subchannel) => subchannel.connector.describe(),
            Backends::Balanced(balanced) => balanced.source.describe(),
        };
        f.debug_struct("Client")
            .field("target", &target)
            .finish_non_exhaustive()
    }
}
