//! Cancellation: the handler of a dropped call is notified, and no other call is affected.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_rpc::{
    CallContext, CallOptions, Client, ClientBuilder, Limits, Server, ServerBuilder, Status, service,
};
use tokio::sync::{Notify, mpsc};

use crate::common::calls::{current, port, serve_with};
use crate::common::frame::RawFrame;
use crate::common::peer::Peer;
use crate::common::{SERVED, Started, passes, spawn, started, within};

/// No deadline ends a call in these tests.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Work {
    async fn abort(&self) -> Result<(), Status>;
    #[rpc(on_cancel = "token")]
    async fn token(&self) -> Result<(), Status>;
    #[rpc(on_cancel = "run")]
    async fn run(&self) -> Result<(), Status>;
    async fn nested(&self) -> Result<(), Status>;
    async fn upload(&self, data: Bytes) -> Result<(), Status>;
    #[rpc(path = "/work/raw", raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
    async fn echo(&self, number: u32) -> Result<u32, Status>;
    async fn port(&self, ctx: &CallContext) -> Result<u16, Status>;
}

#[derive(Debug, PartialEq, Eq)]
enum Happened {
    Entered,
    Dropped,
    Notified,
    Ended,
    Echo(u32),
}

struct Shop {
    happened: mpsc::UnboundedSender<Happened>,
    gate: Arc<Notify>,
    next: Option<WorkClient>,
}

struct Guard<'a>(&'a Shop);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.say(Happened::Dropped);
    }
}

impl Shop {
    fn say(&self, happened: Happened) {
        // The receiver is gone when the test has ended.
        let _ = self.happened.send(happened);
    }

    async fn hang(&self) {
        self.say(Happened::Entered);
        let _guard = Guard(self);
        std::future::pending().await
    }
}

impl Work for Shop {
    async fn abort(&self) -> Result<(), Status> {
        self.hang().await;
        Ok(())
    }

    async fn token(&self) -> Result<(), Status> {
        self.say(Happened::Entered);
        let ctx = current()?;
        assert!(!ctx.is_cancelled());
        ctx.cancelled().await;
        assert!(ctx.is_cancelled());
        self.say(Happened::Notified);
        // The handler may still run for a while.
        self.gate.notified().await;
        self.say(Happened::Ended);
        Ok(())
    }

    async fn run(&self) -> Result<(), Status> {
        self.say(Happened::Entered);
        let _guard = Guard(self);
        self.gate.notified().await;
        self.say(Happened::Ended);
        Ok(())
    }

    async fn nested(&self) -> Result<(), Status> {
        let next = self.next.as_ref();
        next.ok_or_else(|| Status::internal("no next server"))?
            .abort()
            .await
    }

    async fn upload(&self, _data: Bytes) -> Result<(), Status> {
        self.hang().await;
        Ok(())
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        self.hang().await;
        Ok(body)
    }

    async fn echo(&self, number: u32) -> Result<u32, Status> {
        self.say(Happened::Echo(number));
        Ok(number)
    }

    async fn port(&self, ctx: &CallContext) -> Result<u16, Status> {
        port(ctx)
    }
}

struct Fixture {
    server: Server,
    client: Client,
    work: WorkClient,
    happened: mpsc::UnboundedReceiver<Happened>,
    gate: Arc<Notify>,
}

impl Fixture {
    async fn start() -> Self {
        Self::configured(None, Server::builder(), Client::builder()).await
    }

    /// A fixture whose client has a single channel.
    async fn narrow() -> Self {
        let client = Client::builder().limits(Limits::default().max_channels(1));
        Self::configured(None, Server::builder(), client).await
    }

