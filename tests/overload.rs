//! An overloaded server: the calls it admits, the rejections of the others, and the retries of its
//! clients.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::codec::CodecId;
use iip_rpc::{
    CallContext, Client, ClientBuilder, Code, Concurrency, Execution, MethodPolicy, Pushback,
    RetryPolicy, Server, ServerBuilder, Status, service,
};
use tokio::sync::{Notify, Semaphore};

use crate::common::calls::{expect, port, request, serve_with, status_in};
use crate::common::recorder::Recorder;
use crate::common::{Started, spawn, started, within};

const LONG: Duration = Duration::from_secs(600);

#[service]
trait Kitchen {
    /// Runs until the test releases it.
    #[rpc(max_concurrency = 2)]
    async fn cook(&self) -> Result<u32, Status>;
    async fn wash(&self, dish: String) -> Result<u32, Status>;
    #[rpc(raw)]
    async fn peel(&self, body: Bytes) -> Result<Bytes, Status>;
    async fn port(&self, ctx: &CallContext) -> Result<u16, Status>;
    /// Shares four stoves with the other running calls.
    async fn fry(&self) -> Result<(), Status>;
}

#[derive(Clone)]
struct Cook {
    recorder: Recorder,
    left: Arc<Notify>,
    stoves: Arc<Semaphore>,
    frying: Arc<AtomicU32>,
    maximum: Arc<AtomicU32>,
}

impl Default for Cook {
    fn default() -> Self {
        Self {
            recorder: Recorder::default(),
            left: Arc::default(),
            stoves: Arc::new(Semaphore::new(4)),
            frying: Arc::default(),
            maximum: Arc::default(),
        }
    }
}

/// Notifies the test when it is dropped.
struct Leaving<'a>(&'a Notify);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Cook {
    async fn pass(&self) -> Result<u32, Status> {
        let _leaving = Leaving(&self.left);
        self.recorder.pass().await
    }
}

impl Kitchen for Cook {
    async fn cook(&self) -> Result<u32, Status> {
        self.pass().await
    }

    async fn wash(&self, _dish: String) -> Result<u32, Status> {
        self.pass().await
    }

    async fn peel(&self, body: Bytes) -> Result<Bytes, Status> {
        self.pass().await?;
        Ok(body)
    }

    async fn port(&self, ctx: &CallContext) -> Result<u16, Status> {
        port(ctx)
    }

