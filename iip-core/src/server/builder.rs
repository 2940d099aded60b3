//! Configuration of a server.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::ProtocolHandler;
use super::registration::Entry;
use super::remote_drain::RemoteDrain;
use super::statistics::Statistics;
use crate::balance::BackendInfo;
use crate::connection::Peer;
use crate::discover::Register;
use crate::error::ConfigError;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::logs::LogConfig;
use crate::path::check_label;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;
use crate::transport::ProxyProtocol;

/// The configuration of a [`Server`](crate::Server): its handlers and options. Created by
/// [`Server::builder`](crate::Server::builder).
pub struct ServerBuilder {
    pub(super) handlers: HashMap<Box<[u8]>, Arc<dyn Handler>>,
    pub(super) fallback: Option<Arc<dyn Handler>>,
    pub(super) problem: Option<ConfigError>,
    pub(super) limits: Limits,
    pub(super) announce: Value,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_peer: Option<usize>,
    pub(super) max_running_calls: usize,
    pub(super) max_total_bytes: usize,
    pub(super) max_connection_age: Option<Duration>,
    pub(super) max_connection_grace: Duration,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) reuse_port: bool,
    pub(super) on_shutdown: OnShutdown,
    pub(super) readiness: Readiness,
    pub(super) registries: Vec<Entry>,
    pub(super) lame_duck: Option<Duration>,
    pub(super) log: LogConfig,
    pub(super) fallback_protocol: Option<Arc<dyn ProtocolHandler>>,
    pub(super) extension: Option<Box<dyn Any + Send + Sync>>,
    pub(super) statistics: Option<Arc<Statistics>>,
    pub(super) remote_drain: Option<Arc<RemoteDrain>>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    pub(super) also_plain: bool,
}

/// The hooks that run when a shutdown begins.
#[derive(Default)]
pub(super) struct OnShutdown(pub(super) Vec<Box<dyn Fn() + Send + Sync>>);

impl fmt::Debug for OnShutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnShutdown").field(&self.0.len()).finish()
    }
}

/// The conditions for a server to be ready.
#[derive(Default)]
pub(super) struct Readiness(pub(super) Vec<Box<dyn Fn() -> bool + Send + Sync>>);

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.0.len()).finish()
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            handlers: HashMap::new(),
            fallback: None,
            problem: None,
            limits: Limits::default(),
            announce: Value::Object(Map::new()),
            max_connections: 10_000,
            max_connections_per_peer: None,
            max_running_calls: 65_536,
            max_total_bytes: 1024 * 1024 * 1024,
            max_connection_age: None,
            max_connection_grace: Duration::from_secs(30),
            proxy_protocol: None,
            reuse_port: false,
            on_shutdown: OnShutdown::default(),
            readiness: Readiness::default(),
            registries: Vec::new(),
            lame_duck: None,
            log: LogConfig::default(),
            fallback_protocol: None,
            extension: None,
            statistics: None,
            remote_drain: None,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            also_plain: false,
        }
    }
}

impl ServerBuilder {
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

    /// Adds the fields of `announce`, an object, to the reply to a client's hello. Fields of the
    /// protocol itself, such as `channels`, are not replaced. A value that is not an object is
    /// rejected.
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

    /// Expects a header of the PROXY protocol from the listed proxies, before TLS. Default: from
    /// nobody. The address in it is then that of the peer everywhere: [`Peer::addr`](crate::Peer),
    /// the limits per address, and logs. A connection without an address in its header, such as a
    /// check of the proxy itself, keeps that of the proxy.
    ///
    /// A listed peer whose connection does not begin with a header is disconnected and logged like
    /// one of another protocol. The header may take
    /// [`Limits::frame_head_timeout`](Limits::frame_head_timeout) and at most 4 KiB.
    #[must_use]
    pub fn proxy_protocol(mut self, proxies: ProxyProtocol) -> Self {
        self.proxy_protocol = Some(proxies);
        self
    }

    /// Lets several processes of one user listen on the same TCP port (`SO_REUSEPORT`), between
    /// which the system distributes new connections. Default: `false`; fails on systems without it.
    /// Only [`bind`](Self::bind) uses it.
    ///
    /// It is no means for restarts: each process has its own queue of connections that it has not
    /// accepted yet, and when it ends, those in its queue are reset, although their clients are
    /// connected. Pass the listening socket on instead (feature `inherit`): it has one queue. A
    /// second server that is started by mistake is not noticed either.
    #[must_use]
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Lists the server in a registry while it runs. Default: in none; several registries, or
    /// entries, are independent.
    ///
    /// `info` describes the server; `None` registers the address that it listens on. Port 0 in it
    /// stands for the port of the server. If the server listens on every interface (`0.0.0.0`), the
    /// address must be given, and [`bind`](Self::bind) fails without it.
    ///
    /// The server registers once it listens, in the background. If the registry cannot be reached,
    /// the server still starts, logs a warning, and tries again with growing pauses of up to 30 s:
    /// otherwise an outage of the registry would stop servers that clients already know from being
    /// restarted. [`Server::registered`](crate::Server::registered) waits for it. A [shutdown](crate::Server::shutdown) begins with
    /// the removal.
    #[must_use]
    pub fn register(
        mut self,
        registry: impl Register,
        info: impl Into<Option<BackendInfo>>,
    ) -> Self {
        self.registries.push(Entry {
            registry: Arc::new(registry),
            info: info.into(),
        });
        self
    }

