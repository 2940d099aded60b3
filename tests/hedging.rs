//! Hedged calls: when a second attempt is made, which reply counts, and how the other attempt ends.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_rpc::{
    Client, ClientBuilder, Code, Execution, Hedge, MethodPolicy, RetryBudget, RetryPolicy, Server,
    Status, service,
};
use tokio::sync::{Notify, Semaphore};

use crate::common::calls::{expect, serve_with, use_permit};
use crate::common::{Started, passes, started, within};

/// A delay that does not expire in a test that passes.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Oracle {
    /// Replies with the number of the run.
    #[rpc(idempotent, hedge = "20ms")]
    async fn ask(&self) -> Result<u32, Status>;
    #[rpc(idempotent, hedge = "20ms")]
    async fn ask_at_length(&self, question: Bytes) -> Result<u32, Status>;
    #[rpc(idempotent, hedge = "20ms", raw)]
    async fn ask_raw(&self, question: Bytes) -> Result<Bytes, Status>;
    #[rpc(idempotent, hedge = "p90")]
    async fn ask_often(&self) -> Result<u32, Status>;
    async fn ask_once(&self) -> Result<u32, Status>;
}

/// The behaviour of a run.
#[derive(Clone)]
enum Act {
    Reply,
    /// Waits for ever.
    Hang,
    /// Waits for its release, then replies.
    Wait,
    Fail(Status),
    /// Waits for its release, then fails.
    FailLater(Status),
}

#[derive(Clone)]
struct Pythia {
    /// The behaviour of the runs, by their number; later runs reply at once.
    acts: Arc<Mutex<Vec<Act>>>,
    runs: Arc<AtomicU32>,
    entered: Arc<Notify>,
    dropped: Arc<Notify>,
    gate: Arc<Semaphore>,
}

/// Sends an event when a handler is dropped before its end.
struct Guard<'a>(Option<&'a Notify>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|dropped| dropped.notify_one());
    }
}

impl Pythia {
    async fn run(&self) -> Result<u32, Status> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        let act = self.acts.lock().unwrap().get(run as usize).cloned();
        let mut guard = Guard(Some(&self.dropped));
        self.entered.notify_one();
        let outcome = match act.unwrap_or(Act::Reply) {
            Act::Reply => Ok(run + 1),
            Act::Fail(status) => Err(status),
            Act::Hang => std::future::pending().await,
            Act::Wait => self.pass().await.map(|()| run + 1),
            Act::FailLater(status) => self.pass().await.and(Err(status)),
        };
        guard.0 = None;
        outcome
    }

    async fn pass(&self) -> Result<(), Status> {
        use_permit(&self.gate).await
    }
}

impl Oracle for Pythia {
    async fn ask(&self) -> Result<u32, Status> {
        self.run().await
    }

    async fn ask_at_length(&self, _question: Bytes) -> Result<u32, Status> {
        self.run().await
    }

    async fn ask_raw(&self, question: Bytes) -> Result<Bytes, Status> {
        self.run().await.map(|_| question)
    }

    async fn ask_often(&self) -> Result<u32, Status> {
        self.run().await
    }

    async fn ask_once(&self) -> Result<u32, Status> {
        self.run().await
    }
}

struct Fixture {
    _server: Server,
    oracle: OracleClient,
    pythia: Pythia,
}

