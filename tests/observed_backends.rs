//! The backends of balanced clients in metrics and spans.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iip_core::balance::{BackendInfo, BalanceOptions, Policy};
use iip_rpc::interceptor::ClientInterceptor;
use iip_rpc::observe::{MetricsFacade, MetricsInterceptor, Recorder, Side, TracingInterceptor};
use iip_rpc::{
    CallOptions, Client, Code, MethodDescriptor, Server, Status, Stream, Streaming, Subscription,
    Topic, service,
};
use tokio::sync::mpsc;

use crate::common::alone::alone;
use crate::common::source::TestSource;
use crate::common::{started, within};
use crate::observe::{Sink, Trace};

/// The replies are the number of the backend.
#[service]
trait Depot {
    #[rpc(idempotent)]
    async fn fetch(&self) -> Result<usize, Status>;
    #[rpc(idempotent, hedge = "1ms")]
    async fn hedged(&self) -> Result<usize, Status>;
    async fn stuck(&self) -> Result<(), Status>;
    async fn list(&self) -> Result<impl Stream<Item = Result<usize, Status>>, Status>;
    async fn watch(&self) -> Result<Subscription<usize>, Status>;
}

#[derive(Clone)]
struct Backend {
    number: usize,
    /// It fails the calls of `fetch`, and counts them.
    is_ill: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    /// Gets the number of the backend on which a call is stuck.
    stuck: mpsc::Sender<usize>,
    topic: Topic<usize>,
}

impl Depot for Backend {
    async fn fetch(&self) -> Result<usize, Status> {
        if self.is_ill.load(Ordering::Relaxed) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Err(Status::unavailable("ill"));
        }
        Ok(self.number)
    }

    async fn hedged(&self) -> Result<usize, Status> {
        if self.number == 1 {
            self.stuck().await?;
        }
        Ok(self.number)
    }

    async fn stuck(&self) -> Result<(), Status> {
        self.stuck.send(self.number).await.unwrap();
        pending().await
    }

    async fn list(&self) -> Result<impl Stream<Item = Result<usize, Status>>, Status> {
        let number = self.number;
        Ok(Streaming::iter((0..3).map(move |_| number)))
    }

    async fn watch(&self) -> Result<Subscription<usize>, Status> {
        Ok(self.topic.subscribe().replay(1))
    }
}

/// Two backends, whose ids are `b0` and `b1`.
struct Depots {
    backends: Vec<Backend>,
    servers: Vec<Server>,
    stuck: mpsc::Receiver<usize>,
}

impl Depots {
    async fn start() -> Self {
        let (sender, stuck) = mpsc::channel(100);
        let (mut backends, mut servers) = (Vec::new(), Vec::new());
        for number in 0..2 {
            let topic = Topic::<usize>::builder().history(1).build();
            topic.publish(number).await;
            let backend = Backend {
                number,
                is_ill: Arc::default(),
                failed: Arc::default(),
                stuck: sender.clone(),
                topic,
            };
            let server = Server::builder().service(DepotServer::new(backend.clone()));
            servers.push(server.bind("127.0.0.1:0").await.unwrap());
            backends.push(backend);
        }
        Self {
            backends,
            servers,
            stuck,
        }
    }

    /// A client that takes turns, or uses the keys of calls; both backends have replied to it.
    async fn client(&self, policy: Policy, interceptor: impl ClientInterceptor) -> DepotClient {
        let targets: Vec<_> = self.servers.iter().map(Server::target).collect();
        let options = BalanceOptions::new().policy(policy);
        let client = Client::builder()
            .balance(options)
            .discover(TestSource::of(&targets))
            .await
            .unwrap();
        let depot = DepotClient::new(client.clone());
        let mut keys = 0..;
        of_both(async || keyed(&depot, keys.next()).fetch().await.unwrap()).await;
        DepotClient::new(client.with_interceptor(interceptor))
    }

    fn port(&self, number: usize) -> u16 {
        self.servers[number].local_addr().unwrap().port()
    }

    /// Calls until a call had to be made again, which the first backend fails.
    async fn with_a_retry(&self, mut call: impl AsyncFnMut()) {
        let ill = &self.backends[0];
        ill.is_ill.store(true, Ordering::Relaxed);
        let retried = async {
            while ill.failed.load(Ordering::Relaxed) == 0 {
                call().await;
            }
        };
        within("a call that the first backend fails", retried).await;
    }
}

