//! The order of a shutdown, with a registry that records what happens.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use iip_core::balance::BackendInfo;
use iip_core::discover::{BoxFuture, DiscoverError, Register, Registration};
use iip_rpc::{CallContext, Client, Health, HealthState, Server, ServerBuilder, Status, service};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted, listener};
use crate::common::{all_run, passes, spawn, within};

/// A limit that is never reached.
const LONG: Duration = Duration::from_secs(1000);

#[service]
trait Work {
    async fn is_shutting_down(&self, ctx: &CallContext) -> Result<bool, Status>;
    async fn until_shutdown(&self, ctx: &CallContext) -> Result<(), Status>;
}

struct Shop;

impl Work for Shop {
    async fn is_shutting_down(&self, ctx: &CallContext) -> Result<bool, Status> {
        Ok(ctx.is_shutting_down())
    }

    async fn until_shutdown(&self, ctx: &CallContext) -> Result<(), Status> {
        ctx.shutting_down().await;
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Refused,
    Registered { id: String, endpoint: String },
    Deregistered { health: Option<HealthState> },
    Dropped,
}

/// A registry that records what it is asked.
struct Registry {
    events: mpsc::UnboundedSender<Event>,
    health: Health,
    /// Number of attempts to register that fail.
    failures: AtomicUsize,
    /// Removals are not confirmed.
    hangs: bool,
}

struct Entry {
    events: mpsc::UnboundedSender<Event>,
    health: Health,
    hangs: bool,
}

impl Register for Registry {
    fn register(
        &self,
        info: BackendInfo,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, DiscoverError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let less = |failures: usize| failures.checked_sub(1);
            let failed = self
                .failures
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            if failed.is_ok() {
                let _ = self.events.send(Event::Refused);
                return Err(DiscoverError::new("the registry is down"));
            }
            let _ = self.events.send(Event::Registered {
                id: info.id.to_string(),
                endpoint: info.endpoint.to_string(),
            });
            let entry = Entry {
                events: self.events.clone(),
                health: self.health.clone(),
                hangs: self.hangs,
            };
            Ok(Box::new(entry) as Box<dyn Registration>)
        })
    }

    fn describe(&self) -> String {
        "test".into()
    }
}

