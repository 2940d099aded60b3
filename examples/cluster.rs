//! A client of several servers: one is slow, one is killed, one is added.
//!
//! Run: `cargo run --example cluster`
//! Prints: how many calls each server got while all were equal, while one was ten times slower,
//! after one was killed, and after another was added; that no call failed; and what the client
//! knows of its servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use iip_rpc::balance::{BackendInfo, BalanceOptions};
use iip_rpc::discover::{self, Discover, Snapshot, SnapshotStream};
use iip_rpc::{Client, Server, Status, service};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The service that every server of the cluster has.
#[service]
pub trait Orders {
    /// Returns the name of the server. It changes nothing, so that a call may be retried on
    /// another server.
    #[rpc(idempotent)]
    async fn place(&self, item: String) -> Result<String, Status>;
}

/// One server.
struct Shop {
    name: String,
    /// The time that a call takes, in microseconds.
    takes: Arc<AtomicU64>,
}

impl Orders for Shop {
    async fn place(&self, _item: String) -> Result<String, Status> {
        let takes = Duration::from_micros(self.takes.load(Ordering::Relaxed));
        tokio::time::sleep(takes).await;
        Ok(self.name.clone())
    }
}

/// A list of servers in memory. Programs use `dns://`, `file://`, etcd or a registry of their own.
struct Directory(watch::Receiver<Vec<BackendInfo>>);

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
                    // The list does not change any more.
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

type BoxError = Box<dyn std::error::Error>;

/// Starts a server. Returns it with its entry in the list, and the time that its calls take.
async fn start(name: &str) -> Result<(Server, BackendInfo, Arc<AtomicU64>), BoxError> {
    let takes = Arc::new(AtomicU64::new(1_000));
    let shop = Shop {
        name: name.to_owned(),
        takes: Arc::clone(&takes),
    };
    let server = Server::builder()
        .service(OrdersServer::new(shop))
        .bind("127.0.0.1:0")
        .await?;
    let entry = BackendInfo::new(server.target().parse()?).id(name);
    Ok((server, entry, takes))
}

/// Makes calls for a while, 20 at a time. Prints how many each server got.
async fn load(orders: &OrdersClient, title: &str) -> Result<(), BoxError> {
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let orders = orders.clone();
        callers.spawn(async move {
            let mut counts = BTreeMap::<String, u32>::new();
            let end = tokio::time::Instant::now() + Duration::from_millis(700);
            while tokio::time::Instant::now() < end {
                let name = orders.place("tea".to_owned()).await?;
                *counts.entry(name).or_default() += 1;
            }
            Ok::<_, Status>(counts)
        });
    }
    let mut counts = BTreeMap::<String, u32>::new();
    while let Some(caller) = callers.join_next().await {
        for (name, count) in caller?? {
            *counts.entry(name).or_default() += count;
        }
    }
    let total: u32 = counts.values().sum();
    let shares: Vec<_> = counts
        .iter()
        .map(|(name, count)| {
            format!(
                "{name} {:.0} %",
                100.0 * f64::from(*count) / f64::from(total)
            )
        })
        .collect();
    println!("{title}: {}", shares.join(", "));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (a, entry_a, takes_a) = start("a").await?;
    let (b, entry_b, _) = start("b").await?;
    let (c, entry_c, _) = start("c").await?;
    let (list, watched) = watch::channel(vec![entry_a.clone(), entry_b.clone(), entry_c.clone()]);

    let client = Client::builder()
        // A server that joins gets its full share after this time. Default: 10 s.
        .balance(BalanceOptions::new().slow_start(Duration::from_millis(500), 0.1))
        .discover(Directory(watched))
        .await?;
    let orders = OrdersClient::new(client.clone());

    load(&orders, "all start").await?;
    load(&orders, "all are equal").await?;

    takes_a.store(10_000, Ordering::Relaxed);
    load(&orders, "a is ten times slower").await?;
    takes_a.store(1_000, Ordering::Relaxed);

    // Its connections are closed in the middle of calls. Those are retried, as `place` is
    // idempotent.
    b.shutdown(Duration::ZERO).await;
    load(&orders, "b was killed").await?;

    let (d, entry_d, _) = start("d").await?;
    list.send(vec![entry_a, entry_c, entry_d])?;
    load(&orders, "d has taken the place of b").await?;
    load(&orders, "a little later").await?;

    println!("no call has failed\n{}", client.explain());
    for server in [a, c, d] {
        server.shutdown(Duration::from_secs(1)).await;
    }
    Ok(())
}
