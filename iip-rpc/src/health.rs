//! Whether a server, and each of its services, can be called: for load balancers, probes and
//! clients.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use iip_core::Places;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::__private::BoxFuture;
use crate::Stream;
use crate::client::Client;
use crate::context::CallContext;
use crate::hello::RpcPeer;
use crate::method::MethodDescriptor;
use crate::server::{Methods, StreamCall};
use crate::status::{Execution, Status};
use crate::streaming::Streaming;

const CHECK: &MethodDescriptor =
    &MethodDescriptor::new("Health", "check", "/sys/health/check", &["service"]).idempotent();

const WATCH: &MethodDescriptor =
    &MethodDescriptor::new("Health", "watch", "/sys/health/watch", &["service"]).streams_replies();

/// The health of a service: whether it can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum HealthState {
    /// Nobody has said; of a watched service also: there is none of this name, or not yet.
    #[default]
    Unknown,
    /// Call it.
    Serving,
    /// It is there, but calls are of no use: it starts, stops, or misses something.
    NotServing,
}

/// What a server tells about its services; the application sets it. Cheap to clone; clones share
/// everything.
///
/// Served with [`ServerBuilder::health`](crate::ServerBuilder::health) and asked with
/// [`HealthClient`]. The name of a service is that of its trait, unless `#[service(name = "..")]`
/// gives it another; the empty name stands for the server as a whole.
///
/// A new one says that the server as a whole is serving, and so does each service of a server it is
/// given to, unless its state was set before. [`Server::shutdown`](crate::Server::shutdown) sets
/// all of them to not serving before anything else.
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::{Client, Health, HealthClient, HealthState, Server};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let health = Health::new();
/// health.set("Orders", HealthState::NotServing);
/// let server = Server::builder().health(&health).bind("127.0.0.1:0").await?;
///
/// let asked = HealthClient::new(Client::connect(server.target()).await?);
/// assert_eq!(asked.check("").await?, HealthState::Serving);
/// assert_eq!(asked.check("Orders").await?, HealthState::NotServing);
/// health.set("Orders", HealthState::Serving);
/// assert_eq!(asked.check("Orders").await?, HealthState::Serving);
/// server.shutdown(Duration::from_secs(1)).await;
/// assert_eq!(health.state(""), Some(HealthState::NotServing));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Health(Arc<watch::Sender<States>>);

struct States {
    services: BTreeMap<String, HealthState>,
    is_down: bool,
}

impl Health {
    /// The server as a whole is serving; nothing is known of services.
    #[must_use]
    pub fn new() -> Self {
        let services = BTreeMap::from([(String::new(), HealthState::Serving)]);
        Self(Arc::new(watch::Sender::new(States {
            services,
            is_down: false,
        })))
    }

    /// Sets the state of a service, or with the empty name that of the server as a whole. Those who
    /// watch it are told.
    ///
    /// They follow from each other in no way: a server may be serving though one of its services is
    /// not. After [`shut_down`](Self::shut_down) nothing is set any more.
    pub fn set(&self, service: &str, state: HealthState) {
        self.change(|states| states.services.insert(service.to_owned(), state) != Some(state));
    }

    /// The state of a service; `None` if it was never set.
    #[must_use]
    pub fn state(&self, service: &str) -> Option<HealthState> {
        self.0.borrow().services.get(service).copied()
    }

    /// Sets every state to not serving, for good: later settings are ignored. The streams of those
    /// who watch end with it.
    pub fn shut_down(&self) {
        self.change(|states| {
            states.is_down = true;
            let all = states.services.values_mut();
            all.for_each(|state| *state = HealthState::NotServing);
            true
        });
    }

    /// These services are there; they are serving unless something else was said of them.
    pub(crate) fn serves(&self, services: impl Iterator<Item = &'static str>) {
        self.change(|states| {
            for service in services {
                let state = states.services.entry(service.to_owned());
                state.or_insert(HealthState::Serving);
            }
            true
        });
    }

    fn change(&self, change: impl FnOnce(&mut States) -> bool) {
        self.0
            .send_if_modified(|states| !states.is_down && change(states));
    }

