//! Clients of several backends: which of them a call uses, and what happens when one is slow,
//! fails, goes away or comes back.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use iip_core::balance::{BackendState, BalanceOptions, Choice, Policy};
use iip_core::discover::{DiscoverError, Snapshot};
use iip_core::rules::Rules;
use iip_rpc::{
    CallOptions, Client, ClientBuilder, Code, Execution, RetryPolicy, Server, Status, Stream,
    service,
};
use tokio::sync::{Notify, Semaphore};

use crate::common::source::{TestSource, snapshot};
use crate::common::{passes, spawn, started, within};

#[service]
trait Who {
    /// Returns the number of the backend.
    async fn are_you(&self) -> Result<usize, Status>;
    #[rpc(idempotent)]
    async fn are_you_again(&self) -> Result<usize, Status>;
    #[rpc(idempotent, hedge = "1ms")]
    async fn are_you_hedged(&self) -> Result<usize, Status>;
    async fn count(&self) -> Result<impl Stream<Item = Result<usize, Status>>, Status>;
}

/// The behaviour of a backend.
#[derive(Clone, Default)]
struct Backend {
    number: usize,
    calls: Arc<AtomicUsize>,
    /// The code with which calls fail; 0: they succeed.
    fails: Arc<AtomicU32>,
    /// Calls wait for it, if there is one.
    gate: Option<Arc<Semaphore>>,
    entered: Arc<Notify>,
}

impl Backend {
    async fn answer(&self) -> Result<usize, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.entered.notify_one();
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        match self.fails.load(Ordering::Relaxed) {
            0 => Ok(self.number),
            _ => Err(Status::unavailable(format!(
                "backend {} is ill",
                self.number
            ))),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    async fn serve(&self) -> Server {
        self.serve_on("127.0.0.1:0").await
    }

    async fn serve_on(&self, address: &str) -> Server {
        let server = Server::builder().service(WhoServer::new(self.clone()));
        server.bind(address).await.unwrap()
    }
}

impl Who for Backend {
    async fn are_you(&self) -> Result<usize, Status> {
        self.answer().await
    }

    async fn are_you_again(&self) -> Result<usize, Status> {
        self.answer().await
    }

    async fn are_you_hedged(&self) -> Result<usize, Status> {
        self.answer().await
    }

