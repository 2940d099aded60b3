//! Operation of a server: health that is watched, metrics of every call, and a shutdown that waits
//! for running calls.
//!
//! ```text
//! Reports is SERVING
//! server Reports.make: OK
//! the report: 30 pages
//! Reports is NOT_SERVING
//! server Reports.make: OK
//! the last report: 40 pages
//! ```

use std::sync::Arc;
use std::time::Duration;

use iip_rpc::observe::{MetricsInterceptor, Recorder, Side};
use iip_rpc::{
    Client, Code, Health, HealthClient, HealthState, MethodDescriptor, Server, Status, service,
};
use tokio::sync::Notify;

/// Makes reports.
#[service]
pub trait Reports {
    /// Takes long.
    async fn make(&self, chapters: u32) -> Result<u32, Status>;
}

/// Notified when a report has begun, so that the shutdown below comes while it runs.
struct Press {
    begun: Arc<Notify>,
}

impl Reports for Press {
    async fn make(&self, chapters: u32) -> Result<u32, Status> {
        self.begun.notify_one();
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(chapters * 10)
    }
}

/// A custom recorder of metrics; `MetricsFacade` passes them to the `metrics` crate.
struct Print;

impl Recorder for Print {
    fn call_ended(&self, side: Side, method: &'static MethodDescriptor, code: Code, _: Duration) {
        println!("{side} {method}: {}", code.name());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (health, begun) = (Health::new(), Arc::new(Notify::new()));
    let press = Press {
        begun: Arc::clone(&begun),
    };
    let server = Server::builder()
        .health(&health)
        .interceptor(MetricsInterceptor::new(Print))
        .service(ReportsServer::new(press))
        .bind("127.0.0.1:0")
        .await?;

    let client = Client::connect(server.target()).await?;
    let mut states = HealthClient::new(client.clone()).watch("Reports").await?;
    show(states.next().await);

    let reports = ReportsClient::new(client);
    println!("the report: {} pages", reports.make(3).await?);
    begun.notified().await;

    let last = tokio::spawn(async move { reports.make(4).await });
    begun.notified().await;
    // Health changes first; the running call has ten seconds to end, and needs a fifth of one.
    let ending = tokio::spawn(async move { server.shutdown(Duration::from_secs(10)).await });
    show(states.next().await);
    println!("the last report: {} pages", last.await??);
    ending.await?;
    Ok(())
}

fn show(state: Option<Result<HealthState, Status>>) {
    match state {
        Some(Ok(HealthState::Serving)) => println!("Reports is SERVING"),
        Some(Ok(HealthState::NotServing)) => println!("Reports is NOT_SERVING"),
        other => println!("Reports: {other:?}"),
    }
}