    pub(crate) fn register(&self, methods: &mut Methods, limits: WatchLimits) {
        let this = Arc::new(self.clone());
        // It ends at once, and is answered also while as many other calls run as may.
        let checks = Places::new("max_running_calls", usize::MAX);
        methods.counted_apart(checks, |methods| methods.unary(CHECK, &this, check));
        let watches = Places::new("max_health_watches", limits.server);
        let most = limits.connection;
        let watch = move |health: Arc<Self>, ctx, (service,): (String,), call: StreamCall| async move {
            match Watch::begin(ctx, most) {
                Ok(_watch) => {
                    let states = Watching::new(&health, service);
                    call.send_all(Ok::<_, Status>(states)).await
                }
                Err(status) => call.answer(Err::<(), _>(status)),
            }
        };
        methods.counted_apart(watches, |methods| methods.stream(WATCH, &this, watch));
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health")
            .field(&self.0.borrow().services)
            .finish()
    }
}

/// How many watches there may be at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchLimits {
    pub(crate) server: usize,
    pub(crate) connection: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            server: 16_384,
            connection: 64,
        }
    }
}

/// A watch that runs, counted among those of its connection.
struct Watch(CallContext);

impl Watch {
    fn begin(ctx: CallContext, limit: usize) -> Result<Self, Status> {
        let more = |count: usize| (count < limit).then_some(count + 1);
        let counted = count_of(&ctx).is_none_or(|count| {
            count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
        });
        if !counted {
            let text = format!(
                "the connection has {limit} health watches already (option \
                 max_health_watches_per_connection)"
            );
            return Err(Status::resource_exhausted(text).with_execution(Execution::NotExecuted));
        }
        Ok(Self(ctx))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(count) = count_of(&self.0) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The watches of the connection that a call came on.
fn count_of(ctx: &CallContext) -> Option<&AtomicUsize> {
    let peer = ctx.peer()?.extension(RpcPeer::read)?;
    Some(&peer.watches)
}

async fn check(
    health: Arc<Health>,
    _: CallContext,
    (service,): (String,),
) -> Result<HealthState, Status> {
    let unknown = || Status::not_found(format!("no service is called {service:?}"));
    health.state(&service).ok_or_else(unknown)
}

/// The states of a service, one after the other.
struct Watching {
    service: String,
    sent: Option<HealthState>,
    next: Next,
}

enum Next {
    Look(watch::Receiver<States>),
    Wait(BoxFuture<'static, Option<watch::Receiver<States>>>),
    End,
}

impl Watching {
    fn new(health: &Health, service: String) -> Self {
        Self {
            service,
            sent: None,
            next: Next::Look(health.0.subscribe()),
        }
    }
}

impl Stream for Watching {
    type Item = Result<HealthState, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let mut receiver = match std::mem::replace(&mut this.next, Next::End) {
                Next::Look(receiver) => receiver,
                Next::Wait(mut changed) => match changed.as_mut().poll(cx) {
                    Poll::Ready(Some(receiver)) => receiver,
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => {
                        this.next = Next::Wait(changed);
                        return Poll::Pending;
                    }
                },
                Next::End => return Poll::Ready(None),
            };
            let (state, is_down) = {
                let states = receiver.borrow_and_update();
                let state = states.services.get(&this.service).copied();
                (state.unwrap_or_default(), states.is_down)
            };
            if !is_down {
                this.next = Next::Wait(Box::pin(async move {
                    receiver.changed().await.ok()?;
                    Some(receiver)
                }));
            }
            if this.sent.replace(state) != Some(state) {
                return Poll::Ready(Some(Ok(state)));
            }
        }
    }
}

/// Asks a server whether it, and each of its services, can be called. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HealthClient {
    client: Client,
}

impl HealthClient {
    /// Asks through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The state of a service, by its name; with the empty name, that of the server as a whole.
    ///
    /// # Errors
    ///
    /// NOT_FOUND if nothing is known of such a service; UNIMPLEMENTED if the server tells nothing
    /// of its health; as every call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call.
    pub async fn check(&self, service: &str) -> Result<HealthState, Status> {
        self.client.unary(CHECK, None, (service,)).await
    }

    /// The state of a service, and then each change of it. Changes that follow each other faster
    /// than they are read may be left out; the last one never is. A service that is not known is
    /// [`HealthState::Unknown`], and told when it comes. The stream ends after the server has begun
    /// to shut down.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), except for NOT_FOUND.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, cancels the call.
    pub async fn watch(&self, service: &str) -> Result<Streaming<HealthState>, Status> {
        self.client.server_stream(WATCH, None, (service,)).await
    }
}