/// The client with the key for its calls.
fn keyed(depot: &DepotClient, key: Option<u32>) -> DepotClient {
    depot.with_options(CallOptions::new().hash_key(format!("{key:?}")))
}

/// Makes calls until both backends have replied.
async fn of_both(mut call: impl AsyncFnMut() -> usize) {
    let mut seen = [false; 2];
    let both = async {
        while seen != [true; 2] {
            seen[call().await] = true;
            tokio::task::yield_now().await;
        }
    };
    within("a reply of both backends", both).await;
}

async fn listed(depot: &DepotClient) -> usize {
    let mut stream = depot.list().await.unwrap();
    let mut last = None;
    while let Some(number) = stream.next().await {
        last = Some(number.unwrap());
    }
    last.unwrap()
}

/// The status code of a call, and the id of its backend.
type End = (Code, Option<String>);

/// The ends of calls.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<End>>>);

impl Ends {
    /// The only call since the last time.
    #[track_caller]
    fn one(&self) -> End {
        let mut ends = self.0.lock().unwrap();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends.remove(0)
    }
}

impl Recorder for Ends {
    fn call_ended(&self, _: Side, _: &'static MethodDescriptor, _: Code, _: Duration) {
        unreachable!("call_ended_on takes its place");
    }

    fn call_ended_on(
        &self,
        side: Side,
        _: &'static MethodDescriptor,
        code: Code,
        _: Duration,
        backend: Option<&BackendInfo>,
    ) {
        assert_eq!(side, Side::Client);
        let id = backend.map(|backend| backend.id.to_string());
        self.0.lock().unwrap().push((code, id));
    }
}

/// The end of a call on this backend.
fn end(code: Code, number: usize) -> End {
    (code, Some(format!("b{number}")))
}

#[tokio::test]
async fn a_recorder_gets_the_backend_of_calls_of_every_kind() {
    let mut depots = Depots::start().await;
    let ends = Ends::default();
    let depot = depots
        .client(Policy::RoundRobin, MetricsInterceptor::new(ends.clone()))
        .await;
    of_both(async || {
        let number = depot.fetch().await.unwrap();
        assert_eq!(ends.one(), end(Code::Ok, number));
        number
    })
    .await;
    of_both(async || {
        let number = listed(&depot).await;
        assert_eq!(ends.one(), end(Code::Ok, number));
        number
    })
    .await;
    of_both(async || {
        let mut watch = depot.watch().await.unwrap();
        let number = watch.next().await.unwrap().unwrap().value().unwrap();
        drop(watch);
        assert_eq!(ends.one(), end(Code::Cancelled, number));
        number
    })
    .await;
    of_both(async || {
        let call = started(depot.stuck()).await;
        let number = depots.stuck.recv().await.unwrap();
        drop(call);
        assert_eq!(ends.one(), end(Code::Cancelled, number));
        number
    })
    .await;
}

#[tokio::test]
async fn a_call_that_was_retried_counts_for_the_last_backend() {
    let depots = Depots::start().await;
    let ends = Ends::default();
    let depot = depots
        .client(Policy::RoundRobin, MetricsInterceptor::new(ends.clone()))
        .await;
    depots
        .with_a_retry(async || {
            assert_eq!(depot.fetch().await, Ok(1));
            assert_eq!(ends.one(), end(Code::Ok, 1));
        })
        .await;
}

#[tokio::test]
async fn a_call_that_was_hedged_counts_for_the_backend_that_has_replied() {
    let depots = Depots::start().await;
    let ends = Ends::default();
    let recorder = MetricsInterceptor::new(ends.clone());
    let depot = depots.client(Policy::RingHash, recorder).await;
    // The first attempt of a call with this key is on the slow backend.
    let mut keys = 0..;
    let slow = async {
        loop {
            let depot = keyed(&depot, keys.next());
            let number = depot.fetch().await.unwrap();
            assert_eq!(ends.one(), end(Code::Ok, number));
            if number == 1 {
                return depot;
            }
        }
    };
    let depot = within("a key of the slow backend", slow).await;
    assert_eq!(depot.hedged().await, Ok(0));
    assert_eq!(ends.one(), end(Code::Ok, 0));
}