    async fn configured(next: Option<&Self>, server: ServerBuilder, client: ClientBuilder) -> Self {
        let (sender, happened) = mpsc::unbounded_channel();
        let gate = Arc::new(Notify::new());
        let shop = Shop {
            happened: sender,
            gate: Arc::clone(&gate),
            next: next.map(|next| next.work.clone()),
        };
        let (server, client) =
            serve_with(WorkServer::new(shop), server, client.timeout(LONG)).await;
        Self {
            server,
            work: WorkClient::new(client.clone()),
            client,
            happened,
            gate,
        }
    }

    /// Makes a few calls, after which the client and the server have finished all negotiation.
    async fn warm(self) -> Self {
        for _ in 0..10 {
            within("a first call", self.work.port(&CallContext::new()))
                .await
                .unwrap();
        }
        self
    }

    async fn next(&mut self) -> Happened {
        let next = within("something in a handler", self.happened.recv()).await;
        next.expect("the server lives")
    }

    /// Returns the next event, which must happen within moments.
    async fn soon(&mut self) -> Happened {
        let began = Instant::now();
        let next = self.next().await;
        assert!(began.elapsed() < SERVED, "only after {:?}", began.elapsed());
        next
    }

    /// Drops a call whose handler runs.
    async fn cancel<F: Future>(&mut self, call: impl FnOnce(WorkClient) -> F) {
        let call = started(call(self.work.clone())).await;
        assert_eq!(self.next().await, Happened::Entered);
        drop(call);
    }

    /// Starts a call that is replied to at once.
    async fn echo(
        &self,
        number: u32,
    ) -> Started<impl Future<Output = Result<u32, Status>> + use<>> {
        let work = self.work.clone();
        started(async move { work.echo(number).await }).await
    }

    /// Makes ten calls, all under way at once, and checks that they get their replies in order.
    async fn serves_in_order(&mut self) {
        let mut calls = Vec::new();
        for number in 0..10 {
            calls.push(self.echo(number).await);
        }
        for (number, call) in (0..10).zip(calls) {
            let reply = within("a reply", call.finish()).await;
            assert_eq!(reply.unwrap(), number);
        }
        for number in 0..10 {
            assert_eq!(self.next().await, Happened::Echo(number));
        }
    }
}

#[tokio::test]
async fn a_dropped_call_drops_its_handler_and_the_channel_stays_in_use() {
    let mut fixture = Fixture::narrow().await;
    let ctx = CallContext::new();
    let before = fixture.work.port(&ctx).await.unwrap();
    fixture.cancel(WorkClient::abort_owned).await;
    assert_eq!(fixture.soon().await, Happened::Dropped);
    fixture.serves_in_order().await;
    let after = within("a call after", fixture.work.port(&ctx))
        .await
        .unwrap();
    assert_eq!(before, after, "the connection was replaced");
}

#[tokio::test]
async fn a_handler_with_a_token_is_notified_and_the_channel_waits_for_its_end() {
    let mut fixture = Fixture::narrow().await;
    fixture
        .cancel(|work| async move { work.token().await })
        .await;
    assert_eq!(fixture.soon().await, Happened::Notified);
    // The call still owns the only channel: the next call waits for it.
    let next = fixture.echo(77).await;
    fixture.gate.notify_one();
    assert_eq!(fixture.next().await, Happened::Ended);
    assert_eq!(within("the next reply", next.finish()).await, Ok(77));
    assert_eq!(fixture.next().await, Happened::Echo(77));
    fixture.serves_in_order().await;
}

#[tokio::test]
async fn a_handler_with_on_cancel_run_is_not_dropped() {
    let mut fixture = Fixture::narrow().await;
    fixture.cancel(|work| async move { work.run().await }).await;
    let next = fixture.echo(78).await;
    fixture.gate.notify_one();
    assert_eq!(fixture.next().await, Happened::Ended);
    assert_eq!(fixture.next().await, Happened::Dropped);
    assert_eq!(within("the next reply", next.finish()).await, Ok(78));
    assert_eq!(fixture.next().await, Happened::Echo(78));
    fixture.serves_in_order().await;
}

