//! Context of the call that a handler serves, beyond its arguments.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::__rpc::{after, now};
use iip_core::{CancelToken, Peer};

use crate::extensions::Extensions;
use crate::metadata::{Metadata, MetadataError};
use crate::method::MethodDescriptor;

tokio::task_local! {
    static CURRENT: CallContext;
}

/// Context of the call that a handler serves: the caller and its metadata, the deadline, and the
/// metadata of the reply.
///
/// A handler gets it from [`CallContext::current`], or as the method's first parameter
/// `ctx: &CallContext`, which is not sent. Calls made inside the handler, and those to which it
/// passes its context, inherit the deadline and nothing else. A caller that serves no call passes a
/// [new](Self::new) context; what it sends and how it calls is set by
/// [`CallOptions`](crate::CallOptions). Cheap to clone.
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::CallContext;
///
/// let ctx = CallContext::new().with_timeout(Duration::from_millis(200));
/// assert!(ctx.remaining().is_some_and(|left| left <= Duration::from_millis(200)));
/// ```
#[derive(Clone)]
pub struct CallContext {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    method: Option<&'static MethodDescriptor>,
    metadata: Metadata,
    deadline: Option<Instant>,
    peer: Option<Arc<Peer>>,
    cancel: Option<CancelToken>,
    // Created when it is needed, because most calls add nothing.
    additions: OnceLock<Box<Mutex<Additions>>>,
}

/// The additions of a handler or an interceptor to a call.
#[derive(Default)]
struct Additions {
    reply_metadata: Metadata,
    extensions: Extensions,
}

impl Default for CallContext {
    fn default() -> Self {
        Self::new()
    }
}

