//! Limits of typed calls: the error names the limit, only one call fails, and the connection stays
//! open.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::{
    CallContext, Client, ClientBuilder, Code, Execution, Limits, Server, ServerBuilder, Status,
    service,
};
use tokio::sync::{Notify, Semaphore};

use crate::common::calls::{expect, port, serve_with, use_permit};
use crate::common::{MIB, Started, spawn, started, within};

/// No deadline ends a call in these tests.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Store {
    async fn put(&self, data: Bytes) -> Result<u64, Status>;
    async fn get(&self, size: u64) -> Result<Bytes, Status>;
    #[rpc(raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
    #[rpc(json)]
    async fn text(&self, size: u64) -> Result<String, Status>;
    /// Keeps the order of its calls.
    async fn queue(&self, number: u32) -> Result<u32, Status>;
    async fn hang(&self) -> Result<(), Status>;
    async fn port(&self, ctx: &CallContext) -> Result<u16, Status>;
}

struct Shelf {
    order: Arc<Mutex<Vec<u32>>>,
    gate: Arc<Semaphore>,
    entered: Arc<Notify>,
}

impl Store for Shelf {
    async fn put(&self, data: Bytes) -> Result<u64, Status> {
        Ok(data.len() as u64)
    }

    async fn get(&self, size: u64) -> Result<Bytes, Status> {
        Ok(vec![7; size as usize].into())
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body.repeat(2).into())
    }

    async fn text(&self, size: u64) -> Result<String, Status> {
        Ok("x".repeat(size as usize))
    }

    async fn queue(&self, number: u32) -> Result<u32, Status> {
        self.order.lock().unwrap().push(number);
        use_permit(&self.gate).await?;
        Ok(number)
    }

    async fn hang(&self) -> Result<(), Status> {
        self.entered.notify_one();
        std::future::pending().await
    }

    async fn port(&self, ctx: &CallContext) -> Result<u16, Status> {
        port(ctx)
    }
}

struct Fixture {
    server: Server,
    store: StoreClient,
    order: Arc<Mutex<Vec<u32>>>,
    gate: Arc<Semaphore>,
    entered: Arc<Notify>,
}

impl Fixture {
    async fn start(server: ServerBuilder, client: ClientBuilder) -> Self {
        let (order, gate) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let entered = Arc::new(Notify::new());
        let shelf = Shelf {
            order: Arc::clone(&order),
            gate: Arc::clone(&gate),
            entered: Arc::clone(&entered),
        };
        let (server, client) =
            serve_with(StoreServer::new(shelf), server, client.timeout(LONG)).await;
        Self {
            server,
            store: StoreClient::new(client),
            order,
            gate,
            entered,
        }
    }

    /// Runs `fail` and asserts that the connection is the same before and after it and still serves
    /// calls.
    async fn on_a_connection_that_lives<T>(&self, fail: impl Future<Output = T>) -> T {
        let ctx = CallContext::new();
        let before = within("a call before", self.store.port(&ctx)).await;
        let outcome = within("the failure", fail).await;
        let after = within("a call after", self.store.port(&ctx)).await;
        assert_eq!(
            before.unwrap(),
            after.unwrap(),
            "the connection was replaced"
        );
        assert_eq!(self.store.put(vec![1; 10].into()).await, Ok(10));
        outcome
    }

    /// Starts so many calls of `queue`, in this order.
    async fn queued(
        &self,
        calls: u32,
    ) -> Vec<Started<impl Future<Output = Result<u32, Status>> + use<>>> {
        let mut queued = Vec::new();
        for number in 0..calls {
            let store = self.store.clone();
            queued.push(started(async move { store.queue(number).await }).await);
        }
        queued
    }

    /// Starts so many calls of `queue`, and lets them run: each gets its reply.
    async fn queue_finishes(&self, calls: u32) {
        let queued = self.queued(calls).await;
        self.gate.add_permits(calls as usize);
        reply_in_order(queued).await;
    }
}

async fn reply_in_order(calls: Vec<Started<impl Future<Output = Result<u32, Status>>>>) {
    for (number, call) in (0..).zip(calls) {
        assert_eq!(within("a reply", call.finish()).await, Ok(number));
    }
}

#[track_caller]
fn expect_too_large(status: &Status, execution: Execution, size: usize, limit: usize) {
    expect(status, Code::ResourceExhausted, execution);
    let text = status.message();
    assert!(text.contains("max_message_bytes"), "{text}");
    assert!(text.contains(&limit.to_string()), "{text}");
    // The envelope adds a few bytes to the size of the data.
    let named = text.split(|c: char| !c.is_ascii_digit());
    let named = named.filter_map(|number| number.parse::<usize>().ok());
    assert!(
        named.into_iter().any(|n| n > limit && n <= size + 64),
        "{text}"
    );
}

