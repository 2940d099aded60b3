//! The life of a connection: keepalive, moving calls to another connection, and the maximum age.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use iip_rpc::transport::{ConnectFuture, Connected, Connector, IoStream};
use iip_rpc::{
    CallContext, Client, Code, Execution, Limits, Server, Status, Stream, Streaming, service,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

use crate::common::calls::{expect, lazy, port, serve_with};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, Seen, accepted};
use crate::common::{GUARD, SERVED, passes_for_all, spawn, started, within};

const SHORT: Duration = Duration::from_secs(1);
/// A timeout that does not expire during a test.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Work {
    async fn port(&self, ctx: &CallContext) -> Result<u16, Status>;
    async fn hang(&self, ctx: &CallContext) -> Result<u16, Status>;
    async fn slow(&self, ms: u64) -> Result<u64, Status>;
    async fn numbers(&self) -> Result<impl Stream<Item = Result<u16, Status>>, Status>;
}

struct Worker(Arc<Semaphore>);

impl Work for Worker {
    async fn port(&self, ctx: &CallContext) -> Result<u16, Status> {
        port(ctx)
    }

    async fn hang(&self, ctx: &CallContext) -> Result<u16, Status> {
        let permit = self.0.acquire().await;
        permit
            .map_err(|error| Status::internal(error.to_string()))?
            .forget();
        port(ctx)
    }

    async fn slow(&self, ms: u64) -> Result<u64, Status> {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(ms)
    }

    async fn numbers(&self) -> Result<impl Stream<Item = Result<u16, Status>>, Status> {
        let gate = Arc::clone(&self.0);
        let (sender, numbers) = Streaming::channel(1);
        spawn(async move {
            for number in 0.. {
                let Ok(permit) = gate.acquire().await else {
                    sender.finish();
                    break;
                };
                permit.forget();
                if sender.send(number).await.is_err() {
                    break;
                }
            }
        });
        Ok(numbers)
    }
}

fn worker() -> (WorkServer<Worker>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    (WorkServer::new(Worker(Arc::clone(&gate))), gate)
}

/// A client with a short keepalive interval.
fn short_keepalive() -> iip_rpc::ClientBuilder {
    let limits = Limits::default()
        .keepalive_interval(SHORT)
        .keepalive_timeout(SHORT);
    Client::builder().limits(limits)
}

