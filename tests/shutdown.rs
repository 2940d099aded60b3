//! Shutdown of a server: it takes no new calls, lets running calls end, aborts the rest, and always
//! returns in time.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_rpc::{Client, Code, Execution, Limits, Server, ServerBuilder, Status, service};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::common::calls::{expect, serve_with};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, narrow_stream_to, stream_to};
use crate::common::{SERVED, spawn, started, within};

/// A limit that is never reached.
const LONG: Duration = Duration::from_secs(600);
/// A limit that is reached during the test.
const SHORT: Duration = Duration::from_millis(50);
/// Maximum time of a shutdown beyond its limit: a second for the operating system, and a busy
/// machine.
const FORCED: Duration = Duration::from_secs(8);

#[service]
trait Work {
    async fn gated(&self) -> Result<String, Status>;
    async fn stuck(&self) -> Result<(), Status>;
    #[rpc(on_cancel = "run")]
    async fn stuck_for_good(&self) -> Result<(), Status>;
    #[rpc(on_cancel = "token")]
    async fn stuck_though_told(&self) -> Result<(), Status>;
    async fn busy(&self) -> Result<(), Status>;
    #[rpc(raw)]
    async fn large(&self, body: Bytes) -> Result<Bytes, Status>;
    async fn quick(&self) -> Result<(), Status>;
    #[rpc(raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
}

#[service(path = "/work")]
trait Missing {
    async fn missing(&self) -> Result<(), Status>;
}

#[derive(Debug, PartialEq, Eq)]
enum Happened {
    Entered,
    Dropped,
}

struct Shop {
    happened: mpsc::UnboundedSender<Happened>,
    gate: Arc<Notify>,
    /// Ends a handler that blocks its thread.
    free: Arc<std::sync::atomic::AtomicBool>,
}

struct Guard<'a>(&'a Shop);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // The test may have dropped the receiver.
        let _ = self.0.happened.send(Happened::Dropped);
    }
}

impl Shop {
    fn enter(&self) -> Guard<'_> {
        let _ = self.happened.send(Happened::Entered);
        Guard(self)
    }
}

impl Work for Shop {
    async fn gated(&self) -> Result<String, Status> {
        let _guard = self.enter();
        self.gate.notified().await;
        Ok("finished".into())
    }

    async fn stuck(&self) -> Result<(), Status> {
        let _guard = self.enter();
        std::future::pending().await
    }

    async fn stuck_for_good(&self) -> Result<(), Status> {
        self.stuck().await
    }

    async fn stuck_though_told(&self) -> Result<(), Status> {
        self.stuck().await
    }

    async fn busy(&self) -> Result<(), Status> {
        let _guard = self.enter();
        tokio::task::yield_now().await;
        while !self.free.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Ok(())
    }

    async fn large(&self, _: Bytes) -> Result<Bytes, Status> {
        Ok(vec![7; 12 * 1024 * 1024].into())
    }

