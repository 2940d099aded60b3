//! How a server behaves.

use std::fmt;
use std::io;
use std::time::Duration;

use iip_core::transport::{Listener, MemoryConnector, ToEndpoint};
use iip_core::{Handler, Level, Limits, ServerConfig};

use super::names::Names;
use super::{Methods, NoMethod, Server, Service};
use crate::codec::DecodeLimits;
use crate::compression::{self, Compression};
use crate::health::{Health, WatchLimits};
use crate::hello::announcement;
use crate::interceptor::{self, Layers, ServerCall, ServerInterceptor};
use crate::limits::TypedLimits;
use crate::method::Concurrency;
use crate::overload::Admission;
use crate::policy::{MethodPolicy, ServerPolicy};

/// What a [`Server`] serves, and how. Made by [`Server::builder`].
#[derive(Debug)]
#[must_use]
pub struct ServerBuilder {
    core: ServerConfig,
    limits: TypedLimits,
    compression: Option<Compression>,
    max_compression_ratio: u32,
    policy: ServerPolicy,
    admission: Admission,
    services: Vec<Register>,
    interceptors: Layers<ServerCall>,
    health: Option<Health>,
    watch_limits: WatchLimits,
}

/// Registers a service once the limits are known.
struct Register {
    type_name: &'static str,
    register: Box<dyn FnOnce(&mut Methods) + Send>,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name)
    }
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            core: iip_core::Server::builder(),
            limits: TypedLimits::default(),
            compression: None,
            max_compression_ratio: compression::MAX_RATIO,
            policy: ServerPolicy::new(),
            admission: Admission::default(),
            services: Vec::new(),
            interceptors: Layers::default(),
            health: None,
            watch_limits: WatchLimits::default(),
        }
    }

    /// Serves `service` beside those added before. A service with the name of another one, or a
    /// method with the path of another one, makes [`bind`](Self::bind) fail.
    pub fn service<S: Service + Send + 'static>(mut self, service: S) -> Self {
        self.services.push(Register {
            type_name: std::any::type_name::<S>(),
            register: Box::new(|methods| service.register(methods)),
        });
        self
    }

    /// Lets `interceptor` see the calls of all services, also of those added before it. Default:
    /// none. The first one added is the outermost; for one service only there is
    /// [`Intercepted`](crate::interceptor::Intercepted). Handlers of [`route`](Self::route) are not
    /// seen.
    pub fn interceptor(mut self, interceptor: impl ServerInterceptor) -> Self {
        self.interceptors.push(interceptor::at_server(interceptor));
        self
    }

    /// Answers those who ask for the health of the server and its services, on `/sys/health/check`
    /// and `/sys/health/watch`. Default: such calls are UNIMPLEMENTED. See [`Health`].
    ///
    /// Limits of calls that run (`max_concurrency`) and interceptors do not concern them: a server
    /// that is busy, or lets in only some, is not ill. [`Server::shutdown`] begins with everything
    /// set to not serving.
    pub fn health(mut self, health: &Health) -> Self {
        self.health = Some(health.clone());
        self
    }

    /// Watches of the health of services (`/sys/health/watch`) at a time, on all connections.
    /// Default: 16,384. Further ones are refused as RESOURCE_EXHAUSTED, not executed. They are not
    /// counted among those of [`max_running_calls`](Self::max_running_calls).
    pub fn max_health_watches(mut self, watches: usize) -> Self {
        self.watch_limits.server = watches;
        self
    }

    /// Like [`max_health_watches`](Self::max_health_watches), on one connection. Default: 64.
    pub fn max_health_watches_per_connection(mut self, watches: usize) -> Self {
        self.watch_limits.connection = watches;
        self
    }

    /// Serves `path` with a handler of raw bytes.
    pub fn route(mut self, path: &str, handler: impl Handler) -> Self {
        self.core = self.core.route(path, handler);
        self
    }

    /// The largest arguments or result, or message of a stream, as encoded, in bytes. Default: 16
    /// MiB, least 1. Beyond it that call fails, naming this option.
    ///
    /// The envelope and metadata do not count, nor do the first 32 bytes beyond it: they are for
    /// the length and a few small fields, so that a `Vec<u8>` of just this size can be sent.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_message_bytes(bytes);
        self
    }

    /// All limits of each connection. Default: those of [`Limits`], with messages up to 16 MiB.
    /// Limits that say nothing of [`max_message_bytes`](Limits::max_message_bytes) leave that as it
    /// is.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = self.limits.with(limits);
        self
    }

    /// Connections at a time, handshakes included. Default: 10,000; 0 is refused.
    ///
    /// Beyond it, a new connection takes the place of one that has not sent a byte of a frame yet,
    /// of the address that has most of them or for more than a second. If there is none, the new
    /// one is closed as it is accepted.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.core = self.core.max_connections(connections);
        self
    }

    /// Connections at a time from one IPv4 address or one IPv6 network of 64 bits. Default: 15 of
    /// 16 of [`max_connections`](Self::max_connections), so that no single one keeps all others
    /// out; 0 is refused.
    ///
    /// Beyond it, a new connection takes the place of one of the same address that has not sent a
    /// byte of a frame for a second. If there is none, the new one is closed as it is accepted.
    pub fn max_connections_per_peer(mut self, connections: usize) -> Self {
        self.core = self.core.max_connections_per_peer(connections);
        self
    }

    /// How long a connection lives, a tenth more or less, so that clients spread anew over servers
    /// that have come. Default: for ever, as [`Duration::MAX`]; less than a millisecond is refused.
    /// Then its client makes another for further calls, and the calls under way get
    /// [`max_connection_grace`](Self::max_connection_grace) to end.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.core = self.core.max_connection_age(age);
        self
    }

    /// How long the calls on a connection that has reached its age may still take. Default: 30 s.
    /// Beyond: it is closed. Zero closes it at once, and [`Duration::MAX`] never.
    pub fn max_connection_grace(mut self, grace: Duration) -> Self {
        self.core = self.core.max_connection_grace(grace);
        self
    }

    /// Handlers at a time that had to wait, on all connections. Default: 65,536; 0 is refused.
    /// Further calls are refused, not run. While there are others, a connection, and all
    /// connections of one IP address, may run four times as many as are left of them.
    pub fn max_running_calls(mut self, calls: usize) -> Self {
        self.core = self.core.max_running_calls(calls);
        self
    }

    /// Bytes that the calls of all connections hold together, where [`Limits::max_buffered_bytes`]
    /// is what those of one may hold. Default: 1 GiB. A connection may hold what is left of them,
    /// and 64 KiB in any case; one that holds more is not read until others let go.
    pub fn max_total_buffered_bytes(mut self, bytes: usize) -> Self {
        self.core = self.core.max_total_buffered_bytes(bytes);
        self
    }

    /// Calls of all methods that run at a time, on all connections, or [`Concurrency::Auto`]: the
    /// server finds out how many it can do. Default: no limit beside
    /// [`max_running_calls`](Self::max_running_calls) and those of the connections.
    ///
    /// Further calls are refused as RESOURCE_EXHAUSTED before their arguments are looked at, not
    /// executed, with a hint to come again after 100 ms; clients do so by themselves, see
    /// [`RetryPolicy`](crate::RetryPolicy). Which calls are refused first is a matter of their
    /// [`Priority`](crate::Priority). What the connection answers itself (`/sys/` paths), and
    /// handlers of [`route`](Self::route), are not counted and never refused here.
    pub fn max_concurrency(mut self, calls: Concurrency) -> Self {
        self.admission.set_server(calls);
        self
    }

    /// Calls of all methods of one service that run at a time; `service` is its name: that of its
    /// trait, unless `#[service(name = "..")]` gives it another. Default: no limit. Further calls
    /// are refused, as by [`max_concurrency`](Self::max_concurrency). A name that no service has
    /// makes [`bind`](Self::bind) fail.
    pub fn service_max_concurrency(mut self, service: &str, calls: Concurrency) -> Self {
        self.admission.set_service(service, calls);
        self
    }

    /// How calls of the method with this path are served, such as `/greeter/hello`, in place of
    /// what its attributes say. The last one set for a path holds. A path that no method of a
    /// service has makes [`bind`](Self::bind) fail.
    pub fn method_policy(mut self, path: &str, policy: MethodPolicy) -> Self {
        self.admission.set_method(path, policy);
        self
    }

    /// How much time calls have, whatever their callers say. Default: what the callers say.
    pub fn policy(mut self, policy: ServerPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Compresses values, errors of methods and the messages of streams for clients that can read
    /// it. Default: nothing is compressed. For single methods there is
    /// [`method_policy`](Self::method_policy).
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Self {
        self.compression = compression.into();
        self
    }

    /// How many times as large as its compressed form a request or a message of a stream may be.
    /// Default: 1000, least 1. Beyond it that call is not run, naming this option. Clients are
    /// told, and send what would be beyond it as it is.
    pub fn max_compression_ratio(mut self, ratio: u32) -> Self {
        self.max_compression_ratio = ratio.max(1);
        self
    }

    /// The level at which failures of methods are logged that whoever runs the server should know
    /// of: those with the code UNKNOWN, INTERNAL or DATA_LOSS, and those with a cause
    /// ([`Status::with_source`](crate::Status::with_source)), which is logged with them and told
    /// nobody else. Other failures, errors of the methods' own among them, have level DEBUG.
    /// Default: [`Level::WARN`]. `None`: no failure is logged.
    ///
    /// Panics are always logged, as ERROR, and failures of one-way calls, which nobody else hears
    /// of, as WARN.
    pub fn log_failures(mut self, level: impl Into<Option<Level>>) -> Self {
        self.core = self.core.log_failures(level);
        self
    }

    /// How many lines the server logs in a minute at most, of each kind, of what its peers can
    /// cause or repeat: failures of methods, panics, failures of one-way calls, connections of
    /// other protocols. Default: 100. The next line says how many were left out. 0: none of these.
    pub fn max_log_lines(mut self, per_minute: u32) -> Self {
        self.core = self.core.max_log_lines(per_minute);
        self
    }

    /// Speaks TLS, and nothing else. Default: plain. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: iip_core::tls::ServerTls) -> Self {
        self.core = self.core.tls(tls);
        self
    }

    /// Listens and serves on `host:port`, `unix:/path`, `unix:@name` or a
    /// [`SocketAddr`](std::net::SocketAddr); port 0 lets the system choose, see
    /// [`Server::local_addr`].
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the configuration cannot work: two methods with one
    /// path, for example.
    ///
    /// # Cancel safety
    ///
    /// When dropped before it is ready, nothing listens.
    pub async fn bind(self, target: impl ToEndpoint) -> io::Result<Server> {
        let core = self.core()?.bind(target).await?;
        Ok(Server { core })
    }

    /// Serves on what listens already: tokio's `TcpListener` or `UnixListener`, or any
    /// [`Listener`]. Sockets of the standard library, such as those that a service manager hands
    /// over, become tokio's by `from_std`.
    ///
    /// # Errors
    ///
    /// The configuration cannot work.
    pub fn listen_on(self, listener: impl Into<Listener>) -> io::Result<Server> {
        let core = self.core()?.listen_on(listener)?;
        Ok(Server { core })
    }

    /// Serves in memory, for tests; see
    /// [`ClientBuilder::connect_with`](crate::ClientBuilder::connect_with).
    ///
    /// # Errors
    ///
    /// The configuration cannot work.
    pub fn in_memory(self) -> io::Result<(Server, MemoryConnector)> {
        let (core, connector) = self.core()?.in_memory()?;
        Ok((Server { core }, connector))
    }

    /// The server below.
    fn core(self) -> io::Result<ServerConfig> {
        let limits = DecodeLimits::of_calls(self.limits.message_bytes())
            .max_compression_ratio(self.max_compression_ratio);
        let mut methods = Methods {
            handlers: Vec::new(),
            limits,
            compression: self.compression,
            policy: self.policy,
            admission: self.admission,
            interceptors: self.interceptors,
            services: Vec::new(),
            places: None,
        };
        let mut names = Names::default();
        for Register {
            type_name,
            register,
        } in self.services
        {
            register(&mut methods);
            names.add(std::mem::take(&mut methods.services), type_name);
        }
        let taken = names.taken_twice().or_else(|| methods.path_taken_twice());
        if let Some(problem) = taken {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        if let Some(health) = &self.health {
            health.serves(names.all());
            methods.interceptors = Layers::default();
            health.register(&mut methods, self.watch_limits);
        }
        let problem = methods.admission.problem();
        if let Some(problem) = problem.or_else(|| self.policy.problem()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let core = self
            .core
            .limits(self.limits.of_connection())
            .announce(announcement(self.max_compression_ratio))
            .fallback(NoMethod::beside(&methods.handlers));
        let handlers = methods.handlers.into_iter();
        let core = handlers.fold(core, |core, (method, handler)| {
            core.route_shared(method.path(), handler)
        });
        Ok(match self.health {
            None => core,
            Some(health) => core.on_shutdown(move || health.shut_down()),
        })
    }
}
