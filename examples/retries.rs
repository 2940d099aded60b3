//! Retries and hedges, and the pushback of a server that prevents them.
//!
//! Run: `cargo run --example retries`
//! Prints: that an idempotent call succeeded at its third attempt and another method's had no
//! second one; that the second attempt of a call that hung succeeded; how long the client waited
//! for the pause of the server; that it did not retry when the server forbade it; and that a call
//! which a server at capacity rejected was retried by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use iip_rpc::{Client, RetryBudget, RetryPolicy, Server, Status, service};

/// A service with failures. Every method returns the number of its attempt.
#[service]
pub trait Weather {
    /// Fails twice. Looking twice does no harm: the call is retried although it may have run.
    #[rpc(idempotent)]
    async fn look(&self) -> Result<u32, Status>;

    /// Fails once, and is not retried: it may have run.
    async fn report(&self) -> Result<u32, Status>;

    /// Hangs at first. Without a reply after 30 ms a second attempt is made; the first reply
    /// counts.
    #[rpc(idempotent, hedge = "30ms")]
    async fn forecast(&self) -> Result<u32, Status>;

    /// Asks its caller to retry later.
    #[rpc(idempotent)]
    async fn satellite(&self) -> Result<u32, Status>;

    /// Asks its caller not to retry.
    #[rpc(idempotent)]
    async fn radar(&self) -> Result<u32, Status>;

    /// Runs one call at a time: further calls are rejected before they run.
    #[rpc(max_concurrency = 1)]
    async fn balloon(&self) -> Result<u32, Status>;
}

#[derive(Default)]
struct Station {
    attempts: [AtomicU32; 6],
}

impl Station {
    fn attempt(&self, method: usize) -> u32 {
        self.attempts[method].fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl Weather for Station {
    async fn look(&self) -> Result<u32, Status> {
        match self.attempt(0) {
            attempt @ 3.. => Ok(attempt),
            _ => Err(Status::unavailable("fog")),
        }
    }

    async fn report(&self) -> Result<u32, Status> {
        match self.attempt(1) {
            attempt @ 2.. => Ok(attempt),
            _ => Err(Status::unavailable("fog")),
        }
    }

    async fn forecast(&self) -> Result<u32, Status> {
        match self.attempt(2) {
            attempt @ 2.. => Ok(attempt),
            _ => std::future::pending().await,
        }
    }

    async fn satellite(&self) -> Result<u32, Status> {
        match self.attempt(3) {
            attempt @ 2.. => Ok(attempt),
            _ => Err(Status::unavailable("behind the horizon")
                .with_retry_after(Duration::from_millis(100))),
        }
    }

    async fn radar(&self) -> Result<u32, Status> {
        self.attempt(4);
        Err(Status::unavailable("dismantled").with_no_retry())
    }

    async fn balloon(&self) -> Result<u32, Status> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(self.attempt(5))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let station = Arc::new(Station::default());
    let server = Server::builder()
        .service(WeatherServer::from_arc(Arc::clone(&station)))
        .bind("127.0.0.1:0")
        .await?;

    // These are the defaults and could be left out.
    let client = Client::builder()
        .retry(RetryPolicy::new().max_attempts(3))
        .retry_budget(RetryBudget::new().token_ratio(0.1).max_tokens(100))
        .connect(server.target())
        .await?;
    let weather = WeatherClient::new(client);

    println!("look: attempt {}", weather.look().await?);
    let Err(status) = weather.report().await else {
        return Err("the report went through".into());
    };
    println!("report: {}, {}", status.code(), status.execution());

    println!("forecast: attempt {}", weather.forecast().await?);

    let begun = Instant::now();
    println!("satellite: attempt {}", weather.satellite().await?);
    println!(
        "satellite: 100 ms later: {}",
        begun.elapsed().as_millis() >= 100
    );

    let Err(status) = weather.radar().await else {
        return Err("the radar replied".into());
    };
    let attempts = station.attempts[4].load(Ordering::SeqCst);
    println!("radar: {}, attempts: {attempts}", status.message());

    // One of these is rejected: it has not run, and is retried at the time that the server states.
    let (one, other) = tokio::join!(weather.balloon(), weather.balloon());
    println!("balloon: {} flights", one?.max(other?));

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
