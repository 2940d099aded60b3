//! Policies of methods: where they are read, which calls are retried, and the time limits of a
//! server.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::Body;
use iip_rpc::codec::CodecId;
use iip_rpc::{
    CallContext, CallOptions, Client, ClientBuilder, Code, Concurrency, Execution, Hedge, Limits,
    MethodPolicy, Priority, Pushback, RetryBudget, RetryPolicy, Server, ServerBuilder,
    ServerPolicy, Status, service,
};
use tokio::sync::Semaphore;

use crate::common::calls::{self, ShopError, expect, serve_with, status_in};
use crate::common::recorder::Recorder;
use crate::common::{all_run, passes, started, within};

/// A timeout that passes during the test.
const SHORT: Duration = Duration::from_secs(3);
/// A timeout that does not pass during the test.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Shop {
    /// Fails `failures` times with the status of the fixture.
    #[rpc(idempotent)]
    async fn look(&self, failures: u32, load: Bytes) -> Result<u32, Status>;
    /// The same, and must not run twice.
    async fn buy(&self, failures: u32) -> Result<u32, Status>;
    #[rpc(idempotent)]
    async fn fail_by_itself(&self) -> Result<u32, ShopError>;
    /// Runs until the test releases it.
    #[rpc(idempotent)]
    async fn hang(&self) -> Result<u32, Status>;
    async fn hang_once(&self) -> Result<u32, Status>;
    /// Returns the remaining time in microseconds.
    async fn remaining(&self) -> Result<Option<u64>, Status>;
    #[rpc(timeout = "3s")]
    async fn hang_shortly(&self) -> Result<(), Status>;
    #[rpc(raw)]
    async fn hang_raw(&self, body: Bytes) -> Result<Bytes, Status>;
    #[rpc(
        idempotent,
        hedge = "p95",
        priority = "high",
        max_concurrency = 7,
        auth = "clerk"
    )]
    async fn policies(&self, ctx: &CallContext) -> Result<String, Status>;
}

/// The status of the failures of the shop.
type Failing = fn() -> Status;

struct Counter {
    recorder: Recorder,
    failing: Failing,
}

impl Counter {
    fn run(&self, failures: u32) -> Result<u32, Status> {
        let run = self.recorder.run();
        if run <= failures {
            Err((self.failing)())
        } else {
            Ok(run)
        }
    }
}

impl Shop for Counter {
    async fn look(&self, failures: u32, _load: Bytes) -> Result<u32, Status> {
        self.run(failures)
    }

    async fn buy(&self, failures: u32) -> Result<u32, Status> {
        self.run(failures)
    }

    async fn fail_by_itself(&self) -> Result<u32, ShopError> {
        self.recorder.run();
        Err(ShopError::SoldOut)
    }

    async fn hang(&self) -> Result<u32, Status> {
        self.recorder.pass().await
    }

    async fn hang_once(&self) -> Result<u32, Status> {
        self.recorder.pass().await
    }

    async fn remaining(&self) -> Result<Option<u64>, Status> {
        self.recorder.run();
        let remaining = CallContext::current().and_then(|ctx| ctx.remaining());
        Ok(remaining.map(|remaining| remaining.as_micros() as u64))
    }

    async fn hang_shortly(&self) -> Result<(), Status> {
        self.recorder.entered.notify_one();
        std::future::pending().await
    }

    async fn hang_raw(&self, _body: Bytes) -> Result<Bytes, Status> {
        self.recorder.entered.notify_one();
        std::future::pending().await
    }

    async fn policies(&self, ctx: &CallContext) -> Result<String, Status> {
        let method = ctx.method().ok_or_else(|| Status::internal("no method"))?;
        assert!(method.is_idempotent());
        assert_eq!(method.hedge_policy(), Some(Hedge::Percentile(95)));
        assert_eq!(method.call_priority(), Priority::High);
        assert_eq!(method.concurrency(), Some(Concurrency::AtMost(7)));
        Ok(method.auth_requirement().unwrap_or_default().to_owned())
    }
}

struct Fixture {
    server: Server,
    client: Client,
    shop: ShopClient,
    recorder: Recorder,
}

impl Fixture {
    async fn start(failing: Failing) -> Self {
        Self::with(failing, Server::builder(), Client::builder()).await
    }

    async fn with(failing: Failing, server: ServerBuilder, client: ClientBuilder) -> Self {
        let recorder = Recorder::default();
        let counter = Counter {
            recorder: recorder.clone(),
            failing,
        };
        let (server, client) = serve_with(ShopServer::new(counter), server, client).await;
        let shop = ShopClient::new(client.clone());
        Self {
            server,
            client,
            shop,
            recorder,
        }
    }

