//! The live page of a process: a server of orders, which calls three servers of stock, one of which
//! fails now and then, and load on all of them.
//!
//! ```sh
//! cargo run -p iip-examples --example live            # three seconds, then the page as text
//! cargo run -p iip-examples --example live -- 600     # ten minutes, opens the page in a browser
//! ```
//!
//! The first one ends with output such as:
//!
//! ```text
//! http://127.0.0.1:40321/live
//! shop (version 0.1.0, process 4711, up 3 s)
//! PROBLEM: stock/reserve of client stock: 5.1 % of 1120.3 calls/s fail, most with UNAVAILABLE; ..
//!
//! methods (4)
//!   method          in              calls/s   errors/s        p50         p99       p99.9   in flight   codes/s
//!   orders/place    server orders    1050.7       12.0   1.936 ms    9.472 ms   14.208 ms           3   UNAVAILABLE 12.0
//! ..
//! ```

use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use iip_gateway::live::LivePage;
use iip_rpc::{Client, Server, Status, service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Takes orders.
#[service]
pub trait Orders {
    /// Places an order and returns its number.
    async fn place(&self, article: u64, count: u32) -> Result<u64, Status>;
    /// Finds an order by its number.
    async fn find(&self, order: u64) -> Result<String, Status>;
}

/// Knows what is in stock.
#[service]
pub trait Stock {
    /// Reserves some of an article.
    #[rpc(idempotent)]
    async fn reserve(&self, article: u64, count: u32) -> Result<u32, Status>;
}

struct Shop {
    stock: StockClient,
    orders: AtomicU64,
}

impl Orders for Shop {
    async fn place(&self, article: u64, count: u32) -> Result<u64, Status> {
        self.stock.reserve(article, count).await?;
        Ok(self.orders.fetch_add(1, Ordering::Relaxed))
    }

    async fn find(&self, order: u64) -> Result<String, Status> {
        match order % 100 {
            0 => Err(Status::not_found(format!("there is no order {order}"))),
            1 => {
                sleep(Duration::from_millis(60)).await;
                Ok(format!("order {order}, from the archive"))
            }
            _ => Ok(format!("order {order}")),
        }
    }
}

/// A server of stock, of which one is worse than the others.
struct Shelf {
    is_bad: bool,
}

impl Stock for Shelf {
    async fn reserve(&self, article: u64, count: u32) -> Result<u32, Status> {
        sleep(Duration::from_micros(500 + article % 1500)).await;
        match self.is_bad && article.is_multiple_of(4) {
            true => Err(Status::unavailable("the shelf is being refilled")),
            false => Ok(count),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args()
        .nth(1)
        .map(|text| text.parse())
        .transpose()?;

    let mut addresses = Vec::new();
    for is_bad in [false, false, true] {
        let shelf = StockServer::new(Shelf { is_bad });
        let server = Server::builder().service(shelf).bind("127.0.0.1:0").await?;
        addresses.push(server.target().to_owned());
    }
    let stock = Client::connect(format!("static:{}", addresses.join(",")).as_str()).await?;
    let shop = Shop {
        stock: StockClient::new(stock.clone()),
        orders: AtomicU64::new(0),
    };
    let server = Server::builder()
        .service(OrdersServer::new(shop))
        .bind("127.0.0.1:0")
        .await?;

    let drained = Arc::new(Notify::new());
    let drain = Arc::clone(&drained);
    let address = LivePage::new("shop")
        .version(env!("CARGO_PKG_VERSION"))
        .server("orders", server.raw())
        .client("stock", stock.raw())
        .slow_call(Duration::from_millis(50))
        .on_drain(move || drain.notify_one())
        .listen("127.0.0.1:0")
        .await?;
    let page = format!("http://{address}/live");
    println!("{page}");

    for caller in 0..8 {
        let orders = OrdersClient::connect(server.target()).await?;
        tokio::spawn(async move {
            for turn in (caller..).step_by(8) {
                // Some of these calls fail, which is what the page is for.
                let _ = orders.place(turn, 1).await;
                let _ = orders.find(turn).await;
            }
        });
    }

    let Some(seconds) = seconds else {
        sleep(Duration::from_secs(3)).await;
        println!("{}", as_text(&address.to_string()).await?);
        return Ok(());
    };
    open(&page);
    let end = async {
        tokio::select! {
            () = sleep(Duration::from_secs(seconds)) => {}
            () = drained.notified() => println!("draining"),
        }
    };
    server.serve_until(end, Duration::from_secs(5)).await;
    Ok(())
}

/// Does what `curl` does.
async fn as_text(address: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let (_, text) = reply.split_once("\r\n\r\n").ok_or("no body")?;
    Ok(text.to_owned())
}

/// Opens the page in the browser of the desktop, if there is one.
fn open(page: &str) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let opened = Command::new(program)
        .arg(page)
        .stderr(Stdio::null())
        .spawn();
    if opened.is_err() {
        println!("open the page in a browser");
    }
}