#[tokio::test]
async fn a_dropped_raw_call_drops_its_handler() {
    let mut fixture = Fixture::start().await;
    fixture
        .cancel(|work| async move { work.raw("x".into()).await })
        .await;
    assert_eq!(fixture.soon().await, Happened::Dropped);
    fixture.serves_in_order().await;
}

#[tokio::test]
async fn cancellation_passes_through_a_nested_call() {
    let mut far = Fixture::start().await;
    let near = Fixture::configured(Some(&far), Server::builder(), Client::builder()).await;
    let work = near.work.clone();
    let call = started(async move { work.nested().await }).await;
    assert_eq!(far.next().await, Happened::Entered);
    drop(call);
    assert_eq!(far.soon().await, Happened::Dropped);
}

#[tokio::test]
async fn an_aborted_task_cancels_the_call_it_waits_for() {
    let mut fixture = Fixture::start().await;
    let work = fixture.work.clone();
    let task = spawn(async move { work.abort().await });
    assert_eq!(fixture.next().await, Happened::Entered);
    task.abort();
    assert_eq!(fixture.soon().await, Happened::Dropped);
}

#[tokio::test]
async fn one_cancelled_call_among_many_ends_alone() {
    let mut fixture = Fixture::start().await;
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(started(fixture.work.clone().abort_owned()).await);
        assert_eq!(fixture.next().await, Happened::Entered);
    }
    drop(calls.swap_remove(4));
    assert_eq!(fixture.soon().await, Happened::Dropped);
    fixture.serves_in_order().await;
    // After ten replies on the same connection no second handler has ended.
    assert!(fixture.happened.try_recv().is_err());
    drop(calls);
    for _ in 0..9 {
        assert_eq!(fixture.soon().await, Happened::Dropped);
    }
}

#[tokio::test]
async fn a_call_cancelled_in_the_queue_never_reaches_the_server() {
    let mut fixture = Fixture::narrow().await;
    let first = started(fixture.work.clone().abort_owned()).await;
    assert_eq!(fixture.next().await, Happened::Entered);
    let queued = fixture.echo(1_000).await;
    drop(queued);
    drop(first);
    assert_eq!(fixture.soon().await, Happened::Dropped);
    // Only these ten calls reach the server.
    fixture.serves_in_order().await;
}

#[tokio::test]
async fn the_cancellation_of_a_call_right_after_connecting_arrives() {
    let fixture = Fixture::narrow().await;
    drop(started(fixture.work.clone().abort_owned()).await);
    let reply = within("the next reply", fixture.work.echo(9)).await;
    assert_eq!(reply.unwrap(), 9);
}

