//! A service of protobuf messages: prost types in the trait, without serde, protoc and a build
//! script.
//!
//! Run: `cargo run -p iip-examples --example protobuf`
//! Prints: a route, an error of the service's own, and why the same method cannot be called in
//! plain JSON.

use std::time::Duration;

use iip_rpc::{Client, MethodError, Schema, Server, Status, service};
use serde::{Deserialize, Serialize};

/// `message Point { double lat = 1; double lon = 2; }`, written by hand or by `prost-build` from a
/// `.proto` file.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Point {
    /// Degrees north.
    #[prost(double, tag = "1")]
    pub lat: f64,
    /// Degrees east.
    #[prost(double, tag = "2")]
    pub lon: f64,
}

/// `message RouteRequest { Point from = 1; Point to = 2; repeated string avoid = 3; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct RouteRequest {
    /// The start of the route.
    #[prost(message, optional, tag = "1")]
    pub from: Option<Point>,
    /// The end of the route.
    #[prost(message, optional, tag = "2")]
    pub to: Option<Point>,
    /// Areas that the route must avoid.
    #[prost(string, repeated, tag = "3")]
    pub avoid: Vec<String>,
}

/// `message Route { repeated Point points = 1; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Route {
    /// All points on the way.
    #[prost(message, repeated, tag = "1")]
    pub points: Vec<Point>,
}

/// The errors of the service. Errors are serde types in every codec; with protobuf they are sent as
/// JSON.
#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError, Schema)]
pub enum RouteError {
    /// A required field is missing.
    #[error("{0} is missing")]
    Missing(String),
    /// All other failures.
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// Finds routes.
#[service(codec = "protobuf")]
pub trait Routes {
    /// Returns the route from one point to another.
    async fn find(&self, request: &RouteRequest) -> Result<Route, RouteError>;
}

struct Straight;

impl Routes for Straight {
    async fn find(&self, request: &RouteRequest) -> Result<Route, RouteError> {
        let from = request.from.ok_or_else(|| missing("from"))?;
        let to = request.to.ok_or_else(|| missing("to"))?;
        let middle = Point {
            lat: (from.lat + to.lat) / 2.0,
            lon: (from.lon + to.lon) / 2.0,
        };
        let points = vec![from, middle, to];
        Ok(Route { points })
    }
}

fn missing(field: &str) -> RouteError {
    RouteError::Missing(field.to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(RoutesServer::new(Straight))
        .bind("127.0.0.1:0")
        .await?;
    let client = Client::connect(server.target()).await?;
    let routes = RoutesClient::new(client.clone());

    let (from, to) = (
        Point {
            lat: 47.4,
            lon: 8.5,
        },
        Point {
            lat: 46.2,
            lon: 6.1,
        },
    );
    let mut request = RouteRequest {
        from: Some(from),
        to: Some(to),
        avoid: Vec::new(),
    };
    for point in routes.find(&request).await?.points {
        println!("{:.2} {:.2}", point.lat, point.lon);
    }

    request.to = None;
    if let Err(error) = routes.find(&request).await {
        println!("error: {error}");
    }

    let reply = client.raw().request("/routes/find", "{}").await?;
    println!("{}", String::from_utf8_lossy(&reply));
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
