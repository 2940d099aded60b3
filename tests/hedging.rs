//! Hedged calls: when a second attempt is made and when not, which answer counts, and what becomes of the other one.

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

use crate::common::calls::{expect, serve_with};
use crate::common::{passes, started, within};

/// Nothing waits so long in a test that passes.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Oracle {
    /// Answers with the number of the run.
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

/// What a run does.
#[derive(Clone)]
enum Act {
    Answer,
    /// Waits for ever.
    Hang,
    /// Waits until it is let go, then answers.
    Wait,
    Fail(Status),
    /// Waits until it is let go, then fails.
    FailLater(Status),
}

#[derive(Clone)]
struct Pythia {
    /// What the runs do, by their number; those behind the end answer.
    acts: Arc<Mutex<Vec<Act>>>,
    runs: Arc<AtomicU32>,
    entered: Arc<Notify>,
    dropped: Arc<Notify>,
    gate: Arc<Semaphore>,
}

/// Tells when a handler is dropped that has not ended.
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
        let outcome = match act.unwrap_or(Act::Answer) {
            Act::Answer => Ok(run + 1),
            Act::Fail(status) => Err(status),
            Act::Hang => std::future::pending().await,
            Act::Wait => self.pass().await.map(|()| run + 1),
            Act::FailLater(status) => self.pass().await.and(Err(status)),
        };
        guard.0 = None;
        outcome
    }

    async fn pass(&self) -> Result<(), Status> {
        let permit = self.gate.acquire().await;
        permit
            .map_err(|error| Status::internal(error.to_string()))?
            .forget();
        Ok(())
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
        within("the answer", self.oracle.ask()).await
    }

    /// Waits until so many runs have begun.
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
async fn a_call_without_an_answer_is_made_again_and_the_one_that_lost_is_cancelled() {
    let fixture = Fixture::start([Act::Hang]).await;
    let begun = Instant::now();
    assert_eq!(fixture.ask().await, Ok(2));
    assert!(begun.elapsed() >= Duration::from_millis(20));
    within("the end of the first", fixture.pythia.dropped.notified()).await;
    assert_eq!(fixture.runs(), 2);
}

#[tokio::test]
async fn the_first_answer_counts_also_when_it_is_that_of_the_first_attempt() {
    let fixture = Fixture::start([Act::Wait, Act::Hang]).await;
    let call = started(fixture.oracle.ask());
    let (call, ()) = tokio::join!(
        async { within("the answer", call.await.finish()).await },
        async {
            fixture.begun(2).await;
            fixture.pythia.gate.add_permits(1);
        }
    );
    assert_eq!(call, Ok(1));
    within("the end of the second", fixture.pythia.dropped.notified()).await;
}

#[tokio::test]
async fn a_call_that_is_answered_in_time_is_made_once() {
    // A delay that no busy machine takes for an answer.
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
    // The time itself is the stimulus: twenty times the delay.
    tokio::time::sleep(Duration::from_millis(20)).await;
    fixture.pythia.gate.add_permits(1);
    assert_eq!(within("the answer", call.finish()).await, Ok(1));
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn a_policy_of_the_client_can_forbid_hedging() {
    let client = Client::builder().method_policy("/oracle/ask", MethodPolicy::new().hedge(None));
    let fixture = Fixture::with([Act::Wait], client).await;
    let call = started(fixture.oracle.ask()).await;
    // The time itself is the stimulus: four times the delay.
    tokio::time::sleep(Duration::from_millis(80)).await;
    fixture.pythia.gate.add_permits(1);
    assert_eq!(within("the answer", call.finish()).await, Ok(1));
    assert_eq!(fixture.runs(), 1);
}

#[tokio::test]
async fn a_failure_that_is_worth_a_retry_leaves_the_other_attempt_its_chance() {
    let failing = Act::Fail(Status::unavailable("not today"));
    let fixture = Fixture::start([Act::Wait, failing]).await;
    let call = started(fixture.oracle.ask()).await;
    let (call, ()) = tokio::join!(within("the answer", call.finish()), async {
        fixture.begun(2).await;
        // Answered behind the failure of the second, on the same connection.
        assert_eq!(fixture.oracle.ask_once().await, Ok(3));
        fixture.pythia.gate.add_permits(1);
    });
    assert_eq!(call, Ok(1));
}

#[tokio::test]
async fn a_failure_that_is_final_ends_the_call_and_says_that_the_other_attempt_may_have_run() {
    let refused = Status::invalid_argument("a question").with_execution(Execution::NotExecuted);
    let fixture = Fixture::start([Act::Hang, Act::Fail(refused)]).await;
    let status = fixture.ask().await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::MayHaveExecuted);
    within("the end of the first", fixture.pythia.dropped.notified()).await;
}

