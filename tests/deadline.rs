//! Deadlines: one budget from the call to the reply, sent with the request, enforced by the server,
//! and inherited by nested calls.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_rpc::codec::CodecId;
use iip_rpc::envelope::{Outcome, ReplyHead, RequestHead};
use iip_rpc::{CallContext, CallOptions, Client, Code, Execution, Limits, Server, Status, service};
use tokio::sync::{Notify, mpsc};

use crate::common::calls::{
    self, current, expect, lazy, port, serve, serve_until_request, status_in,
};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::{passes, spawn, started, within};

/// A timeout that expires during the test.
const SHORT: Duration = Duration::from_secs(5);
/// A timeout that does not expire during a test.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Work {
    /// Returns the remaining time, in microseconds.
    async fn remaining(&self) -> Result<Option<u64>, Status>;
    #[rpc(timeout = "250ms")]
    async fn short_by_itself(&self) -> Result<Option<u64>, Status>;
    async fn hang(&self) -> Result<(), Status>;
    #[rpc(on_cancel = "token")]
    async fn hang_until_notified(&self) -> Result<(), Status>;
    #[rpc(on_cancel = "run")]
    async fn run_to_end(&self) -> Result<(), Status>;
    /// Asks the next server for the remaining time.
    async fn ask_next(&self, timeout_ms: u64) -> Result<Option<u64>, Status>;
    async fn ask_next_with(&self, ctx: &CallContext) -> Result<Option<u64>, Status>;
    /// Waits for the deadline, then calls the next server.
    #[rpc(on_cancel = "token")]
    async fn ask_next_too_late(&self) -> Result<(), Status>;
    async fn quick(&self) -> Result<u16, Status>;
}

#[derive(Debug, PartialEq)]
enum Happened {
    Entered(&'static str),
    Dropped(&'static str),
    Notified,
    Ended,
    Nested(Code, Execution),
}

struct Shop {
    happened: mpsc::UnboundedSender<Happened>,
    gate: Arc<Notify>,
    next: Option<WorkClient>,
    calls: Arc<AtomicUsize>,
}

/// Sends an event when it is dropped.
struct Guard<'a>(&'a Shop, &'static str);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.say(Happened::Dropped(self.1));
    }
}

impl Shop {
    fn say(&self, happened: Happened) {
        // The receiver is gone when the test has ended.
        let _ = self.happened.send(happened);
    }

    fn next(&self) -> Result<&WorkClient, Status> {
        self.next
            .as_ref()
            .ok_or_else(|| Status::internal("no next server"))
    }

    fn left() -> Option<u64> {
        let remaining = CallContext::current()?.remaining()?;
        Some(remaining.as_micros() as u64)
    }
}

impl Work for Shop {
    async fn remaining(&self) -> Result<Option<u64>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(Self::left())
    }

    async fn short_by_itself(&self) -> Result<Option<u64>, Status> {
        Ok(Self::left())
    }

    async fn hang(&self) -> Result<(), Status> {
        self.say(Happened::Entered("hang"));
        let _guard = Guard(self, "hang");
        std::future::pending().await
    }

    async fn hang_until_notified(&self) -> Result<(), Status> {
        self.say(Happened::Entered("notified"));
        let ctx = current()?;
        ctx.cancelled().await;
        assert!(ctx.is_cancelled());
        self.say(Happened::Notified);
        Ok(())
    }

    async fn run_to_end(&self) -> Result<(), Status> {
        self.say(Happened::Entered("run"));
        self.gate.notified().await;
        self.say(Happened::Ended);
        Ok(())
    }

    async fn ask_next(&self, timeout_ms: u64) -> Result<Option<u64>, Status> {
        let options = CallOptions::new().timeout(Duration::from_millis(timeout_ms));
        self.next()?.with_options(options).remaining().await
    }

    async fn ask_next_with(&self, _ctx: &CallContext) -> Result<Option<u64>, Status> {
        self.next()?.remaining().await
    }

    async fn ask_next_too_late(&self) -> Result<(), Status> {
        self.say(Happened::Entered("too late"));
        let ctx = current()?;
        ctx.cancelled().await;
        // The cancel of the client, whose deadline is a little sooner, can arrive before this
        // handler's own deadline.
        tokio::time::sleep(ctx.remaining().unwrap()).await;
        let status = self.next()?.remaining().await.unwrap_err();
        self.say(Happened::Nested(status.code(), status.execution()));
        Ok(())
    }

    async fn quick(&self) -> Result<u16, Status> {
        port(&current()?)
    }
}