impl Fixture {
    async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with(acts, Client::builder().retry(RetryPolicy::none())).await
    }

    /// Lets the run that waits end, and returns the outcome of its call.
    async fn passes(
        &self,
        call: Started<impl Future<Output = Result<u32, Status>>>,
    ) -> Result<u32, Status> {
        self.pythia.gate.add_permits(1);
        within("the reply", call.finish()).await
    }

    async fn with(acts: impl IntoIterator<Item = Act>, client: ClientBuilder) -> Self {
        let pythia = Pythia {
            acts: Arc::new(Mutex::new(acts.into_iter().collect())),
            runs: Arc::default(),
            entered: Arc::default(),
            dropped: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        };
        let service = OracleServer::new(pythia.clone());
        let (server, client) = serve_with(service, Server::builder(), client.timeout(LONG)).await;
        Self {
            _server: server,
            oracle: OracleClient::new(client),
            pythia,
        }
    }

    fn runs(&self) -> u32 {
        self.pythia.runs.load(Ordering::SeqCst)
    }

    async fn ask(&self) -> Result<u32, Status> {
        within("the reply", self.oracle.ask()).await
    }

    /// Waits until this number of runs has begun.
    async fn begun(&self, runs: u32) {
        within("the run", async {
            while self.runs() < runs {
                self.pythia.entered.notified().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_call_without_a_reply_is_hedged_and_the_attempt_that_lost_is_cancelled() {
    let fixture = Fixture::start([Act::Hang]).await;
    let begun = Instant::now();
    assert_eq!(fixture.ask().await, Ok(2));
    assert!(begun.elapsed() >= Duration::from_millis(20));
    within("the end of the first", fixture.pythia.dropped.notified()).await;
    assert_eq!(fixture.runs(), 2);
}

#[tokio::test]
async fn the_first_reply_counts_even_if_it_is_that_of_the_first_attempt() {
    let fixture = Fixture::start([Act::Wait, Act::Hang]).await;
    let call = started(fixture.oracle.ask());
    let (call, ()) = tokio::join!(
        async { within("the reply", call.await.finish()).await },
        async {
            fixture.begun(2).await;
            fixture.pythia.gate.add_permits(1);
        }
    );
    assert_eq!(call, Ok(1));
    within("the end of the second", fixture.pythia.dropped.notified()).await;
}

#[tokio::test]
async fn a_call_with_a_reply_in_time_is_made_once() {
    // A delay that is longer than a reply takes on a busy machine.
    let policy = MethodPolicy::new().hedge(Hedge::After(Duration::from_secs(8)));
    let client = Client::builder()
        .method_policy("/oracle/ask", policy)
        .retry(RetryPolicy::none());
    let fixture = Fixture::with([], client).await;
    for run in 1..=50 {
        assert_eq!(fixture.ask().await, Ok(run));
    }
}

#[tokio::test]
async fn a_method_that_must_not_run_twice_is_never_hedged() {
    let policy = MethodPolicy::new().hedge(Hedge::After(Duration::from_millis(1)));
    let client = Client::builder()
        .method_policy("/oracle/ask_once", policy)
        .retry(RetryPolicy::none());
    let fixture = Fixture::with([Act::Wait], client).await;
    let call = started(fixture.oracle.ask_once()).await;
    fixture.begun(1).await;
    // The delay itself is the stimulus: twenty times the configured one.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(fixture.passes(call).await, Ok(1));
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn a_policy_of_the_client_can_forbid_hedging() {
    let client = Client::builder().method_policy("/oracle/ask", MethodPolicy::new().hedge(None));
    let fixture = Fixture::with([Act::Wait], client).await;
    let call = started(fixture.oracle.ask()).await;
    // The delay itself is the stimulus: four times the configured one.
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(fixture.passes(call).await, Ok(1));
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn a_retryable_failure_lets_the_other_attempt_continue() {
    let failing = Act::Fail(Status::unavailable("not today"));
    let fixture = Fixture::start([Act::Wait, failing]).await;
    let call = started(fixture.oracle.ask()).await;
    let (call, ()) = tokio::join!(within("the reply", call.finish()), async {
        fixture.begun(2).await;
        // The reply comes after the failure of the second attempt, on the same connection.
        assert_eq!(fixture.oracle.ask_once().await, Ok(3));
        fixture.pythia.gate.add_permits(1);
    });
    assert_eq!(call, Ok(1));
}

#[tokio::test]
async fn a_final_failure_ends_the_call_and_reports_that_the_other_attempt_may_have_run() {
    let rejected = Status::invalid_argument("a question").with_execution(Execution::NotExecuted);
    let fixture = Fixture::start([Act::Hang, Act::Fail(rejected)]).await;
    let status = fixture.ask().await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::MayHaveExecuted);
    within("the end of the first", fixture.pythia.dropped.notified()).await;
}

#[tokio::test]
async fn second_attempts_count_against_the_retry_budget() {
    let budget = RetryBudget::new().max_tokens(1).token_ratio(0.0);
    let client = Client::builder().retry_budget(budget);
    let fixture = Fixture::with([Act::Hang, Act::Reply, Act::Wait], client).await;
    assert_eq!(fixture.ask().await, Ok(2));
    let call = started(fixture.oracle.ask()).await;
    fixture.begun(3).await;
    // The delay itself is the stimulus: four times the configured one.
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(fixture.passes(call).await, Ok(3));
    assert_eq!(fixture.runs(), 3, "no fourth");
}

#[tokio::test]
async fn a_server_that_pushes_back_is_not_hedged() {
    let busy = Status::unavailable("busy").with_retry_after(LONG / 10);
    // A delay within which the server replies, also on a busy machine.
    let delay = Duration::from_secs(5);
    let policy = MethodPolicy::new().hedge(Hedge::After(delay));
    let client = Client::builder()
        .method_policy("/oracle/ask", policy)
        .retry(RetryPolicy::none());
    let fixture = Fixture::with([Act::Fail(busy), Act::Wait], client).await;
    assert!(fixture.ask().await.is_err());
    let call = started(fixture.oracle.ask()).await;
    fixture.begun(2).await;
    passes(2 * delay).await;
    assert_eq!(fixture.passes(call).await, Ok(2));
    assert_eq!(fixture.runs(), 2, "no third");
}

#[tokio::test]
async fn hedged_calls_are_retried_when_both_attempts_have_failed() {
    let lost = || Status::unavailable("not today");
    let acts = [Act::FailLater(lost()), Act::Fail(lost())];
    let fixture = Fixture::with(acts, Client::builder()).await;
    let call = started(fixture.oracle.ask()).await;
    let (call, ()) = tokio::join!(within("the reply", call.finish()), async {
        fixture.begun(2).await;
        fixture.pythia.gate.add_permits(1);
    });
    assert_eq!(call, Ok(3));
}

#[tokio::test]
async fn raw_methods_are_hedged_and_large_arguments_are_not() {
    let fixture = Fixture::start([Act::Hang]).await;
    let call = fixture.oracle.ask_raw(Bytes::from_static(b"why"));
    assert_eq!(within("the reply", call).await.unwrap(), "why");
    assert_eq!(fixture.runs(), 2);
    let fixture = Fixture::start([Act::Wait]).await;
    let question = Bytes::from(vec![b'?'; 70_000]);
    let call = started(fixture.oracle.ask_at_length(question)).await;
    fixture.begun(1).await;
    // The delay itself is the stimulus: four times the configured one.
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(fixture.passes(call).await, Ok(1));
}

#[tokio::test]
async fn a_percentile_is_learned_from_the_calls_before() {
    let mut acts = vec![Act::Reply; 40];
    acts.push(Act::Hang);
    let fixture = Fixture::start(acts).await;
    for run in 1..=40 {
        let reply = within("the reply", fixture.oracle.ask_often()).await;
        // One of these calls takes longer than the percentile and is hedged.
        assert!(reply.is_ok(), "{run}: {reply:?}");
    }
    while fixture.runs() < 40 {
        within("the reply", fixture.oracle.ask_often())
            .await
            .unwrap();
    }
    // One of these calls meets the run that hangs, and is hedged.
    for _ in 0..2 {
        let reply = within("the reply", fixture.oracle.ask_often()).await;
        assert!(reply.unwrap() > 40);
    }
    within(
        "the end of the one that hung",
        fixture.pythia.dropped.notified(),
    )
    .await;
}