    fn runs(&self) -> u32 {
        self.recorder.runs()
    }

    async fn look(&self, failures: u32) -> Result<u32, Status> {
        within("the reply", self.shop.look(failures, Bytes::new())).await
    }

    async fn buy(&self, failures: u32) -> Result<u32, Status> {
        within("the reply", self.shop.buy(failures)).await
    }

    /// Returns the reply to a call whose timeout, [`SHORT`], passes after its handler has begun.
    async fn stopped(&self, path: &str, body: impl Into<Body>) -> Bytes {
        let call = started(self.client.raw().request(path, body)).await;
        within("the handler", self.recorder.entered.notified()).await;
        passes(SHORT).await;
        within("the reply", call.finish()).await.unwrap()
    }
}

fn unavailable() -> Status {
    Status::unavailable("closed for lunch")
}

#[tokio::test]
async fn a_handler_reads_the_policies_of_its_method() {
    let fixture = Fixture::start(unavailable).await;
    let reply = fixture.shop.policies(&CallContext::new()).await;
    assert_eq!(reply.unwrap(), "clerk");
}

#[tokio::test]
async fn a_call_that_may_have_run_is_retried_if_its_method_is_idempotent() {
    let fixture = Fixture::start(unavailable).await;
    assert_eq!(fixture.look(2).await, Ok(3));
    let status = fixture.look(u32::MAX).await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    assert_eq!(fixture.runs(), 6, "three attempts");
}

