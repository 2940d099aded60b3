//! A server with types of every form, to test clients that are generated for it.
//!
//! Run: `cargo run -p iq --example types [ADDRESS]`. Prints: the address that it listens on. Ends
//! on ctrl-c.

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "the types have nothing but a form"
)]

pub mod calls;
pub mod echo;
pub mod values;

use std::time::Duration;

use iip_rpc::Server;

use self::calls::{CallsServer, Kinds};
use self::echo::{EchoServer, Returned};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let server = Server::builder()
        .service(EchoServer::new(Returned))
        .service(CallsServer::new(Kinds::default()))
        .bind(address.as_deref().unwrap_or("127.0.0.1:7000"))
        .await?;
    println!("listens on {}", server.target());
    server.shutdown_on_signal(Duration::from_secs(1)).await
}
