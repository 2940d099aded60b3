//! Groups of backends, and the clients for them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderName;
#[cfg(feature = "etcd")]
use iip_core::balance::Target;
use iip_core::balance::{BalanceOptions, Policy};
#[cfg(feature = "tls")]
use iip_core::tls::ClientTls;
use iip_core::{CallError, Client, ClientBuilder, Limits};
use serde_json::json;
use tokio::time::Instant;

use crate::typed::{Api, TypedOptions};

/// The number of requests after which a group detects the dialect of its backends again.
const LOOK_AGAIN: u32 = 1024;

/// Maximum size of the replies of a connection that clients have not received yet.
const REPLY_BYTES: usize = 256 << 20;

/// The dialect that the backends of a group understand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// Detected for each connection: servers of this project reply to a hello, Go servers do not.
    #[default]
    Auto,
    /// Requests and replies of Go's HTTP adapter, without a hello.
    Go,
}

/// The value that is hashed to choose a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HashKey {
    Client,
    Header(HeaderName),
}

type Configure = dyn Fn(ClientBuilder) -> Result<Client, CallError> + Send + Sync;

/// A group of backends that serve the same paths.
///
/// Each worker of a gateway, one per runtime in which it serves, has its own connections to them.
/// Defaults: requests are passed on; one connection per backend; the backend with the fewest calls
/// in flight is picked; timeout of 10 s.
///
/// ```
/// use std::time::Duration;
/// use iip_core::balance::Policy;
/// use iip_gateway::Group;
///
/// Group::new("dns://users.:7000").policy(Policy::P2c).timeout(Duration::from_secs(2));
/// ```
#[derive(Clone)]
pub struct Group {
    target: String,
    /// `None` for the default of the kind of the group.
    policy: Option<Policy>,
    connections: usize,
    timeout: Duration,
    connect_timeout: Duration,
    pub(crate) dialect: Dialect,
    pub(crate) hash_key: Option<HashKey>,
    #[cfg(feature = "tls")]
    tls: Option<ClientTls>,
    pub(crate) reserved_paths: bool,
    typed: Option<TypedOptions>,
    connect: Option<Arc<Configure>>,
}

