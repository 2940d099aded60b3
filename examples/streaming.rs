//! Streams of messages: from the server, to the server, and both at a time.

use std::time::Duration;

use iip_rpc::{Client, Server, Status, Stream, Streaming, service};

/// A weather station.
#[service]
pub trait Weather {
    /// Returns the temperatures of the next hours.
    async fn forecast(&self, hours: u32)
    -> Result<impl Stream<Item = Result<i32, Status>>, Status>;

    /// Takes measurements; returns their average.
    async fn average(&self, measured: Streaming<i32>) -> Result<f64, Status>;

    /// Returns for every measurement its difference from the one before.
    async fn changes(
        &self,
        measured: Streaming<i32>,
    ) -> Result<impl Stream<Item = Result<i32, Status>>, Status>;
}

struct Station;

impl Weather for Station {
    async fn forecast(
        &self,
        hours: u32,
    ) -> Result<impl Stream<Item = Result<i32, Status>>, Status> {
        if hours > 240 {
            return Err(Status::out_of_range("nobody knows the weather in ten days"));
        }
        Ok(Streaming::iter((0..hours).map(|hour| {
            let hour = f64::from(hour);
            (15.0 + 8.0 * (hour / 24.0 * std::f64::consts::TAU).sin()) as i32
        })))
    }

    async fn average(&self, mut measured: Streaming<i32>) -> Result<f64, Status> {
        let (mut sum, mut count) = (0.0, 0);
        while let Some(degrees) = measured.next().await {
            // A caller that goes away in the middle causes an error here, not the end.
            sum += f64::from(degrees?);
            count += 1;
        }
        if count == 0 {
            return Err(Status::invalid_argument("nothing was measured"));
        }
        Ok(sum / f64::from(count))
    }

    async fn changes(
        &self,
        mut measured: Streaming<i32>,
    ) -> Result<impl Stream<Item = Result<i32, Status>>, Status> {
        // A channel, where a stream is easier to write as a task.
        let (sender, changes) = Streaming::channel(16);
        tokio::spawn(async move {
            let mut last = None;
            while let Some(degrees) = measured.next().await {
                let degrees = match degrees {
                    Ok(degrees) => degrees,
                    Err(status) => return sender.fail(status).await,
                };
                if sender
                    .send(degrees - last.unwrap_or(degrees))
                    .await
                    .is_err()
                {
                    // The caller no longer reads.
                    return;
                }
                last = Some(degrees);
            }
            sender.finish();
        });
        Ok(changes)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(WeatherServer::new(Station))
        .bind("127.0.0.1:0")
        .await?;
    let weather = WeatherClient::new(Client::connect(server.target()).await?);

    let mut forecast = weather.forecast(6).await?;
    while let Some(degrees) = forecast.next().await {
        println!("forecast: {} degrees", degrees?);
    }

    let average = weather.average(Streaming::iter([12, 14, 19])).await?;
    println!("average: {average} degrees");

    let (sender, measured) = Streaming::channel(16);
    let mut changes = weather.changes(measured).await?;
    for degrees in [12, 14, 11] {
        // The stream continues while we decide what to send next.
        if sender.send(degrees).await.is_err() {
            break;
        }
        if let Some(change) = changes.next().await {
            println!("change: {} degrees", change?);
        }
    }
    sender.finish();

    // A stream can fail before it begins.
    if let Err(status) = weather.forecast(1000).await {
        println!("rejected: {status}");
    }
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
