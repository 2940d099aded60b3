//! Connections that are replaced: aborted attempts, connections that are lost during calls,
//! connections that cannot be made, and servers that do not reply.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iip_core::transport::{ConnectFuture, Connected, Connector, MemoryConnector};
use iip_core::{
    CallError, CallErrorKind, Client, Execution, HandlerError, Limits, OnCancel, Request, Response,
    Server, ServerBuilder, handler_fn,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted, listener};
use crate::common::victim::honest;
use crate::common::{GUARD, bound, spawn, within};

/// No deadline ends a call with it.
const LONG: Duration = Duration::from_secs(600);

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

async fn echo(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(request.into_body()))
}

/// Starts a server that echoes, on a separate runtime.
fn echo_server() -> (Runtime, Server, String) {
    let servers = runtime();
    let config = Server::builder().route("/echo", handler_fn(echo));
    let (server, addr) = servers.block_on(bound(config));
    (servers, server, addr.to_string())
}

/// The behavior of an attempt to connect.
#[derive(Clone, Copy, Debug)]
enum Attempt {
    Hang,
    Panic,
    Fail,
    Connect,
}

/// A connector that follows a list of attempts, and connects after them.
#[derive(Debug)]
struct Plan {
    target: String,
    attempts: Vec<Attempt>,
    made: Arc<AtomicUsize>,
}

impl Plan {
    fn new(target: &str, attempts: &[Attempt]) -> Self {
        Self {
            target: target.to_owned(),
            attempts: attempts.to_vec(),
            made: Arc::default(),
        }
    }
}

impl Connector for Plan {
    fn connect(&self) -> ConnectFuture<'_> {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let attempt = self.attempts.get(made).copied();
        Box::pin(async move {
            match attempt.unwrap_or(Attempt::Connect) {
                Attempt::Hang => std::future::pending().await,
                Attempt::Panic => panic!("this connector panics"),
                Attempt::Fail => Err(std::io::ErrorKind::ConnectionRefused.into()),
                Attempt::Connect => Ok(Connected::new(TcpStream::connect(&self.target).await?)),
            }
        })
    }

    fn describe(&self) -> String {
        self.target.clone()
    }
}

/// Calls until it works: a short pause follows a failed attempt, and no event marks its end.
async fn echoes(client: &Client) {
    let calls = async {
        while let Err(error) = client.request("/echo", "x").await {
            assert_eq!(error.execution(), Execution::NotSent, "{error}");
            tokio::task::yield_now().await;
        }
    };
    within("a reply", calls).await;
}

