//! A service that serves IIP and HTTP on one port: typed calls, calls with JSON, and probes.
//!
//! Run: `cargo run -p iip-example-http`, with another address than 127.0.0.1:7070 if you add one.
//! Prints: what to try with curl. Ends on ctrl-c.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iip_gateway::Http;
use iip_rpc::{Health, Schema, Server, Status, Stream, Streaming, service};
use serde::{Deserialize, Serialize};

/// An order of a customer.
#[derive(Debug, Clone, Serialize, Deserialize, Schema)]
pub struct Order {
    /// The name of the article, such as `bread`.
    article: String,
    /// At least 1.
    count: u32,
}

/// Orders of a shop.
#[service(name = "shop.v1.Orders")]
pub trait Orders {
    /// Places an order, and returns its number.
    async fn place(&self, order: Order) -> Result<u64, Status>;

    /// Finds an order.
    #[rpc(idempotent)]
    async fn find(&self, id: u64) -> Result<Order, Status>;

    /// Returns all orders from a number on.
    #[rpc(idempotent)]
    async fn list(&self, from: u64) -> Result<impl Stream<Item = Result<Order, Status>>, Status>;
}

#[derive(Default)]
struct Shop(Mutex<BTreeMap<u64, Order>>);

impl Shop {
    fn orders(&self) -> MutexGuard<'_, BTreeMap<u64, Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders for Shop {
    async fn place(&self, order: Order) -> Result<u64, Status> {
        if order.count == 0 {
            return Err(Status::invalid_argument("count is 0"));
        }
        let mut orders = self.orders();
        let id = orders.last_key_value().map_or(1, |(last, _)| last + 1);
        orders.insert(id, order);
        Ok(id)
    }

    async fn find(&self, id: u64) -> Result<Order, Status> {
        let found = self.orders().get(&id).cloned();
        found.ok_or_else(|| Status::not_found(format!("no order {id}")))
    }

    async fn list(&self, from: u64) -> Result<impl Stream<Item = Result<Order, Status>>, Status> {
        let orders: Vec<_> = self
            .orders()
            .range(from..)
            .map(|(_, order)| order.clone())
            .collect();
        Ok(Streaming::iter(orders))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let server = Server::builder()
        .service(OrdersServer::new(Shop::default()))
        .health(&Health::new())
        .fallback_protocol(Http::new())
        .bind(address)
        .await?;

    // A typed call over IIP.
    let orders = OrdersClient::connect(server.target()).await?;
    let bread = Order {
        article: "bread".to_owned(),
        count: 2,
    };
    let id = orders.place(bread).await?;

    let url = format!("http://{}", server.target());
    println!(
        "IIP and HTTP on {}, until ctrl-c. In another terminal:\n",
        server.target()
    );
    println!("curl '{url}/shop.v1.Orders/find?id={id}'");
    println!(
        r#"curl --json '{{"order": {{"article": "milk", "count": 1}}}}' {url}/shop.v1.Orders/place"#
    );
    println!("curl '{url}/shop.v1.Orders/list?from=1'");
    println!("curl {url}/openapi.json");
    println!("curl {url}/metrics");
    println!("curl {url}/readyz");
    println!("\nIn a browser: {url}/docs/");
    server.shutdown_on_signal(Duration::from_secs(5)).await?;
    Ok(())
}