impl CallContext {
    /// Creates the context of a caller that serves no call: it has no deadline.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::default(),
        }
    }

    /// The context of a call that a server handles.
    pub(crate) fn of_call(
        method: &'static MethodDescriptor,
        metadata: Metadata,
        deadline: Option<Instant>,
        peer: Arc<Peer>,
        cancel: Option<CancelToken>,
    ) -> Self {
        let (method, peer) = (Some(method), Some(peer));
        Self {
            inner: Arc::new(Inner {
                method,
                metadata,
                deadline,
                peer,
                cancel,
                additions: OnceLock::new(),
            }),
        }
    }

    /// The context of the call that this task handles, if any.
    ///
    /// Tasks spawned by the handler do not inherit it; pass it to them and use
    /// [`scope`](Self::scope).
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The deadline of the call that this task handles, if both exist.
    #[inline]
    pub(crate) fn current_deadline() -> Option<Instant> {
        CURRENT.try_with(|ctx| ctx.inner.deadline).ok().flatten()
    }

    /// Runs `future` as part of this call: [`current`](Self::current) returns this context, and
    /// calls inherit its deadline.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// Like [`scope`](Self::scope), for code that does not wait.
    pub(crate) fn enter<R>(self, run: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self, run)
    }

    /// Sets the deadline to `timeout` from now, if that is earlier than the current one.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let deadline = after(now(), timeout);
        let deadline = self
            .inner
            .deadline
            .map_or(deadline, |own| own.min(deadline));
        self.change(|inner| inner.deadline = Some(deadline))
    }

    /// Replaces the metadata that the caller sent, to test a handler with it. It is not sent with
    /// calls made in this context: see [`CallOptions::metadata`](crate::CallOptions::metadata).
    #[must_use]
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        self.change(|inner| inner.metadata = metadata)
    }

    /// Replaces the deadline, whatever it was before.
    pub(crate) fn with_deadline(self, deadline: Option<Instant>) -> Self {
        self.change(|inner| inner.deadline = deadline)
    }

    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let old = &self.inner;
        let additions = old.additions.get().map(|additions| {
            let extensions = lock(additions).extensions.clone();
            Box::new(Mutex::new(Additions {
                reply_metadata: Metadata::new(),
                extensions,
            }))
        });
        let mut inner = Inner {
            method: old.method,
            metadata: old.metadata.clone(),
            deadline: old.deadline,
            peer: old.peer.clone(),
            cancel: old.cancel.clone(),
            additions: additions.map_or_else(OnceLock::new, OnceLock::from),
        };
        change(&mut inner);
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The method that is being called; `None` outside a handler.
    #[must_use]
    pub fn method(&self) -> Option<&'static MethodDescriptor> {
        self.inner.method
    }

    /// The metadata that the caller sent with the arguments.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    /// The point in time at which the caller stops waiting; `None` if the call has no deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.deadline
    }

    /// Time left until the deadline; `None` if the call has no deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.inner
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now()))
    }

    /// The caller's address and verified certificates; `None` outside a handler.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.inner.peer.as_deref()
    }

    /// Returns `true` if the caller has gone away or the deadline has passed. For methods with
    /// `on_cancel = "token"`.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner
            .cancel
            .as_ref()
            .is_some_and(CancelToken::is_cancelled)
            || self
                .inner
                .deadline
                .is_some_and(|deadline| deadline <= now())
    }

    /// Waits until the caller has gone away or the deadline has passed. For methods with
    /// `on_cancel = "token"`; other handlers do not need it, since they are dropped or run to
    /// completion.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn cancelled(&self) {
        let token = self.inner.cancel.clone().unwrap_or_default();
        match self.inner.deadline {
            None => token.cancelled().await,
            Some(deadline) => tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            },
        }
    }

    /// Returns `true` if the server that handles the call has begun to [shut
    /// down](crate::Server::shutdown); `false` outside a handler.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.peer().is_some_and(Peer::is_shutting_down)
    }

    /// Waits until the server that handles the call begins to [shut down](crate::Server::shutdown);
    /// never completes outside a handler. A handler with an endless stream can then end it, so that
    /// its caller sees the end instead of a lost connection:
    ///
    /// ```
    /// use iip_rpc::{CallContext, Status, Streaming};
    ///
    /// fn ticks(ctx: &CallContext) -> Streaming<u64> {
    ///     let (sender, ticks) = Streaming::channel(1);
    ///     let shutting_down = ctx.shutting_down();
    ///     tokio::spawn(async move {
    ///         let mut second = tokio::time::interval(std::time::Duration::from_secs(1));
    ///         let mut shutting_down = std::pin::pin!(shutting_down);
    ///         for number in 0.. {
    ///             tokio::select! {
    ///                 _ = second.tick() => {}
    ///                 () = &mut shutting_down => {
    ///                     let status = Status::unavailable("the server restarts");
    ///                     return sender.fail(status).await;
    ///                 }
    ///             }
    ///             if sender.send(number).await.is_err() {
    ///                 return;
    ///             }
    ///         }
    ///     });
    ///     ticks
    /// }
    /// # let _ = ticks;
    /// ```
    ///
    /// The future borrows nothing. Calls that arrive later are rejected, so the handler need not
    /// check for them.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub fn shutting_down(&self) -> impl Future<Output = ()> + Send + use<> {
        let begun = self.peer().map(Peer::shutting_down);
        async move {
            match begun {
                Some(begun) => begun.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Sends `value` with the reply, as metadata.
    ///
    /// # Errors
    ///
    /// The key is invalid, or all metadata together would exceed 16 KiB.
    pub fn set_reply_metadata(
        &self,
        key: &str,
        value: impl Into<Bytes>,
    ) -> Result<(), MetadataError> {
        // Converted before the lock is taken, because that is code of the caller.
        let value = value.into();
        self.additions().reply_metadata.insert(key, value)
    }

    /// The value of this type in this context; in a handler, put there by an interceptor of the
    /// server.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        lock(self.inner.additions.get()?).extensions.get()
    }

    /// Stores `value` in this context, keyed by its type; it is not sent to the other side. Clones
    /// of a context share their values. Returns the value of this type that it replaces.
    ///
    /// The client's interceptors see it if the context is used to make calls.
    pub fn insert_extension<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.additions().extensions.insert(value)
    }

    #[inline]
    pub(crate) fn take_reply_metadata(&self) -> Metadata {
        match self.inner.additions.get() {
            Some(additions) => std::mem::take(&mut lock(additions).reply_metadata),
            None => Metadata::new(),
        }
    }

    fn additions(&self) -> MutexGuard<'_, Additions> {
        lock(self.inner.additions.get_or_init(Box::default))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext")
            .field("method", &self.inner.method.map(MethodDescriptor::path))
            .field("metadata", &self.inner.metadata)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}
