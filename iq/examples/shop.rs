//! A server to try `iq` with, as its README does.
//!
//! ```sh
//! cargo run -p iq --example shop                 # serves on 127.0.0.1:7000
//! cargo run -p iq -- list localhost:7000         # in another terminal
//! ```

use std::time::Duration;

use iip_rpc::{
    Health, MethodError, Peer, Schema, Server, ServerBuilder, Status, Stream, Streaming, service,
};
use serde::{Deserialize, Serialize};

/// What somebody orders.
#[derive(Debug, Clone, Serialize, Deserialize, Schema)]
pub struct Order {
    /// The article.
    pub item: String,
    /// The number of pieces.
    pub count: u32,
    /// What the customer wrote.
    pub note: Option<String>,
}

/// The reason why an order is not taken.
#[derive(Debug, thiserror::Error, Serialize, Deserialize, Schema, MethodError)]
pub enum OrderError {
    /// There are not enough pieces.
    #[error("only {left} are left")]
    SoldOut {
        /// The number of pieces that are left.
        left: u32,
    },
    /// Any other failure.
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// Takes orders.
#[service(name = "shop.Orders")]
pub trait Orders {
    /// Places an order, and returns its number.
    async fn place(&self, order: Order) -> Result<u64, OrderError>;
    /// Finds an order.
    #[rpc(idempotent)]
    async fn find(&self, id: u64) -> Result<Order, Status>;
    /// Lists the first orders.
    async fn list(&self, count: u32) -> Result<impl Stream<Item = Result<Order, Status>>, Status>;
    /// Adds up prices.
    async fn total(&self, prices: Streaming<u64>) -> Result<u64, Status>;
}

struct Shop;

fn order(item: &str, count: u32) -> Order {
    Order {
        item: item.to_owned(),
        count,
        note: None,
    }
}

impl Orders for Shop {
    async fn place(&self, order: Order) -> Result<u64, OrderError> {
        match order.count {
            0..=10 => Ok(8),
            _ => Err(OrderError::SoldOut { left: 10 }),
        }
    }

    async fn find(&self, id: u64) -> Result<Order, Status> {
        match id {
            7 => Ok(order("pear", 2)),
            id => Err(Status::not_found(format!("there is no order {id}"))),
        }
    }

    async fn list(&self, count: u32) -> Result<impl Stream<Item = Result<Order, Status>>, Status> {
        Ok(Streaming::iter(
            (1..=count).map(|count| order("pear", count)),
        ))
    }

    async fn total(&self, mut prices: Streaming<u64>) -> Result<u64, Status> {
        let mut total = 0_u64;
        while let Some(price) = prices.next().await {
            total = total.saturating_add(price?);
        }
        Ok(total)
    }
}

/// The server of the shop.
pub fn server() -> ServerBuilder {
    let is_local = |peer: &Peer| peer.addr().is_some_and(|addr| addr.ip().is_loopback());
    Server::builder()
        .service(OrdersServer::new(Shop))
        .health(&Health::new())
        .statistics(is_local)
        .drain_on_request(Duration::from_secs(20), is_local)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let server = server().bind("127.0.0.1:7000").await?;
    println!("listens on {}", server.target());
    server.shutdown_on_signal(Duration::from_secs(1)).await
}
