//! A subchannel: the connections of a client to one address, and how they are made.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::builder::ClientBuilder;
use super::pool::Pool;
use crate::balance::{BackendId, Notice};
use crate::clock;
use crate::connection::{Closing, Connection, Peer, Shared};
use crate::driver::Driver;
use crate::error::{CallError, CallErrorKind, ConnectionError};
use crate::frame::Side;
use crate::proto;
use crate::proto::calls::{CallTable, Retirement};
use crate::stats::{Recorder, Registry};
use crate::transport::{Connected, Connector};

/// Maximum number of times that an attempt to connect begins anew because the server announced that
/// it is going away before the connection was ready.
const MAX_CONNECT_MOVES: u32 = 3;

/// The connections of a client to one address.
pub(super) struct Subchannel {
    pub(super) config: Arc<ClientBuilder>,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) pool: Pool,
    pub(super) stats: Arc<Registry>,
    /// The balanced client that it belongs to, which learns of its connections.
    pub(super) owner: Option<Box<dyn Owner>>,
}

/// The client that a subchannel belongs to, if it has several.
pub(super) trait Owner: Send + Sync {
    /// Records that a call has changed the state of its backend.
    fn notice(&self, id: BackendId, notice: Notice);

    /// Records that an attempt to connect has succeeded.
    fn connected(&self);

    /// Records that an attempt to connect has failed.
    fn refused(&self);

    /// Records that an attempt to connect was cancelled with its runtime.
    fn cancelled(&self);

    /// Records that the subchannel has lost its last connection.
    fn lost(&self);

    /// Returns `true` if calls wait for a connection of any subchannel.
    fn has_waiting_calls(&self) -> bool;
}

impl Subchannel {
    pub(super) fn new(
        config: Arc<ClientBuilder>,
        connector: Arc<dyn Connector>,
        stats: Arc<Registry>,
        owner: Option<Box<dyn Owner>>,
    ) -> Self {
        Self {
            stats,
            pool: Pool::new(config.connections),
            config,
            connector,
            owner,
        }
    }

    /// Rejects further calls. Returns the connections, which end with their calls.
    pub(super) fn close(&self) -> Vec<Connection> {
        // The pool is closed first, or an attempt that ends now could add a connection.
        self.pool.close();
        self.pool.drain()
    }

    /// Makes a connection that takes calls.
    pub(super) async fn connect(&self, retirement: Retirement) -> Result<Connection, CallError> {
        let config = &self.config;
        let target = || self.connector.describe();
        let fail = |error: io::Error| {
            CallError::not_sent(CallErrorKind::Connect {
                target: target(),
                source: Arc::new(error),
            })
        };
        let mut step = Step::Connect;
        let attempt = async {
            let mut moves = 0;
            loop {
                let connected = self.connect_stream(&mut step).await?;
                step = Step::Hello;
                // If the attempt is cancelled, its connection is closed as well.
                let attempt = Unready(Some(self.start(connected, retirement.clone())));
                match wait_until_ready(attempt.connection()?).await {
                    Ok(()) => return attempt.succeed(),
                    // A server that begins to shut down has accepted this connection last. The next
                    // one reaches its successor.
                    Err(ConnectionError::Ended | ConnectionError::WentAway)
                        if moves < MAX_CONNECT_MOVES =>
                    {
                        moves += 1;
                    }
                    Err(error) => return Err(self.explain(error)),
                }
            }
        };
        match tokio::time::timeout(config.connect_timeout, attempt).await {
            Ok(result) => result.map_err(fail),
            Err(_) => Err(fail(io::Error::new(
                io::ErrorKind::TimedOut,
                ConnectTimeout {
                    step,
                    limit: config.connect_timeout,
                },
            ))),
        }
    }

    /// Connects the byte stream, and records each step that begins.
    async fn connect_stream(&self, step: &mut Step) -> io::Result<Connected> {
        *step = Step::Connect;
        let connected = self.connector.connect().await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.config.tls {
            *step = Step::Tls;
            let Connected { io, addr, .. } = connected;
            let (io, certificates) = tls.connect(io, self.connector.host()).await?;
            return Ok(Connected {
                io,
                addr,
                certificates,
            });
        }
        Ok(connected)
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
        proto.stats = Recorder::new(&self.stats);
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

impl Drop for Subchannel {
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

/// A step of an attempt to connect.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The name is resolved, and the byte stream is connected.
    Connect,
    #[cfg(feature = "tls")]
    Tls,
    /// The server grants the first channel.
    Hello,
}

/// The time of an attempt to connect has passed.
#[derive(Debug, thiserror::Error)]
#[error("{} within {limit:?} (option connect_timeout)", step.missing())]
struct ConnectTimeout {
    step: Step,
    limit: Duration,
}

impl Step {
    fn missing(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            #[cfg(feature = "tls")]
            Self::Tls => "the connection was accepted, but the TLS handshake did not finish",
            Self::Hello => "the connection was accepted, but the server did not say hello",
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
