//! Calls `Greeter` once.
//!
//! Run: `cargo run -p greeter-client [NAME] [ADDRESS]`, while the server runs
//! Prints: `hello, world`

use greeter_api::{Greeter, GreeterClient};
use iip_rpc::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "world".to_owned());
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:5005".to_owned());

    let greeter = GreeterClient::new(Client::connect(addr).await?);
    println!("{}", greeter.hello(name).await?);
    Ok(())
}
