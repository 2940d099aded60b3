//! Calls without a time limit, under a clock that the test advances.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(
    clippy::disallowed_methods,
    reason = "the test reads the clock that it advances"
)]

use std::sync::Arc;
use std::time::Duration;

use iip_rpc::{CallContext, CallOptions, Client, Code, MethodPolicy, Server, Status, service};
use tokio::sync::Notify;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

#[service]
trait Lock {
    /// Waits until the lock is free; returns the time that the call had left.
    async fn acquire(&self, ctx: &CallContext) -> Result<Option<Duration>, Status>;

    /// The same, set by the attribute of the method.
    #[rpc(timeout = "8760h")]
    async fn acquire_at_leisure(&self, ctx: &CallContext) -> Result<Option<Duration>, Status>;
}

struct Locks {
    begun: Arc<Notify>,
    free: Arc<Notify>,
}

impl Lock for Locks {
    async fn acquire(&self, ctx: &CallContext) -> Result<Option<Duration>, Status> {
        let left = ctx.remaining();
        self.begun.notify_one();
        self.free.notified().await;
        Ok(left)
    }

    async fn acquire_at_leisure(&self, ctx: &CallContext) -> Result<Option<Duration>, Status> {
        self.acquire(ctx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_limit_waits_for_days_wherever_that_was_set() {
    let (begun, free) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let locks = Locks {
        begun: Arc::clone(&begun),
        free: Arc::clone(&free),
    };
    let (_server, connector) = Server::builder()
        .service(LockServer::new(locks))
        .in_memory()
        .unwrap();
    let client = Client::builder().connect_with(connector.clone());
    let locks = LockClient::new(client.await.unwrap());
    let ctx = CallContext::new();

    let started = Instant::now();
    let status = locks.acquire(&ctx).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(started.elapsed().as_secs(), 10);
    begun.notified().await;

    let by_client = Client::builder().timeout(Duration::MAX);
    let by_client = LockClient::new(by_client.connect_with(connector.clone()).await.unwrap());
    let policy = MethodPolicy::new().timeout(Duration::MAX);
    let by_policy = Client::builder().method_policy("/lock/acquire", policy);
    let by_policy = LockClient::new(by_policy.connect_with(connector).await.unwrap());
    let by_call = locks.with_options(CallOptions::new().timeout(Duration::MAX));
    for locks in [by_client, by_policy, by_call] {
        let waiting = tokio::spawn({
            let ctx = ctx.clone();
            async move { locks.acquire(&ctx).await }
        });
        begun.notified().await;
        tokio::time::sleep(HOUR).await;
        assert!(!waiting.is_finished());
        free.notify_one();
        let left = waiting.await.unwrap().unwrap();
        assert!(left.is_none_or(|left| left > 8_000 * HOUR), "{left:?}");
    }

    let waiting = tokio::spawn(async move { locks.acquire_at_leisure(&ctx).await });
    begun.notified().await;
    tokio::time::sleep(HOUR).await;
    free.notify_one();
    assert!(waiting.await.unwrap().is_ok());
}
