//! Transparent retries: calls that have not run are repeated before their deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use iip_rpc::status::{Code, Execution};
use iip_rpc::{CallOptions, Client, Server, Status, service};
use tokio::sync::watch;

use crate::common::{SERVED, spawn, started, within};

#[service]
trait Counter {
    /// Counts the calls that have run.
    async fn count(&self, load: Vec<u8>) -> Result<u64, Status>;
}

#[derive(Clone, Default)]
struct Counts(Arc<AtomicU64>);

impl Counter for Counts {
    async fn count(&self, load: Vec<u8>) -> Result<u64, Status> {
        // Calls must be running whenever the server ends.
        tokio::task::yield_now().await;
        drop(load);
        Ok(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

async fn serve(counts: &Counts, target: &str) -> Server {
    let builder = Server::builder().service(CounterServer::new(counts.clone()));
    builder.bind(target).await.expect("the address is free")
}

/// Returns an address without a listener.
async fn unused_address() -> String {
    let server = serve(&Counts::default(), "127.0.0.1:0").await;
    let target = server.target().to_owned();
    server.shutdown(Duration::ZERO).await;
    target
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_under_load_fails_no_call_and_runs_none_twice() {
    const CALLERS: usize = 16;
    const RESTARTS: u64 = 3;
    let counts = Counts::default();
    let mut server = serve(&counts, "127.0.0.1:0").await;
    let target = server.target().to_owned();
    let client = Client::builder().wait_for_ready(true);
    let client = client.connect(&target).await.expect("the server listens");
    let (progress, mut replies) = watch::channel(0);
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let counter = CounterClient::new(client.clone());
            let (progress, over) = (progress.clone(), Arc::clone(&over));
            spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    counter.count(vec![7; 100]).await.expect("no call fails");
                    progress.send_modify(|replies| *replies += 1);
                }
            })
        })
        .collect();
    for round in 1..=RESTARTS {
        let some = async {
            replies
                .wait_for(|&replies| replies >= 300 * round)
                .await
                .is_ok()
        };
        assert!(within("replies to the calls", some).await);
        server.shutdown(Duration::from_secs(5)).await;
        server = serve(&counts, &target).await;
    }
    let last = async {
        replies
            .wait_for(|&replies| replies >= 300 * (RESTARTS + 1))
            .await
            .is_ok()
    };
    assert!(within("replies to the calls", last).await);
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        within("the caller", caller).await.expect("no call fails");
    }
    let finished = *replies.borrow();
    assert_eq!(counts.0.load(Ordering::Relaxed), finished, "each ran once");
}

#[tokio::test]
async fn a_call_that_waits_for_the_server_gets_its_reply_once_it_listens() {
    let target = unused_address().await;
    let client = Client::builder().wait_for_ready(true);
    let counter = CounterClient::new(client.connect_lazy(&target).expect("a valid address"));
    let call = started(counter.count(Vec::new())).await;
    let _server = serve(&Counts::default(), &target).await;
    assert_eq!(within("the reply", call.finish()).await, Ok(1));
}

#[tokio::test]
async fn a_call_that_waits_for_the_server_waits_no_longer_than_its_deadline() {
    let target = unused_address().await;
    let client = Client::builder()
        .connect_lazy(&target)
        .expect("a valid address");
    let patient = CallOptions::new()
        .wait_for_ready(true)
        .timeout(Duration::from_millis(300));
    let counter = CounterClient::new(client.with_options(patient));
    let begun = std::time::Instant::now();
    let status = within("the call", counter.count(Vec::new()))
        .await
        .unwrap_err();
    assert!(begun.elapsed() < SERVED, "{:?}", begun.elapsed());
    assert!(
        matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
        "{status}"
    );
    assert_eq!(status.execution(), Execution::NotSent);
}

#[tokio::test]
async fn a_call_that_does_not_wait_fails_at_once() {
    let client = Client::builder()
        .timeout(Duration::from_secs(3600))
        .connect_lazy(unused_address().await)
        .expect("a valid address");
    let counter = CounterClient::new(client);
    let status = within("the call", counter.count(Vec::new()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.execution(), Execution::NotSent);
}

#[tokio::test]
async fn a_call_after_the_server_has_gone_fails_and_was_not_sent() {
    let server = serve(&Counts::default(), "127.0.0.1:0").await;
    let client = Client::builder().connect(server.target()).await;
    let stays = CounterClient::new(client.expect("the server listens"));
    assert_eq!(stays.count(Vec::new()).await, Ok(1));
    server.shutdown(Duration::ZERO).await;
    let status = within("the call", stays.count(Vec::new()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.execution(), Execution::NotSent);
}