#[tokio::test]
async fn second_attempts_are_paid_from_the_budget_of_retries() {
    let budget = RetryBudget::new().max_tokens(1).token_ratio(0.0);
    let client = Client::builder().retry_budget(budget);
    let fixture = Fixture::with([Act::Hang, Act::Answer, Act::Wait], client).await;
    assert_eq!(fixture.ask().await, Ok(2));
    let call = started(fixture.oracle.ask()).await;
    fixture.begun(3).await;
    // The time itself is the stimulus: four times the delay.
    tokio::time::sleep(Duration::from_millis(80)).await;
    fixture.pythia.gate.add_permits(1);
    assert_eq!(within("the answer", call.finish()).await, Ok(3));
    assert_eq!(fixture.runs(), 3, "no fourth");
}

#[tokio::test]
async fn a_server_that_pushes_back_is_not_hedged() {
    let busy = Status::unavailable("busy").with_retry_after(LONG / 10);
    // A delay in which the server answers, also on a busy machine.
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
    fixture.pythia.gate.add_permits(1);
    assert_eq!(within("the answer", call.finish()).await, Ok(2));
    assert_eq!(fixture.runs(), 2, "no third");
}

#[tokio::test]
async fn hedged_calls_are_retried_when_both_attempts_have_failed() {
    let lost = || Status::unavailable("not today");
    let acts = [Act::FailLater(lost()), Act::Fail(lost())];
    let fixture = Fixture::with(acts, Client::builder()).await;
    let call = started(fixture.oracle.ask()).await;
    let (call, ()) = tokio::join!(within("the answer", call.finish()), async {
        fixture.begun(2).await;
        fixture.pythia.gate.add_permits(1);
    });
    assert_eq!(call, Ok(3));
}

#[tokio::test]
async fn raw_methods_are_hedged_and_large_arguments_are_not() {
    let fixture = Fixture::start([Act::Hang]).await;
    let call = fixture.oracle.ask_raw(Bytes::from_static(b"why"));
    assert_eq!(within("the answer", call).await.unwrap(), "why");
    assert_eq!(fixture.runs(), 2);
    let fixture = Fixture::start([Act::Wait]).await;
    let question = Bytes::from(vec![b'?'; 70_000]);
    let call = started(fixture.oracle.ask_at_length(question)).await;
    fixture.begun(1).await;
    // The time itself is the stimulus: four times the delay.
    tokio::time::sleep(Duration::from_millis(80)).await;
    fixture.pythia.gate.add_permits(1);
    assert_eq!(within("the answer", call.finish()).await, Ok(1));
}

#[tokio::test]
async fn a_percentile_is_learned_from_the_calls_before() {
    let mut acts = vec![Act::Answer; 40];
    acts.push(Act::Hang);
    let fixture = Fixture::start(acts).await;
    for run in 1..=40 {
        let answer = within("the answer", fixture.oracle.ask_often()).await;
        // A call among them that took longer than most before it was hedged.
        assert!(answer.is_ok(), "{run}: {answer:?}");
    }
    while fixture.runs() < 40 {
        within("the answer", fixture.oracle.ask_often())
            .await
            .unwrap();
    }
    // One of these meets the run that hangs, and does not hang.
    for _ in 0..2 {
        let answer = within("the answer", fixture.oracle.ask_often()).await;
        assert!(answer.unwrap() > 40);
    }
    within(
        "the end of the one that hung",
        fixture.pythia.dropped.notified(),
    )
    .await;
}