/// Replies to the hello and to two channel requests of a client of ours; the hello announces
/// pings.
async fn greet(server: &mut Peer) {
    let mut granted = 0;
    while granted < 2 {
        let frame = server.frame().await;
        let reply = match frame.path_text().as_str() {
            "/sys/hello" => {
                r#"{"iip":1,"code":0,"control":1,"ping":1,"rpc":{"envelope":0,"codecs":[1,3]}}"#
                    .to_owned()
            }
            "/sys/new_channel" => {
                granted += 1;
                format!(r#"{{"code":0,"channel_id":{granted}}}"#)
            }
            other => panic!("{other} was not expected yet"),
        };
        server
            .send_frame(&RawFrame::new(5, &frame.path, 0, reply.as_bytes()))
            .await;
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_fails_its_calls_within_seconds_with_the_reason() {
    let (listener, client) = lazy(short_keepalive()).await;
    let work = WorkClient::new(client);
    let call = spawn(async move { work.hang(&CallContext::new()).await });
    let mut server = Peer::over(accepted(&listener).await);
    greet(&mut server).await;
    let begun = Instant::now();
    // The server reads everything, and sends nothing more.
    let status = within("the failure", call).await.unwrap().unwrap_err();
    let took = begun.elapsed();
    assert!(took < 2 * SHORT + SERVED, "{took:?}");
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    assert!(status.message().contains("keepalive_timeout"), "{status}");
}

#[tokio::test]
async fn further_calls_do_not_keep_a_silent_server_alive() {
    let (listener, client) = lazy(short_keepalive()).await;
    let work = WorkClient::new(client);
    let first = spawn({
        let work = work.clone();
        async move { work.hang(&CallContext::new()).await }
    });
    let mut server = Peer::over(accepted(&listener).await);
    greet(&mut server).await;
    let further = spawn(async move {
        loop {
            let ctx = CallContext::new();
            let call = work.hang(&ctx);
            let _ = tokio::time::timeout(SHORT / 5, call).await;
        }
    });
    let status = within("the failure", first).await.unwrap().unwrap_err();
    further.abort();
    assert!(status.message().contains("keepalive_timeout"), "{status}");
}

#[tokio::test]
async fn a_silent_server_is_noticed_even_by_a_client_that_waits_for_no_reply() {
    let limits = Limits::default()
        .keepalive_interval(SHORT)
        .keepalive_timeout(SHORT);
    let (listener, client) = lazy(Client::builder().limits(limits)).await;
    let raw = client.raw().clone();
    // Ordinary calls, until a channel for other calls exists.
    let sending = spawn(async move {
        while raw.send("/x", "x").await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    });
    let mut server = Peer::over(accepted(&listener).await);
    let mut granted = 0;
    // The server sends nothing from the moment it learns of that channel.
    loop {
        let frame = server.frame().await;
        let reply = match frame.path_text().as_str() {
            "/sys/hello" => r#"{"iip":1,"code":0,"control":1,"ping":1,"one_way":1}"#.to_owned(),
            "/sys/new_channel" => {
                granted += 1;
                format!(r#"{{"code":0,"channel_id":{granted}}}"#)
            }
            "/x" => "y".to_owned(),
            _ if frame.body.first() == Some(&3) => break,
            _ => continue,
        };
        let reply = RawFrame::reply(&frame.path, frame.channel, reply);
        server.send_frame(&reply).await;
    }
    sending.abort();
    client.raw().send("/x", "x").await.unwrap();
    let frames = server.closed().await;
    let paths: Vec<_> = frames.iter().map(RawFrame::path_text).collect();
    assert!(paths.contains(&"/sys/ping".to_owned()), "{paths:?}");
}

#[tokio::test]
async fn a_server_at_capacity_that_does_not_read_is_not_taken_for_dead() {
    let (service, gate) = worker();
    // Two calls run at a time; while a third waits, nothing is read, pings included.
    let limits = Limits::default().max_calls(2).keepalive_interval(SHORT);
    let server = Server::builder().limits(limits);
    let (_server, client) = serve_with(service, server, short_keepalive().timeout(LONG)).await;
    let work = WorkClient::new(client);
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let work = work.clone();
            spawn(async move { work.hang(&CallContext::new()).await })
        })
        .collect();
    // Many times the time after which a silent server counts as dead.
    passes_for_all(10 * SHORT, SHORT).await;
    gate.add_permits(5);
    for call in calls {
        within("the reply", call).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_replies_to_pings_is_waited_for() {
    let (service, gate) = worker();
    let client = short_keepalive().timeout(LONG);
    let (_server, client) = serve_with(service, Server::builder(), client).await;
    let work = WorkClient::new(client);
    // Many times the time after which a silent server counts as dead.
    let slow = started(work.slow(10_000)).await;
    passes_for_all(10 * SHORT, SHORT).await;
    assert_eq!(within("the reply", slow.finish()).await, Ok(10_000));
    gate.close();
}

#[tokio::test]
async fn a_client_without_calls_sends_no_pings() {
    let (listener, client) = lazy(short_keepalive()).await;
    let raw = client.raw().clone();
    let connecting = spawn(async move { raw.request("/x", "x").await });
    let mut server = Peer::over(accepted(&listener).await);
    greet(&mut server).await;
    let mut replied = false;
    // The call and the control stream; then nothing, for several intervals.
    while let Some(Seen::Frame(frame)) = server.frame_within(4 * SHORT).await {
        assert_ne!(frame.path_text(), "/sys/ping", "nothing is in flight");
        if frame.path_text() == "/x" {
            replied = true;
            server
                .send_frame(&RawFrame::new(5, "/x", frame.channel, b"y"))
                .await;
        }
    }
    assert!(replied);
    assert_eq!(within("the reply", connecting).await.unwrap().unwrap(), "y");
}

#[tokio::test]
async fn while_a_server_drains_further_calls_go_elsewhere_and_running_ones_finish() {
    let (service, gate) = worker();
    let old = Server::builder()
        .service(service)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let addr = old.local_addr().unwrap();
    let client = Client::builder()
        .wait_for_ready(true)
        .connect(old.target())
        .await
        .unwrap();
    let work = WorkClient::new(client);
    let before = work.port(&CallContext::new()).await.unwrap();
    let running = {
        let work = work.clone();
        spawn(async move { work.hang(&CallContext::new()).await })
    };
    let mut stream = work.numbers().await.unwrap();
    gate.add_permits(2);
    // One of them is for the stream and one for the call, in either order.
    let old = Arc::new(old);
    let draining = {
        let old = Arc::clone(&old);
        spawn(async move { old.shutdown(GUARD).await })
    };
    let new = loop {
        // The old server releases the port when it drains.
        match Server::builder()
            .service(WorkServer::new(Worker(Arc::new(Semaphore::new(0)))))
            .bind(addr.to_string())
            .await
        {
            Ok(server) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let after = within("a call elsewhere", work.port(&CallContext::new()))
        .await
        .unwrap();
    assert_ne!(before, after, "another connection");
    gate.add_permits(10);
    assert_eq!(
        within("the running call", running).await.unwrap(),
        Ok(before)
    );
    within("the stream goes on", stream.next())
        .await
        .unwrap()
        .unwrap();
    drop(stream);
    within("the end of the old server", draining).await.unwrap();
    drop(new);
}

#[tokio::test]
async fn a_connection_that_has_grown_old_is_replaced_without_a_failure() {
    let (service, _gate) = worker();
    let server = Server::builder().max_connection_age(Duration::from_millis(50));
    let (_server, client) = serve_with(service, server, Client::builder()).await;
    let work = WorkClient::new(client);
    let mut ports = HashSet::new();
    let begun = Instant::now();
    while ports.len() < 4 {
        ports.insert(work.port(&CallContext::new()).await.unwrap());
        // A call that runs while its connection is replaced.
        assert_eq!(work.slow(20).await, Ok(20));
        assert!(begun.elapsed() < GUARD);
    }
}

#[tokio::test]
async fn a_call_that_outlives_its_old_connection_ends_with_the_grace() {
    let (service, _gate) = worker();
    let server = Server::builder()
        .max_connection_age(SHORT)
        .max_connection_grace(SHORT);
    let (_server, client) = serve_with(service, server, Client::builder()).await;
    let work = WorkClient::new(client);
    let status = within("the end", work.hang(&CallContext::new()))
        .await
        .unwrap_err();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
}

/// A connector to a server that grants a channel and, when it floods, sends one endless reply and
/// reads nothing.
#[derive(Debug, Default)]
struct Flood {
    floods: Arc<AtomicBool>,
    given: usize,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let head = [
            RawFrame::grant(1).encode(),
            RawFrame::new(4, "/", 1, "x").encode(),
        ];
        let more = RawFrame::new(6, "", 1, "x").encode();
        let next = match head.get(self.given) {
            Some(first) if self.given == 0 || self.floods.load(Ordering::SeqCst) => first.clone(),
            Some(_) => return Poll::Pending,
            None => more.repeat(buf.remaining() / more.len()),
        };
        self.given += 1;
        buf.put_slice(&next);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.floods.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Connector for Flood {
    fn connect(&self) -> ConnectFuture<'_> {
        let flood = Self {
            floods: Arc::clone(&self.floods),
            given: 0,
        };
        Box::pin(async { Ok(Connected::new(IoStream::new(flood))) })
    }

    fn describe(&self) -> String {
        "a flood".to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_is_given_up_however_much_it_sends() {
    let flood = Flood::default();
    let floods = Arc::clone(&flood.floods);
    let limits = Limits::default()
        .progress_timeout(SHORT)
        .max_message_bytes(1000);
    let client = iip_core::Client::builder().limits(limits);
    let client = within("connecting", client.connect_with(flood))
        .await
        .unwrap();
    let connection = client.ready_connection().unwrap();
    floods.store(true, Ordering::SeqCst);
    let call = within("the failure", client.request("/", "x")).await;
    assert!(call.is_err(), "a reply without an end is too large");
    let error = within("the end", connection.closed()).await;
    assert!(error.to_string().contains("progress_timeout"), "{error}");
}
