//! Calls of a client whose servers register in etcd, while etcd fails and servers are restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::balance::{BackendInfo, BalanceOptions, Policy};
use iip_core::{Client, HandlerError, Request, Response, Server, handler_fn};
use iip_discovery_etcd::Etcd;
use tokio::task::JoinHandle;

use crate::common::etcd::EtcdServer;
use crate::common::{builder, eventually, guard};

/// Handlers have this time to end.
const LONG: Duration = Duration::from_secs(60);

/// The calls that ran, by their number.
type Runs = Arc<Vec<AtomicUsize>>;

fn runs(count: usize) -> Runs {
    Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect())
}

/// Starts a server that registers as `id`, replies with it, and counts how often each call runs.
async fn serve(etcd: &Etcd, id: &str, runs: &Runs) -> Server {
    let (name, runs) = (Bytes::from(id.to_owned()), Arc::clone(runs));
    let run = handler_fn(move |request: Request| {
        let (name, runs) = (name.clone(), Arc::clone(&runs));
        async move {
            let number = String::from_utf8_lossy(&request.into_body()).parse::<usize>();
            let number = number.map_err(|error| HandlerError::new(error.to_string()))?;
            if let Some(count) = runs.get(number) {
                count.fetch_add(1, Ordering::SeqCst);
            }
            tokio::task::yield_now().await;
            Ok::<_, HandlerError>(Response::from(name))
        }
    });
    let server = Server::builder()
        .route("/run", run)
        .register(etcd.clone(), info(id))
        .lame_duck(Duration::from_millis(100))
        .bind("127.0.0.1:0");
    let server = server.await.expect("a free port");
    guard("the registration", server.registered()).await;
    server
}

/// Port 0 stands for the port of the server.
fn info(id: &str) -> BackendInfo {
    BackendInfo::new("127.0.0.1:0".parse().expect("an address")).id(id)
}

async fn connect(etcd: &Etcd) -> Client {
    let options = BalanceOptions::new().policy(Policy::RoundRobin);
    let client = Client::builder().balance(options).discover(etcd.clone());
    guard("the first connection", client)
        .await
        .expect("a server")
}

/// Callers that call without a pause until they are stopped.
struct Load {
    tasks: Vec<JoinHandle<Vec<String>>>,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicUsize>,
    seen: Arc<std::sync::Mutex<std::collections::HashMap<Bytes, usize>>>,
}

impl Load {
    fn start(client: &Client, callers: usize) -> Self {
        let (stop, next) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let seen = Arc::<std::sync::Mutex<std::collections::HashMap<Bytes, usize>>>::default();
        let tasks = (0..callers).map(|_| {
            let (client, stop, next) = (client.clone(), Arc::clone(&stop), Arc::clone(&next));
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    match client.request("/run", number.to_string()).await {
                        Ok(name) => {
                            let mut seen = seen.lock().expect("no test panics with it");
                            *seen.entry(name).or_default() += 1;
                        }
                        Err(error) => errors.push(format!("{error:?}")),
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                errors
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
            next,
            seen,
        }
    }

    fn calls_of(&self, id: &str) -> usize {
        let seen = self.seen.lock().expect("no test panics with it");
        seen.get(id.as_bytes()).copied().unwrap_or(0)
    }

    /// Returns the number of calls and the errors.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        for task in self.tasks {
            errors.extend(guard("the end of a caller", task).await.expect("no panic"));
        }
        (self.next.load(Ordering::SeqCst), errors)
    }
}

/// Waits until a new server is used, and prints how long that takes. How long it may be is not
/// tested here, because it depends on the load of the machine.
async fn new_server_is_used(etcd: &Etcd, load: &Load, id: &str) -> Server {
    let server = serve(etcd, id, &runs(0)).await;
    let start = Instant::now();
    eventually("a call of the new server", || async {
        load.calls_of(id) > 0
    })
    .await;
    println!("{id} is used {:?} after it has registered", start.elapsed());
    server
}

#[tokio::test]
async fn no_call_fails_while_etcd_is_killed_and_started_again() {
    let mut registry = EtcdServer::start().await;
    let etcd = builder(&[registry.port]).build().expect("valid options");
    let _a = serve(&etcd, "a", &runs(0)).await;
    let client = connect(&etcd).await;
    let load = Load::start(&client, 4);
    eventually("a call", || async { load.calls_of("a") > 0 }).await;
    registry.kill();
    let is_known = || async { client.explain().error.is_some() };
    eventually("the error of the source", is_known).await;
    registry.restart().await;
    let _b = new_server_is_used(&etcd, &load, "b").await;
    let (calls, errors) = load.end().await;
    assert_eq!(errors, [""; 0], "of {calls} calls");
}

#[tokio::test]
async fn no_call_fails_while_etcd_is_stopped() {
    let registry = EtcdServer::start().await;
    let etcd = builder(&[registry.port])
        .status_interval(Duration::from_millis(300))
        .request_timeout(Duration::from_secs(1));
    let etcd = etcd.build().expect("valid options");
    let _a = serve(&etcd, "a", &runs(0)).await;
    let client = connect(&etcd).await;
    let load = Load::start(&client, 4);
    registry.signal("STOP");
    let is_known = || async { client.explain().error.is_some() };
    eventually("the error of the source", is_known).await;
    let before = load.calls_of("a");
    eventually("further calls", || async {
        load.calls_of("a") > before + 10
    })
    .await;
    registry.signal("CONT");
    registry.ready().await;
    let _b = new_server_is_used(&etcd, &load, "b").await;
    let (calls, errors) = load.end().await;
    assert_eq!(errors, [""; 0], "of {calls} calls");
}

#[tokio::test]
async fn servers_that_are_restarted_in_turn_fail_no_call_and_run_none_twice() {
    let registry = EtcdServer::start().await;
    let etcd = builder(&[registry.port]).build().expect("valid options");
    let counts = runs(200_000);
    let mut servers = Vec::new();
    for id in ["a-0", "b-0", "c-0"] {
        servers.push(serve(&etcd, id, &counts).await);
    }
    let client = connect(&etcd).await;
    let load = Load::start(&client, 8);
    for round in 1..=10 {
        for name in ["a", "b", "c"] {
            let id = format!("{name}-{round}");
            servers.push(serve(&etcd, &id, &counts).await);
            servers.remove(0).shutdown(LONG).await;
        }
        let ids = [
            format!("a-{round}"),
            format!("b-{round}"),
            format!("c-{round}"),
        ];
        let all = || async { ids.iter().all(|id| load.calls_of(id) > 0) };
        eventually("calls of all new servers", all).await;
    }
    let (calls, errors) = load.end().await;
    assert_eq!(errors, [""; 0], "of {calls} calls");
    let other = (0..calls.min(counts.len()))
        .map(|call| (call, counts[call].load(Ordering::SeqCst)))
        .find(|(_, count)| *count != 1);
    assert_eq!(other, None, "a call and how often it has run");
}
