//! Compressed requests and replies: the bytes that they save, and the time that they cost.
//!
//! Run: `cargo run --release -p iip-examples --example compression`
//! Prints: a table of the bytes that cross the network for one call, and the time that a call takes
//! on one thread which is client and server, for records of several sizes in bincode and in JSON;
//! then that noise is sent as it is.

use std::time::{Duration, Instant};

use iip_rpc::codec::CodecId;
use iip_rpc::{CallOptions, Client, Compression, Schema, Server, ServerBuilder, Status, service};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

/// Typical data: names, numbers, few different words.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, Schema)]
pub struct Order {
    id: u64,
    customer: String,
    mail: String,
    state: String,
    price: f64,
    items: Vec<(u32, u16)>,
}

/// A shop that only reads orders.
#[service]
pub trait Orders {
    /// Returns the orders.
    async fn echo(&self, orders: Vec<Order>) -> Result<Vec<Order>, Status>;
    /// Returns the bytes.
    async fn noise(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Status>;
}

struct Shop;

impl Orders for Shop {
    async fn echo(&self, orders: Vec<Order>) -> Result<Vec<Order>, Status> {
        Ok(orders)
    }

    async fn noise(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
        Ok(bytes)
    }
}

/// Returns numbers that look random.
fn noise(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed | 1), |&last| {
        let mut next = last;
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        Some(next)
    })
    .skip(8)
}

fn orders(count: u64) -> Vec<Order> {
    let names = ["Ada", "Grace", "Barbara", "Radia", "Frances", "Margaret"];
    let states = ["open", "paid", "shipped", "returned"];
    let order = |id: u64| {
        let mut numbers = noise(id * 7919);
        let mut below = |limit: u64| numbers.next().unwrap_or_default() % limit;
        let customer = format!("{} {:05}", names[below(6) as usize], below(20_000));
        Order {
            id: 4_000_000 + id,
            mail: format!("{}@example.com", customer.replace(' ', ".")),
            customer,
            state: states[below(4) as usize].into(),
            price: below(100_000) as f64 / 100.0,
            items: (0..below(6))
                .map(|_| (below(50_000) as u32, below(9) as u16))
                .collect(),
        }
    };
    (0..count).map(order).collect()
}

fn server(compression: Option<Compression>) -> ServerBuilder {
    let server = Server::builder().service(OrdersServer::new(Shop));
    server.compression(compression)
}

/// Returns the bytes that one call sends and receives, without those of connecting.
async fn bytes_of(
    codec: CodecId,
    compression: Option<Compression>,
    orders: &[Order],
) -> Result<u64, Box<dyn std::error::Error>> {
    let mut bytes = [0; 2];
    for (calls, bytes) in [1, 2].into_iter().zip(&mut bytes) {
        let server = server(compression).bind("127.0.0.1:0").await?;
        let between = TcpListener::bind("127.0.0.1:0").await?;
        let addr = between.local_addr()?;
        let target = server.target().to_owned();
        let counting = tokio::spawn(async move {
            let (mut client, _) = between.accept().await?;
            let mut server = TcpStream::connect(target).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
        let builder = Client::builder().codec(codec).compression(compression);
        let client = builder.connect(addr.to_string()).await?;
        let shop = OrdersClient::new(client.clone());
        for _ in 0..calls {
            shop.echo(orders.to_vec()).await?;
        }
        client.close(Duration::from_secs(1)).await;
        server.shutdown(Duration::from_secs(1)).await;
        let (up, down) = counting.await??;
        *bytes = up + down;
    }
    Ok(bytes[1] - bytes[0])
}

/// Returns the time of one call, the shortest of several series.
async fn time_of(
    codec: CodecId,
    compression: Option<Compression>,
    orders: &[Order],
) -> Result<Duration, Box<dyn std::error::Error>> {
    let server = server(compression).bind("127.0.0.1:0").await?;
    let builder = Client::builder().codec(codec).compression(compression);
    let client = builder.connect(server.target()).await?;
    let shop = OrdersClient::new(client);
    let calls = (4000 / orders.len()).clamp(2, 200) as u32;
    // Without optimization the numbers are meaningless, and the run takes long.
    let series = if cfg!(debug_assertions) { 1 } else { 10 };
    let mut best = Duration::MAX;
    for _ in 0..series {
        let begun = Instant::now();
        for _ in 0..calls {
            shop.echo(orders.to_vec()).await?;
        }
        best = best.min(begun.elapsed() / calls);
    }
    server.shutdown(Duration::from_secs(1)).await;
    Ok(best)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let zstd = |level| Some(Compression::zstd().level(level).above(0));
    let kinds = [
        ("none", None),
        ("lz4", Some(Compression::lz4().above(0))),
        ("zstd, level 1", zstd(1)),
        ("zstd, level 3", zstd(3)),
    ];
    println!("| codec | orders | compression | bytes of a call | time of a call |");
    println!("|---|---:|---|---:|---:|");
    for codec in [CodecId::BINCODE, CodecId::JSON] {
        for count in [5, 20, 240] {
            let orders = orders(count);
            for (name, compression) in kinds {
                let bytes = bytes_of(codec, compression, &orders).await?;
                let time = time_of(codec, compression, &orders).await?;
                println!("| {codec} | {count} | {name} | {bytes} | {time:.1?} |");
            }
        }
    }

    // Values that do not become smaller are sent uncompressed, as are small ones and those with
    // compression turned off.
    let server = server(zstd(1)).bind("127.0.0.1:0").await?;
    let client = Client::builder().compression(zstd(1));
    let shop = OrdersClient::new(client.connect(server.target()).await?);
    let bytes: Vec<u8> = noise(7).take(10_000).flat_map(u64::to_le_bytes).collect();
    assert_eq!(shop.noise(bytes.clone()).await?, bytes);
    let options = CallOptions::new().compression(None);
    assert_eq!(
        shop.with_options(options).noise(bytes.clone()).await?,
        bytes
    );
    println!("noise came back as it was");
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
