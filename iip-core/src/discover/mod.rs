//! Discovery of the backends of a service, and registration of servers.
//!
//! A [`Discover`] delivers [`Snapshot`]s of the backends of a service; a client
//! [balances](crate::balance) its calls over them. A [`Register`] is the other side: a server is
//! listed while it can take calls.
//!
//! A client that connects to a [`Target`](crate::balance::Target) such as `dns://orders.:7000` makes
//! the source itself. A source of another kind is passed to
//! [`ClientBuilder::discover`](crate::ClientBuilder::discover).
//!
//! If a source fails, the client keeps the last backends. It ignores a list without backends until
//! the source has returned none for [a minute](crate::balance::BalanceOptions::empty_grace), because
//! a registry that has lost its data must not stop all of its clients.

mod dns;
mod file;
mod list;
mod look_ups;
mod source;
#[cfg(feature = "dns-srv")]
mod srv;
mod static_list;
mod stream;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;

pub use self::dns::Dns;
pub use self::file::FileSource;
pub use self::source::source_of;
#[cfg(feature = "dns-srv")]
pub use self::srv::DnsSrv;
pub use self::static_list::StaticList;

use crate::balance::BackendInfo;

/// The future of a function of a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The snapshots of a source, and its errors, in the order in which they occurred.
pub type SnapshotStream = Pin<Box<dyn Stream<Item = Result<Snapshot, DiscoverError>> + Send>>;

/// A source of backends, such as a registry, a file or DNS.
///
/// Implement it for a registry of your own. A source should retry by itself: a client that gets an
/// error keeps the last snapshot and waits for the next item.
pub trait Discover: Send + Sync + 'static {
    /// Watches the backends. Called in a tokio runtime, at least once for each client.
    ///
    /// The first item should come as soon as the source is known. Every further one is a whole
    /// snapshot, sent after a change; equal snapshots in a row are harmless. Errors do not end the
    /// stream. If it ends, the client keeps the last snapshot and, after a pause, watches again.
    fn watch(&self) -> SnapshotStream;

    /// Looks for changes soon: a connection was lost, or a server has sent a drain notice. The
    /// source limits how often it looks. Does nothing by default, which suits sources that learn
    /// of changes by themselves.
    fn refresh(&self) {}

    /// Returns the name of the source for errors and logs, such as `dns://orders.:7000`. It must
    /// not contain passwords.
    fn describe(&self) -> String;
}

impl<D: Discover + ?Sized> Discover for Arc<D> {
    fn watch(&self) -> SnapshotStream {
        (**self).watch()
    }

    fn refresh(&self) {
        (**self).refresh();
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// Returns a sender of snapshots and the stream that [`Discover::watch`] returns, for a source that
/// is a task:
///
/// ```
/// use iip_core::balance::BackendInfo;
/// use iip_core::discover::{self, Discover, Snapshot, SnapshotStream};
///
/// struct Registry;
///
/// impl Discover for Registry {
///     fn watch(&self) -> SnapshotStream {
///         let (sender, snapshots) = discover::channel();
///         tokio::spawn(async move {
///             // .. ask the registry, and whenever it has changed:
///             let backend = BackendInfo::new("10.0.0.1:7000".parse().unwrap());
///             while sender.send(Ok(Snapshot::new([backend.clone()]))).await.is_ok() {
///                 // .. wait for the next change ..
///                 # break;
///             }
///         });
///         snapshots
///     }
///
///     fn describe(&self) -> String {
///         "my registry".to_owned()
///     }
/// }
/// ```
#[must_use]
pub fn channel() -> (SnapshotSender, SnapshotStream) {
    let (sender, receiver) = mpsc::channel(QUEUED_ITEMS);
    (SnapshotSender(sender), Box::pin(Receiver(receiver)))
}

/// The number of items that wait for a client.
const QUEUED_ITEMS: usize = 16;

/// The sending half of [`channel`].
#[derive(Clone, Debug)]
pub struct SnapshotSender(mpsc::Sender<Result<Snapshot, DiscoverError>>);

/// The error of a snapshot whose client is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the client that watches the source is gone")]
#[non_exhaustive]
pub struct ClientGone;

impl SnapshotSender {
    /// Sends an item, and waits while 16 items wait for the client.
    ///
    /// # Errors
    ///
    /// Fails if the client is gone: the source should stop.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the item is not sent.
    pub async fn send(&self, item: Result<Snapshot, DiscoverError>) -> Result<(), ClientGone> {
        self.0.send(item).await.map_err(|_| ClientGone)
    }

    /// Waits until the client is gone.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

struct Receiver(mpsc::Receiver<Result<Snapshot, DiscoverError>>);

impl Stream for Receiver {
    type Item = Result<Snapshot, DiscoverError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// All backends of a service at one point in time.
///
/// A client ignores an empty snapshot until the source has returned no backends for a while, see
/// `empty_grace` of the client: a registry that has lost its data must not stop all clients.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The backends. Their order matters only to the policies of the Go client.
    pub backends: Arc<[BackendInfo]>,
    /// The version of the snapshot in words of the source, for people; may be empty.
    pub revision: String,
}

impl Snapshot {
    /// Creates a snapshot without a revision.
    #[must_use]
    pub fn new(backends: impl Into<Arc<[BackendInfo]>>) -> Self {
        Self {
            backends: backends.into(),
            revision: String::new(),
        }
    }

    /// Sets the revision.
    #[must_use]
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }
}

/// The error of a source that cannot deliver the backends, or of a registry that cannot list a
/// server.
#[derive(Clone)]
pub struct DiscoverError(Arc<dyn std::error::Error + Send + Sync>);

impl DiscoverError {
    /// Creates an error from a text or another error.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Debug for DiscoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DiscoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DiscoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// A registry that lists servers.
pub trait Register: Send + Sync + 'static {
    /// Lists the server that `info` describes, until the registration ends.
    ///
    /// The future is ready once the server is listed. The registration renews itself: if the
    /// registry loses it, the server is listed again under the same id.
    fn register(
        &self,
        info: BackendInfo,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, DiscoverError>>;

    /// Returns the name of the registry for errors and logs. It must not contain passwords.
    fn describe(&self) -> String;
}

/// The entry of a server in a registry. Dropping it ends it without waiting.
pub trait Registration: Send + Sync + 'static {
    /// Removes the entry, and waits until the registry has confirmed that. An entry that cannot be
    /// removed, because the registry does not answer, expires by itself.
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoverError>>;
}