#[tokio::test]
async fn a_call_that_may_have_run_is_not_retried_if_its_method_must_not_run_twice() {
    let fixture = Fixture::start(unavailable).await;
    let status = fixture.buy(1).await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn other_codes_and_errors_of_the_method_are_final() {
    let fixture = Fixture::start(|| Status::internal("broken")).await;
    assert_eq!(fixture.look(1).await.unwrap_err().code(), Code::Internal);
    assert_eq!(fixture.runs(), 1);
    let error = within("the reply", fixture.shop.fail_by_itself()).await;
    assert_eq!(error, Err(ShopError::SoldOut));
    assert_eq!(fixture.runs(), 2);
}

#[tokio::test]
async fn the_codes_and_attempts_of_a_client_are_its_own() {
    let policy = RetryPolicy::new()
        .retryable_codes([Code::Aborted])
        .max_attempts(5)
        .max_backoff(Duration::from_millis(1));
    let client = Client::builder().retry(policy);
    let failing = || Status::aborted("lost a race");
    let fixture = Fixture::with(failing, Server::builder(), client).await;
    assert_eq!(fixture.look(4).await, Ok(5));
    let fixture = Fixture::with(
        unavailable,
        Server::builder(),
        Client::builder().retry(RetryPolicy::none()),
    );
    let fixture = fixture.await;
    assert!(fixture.look(1).await.is_err());
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn a_policy_for_one_method_prevails_over_its_attributes_and_over_the_client() {
    let client = Client::builder()
        .method_policy("/shop/buy", MethodPolicy::new().idempotent(true))
        .method_policy("/shop/look", MethodPolicy::new().retry(RetryPolicy::none()))
        .method_policy("/shop/hang_once", MethodPolicy::new().timeout(SHORT))
        .timeout(LONG);
    let fixture = Fixture::with(unavailable, Server::builder(), client).await;
    assert_eq!(fixture.buy(1).await, Ok(2));
    assert!(fixture.look(3).await.is_err());
    assert_eq!(fixture.runs(), 3);
    let call = started(fixture.shop.hang_once()).await;
    within("the handler", fixture.recorder.entered.notified()).await;
    passes(SHORT).await;
    let status = within("the timeout", call.finish()).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    // The options of the call still prevail.
    let patient = CallOptions::new().timeout(LONG);
    let patient = fixture.shop.with_options(patient);
    let call = started(patient.hang_once()).await;
    fixture.recorder.gate.add_permits(2);
    assert!(within("the reply", call.finish()).await.is_ok());
}

#[tokio::test]
async fn the_options_of_a_call_prevail_on_its_attempts() {
    let fixture = Fixture::start(unavailable).await;
    let attempts = |attempts| {
        let policy = RetryPolicy::new().max_attempts(attempts);
        fixture.shop.with_options(CallOptions::new().retry(policy))
    };
    let status = attempts(2).look(u32::MAX, Bytes::new()).await;
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
    assert_eq!(fixture.runs(), 2);
    assert_eq!(attempts(6).look(7, Bytes::new()).await, Ok(8));
    let none = CallOptions::new().retry(RetryPolicy::none());
    let none = fixture.shop.with_options(none);
    assert!(none.look(u32::MAX, Bytes::new()).await.is_err());
    assert_eq!(fixture.runs(), 9);

    // A call that has not run is retried nevertheless.
    let not_run = || unavailable().with_execution(Execution::NotExecuted);
    let fixture = Fixture::start(not_run).await;
    let repeats = CallOptions::new().retry(RetryPolicy::none());
    let repeats = repeats.wait_for_ready(true).max_transparent_retries(1);
    let twice = fixture.shop.with_options(repeats);
    assert!(twice.buy(u32::MAX).await.is_err());
    assert_eq!(fixture.runs(), 2);
    let once = CallOptions::new().max_transparent_retries(0);
    assert!(fixture.shop.with_options(once).buy(u32::MAX).await.is_err());
    assert_eq!(fixture.runs(), 3);
}

#[tokio::test]
async fn arguments_that_are_too_large_to_keep_are_not_sent_again() {
    let fixture = Fixture::start(unavailable).await;
    let load = Bytes::from(vec![7; 70_000]);
    let status = within("the reply", fixture.shop.look(1, load)).await;
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn retries_end_with_the_budget_of_the_client() {
    let budget = RetryBudget::new().max_tokens(2).token_ratio(0.0);
    let client = Client::builder().retry_budget(budget);
    let fixture = Fixture::with(unavailable, Server::builder(), client).await;
    for _ in 0..5 {
        assert!(fixture.look(u32::MAX).await.is_err());
    }
    assert_eq!(fixture.runs(), 5 + 2);
}

#[tokio::test]
async fn a_call_is_retried_when_the_server_said() {
    const PAUSE: Duration = Duration::from_millis(60);
    let failing = || Status::resource_exhausted("busy").with_retry_after(PAUSE);
    let fixture = Fixture::start(failing).await;
    let begun = Instant::now();
    assert_eq!(fixture.look(1).await, Ok(2));
    assert!(begun.elapsed() >= PAUSE, "{:?}", begun.elapsed());
    let status = fixture.buy(9).await.unwrap_err();
    assert_eq!(status.pushback(), Some(Pushback::After(PAUSE)));
    assert_eq!(fixture.runs(), 3, "it may have run");
}

#[tokio::test]
async fn a_call_that_did_not_run_is_retried_when_the_server_said() {
    let failing = || {
        Status::resource_exhausted("busy")
            .with_execution(Execution::NotExecuted)
            .with_retry_after(Duration::from_millis(1))
    };
    let fixture = Fixture::start(failing).await;
    assert_eq!(
        fixture.buy(2).await,
        Ok(3),
        "it ran once: the handler says so"
    );
}

#[tokio::test]
async fn a_call_is_not_retried_if_the_server_forbids_it() {
    let fixture = Fixture::start(|| unavailable().with_no_retry()).await;
    let status = fixture.look(1).await.unwrap_err();
    assert_eq!(status.pushback(), Some(Pushback::Never));
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn a_retry_after_the_deadline_is_not_waited_for() {
    let failing = || unavailable().with_retry_after(LONG);
    let client = Client::builder().timeout(LONG / 2);
    let fixture = Fixture::with(failing, Server::builder(), client).await;
    let status = fixture.look(1).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

/// Ends the server by force while a call runs, and starts another one on its address.
async fn replaced(fixture: &Fixture) -> Server {
    within("the call", fixture.recorder.entered.notified()).await;
    let target = fixture.server.target().to_owned();
    within("the end", fixture.server.shutdown(Duration::ZERO)).await;
    let next = Counter {
        recorder: Recorder {
            runs: Arc::clone(&fixture.recorder.runs),
            entered: Arc::default(),
            gate: Arc::new(Semaphore::new(100)),
        },
        failing: unavailable,
    };
    let server = Server::builder().service(ShopServer::new(next));
    server.bind(target).await.unwrap()
}

#[tokio::test]
async fn a_call_that_is_lost_with_its_server_is_retried_if_it_may_run_twice() {
    let client = Client::builder().wait_for_ready(true);
    let fixture = Fixture::with(unavailable, Server::builder(), client).await;
    let (call, server) = tokio::join!(within("the call", fixture.shop.hang()), replaced(&fixture));
    assert_eq!(call, Ok(2));
    drop(server);
}

#[tokio::test]
async fn a_call_that_is_lost_with_its_server_fails_if_it_must_not_run_twice() {
    let client = Client::builder().wait_for_ready(true);
    let fixture = Fixture::with(unavailable, Server::builder(), client).await;
    let (call, server) = tokio::join!(
        within("the call", fixture.shop.hang_once()),
        replaced(&fixture)
    );
    expect(
        &call.unwrap_err(),
        Code::Unavailable,
        Execution::MayHaveExecuted,
    );
    assert_eq!(fixture.runs(), 1);
    drop(server);
}

#[tokio::test]
async fn a_retry_that_finds_no_server_does_not_hide_that_the_call_may_have_run() {
    let fixture = Fixture::start(unavailable).await;
    let end = async {
        within("the call", fixture.recorder.entered.notified()).await;
        fixture.server.shutdown(Duration::ZERO).await;
    };
    let (call, ()) = tokio::join!(within("the call", fixture.shop.hang()), end);
    expect(
        &call.unwrap_err(),
        Code::Unavailable,
        Execution::MayHaveExecuted,
    );
}

fn bounded() -> ServerBuilder {
    Server::builder().policy(
        ServerPolicy::new()
            .min_timeout(Duration::from_secs(10))
            .max_timeout(Duration::from_secs(100))
            .default_timeout(SHORT),
    )
}

/// A request without arguments.
fn request(remaining: Option<Duration>) -> Bytes {
    calls::request(CodecId::BINCODE, remaining, b"")
}

#[tokio::test]
async fn a_deadline_over_the_limit_is_shortened() {
    let client = Client::builder().timeout(LONG);
    let fixture = Fixture::with(unavailable, bounded(), client).await;
    let left = fixture.shop.remaining().await.unwrap().unwrap();
    assert!((50_000_000..=100_000_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_call_with_too_little_time_is_rejected_before_it_runs() {
    let fixture = Fixture::with(unavailable, bounded(), Client::builder()).await;
    let hasty = CallOptions::new().timeout(Duration::from_secs(9));
    let call = fixture.shop.with_options(hasty);
    let status = within("the rejection", call.remaining()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::NotExecuted);
    assert!(status.message().contains("option min_timeout"), "{status}");
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn a_call_without_a_deadline_has_the_servers_default() {
    let fixture = Fixture::with(unavailable, bounded(), Client::builder()).await;
    let status = status_in(fixture.stopped("/shop/hang", request(None)).await);
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    assert!(status.message().contains("default_timeout"), "{status}");
    let reply = fixture.stopped("/shop/hang", "{}").await;
    let text = String::from_utf8(reply.to_vec()).unwrap();
    assert!(text.starts_with(r#"{"code":4,"#), "{text}");
    let reply = fixture.stopped("/shop/hang_raw", "x").await;
    let text = String::from_utf8(reply.to_vec()).unwrap();
    assert!(
        text.contains("handler fail:the handler was stopped"),
        "{text}"
    );
}

#[tokio::test]
async fn a_call_without_a_deadline_has_that_of_its_method() {
    let policy = MethodPolicy::new().timeout(SHORT);
    let server = Server::builder().method_policy("/shop/hang", policy);
    let fixture = Fixture::with(unavailable, server, Client::builder()).await;
    for path in ["/shop/hang_shortly", "/shop/hang"] {
        let status = status_in(fixture.stopped(path, request(None)).await);
        expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    }
}

#[tokio::test]
async fn a_call_that_has_waited_too_long_on_the_server_is_not_run() {
    let limits = Limits::default().max_calls(1);
    let client = Client::builder().timeout(LONG);
    let fixture = Fixture::with(unavailable, Server::builder().limits(limits), client).await;
    // A server at capacity opens no channels: three are opened before.
    let shop = &fixture.shop;
    let opened = tokio::join!(shop.remaining(), shop.remaining(), shop.remaining());
    assert!(opened.0.is_ok() && opened.1.is_ok() && opened.2.is_ok());
    let before = fixture.runs();
    let first = started(fixture.shop.hang_once()).await;
    within("the first call", fixture.recorder.entered.notified()).await;
    // The raw client waits longer than the timeout in its envelope.
    let raw = fixture.client.raw();
    let second = started(raw.request("/shop/remaining", request(Some(SHORT)))).await;
    let third = started(raw.request("/shop/remaining", request(Some(LONG)))).await;
    all_run().await;
    passes(2 * SHORT).await;
    fixture.recorder.gate.add_permits(1);
    assert!(within("the first reply", first.finish()).await.is_ok());
    let reply = within("the second reply", second.finish()).await.unwrap();
    let status = status_in(reply);
    expect(&status, Code::DeadlineExceeded, Execution::NotExecuted);
    let text = "deadline passed after it waited";
    assert!(status.message().contains(text), "{status}");
    within("the third reply", third.finish()).await.unwrap();
    assert_eq!(fixture.runs() - before, 2, "the first and the third");
}