    async fn fry(&self) -> Result<(), Status> {
        let frying = self.frying.fetch_add(1, Ordering::SeqCst) + 1;
        self.maximum.fetch_max(frying, Ordering::SeqCst);
        let stove = self.stoves.acquire().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        drop(stove);
        self.frying.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Fixture {
    server: Server,
    client: Client,
    kitchen: KitchenClient,
    cook: Cook,
}

impl Fixture {
    async fn start(server: ServerBuilder) -> Self {
        Self::with(server, Client::builder().retry(RetryPolicy::none())).await
    }

    async fn with(server: ServerBuilder, client: ClientBuilder) -> Self {
        let cook = Cook::default();
        let service = KitchenServer::new(cook.clone());
        let (server, client) = serve_with(service, server, client.timeout(LONG)).await;
        let kitchen = KitchenClient::new(client.clone());
        Self {
            server,
            client,
            kitchen,
            cook,
        }
    }

    /// Starts a call and waits until its handler runs.
    async fn running<F: Future>(&self, call: F) -> Started<F> {
        let call = started(call).await;
        within("the handler", self.cook.recorder.entered.notified()).await;
        call
    }
}

#[track_caller]
fn assert_rejected(status: &Status, option: &str) {
    expect(status, Code::ResourceExhausted, Execution::NotExecuted);
    assert!(status.message().contains(option), "{status}");
    let again = Some(Pushback::After(Duration::from_millis(100)));
    assert_eq!(status.pushback(), again);
}

#[tokio::test]
async fn a_method_rejects_calls_over_the_limit_of_its_attribute() {
    let fixture = Fixture::start(Server::builder()).await;
    let before = fixture.kitchen.port(&CallContext::new()).await.unwrap();
    let first = fixture.running(fixture.kitchen.cook()).await;
    let second = fixture.running(fixture.kitchen.cook()).await;
    let status = within("the rejection", fixture.kitchen.cook()).await;
    assert_rejected(&status.unwrap_err(), "option max_concurrency of the method");
    fixture.cook.recorder.gate.add_permits(1);
    let replies = within("a reply", async {
        tokio::join!(first.finish(), async {
            fixture.cook.left.notified().await;
            fixture.cook.recorder.gate.add_permits(1);
            second.finish().await
        })
    });
    let replies = replies.await;
    assert!(replies.0.is_ok() && replies.1.is_ok());
    let third = fixture.running(fixture.kitchen.cook()).await;
    fixture.cook.recorder.gate.add_permits(1);
    assert_eq!(within("the reply", third.finish()).await, Ok(3));
    let after = fixture.kitchen.port(&CallContext::new()).await.unwrap();
    assert_eq!(before, after, "the connection was replaced");
}

#[tokio::test]
async fn a_rejected_call_is_retried_when_there_is_capacity() {
    let fixture = Fixture::with(Server::builder(), Client::builder()).await;
    let first = fixture.running(fixture.kitchen.cook()).await;
    let second = fixture.running(fixture.kitchen.cook()).await;
    let third = started(fixture.kitchen.cook()).await;
    // It follows the third on the wire: when its reply is there, the third has been rejected.
    fixture.kitchen.port(&CallContext::new()).await.unwrap();
    assert_eq!(fixture.cook.recorder.runs(), 2);
    fixture.cook.recorder.gate.add_permits(3);
    for call in [first, second, third] {
        assert!(within("the reply", call.finish()).await.is_ok());
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_no_longer_counts() {
    let fixture = Fixture::start(Server::builder()).await;
    let first = fixture.running(fixture.kitchen.cook()).await;
    let second = fixture.running(fixture.kitchen.cook()).await;
    drop(first);
    within("the end of the handler", fixture.cook.left.notified()).await;
    let third = fixture.running(fixture.kitchen.cook()).await;
    fixture.cook.recorder.gate.add_permits(2);
    assert!(within("the reply", second.finish()).await.is_ok());
    assert!(within("the reply", third.finish()).await.is_ok());
}

#[tokio::test]
async fn a_rejected_call_is_not_decoded() {
    let server = Server::builder().max_concurrency(Concurrency::AtMost(1));
    let fixture = Fixture::start(server).await;
    let broken = request(CodecId::BINCODE, Some(LONG), b"\xff no arguments");
    let call = fixture
        .client
        .raw()
        .request("/kitchen/wash", broken.clone());
    let status = status_in(within("the reply", call).await.unwrap());
    assert_eq!(status.code(), Code::InvalidArgument);
    let _first = fixture.running(fixture.kitchen.wash("pan".into())).await;
    let call = fixture.client.raw().request("/kitchen/wash", broken);
    let status = status_in(within("the reply", call).await.unwrap());
    assert_rejected(&status, "option max_concurrency of the server");
}

#[tokio::test]
async fn the_methods_of_a_service_share_its_limit() {
    let server = Server::builder().service_max_concurrency("Kitchen", Concurrency::AtMost(1));
    let fixture = Fixture::start(server).await;
    let _first = fixture.running(fixture.kitchen.wash("pot".into())).await;
    let status = within("the rejection", fixture.kitchen.cook()).await;
    assert_rejected(&status.unwrap_err(), "option service_max_concurrency");
}

#[tokio::test]
async fn callers_without_an_envelope_are_rejected_in_their_own_form() {
    let server = Server::builder().max_concurrency(Concurrency::AtMost(1));
    let fixture = Fixture::start(server).await;
    let _first = fixture.running(fixture.kitchen.wash("pan".into())).await;
    let raw = fixture.client.raw();
    let text = async |path: &str, body: &'static str| {
        let reply = within("the rejection", raw.request(path, body)).await;
        String::from_utf8(reply.unwrap().to_vec()).unwrap()
    };
    let plain = text("/kitchen/wash", r#""plate""#).await;
    assert!(
        plain.starts_with(r#"{"code":8,"message":"the server runs 1"#),
        "{plain}"
    );
    let bytes = text("/kitchen/peel", "potato").await;
    assert!(bytes.contains("handler fail:the server runs 1"), "{bytes}");
}

#[tokio::test]
async fn a_server_at_capacity_still_replies_to_requests_of_the_protocol() {
    let server = Server::builder().max_concurrency(Concurrency::AtMost(1));
    let fixture = Fixture::start(server).await;
    let _first = fixture.running(fixture.kitchen.wash("pan".into())).await;
    // Connecting takes a hello and a channel; the server must reply to both.
    let other = Client::builder().retry(RetryPolicy::none());
    let other = within("the connection", other.connect(fixture.server.target())).await;
    let status = KitchenClient::new(other.unwrap()).wash("pot".into()).await;
    assert_rejected(&status.unwrap_err(), "option max_concurrency of the server");
}

#[tokio::test]
async fn a_rejection_by_the_limit_of_running_calls_says_when_to_retry_too() {
    let fixture = Fixture::start(Server::builder().max_running_calls(1)).await;
    let _first = fixture.running(fixture.kitchen.wash("pan".into())).await;
    let status = within("the rejection", fixture.kitchen.wash("pot".into())).await;
    assert_rejected(&status.unwrap_err(), "option max_running_calls");
}

#[tokio::test]
async fn a_policy_of_the_server_lifts_the_limit_of_a_method() {
    let policy = MethodPolicy::new().max_concurrency(Concurrency::AtMost(3));
    let server = Server::builder().method_policy("/kitchen/cook", policy);
    let fixture = Fixture::start(server).await;
    let calls = [
        fixture.running(fixture.kitchen.cook()).await,
        fixture.running(fixture.kitchen.cook()).await,
        fixture.running(fixture.kitchen.cook()).await,
    ];
    let status = within("the rejection", fixture.kitchen.cook()).await;
    assert_rejected(&status.unwrap_err(), "runs 3 calls");
    fixture.cook.recorder.gate.add_permits(3);
    for call in calls {
        assert!(within("the reply", call.finish()).await.is_ok());
    }
}

#[tokio::test]
async fn the_statistics_of_a_server_tell_the_limits_of_its_methods() {
    let policy = MethodPolicy::new().max_concurrency(Concurrency::Auto);
    let server = Server::builder()
        .max_concurrency(Concurrency::AtMost(100))
        .method_policy("/kitchen/wash", policy);
    let fixture = Fixture::start(server).await;
    let _cook = fixture.running(fixture.kitchen.cook()).await;
    let _wash = fixture.running(fixture.kitchen.wash("pan".into())).await;
    let _peel = fixture.running(fixture.kitchen.peel("potato".into())).await;
    let stats = fixture.server.stats();
    let limit = |path| stats.method(path).unwrap().max_concurrency;
    assert_eq!(limit("/kitchen/cook"), Some(2));
    assert!(limit("/kitchen/wash").is_some_and(|limit| limit > 2));
    assert_eq!(limit("/kitchen/peel"), None);
    let text = stats.to_prometheus();
    let line =
        "rpc_server_concurrency_limit{rpc_system_name=\"iip\",rpc_method=\"Kitchen/cook\"} 2\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(text.matches("rpc_server_concurrency_limit{").count(), 2);
}

#[tokio::test]
async fn options_for_unknown_names_fail_when_the_server_starts() {
    let service = || KitchenServer::new(Cook::default());
    let wrong = [
        Server::builder().method_policy("/kitchen/cok", MethodPolicy::new()),
        Server::builder().service_max_concurrency("kitchen", Concurrency::Auto),
    ];
    for (server, option) in wrong
        .into_iter()
        .zip(["method_policy", "service_max_concurrency"])
    {
        let error = server.service(service()).in_memory().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(option), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_finds_its_limit_keeps_calls_from_piling_up() {
    const CALLERS: u32 = 200;
    let server = Server::builder().max_concurrency(Concurrency::Auto);
    let fixture = Fixture::start(server).await;
    let finished = Arc::new(AtomicU32::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (kitchen, finished) = (fixture.kitchen.clone(), Arc::clone(&finished));
            spawn(async move {
                while finished.load(Ordering::Relaxed) < 500 {
                    match kitchen.fry().await {
                        Ok(()) => _ = finished.fetch_add(1, Ordering::Relaxed),
                        Err(status) => {
                            assert_rejected(&status, "option max_concurrency of the server");
                            // The caller retries too soon: this is the overload.
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        within("the caller", caller).await.unwrap();
    }
    let maximum = fixture.cook.maximum.load(Ordering::SeqCst);
    assert!(maximum <= CALLERS / 3, "{maximum} at a time");
    assert_eq!(fixture.cook.frying.load(Ordering::SeqCst), 0);
}
