//! Servers whose behaviour can be changed, the list of them, and callers.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use iip_benches::BoxError;
use iip_rpc::balance::{BackendInfo, BalanceOptions};
use iip_rpc::discover::{self, Discover, Snapshot, SnapshotStream};
use iip_rpc::{Client, Concurrency, Server, Status, service};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The path of [`Work::raw`].
pub(crate) const RAW: &str = "/work/raw";

/// The service of each server.
#[service]
pub(crate) trait Work {
    /// Takes the time of the server, or fails at once.
    #[rpc(idempotent)]
    async fn work(&self) -> Result<(), Status>;
    /// The same for a client that sends bytes.
    #[rpc(path = "/work/raw", raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
}

/// The behaviour of a server, and its counters.
#[derive(Default)]
pub(crate) struct Node {
    /// The time that a call takes, in microseconds.
    pub(crate) takes: AtomicU64,
    /// Calls fail with UNAVAILABLE at once.
    pub(crate) fails: AtomicBool,
    /// The number of calls so far, failed ones included.
    pub(crate) calls: AtomicU64,
    running: AtomicU64,
    /// The highest number of running calls.
    pub(crate) peak: AtomicU64,
}

struct Handler(Arc<Node>);

impl Work for Handler {
    async fn work(&self) -> Result<(), Status> {
        let node = &self.0;
        node.calls.fetch_add(1, Ordering::Relaxed);
        if node.fails.load(Ordering::Relaxed) {
            return Err(Status::unavailable("the server is ill"));
        }
        let running = node.running.fetch_add(1, Ordering::Relaxed) + 1;
        node.peak.fetch_max(running, Ordering::Relaxed);
        // Dropped with the call, if that is cancelled.
        let _ends = Ends(node);
        let takes = Duration::from_micros(node.takes.load(Ordering::Relaxed));
        tokio::time::sleep(takes).await;
        Ok(())
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        self.work().await?;
        Ok(body)
    }
}

struct Ends<'a>(&'a Node);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server and its entry in a list.
pub(crate) struct Member {
    pub(crate) node: Arc<Node>,
    pub(crate) info: BackendInfo,
    pub(crate) server: Server,
}

impl Member {
    /// Starts a server whose calls take `takes`.
    pub(crate) async fn start(takes: Duration) -> Result<Self, BoxError> {
        let node = Arc::new(Node::default());
        node.takes
            .store(u64::try_from(takes.as_micros())?, Ordering::Relaxed);
        let server = serve(&node, "127.0.0.1:0", None).await?;
        let info = BackendInfo::new(server.target().parse()?);
        Ok(Self { node, info, server })
    }

    /// Starts several.
    pub(crate) async fn start_all(count: usize, takes: Duration) -> Result<Vec<Self>, BoxError> {
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(Self::start(takes).await?);
        }
        Ok(members)
    }
}

/// Serves at an address, at most `limit` calls at a time.
pub(crate) async fn serve(
    node: &Arc<Node>,
    addr: &str,
    limit: Option<u32>,
) -> Result<Server, BoxError> {
    let mut server = Server::builder().service(WorkServer::new(Handler(Arc::clone(node))));
    if let Some(limit) = limit {
        server = server.max_concurrency(Concurrency::AtMost(limit));
    }
    Ok(server.bind(addr).await?)
}

/// Returns the number of calls of each server.
pub(crate) fn counts(members: &[Member]) -> Vec<u64> {
    let calls = members.iter().map(|member| &member.node.calls);
    calls.map(|calls| calls.load(Ordering::Relaxed)).collect()
}

/// Returns the share of the calls since `before` that the server with a number got.
pub(crate) fn share(members: &[Member], before: &[u64], number: usize) -> f64 {
    let now = counts(members);
    let since: Vec<_> = now
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    since[number] as f64 / since.iter().sum::<u64>() as f64
}

/// A list of servers in memory.
pub(crate) struct Directory(watch::Receiver<Vec<BackendInfo>>);

impl Directory {
    /// Creates a list, and what changes it.
    pub(crate) fn new(members: &[Member]) -> (watch::Sender<Vec<BackendInfo>>, Self) {
        let infos = members.iter().map(|member| member.info.clone());
        let (list, watched) = watch::channel(infos.collect());
        (list, Self(watched))
    }
}

impl Discover for Directory {
    fn watch(&self) -> SnapshotStream {
        let (sender, snapshots) = discover::channel();
        let mut list = self.0.clone();
        tokio::spawn(async move {
            loop {
                let backends = list.borrow_and_update().clone();
                if sender.send(Ok(Snapshot::new(backends))).await.is_err() {
                    return;
                }
                if list.changed().await.is_err() {
                    return sender.closed().await;
                }
            }
        });
        snapshots
    }

    fn describe(&self) -> String {
        "directory".to_owned()
    }
}

/// Connects a client to all servers.
pub(crate) async fn connect(
    members: &[Member],
    options: BalanceOptions,
) -> Result<WorkClient, BoxError> {
    let (_, directory) = Directory::new(members);
    let client = Client::builder().balance(options).discover(directory);
    Ok(WorkClient::new(client.await?))
}

/// The results of calls, as callers have seen them.
pub(crate) struct Seen {
    /// The times of calls that succeeded, in microseconds.
    pub(crate) times: Histogram<u64>,
    pub(crate) failed: u64,
    /// The first error.
    pub(crate) error: Option<String>,
}

impl Seen {
    fn new() -> Result<Self, BoxError> {
        let times = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self {
            times,
            failed: 0,
            error: None,
        })
    }

    /// Returns a quantile in milliseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Makes calls for a time, `callers` at a time.
pub(crate) async fn load<C, F, E>(callers: usize, time: Duration, call: C) -> Result<Seen, BoxError>
where
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send,
    E: Display,
{
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (call, mut seen) = (call.clone(), Seen::new()?);
        tasks.spawn(async move {
            loop {
                let start = Instant::now();
                if start >= end {
                    return seen;
                }
                match call().await {
                    Ok(()) => {
                        let micros = start.elapsed().as_micros() as u64;
                        seen.times.saturating_record(micros.max(1));
                    }
                    Err(error) => {
                        seen.failed += 1;
                        seen.error.get_or_insert_with(|| error.to_string());
                    }
                }
            }
        });
    }
    let mut all = Seen::new()?;
    while let Some(seen) = tasks.join_next().await {
        let seen = seen?;
        all.times.add(&seen.times)?;
        all.failed += seen.failed;
        all.error = all.error.or(seen.error);
    }
    Ok(all)
}

/// Returns a call of [`Work::work`] for [`load`].
pub(crate) fn calls(
    client: &WorkClient,
) -> impl Fn() -> BoxFuture<Result<(), Status>> + Clone + Send + Sync + 'static {
    let client = client.clone();
    move || {
        let client = client.clone();
        Box::pin(async move { client.work().await })
    }
}

pub(crate) type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;
