//! Connections that are lost or cannot be made: which calls fail, how soon, and how a client
//! reconnects.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use iip_rpc::{CallOptions, Client, Code, Execution, Limits, Server, Status, service};
use tokio::net::TcpListener;

use crate::common::calls::{expect, lazy};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted, listener};
use crate::common::{SERVED, spawn, started, within};

/// No deadline ends a call with it.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

#[service]
trait Work {
    async fn number(&self) -> Result<u32, Status>;
    async fn hang(&self) -> Result<(), Status>;
}

struct Shop(u32);

impl Work for Shop {
    async fn number(&self) -> Result<u32, Status> {
        Ok(self.0)
    }

    async fn hang(&self) -> Result<(), Status> {
        std::future::pending().await
    }
}

async fn serve(target: impl AsRef<str>, number: u32) -> Server {
    // The port of a server that was just shut down may be in use for a moment.
    let bind = async {
        loop {
            let server = Server::builder().service(WorkServer::new(Shop(number)));
            match server.bind(target.as_ref()).await {
                Ok(server) => return server,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{}: {error}", target.as_ref()),
            }
        }
    };
    within("a free port", bind).await
}

async fn client(target: impl AsRef<str>) -> WorkClient {
    let client = Client::builder()
        .timeout(LONG)
        .connect(target.as_ref())
        .await;
    WorkClient::new(client.unwrap())
}

/// Returns an address without a listener.
async fn nowhere() -> SocketAddr {
    listener().await.1
}

