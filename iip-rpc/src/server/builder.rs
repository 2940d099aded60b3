//! Configuration of a server.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use iip_core::balance::BackendInfo;
use iip_core::transport::{Listener, MemoryConnector, ProxyProtocol, ToEndpoint};
use iip_core::{Handler, Level, Limits, Peer, ProtocolHandler};

use super::names::Names;
use super::no_method::NoMethod;
use super::{Methods, Server, Service};
use crate::codec::DecodeLimits;
use crate::compression::Compression;
use crate::context::CallContext;
use crate::health::{Health, HealthState, WatchLimits};
use crate::hello::announcement;
use crate::interceptor::{Layers, ServerCall, ServerInterceptor};
use crate::limits::TypedLimits;
use crate::method::Concurrency;
use crate::overload::Admission;
use crate::policy::{MethodPolicy, ServerPolicy};
use crate::schema::served::{Access, Served};
use crate::status::Status;

/// Configuration of a [`Server`] and the services that it serves. Created by [`Server::builder`].
#[derive(Debug)]
#[must_use]
pub struct ServerBuilder {
    core: iip_core::ServerBuilder,
    limits: TypedLimits,
    compression: Option<Compression>,
    max_compression_ratio: u32,
    policy: ServerPolicy,
    admission: Admission,
    services: Vec<Register>,
    interceptors: Layers<ServerCall>,
    health: Option<Health>,
    watch_limits: WatchLimits,
    access: Access,
    has_fallback_protocol: bool,
}

