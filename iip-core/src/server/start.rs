//! The start of a server from its configuration.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

#[cfg(feature = "tls")]
use super::ProtocolHandler;
use super::accept::{AcceptEnd, Accepting, accept_loop};
use super::registration::{Entry, Registrations, advertised};
use super::remote_drain;
use super::shutdown::LAME_DUCK;
use super::table::Table;
use super::{Inner, Server, ServerBuilder};
use crate::error::ConfigError;
use crate::logs::Logs;
use crate::serve::Routes;
use crate::stats::Registry;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;
use crate::totals::Totals;
#[cfg(all(unix, feature = "inherit"))]
use crate::transport::Passable;
use crate::transport::{Listener, MemoryConnector, ToEndpoint, memory};

/// Divisor of `max_connections`: unless `max_connections_per_peer` is set, one peer leaves one of
/// this many shares to others.
const SHARES: usize = 16;

impl ServerBuilder {
    /// Listens on `host:port`, `unix:/path`, `unix:@name` or a
    /// [`SocketAddr`](std::net::SocketAddr), and starts the server; with port 0 the system chooses
    /// the port, see [`Server::local_addr`].
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
        let listener = Listener::bind_with(&endpoint, self.reuse_port).await?;
        self.serve(listener)
    }

    /// Starts the server on an existing listener: tokio's `TcpListener` or `UnixListener`, or any
    /// [`Listener`]. Sockets of the standard library are converted to tokio's with `from_std`; for
    /// those passed by a service manager see `listen_on_inherited`.
    ///
    /// # Errors
    ///
    /// Fails if the configuration cannot work.
    pub fn listen_on(self, listener: impl Into<Listener>) -> io::Result<Server> {
        self.serve(listener.into())
    }

    /// Starts the server on the listening socket of this name that a service manager, such as
    /// systemd, or a predecessor has passed to this process:
    /// [`Listener::inherited_named`](crate::transport::Listener::inherited_named). Needs the
    /// feature `inherit`, on Unix.
    ///
    /// # Errors
    ///
    /// Fails if there is no such socket, or the configuration cannot work.
    #[cfg(all(unix, feature = "inherit"))]
    pub fn listen_on_inherited(self, name: &str) -> io::Result<Server> {
        self.serve(Listener::inherited_named(name)?)
    }

    /// Like [`listen_on_inherited`](Self::listen_on_inherited) if listening sockets were passed to
    /// this process, else like [`bind`](Self::bind): for programs that are started by hand first,
    /// and then by a predecessor (`Handover`). Needs the feature `inherit`, on Unix.
    ///
    /// # Errors
    ///
    /// Like both. If sockets were passed, but none with this name, it fails rather than to bind.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, nothing listens.
    #[cfg(all(unix, feature = "inherit"))]
    pub async fn inherit_or_bind(self, name: &str, target: impl ToEndpoint) -> io::Result<Server> {
        match Listener::has_inherited()? {
            true => self.listen_on_inherited(name),
            false => self.bind(target).await,
        }
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
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
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
        ConfigError::check_fields("announce", &self.announce)?;
        self.limits.check()
    }

    /// Starts the server on a listener.
    fn serve(self, listener: Listener) -> io::Result<Server> {
        let (local_addr, describe) = (listener.local_addr(), listener.describe());
        let inner = self.with_own_paths().into_inner(&listener)?;
        if let Some(statistics) = &inner.statistics {
            statistics.begin(&inner);
        }
        let end = AcceptEnd(Arc::clone(&inner));
        let accept = tokio::spawn(accept_loop(Accepting { listener, end })).abort_handle();
        // The cell is new, so this sets it.
        let _ = inner.accept.set(accept);
        // Only now, because a shutdown ends that task.
        if let Some(drain) = &inner.remote_drain {
            drain.begin(&inner);
        }
        Ok(Server {
            inner,
            local_addr,
            describe,
        })
    }

    /// Adds the handlers of the paths that the server serves by itself.
    fn with_own_paths(mut self) -> Self {
        if let Some(statistics) = self.statistics.clone() {
            for (path, handler) in statistics.handlers() {
                self = self.route(path, handler);
            }
        }
        if let Some(drain) = self.remote_drain.clone() {
            self = self.route(remote_drain::DRAIN, remote_drain::PathHandler(drain));
        }
        self
    }

    /// Checks the configuration and makes the state of the server of it.
    fn into_inner(self, listener: &Listener) -> io::Result<Arc<Inner>> {
        self.check().map_err(invalid)?;
        if let Some(handler) = &self.fallback_protocol {
            handler.check()?;
        }
        #[cfg(feature = "tls")]
        let tls = checked_tls(self.tls, self.fallback_protocol.as_deref())?;
        let (local_addr, describe) = (listener.local_addr(), listener.describe());
        let registries = self.registries.into_iter().map(|Entry { registry, info }| {
            Ok((registry, advertised(info, local_addr, &describe)?))
        });
        let registries: Vec<_> = registries.collect::<Result<_, _>>().map_err(invalid)?;
        let default_lame_duck = match registries.is_empty() {
            true => Duration::ZERO,
            false => LAME_DUCK,
        };
        #[cfg(all(unix, feature = "inherit"))]
        let socket = Mutex::new(Passable::of(listener)?);
        let handlers = self.handlers.iter();
        let methods = handlers.map(|(path, handler)| (&path[..], handler.rpc_method()));
        let stats = Registry::of_server(methods, self.statistics.is_some());
        let routes = Arc::new(Routes {
            handlers: self.handlers,
            fallback: self.fallback,
            shutting_down: AtomicBool::new(false),
        });
        Ok(Arc::new(Inner {
            routes,
            stats,
            statistics: self.statistics,
            remote_drain: self.remote_drain,
            totals: Totals::new(self.max_running_calls, self.max_total_bytes),
            limits: Arc::new(self.limits),
            announce: Arc::new(self.announce),
            max_connections: self.max_connections,
            max_connection_age: self.max_connection_age.filter(|&age| age < Duration::MAX),
            max_connection_grace: self.max_connection_grace,
            max_connections_per_peer: self
                .max_connections_per_peer
                .unwrap_or(self.max_connections - self.max_connections / SHARES),
            #[cfg(feature = "tls")]
            tls,
            #[cfg(feature = "tls")]
            also_plain: self.also_plain,
            fallback_protocol: self.fallback_protocol,
            extension: self.extension,
            proxy_protocol: self.proxy_protocol,
            on_shutdown: self.on_shutdown,
            readiness: self.readiness,
            registrations: Registrations::start(registries),
            lame_duck: self.lame_duck.unwrap_or(default_lame_duck),
            is_unready: AtomicBool::new(false),
            has_manager: AtomicBool::new(false),
            #[cfg(all(unix, feature = "inherit"))]
            socket,
            logs: Arc::new(Logs::new(self.log)),
            leaving: watch::Sender::new(false),
            accept: OnceLock::new(),
            table: Mutex::new(Table::new()),
            changed: Notify::new(),
        }))
    }
}

fn invalid(error: ConfigError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// Returns the checked configuration of TLS, with the protocols that the handler of other protocols
/// offers.
#[cfg(feature = "tls")]
fn checked_tls(
    tls: Option<ServerTls>,
    fallback: Option<&dyn ProtocolHandler>,
) -> io::Result<Option<ServerTls>> {
    let tls = match (tls, fallback) {
        (Some(tls), Some(handler)) => Some(tls.or_alpn(handler.alpn())),
        (tls, _) => tls,
    };
    if let Some(tls) = &tls {
        tls.check()?;
    }
    Ok(tls)
}