#[tokio::test]
async fn a_call_cancelled_before_it_is_written_delays_no_other_call() {
    let mut fixture = Fixture::narrow().await.warm().await;
    for _ in 0..100 {
        drop(started(fixture.work.clone().abort_owned()).await);
    }
    let work = fixture.work.clone();
    let reply = within("the next reply", work.echo(9)).await;
    assert_eq!(reply.unwrap(), 9);
    fixture.client.close(LONG).await;
    // Every handler that was entered was dropped.
    let (mut entered, mut dropped) = (0, 0);
    while let Ok(happened) = fixture.happened.try_recv() {
        match happened {
            Happened::Entered => entered += 1,
            Happened::Dropped => dropped += 1,
            Happened::Echo(9) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(entered, dropped);
}

#[tokio::test]
async fn a_large_call_cancelled_while_it_is_sent_delays_no_other_call() {
    let fixture = Fixture::narrow().await.warm().await;
    let data = Bytes::from(vec![7; 8 * 1024 * 1024]);
    let work = fixture.work.clone();
    // The cancellation is smaller than the call, and may overtake it.
    drop(started(async move { work.upload(data).await }).await);
    let reply = within("the next reply", fixture.work.echo(9)).await;
    assert_eq!(reply.unwrap(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_calls_cancelled_at_any_moment_delay_no_other_call() {
    let fixture = Fixture::narrow().await.warm().await;
    let data = Bytes::from(vec![7; 4 * 1024 * 1024]);
    for round in 0..20_u64 {
        let (work, data) = (fixture.work.clone(), data.clone());
        let call = spawn(async move { work.upload(data).await });
        for _ in 0..round * 10 {
            tokio::task::yield_now().await;
        }
        call.abort();
        let reply = within("the next reply", fixture.work.echo(9)).await;
        assert_eq!(reply.unwrap(), 9);
    }
}

#[tokio::test]
async fn a_connection_at_capacity_still_receives_cancellations() {
    let server = Server::builder().limits(Limits::default().max_calls(2));
    let client = Client::builder().limits(Limits::default().max_channels(2));
    let mut fixture = Fixture::configured(None, server, client).await;
    let first = started(fixture.work.clone().abort_owned()).await;
    let second = started(fixture.work.clone().abort_owned()).await;
    assert_eq!(fixture.next().await, Happened::Entered);
    assert_eq!(fixture.next().await, Happened::Entered);
    drop((first, second));
    assert_eq!(fixture.soon().await, Happened::Dropped);
    assert_eq!(fixture.soon().await, Happened::Dropped);
    fixture.serves_in_order().await;
}

#[tokio::test]
async fn a_client_that_closes_ends_its_handlers() {
    let mut fixture = Fixture::start().await;
    let calls = spawn({
        let work = fixture.work.clone();
        async move { tokio::join!(work.abort(), work.token()) }
    });
    assert_eq!(fixture.next().await, Happened::Entered);
    assert_eq!(fixture.next().await, Happened::Entered);
    // Without a grace period the connection is closed while its calls run.
    within("the close", fixture.client.close(Duration::ZERO)).await;
    let (aborted, notified) = within("the end of the calls", calls).await.unwrap();
    assert_eq!(aborted.unwrap_err().code(), iip_rpc::Code::Unavailable);
    assert_eq!(notified.unwrap_err().code(), iip_rpc::Code::Unavailable);
    let mut seen = [fixture.soon().await, fixture.soon().await];
    seen.sort_by_key(|happened| *happened == Happened::Notified);
    assert_eq!(seen, [Happened::Dropped, Happened::Notified]);
    fixture.gate.notify_one();
    assert_eq!(fixture.soon().await, Happened::Ended);
}

#[tokio::test]
async fn a_connection_that_breaks_ends_its_handlers() {
    let mut fixture = Fixture::start().await;
    let addr = fixture.server.local_addr().unwrap();
    let mut peer = Peer::connect(addr).await;
    let channel = peer.open_channel().await;
    peer.send_frame(&RawFrame::request("/work/abort", channel, "{}"))
        .await;
    assert_eq!(fixture.next().await, Happened::Entered);
    peer.reset().await;
    assert_eq!(fixture.soon().await, Happened::Dropped);
}

#[tokio::test]
async fn a_call_past_its_deadline_is_cancelled_like_a_dropped_one() {
    let mut fixture = Fixture::narrow().await;
    let time = Duration::from_secs(5);
    let options = CallOptions::new().timeout(time);
    let short = fixture.work.with_options(options);
    let call = spawn(async move { short.run().await });
    assert_eq!(fixture.next().await, Happened::Entered);
    passes(time).await;
    let status = within("the time-out", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), iip_rpc::Code::DeadlineExceeded);
    fixture.gate.notify_one();
    assert_eq!(fixture.next().await, Happened::Ended);
    assert_eq!(fixture.next().await, Happened::Dropped);
    fixture.serves_in_order().await;
}

impl WorkClient {
    /// The call as a future that owns its client, so that it can be stored.
    async fn abort_owned(self) -> Result<(), Status> {
        self.abort().await
    }
}
