//! A shop with a method of each kind, to be called over HTTP through the gateway.
//!
//! Run: `cargo run --example shop_server [ADDRESS]`, and the gateway with a typed group of this
//! address, as `docs/gateway.md` describes it. Then open `/docs/` of the gateway in a browser.
//! Prints: where it listens. Ends on ctrl-c.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::{
    MethodError, Schema, Server, Status, Stream, Streaming, Subscription, Topic, service,
};
use serde::{Deserialize, Serialize};

/// The number of the first order. Floats have no such number, which a JavaScript client notices.
const FIRST: u64 = (1 << 53) + 1;

/// What a customer orders.
#[derive(Debug, Clone, Serialize, Deserialize, Schema)]
pub struct NewOrder {
    /// The name of the article, such as `bread`.
    article: String,
    /// At least 1.
    count: u32,
    /// What the customer wrote.
    note: Option<String>,
    payment: Payment,
}

/// How an order is paid.
#[derive(Debug, Clone, Serialize, Deserialize, Schema)]
#[serde(rename_all = "snake_case")]
pub enum Payment {
    /// On delivery.
    Cash,
    /// By a card.
    Card {
        /// Its number.
        #[schema(secret)]
        number: String,
    },
}

/// An order with its number.
#[derive(Debug, Clone, Serialize, Deserialize, Schema)]
pub struct Order {
    id: u64,
    order: NewOrder,
}

/// Why a method of orders has failed.
#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError, Schema)]
pub enum OrderError {
    /// There is less of the article.
    #[error("{left} left")]
    SoldOut {
        /// The number that can be ordered.
        left: u32,
    },
    /// All other failures.
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// Orders of a shop.
#[service(name = "shop.v1.Orders")]
pub trait Orders {
    /// Places an order, and returns its number.
    ///
    /// Subscribers of `watch` get it.
    async fn place(&self, order: NewOrder) -> Result<u64, OrderError>;

    /// Finds an order.
    #[rpc(idempotent, timeout = "2s")]
    async fn find(&self, id: u64) -> Result<Order, OrderError>;

    /// Returns all orders from a number on.
    #[rpc(idempotent)]
    async fn list(
        &self,
        from: u64,
        limit: Option<u32>,
    ) -> Result<impl Stream<Item = Result<Order, Status>>, Status>;

    /// Returns every order from now on.
    #[rpc(idempotent)]
    async fn watch(&self) -> Result<Subscription<Order>, Status>;

    /// Places many orders, and returns their number.
    async fn import(&self, orders: Streaming<NewOrder>) -> Result<u32, OrderError>;

    /// Returns a price for each article, as soon as it has come.
    async fn prices(
        &self,
        currency: String,
        articles: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status>;

    /// Notes that a customer has seen an article.
    #[rpc(oneway, priority = "low")]
    async fn seen(&self, article: String) -> Result<(), Status>;

    /// Returns how often an article was seen.
    #[rpc(idempotent)]
    async fn views(&self, article: String) -> Result<u32, Status>;

    /// Returns the body.
    #[deprecated = "use `find`"]
    #[rpc(raw)]
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
}

#[derive(Default)]
struct Shop {
    orders: Mutex<BTreeMap<u64, Order>>,
    views: Mutex<BTreeMap<String, u32>>,
    placed: Topic<Order>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Orders for Shop {
    async fn place(&self, order: NewOrder) -> Result<u64, OrderError> {
        if order.count == 0 {
            return Err(Status::invalid_argument("count is 0").into());
        }
        if order.count > 100 {
            return Err(OrderError::SoldOut { left: 100 });
        }
        let order = {
            let mut orders = lock(&self.orders);
            let id = orders.last_key_value().map_or(FIRST, |(last, _)| last + 1);
            orders.entry(id).or_insert(Order { id, order }).clone()
        };
        let id = order.id;
        self.placed.publish(order).await;
        Ok(id)
    }

    async fn find(&self, id: u64) -> Result<Order, OrderError> {
        let found = lock(&self.orders).get(&id).cloned();
        found.ok_or_else(|| Status::not_found(format!("no order {id}")).into())
    }

    async fn list(
        &self,
        from: u64,
        limit: Option<u32>,
    ) -> Result<impl Stream<Item = Result<Order, Status>>, Status> {
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let orders: Vec<Order> = lock(&self.orders)
            .range(from..)
            .map(|(_, order)| order.clone())
            .take(limit)
            .collect();
        Ok(Streaming::iter(orders))
    }

    async fn watch(&self) -> Result<Subscription<Order>, Status> {
        Ok(self.placed.subscribe())
    }

    async fn import(&self, mut orders: Streaming<NewOrder>) -> Result<u32, OrderError> {
        let mut count = 0;
        while let Some(order) = orders.next().await {
            self.place(order?).await?;
            count += 1;
        }
        Ok(count)
    }

    async fn prices(
        &self,
        currency: String,
        mut articles: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        let (sender, prices) = Streaming::channel(16);
        tokio::spawn(async move {
            while let Some(article) = articles.next().await {
                let article = match article {
                    Ok(article) => article,
                    Err(status) => return sender.fail(status).await,
                };
                let price = format!("{article}: {} {currency}", article.len());
                if sender.send(price).await.is_err() {
                    return;
                }
            }
            sender.finish();
        });
        Ok(prices)
    }

    async fn seen(&self, article: String) -> Result<(), Status> {
        *lock(&self.views).entry(article).or_default() += 1;
        Ok(())
    }

    async fn views(&self, article: String) -> Result<u32, Status> {
        Ok(lock(&self.views).get(&article).copied().unwrap_or_default())
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let server = Server::builder()
        .service(OrdersServer::new(Shop::default()))
        .bind(address.as_deref().unwrap_or("127.0.0.1:7070"))
        .await?;
    println!("listens on {}", server.target());
    server.shutdown_on_signal(Duration::from_secs(5)).await
}