const LIMIT: usize = 3 * 1024 * 1024;
const TOO_LARGE: usize = LIMIT + 5_000;
const FAR_TOO_LARGE: usize = 10 * LIMIT;

#[tokio::test]
async fn a_request_over_the_limit_of_the_client_is_not_sent() {
    let client = Client::builder().max_message_bytes(LIMIT);
    let fixture = Fixture::start(Server::builder(), client).await;
    let call = fixture.store.put(vec![7; TOO_LARGE].into());
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::NotSent, TOO_LARGE, LIMIT);
    let call = fixture.store.raw(vec![7; TOO_LARGE].into());
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::NotSent, TOO_LARGE, LIMIT);
}

#[tokio::test]
async fn a_request_over_the_limit_of_the_server_is_not_executed() {
    let server = Server::builder().max_message_bytes(LIMIT);
    let client = Client::builder().max_message_bytes(100 * LIMIT);
    let fixture = Fixture::start(server, client).await;
    for size in [TOO_LARGE, FAR_TOO_LARGE] {
        let call = fixture.store.put(vec![7; size].into());
        let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
        expect_too_large(&status, Execution::NotExecuted, size, LIMIT);
    }
    let call = fixture.store.put(vec![7; LIMIT - 100].into());
    assert_eq!(
        within("a call below the limit", call).await,
        Ok(LIMIT as u64 - 100)
    );
}

#[tokio::test]
async fn limits_without_a_message_size_leave_it_as_it_was_set() {
    const SMALL: usize = 100_000;
    let few = || Limits::default().max_channels(7);
    let server = Server::builder().max_message_bytes(SMALL).limits(few());
    let fixture = Fixture::start(server, Client::builder()).await;
    let call = fixture.store.put(vec![7; 2 * SMALL].into());
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::NotExecuted, 2 * SMALL, SMALL);

    let client = Client::builder().limits(few());
    let fixture = Fixture::start(Server::builder(), client).await;
    let call = fixture.store.put(vec![7; 17 * MIB].into());
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::NotSent, 17 * MIB, 16 * MIB);
}

#[tokio::test]
async fn a_reply_over_the_limit_of_the_server_names_it() {
    let server = Server::builder().max_message_bytes(LIMIT);
    let client = Client::builder().max_message_bytes(100 * LIMIT);
    let fixture = Fixture::start(server, client).await;
    let call = fixture.store.get(TOO_LARGE as u64);
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::MayHaveExecuted, TOO_LARGE, LIMIT);
}

#[tokio::test]
async fn a_reply_over_the_limit_of_the_client_names_it() {
    let server = Server::builder().max_message_bytes(100 * LIMIT);
    let client = Client::builder().max_message_bytes(LIMIT);
    let fixture = Fixture::start(server, client).await;
    for size in [TOO_LARGE, FAR_TOO_LARGE] {
        let call = fixture.store.get(size as u64);
        let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
        expect_too_large(&status, Execution::MayHaveExecuted, size, LIMIT);
    }
    let call = fixture.store.text(TOO_LARGE as u64);
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::MayHaveExecuted, TOO_LARGE, LIMIT);
    let call = fixture.store.get(LIMIT as u64 - 100);
    let data = within("a call below the limit", call).await.unwrap();
    assert_eq!(data.len(), LIMIT - 100);
}

#[tokio::test]
async fn small_messages_over_a_small_limit_are_rejected_in_the_same_way() {
    let server = Server::builder().max_message_bytes(150);
    let fixture = Fixture::start(server, Client::builder()).await;
    let call = fixture.store.put(vec![7; 200].into());
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::NotExecuted, 200, 150);
    let call = fixture.store.get(200);
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::MayHaveExecuted, 200, 150);
    let client = Client::builder().max_message_bytes(150);
    let fixture = Fixture::start(Server::builder(), client).await;
    let call = fixture.store.get(200);
    let status = fixture.on_a_connection_that_lives(call).await.unwrap_err();
    expect_too_large(&status, Execution::MayHaveExecuted, 200, 150);
}