/// A server, a client of it, and the events of its handlers.
struct Fixture {
    server: Server,
    client: Client,
    work: WorkClient,
    happened: mpsc::UnboundedReceiver<Happened>,
    gate: Arc<Notify>,
    calls: Arc<AtomicUsize>,
}

impl Fixture {
    async fn start(next: Option<&Self>) -> Self {
        let (sender, happened) = mpsc::unbounded_channel();
        let (gate, calls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let shop = Shop {
            happened: sender,
            gate: Arc::clone(&gate),
            next: next.map(|next| next.work.clone()),
            calls: Arc::clone(&calls),
        };
        let (server, client) = serve(WorkServer::new(shop)).await;
        let work = WorkClient::new(client.clone());
        Self {
            server,
            client,
            work,
            happened,
            gate,
            calls,
        }
    }

    fn within(&self, timeout: Duration) -> WorkClient {
        self.work.with_options(CallOptions::new().timeout(timeout))
    }

    /// Returns another client, with a single channel.
    async fn narrow(&self) -> WorkClient {
        let client = Client::builder().limits(Limits::default().max_channels(1));
        WorkClient::new(client.connect(self.server.target()).await.unwrap())
    }

    /// Returns the status of a call whose deadline passes after its handler has sent this event.
    async fn out_of_time<T>(
        &mut self,
        entered: &'static str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let call = started(call).await;
        assert_eq!(self.next().await, Happened::Entered(entered));
        passes(SHORT).await;
        within("the time-out", call.finish()).await
    }

    async fn next(&mut self) -> Happened {
        let next = within("something in a handler", self.happened.recv()).await;
        next.expect("the server lives")
    }
}

#[tokio::test]
async fn the_remaining_time_reaches_the_handler() {
    let fixture = Fixture::start(None).await;
    let left = fixture.within(LONG).remaining().await.unwrap().unwrap();
    let left = Duration::from_micros(left);
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
}

#[tokio::test]
async fn a_call_without_a_timeout_has_that_of_the_client() {
    let fixture = Fixture::start(None).await;
    let left = Duration::from_micros(fixture.work.remaining().await.unwrap().unwrap());
    assert!(
        left <= Duration::from_secs(10) && left > Duration::from_secs(2),
        "{left:?}"
    );
    let client = Client::builder()
        .timeout(LONG)
        .connect(fixture.server.target())
        .await
        .unwrap();
    let left = WorkClient::new(client).remaining().await.unwrap().unwrap();
    assert!(Duration::from_micros(left) > LONG / 2);
}

#[tokio::test]
async fn the_timeout_of_a_method_overrides_that_of_the_client_and_yields_to_that_of_the_call() {
    let fixture = Fixture::start(None).await;
    let left = fixture.work.short_by_itself().await.unwrap().unwrap();
    assert!(left <= 250_000, "{left}");
    let left = fixture.within(LONG).short_by_itself().await.unwrap();
    assert!(left.unwrap() > 250_000, "{left:?}");
}

#[tokio::test]
async fn the_remaining_time_is_sent_and_never_a_time_of_day() {
    let (listener, client) = lazy(Client::builder()).await;
    let work = WorkClient::new(client).with_options(CallOptions::new().timeout(LONG));
    let call = spawn(async move { work.remaining().await });
    let mut peer = Peer::over(accepted(&listener).await);
    let begun = Instant::now();
    let request = serve_until_request(&mut peer, Some(TYPED_HELLO), "/work/remaining").await;
    let (head, args) = RequestHead::read(request.body.into()).unwrap();
    let remaining = head.remaining.unwrap();
    assert!(remaining <= LONG, "{remaining:?}");
    assert!(
        remaining + begun.elapsed() + Duration::from_secs(20) > LONG,
        "{remaining:?}"
    );
    assert!(args.is_empty(), "no arguments take no bytes");
    call.abort();
}

const TYPED_HELLO: &str =
    r#"{"code":0,"iip":1,"control":0,"max_frame":16777216,"rpc":{"envelope":0,"codecs":[1,3]}}"#;

#[tokio::test]
async fn a_call_that_exceeds_its_deadline_reports_its_phases_and_what_to_change() {
    let mut fixture = Fixture::start(None).await;
    let short = fixture.within(SHORT);
    let status = fixture.out_of_time("hang", short.hang()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    let text = status.to_string();
    assert!(text.contains("Work.hang"), "{text}");
    assert!(text.contains("option timeout"), "{text}");
    assert!(
        !text.contains("call_timeout"),
        "no option of the typed client is called so: {text}"
    );
    assert!(text.contains("may have executed"), "{text}");
    assert!(text.contains("reply "), "{text}");
    let phases = status.phases().unwrap();
    assert!(phases.reply > SHORT / 2, "{phases:?}");
    assert!(phases.total() >= SHORT, "{phases:?}");
}

#[tokio::test]
async fn the_handler_of_a_call_past_its_deadline_is_stopped_and_the_connection_lives() {
    let mut fixture = Fixture::start(None).await;
    let before = fixture.work.quick().await.unwrap();
    let short = fixture.within(SHORT);
    let status = fixture.out_of_time("hang", short.hang()).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(fixture.next().await, Happened::Dropped("hang"));
    let after = within("a call after", fixture.work.quick()).await.unwrap();
    assert_eq!(before, after, "the connection was replaced");
}

/// A request without arguments.
fn request(remaining: Option<Duration>) -> Bytes {
    calls::request(CodecId::BINCODE, remaining, b"")
}

#[tokio::test]
async fn the_server_keeps_the_deadline_also_when_the_client_does_not() {
    let mut fixture = Fixture::start(None).await;
    // The raw client waits much longer than the timeout that it sends.
    let client = fixture.client.clone();
    let call = started(client.raw().request("/work/hang", request(Some(SHORT)))).await;
    assert_eq!(fixture.next().await, Happened::Entered("hang"));
    passes(SHORT).await;
    let reply = within("the server's reply", call.finish()).await.unwrap();
    let status = status_in(reply);
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    assert_eq!(fixture.next().await, Happened::Dropped("hang"));
}

#[tokio::test]
async fn a_call_that_arrives_after_its_deadline_is_not_executed() {
    let fixture = Fixture::start(None).await;
    let call = request(Some(Duration::ZERO));
    let reply = fixture.client.raw().request("/work/remaining", call);
    let status = status_in(within("the reply", reply).await.unwrap());
    expect(&status, Code::DeadlineExceeded, Execution::NotExecuted);
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_call_without_a_deadline_has_none() {
    let fixture = Fixture::start(None).await;
    let reply = fixture
        .client
        .raw()
        .request("/work/remaining", request(None));
    let (head, body) = ReplyHead::read(within("the reply", reply).await.unwrap()).unwrap();
    assert_eq!(head.outcome, Outcome::Value);
    assert_eq!(body[..], [0], "none");
}

#[tokio::test]
async fn a_call_that_has_expired_is_not_sent() {
    let fixture = Fixture::start(None).await;
    let status = within("the rejection", fixture.within(Duration::ZERO).remaining())
        .await
        .unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::NotSent);
    fixture.work.quick().await.unwrap();
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_nested_call_inherits_the_remaining_time() {
    let next = Fixture::start(None).await;
    let fixture = Fixture::start(Some(&next)).await;
    let long = LONG.as_millis() as u64;
    let limit = Duration::from_secs(30);
    let left = fixture.within(limit).ask_next(long).await.unwrap().unwrap();
    let left = Duration::from_micros(left);
    assert!(left <= limit && left > limit / 3, "{left:?}");
    let left = fixture.within(LONG).ask_next(5_000).await.unwrap().unwrap();
    assert!(left <= 5_000_000, "its own limit is sooner: {left}");
    let ctx = CallContext::new().with_timeout(Duration::from_secs(5));
    let left = fixture
        .within(LONG)
        .ask_next_with(&ctx)
        .await
        .unwrap()
        .unwrap();
    assert!(left <= 5_000_000, "the caller's context is sooner: {left}");
}

#[tokio::test]
async fn a_nested_call_past_its_deadline_is_not_sent() {
    let next = Fixture::start(None).await;
    let mut fixture = Fixture::start(Some(&next)).await;
    let short = fixture.within(SHORT);
    let status = fixture
        .out_of_time("too late", short.ask_next_too_late())
        .await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(
        fixture.next().await,
        Happened::Nested(Code::DeadlineExceeded, Execution::NotSent)
    );
    assert_eq!(next.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_handler_with_a_token_is_notified_at_the_deadline_and_decides_itself() {
    let mut fixture = Fixture::start(None).await;
    let short = fixture.within(SHORT);
    let status = fixture
        .out_of_time("notified", short.hang_until_notified())
        .await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(fixture.next().await, Happened::Notified);
}

#[tokio::test]
async fn a_handler_with_on_cancel_run_outlives_the_deadline() {
    let mut fixture = Fixture::start(None).await;
    let short = fixture.within(SHORT);
    let status = fixture.out_of_time("run", short.run_to_end()).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    fixture.gate.notify_one();
    assert_eq!(fixture.next().await, Happened::Ended);
}

#[tokio::test]
async fn time_in_the_queue_counts_and_the_call_was_not_sent() {
    let mut fixture = Fixture::start(None).await;
    let work = fixture.narrow().await;
    let long = work.with_options(CallOptions::new().timeout(LONG));
    let first = spawn(async move { long.hang().await });
    assert_eq!(fixture.next().await, Happened::Entered("hang"));
    let short = work.with_options(CallOptions::new().timeout(SHORT));
    let call = started(short.remaining()).await;
    passes(SHORT).await;
    let status = within("the time-out", call.finish()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::NotSent);
    let phases = status.phases().unwrap();
    assert!(phases.wait_for_channel >= SHORT, "{phases:?}");
    assert_eq!(phases.reply, Duration::ZERO);
    assert!(status.to_string().contains("wait for channel"), "{status}");
    first.abort();
    assert_eq!(fixture.next().await, Happened::Dropped("hang"));
    within("a call after", work.quick()).await.unwrap();
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn time_for_connecting_counts_and_the_call_was_not_sent() {
    let (listener, client) = lazy(Client::builder().connect_timeout(LONG)).await;
    let work = WorkClient::new(client).with_options(CallOptions::new().timeout(SHORT));
    // The server accepts and sends nothing.
    let call = started(work.quick()).await;
    let _silent = accepted(&listener).await;
    passes(SHORT).await;
    let status = within("the time-out", call.finish()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::NotSent);
    let phases = status.phases().unwrap();
    assert!(phases.connect >= SHORT, "{phases:?}");
    assert!(status.to_string().contains("connect "), "{status}");
}

#[tokio::test]
async fn a_call_that_had_to_connect_first_reports_how_long_that_took() {
    let (listener, client) = lazy(Client::builder().connect_timeout(LONG)).await;
    let work = WorkClient::new(client);
    let timeout = 3 * SHORT;
    let work = work.with_options(CallOptions::new().timeout(timeout));
    let call = spawn(async move { work.quick().await });
    let mut peer = Peer::over(accepted(&listener).await);
    let hello = peer.frame().await;
    assert_eq!(hello.path_text(), "/sys/hello");
    // Part of the call's time passes before the connection is established.
    passes(SHORT).await;
    peer.send_frame(&RawFrame::reply("/sys/hello", 0, TYPED_HELLO))
        .await;
    serve_until_request(&mut peer, None, "/work/quick").await;
    passes(2 * SHORT).await;
    let status = within("the time-out", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let phases = *status.phases().unwrap();
    assert!(phases.connect >= SHORT, "{phases:?}");
    assert!(phases.total() >= timeout, "{phases:?}");
}

#[tokio::test]
async fn a_late_reply_is_discarded_and_the_next_call_gets_its_own() {
    let mut fixture = Fixture::start(None).await;
    let work = fixture.narrow().await;
    let short = work.with_options(CallOptions::new().timeout(SHORT));
    let status = fixture.out_of_time("run", short.run_to_end()).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    let next = started(work.remaining()).await;
    fixture.gate.notify_one();
    let left = within("the next reply", next.finish()).await.unwrap();
    assert!(left.unwrap() > 0, "its own reply, not the late one");
}
