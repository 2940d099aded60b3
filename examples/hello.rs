//! A typed call, both sides in one process.
//!
//! Run: `cargo run --example hello`
//! Prints: `hello, world`

use std::time::Duration;

use iip_rpc::{Server, Status, service};

/// Greets people.
#[service]
pub trait Greeter {
    /// Greets someone.
    async fn hello(&self, name: String) -> Result<String, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn hello(&self, name: String) -> Result<String, Status> {
        Ok(format!("hello, {name}"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(GreeterServer::new(Polite))
        .bind("127.0.0.1:0")
        .await?;

    let greeter = GreeterClient::connect(server.target()).await?;
    println!("{}", greeter.hello("world".into()).await?);

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
