//! Tests of a service and of the code that uses it: in memory, and without any connection.
//!
//! Run: `cargo run --example in_memory`
//! Prints: the total of a basket, from the implementation itself and from a server in memory, and a
//! failure from a stub.

use std::time::Duration;

use iip_rpc::{Client, Code, Server, Status, service};

/// A price list.
#[service]
pub trait Prices {
    /// Returns the price of one piece.
    async fn price(&self, article: String) -> Result<u64, Status>;
}

struct PriceList;

impl Prices for PriceList {
    async fn price(&self, article: String) -> Result<u64, Status> {
        match article.as_str() {
            "apple" => Ok(3),
            "pear" => Ok(4),
            _ => Err(Status::not_found(format!("no article {article:?}"))),
        }
    }
}

/// The code to test. It takes the trait, not the client, so it works with any implementation.
async fn total(prices: &impl Prices, articles: &[&str]) -> Result<u64, Status> {
    let mut total = 0;
    for &article in articles {
        match prices.price(article.to_owned()).await {
            Ok(price) => total += price,
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    Ok(total)
}

/// A stub for cases that are hard to cause otherwise.
struct Down;

impl Prices for Down {
    async fn price(&self, _article: String) -> Result<u64, Status> {
        Err(Status::unavailable("the price list is being printed"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let basket = ["apple", "brick", "pear"];

    // The implementation itself: fastest, and a debugger steps right through.
    assert_eq!(total(&PriceList, &basket).await, Ok(7));
    println!("called directly: 7");

    // The same over IIP without a socket: encoding, deadlines and cancellation are the real ones.
    let (server, connector) = Server::builder()
        .service(PricesServer::new(PriceList))
        .in_memory()?;
    let client = Client::builder().connect_with(connector).await?;
    assert_eq!(total(&PricesClient::new(client), &basket).await, Ok(7));
    println!("in memory: 7");

    // A failure on demand.
    let failed = total(&Down, &basket).await;
    assert_eq!(
        failed.map_err(|status| status.code()),
        Err(Code::Unavailable)
    );
    println!("with a stub: unavailable");

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