    async fn count(&self) -> Result<impl Stream<Item = Result<usize, Status>>, Status> {
        let number = self.answer().await?;
        Ok(iip_rpc::Streaming::iter((0..3).map(move |_| number)))
    }
}

/// Servers with the numbers 0 and up.
async fn cluster(count: usize) -> (Vec<Backend>, Vec<Server>) {
    let backends = (0..count).map(|number| Backend {
        number,
        ..Backend::default()
    });
    let backends: Vec<_> = backends.collect();
    let mut servers = Vec::new();
    for backend in &backends {
        servers.push(backend.serve().await);
    }
    (backends, servers)
}

fn addresses(servers: &[Server]) -> Vec<String> {
    servers
        .iter()
        .map(|server| server.target().to_string())
        .collect()
}

async fn connected(source: &TestSource, builder: ClientBuilder) -> (Client, WhoClient) {
    let client = within("the first connection", builder.discover(source.clone())).await;
    let client = client.unwrap();
    (client.clone(), WhoClient::new(client))
}

async fn client_of(source: &TestSource, builder: ClientBuilder) -> WhoClient {
    connected(source, builder).await.1
}

/// Calls until every backend has replied.
async fn warm_up(who: &WhoClient, backends: &[Backend]) {
    let all = async {
        while backends.iter().any(|backend| backend.calls() == 0) {
            who.are_you().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    within("a call of every backend", all).await;
}

fn round_robin() -> ClientBuilder {
    Client::builder().balance(BalanceOptions::new().policy(Policy::RoundRobin))
}

#[tokio::test]
async fn calls_are_spread_over_all_backends() {
    let (backends, servers) = cluster(3).await;
    let source = TestSource::of(&addresses(&servers));
    let who = client_of(&source, round_robin()).await;
    warm_up(&who, &backends).await;
    let mut counts = HashMap::<usize, usize>::new();
    for _ in 0..300 {
        *counts.entry(who.are_you().await.unwrap()).or_default() += 1;
    }
    // Slow start leaves a backend out of some rounds.
    assert!(
        counts.len() == 3 && counts.values().all(|count| *count > 3),
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_static_list_is_a_target() {
    let (backends, servers) = cluster(2).await;
    let target = format!("static:{}#3,{}", servers[0].target(), servers[1].target());
    let who = WhoClient::connect(target).await.unwrap();
    warm_up(&who, &backends).await;
}

#[tokio::test]
async fn a_call_that_fails_names_the_backends_that_it_tried() {
    let (backends, servers) = cluster(2).await;
    for backend in &backends {
        backend.fails.store(1, Ordering::Relaxed);
    }
    let source = TestSource::of(&addresses(&servers));
    let retry = RetryPolicy::new().max_attempts(2);
    let who = client_of(&source, round_robin().retry(retry)).await;
    // The second backend is connected once a call has looked for it.
    let both = async {
        loop {
            let status = who.are_you_again().await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            let text = status.message().to_owned();
            assert!(text.contains("; backends tried: b"), "{text}");
            if text.contains("b0 (127.0.0.1:") && text.contains("b1 (127.0.0.1:") {
                return text;
            }
        }
    };
    let text = within("a retry on the other backend", both).await;
    assert!(
        text.contains("): unavailable: backend 0 is ill (may have executed; after "),
        "{text}"
    );
}

#[tokio::test]
async fn a_retry_goes_to_another_backend() {
    let (backends, servers) = cluster(2).await;
    let source = TestSource::of(&addresses(&servers));
    let who = client_of(&source, round_robin()).await;
    warm_up(&who, &backends).await;
    backends[0].fails.store(1, Ordering::Relaxed);
    let before = backends[0].calls();
    for _ in 0..50 {
        assert_eq!(who.are_you_again().await, Ok(1));
    }
    let calls = backends[0].calls() - before;
    assert!(calls < 20, "it is ejected: {calls}");
}

#[tokio::test]
async fn a_hedge_goes_to_another_backend() {
    let (mut backends, servers) = cluster(1).await;
    let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    let slow = Backend {
        number: 1,
        gate: Some(Arc::clone(&gate)),
        ..Backend::default()
    };
    let slow_server = slow.serve().await;
    let source = TestSource::of(&[servers[0].target(), slow_server.target()]);
    let who = client_of(&source, round_robin()).await;
    backends.push(slow.clone());
    warm_up(&who, &backends).await;
    gate.forget_permits(gate.available_permits());
    let before = slow.calls();
    let all = async {
        while slow.calls() < before + 3 {
            assert_eq!(who.are_you_hedged().await, Ok(0));
        }
    };
    within("hedges of calls on the slow backend", all).await;
}

#[tokio::test]
async fn a_backend_that_shuts_down_fails_no_call() {
    let (backends, mut servers) = cluster(3).await;
    let source = TestSource::of(&addresses(&servers));
    let who = client_of(&source, Client::builder()).await;
    warm_up(&who, &backends).await;
    let leaving = servers.remove(0);
    let shutdown = spawn(async move { leaving.shutdown(Duration::from_secs(30)).await });
    for _ in 0..500 {
        who.are_you().await.unwrap();
    }
    within("the shutdown", shutdown).await.unwrap();
    for _ in 0..100 {
        assert_ne!(who.are_you().await, Ok(0));
    }
    within("a hint to the source", async {
        while source.refreshed() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_is_back_gets_calls_again() {
    let (backends, mut servers) = cluster(2).await;
    let source = TestSource::of(&addresses(&servers));
    let who = client_of(&source, round_robin()).await;
    warm_up(&who, &backends).await;
    let address = servers[0].target().to_string();
    servers.remove(0).shutdown(Duration::from_secs(30)).await;
    assert_eq!(who.are_you().await, Ok(1));
    let _again = backends[0].serve_on(&address).await;
    let back = async {
        while who.are_you().await.unwrap() != 0 {
            tokio::task::yield_now().await;
        }
    };
    within("a call of the backend that is back", back).await;
}

#[tokio::test]
async fn a_removed_backend_gets_no_calls_and_finishes_those_that_run() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Backend {
        gate: Some(Arc::clone(&gate)),
        ..Backend::default()
    };
    let held_server = held.serve().await;
    let (_, servers) = cluster(1).await;
    let source = TestSource::of(&[held_server.target()]);
    let who = client_of(&source, Client::builder()).await;
    let running = started(who.are_you()).await;
    within("the handler", held.entered.notified()).await;
    source.send(Ok(snapshot(&[servers[0].target()])));
    let moved = async {
        loop {
            let call = who.with_options(CallOptions::new().timeout(Duration::from_millis(50)));
            if call.are_you().await.is_ok() {
                return;
            }
            // Calls that were started before the change wait at the gate.
            gate.add_permits(0);
        }
    };
    within("the new backend", moved).await;
    gate.add_permits(1000);
    assert_eq!(within("the running call", running.finish()).await, Ok(0));
}

#[tokio::test]
async fn an_error_before_the_first_snapshot_fails_the_calls_and_a_later_one_does_not() {
    let (_, servers) = cluster(1).await;
    let source = TestSource::default();
    source.send(Err(DiscoverError::new("the registry is locked")));
    let error = Client::builder()
        .discover(source.clone())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.execution(), Execution::NotSent);
    let text = "no backend of test source is known: the registry is locked";
    assert_eq!(error.message(), text);

    source.send(Ok(snapshot(&addresses(&servers))));
    let (client, who) = connected(&source, Client::builder()).await;
    source.send(Err(DiscoverError::new("the registry is gone")));
    for _ in 0..10 {
        who.are_you().await.unwrap();
    }
    let explained = async {
        loop {
            let text = client.explain().to_string();
            if text.contains("discovery failed: the registry is gone") {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let text = within("the error in the explanation", explained).await;
    assert!(
        text.starts_with("test source, revision test, discovery failed"),
        "{text}"
    );
    assert!(text.contains("\n  b0 (127.0.0.1:"), "{text}");
}

#[tokio::test]
async fn a_source_without_a_snapshot_delays_calls_up_to_their_deadline() {
    let source = TestSource::default();
    let client = Client::builder().discover_lazy(source.clone()).unwrap();
    let who = WhoClient::new(client);
    let short = who.with_options(CallOptions::new().timeout(Duration::from_millis(20)));
    let status = short.are_you().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .message()
            .contains("no backend of test source is known"),
        "{status}"
    );
    let waiting = started(who.are_you()).await;
    let (_, servers) = cluster(1).await;
    source.send(Ok(snapshot(&addresses(&servers))));
    assert_eq!(within("the call", waiting.finish()).await, Ok(0));
}

#[tokio::test]
async fn an_empty_snapshot_is_believed_after_a_grace() {
    let (_, servers) = cluster(1).await;
    let source = TestSource::of(&addresses(&servers));
    let options = BalanceOptions::new().empty_grace(Duration::from_secs(60));
    let who = client_of(&source, Client::builder().balance(options)).await;
    source.send(Ok(Snapshot::new([])));
    crate::common::all_run().await;
    who.are_you().await.unwrap();
    passes(Duration::from_secs(59)).await;
    crate::common::all_run().await;
    who.are_you().await.unwrap();
    passes(Duration::from_secs(2)).await;
    let gone = async {
        loop {
            match who.are_you().await {
                Err(status) => return status,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    let status = within("the end of the grace", gone).await;
    assert!(
        status
            .message()
            .contains("no backend of test source is known"),
        "{status}"
    );
    source.send(Ok(snapshot(&addresses(&servers))));
    let back = async {
        while who.are_you().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within("the backend again", back).await;
}

#[tokio::test]
async fn a_key_leads_to_one_backend() {
    let (backends, servers) = cluster(3).await;
    let source = TestSource::of(&addresses(&servers));
    let options = BalanceOptions::new().policy(Policy::RingHash);
    let who = client_of(&source, Client::builder().balance(options)).await;
    warm_up(&who, &backends).await;
    let mut seen = HashMap::new();
    for key in 0..30 {
        let keyed = who.with_options(CallOptions::new().hash_key(format!("key-{key}")));
        let first = keyed.are_you().await.unwrap();
        for _ in 0..5 {
            assert_eq!(keyed.are_you().await, Ok(first));
        }
        *seen.entry(first).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn calls_in_flight_are_counted_for_every_kind_of_call() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Backend {
        gate: Some(Arc::clone(&gate)),
        ..Backend::default()
    };
    let server = held.serve().await;
    let source = TestSource::of(&[server.target()]);
    let (client, who) = connected(&source, Client::builder()).await;
    let in_flight = || client.explain().backends[0].in_flight;
    let unary = started(who.are_you()).await;
    let stream = started(who.count()).await;
    assert_eq!(in_flight(), 2);
    drop(unary);
    assert_eq!(in_flight(), 1);
    gate.add_permits(10);
    let mut stream = within("the stream", stream.finish()).await.unwrap();
    assert_eq!(in_flight(), 1);
    while let Some(number) = stream.next().await {
        assert_eq!(number, Ok(0));
    }
    assert_eq!(in_flight(), 0);
    assert_eq!(client.explain().backends[0].state, BackendState::Ready);
}

#[tokio::test]
async fn all_backends_that_refuse_connections_are_named() {
    let (_, servers) = cluster(2).await;
    let addresses = addresses(&servers);
    for server in servers {
        server.shutdown(Duration::ZERO).await;
    }
    let source = TestSource::of(&addresses);
    let error = Client::builder().discover(source).await.unwrap_err();
    assert_eq!(
        (error.code(), error.execution()),
        (Code::Unavailable, Execution::NotSent)
    );
    for (number, address) in addresses.iter().enumerate() {
        let named = format!("b{number} ({address}): cannot connect to {address}: ");
        assert!(error.message().contains(&named), "{error}");
    }
}

#[tokio::test]
async fn after_an_outage_of_all_backends_calls_succeed_again() {
    let (backends, servers) = cluster(3).await;
    let addresses = addresses(&servers);
    let source = TestSource::of(&addresses);
    let builder = Client::builder().wait_for_ready(true);
    let who = client_of(&source, builder).await;
    warm_up(&who, &backends).await;
    for server in servers {
        server.shutdown(Duration::ZERO).await;
    }
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let who = who.clone();
        waiting.push(spawn(async move { who.are_you().await }));
    }
    crate::common::all_run().await;
    let mut again = Vec::new();
    for (backend, address) in backends.iter().zip(&addresses) {
        again.push(backend.serve_on(address).await);
    }
    for call in waiting {
        within("a call that waited", call).await.unwrap().unwrap();
    }
}

#[test]
fn a_client_outlives_the_runtime_that_watched_its_source() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let servers = runtime();
    let (_backends, bound) = servers.block_on(cluster(2));
    let (first, second) = (runtime(), runtime());
    let source = TestSource::default();
    let (client, who) = first.block_on(async {
        source.send(Ok(snapshot(&addresses(&bound))));
        connected(&source, Client::builder()).await
    });
    drop(first);
    second.block_on(async {
        for _ in 0..10 {
            within("a call", who.are_you()).await.unwrap();
        }
        // The source is watched again.
        source.send(Ok(snapshot(&addresses(&bound[..1]))));
        let one = async {
            while client.explain().backends.len() != 1 {
                who.are_you().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        within("the next snapshot", one).await;
    });
}

/// A snapshot of these servers, with the ids `b0` and up, of which these are in the group `large`.
fn with_groups(servers: &[Server], large: &[usize]) -> Snapshot {
    let all = snapshot(&addresses(servers)).backends;
    let infos = all.iter().cloned().enumerate();
    let infos = infos.map(|(index, info)| match large.contains(&index) {
        true => info.metadata("group", "large"),
        false => info,
    });
    Snapshot::new(infos.collect::<Vec<_>>())
}

fn chooses(policy: Policy) -> ClientBuilder {
    Client::builder().balance(BalanceOptions::new().policy(policy))
}

fn of_tenant(who: &WhoClient, tenant: &'static str) -> WhoClient {
    who.with_options(CallOptions::new().metadata("tenant", tenant).unwrap())
}

#[tokio::test]
async fn a_closure_chooses_the_backends_of_a_call_by_its_metadata() {
    let (_, servers) = cluster(3).await;
    let source = TestSource::default();
    source.send(Ok(with_groups(&servers, &[1, 2])));
    let policy = Policy::choose(|call| match call.metadata("tenant") {
        Some("acme") => Choice::group("large"),
        Some("none") => Choice::reject("the contract has ended"),
        Some(id) => Choice::backend(id),
        None => Choice::Any,
    });
    let who = client_of(&source, chooses(policy)).await;
    let (acme, one) = (of_tenant(&who, "acme"), of_tenant(&who, "b0"));
    let mut seen = BTreeSet::new();
    let all = async {
        // The second connection of the group is made in the background.
        while seen.len() < 2 {
            seen.insert(acme.are_you().await.unwrap());
            assert_eq!(one.are_you().await, Ok(0));
            assert!(who.are_you_again().await.is_ok());
        }
    };
    within("a call of both backends of the group", all).await;
    assert_eq!(seen, [1, 2].into());
    let missing = of_tenant(&who, "b9").are_you().await.unwrap_err();
    assert_eq!(missing.code(), Code::Unavailable);
    assert_eq!(missing.execution(), Execution::NotSent);
    let reason = r#"no backend fits the call: no backend with the id "b9" takes calls"#;
    assert!(missing.message().contains(reason), "{missing}");
    let rejected = of_tenant(&who, "none").are_you().await.unwrap_err();
    assert_eq!(rejected.code(), Code::FailedPrecondition);
    assert_eq!(rejected.execution(), Execution::NotSent);
    assert!(rejected.message().contains("the contract has ended"));
}

#[tokio::test]
async fn rules_choose_the_backends_of_a_call_and_are_replaced_while_it_runs() {
    let (_, servers) = cluster(3).await;
    let source = TestSource::of(&addresses(&servers));
    let text = r#"{"LB_TARGET": [
        [["$LB_TARGET_SERVER", "=", "b0"]],
        [["$metadata.tenant", "=", "acme"], ["$LB_TARGET_SERVER", "=", "b1"]],
        [["$method", "*~", "/count"], ["$LB_TARGET_SERVER", "=", "b2"]]
    ]}"#;
    let rules = Arc::new(Rules::parse(text).unwrap());
    let who = client_of(&source, chooses(Policy::Choose(rules.clone()))).await;
    let acme = of_tenant(&who, "acme");
    assert_eq!(who.are_you().await, Ok(0));
    assert_eq!(acme.are_you().await, Ok(1));
    let mut numbers = acme.count().await.unwrap();
    assert_eq!(numbers.next().await.unwrap(), Ok(2));
    let bad = rules.replace(r#"{"LB_TARGET": [[["$LB_TARGET_SERVER", "="]]]}"#);
    assert!(bad.unwrap_err().to_string().starts_with("/LB_TARGET/0/0: "));
    assert_eq!(acme.are_you().await, Ok(1));
    let text = r#"{"LB_TARGET": [[["$LB_TARGET_SERVER", "=", "b2"]]]}"#;
    rules.replace(text).unwrap();
    assert_eq!(acme.are_you().await, Ok(2));
}

#[tokio::test]
async fn a_choice_that_is_not_known_waits_for_ready_until_it_is() {
    let (_, servers) = cluster(2).await;
    let source = TestSource::of(&addresses(&servers[..1]));
    let policy = Policy::choose(|_| Choice::backend("b1"));
    let who = client_of(&source, chooses(policy).wait_for_ready(true)).await;
    let waiting = started(who.are_you()).await;
    source.send(Ok(snapshot(&addresses(&servers))));
    assert_eq!(within("the call", waiting.finish()).await, Ok(1));
}

#[tokio::test]
async fn a_call_that_is_rejected_at_random_is_not_asked_for_twice() {
    let (_, servers) = cluster(1).await;
    let source = TestSource::of(&addresses(&servers));
    let asked = Arc::new(AtomicUsize::new(0));
    let policy = Policy::choose({
        let asked = asked.clone();
        move |_| match asked.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Choice::reject("every second call"),
            _ => Choice::Any,
        }
    });
    let who = client_of(&source, chooses(policy)).await;
    for _ in 0..10 {
        let error = who.are_you().await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(who.are_you().await, Ok(0));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 20);
}

#[test]
fn a_source_is_watched_again_although_all_connections_are_alive() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let servers = runtime();
    let (backends, bound) = servers.block_on(cluster(2));
    let addresses = addresses(&bound);
    let (first, second) = (runtime(), runtime());
    let source = TestSource::of(&addresses[..1]);
    let (client, who) = first.block_on(connected(&source, Client::builder()));
    // The connection to the other backend is made by a call in another runtime.
    first.block_on(async { source.send(Ok(snapshot(&addresses[1..]))) });
    let other = async {
        while backends[1].calls() == 0 {
            let _lost_with_its_backend = who.are_you_again().await;
            tokio::task::yield_now().await;
        }
    };
    second.block_on(within("a call of the other backend", other));
    drop(first);
    second.block_on(async {
        let again = async {
            while client.explain().backends.len() != 2 {
                source.send(Ok(snapshot(&addresses)));
                who.are_you().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("the next snapshot", again).await;
    });
}