impl Registration for Entry {
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoverError>> {
        Box::pin(async move {
            let health = self.health.state("");
            let _ = self.events.send(Event::Deregistered { health });
            if self.hangs {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Dropped);
    }
}

struct Fixture {
    server: Arc<Server>,
    events: mpsc::UnboundedReceiver<Event>,
    health: Health,
}

impl Fixture {
    async fn start(failures: usize, hangs: bool) -> Self {
        Self::configured(failures, hangs, |server| server).await
    }

    async fn configured(
        failures: usize,
        hangs: bool,
        configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let health = Health::new();
        let registry = Registry {
            events: sender,
            health: health.clone(),
            failures: failures.into(),
            hangs,
        };
        let server = Server::builder()
            .service(WorkServer::new(Shop))
            .health(&health)
            .register(registry, None);
        let server = configure(server).bind("127.0.0.1:0").await.unwrap();
        Self {
            server: Arc::new(server),
            events,
            health,
        }
    }

    async fn event(&mut self) -> Event {
        within("an event at the registry", self.events.recv())
            .await
            .unwrap()
    }

    fn registered(&self) -> Event {
        let target = self.server.target().to_owned();
        Event::Registered {
            id: target.clone(),
            endpoint: target,
        }
    }

    fn begin_shutdown(&self, limit: Duration) -> JoinHandle<()> {
        let server = Arc::clone(&self.server);
        spawn(async move { server.shutdown(limit).await })
    }

    /// A client with a connection of its own.
    async fn client(&self) -> Result<WorkClient, Status> {
        let client = Client::connect(self.server.target()).await?;
        Ok(WorkClient::new(client))
    }
}

#[tokio::test]
async fn a_shutdown_ends_readiness_then_the_registration_and_serves_during_the_lame_duck_period() {
    let mut test = Fixture::start(0, false).await;
    within("the registration", test.server.registered()).await;
    assert_eq!(test.event().await, test.registered());
    let early = test.client().await.unwrap();
    let waiting = early.clone();
    let waiting = spawn(async move { waiting.until_shutdown(&CallContext::new()).await });

    let shutdown = test.begin_shutdown(LONG);
    let not_ready = Some(HealthState::NotServing);
    assert_eq!(
        test.event().await,
        Event::Deregistered { health: not_ready }
    );
    assert_eq!(test.event().await, Event::Dropped);
    all_run().await;

    // Existing and new connections are served, and handlers are not asked to end.
    assert!(!early.is_shutting_down(&CallContext::new()).await.unwrap());
    let late = test.client().await.unwrap();
    assert!(!late.is_shutting_down(&CallContext::new()).await.unwrap());
    assert!(!waiting.is_finished() && !shutdown.is_finished());

    // The default.
    passes(Duration::from_secs(5)).await;
    within("the end of a handler", waiting)
        .await
        .unwrap()
        .unwrap();
    within("the shutdown", shutdown).await.unwrap();
    assert!(test.client().await.is_err());
}

#[tokio::test]
async fn the_lame_duck_period_takes_at_most_half_of_the_limit() {
    let configure = |server: ServerBuilder| server.lame_duck(LONG);
    let mut test = Fixture::configured(0, false, configure).await;
    assert_eq!(test.event().await, test.registered());
    let shutdown = test.begin_shutdown(LONG);
    assert!(matches!(test.event().await, Event::Deregistered { .. }));
    all_run().await;
    passes(LONG / 2 - Duration::from_secs(60)).await;
    all_run().await;
    assert!(test.client().await.is_ok());
    assert!(!shutdown.is_finished());
    passes(Duration::from_secs(61)).await;
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn a_server_without_registration_has_a_lame_duck_period_only_if_it_is_set() {
    let builder = || Server::builder().service(WorkServer::new(Shop));
    let server = builder().bind("127.0.0.1:0").await.unwrap();
    within("the shutdown", server.shutdown(LONG)).await;
    let server = builder().lame_duck(LONG / 4).bind("127.0.0.1:0").await;
    let server = Arc::new(server.unwrap());
    let ending = Arc::clone(&server);
    let shutdown = spawn(async move { ending.shutdown(LONG).await });
    all_run().await;
    let client = WorkClient::new(Client::connect(server.target()).await.unwrap());
    assert!(!client.is_shutting_down(&CallContext::new()).await.unwrap());
    assert!(!shutdown.is_finished());
    passes(LONG / 4).await;
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn a_second_shutdown_without_time_ends_the_lame_duck_period_of_the_first() {
    let mut test = Fixture::start(0, false).await;
    assert_eq!(test.event().await, test.registered());
    let shutdown = test.begin_shutdown(LONG);
    assert!(matches!(test.event().await, Event::Deregistered { .. }));
    all_run().await;
    assert!(!shutdown.is_finished());
    within("the end at once", test.server.shutdown(Duration::ZERO)).await;
    within("the first shutdown", shutdown).await.unwrap();
    let again = tokio::time::Instant::now();
    within("a shutdown of an ended server", test.server.shutdown(LONG)).await;
    assert!(
        again.elapsed() < Duration::from_secs(4),
        "no lame duck period"
    );
}

#[tokio::test]
async fn a_shutdown_without_time_drops_the_registration_and_does_not_wait() {
    let mut test = Fixture::start(0, true).await;
    assert_eq!(test.event().await, test.registered());
    within("the shutdown", test.server.shutdown(Duration::ZERO)).await;
    loop {
        match test.event().await {
            Event::Deregistered { .. } => {}
            Event::Dropped => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(test.health.state(""), Some(HealthState::NotServing));
}

#[tokio::test]
async fn a_registry_that_does_not_confirm_the_removal_does_not_stop_the_shutdown() {
    let mut test = Fixture::start(0, true).await;
    assert_eq!(test.event().await, test.registered());
    let shutdown = test.begin_shutdown(LONG);
    assert!(matches!(test.event().await, Event::Deregistered { .. }));
    all_run().await;
    assert!(test.client().await.is_ok(), "it still serves");
    passes(Duration::from_secs(5)).await;
    assert_eq!(test.event().await, Event::Dropped);
    all_run().await;
    assert!(test.client().await.is_ok(), "now as a lame duck");
    passes(Duration::from_secs(5)).await;
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn a_server_whose_registry_is_down_serves_and_registers_later() {
    let mut test = Fixture::start(2, false).await;
    assert_eq!(test.event().await, Event::Refused);
    all_run().await;
    assert!(
        test.client()
            .await
            .unwrap()
            .is_shutting_down(&CallContext::new())
            .await
            .is_ok()
    );
    passes(Duration::from_secs(2)).await;
    assert_eq!(test.event().await, Event::Refused);
    all_run().await;
    passes(Duration::from_secs(3)).await;
    assert_eq!(test.event().await, test.registered());
    within("the registration", test.server.registered()).await;
}

#[tokio::test]
async fn a_server_that_is_not_registered_yet_is_shut_down_without_waiting_for_the_registry() {
    let mut test = Fixture::start(usize::MAX, false).await;
    assert_eq!(test.event().await, Event::Refused);
    let registered = Arc::clone(&test.server);
    let registered = spawn(async move { registered.registered().await });
    all_run().await;
    assert!(!registered.is_finished());
    let shutdown = test.begin_shutdown(LONG);
    within("the end of waiting", registered).await.unwrap();
    all_run().await;
    passes(Duration::from_secs(5)).await;
    within("the shutdown", shutdown).await.unwrap();
    assert!(test.events.recv().await.is_none());
}

#[tokio::test]
async fn a_server_on_every_interface_needs_an_address_to_register() {
    let registry = || Registry {
        events: mpsc::unbounded_channel().0,
        health: Health::new(),
        failures: 0.into(),
        hangs: false,
    };
    let server = Server::builder().register(registry(), None);
    let error = server.bind("0.0.0.0:0").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let error = error.to_string();
    assert!(error.contains("write the address to register"), "{error}");

    let (events, mut seen) = mpsc::unbounded_channel();
    let registry = Registry {
        events,
        ..registry()
    };
    let info = BackendInfo::new("127.0.0.1:0".parse().unwrap());
    let server = Server::builder().register(registry, info);
    let server = server.bind("0.0.0.0:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let registered = within("the registration", seen.recv()).await.unwrap();
    let endpoint = format!("127.0.0.1:{port}");
    let id = endpoint.clone();
    assert_eq!(registered, Event::Registered { id, endpoint });
    within("the shutdown", server.shutdown(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_client_whose_new_connection_a_server_ends_as_it_shuts_down_connects_to_its_successor() {
    let (listener, addr) = listener().await;
    let connecting = spawn(Client::connect(addr));
    // The server has accepted these connections last.
    for _ in 0..3 {
        let mut peer = Peer::over(accepted(&listener).await);
        peer.frame().await;
        peer.send(&[8, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    }
    let mut peer = Peer::over(accepted(&listener).await);
    assert_eq!(peer.frame().await.path, b"/sys/hello");
    peer.send_frame(&RawFrame::reply("/sys/hello", 0, "{}"))
        .await;
    peer.grants(1).await;
    within("a connection", connecting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_does_not_connect_for_ever_to_a_server_that_ends_each_connection() {
    let (listener, addr) = listener().await;
    let connecting = spawn(Client::connect(addr));
    for _ in 0..4 {
        let mut peer = Peer::over(accepted(&listener).await);
        peer.frame().await;
        peer.send(&[8, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    }
    let error = within("the error", connecting).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("status 8"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn two_servers_share_a_port_if_both_ask_for_it() {
    let server = || Server::builder().service(WorkServer::new(Shop));
    let first = server().reuse_port(true).bind("127.0.0.1:0").await.unwrap();
    let addr = first.local_addr().unwrap();
    assert!(server().bind(addr).await.is_err());
    let second = server().reuse_port(true).bind(addr).await.unwrap();
    within("the shutdown", first.shutdown(LONG)).await;
    let client = WorkClient::new(Client::connect(addr).await.unwrap());
    assert!(!client.is_shutting_down(&CallContext::new()).await.unwrap());
    within("the shutdown", second.shutdown(LONG)).await;

    let error = server().reuse_port(true).bind("unix:/nowhere/x").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("reuse_port"), "{error}");
}