/// A service to be registered once the limits are known.
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
            max_compression_ratio: DecodeLimits::MAX_COMPRESSION_RATIO,
            policy: ServerPolicy::new(),
            admission: Admission::default(),
            services: Vec::new(),
            interceptors: Layers::default(),
            health: None,
            watch_limits: WatchLimits::default(),
            access: Access::default(),
            has_fallback_protocol: false,
        }
    }

    /// Adds a service to those added before. A service with the name of another one, or a method
    /// with the path of another one, makes [`bind`](Self::bind) fail.
    pub fn service<S: Service + Send + 'static>(mut self, service: S) -> Self {
        self.services.push(Register {
            type_name: std::any::type_name::<S>(),
            register: Box::new(|methods| service.register(methods)),
        });
        self
    }

    /// Adds an interceptor that sees the calls of all services, including those added before it.
    /// Default: none. The first one added is the outermost; for a single service use
    /// [`Intercepted`](crate::interceptor::Intercepted). Calls to handlers of
    /// [`route`](Self::route) are not intercepted.
    pub fn interceptor(mut self, interceptor: impl ServerInterceptor) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// Serves the health of the server and its services, on `/sys/health/check` and
    /// `/sys/health/watch`. Default: such calls are UNIMPLEMENTED. See [`Health`].
    ///
    /// Limits on running calls (`max_concurrency`) and interceptors do not apply to them: a server
    /// that is busy, or admits only some callers, is not unhealthy. [`Server::shutdown`] begins by
    /// setting everything to not serving.
    pub fn health(mut self, health: &Health) -> Self {
        self.health = Some(health.clone());
        self
    }

    /// Sets the maximum number of concurrent watches of the health of services
    /// (`/sys/health/watch`), on all connections. Default: 16,384. Further ones are rejected as
    /// RESOURCE_EXHAUSTED, not executed. They do not count towards
    /// [`max_running_calls`](Self::max_running_calls).
    pub fn max_health_watches(mut self, watches: usize) -> Self {
        self.watch_limits.server = watches;
        self
    }

    /// Like [`max_health_watches`](Self::max_health_watches), but on one connection. Default: 64.
    pub fn max_health_watches_per_connection(mut self, watches: usize) -> Self {
        self.watch_limits.connection = watches;
        self
    }

    /// Serves `path` with a handler of raw bytes.
    pub fn route(mut self, path: &str, handler: impl Handler) -> Self {
        self.core = self.core.route(path, handler);
        self
    }

    /// Sets the maximum size of the arguments, the result, or a message of a stream, as encoded, in
    /// bytes. Default: 16 MiB, minimum 1. A larger one fails its call, with an error that names
    /// this option.
    ///
    /// The envelope and metadata do not count, nor do the first 32 bytes beyond the limit: they are
    /// for the length and a few small fields, so that a `Vec<u8>` of exactly this size can be sent.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_message_bytes(bytes);
        self
    }

    /// Sets all limits of each connection. Default: those of [`Limits`], with messages up to 16
    /// MiB. Limits without [`max_message_bytes`](Limits::max_message_bytes) keep the current value
    /// of it.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = self.limits.with(limits);
        self
    }

    /// Sets the maximum number of concurrent connections, including handshakes. Default: 10,000; 0
    /// is rejected.
    ///
    /// Beyond it, a new connection replaces one that has not sent a byte of a frame yet, and that
    /// either belongs to the address with most of them or has been open for more than a second. If
    /// there is none, the new connection is closed as it is accepted.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.core = self.core.max_connections(connections);
        self
    }

    /// Sets the maximum number of concurrent connections from one IPv4 address or one IPv6 network
    /// of 64 bits. Default: 15 of 16 of [`max_connections`](Self::max_connections), so that no
    /// single address keeps all others out; 0 is rejected.
    ///
    /// Beyond it, a new connection replaces one of the same address that has not sent a byte of a
    /// frame for a second. If there is none, the new connection is closed as it is accepted.
    pub fn max_connections_per_peer(mut self, connections: usize) -> Self {
        self.core = self.core.max_connections_per_peer(connections);
        self
    }

    /// Sets the maximum age of a connection, plus or minus a tenth, so that clients spread over
    /// newly added servers. Default: no limit, like [`Duration::MAX`]; less than a millisecond is
    /// rejected. At that age its client opens another connection for further calls, and the running
    /// calls get [`max_connection_grace`](Self::max_connection_grace) to end.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.core = self.core.max_connection_age(age);
        self
    }

    /// Sets how long the calls on a connection that has reached its maximum age may still take.
    /// Default: 30 s. After that it is closed. Zero closes it at once, and [`Duration::MAX`] never.
    pub fn max_connection_grace(mut self, grace: Duration) -> Self {
        self.core = self.core.max_connection_grace(grace);
        self
    }

    /// Expects a header of the PROXY protocol, version 2, from the listed proxies, before TLS.
    /// Default: from nobody. The address in it is then that of the peer everywhere:
    /// [`CallContext::peer`](crate::CallContext::peer), the limits per address, and logs. A
    /// connection without an address in its header, such as a check of the proxy itself, keeps that
    /// of the proxy.
    ///
    /// A listed peer whose connection does not begin with a header is disconnected and logged like
    /// one of another protocol. The header may take
    /// [`Limits::frame_head_timeout`](Limits::frame_head_timeout) and at most 4 KiB.
    pub fn proxy_protocol(mut self, proxies: ProxyProtocol) -> Self {
        self.core = self.core.proxy_protocol(proxies);
        self
    }

    /// Lets several processes of one user listen on the same TCP port (`SO_REUSEPORT`). Default:
    /// `false`; fails on systems without it. Only [`bind`](Self::bind) uses it.
    ///
    /// It is no means for restarts: the connections that a process has not accepted when it ends
    /// are lost. Pass the listening socket on instead (feature `inherit`). A second server that is
    /// started by mistake is not noticed either.
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.core = self.core.reuse_port(reuse);
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
    /// the server starts nevertheless, logs a warning, and tries again with growing pauses of up to
    /// 30 s; [`Server::registered`] waits for it. A [shutdown](Server::shutdown) begins with the
    /// removal.
    pub fn register(
        mut self,
        registry: impl iip_core::discover::Register,
        info: impl Into<Option<BackendInfo>>,
    ) -> Self {
        self.core = self.core.register(registry, info);
        self
    }

    /// Sets how long a server that is shut down still accepts and serves after it has been removed
    /// from its registries, so that clients and load balancers can learn of it. Default: 5 s with
    /// [`register`](Self::register), otherwise zero. At most half of the limit of the
    /// [shutdown](Server::shutdown), less the time that the removal took.
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.core = self.core.lame_duck(time);
        self
    }

    /// Adds a condition for the server to be [ready](Server::is_ready), such as a connection to the
    /// database. It is evaluated on every check, so it should be quick and must not block. Default:
    /// none; with several, all must hold. With [`health`](Self::health), a condition is that the
    /// server as a whole is serving.
    pub fn readiness(mut self, check: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.core = self.core.readiness(check);
        self
    }

    /// Serves connections of other protocols on the same port, such as HTTP by the `Http` of
    /// iip-gateway: those whose first bytes are not IIP. Default: they are closed, and logged with
    /// the protocol that they seem to speak; so are those that the handler does not accept.
    ///
    /// With a handler, the first byte of every connection must arrive within
    /// [`Limits::frame_head_timeout`](Limits::frame_head_timeout). With `tls`, the other protocols
    /// need TLS like IIP.
    pub fn fallback_protocol(mut self, handler: impl ProtocolHandler) -> Self {
        self.core = self.core.fallback_protocol(handler);
        self.has_fallback_protocol = true;
        self
    }

    /// Sets the maximum number of concurrent handlers that had to wait, on all connections.
    /// Default: 65,536; 0 is rejected. Further calls are rejected, not run. A connection, while
    /// there are others, and all connections of one IP address, while there are other addresses,
    /// may run at most four times the number of calls that is left.
    pub fn max_running_calls(mut self, calls: usize) -> Self {
        self.core = self.core.max_running_calls(calls);
        self
    }

    /// Sets the maximum number of bytes that the calls of all connections hold together;
    /// [`Limits::max_buffered_bytes`] is the limit of one connection. Default: 1 GiB. A connection
    /// may hold what is left of them, and 64 KiB in any case; one that holds more is not read until
    /// others release bytes.
    pub fn max_total_buffered_bytes(mut self, bytes: usize) -> Self {
        self.core = self.core.max_total_buffered_bytes(bytes);
        self
    }

    /// Sets whether the server describes its services to whoever asks: names, types and
    /// documentation, on paths under `/sys/schema/`. Default: `true`. With `false` it announces no
    /// fingerprint either, and clients do not compare their methods with its own, see
    /// [`SchemaCheck`](crate::schema::SchemaCheck).
    pub fn describe(mut self, describe: bool) -> Self {
        self.access = if describe {
            Access::Everyone
        } else {
            Access::Nobody
        };
        self
    }

    /// Describes the services of the server to those callers that `check` accepts: to peers with a
    /// client certificate, for example. Default: to everyone. Others get the status that `check`
    /// returns, and their calls are made without a comparison. The fingerprints of the services,
    /// which tell nothing but whether two builds are equal, are for everyone.
    pub fn describe_if(
        mut self,
        check: impl Fn(&CallContext) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        self.access = Access::If(Arc::new(check));
        self
    }

    /// Sets the maximum number of concurrent calls of all methods, on all connections; with
    /// [`Concurrency::Auto`] the server determines it. Default: no limit other than
    /// [`max_running_calls`](Self::max_running_calls) and those of the connections.
    ///
    /// Further calls are rejected as RESOURCE_EXHAUSTED before their arguments are read, not
    /// executed, with a hint to retry after 100 ms; clients do so automatically, see
    /// [`RetryPolicy`](crate::RetryPolicy). [`Priority`](crate::Priority) determines which calls
    /// are rejected first. Requests that the connection handles itself (`/sys/` paths), and
    /// handlers of [`route`](Self::route), are not counted and never rejected by this limit.
    pub fn max_concurrency(mut self, calls: Concurrency) -> Self {
        self.admission.set_server(calls);
        self
    }

    /// Sets the maximum number of concurrent calls of all methods of one service; `service` is its
    /// name: that of its trait, unless `#[service(name = "..")]` sets another. Default: no limit.
    /// Further calls are rejected, as with [`max_concurrency`](Self::max_concurrency). An unknown
    /// service name makes [`bind`](Self::bind) fail.
    pub fn service_max_concurrency(mut self, service: &str, calls: Concurrency) -> Self {
        self.admission.set_service(service, calls);
        self
    }

    /// Sets how calls of the method with this path, such as `/greeter/hello`, are served,
    /// overriding its attributes. The last policy set for a path applies. A path without a method
    /// makes [`bind`](Self::bind) fail.
    pub fn method_policy(mut self, path: &str, policy: MethodPolicy) -> Self {
        self.admission.set_method(path, policy);
        self
    }

    /// Limits the time of calls, whatever their callers set. Default: no limits.
    pub fn policy(mut self, policy: ServerPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Compresses values, errors of methods and the messages of streams for clients that can
    /// decompress them. Default: no compression. For single methods use
    /// [`method_policy`](Self::method_policy).
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Self {
        self.compression = compression.into();
        self
    }

    /// Sets the maximum ratio of the size of a request or a message of a stream to its compressed
    /// size. Default: 1000, minimum 1. Beyond it the call is not run and fails with an error that
    /// names this option. Clients know the limit, and send what would exceed it uncompressed.
    pub fn max_compression_ratio(mut self, ratio: u32) -> Self {
        self.max_compression_ratio = ratio.max(1);
        self
    }

    /// Sets the level at which failures of methods are logged that the server's operator should
    /// know of: those with the code UNKNOWN, INTERNAL or DATA_LOSS, and those with a cause
    /// ([`Status::with_source`](crate::Status::with_source)), which is logged with them and not
    /// sent to anyone. Other failures, including errors of the methods' own types, have the level
    /// DEBUG. Default: [`Level::WARN`]. `None`: no failure is logged.
    ///
    /// Panics are always logged, as ERROR, and failures of one-way calls, which no caller sees, as
    /// WARN.
    pub fn log_failures(mut self, level: impl Into<Option<Level>>) -> Self {
        self.core = self.core.log_failures(level);
        self
    }

    /// Serves the statistics paths of a Go server, such as `/sys/server_count`, and on
    /// `/sys/snapshot` what `iq top` shows, to the peers for which `may_read` returns `true`:
    /// statistics name paths and the addresses of clients. Default: to nobody. Other peers get the
    /// reply to an unknown path. See [`iip_core::ServerBuilder::statistics`] for what it costs.
    pub fn statistics(mut self, may_read: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.core = self.core.statistics(may_read);
        self
    }

    /// Lets the peers for which `may_drain` returns `true` end the server: a request on the path
    /// `/sys/drain`, as `iq drain` sends it, begins a [shutdown](Server::shutdown) with this
    /// `limit`. Default: nobody may, and there is no such path. Peers that may not get the code
    /// PERMISSION_DENIED. See [`iip_core::ServerBuilder::drain_on_request`].
    pub fn drain_on_request(
        mut self,
        limit: Duration,
        may_drain: impl Fn(&Peer) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.core = self.core.drain_on_request(limit, may_drain);
        self
    }

    /// Sets the maximum number of log lines per minute of each kind that peers can cause or repeat:
    /// failures of methods, panics, failures of one-way calls, connections of other protocols.
    /// Default: 100. The next line contains the number of omitted lines. 0: none of these are
    /// logged.
    pub fn max_log_lines(mut self, per_minute: u32) -> Self {
        self.core = self.core.max_log_lines(per_minute);
        self
    }

    /// Enables TLS, and accepts nothing else, unless [`also_plain`](Self::also_plain) is set.
    /// Default: plain. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: iip_core::tls::ServerTls) -> Self {
        self.core = self.core.tls(tls);
        self
    }

    /// Accepts connections without TLS on the same port too, for example until the last client uses
    /// TLS. Default: no. Without [`tls`](Self::tls) it has no effect. Needs the feature `tls`.
    ///
    /// The first byte of every connection must then arrive within
    /// [`Limits::frame_head_timeout`](Limits::frame_head_timeout).
    #[cfg(feature = "tls")]
    pub fn also_plain(mut self, also_plain: bool) -> Self {
        self.core = self.core.also_plain(also_plain);
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
    /// If the future is dropped before it is ready, nothing listens.
    pub async fn bind(self, target: impl ToEndpoint) -> io::Result<Server> {
        let core = self.core()?.bind(target).await?;
        Ok(Server { core })
    }

    /// Serves on an existing listener: tokio's `TcpListener` or `UnixListener`, or any
    /// [`Listener`]. Sockets of the standard library become tokio's by `from_std`; for those that a
    /// service manager passes on see `listen_on_inherited`.
    ///
    /// # Errors
    ///
    /// The configuration cannot work.
    pub fn listen_on(self, listener: impl Into<Listener>) -> io::Result<Server> {
        let core = self.core()?.listen_on(listener)?;
        Ok(Server { core })
    }

    /// Serves on the listening socket of this name that a service manager, such as systemd, or a
    /// predecessor has passed to this process; see
    /// [`Listener::inherited_named`]. Needs the feature `inherit`, on Unix.
    ///
    /// # Errors
    ///
    /// There is no such socket, or the configuration cannot work.
    #[cfg(all(unix, feature = "inherit"))]
    pub fn listen_on_inherited(self, name: &str) -> io::Result<Server> {
        let core = self.core()?.listen_on_inherited(name)?;
        Ok(Server { core })
    }

    /// Like [`listen_on_inherited`](Self::listen_on_inherited) if listening sockets were passed to
    /// this process, else like [`bind`](Self::bind): for programs that are started by hand first,
    /// and then by a predecessor ([`Handover`](crate::Handover)). Needs the feature `inherit`, on
    /// Unix.
    ///
    /// # Errors
    ///
    /// Like both. If sockets were passed, but none with this name, it does not bind.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, nothing listens.
    #[cfg(all(unix, feature = "inherit"))]
    pub async fn inherit_or_bind(self, name: &str, target: impl ToEndpoint) -> io::Result<Server> {
        let core = self.core()?.inherit_or_bind(name, target).await?;
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

    /// Builds the configuration of the underlying server.
    fn core(self) -> io::Result<iip_core::ServerBuilder> {
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
        let served = match self.access {
            Access::Nobody if !self.has_fallback_protocol => None,
            access => Served::new(&methods, access),
        };
        let public = served.as_ref().filter(|served| !served.is_private());
        let build = public.map(|served| served.announced());
        if let Some(served) = public {
            methods.interceptors = Layers::default();
            served.register(&mut methods);
        }
        let problem = methods.admission.problem();
        if let Some(problem) = problem.or_else(|| self.policy.problem()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let core = self
            .core
            .limits(self.limits.of_connection())
            .announce(announcement(self.max_compression_ratio, build))
            .fallback(NoMethod::beside(&methods.handlers));
        let core = match served {
            Some(served) if self.has_fallback_protocol => core.extension(served),
            _ => core,
        };
        let handlers = methods.handlers.into_iter();
        let core = handlers.fold(core, |core, (method, handler)| {
            core.route_shared(method.path(), handler)
        });
        Ok(match self.health {
            None => core,
            Some(health) => {
                let whole = health.clone();
                core.readiness(move || whole.state("") == Some(HealthState::Serving))
                    .on_shutdown(move || health.shut_down())
            }
        })
    }
}
