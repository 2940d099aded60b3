//! Two builds of one service, as they meet during an upgrade: a client of the old build calls a
//! server of the new one. The new build has one field more, and its variants are in another order.
//!
//! ```text
//! cargo run --example two_builds
//! ```
//!
//! bincode, the default codec, has no names of fields, so it cannot carry the values of both builds.
//! The client notices before its first call, and uses a codec with names for that method. A method
//! that no codec can carry is refused before it runs, with the reason.

use iip_rpc::{Client, Code, Schema, Server, Status, service};
use serde::{Deserialize, Serialize};

/// The build of the client.
pub(crate) mod old {
    use super::{Deserialize, Schema, Serialize, Status, service};

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    pub(crate) enum Colour {
        Red,
        Green,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    pub(crate) struct Order {
        pub(crate) id: u64,
        pub(crate) colour: Colour,
    }

    #[service(name = "shop.Orders")]
    pub(crate) trait Orders {
        async fn place(&self, order: Order) -> Result<Order, Status>;
        async fn remove(&self, id: u64) -> Result<(), Status>;
    }
}

/// The build of the server.
pub(crate) mod new {
    use super::{Deserialize, Schema, Serialize, Status, service};

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    pub(crate) enum Colour {
        Blue,
        Green,
        Red,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    pub(crate) struct Order {
        pub(crate) id: u64,
        #[serde(default)]
        pub(crate) note: String,
        pub(crate) colour: Colour,
    }

    #[service(name = "shop.Orders")]
    pub(crate) trait Orders {
        async fn place(&self, order: Order) -> Result<Order, Status>;
        async fn remove(&self, order: Order) -> Result<(), Status>;
    }
}

struct Shop;

impl new::Orders for Shop {
    async fn place(&self, order: new::Order) -> Result<new::Order, Status> {
        println!("the server got {order:?}");
        Ok(order)
    }

    async fn remove(&self, _: new::Order) -> Result<(), Status> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(new::OrdersServer::new(Shop))
        .bind("127.0.0.1:0")
        .await?;

    let client = Client::connect(server.target()).await?;
    // `old::OrdersClient` is the trait's other half: the client of that build.
    let orders = old::OrdersClient::new(client.clone());
    let order = old::Order {
        id: 1,
        colour: old::Colour::Red,
    };
    let placed = old::Orders::place(&orders, order).await?;
    println!("the client got {placed:?}");
    assert_eq!(placed.colour, old::Colour::Red);
    println!("calls in another codec: {}", client.codec_fallbacks());

    let refused = old::Orders::remove(&orders, 1).await.err();
    let refused = refused.ok_or("the two builds of `remove` are not compatible")?;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    println!("{refused}");
    Ok(())
}
