//! Serves `Greeter` until ctrl-c or SIGTERM, and then until the running calls have ended.
//!
//! Run: `cargo run -p greeter-server [ADDRESS]`
//! Prints: where it listens, and that it has ended.

use std::time::Duration;

use greeter_api::{Greeter, GreeterServer};
use iip_rpc::{Server, Status};

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
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:5005".to_owned());
    let server = Server::builder()
        .service(GreeterServer::new(Polite))
        .bind(addr)
        .await?;
    println!("listens on {}", server.target());
    server.shutdown_on_signal(Duration::from_secs(10)).await?;
    println!("has ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_name_is_not_greeted() {
        let status = Polite.hello(String::new()).await.unwrap_err();
        assert_eq!(status.code(), iip_rpc::Code::InvalidArgument);
    }
}