#[tokio::test]
async fn more_calls_than_channels_wait_and_finish_in_order() {
    const CALLS: u32 = 50;
    let client = Client::builder().limits(Limits::default().max_channels(1));
    let fixture = Fixture::start(Server::builder(), client).await;
    fixture.queue_finishes(CALLS).await;
    let order = fixture.order.lock().unwrap();
    assert!(order.iter().copied().eq(0..CALLS), "{order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_more_calls_than_channels_all_finish() {
    const CALLS: u32 = 2_000;
    let client = Client::builder().limits(Limits::default().max_channels(7));
    let fixture = Fixture::start(Server::builder(), client).await;
    fixture.gate.add_permits(CALLS as usize);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CALLS {
        let store = fixture.store.clone();
        calls.spawn(async move { assert_eq!(store.queue(number).await, Ok(number)) });
    }
    within("all replies", calls.join_all()).await;
    assert_eq!(fixture.order.lock().unwrap().len(), CALLS as usize);
}

#[tokio::test]
async fn a_client_that_wants_more_channels_than_the_server_has_uses_those() {
    const CALLS: u32 = 20;
    let server = Server::builder().limits(Limits::default().max_channels(4));
    let fixture = Fixture::start(server, Client::builder()).await;
    fixture.queue_finishes(CALLS).await;
}

#[tokio::test]
async fn a_full_queue_rejects_at_once_and_names_its_option() {
    let client = Client::builder()
        .limits(Limits::default().max_channels(1))
        .max_queued_calls(2);
    let fixture = Fixture::start(Server::builder(), client).await;
    let calls = fixture.queued(3).await;
    let status = within("the rejection", fixture.store.queue(3))
        .await
        .unwrap_err();
    expect(&status, Code::ResourceExhausted, Execution::NotSent);
    assert!(status.message().contains("max_queued_calls"), "{status}");
    assert!(status.message().contains('2'), "{status}");
    fixture.gate.add_permits(10);
    reply_in_order(calls).await;
    assert_eq!(within("a call after", fixture.store.queue(4)).await, Ok(4));
}

#[tokio::test]
async fn callers_that_left_the_queue_no_longer_count() {
    let client = Client::builder()
        .limits(Limits::default().max_channels(1))
        .max_queued_calls(2);
    let fixture = Fixture::start(Server::builder(), client).await;
    let store = fixture.store.clone();
    let first = started(async move { store.queue(0).await }).await;
    for number in 1..20 {
        let store = fixture.store.clone();
        drop(started(async move { store.queue(number).await }).await);
    }
    let store = fixture.store.clone();
    let last = started(async move { store.queue(20).await }).await;
    fixture.gate.add_permits(2);
    assert_eq!(within("a reply", first.finish()).await, Ok(0));
    assert_eq!(within("a reply", last.finish()).await, Ok(20));
    assert_eq!(*fixture.order.lock().unwrap(), [0, 20]);
}

#[tokio::test]
async fn a_server_at_capacity_rejects_calls_and_names_the_option() {
    let server = Server::builder().max_running_calls(1);
    let fixture = Fixture::start(server, Client::builder()).await;
    let store = fixture.store.clone();
    let running = spawn(async move { store.hang().await });
    within("the handler", fixture.entered.notified()).await;
    let status = within("the rejection", fixture.store.put("x".into()))
        .await
        .unwrap_err();
    expect(&status, Code::ResourceExhausted, Execution::NotExecuted);
    assert!(status.message().contains("max_running_calls"), "{status}");
    running.abort();
    let retry = async {
        while fixture.store.put("x".into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within("a call that is accepted again", retry).await;
}

#[tokio::test]
async fn a_connection_over_the_limit_is_rejected_and_its_call_not_sent() {
    let server = Server::builder().max_connections(1);
    let fixture = Fixture::start(server, Client::builder()).await;
    let second = Client::connect(fixture.server.target());
    let status = within("the rejection", second).await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::NotSent);
    assert!(status.message().contains("max_connections"), "{status}");
    assert_eq!(fixture.store.put("x".into()).await, Ok(1));
}

#[tokio::test]
async fn a_connection_at_capacity_serves_the_next_call_as_soon_as_one_ends() {
    let server = Server::builder().limits(Limits::default().max_calls(2));
    let fixture = Fixture::start(server, Client::builder()).await;
    let mut calls = Vec::new();
    for number in 0..6 {
        let store = fixture.store.clone();
        calls.push(started(async move { store.queue(number).await }).await);
    }
    for (number, call) in (0..6).zip(calls) {
        fixture.gate.add_permits(1);
        assert_eq!(within("a reply", call.finish()).await, Ok(number));
    }
}

#[tokio::test]
async fn an_option_that_cannot_work_is_named() {
    for (client, option) in [
        (Client::builder().connections(0), "connections"),
        (Client::builder().max_queued_calls(0), "max_queued_calls"),
    ] {
        let status = client.connect_lazy("127.0.0.1:1").unwrap_err();
        expect(&status, Code::InvalidArgument, Execution::NotSent);
        assert!(status.message().contains(option), "{status}");
        let client = match option {
            "connections" => Client::builder().connections(0),
            _ => Client::builder().max_queued_calls(0),
        };
        let status = client.connect("127.0.0.1:1").await.unwrap_err();
        expect(&status, Code::InvalidArgument, Execution::NotSent);
    }
    let status = Client::connect("no address at all").await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::NotSent);
}