    /// Sets the time for which a server that is shut down still accepts and serves after it has
    /// been removed from its registries, so that clients and load balancers can learn of it.
    /// Default: 5 s with [`register`](Self::register), otherwise zero. At most half of the limit of
    /// the [shutdown](crate::Server::shutdown), less the time that the removal took.
    #[must_use]
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = Some(time);
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

    /// Adds a condition for the server to be [ready](crate::Server::is_ready), such as a connection to the
    /// database. It is evaluated on every check, so it should be quick and must not block. Default:
    /// none; with several, all must hold.
    #[must_use]
    pub fn readiness(mut self, check: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.readiness.0.push(Box::new(check));
        self
    }

    /// Serves connections of other protocols on the same port, such as HTTP: those whose first
    /// bytes are not IIP. Default: they are closed, and logged with the protocol that they seem to
    /// speak; so are those that the handler does not [accept](ProtocolHandler::accepts).
    ///
    /// With a handler, the first byte of every connection must arrive within
    /// [`Limits::frame_head_timeout`](Limits::frame_head_timeout). With [`tls`](Self::tls), the
    /// other protocols need TLS like IIP.
    #[must_use]
    pub fn fallback_protocol(mut self, handler: impl ProtocolHandler) -> Self {
        self.fallback_protocol = Some(Arc::new(handler));
        self
    }

    /// Sets a value of a higher layer, for handlers of other protocols:
    /// [`ServerHandle::extension`](crate::ServerHandle::extension). There is room for one value.
    #[doc(hidden)]
    #[must_use]
    pub fn extension(mut self, value: impl Any + Send + Sync) -> Self {
        self.extension = Some(Box::new(value));
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

    /// Serves the statistics paths of a Go server, such as `/sys/server_count`, and on
    /// `/sys/snapshot` what `iq top` shows, to the peers for which `may_read` returns `true`:
    /// statistics name paths and the addresses of clients. Default: to nobody. Other peers get the
    /// reply to an unknown path.
    ///
    /// The server then also keeps the calls of the last five minutes, which takes 38 KB for each
    /// path, and counts frames by channel, for up to 256 channels of a connection. The replies list
    /// at most 1,000 connections.
    #[must_use]
    pub fn statistics(mut self, may_read: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.statistics = Some(Statistics::new(may_read));
        self
    }

    /// Lets the peers for which `may_drain` returns `true` end the server: a request on the path
    /// `/sys/drain`, as `iq drain` sends it, begins a [shutdown](crate::Server::shutdown) with this
    /// `limit`. Default: nobody may, and there is no such path. Peers that may not get the code
    /// PERMISSION_DENIED.
    ///
    /// The reply is a line of JSON, `{"calls":3,"limit_ms":20000}`, with the number of calls that
    /// still run, and another one whenever it has changed. It ends when none runs. Further requests
    /// get the same; dropping them does not end the shutdown. The peer of a request that a gateway
    /// forwards is the gateway. At most 16 peers can wait for the end at the same time.
    ///
    /// Whoever waits for the end of the server, by [`stopped`](crate::Server::stopped),
    /// [`serve_until`](crate::Server::serve_until) or `shutdown_on_signal`, then returns as after any
    /// shutdown.
    ///
    /// ```
    /// use std::time::Duration;
    /// use iip_core::Server;
    ///
    /// // Those on the own machine.
    /// let builder = Server::builder().drain_on_request(Duration::from_secs(20), |peer| {
    ///     peer.addr().is_some_and(|addr| addr.ip().is_loopback())
    /// });
    /// ```
    #[must_use]
    pub fn drain_on_request(
        mut self,
        limit: Duration,
        may_drain: impl Fn(&Peer) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.remote_drain = Some(RemoteDrain::new(limit, may_drain));
        self
    }

    /// Requires TLS on every connection, unless [`also_plain`](Self::also_plain) is set. Default:
    /// no TLS. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Accepts connections without TLS on the same port too, for example until the last client uses
    /// TLS. Default: no. Without [`tls`](Self::tls) it has no effect. Needs the feature `tls`.
    ///
    /// The first byte of every connection must then arrive within
    /// [`Limits::frame_head_timeout`](Limits::frame_head_timeout).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn also_plain(mut self, also_plain: bool) -> Self {
        self.also_plain = also_plain;
        self
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("routes", &self.handlers.len())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