#[test]
fn an_attempt_that_ends_with_its_runtime_is_repeated_on_the_next_one() {
    let (_servers, _server, target) = echo_server();
    let config = Client::builder().connect_timeout(LONG).timeout(LONG);
    let client = config
        .connect_lazy_with(Plan::new(&target, &[Attempt::Hang, Attempt::Hang]))
        .unwrap();
    for _ in 0..2 {
        let first = runtime();
        let call = client.clone();
        let call = first.spawn(async move { call.request("/echo", "x").await });
        // The attempt has begun when the second caller waits for it.
        first.block_on(async {
            let mut waits = std::pin::pin!(client.request("/echo", "y"));
            std::future::poll_fn(|cx| {
                assert!(waits.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        });
        drop(first);
        drop(call);
    }
    runtime().block_on(echoes(&client));
}

#[test]
fn a_caller_on_another_runtime_takes_over_an_aborted_attempt() {
    let (_servers, _server, target) = echo_server();
    let config = Client::builder().connect_timeout(LONG).timeout(LONG);
    let plan = Plan::new(&target, &[Attempt::Hang]);
    let made = Arc::clone(&plan.made);
    let client = config.connect_lazy_with(plan).unwrap();
    let (first, second) = (runtime(), runtime());
    let call = client.clone();
    first.spawn(async move { call.request("/echo", "x").await });
    while made.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let call = second.spawn(async move { client.request("/echo", "y").await });
    drop(first);
    let reply = second.block_on(within("the reply", call)).unwrap();
    assert_eq!(reply.unwrap(), "y");
}

#[test]
fn a_connector_that_panics_fails_the_calls_that_wait_and_is_called_again() {
    let (_servers, _server, target) = echo_server();
    let client = Client::builder()
        .timeout(LONG)
        .connect_lazy_with(Plan::new(&target, &[Attempt::Panic]))
        .unwrap();
    runtime().block_on(async {
        let error = within("the failure", client.request("/echo", "x")).await;
        let error = error.unwrap_err();
        assert!(matches!(error.kind(), CallErrorKind::Connect { .. }));
        assert_eq!(error.execution(), Execution::NotSent);
        assert!(format!("{error:?}").contains("panicked"), "{error:?}");
        echoes(&client).await;
    });
}

#[test]
fn a_call_outside_a_runtime_fails_at_once_and_the_next_one_inside_works() {
    let (_servers, _server, target) = echo_server();
    let client = Client::builder().connect_lazy(&target).unwrap();
    let outside = |client: &Client| -> CallError {
        let mut call = std::pin::pin!(client.request("/echo", "x"));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match call.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(outcome) => outcome.unwrap_err(),
            std::task::Poll::Pending => panic!("it waits"),
        }
    };
    for _ in 0..3 {
        let error = outside(&client);
        assert!(matches!(error.kind(), CallErrorKind::NoRuntime), "{error}");
        assert_eq!(error.execution(), Execution::NotSent);
        assert!(error.to_string().contains("outside a Tokio runtime"));
    }
    let inside = runtime();
    inside.block_on(echoes(&client));
    // The connection ends with its runtime.
    drop(inside);
    let error = outside(&client);
    assert!(matches!(error.kind(), CallErrorKind::NoRuntime), "{error}");
    runtime().block_on(echoes(&client));
}

/// Accepts connections one after the other. Each grants channels and closes once it has read a
/// request with the body "die"; all others are echoed.
async fn dies_on_request(listener: TcpListener) {
    loop {
        let mut peer = Peer::over(accepted(&listener).await);
        let mut granted = 0;
        loop {
            let frame = match peer.next().await {
                crate::common::peer::Seen::Frame(frame) => frame,
                crate::common::peer::Seen::Closed { .. } => break,
            };
            match frame.path_text().as_str() {
                "/sys/new_channel" => {
                    granted += 1;
                    peer.send_frame(&RawFrame::grant(granted)).await;
                }
                _ if frame.body == b"die" => break,
                _ => {
                    let echo = RawFrame::reply(&frame.path, frame.channel, &frame.body);
                    peer.send_frame(&echo).await;
                }
            }
        }
    }
}

async fn survives_a_thousand_losses(client: Client) {
    for round in 0..1000 {
        let lost = client.request("/a", "die").await.unwrap_err();
        assert_eq!(lost.execution(), Execution::MayHaveExecuted, "{lost}");
        // The next action of the caller is another call.
        match client.request("/a", "live").await {
            Ok(reply) => assert_eq!(reply, "live"),
            Err(error) => panic!("round {round}: {error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_call_right_after_a_loss_uses_a_new_connection() {
    let (listener, addr) = listener().await;
    let server = spawn(dies_on_request(listener));
    let client = Client::builder().timeout(LONG);
    let client = client.connect_lazy(addr.to_string()).unwrap();
    let rounds = spawn(survives_a_thousand_losses(client));
    // A thousand connections take long on a busy machine.
    tokio::time::timeout(6 * GUARD, rounds)
        .await
        .unwrap()
        .unwrap();
    server.abort();
}

#[tokio::test]
async fn calls_that_wait_for_a_channel_of_a_lost_connection_use_the_next_one() {
    let (listener, addr) = listener().await;
    let config = Client::builder().max_channels(1).timeout(LONG);
    let client = config.connect_lazy(addr.to_string()).unwrap();
    let call = |body: Bytes| {
        let client = client.clone();
        spawn(async move { client.request("/echo", body).await })
    };
    let sent = call(Bytes::from_static(b"sent"));
    let mut peer = Peer::over(accepted(&listener).await);
    peer.grants(1).await;
    assert_eq!(peer.frame().await.body, b"sent");
    let mut queued = Vec::new();
    // Both are kept: a call that is copied while it waits, and one that is moved.
    for size in [10, 20_000] {
        let body = Bytes::from(vec![b'q'; size]);
        queued.push((body.clone(), call(body)));
    }
    let one_way = client.clone();
    let one_way = spawn(async move { one_way.send("/echo", "one way").await });
    let lease = client.clone();
    let lease = spawn(async move { lease.open_channel().await });
    tokio::task::yield_now().await;
    drop(peer);
    let error = within("the loss", sent).await.unwrap().unwrap_err();
    assert_eq!(error.execution(), Execution::MayHaveExecuted);
    let mut peer = Peer::over(accepted(&listener).await);
    honest(&mut peer, 0, 3).await;
    for (body, call) in queued {
        assert_eq!(within("a reply", call).await.unwrap().unwrap(), body);
    }
    within("the sending", one_way).await.unwrap().unwrap();
    within("the channel", lease).await.unwrap().unwrap();
}

/// Makes connections that grant a channel and end at the first bytes of a request.
#[derive(Debug, Default)]
struct Dying(Arc<AtomicUsize>);

impl Connector for Dying {
    fn connect(&self) -> ConnectFuture<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (near, mut far) = tokio::io::duplex(64);
        spawn(async move {
            let asked = RawFrame::new(1, "/sys/new_channel", 0, "{}").encode().len();
            far.read_exact(&mut vec![0; asked]).await?;
            far.write_all(&RawFrame::grant(1).encode()).await?;
            far.read_u8().await
        });
        Box::pin(async { Ok(Connected::new(near)) })
    }

    fn describe(&self) -> String {
        "a peer that dies".to_owned()
    }
}

#[tokio::test]
async fn a_call_does_not_follow_dying_connections_for_ever() {
    let connector = Dying::default();
    let made = Arc::clone(&connector.0);
    let config = Client::builder().timeout(LONG);
    let client = config.connect_lazy_with(connector).unwrap();
    let call = client.request("/echo", vec![b'x'; 1000]);
    let error = within("the failure", call).await.unwrap_err();
    assert!(matches!(error.kind(), CallErrorKind::ConnectionLost(_)));
    assert_eq!(error.execution(), Execution::NotSent);
    assert_eq!(made.load(Ordering::Relaxed), 6, "five times to another one");
}

#[tokio::test]
async fn the_calls_of_a_connection_that_cannot_be_made_use_the_next_live_one() {
    let (listener, addr) = listener().await;
    let server = spawn(async move {
        let mut peer = Peer::over(accepted(&listener).await);
        honest(&mut peer, 0, 100).await;
        peer
    });
    // The first attempt makes a connection; all attempts for the second one fail.
    let mut attempts = vec![Attempt::Fail; 1000];
    attempts[0] = Attempt::Connect;
    let client = Client::builder().connections(2).timeout(LONG);
    let client = client
        .connect_lazy_with(Plan::new(&addr.to_string(), &attempts))
        .unwrap();
    for _ in 0..100 {
        let reply = within("a reply", client.request("/echo", "x")).await;
        assert_eq!(reply.unwrap(), "x");
    }
    within("the server", server).await.unwrap();
}

#[tokio::test]
async fn calls_return_to_a_connection_that_was_lost_once_it_can_be_made_again() {
    let (first, addr) = listener().await;
    let attempts = [
        Attempt::Connect,
        Attempt::Connect,
        Attempt::Fail,
        Attempt::Connect,
    ];
    let plan = Plan::new(&addr.to_string(), &attempts);
    let made = Arc::clone(&plan.made);
    let client = Client::builder().connections(2).timeout(LONG);
    let client = client.connect_lazy_with(plan).unwrap();
    let serve = |listener: TcpListener| async move {
        let mut peers = JoinSet::new();
        let mut accepted_one = Vec::new();
        for _ in 0..2 {
            let stream = accepted(&listener).await;
            accepted_one.push(stream.peer_addr().unwrap());
            peers.spawn(async move {
                let mut peer = Peer::over(stream);
                honest(&mut peer, 0, usize::MAX).await;
            });
        }
        (listener, peers)
    };
    let serving = spawn(serve(first));
    while made.load(Ordering::Relaxed) < 2 {
        echoes(&client).await;
    }
    let (again, mut peers) = within("two connections", serving).await.unwrap();
    // Both connections end; one attempt fails, the next ones connect.
    peers.shutdown().await;
    let serving = spawn(serve(again));
    let at_last = async {
        while !serving.is_finished() {
            // Calls that were sent when the connections ended may have run.
            let _ = client.request("/echo", "x").await;
            tokio::task::yield_now().await;
        }
    };
    within("two connections again", at_last).await;
    for _ in 0..10 {
        echoes(&client).await;
    }
}

/// A server with a method that never returns, even when its caller has gone.
fn hanging() -> ServerBuilder {
    let hang = handler_fn(|_: Request| std::future::pending()).on_cancel(OnCancel::RunToEnd);
    Server::builder()
        .route("/echo", handler_fn(echo))
        .route("/hang", hang)
}

async fn hanging_server() -> (Server, String) {
    let (server, addr) = bound(hanging()).await;
    (server, addr.to_string())
}

/// Makes `calls` calls that hang, and waits until their timeouts have passed.
async fn hang(client: &Client, calls: usize) {
    let mut hanging = JoinSet::new();
    for _ in 0..calls {
        let client = client.clone();
        let options = iip_core::CallOptions::new().timeout(Duration::from_millis(300));
        hanging.spawn(async move { client.request_with("/hang", "x", options).await });
    }
    while let Some(outcome) = within("the timeouts", hanging.join_next()).await {
        outcome.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn a_method_that_hangs_does_not_block_others() {
    for connections in [1, 2] {
        for hello in [false, true] {
            let (_server, target) = hanging_server().await;
            let mut config = Client::builder().connections(connections);
            config = config.timeout(LONG);
            if hello {
                config = config.hello(serde_json::json!({}));
            }
            let client = config.connect(&target).await.unwrap();
            hang(&client, 1100 * connections).await;
            for _ in 0..2 * connections {
                // The connection counts as stalled after half a second.
                let call = client.request("/echo", "are you there");
                let reply = within("a reply", call).await;
                assert_eq!(reply.unwrap(), "are you there");
            }
        }
    }
}

#[tokio::test]
async fn a_stalled_connection_is_replaced_for_calls_with_short_timeouts_too() {
    let (_server, target) = hanging_server().await;
    let config = Client::builder().max_channels(16);
    let client = config.connect(&target).await.unwrap();
    hang(&client, 16).await;
    let calls = async {
        loop {
            let options = iip_core::CallOptions::new().timeout(Duration::from_millis(100));
            match client.request_with("/echo", "x", options).await {
                Ok(reply) => return reply,
                // On a busy machine it may be sent and time out.
                Err(error) => {
                    let waited = error.is_timeout() || error.execution() == Execution::NotSent;
                    assert!(waited, "{error}");
                }
            }
        }
    };
    assert_eq!(within("a reply", calls).await, "x");
}

#[tokio::test]
async fn a_retired_connection_keeps_the_calls_it_has_and_ends_with_the_last() {
    let (listener, addr) = listener().await;
    let config = Client::builder().max_channels(4).timeout(LONG);
    let client = config.connect_lazy(addr.to_string()).unwrap();
    let living = client.clone();
    let living = spawn(async move { living.request("/living", "x").await });
    let mut old = Peer::over(accepted(&listener).await);
    old.grants(1).await;
    let living_frame = old.frame().await;
    let mut hanging = JoinSet::new();
    for _ in 0..3 {
        let client = client.clone();
        hanging.spawn(async move { client.request("/hang", "x").await });
    }
    let mut granted = 1;
    let mut requests = 0;
    while requests < 3 {
        let frame = old.frame().await;
        if frame.path_text() == "/sys/new_channel" {
            granted += 1;
            old.send_frame(&RawFrame::grant(granted)).await;
        } else {
            requests += 1;
        }
    }
    hanging.shutdown().await;
    let next = client.clone();
    let next = spawn(async move { next.request("/echo", "y").await });
    let mut new = Peer::over(accepted(&listener).await);
    honest(&mut new, 0, 1).await;
    assert_eq!(within("the reply", next).await.unwrap().unwrap(), "y");
    // The old one still serves the call that it has.
    old.send_frame(&RawFrame::reply("/living", living_frame.channel, "z"))
        .await;
    assert_eq!(within("the reply", living).await.unwrap().unwrap(), "z");
    let last = old.closed().await;
    assert_eq!(last.len(), 1, "a goodbye: {last:?}");
}

/// Counts the connections.
#[derive(Debug)]
struct Counted(MemoryConnector, Arc<AtomicUsize>);

impl Connector for Counted {
    fn connect(&self) -> ConnectFuture<'_> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.connect()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_replies_gets_new_connections_at_growing_intervals() {
    // In memory, because a paused clock does not wait for sockets.
    let (_server, memory) = hanging().in_memory().unwrap();
    let connector = Counted(memory, Arc::default());
    let made = Arc::clone(&connector.1);
    let config = Client::builder().max_channels(2);
    let client = config.connect_lazy_with(connector).unwrap();
    let began = tokio::time::Instant::now();
    let mut calls = JoinSet::new();
    // Every call hangs for two minutes.
    while began.elapsed() < Duration::from_secs(120) {
        let client = client.clone();
        let options = iip_core::CallOptions::new().timeout(Duration::from_millis(100));
        calls.spawn(async move { client.request_with("/hang", "x", options).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let made = made.load(Ordering::Relaxed);
    assert!(
        (5..=20).contains(&made),
        "{made} connections in two minutes"
    );
}

/// A connection is busy from its sixteenth call in a row, and looks at its limits more rarely then.
#[tokio::test(start_paused = true)]
async fn a_busy_connection_keeps_its_time_limits() {
    const CALLS: usize = 50;
    let (deadline, idle) = (Duration::from_millis(300), Duration::from_secs(20));
    let late = Duration::from_millis(20);
    // In memory, because a paused clock does not wait for sockets.
    let config = hanging().limits(Limits::default().idle_timeout(idle));
    let (server, memory) = config.in_memory().unwrap();
    let client = Client::builder().connect_with(memory).await.unwrap();
    let busy = async || {
        for _ in 0..CALLS {
            client.request("/echo", "x").await.unwrap();
        }
        assert_eq!(server.connections(), 1);
        tokio::time::Instant::now()
    };
    let since = busy().await;
    while server.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = since.elapsed();
    assert!((idle..idle + late).contains(&took), "{took:?}");

    let since = busy().await;
    let options = iip_core::CallOptions::new().timeout(deadline);
    let error = client.request_with("/hang", "x", options).await;
    assert!(error.is_err());
    let took = since.elapsed();
    assert!((deadline..deadline + late).contains(&took), "{took:?}");
}
