//! Fair shares: the capacity of a server that one connection or one peer can use, and what it
//! leaves for others.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use iip_core::{
    Client, HandlerError, Limits, OnCancel, Request, RequestMode, Response, Server, handler_fn,
};
use tokio::sync::Notify;

use crate::common::frame::RawFrame;
use crate::common::peer::Peer;
use crate::common::{bound, eventually, spawn, started, within};

/// Decrements a counter when it is dropped.
struct Inside(Arc<AtomicUsize>);

impl Inside {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_connection_runs_few_handlers_before_other_tasks_have_a_turn() {
    const CALLS: usize = 2000;
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    let work = handler_fn(move |_: Request| {
        counter.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(100) {
            std::hint::spin_loop();
        }
        async { Ok::<_, HandlerError>(Response::from("done")) }
    });
    let (_server, addr) = bound(Server::builder().route("/work", work)).await;
    let (watched, max_in_a_row) = (Arc::clone(&ran), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&max_in_a_row);
    let watcher = spawn(async move {
        let mut before = 0;
        loop {
            let now = watched.load(Ordering::SeqCst);
            highest.fetch_max(now - before, Ordering::SeqCst);
            before = now;
            // The task runs after the tasks that are ready, and before the next poll of the
            // sockets.
            let mut has_yielded = false;
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                match std::mem::replace(&mut has_yielded, true) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    });
    let mut peer = Peer::connect(addr).await;
    // With one channel, each reply makes the next request ready.
    let calls = RawFrame::request("/work", 0, "x").encode().repeat(CALLS);
    peer.send(&calls).await;
    for _ in 0..CALLS {
        peer.frame().await;
    }
    watcher.abort();
    let max_in_a_row = max_in_a_row.load(Ordering::SeqCst);
    assert!(max_in_a_row <= 32, "{max_in_a_row} handlers ran in a row");
}

#[tokio::test]
async fn at_capacity_the_connection_is_read_and_waiting_calls_can_be_cancelled() {
    let inside = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&inside);
    let hold = handler_fn(move |_: Request| {
        let inside = Inside::new(&count);
        async move {
            let _inside = inside;
            std::future::pending::<Result<Response, HandlerError>>().await
        }
    });
    let ping = handler_fn(async |_: Request| Ok::<_, HandlerError>(Response::from("pong")));
    let config = Server::builder()
        .limits(Limits::default().max_calls(2))
        .route("/hold", hold)
        .route("/ping", ping);
    let (_server, addr) = bound(config).await;
    let client = Client::builder().hello(serde_json::json!({}));
    let client = client.connect(addr.to_string()).await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(started(client.request("/hold", "x")).await);
    }
    eventually("as many handlers as may", || {
        inside.load(Ordering::SeqCst) == 2
    })
    .await;
    drop(calls);
    let reply = within("a call after them", client.request("/ping", "x")).await;
    assert_eq!(reply.unwrap(), "pong");
    eventually("their end", || inside.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn handlers_that_outlive_their_calls_do_not_count_against_the_connection() {
    for policy in [OnCancel::RunToEnd, OnCancel::Token] {
        let inside = Arc::new(AtomicUsize::new(0));
        let (count, go) = (Arc::clone(&inside), Arc::new(Notify::new()));
        let held = Arc::clone(&go);
        let hold = handler_fn(move |_: Request| {
            let (inside, go) = (Inside::new(&count), Arc::clone(&held));
            async move {
                let _inside = inside;
                go.notified().await;
                Ok::<_, HandlerError>(Response::from("unread"))
            }
        });
        let ping = handler_fn(async |_: Request| {
            // The handler has to wait, so that it is counted as running.
            tokio::task::yield_now().await;
            Ok::<_, HandlerError>(Response::from("pong"))
        });
        let config = Server::builder()
            .limits(Limits::default().max_calls(2))
            .route("/hold", hold.on_cancel(policy))
            .route("/ping", ping);
        let (server, addr) = bound(config).await;
        let client = Client::builder().hello(serde_json::json!({}));
        let client = client.limits(Limits::default().max_channels(4));
        let client = client.connect(addr.to_string()).await.unwrap();
        for left in 1..=20 {
            let call = started(client.request("/hold", "x")).await;
            eventually("the handler", || inside.load(Ordering::SeqCst) == left).await;
            drop(call);
            let reply = within("a call during them", client.request("/ping", "x")).await;
            assert_eq!(reply.unwrap(), "pong");
        }
        // The server has not forgotten them: a shutdown waits for them.
        let shutdown = started(server.shutdown(Duration::from_secs(3600))).await;
        go.notify_waiters();
        within("the shutdown", shutdown.finish()).await;
        assert_eq!(inside.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn calls_that_are_cancelled_while_they_wait_for_a_handler_never_run() {
    let ran = Arc::new(AtomicUsize::new(0));
    let (count, go) = (Arc::clone(&ran), Arc::new(Notify::new()));
    let held = Arc::clone(&go);
    let hold = handler_fn(move |_: Request| {
        count.fetch_add(1, Ordering::SeqCst);
        let go = Arc::clone(&held);
        async move {
            go.notified().await;
            Ok::<_, HandlerError>(Response::from("done"))
        }
    });
    let config = Server::builder()
        .limits(Limits::default().max_calls(1))
        .route("/hold", hold);
    let (_server, addr) = bound(config).await;
    let client = Client::builder().hello(serde_json::json!({}));
    let client = client.connect(addr.to_string()).await.unwrap();
    let first = started(client.request("/hold", "x")).await;
    eventually("the first", || ran.load(Ordering::SeqCst) == 1).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(started(client.request("/hold", "x")).await);
    }
    drop(waiting);
    let last = started(client.request("/hold", "x")).await;
    // A request sent after the cancellations gets its reply after the server has read them.
    within("a ping", client.request("/sys/none", "x"))
        .await
        .unwrap();
    go.notify_one();
    assert_eq!(within("the first", first.finish()).await.unwrap(), "done");
    eventually("the last", || ran.load(Ordering::SeqCst) == 2).await;
    go.notify_one();
    assert_eq!(within("the last", last.finish()).await.unwrap(), "done");
    assert_eq!(ran.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_leaves_capacity_for_handlers_of_others() {
    let hold = handler_fn(async |_: Request| {
        std::future::pending::<Result<Response, HandlerError>>().await
    });
    let wait = handler_fn(async |_: Request| {
        tokio::task::yield_now().await;
        Ok::<_, HandlerError>(Response::from("done"))
    });
    let config = Server::builder()
        .max_running_calls(20)
        .route("/hold", hold)
        .route("/wait", wait);
    let (_server, addr) = bound(config).await;
    let full = Client::connect(addr.to_string()).await.unwrap();
    let other = Client::connect(addr.to_string()).await.unwrap();
    assert_eq!(other.request("/wait", "x").await.unwrap(), "done");
    let mut calls = Vec::new();
    for _ in 0..40 {
        calls.push(started(full.request("/hold", "x")).await);
    }
    let rejected = within("a call too many", full.request("/hold", "x"))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&rejected).into_owned();
    assert!(
        text.contains("more than its share of the 20 calls"),
        "{text}"
    );
    let reply = within("a call of another", other.request("/wait", "x")).await;
    assert_eq!(reply.unwrap(), "done");
}

#[tokio::test]
async fn a_raw_stream_counts_from_its_beginning() {
    let hold = handler_fn(async |mut request: Request| {
        let _streams = request.stream();
        std::future::pending::<Result<Response, HandlerError>>().await
    });
    let config = Server::builder()
        .max_running_calls(1)
        .route("/hold", hold.request_mode(RequestMode::Stream));
    let (_server, addr) = bound(config).await;
    let client = Client::builder().hello(serde_json::json!({}));
    let client = client.connect(addr.to_string()).await.unwrap();
    let _first = client.open_stream("/hold", "x").await.unwrap();
    let (_send, mut second) = client.open_stream("/hold", "x").await.unwrap();
    assert!(within("the reply", second.next()).await.is_none());
    let reply = second.reply().unwrap().unwrap();
    let text = String::from_utf8_lossy(&reply).into_owned();
    assert!(text.contains("max_running_calls"), "{text}");
}