impl Group {
    /// Creates a group of the backends of a target, such as `10.0.0.1:7000`,
    /// `static:10.0.0.1:7000,10.0.0.2:7000`, `file:///etc/iip/users.toml` or `dns://users.:7000`;
    /// see [`Target`] for all forms. With the feature `etcd` also
    /// `etcd://10.0.0.1:2379/services/users`.
    #[must_use]
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            policy: None,
            connections: 1,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            dialect: Dialect::Auto,
            hash_key: None,
            #[cfg(feature = "tls")]
            tls: None,
            reserved_paths: false,
            typed: None,
            connect: None,
        }
    }

    /// Sets how a backend is picked for each request. Default: the one with the fewest calls in
    /// flight; for [typed](Self::typed) services the better of two random ones by latency, load and
    /// failures.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the number of connections of each worker to each backend. Default: 1.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Passes on requests for paths under `/sys/`, which belong to the protocol: statistics,
    /// health, descriptions, and `/sys/drain`. To the backends, the gateway is the peer, so its
    /// permissions apply to all clients. Default: no; such requests get status 404.
    #[must_use]
    pub fn reserved_paths(mut self, passes: bool) -> Self {
        self.reserved_paths = passes;
        self
    }

    /// Sets the timeout of a call, including connecting. Default: 10 s. After it, the client gets
    /// status 504. Receiving the body of the request does not count.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the timeout of an attempt to connect. Default: 3 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the dialect of the backends. Default: [`Dialect::Auto`]. All backends of a group must
    /// have the same one.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Makes the address of the client the key of policies that hash, such as
    /// [`Policy::RingHash`]. Default: requests have no key.
    #[must_use]
    pub fn hash_client(mut self) -> Self {
        self.hash_key = Some(HashKey::Client);
        self
    }

    /// Makes the value of a header the key of policies that hash. Requests without the header have
    /// no key. A name that is not valid for headers never matches.
    #[must_use]
    pub fn hash_header(mut self, name: &str) -> Self {
        self.hash_key = name.parse().ok().map(HashKey::Header);
        self
    }

    /// Encrypts the connections to the backends.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Creates the clients of the group with a function, instead of from its target: for a custom
    /// source of backends, or for other client options. The function gets a builder with the
    /// options of the group, and is called once for each worker; it should not connect yet
    /// ([`ClientBuilder::discover_lazy`]).
    #[must_use]
    pub fn connect_by(
        mut self,
        connect: impl Fn(ClientBuilder) -> Result<Client, CallError> + Send + Sync + 'static,
    ) -> Self {
        self.connect = Some(Arc::new(connect));
        self
    }

    /// Serves typed services: requests call methods with JSON, instead of being passed on. The
    /// backends must be servers of this project that describe their services; the
    /// [dialect](Self::dialect) does not matter. Default: requests are passed on.
    #[must_use]
    pub fn typed(mut self, options: TypedOptions) -> Self {
        self.typed = Some(options);
        self
    }

    /// Creates the client for a worker. It connects with its first call.
    fn client(&self) -> Result<Client, String> {
        // Messages keep their default limit: the gateway has its own limit for bodies, and a Go
        // server may send 16 MiB.
        let limits = Limits::default().max_buffered_bytes(REPLY_BYTES);
        let mut builder = Client::builder().timeout(self.timeout).limits(limits);
        if self.dialect == Dialect::Auto {
            builder = builder.hello(json!({}));
        }
        let client = self.connect(builder);
        client.map_err(|error| error.kind().to_string())
    }

    /// Creates the client of typed calls for a worker. It connects with its first call.
    fn typed_client(&self) -> Result<iip_rpc::Client, String> {
        let builder = iip_rpc::Client::builder().timeout(self.timeout);
        let client = builder.connect_by(|core| self.connect(core));
        client.map_err(|status| status.message().to_owned())
    }

    /// Creates a client with the options that both kinds of groups have.
    fn connect(&self, builder: ClientBuilder) -> Result<Client, CallError> {
        let mut balance = BalanceOptions::new();
        match &self.policy {
            Some(policy) => balance = balance.policy(policy.clone()),
            None if self.typed.is_none() => balance = balance.policy(Policy::LeastPending),
            None => {}
        }
        let builder = builder
            .connections(self.connections)
            .connect_timeout(self.connect_timeout)
            .balance(balance);
        #[cfg(feature = "tls")]
        let builder = match &self.tls {
            Some(tls) => builder.tls(tls.clone()),
            None => builder,
        };
        if let Some(connect) = &self.connect {
            return connect(builder);
        }
        #[cfg(feature = "etcd")]
        if let Ok(target @ Target::Etcd { .. }) = self.target.parse() {
            let etcd = iip_discovery_etcd::Etcd::builder().target(&target).build();
            return match etcd {
                Ok(etcd) => builder.discover_lazy(etcd),
                // The error of the target explains the mistake without its source.
                Err(_) => builder.connect_lazy(target),
            };
        }
        builder.connect_lazy(self.target.as_str())
    }

    /// Returns the key that chooses the backend of a request, for policies that hash.
    pub(crate) fn hash_key_of(
        &self,
        client: Option<SocketAddr>,
        headers: &HeaderMap,
    ) -> Option<Vec<u8>> {
        match self.hash_key.as_ref()? {
            HashKey::Client => Some(client?.ip().to_canonical().to_string().into_bytes()),
            HashKey::Header(name) => Some(headers.get(name)?.as_bytes().to_vec()),
        }
    }

    /// Returns `true` if this group can use the clients of the other one.
    pub(crate) fn connects_like(&self, other: &Self) -> bool {
        #[cfg(feature = "tls")]
        if self.tls.is_some() || other.tls.is_some() {
            return false;
        }
        let settings = |group: &Self| {
            (
                group.target.clone(),
                group.connections,
                group.timeout,
                group.connect_timeout,
                group.dialect,
            )
        };
        let connect = match (&self.connect, &other.connect) {
            (None, None) => true,
            (Some(this), Some(other)) => Arc::ptr_eq(this, other),
            _ => false,
        };
        connect
            && self.policy == other.policy
            && self.typed.is_some() == other.typed.is_some()
            && settings(self) == settings(other)
    }

    /// Returns the first invalid option.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.typed {
            None => self.client().map(drop),
            Some(options) => {
                let checked = options.check();
                checked.map_err(|reason| format!("typed: {reason}"))?;
                self.typed_client().map(drop)
            }
        }
    }

    /// Returns the timeout of calls.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.timeout
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("target", &self.target)
            .field("policy", &self.policy)
            .field("dialect", &self.dialect)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The backends of a group, for one worker.
