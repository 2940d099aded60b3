//! One-way calls that publish, and subscriptions that continue after a restart of the server.
//!
//! ```text
//! 1: rain
//! 2: sun
//! the server is restarted
//! 2 reports are missing
//! 5: wind
//! 6: snow
//! ```

use std::time::Duration;

use iip_rpc::{Client, Server, Status, Subscription, Topic, Update, service};

/// Reports of the weather.
#[service]
pub trait Weather {
    /// Publishes a report; the caller does not wait for it.
    #[rpc(oneway)]
    async fn report(&self, text: String) -> Result<(), Status>;

    /// Returns all reports from now on.
    async fn reports(&self) -> Result<Subscription<String>, Status>;
}

struct Station(Topic<String>);

impl Weather for Station {
    async fn report(&self, text: String) -> Result<(), Status> {
        self.0.publish(text).await;
        Ok(())
    }

    async fn reports(&self) -> Result<Subscription<String>, Status> {
        Ok(self.0.subscribe())
    }
}

async fn start(topic: &Topic<String>, target: &str) -> std::io::Result<Server> {
    let station = WeatherServer::new(Station(topic.clone()));
    Server::builder().service(station).bind(target).await
}

async fn show(reports: &mut Subscription<String>) -> Result<(), Status> {
    match reports.next().await {
        Some(Ok(Update::Value { sequence, value })) => println!("{sequence}: {value}"),
        Some(Ok(Update::Gap(gap))) => match gap.missed {
            Some(missed) => println!("{missed} reports are missing"),
            None => println!("the station is a new one"),
        },
        Some(Err(status)) => return Err(status),
        None => println!("the station is closed"),
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two reports are kept for subscribers that come back.
    let topic = Topic::<String>::builder().history(2).build();
    let server = start(&topic, "127.0.0.1:0").await?;
    let target = server.target().to_owned();

    let weather = WeatherClient::new(Client::connect(&target).await?);
    let mut reports = weather.reports().await?;
    for text in ["rain", "sun"] {
        weather.report(text.to_owned()).await?;
        show(&mut reports).await?;
    }

    println!("the server is restarted");
    server.shutdown(Duration::from_secs(1)).await;
    for text in ["fog", "hail", "wind", "snow"] {
        topic.publish(text.to_owned()).await;
    }
    let server = start(&topic, &target).await?;
    for _ in 0..3 {
        show(&mut reports).await?;
    }
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