#[tokio::test]
async fn a_call_without_a_choice_of_backends_counts_for_none() {
    let depots = Depots::start().await;
    let ends = Ends::default();
    let single = Client::builder().interceptor(MetricsInterceptor::new(ends.clone()));
    let depot = DepotClient::new(single.connect(depots.servers[1].target()).await.unwrap());
    assert_eq!(depot.fetch().await, Ok(1));
    assert_eq!(ends.one(), (Code::Ok, None));
    let empty = Client::builder().discover_lazy(TestSource::of::<&str>(&[]));
    let empty = empty
        .unwrap()
        .with_interceptor(MetricsInterceptor::new(ends.clone()));
    DepotClient::new(empty).fetch().await.unwrap_err();
    assert_eq!(ends.one(), (Code::Unavailable, None));
}

#[tokio::test]
async fn the_facade_gets_the_address_of_the_backend() {
    let sink = Sink::default();
    // It is local to this thread, which runs all sides.
    let _guard = metrics::set_default_local_recorder(&sink);
    let depots = Depots::start().await;
    let facade = MetricsInterceptor::new(MetricsFacade::new());
    let depot = depots.client(Policy::RoundRobin, facade).await;
    let mut expected = BTreeMap::new();
    let mut count = |method: &str, number: usize| {
        let labels = format!("rpc.system.name=iip rpc.method=Depot/{method}");
        for name in ["calls", "call.duration"] {
            let port = depots.port(number);
            let key = format!(
                "rpc.client.{name} {labels} rpc.response.status_code=OK server.address=127.0.0.1 \
                 server.port={port}"
            );
            *expected.entry(key).or_default() += 1.0;
        }
        expected.insert(format!("rpc.client.active_calls {labels}"), 0.0);
        number
    };
    of_both(async || count("fetch", depot.fetch().await.unwrap())).await;
    of_both(async || count("list", listed(&depot).await)).await;
    depots
        .with_a_retry(async || {
            assert_eq!(count("fetch", depot.fetch().await.unwrap()), 1);
        })
        .await;
    assert_eq!(*sink.0.lock().unwrap(), expected);
}

/// Runs in a separate process, on one thread, for the reason of the other test of spans.
#[test]
fn a_span_has_the_address_and_the_id_of_the_backend() {
    let on_one_thread = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(spans());
    };
    alone(
        "a_span_has_the_address_and_the_id_of_the_backend",
        || async move {
            tokio::task::spawn_blocking(on_one_thread).await.unwrap();
        },
    );
}

async fn spans() {
    let trace = Trace::default();
    let _guard = tracing::subscriber::set_default(trace.clone());
    let depots = Depots::start().await;
    let depot = depots
        .client(Policy::RoundRobin, TracingInterceptor::new())
        .await;
    let last = |number: usize| {
        let spans = &trace.0.lock().unwrap().spans;
        let span = spans.last().unwrap();
        assert_eq!(span["rpc.response.status_code"], "OK");
        assert_eq!(span["server.address"], "127.0.0.1");
        assert_eq!(span["server.port"], depots.port(number).to_string());
        assert_eq!(span["iip.backend.id"], format!("b{number}"));
        number
    };
    of_both(async || last(depot.fetch().await.unwrap())).await;
    of_both(async || last(listed(&depot).await)).await;
    depots
        .with_a_retry(async || {
            assert_eq!(last(depot.fetch().await.unwrap()), 1);
        })
        .await;

    let single = Client::builder().interceptor(TracingInterceptor::new());
    let depot = DepotClient::new(single.connect(depots.servers[1].target()).await.unwrap());
    let before = trace.0.lock().unwrap().spans.len();
    assert_eq!(depot.fetch().await, Ok(1));
    let spans = &trace.0.lock().unwrap().spans[before..];
    assert_eq!(spans.len(), 1);
    let keys = ["server.address", "server.port", "iip.backend.id"];
    assert!(
        keys.iter().all(|key| !spans[0].contains_key(*key)),
        "{spans:?}"
    );
}
