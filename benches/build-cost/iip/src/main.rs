//! A typed call, both sides in one process: the service of the README.

use iip_rpc::{Client, Server, Status, service};

/// Greets people.
#[service]
pub trait Greeter {
    /// Greets someone.
    async fn hello(&self, name: String) -> Result<String, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn hello(&self, name: String) -> Result<String, Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument("name is empty"));
        }
        Ok(format!("hello, {name}"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(GreeterServer::new(Polite))
        .bind("127.0.0.1:0")
        .await?;
    let greeter = GreeterClient::new(Client::connect(server.target()).await?);
    println!("{}", greeter.hello("world".into()).await?);
    Ok(())
}
