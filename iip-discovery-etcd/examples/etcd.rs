//! Two servers that are registered in etcd, and a client that finds them.
//!
//! Run: `etcd` in one terminal, and in another:
//! `cargo run -p iip-discovery-etcd --example etcd [etcd://127.0.0.1:2379/services/example]`
//! Prints: how many calls each server got while there was one, while there were two, and after the
//! first had left; and what the client knows at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use iip_core::balance::{BackendInfo, Target};
use iip_core::{Client, HandlerError, Request, Response, Server, handler_fn};
use iip_discovery_etcd::Etcd;

type BoxError = Box<dyn std::error::Error>;

/// Starts a server that replies with its name and is listed under it.
async fn start(etcd: &Etcd, name: &'static str) -> Result<Server, BoxError> {
    let handler =
        handler_fn(move |_: Request| async move { Ok::<_, HandlerError>(Response::from(name)) });
    let server = Server::builder()
        .route("/name", handler)
        // Port 0 stands for the port of the server.
        .register(
            etcd.clone(),
            BackendInfo::new("127.0.0.1:0".parse()?).id(name),
        )
        // For this example; the default gives clients 5 s to learn that the server leaves.
        .lame_duck(Duration::from_millis(200))
        .bind("127.0.0.1:0")
        .await?;
    server.registered().await;
    Ok(server)
}

/// Makes 100 calls, and prints who has replied.
async fn call(client: &Client, title: &str) -> Result<(), BoxError> {
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        let name = client.request("/name", "?").await?;
        *counts.entry(String::from_utf8(name.to_vec())?).or_insert(0) += 1;
    }
    println!("{title}: {counts:?}");
    Ok(())
}

/// Waits until the client knows this number of servers.
async fn known(client: &Client, count: usize) {
    while client.explain().backends.len() != count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let argument = std::env::args().nth(1);
    let text = argument.unwrap_or_else(|| "etcd://127.0.0.1:2379/services/example".to_owned());
    let etcd = Etcd::from_target(&text.parse::<Target>()?)?;

    let first = start(&etcd, "first").await?;
    let client = Client::builder().discover(etcd.clone()).await?;
    call(&client, "one server").await?;

    let second = start(&etcd, "second").await?;
    known(&client, 2).await;
    call(&client, "two servers").await?;

    // It leaves the registry first, then it stops.
    first.shutdown(Duration::from_secs(10)).await;
    known(&client, 1).await;
    call(&client, "the first has left").await?;

    println!("{}", client.explain());
    second.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
