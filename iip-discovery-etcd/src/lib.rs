//! Discovery of servers in etcd, and their registration there.
//!
//! [`Etcd`] implements [`Discover`] and [`Register`] for the keys of etcd below a prefix. It speaks
//! to the JSON gateway that every etcd since 3.4 has on its client port, so nothing is generated
//! from `.proto` files.
//!
//! - The key of a server is the prefix and the id of the server, such as `/services/orders/a`.
//! - The value is the JSON of a [`BackendInfo`], such as
//!   `{"address":"10.0.0.1:7000","weight":3}`; or `ip:port#weight`, which Go programs write. The id
//!   is the part of the key after the prefix, unless the JSON contains another.
//! - A key whose value is neither is skipped, with a warning in the log.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use iip_core::balance::BackendInfo;
//! use iip_core::discover::Register;
//! use iip_discovery_etcd::Etcd;
//!
//! let etcd = Etcd::new(["10.0.0.1:2379", "10.0.0.2:2379"], "/services/orders")?;
//! let info = BackendInfo::new("10.0.1.7:7000".parse()?).id("orders-7").weight(3);
//! let registration = etcd.register(info).await?;
//! // .. serve ..
//! registration.deregister().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # When etcd fails
//!
//! Clients keep the backends that they know. The stream of snapshots has an error once, and again
//! when the reason changes; a snapshot follows as soon as etcd is back. The members of the cluster
//! are tried in turn, the first at random, with pauses of random length up to 1.5 s, or up to 15 s
//! after a member has refused the user.
//!
//! A watch that has silently lost its server is noticed by a request on another connection every
//! [`status_interval`](EtcdBuilder::status_interval).
//!
//! # Limits
//!
//! The keys and values below the prefix may take 64 MiB together, where each key counts 512 bytes
//! more than its length; that is about 100,000 servers. One message of a watch may take 16 MiB, and
//! one value 64 KiB. The common name of a client certificate is no user for the JSON gateway:
//! if etcd requires a user, set [`user`](EtcdBuilder::user).

mod answer;
mod backoff;
mod builder;
mod client;
mod failure;
mod http;
mod keys;
mod lines;
mod registration;
mod value;
mod watch;

use std::fmt;
use std::sync::Arc;

use iip_core::balance::{BackendInfo, Target};
use iip_core::discover::{
    BoxFuture, Discover, DiscoverError, Register, Registration, SnapshotStream,
};

pub use self::builder::EtcdBuilder;
use self::client::Client;
use self::keys::Prefix;

/// The servers that are registered in etcd below a prefix. Cloning is cheap.
#[derive(Clone)]
pub struct Etcd {
    client: Arc<Client>,
    prefix: Arc<Prefix>,
}

impl Etcd {
    /// Creates a source and registry for the keys below `prefix`, with the default settings: no
    /// user and no TLS. It does not connect yet.
    ///
    /// `members` are the members of the cluster as `host:port`. A slash is appended to `prefix`
    /// unless it ends with one.
    ///
    /// # Errors
    ///
    /// Fails if there is no member, a member is not `host:port`, or `prefix` is empty.
    pub fn new<M: Into<String>>(
        members: impl IntoIterator<Item = M>,
        prefix: impl Into<String>,
    ) -> Result<Self, DiscoverError> {
        Self::builder().members(members).prefix(prefix).build()
    }

    /// Creates a source and registry from a [`Target::Etcd`], with the default settings.
    ///
    /// # Errors
    ///
    /// Fails if `target` is of another kind.
    pub fn from_target(target: &Target) -> Result<Self, DiscoverError> {
        Self::builder().target(target).build()
    }

    /// Starts a configuration.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::new()
    }
}

impl Discover for Etcd {
    fn watch(&self) -> SnapshotStream {
        watch::watch(Arc::clone(&self.client), Arc::clone(&self.prefix))
    }

    fn describe(&self) -> String {
        self.to_string()
    }
}

impl Register for Etcd {
    /// Lists the server under the prefix and its id, bound to a lease.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the entry is removed like that of a dropped registration.
    ///
    /// # Errors
    ///
    /// Fails if no member of etcd answers, or if one rejects the user or the key. Each member is
    /// tried once.
    fn register(
        &self,
        info: BackendInfo,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, DiscoverError>> {
        Box::pin(registration::register(
            Arc::clone(&self.client),
            Arc::clone(&self.prefix),
            info,
        ))
    }

    fn describe(&self) -> String {
        self.to_string()
    }
}

/// Writes `etcd://host:port,host:port/prefix/`.
impl fmt::Display for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{}", self.client.names())?;
        let slash = if self.prefix.text().starts_with('/') {
            ""
        } else {
            "/"
        };
        write!(f, "{slash}{}", self.prefix.text())
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Etcd({self})")
    }
}
