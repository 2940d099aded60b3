//! Health of a server and each of its services: for load balancers, probes and clients.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use iip_core::Places;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Stream;
use crate::boxed::BoxFuture;
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

/// Health of a service, which says if it can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum HealthState {
    /// No state was set; for a watched service also: no service of this name exists, or not yet.
    #[default]
    Unknown,
    /// The service can be called.
    Serving,
    /// The service exists, but calls are of no use: it is starting, stopping, or misses a
    /// dependency.
    NotServing,
}

/// Health that a server reports about its services; the application sets it. Cheap to clone; clones
/// share all state.
///
/// Served with [`ServerBuilder::health`](crate::ServerBuilder::health) and queried with
/// [`HealthClient`]. The name of a service is that of its trait, unless `#[service(name = "..")]`
/// sets another; the empty name means the server as a whole.
///
/// Initially the server as a whole is serving, and so is each service of a server that uses this
/// health, unless its state was set before. [`Server::shutdown`](crate::Server::shutdown) sets all
/// of them to not serving before anything else.
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
/// let health_client = HealthClient::new(Client::connect(server.target()).await?);
/// assert_eq!(health_client.check("").await?, HealthState::Serving);
/// assert_eq!(health_client.check("Orders").await?, HealthState::NotServing);
/// health.set("Orders", HealthState::Serving);
/// assert_eq!(health_client.check("Orders").await?, HealthState::Serving);
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
    /// Creates a health with the server as a whole serving, and no state for services.
    #[must_use]
    pub fn new() -> Self {
        let services = BTreeMap::from([(String::new(), HealthState::Serving)]);
        Self(Arc::new(watch::Sender::new(States {
            services,
            is_down: false,
        })))
    }

    /// Sets the state of a service, or with the empty name that of the server as a whole. Watchers
    /// are notified.
    ///
    /// The states are independent: a server may be serving while one of its services is not. After
    /// [`shut_down`](Self::shut_down) the call has no effect.
    pub fn set(&self, service: &str, state: HealthState) {
        self.change(|states| states.services.insert(service.to_owned(), state) != Some(state));
    }

    /// The state of a service; `None` if it was never set.
    #[must_use]
    pub fn state(&self, service: &str) -> Option<HealthState> {
        self.0.borrow().services.get(service).copied()
    }

    /// Sets every state to not serving, permanently: later settings are ignored. The streams of
    /// watchers end after it.
    pub fn shut_down(&self) {
        self.change(|states| {
            states.is_down = true;
            let all = states.services.values_mut();
            all.for_each(|state| *state = HealthState::NotServing);
            true
        });
    }

    /// Adds these services; they are serving unless their state was set before.
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
            // Watchers are woken only by a change. A server that has shut down stays so.
            .send_if_modified(|states| !states.is_down && change(states));
    }

    pub(crate) fn register(&self, methods: &mut Methods, limits: WatchLimits) {
        let this = Arc::new(self.clone());
        // A check ends at once, and must get a reply even if the server is at capacity.
        let checks = Places::new("max_running_calls", usize::MAX);
        methods.counted_apart(checks, |methods| methods.unary(CHECK, &this, check));
        let watches = Places::new("max_health_watches", limits.server);
        let limit = limits.connection;
        let watch =
            move |health: Arc<Self>, ctx: &CallContext, (service,): (String,), call: StreamCall| {
                let ctx = ctx.clone();
                async move {
                    match Watch::begin(ctx, limit) {
                        Ok(_watch) => {
                            let states = Watching::new(&health, service);
                            call.send_all(Ok::<_, Status>(states)).await
                        }
                        Err(status) => call.reply(Err::<(), _>(status)),
                    }
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

/// Limits on the number of concurrent watches.
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

/// A running watch, counted for its connection.
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

/// The number of watches on the connection of a call.
fn count_of(ctx: &CallContext) -> Option<&AtomicUsize> {
    let peer = ctx.peer()?.extension(RpcPeer::read)?;
    Some(&peer.watches)
}

fn check(
    health: Arc<Health>,
    _: &CallContext,
    (service,): (String,),
) -> Ready<Result<HealthState, Status>> {
    let unknown = || Status::not_found(format!("no service is called {service:?}"));
    ready(health.state(&service).ok_or_else(unknown))
}

/// The stream of states of a service.
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
            // After a shutdown the states do not change again, so the stream ends with this one.
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

/// Client that queries the health of a server and each of its services. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HealthClient {
    client: Client,
}

impl HealthClient {
    /// Creates a client that sends its queries through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Returns the state of a service, by its name; with the empty name, that of the server as a
    /// whole.
    ///
    /// # Errors
    ///
    /// NOT_FOUND if the server has no state for such a service; UNIMPLEMENTED if the server does
    /// not report its health; otherwise the errors of any call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call.
    pub async fn check(&self, service: &str) -> Result<HealthState, Status> {
        self.client.unary(CHECK, None, (service,)).await
    }

    /// Returns the state of a service, and then each change of it. Changes that follow each other
    /// faster than they are read may be left out, but never the last one. The state of an unknown
    /// service is [`HealthState::Unknown`], and an update follows when it becomes known. The stream
    /// ends after the server has begun to shut down.
    ///
    /// # Errors
    ///
    /// Like [`check`](Self::check), except for NOT_FOUND.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, cancels the call.
    pub async fn watch(&self, service: &str) -> Result<Streaming<HealthState>, Status> {
        self.client.server_stream(WATCH, None, (service,)).await
    }
}