    async fn quick(&self) -> Result<(), Status> {
        Ok(())
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

struct Fixture {
    server: Arc<Server>,
    addr: SocketAddr,
    client: Client,
    work: WorkClient,
    happened: mpsc::UnboundedReceiver<Happened>,
    gate: Arc<Notify>,
    free: Arc<std::sync::atomic::AtomicBool>,
}

impl Fixture {
    async fn start() -> Self {
        Self::configured(Server::builder()).await
    }

    async fn configured(server: ServerBuilder) -> Self {
        let (sender, happened) = mpsc::unbounded_channel();
        let (gate, free) = (Arc::new(Notify::new()), Arc::default());
        let shop = Shop {
            happened: sender,
            gate: Arc::clone(&gate),
            free: Arc::clone(&free),
        };
        let client = Client::builder().timeout(LONG);
        let (server, client) = serve_with(WorkServer::new(shop), server, client).await;
        Self {
            addr: server.local_addr().unwrap(),
            server: Arc::new(server),
            work: WorkClient::new(client.clone()),
            client,
            happened,
            gate,
            free,
        }
    }

    async fn next(&mut self) -> Happened {
        let next = within("something in a handler", self.happened.recv()).await;
        next.expect("a handler lives")
    }

    /// Starts a call, and waits until its handler runs.
    async fn running<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        call: impl FnOnce(WorkClient) -> F,
    ) -> JoinHandle<T> {
        let call = spawn(call(self.work.clone()));
        assert_eq!(self.next().await, Happened::Entered);
        call
    }

    async fn gated(&mut self) -> JoinHandle<Result<String, Status>> {
        self.running(|work| async move { work.gated().await }).await
    }

    async fn stuck(&mut self) -> JoinHandle<Result<(), Status>> {
        self.running(|work| async move { work.stuck().await }).await
    }

    /// Shuts down, and returns how long it took: no call may delay it much beyond its limit.
    async fn forced(&self, limit: Duration) -> Duration {
        let shutdown = self.shutting_down(limit).await;
        let took = within("the shutdown", shutdown).await.unwrap();
        assert!(took < FORCED, "{took:?}");
        took
    }

    /// Begins the shutdown; the first phase is over when this returns.
    async fn shutting_down(&self, limit: Duration) -> JoinHandle<Duration> {
        let server = Arc::clone(&self.server);
        let began = Instant::now();
        let shutdown = started(async move { server.shutdown(limit).await }).await;
        spawn(async move {
            shutdown.finish().await;
            began.elapsed()
        })
    }
}

#[tokio::test]
async fn a_server_without_calls_ends_at_once() {
    let fixture = Fixture::start().await;
    fixture.work.quick().await.unwrap();
    let shutdown = fixture.shutting_down(LONG).await;
    within("the shutdown", shutdown).await.unwrap();
    within("the end", fixture.server.stopped()).await;
}

#[tokio::test]
async fn a_server_that_nobody_connected_to_ends_at_once() {
    let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
    let stopped = started(server.stopped()).await;
    within("the shutdown", server.shutdown(LONG)).await;
    within("the end, awaited before the shutdown", stopped.finish()).await;
    within("the end, awaited after it", server.stopped()).await;
    within("a second shutdown", server.shutdown(LONG)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_wait_for_the_end_are_notified_whatever_the_threads_do() {
    for _ in 0..200 {
        let server = Arc::new(Server::builder().bind("127.0.0.1:0").await.unwrap());
        let waiting = Arc::clone(&server);
        let waiting = spawn(async move { waiting.stopped().await });
        tokio::task::yield_now().await;
        within("the shutdown", server.shutdown(LONG)).await;
        within("the end", waiting).await.unwrap();
    }
}

#[tokio::test]
async fn a_running_call_ends_within_the_limit_and_then_the_server_does() {
    let mut fixture = Fixture::start().await;
    let call = fixture.gated().await;
    let shutdown = fixture.shutting_down(LONG).await;
    fixture.gate.notify_one();
    let reply = within("the reply", call).await.unwrap();
    assert_eq!(reply.unwrap(), "finished");
    let took = within("the shutdown", shutdown).await.unwrap();
    assert!(took < LONG);
}

#[tokio::test]
async fn many_running_calls_of_many_clients_all_end_with_their_replies() {
    const CALLS: usize = 100;
    let mut fixture = Fixture::start().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS / 10 {
        let client = Client::connect(fixture.server.target()).await.unwrap();
        for _ in 0..10 {
            let work = WorkClient::new(client.clone());
            calls.spawn(async move { work.gated().await });
        }
    }
    for _ in 0..CALLS {
        assert_eq!(fixture.next().await, Happened::Entered);
    }
    let shutdown = fixture.shutting_down(LONG).await;
    fixture.gate.notify_waiters();
    for reply in within("all replies", calls.join_all()).await {
        assert_eq!(reply.unwrap(), "finished");
    }
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn calls_that_come_while_the_server_drains_are_rejected_and_not_executed() {
    let mut fixture = Fixture::start().await;
    // It looks like a Go client: it gets no notice that the server is going away.
    let plain = iip_core::Client::connect(fixture.server.target())
        .await
        .unwrap();
    let held = {
        let plain = plain.clone();
        spawn(async move { plain.request("/work/gated", "{}").await })
    };
    assert_eq!(fixture.next().await, Happened::Entered);
    let call = fixture.gated().await;
    let shutdown = fixture.shutting_down(LONG).await;
    let reply = within("the rejection", plain.request("/work/quick", "{}")).await;
    let reply = String::from_utf8(reply.unwrap().to_vec()).unwrap();
    assert!(
        reply.contains("\"code\":14") && reply.contains("shutting down"),
        "{reply}"
    );
    for status in [
        within("the rejection", fixture.work.quick())
            .await
            .unwrap_err(),
        within("the rejection", fixture.work.stuck())
            .await
            .unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_ne!(status.execution(), Execution::MayHaveExecuted, "{status:?}");
    }
    fixture.gate.notify_waiters();
    assert_eq!(
        within("the reply", call).await.unwrap().unwrap(),
        "finished"
    );
    within("the reply", held).await.unwrap().unwrap();
    within("the shutdown", shutdown).await.unwrap();
    for _ in 0..2 {
        assert_eq!(fixture.next().await, Happened::Dropped);
    }
    assert!(fixture.happened.try_recv().is_err(), "no rejected call ran");
}

#[tokio::test]
async fn a_call_of_an_unknown_method_while_the_server_drains_is_not_executed_either() {
    let mut fixture = Fixture::start().await;
    let call = fixture.gated().await;
    let shutdown = fixture.shutting_down(LONG).await;
    let missing = MissingClient::new(fixture.client.clone());
    let status = within("the rejection", missing.missing())
        .await
        .unwrap_err();
    assert_ne!(status.execution(), Execution::MayHaveExecuted, "{status:?}");
    fixture.gate.notify_one();
    within("the reply", call).await.unwrap().unwrap();
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn no_client_can_connect_while_the_server_drains() {
    let mut fixture = Fixture::start().await;
    let call = fixture.gated().await;
    let shutdown = fixture.shutting_down(LONG).await;
    let status = within("the rejection", Client::connect(fixture.server.target()))
        .await
        .unwrap_err();
    expect(&status, Code::Unavailable, Execution::NotSent);
    fixture.gate.notify_one();
    within("the reply", call).await.unwrap().unwrap();
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn a_stuck_handler_is_ended_by_force_and_its_caller_notified() {
    let mut fixture = Fixture::start().await;
    let call = fixture.stuck().await;
    let took = fixture.forced(SHORT).await;
    assert!(took >= SHORT, "{took:?}");
    let status = within("the caller's error", call).await.unwrap();
    let status = status.unwrap_err();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    let text = status.message();
    assert!(text.contains("the server was going away"), "{text}");
    assert_eq!(fixture.next().await, Happened::Dropped);
    within("the end", fixture.server.stopped()).await;
}

#[tokio::test]
async fn handlers_that_cannot_be_aborted_do_not_delay_the_shutdown() {
    let mut fixture = Fixture::start().await;
    let work = fixture.work.clone();
    let calls = spawn(async move { tokio::join!(work.stuck_for_good(), work.stuck_though_told()) });
    assert_eq!(fixture.next().await, Happened::Entered);
    assert_eq!(fixture.next().await, Happened::Entered);
    fixture.forced(SHORT).await;
    let (one, other) = within("the callers' errors", calls).await.unwrap();
    expect(
        &one.unwrap_err(),
        Code::Unavailable,
        Execution::MayHaveExecuted,
    );
    expect(
        &other.unwrap_err(),
        Code::Unavailable,
        Execution::MayHaveExecuted,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_does_not_delay_the_shutdown() {
    let mut fixture = Fixture::start().await;
    let call = fixture
        .running(|work| async move { work.busy().await })
        .await;
    fixture.forced(SHORT).await;
    fixture
        .free
        .store(true, std::sync::atomic::Ordering::Relaxed);
    // Chance decides whether its reply was still sent; the caller does not wait for ever.
    let _either = within("the caller's outcome", call).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_without_time_ends_everything_at_once() {
    let mut fixture = Fixture::start().await;
    let call = fixture.stuck().await;
    fixture.forced(Duration::ZERO).await;
    assert_eq!(
        within("the caller's error", call)
            .await
            .unwrap()
            .unwrap_err()
            .code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_peer_that_reads_nothing_does_not_delay_the_shutdown() {
    let fixture = Fixture::start().await;
    let mut stream = narrow_stream_to(fixture.addr, 4096).await;
    let mut bytes = RawFrame::new_channel().encode();
    for _ in 0..4 {
        bytes.extend(RawFrame::request("/work/large", 1, "{}").encode());
    }
    within("sending", stream.write_all(&bytes)).await.unwrap();
    // The server is sending replies when the first byte can be read.
    within("the first bytes", stream.readable()).await.unwrap();
    fixture.forced(SHORT).await;
}

#[tokio::test]
async fn a_peer_in_the_middle_of_a_request_is_not_waited_for() {
    let fixture = Fixture::start().await;
    let mut peer = Peer::over(stream_to(fixture.addr).await);
    let channel = peer.open_channel().await;
    let request = RawFrame::request("/work/raw", channel, "0123456789").encode();
    peer.send(&request[..request.len() - 5]).await;
    let mut silent = Peer::over(stream_to(fixture.addr).await);
    fixture.forced(SHORT).await;
    peer.closed().await;
    silent.closed().await;
}

#[tokio::test]
async fn an_idle_peer_is_notified_that_the_connection_ends() {
    let fixture = Fixture::start().await;
    let mut peer = Peer::over(stream_to(fixture.addr).await);
    peer.open_channel().await;
    let shutdown = fixture.shutting_down(LONG).await;
    let frames = peer.closed().await;
    assert!(
        matches!(&frames[..], [goodbye] if goodbye.status == 8),
        "{frames:?}"
    );
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn the_port_is_free_when_the_shutdown_has_returned() {
    for _ in 0..20 {
        let fixture = Fixture::start().await;
        let target = fixture.server.target().to_owned();
        fixture.work.quick().await.unwrap();
        within("the shutdown", fixture.server.shutdown(LONG)).await;
        let again = Server::builder().bind(&target).await;
        let _server = again.unwrap_or_else(|error| panic!("{target}: {error}"));
        // The same without connections.
        let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
        within("the shutdown", server.shutdown(LONG)).await;
        let again = Server::builder().bind(server.target()).await;
        let _server = again.unwrap_or_else(|error| panic!("{}: {error}", server.target()));
    }
}

#[tokio::test]
async fn several_shutdowns_at_a_time_all_return() {
    let mut fixture = Fixture::start().await;
    let call = fixture.stuck().await;
    let patient = fixture.shutting_down(LONG).await;
    let impatient = fixture.shutting_down(SHORT).await;
    within("the impatient shutdown", impatient).await.unwrap();
    within("the patient shutdown", patient).await.unwrap();
    within("the caller's error", call)
        .await
        .unwrap()
        .unwrap_err();
    within("a third", fixture.server.shutdown(LONG)).await;
}

#[tokio::test]
async fn a_server_that_is_dropped_runs_on() {
    let Fixture {
        server,
        client,
        work,
        ..
    } = Fixture::start().await;
    let target = server.target().to_owned();
    drop(server);
    within("a reply", work.quick()).await.unwrap();
    let other = Client::connect(target).await.unwrap();
    within("a reply", WorkClient::new(other).quick())
        .await
        .unwrap();
    drop(client);
}

#[tokio::test]
async fn a_client_that_is_closed_lets_its_calls_end_and_makes_no_more() {
    let mut fixture = Fixture::start().await;
    let call = fixture.gated().await;
    let client = fixture.client.clone();
    let close = started(async move { client.close(LONG).await }).await;
    fixture.gate.notify_one();
    assert_eq!(
        within("the reply", call).await.unwrap().unwrap(),
        "finished"
    );
    within("the close", close.finish()).await;
    let status = within("the rejection", fixture.work.quick())
        .await
        .unwrap_err();
    expect(&status, Code::Cancelled, Execution::NotSent);
    assert_eq!(fixture.next().await, Happened::Dropped);
}

#[tokio::test]
async fn a_client_closed_without_time_ends_its_calls() {
    let mut fixture = Fixture::start().await;
    let call = fixture.stuck().await;
    let began = Instant::now();
    within("the close", fixture.client.close(Duration::ZERO)).await;
    let status = within("the caller's error", call).await.unwrap();
    expect(
        &status.unwrap_err(),
        Code::Unavailable,
        Execution::MayHaveExecuted,
    );
    assert!(began.elapsed() < SERVED);
    assert_eq!(fixture.next().await, Happened::Dropped);
}

#[tokio::test]
async fn an_idle_connection_is_ended_after_its_time_and_replaced_by_the_next_call() {
    let limits = Limits::default().idle_timeout(Duration::from_millis(100));
    let fixture = Fixture::configured(Server::builder().limits(limits)).await;
    fixture.work.quick().await.unwrap();
    let connection = fixture.client.raw();
    let connection = connection.connection(Instant::now() + LONG).await.unwrap();
    within("the end of the connection", connection.closed()).await;
    within("the next call", fixture.work.quick()).await.unwrap();
}