/// Calls until there is a reply. Failures before it must say that the call did not run.
async fn number_at_last(work: &WorkClient) -> u32 {
    let calls = async {
        loop {
            match work.number().await {
                Ok(number) => return number,
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    assert!(status.execution().is_safe_to_repeat(), "{status:?}");
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    within("a reply", calls).await
}

#[tokio::test]
async fn a_client_finds_its_server_again_after_a_restart_on_the_same_port() {
    let mut server = serve("127.0.0.1:0", 0).await;
    let target = server.target().to_owned();
    let work = client(&target).await;
    assert_eq!(work.number().await, Ok(0));
    for number in 1..6 {
        within("the shutdown", server.shutdown(LONG)).await;
        server = serve(&target, number).await;
        assert_eq!(number_at_last(&work).await, number);
    }
}

#[tokio::test]
async fn a_client_finds_its_server_again_after_calls_failed_meanwhile() {
    let server = serve("127.0.0.1:0", 1).await;
    let target = server.target().to_owned();
    let work = client(&target).await;
    assert_eq!(work.number().await, Ok(1));
    within("the shutdown", server.shutdown(LONG)).await;
    let mut failed = 0;
    while failed < 3 {
        let began = Instant::now();
        let status = within("the rejection", work.number()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.execution().is_safe_to_repeat(), "{status:?}");
        assert!(began.elapsed() < SERVED);
        failed += usize::from(status.execution() == Execution::NotSent);
    }
    let _server = serve(&target, 2).await;
    assert_eq!(number_at_last(&work).await, 2);
}

#[tokio::test]
async fn a_client_over_a_unix_socket_finds_its_server_again() {
    let path = std::env::temp_dir().join(format!("iip-reconnect-{}.sock", std::process::id()));
    let target = format!("unix:{}", path.display());
    let server = serve(&target, 1).await;
    let work = client(&target).await;
    assert_eq!(work.number().await, Ok(1));
    within("the shutdown", server.shutdown(LONG)).await;
    within("the end", server.stopped()).await;
    let server = serve(&target, 2).await;
    assert_eq!(number_at_last(&work).await, 2);
    within("the shutdown", server.shutdown(LONG)).await;
}

#[tokio::test]
async fn a_call_without_a_server_fails_within_its_timeout_whatever_the_pauses() {
    let addr = nowhere().await;
    let lazy = Client::builder().connect_lazy(addr.to_string()).unwrap();
    let work = WorkClient::new(lazy).with_options(CallOptions::new().timeout(SHORT));
    // Each failure lengthens the pause before the next attempt; no call waits for it.
    for _ in 0..50 {
        let began = Instant::now();
        let status = within("the rejection", work.number()).await.unwrap_err();
        assert!(began.elapsed() < SHORT + SERVED, "{:?}", began.elapsed());
        assert!(
            matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
            "{status:?}"
        );
        assert_eq!(status.execution(), Execution::NotSent);
        assert!(status.message().contains("Work.number"), "{status}");
        if status.code() == Code::Unavailable {
            let text = status.message();
            assert_eq!(text.matches("cannot connect").count(), 1, "{text}");
            assert_eq!(text.matches(&addr.to_string()).count(), 1, "{text}");
        }
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_sends_nothing_costs_no_more_than_the_timeout_of_the_call() {
    let (listener, client) = lazy(Client::builder()).await;
    let work = WorkClient::new(client).with_options(CallOptions::new().timeout(SHORT));
    let began = Instant::now();
    let call = started(work.number()).await;
    let _silent = accepted(&listener).await;
    let status = within("the timeout", call.finish()).await.unwrap_err();
    assert!(began.elapsed() < SHORT + SERVED);
    expect(&status, Code::DeadlineExceeded, Execution::NotSent);
}

#[tokio::test]
async fn an_attempt_to_connect_has_its_own_limit_that_is_named() {
    let (listener, addr) = listener().await;
    let connect = Client::builder()
        .connect_timeout(SHORT)
        .connect(addr.to_string());
    let connect = started(connect).await;
    let _silent = accepted(&listener).await;
    let status = within("the rejection", connect.finish()).await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::NotSent);
    let text = status.message();
    assert!(text.contains("connect_timeout"), "{text}");
    assert!(
        text.contains("accepted, but the server did not say hello"),
        "{text}"
    );
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_end_the_attempt_of_the_others() {
    let (listener, client) = lazy(Client::builder().timeout(LONG)).await;
    let work = WorkClient::new(client);
    let first = work.clone();
    let first = started(async move { first.number().await }).await;
    let second = work.clone();
    let second = spawn(async move { second.number().await });
    let mut go = GoLike::accept(&listener).await;
    drop(first);
    go.open(1).await;
    let frame = go.peer.frame().await;
    go.peer
        .send_frame(&RawFrame::reply("/work/number", frame.channel, "7"))
        .await;
    assert_eq!(within("the reply", second).await.unwrap(), Ok(7));
}

/// A server like the Go one, controlled by the test.
struct GoLike {
    peer: Peer,
    granted: u32,
}

impl GoLike {
    async fn accept(listener: &TcpListener) -> Self {
        Self {
            peer: Peer::over(accepted(listener).await),
            granted: 0,
        }
    }

    /// Replies to the hello and grants `channels` channels.
    async fn open(&mut self, channels: u32) {
        let mut hello = false;
        while !hello || self.granted < channels {
            let frame = self.peer.frame().await;
            let reply = match frame.path_text().as_str() {
                "/sys/hello" => {
                    hello = true;
                    RawFrame::reply("/sys/hello", 0, r#"{"code":102,"message":"handle error"}"#)
                }
                "/sys/new_channel" => {
                    self.granted += 1;
                    RawFrame::grant(self.granted)
                }
                other => panic!("a request for {other}"),
            };
            self.peer.send_frame(&reply).await;
        }
    }

    /// Takes `calls` requests and sends no reply.
    async fn take(&mut self, calls: usize) {
        let mut taken = 0;
        while taken < calls {
            let frame = self.peer.frame().await;
            match frame.path_text().as_str() {
                "/sys/new_channel" => {
                    self.granted += 1;
                    self.peer.send_frame(&RawFrame::grant(self.granted)).await;
                }
                _ => taken += 1,
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Loss {
    Fin,
    Reset,
    Goodbye,
    Nonsense,
}

#[tokio::test]
async fn a_lost_connection_fails_all_its_calls_at_once_with_one_reason() {
    const SENT: usize = 20;
    const QUEUED: usize = 30;
    for loss in [Loss::Fin, Loss::Reset, Loss::Goodbye, Loss::Nonsense] {
        let (listener, addr) = listener().await;
        let connect = Client::builder()
            .timeout(LONG)
            .max_transparent_retries(0)
            .limits(Limits::default().max_channels(SENT))
            .connect(addr.to_string());
        let connect = spawn(connect);
        let mut go = GoLike::accept(&listener).await;
        go.open(1).await;
        let work = WorkClient::new(within("connecting", connect).await.unwrap().unwrap());
        let mut calls = Vec::new();
        for _ in 0..SENT + QUEUED {
            let work = work.clone();
            calls.push(started(async move { work.number().await }).await);
        }
        go.take(SENT).await;
        let began = Instant::now();
        match loss {
            // Dropping both halves closes; unread data would make it a reset.
            Loss::Fin => go.peer.finish_sending(),
            Loss::Reset => go.peer.reset().await,
            Loss::Goodbye => go.peer.send_frame(&RawFrame::new(8, "", 0, "")).await,
            Loss::Nonsense => go.peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
        }
        let mut reasons = std::collections::BTreeSet::new();
        for (index, call) in calls.into_iter().enumerate() {
            let status = within("an error", call.finish()).await.unwrap_err();
            let execution = if index < SENT {
                Execution::MayHaveExecuted
            } else {
                Execution::NotSent
            };
            assert_eq!(
                (status.code(), status.execution()),
                (Code::Unavailable, execution),
                "{loss:?}, call {index}: {status:?}"
            );
            assert!(status.message().contains("connection was lost"), "{status}");
            reasons.insert(status.message().to_owned());
        }
        assert!(began.elapsed() < SERVED, "{loss:?}: {:?}", began.elapsed());
        assert_eq!(reasons.len(), 1, "{loss:?}: {reasons:?}");
    }
}

#[tokio::test]
async fn the_next_call_after_a_loss_makes_a_new_connection() {
    let (listener, addr) = listener().await;
    let connect = Client::builder().timeout(LONG).connect(addr.to_string());
    let connect = spawn(connect);
    let mut go = GoLike::accept(&listener).await;
    go.open(1).await;
    let work = WorkClient::new(within("connecting", connect).await.unwrap().unwrap());
    let lost = work.clone();
    let lost = spawn(async move { lost.number().await });
    go.take(1).await;
    go.peer.reset().await;
    within("the error", lost).await.unwrap().unwrap_err();
    let next = spawn(async move { work.number().await });
    let mut go = GoLike::accept(&listener).await;
    go.open(1).await;
    let frame = go.peer.frame().await;
    assert_eq!(frame.path_text(), "/work/number");
    go.peer
        .send_frame(&RawFrame::reply("/work/number", frame.channel, "7"))
        .await;
    assert_eq!(within("the reply", next).await.unwrap(), Ok(7));
}

#[tokio::test]
async fn a_call_that_was_not_sent_is_made_again_though_its_reply_is_taken_in_parts() {
    let (listener, addr) = listener().await;
    let config = iip_core::Client::builder().hello(serde_json::json!({}));
    let config = config.timeout(LONG).max_channels(1);
    let connect = spawn(config.connect(addr.to_string()));
    let mut go = GoLike::accept(&listener).await;
    go.open(1).await;
    let client = within("connecting", connect).await.unwrap().unwrap();
    let sent = started(client.request("/sent", "x")).await;
    go.take(1).await;
    let waiting = started(client.stream_with("/parts", "x", iip_core::CallOptions::new())).await;
    go.peer.reset().await;
    within("the error", sent.finish()).await.unwrap_err();
    let serve = async {
        let mut go = GoLike::accept(&listener).await;
        go.open(1).await;
        let channel = go.peer.frame().await.channel;
        for (status, data) in [(4, "first"), (7, "last")] {
            let part = RawFrame::new(status, "/parts", channel, data);
            go.peer.send_frame(&part).await;
        }
        go
    };
    let (reply, _go) = within("a reply", async { tokio::join!(waiting.finish(), serve) }).await;
    let mut parts = reply.unwrap();
    for part in ["first", "last"] {
        assert!(!parts.is_ended());
        assert_eq!(parts.next().await.unwrap().unwrap(), part);
    }
    assert!(parts.is_ended());
    assert!(parts.next().await.is_none());
}

#[tokio::test]
async fn a_server_that_closes_while_a_call_connects_fails_that_call_before_it_is_sent() {
    let (listener, client) = lazy(Client::builder()).await;
    let work = WorkClient::new(client);
    let call = started(work.number()).await;
    drop(accepted(&listener).await);
    let status = within("the rejection", call.finish()).await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::NotSent);
}

/// Keeps every number it was called with.
#[service]
trait Ledger {
    async fn book(&self, number: u32) -> Result<(), Status>;
}

struct Book(Arc<Mutex<HashSet<u32>>>);

impl Ledger for Book {
    async fn book(&self, number: u32) -> Result<(), Status> {
        self.0.lock().unwrap().insert(number);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_reported_as_not_executed_never_ran() {
    const CALLS: u32 = 1_000;
    let booked = Arc::new(Mutex::new(HashSet::new()));
    // The server repeatedly ends connections just when the next call comes.
    let idle = Duration::from_millis(1);
    let server = Server::builder()
        .limits(Limits::default().idle_timeout(idle))
        .service(LedgerServer::new(Book(Arc::clone(&booked))))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let lazy = Client::builder()
        .timeout(LONG)
        .connect_lazy(server.target())
        .unwrap();
    let ledger = LedgerClient::new(lazy);
    let (mut finished, mut in_doubt) = (0, 0);
    for number in 0..CALLS {
        match within("an outcome", ledger.book(number)).await {
            Ok(()) => {
                finished += 1;
                assert!(booked.lock().unwrap().contains(&number));
            }
            Err(status) if status.execution().is_safe_to_repeat() => assert!(
                !booked.lock().unwrap().contains(&number),
                "call {number} has run, and yet: {status}"
            ),
            Err(_) => in_doubt += 1,
        }
        // The pause is the stimulus: the next call comes when the idle time is about to pass.
        let pause = idle + Duration::from_micros(u64::from(number % 40) * 10);
        tokio::time::sleep(pause).await;
    }
    assert!(
        finished > in_doubt,
        "{finished} answered, {in_doubt} in doubt"
    );
}

#[tokio::test]
async fn one_lost_connection_of_several_is_replaced_alone() {
    let server = serve("127.0.0.1:0", 3).await;
    let client = Client::builder()
        .connections(2)
        .timeout(LONG)
        .connect(server.target())
        .await
        .unwrap();
    let work = WorkClient::new(client.clone());
    let hanging = work.clone();
    let hanging = spawn(async move { hanging.hang().await });
    for _ in 0..4 {
        assert_eq!(within("a reply", work.number()).await, Ok(3));
    }
    within("the shutdown", server.shutdown(Duration::ZERO)).await;
    within("the error", hanging).await.unwrap().unwrap_err();
    let target = server.target().to_owned();
    let _server = serve(&target, 4).await;
    for _ in 0..4 {
        assert_eq!(number_at_last(&work).await, 4);
    }
}

#[tokio::test]
async fn calls_without_a_reply_during_a_restart_were_not_executed() {
    // Calls come all the time; those without a reply of the old server were not executed, and their
    // errors report that.
    let server = serve("127.0.0.1:0", 1).await;
    let target = server.target().to_owned();
    let work = client(&target).await;
    let calls = spawn({
        let work = work.clone();
        async move {
            let mut last = 0;
            while last != 2 {
                last = number_at_last(&work).await;
            }
        }
    });
    assert_eq!(work.number().await, Ok(1));
    within("the shutdown", server.shutdown(LONG)).await;
    let _server = serve(&target, 2).await;
    within("the calls", calls).await.unwrap();
}
