//! Metadata in both directions: data of every call, such as request ids and tokens.
//!
//! Run: `cargo run --example metadata`
//! Prints: the metadata of the request in the handlers, and the metadata of the reply at the
//! caller.

use std::time::Duration;

use iip_rpc::{CallContext, CallOptions, Client, ReplyMetadata, Server, Status, service};

/// Two ways to the metadata of a call.
#[service]
pub trait Orders {
    /// The context is available without being a parameter.
    async fn count(&self) -> Result<u64, Status>;

    /// The context is a parameter. It is not sent: each side has its own.
    async fn cancel(&self, ctx: &CallContext, order: u64) -> Result<(), Status>;
}

struct Shop;

impl Orders for Shop {
    async fn count(&self) -> Result<u64, Status> {
        let ctx =
            CallContext::current().ok_or_else(|| Status::internal("not called by a client"))?;
        println!("count: request-id {:?}", ctx.metadata().text("request-id"));
        ctx.set_reply_metadata("served-by", "shop-1")
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(3)
    }

    async fn cancel(&self, ctx: &CallContext, order: u64) -> Result<(), Status> {
        match ctx.metadata().text("token") {
            Some("secret") => println!(
                "cancel: order {order}, request-id {:?}",
                ctx.metadata().text("request-id")
            ),
            _ => return Err(Status::unauthenticated("no token, or a wrong one")),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(OrdersServer::new(Shop))
        .bind("127.0.0.1:0")
        .await?;
    let client = Client::connect(server.target()).await?;

    // For all calls through this client: the metadata to send, and where the metadata of the reply
    // is kept.
    let reply = ReplyMetadata::new();
    let options = CallOptions::new()
        .metadata("request-id", "4711")?
        .reply_metadata(&reply);
    let orders = OrdersClient::new(client).with_options(options);
    println!(
        "{} orders, served by {:?}",
        orders.count().await?,
        reply.get().text("served-by")
    );

    // For one call: more options, in addition to those of the client.
    let with_token = CallOptions::new().metadata("token", "secret")?;
    orders
        .with_options(with_token)
        .cancel(&CallContext::new(), 2)
        .await?;

    if let Err(status) = orders.cancel(&CallContext::new(), 2).await {
        println!("without token: {status}");
    }

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