#[derive(Debug)]
pub(crate) enum Backends {
    Raw(RawBackends),
    Typed(TypedBackends),
}

impl Backends {
    /// Creates the client of a group, or reuses that of `before` if its settings are unchanged.
    pub(crate) fn new(group: &Group, before: Option<&Self>) -> Result<Self, String> {
        let before = before.filter(|before| before.group().connects_like(group));
        Ok(match (&group.typed, before) {
            (None, Some(Self::Raw(before))) => {
                Self::Raw(RawBackends::new(group.clone(), before.client.clone()))
            }
            (None, _) => Self::Raw(RawBackends::new(group.clone(), group.client()?)),
            (Some(options), Some(Self::Typed(before))) => Self::Typed(TypedBackends {
                group: group.clone(),
                api: before.api.with_options(options.clone()),
            }),
            (Some(options), _) => Self::Typed(TypedBackends {
                group: group.clone(),
                api: Api::new(group.typed_client()?, options.clone()),
            }),
        })
    }

    pub(crate) fn client(&self) -> &Client {
        match self {
            Self::Raw(backends) => &backends.client,
            Self::Typed(backends) => backends.api.client().raw(),
        }
    }

    fn group(&self) -> &Group {
        match self {
            Self::Raw(backends) => &backends.group,
            Self::Typed(backends) => &backends.group,
        }
    }
}

/// The backends of a group of typed services.
#[derive(Debug)]
pub(crate) struct TypedBackends {
    pub(crate) group: Group,
    pub(crate) api: Api,
}

/// The backends of a group to which requests are passed on.
#[derive(Debug)]
pub(crate) struct RawBackends {
    pub(crate) client: Client,
    pub(crate) group: Group,
    /// Number of requests left until the next detection; the highest bit is set if the backends
    /// reply to hellos.
    look: AtomicU32,
}

const IS_OURS: u32 = 1 << 31;

impl RawBackends {
    fn new(group: Group, client: Client) -> Self {
        Self {
            client,
            group,
            look: AtomicU32::new(0),
        }
    }

    /// Returns `true` if the backends are servers of this project. Waits for a connection if this
    /// is not known yet. Without a connection, the result does not matter.
    pub(crate) async fn are_ours(&self) -> bool {
        if self.group.dialect == Dialect::Go {
            return false;
        }
        let look = self.look.load(Ordering::Relaxed);
        if look & !IS_OURS > 0 {
            self.look.store(look - 1, Ordering::Relaxed);
            return look & IS_OURS > 0;
        }
        let connection = match self.client.ready_connection() {
            Some(connection) => Some(connection),
            None => {
                let deadline = Instant::now() + self.group.connect_timeout;
                self.client.connection(deadline.into_std()).await.ok()
            }
        };
        let Some(connection) = connection else {
            return false;
        };
        let is_ours = connection.peer().hello().is_some();
        let flag = if is_ours { IS_OURS } else { 0 };
        self.look.store(flag | LOOK_AGAIN, Ordering::Relaxed);
        is_ours
    }
}
