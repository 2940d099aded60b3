//! The server. It prints its address and runs until ctrl-c; the address to listen on is its
//! argument, `127.0.0.1:7300` by default.

use std::time::Duration;

use iip_example_protobuf_build::Depot;
use iip_example_protobuf_build::fleet::v1::FleetServer;
use iip_rpc::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let server = Server::builder()
        .service(FleetServer::new(Depot::new(&[1, 2])))
        .bind(address.as_deref().unwrap_or("127.0.0.1:7300"))
        .await?;
    println!("{}", server.target());
    tokio::signal::ctrl_c().await?;
    server.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
