//! Two servers that are registered in etcd, and a watch that finds them.
//!
//! Run: `etcd` in one terminal, and in another:
//! `cargo run -p iip-discovery-etcd --example etcd [etcd://127.0.0.1:2379/services/example]`
//! Prints: the servers in etcd after each change: none, one, two, one and none again.

use std::future::poll_fn;

use iip_core::balance::{BackendInfo, Target};
use iip_core::discover::{Discover, Register, SnapshotStream};
use iip_core::{HandlerError, Request, Response, Server, handler_fn};
use iip_discovery_etcd::Etcd;

async fn echo(request: Request) -> Result<Response, HandlerError> {
    Ok(request.into_body().into())
}

async fn start() -> Result<Server, Box<dyn std::error::Error>> {
    let server = Server::builder().route("/echo", handler_fn(echo));
    Ok(server.bind("127.0.0.1:0").await?)
}

/// Waits until `count` servers are listed, and prints every snapshot.
async fn until(
    count: usize,
    snapshots: &mut SnapshotStream,
) -> Result<(), Box<dyn std::error::Error>> {
    while let Some(item) = poll_fn(|cx| snapshots.as_mut().poll_next(cx)).await {
        // A client would keep what it knows. An example ends.
        let snapshot = item?;
        let servers: Vec<String> = snapshot
            .backends
            .iter()
            .map(|info| {
                format!(
                    "{} at {} with weight {}",
                    info.id, info.endpoint, info.weight
                )
            })
            .collect();
        println!("{} servers: {}", servers.len(), servers.join(", "));
        if servers.len() == count {
            break;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1);
    let text = argument.unwrap_or_else(|| "etcd://127.0.0.1:2379/services/example".to_owned());
    let etcd = Etcd::from_target(&text.parse::<Target>()?)?;

    let mut snapshots = etcd.watch();
    until(0, &mut snapshots).await?;

    let (first, second) = (start().await?, start().await?);
    let info = BackendInfo::new(first.target().parse()?).id("first");
    let first_entry = etcd.register(info).await?;
    until(1, &mut snapshots).await?;
    let info = BackendInfo::new(second.target().parse()?)
        .id("second")
        .weight(3);
    let second_entry = etcd.register(info).await?;
    until(2, &mut snapshots).await?;

    // Servers leave the registry before they stop, so that no client calls them any more.
    first_entry.deregister().await?;
    until(1, &mut snapshots).await?;
    second_entry.deregister().await?;
    until(0, &mut snapshots).await
}
