//! A typed backend for the tests of typed services, and a gateway in front of it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use iip_gateway::{Gateway, Group, Route, TypedOptions};
use iip_rpc::{
    CallContext, MethodError, Schema, Server, Status, Stream, Streaming, Subscription, Topic,
    service,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::common::{Reply, bound};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) note: Option<String>,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, Schema, MethodError)]
pub(crate) enum ShopError {
    #[error("sold out")]
    SoldOut { until: u64 },
    #[error("the shop is closed")]
    #[rpc(http = 422)]
    Closed,
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// Orders of a shop.
#[service(name = "shop.v1.Orders")]
pub(crate) trait Orders {
    /// Finds an order.
    #[rpc(idempotent)]
    async fn find(&self, id: u64, note: Option<String>) -> Result<Order, ShopError>;
    async fn place(&self, order: Order) -> Result<u64, Status>;
    async fn ping(&self) -> Result<(), Status>;
    #[rpc(idempotent)]
    async fn caller(&self, ctx: &CallContext) -> Result<Vec<(String, String)>, Status>;
    #[rpc(timeout = "1h")]
    async fn remaining(&self, ctx: &CallContext) -> Result<u64, Status>;
    /// Never replies.
    async fn hang(&self) -> Result<(), Status>;
    async fn overloaded(&self) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn tell(&self, text: String) -> Result<(), Status>;
    /// Orders with these ids; then it ends, fails, or goes on for ever.
    #[rpc(idempotent)]
    async fn list(
        &self,
        count: u64,
        then: String,
    ) -> Result<impl Stream<Item = Result<Order, ShopError>>, ShopError>;
    #[rpc(idempotent)]
    async fn watch(&self) -> Result<Subscription<Order>, Status>;
    async fn sum(&self, factor: u64, numbers: Streaming<u64>) -> Result<u64, Status>;
    async fn doubled(
        &self,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    #[rpc(path = "/echo", raw)]
    async fn echo(&self, body: bytes::Bytes) -> Result<bytes::Bytes, Status>;
}

/// The state of the backend.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) topic: Topic<Order>,
    pub(crate) told: mpsc::UnboundedSender<String>,
    /// Number of orders that the streams of `list` have yielded.
    pub(crate) listed: Arc<AtomicUsize>,
    /// Number of running streams and calls.
    pub(crate) running: Arc<AtomicUsize>,
}

/// Counts as running until it is dropped.
struct Running(Seen);

impl Running {
    fn new(seen: &Seen) -> Self {
        seen.running.fetch_add(1, Ordering::SeqCst);
        Self(seen.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A stream that counts as running.
struct Counted<T, E>(
    Streaming<T, E>,
    #[expect(dead_code, reason = "it counts")] Running,
);

impl<T, E> Stream for Counted<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

fn order(id: u64) -> Order {
    Order { id, note: None }
}

impl Orders for Seen {
    async fn find(&self, id: u64, note: Option<String>) -> Result<Order, ShopError> {
        match id {
            0 => Err(ShopError::SoldOut { until: 9 }),
            1 => Err(Status::not_found("no order 1").into()),
            422 => Err(ShopError::Closed),
            id => Ok(Order { id, note }),
        }
    }

    async fn place(&self, order: Order) -> Result<u64, Status> {
        Ok(order.id)
    }

    async fn ping(&self) -> Result<(), Status> {
        Ok(())
    }

    async fn caller(&self, ctx: &CallContext) -> Result<Vec<(String, String)>, Status> {
        let metadata = ctx.metadata().iter();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Ok(metadata
            .map(|(key, value)| (key.to_owned(), text(value)))
            .collect())
    }

    async fn remaining(&self, ctx: &CallContext) -> Result<u64, Status> {
        Ok(ctx.remaining().map_or(0, |left| left.as_secs() + 1))
    }

    async fn hang(&self) -> Result<(), Status> {
        let _running = Running::new(self);
        std::future::pending().await
    }

    async fn overloaded(&self) -> Result<(), Status> {
        let status = Status::resource_exhausted("too many calls");
        Err(status.with_retry_after(std::time::Duration::from_millis(1_500)))
    }

    async fn tell(&self, text: String) -> Result<(), Status> {
        self.told.send(text).map_err(Status::internal_from)
    }

    async fn list(
        &self,
        count: u64,
        then: String,
    ) -> Result<impl Stream<Item = Result<Order, ShopError>>, ShopError> {
        if then == "refuse" {
            return Err(ShopError::SoldOut { until: 1 });
        }
        let (sender, orders) = Streaming::channel(1);
        let (seen, running) = (self.clone(), Running::new(self));
        tokio::spawn(async move {
            for id in 0..count {
                if sender.send(order(id)).await.is_err() {
                    return;
                }
                seen.listed.fetch_add(1, Ordering::SeqCst);
            }
            match &*then {
                "fail" => sender.fail(ShopError::SoldOut { until: 2 }).await,
                "wait" => std::future::pending().await,
                _ => sender.finish(),
            }
        });
        Ok(Counted(orders, running))
    }

    async fn watch(&self) -> Result<Subscription<Order>, Status> {
        Ok(self.topic.subscribe())
    }

    async fn sum(&self, factor: u64, mut numbers: Streaming<u64>) -> Result<u64, Status> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
        }
        Ok(factor * sum)
    }

    async fn doubled(
        &self,
        mut numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        let (sender, doubled) = Streaming::channel(1);
        let running = Running::new(self);
        tokio::spawn(async move {
            while let Some(number) = numbers.next().await {
                match number {
                    Ok(number) if sender.send(number * 2).await.is_ok() => {}
                    Ok(_) => return,
                    Err(status) => return sender.fail(status).await,
                }
            }
            sender.finish();
        });
        Ok(Counted(doubled, running))
    }

    async fn echo(&self, body: bytes::Bytes) -> Result<bytes::Bytes, Status> {
        match &body[..] {
            b"fail" => Err(Status::internal("it failed")),
            _ => Ok(body),
        }
    }
}

/// A backend and a gateway in front of it.
pub(crate) struct Shop {
    pub(crate) server: Server,
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) seen: Seen,
    pub(crate) told: mpsc::UnboundedReceiver<String>,
}

impl Shop {
    pub(crate) async fn new() -> Self {
        Self::with(TypedOptions::new()).await
    }

    pub(crate) async fn with(options: TypedOptions) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let seen = Seen {
            topic: Topic::new(),
            told: tell,
            listed: Arc::default(),
            running: Arc::default(),
        };
        let server = Server::builder().service(OrdersServer::new(seen.clone()));
        let server = server.bind("127.0.0.1:0").await.unwrap();
        let (gateway, address) = gateway(server.target(), options).await;
        Self {
            server,
            gateway,
            address,
            seen,
            told,
        }
    }

    /// Waits until this number of streams and calls is running.
    pub(crate) async fn until_running(&self, count: usize) {
        crate::common::until("the number of running calls", || {
            self.seen.running.load(Ordering::SeqCst) == count
        })
        .await;
    }
}

/// Starts a gateway in front of a backend.
pub(crate) async fn gateway(target: impl ToString, options: TypedOptions) -> (Gateway, SocketAddr) {
    let group = Group::new(target.to_string()).typed(options);
    bound(
        Gateway::builder()
            .group("shop", group)
            .route(Route::all("shop")),
    )
    .await
}

/// Returns the text of a call by POST.
pub(crate) fn call(method: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /shop.v1.Orders/{method} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         {headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Returns the problem in a reply.
pub(crate) fn problem(reply: &Reply) -> serde_json::Value {
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    serde_json::from_str(&reply.body).unwrap()
}
