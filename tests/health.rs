//! The health of a server and its services, requested and watched over real sockets.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use iip_rpc::interceptor::{Completion, Next, ServerCall, ServerInterceptor};
use iip_rpc::{
    Client, Code, Concurrency, Execution, Health, HealthClient, HealthState, Server, ServerBuilder,
    Status, service,
};
use tokio::sync::mpsc;

use crate::common::calls::{expect, serve, serve_with};
use crate::common::{spawn, within};

#[service]
trait Shop {
    async fn stuck(&self) -> Result<(), Status>;
}

struct Corner(mpsc::UnboundedSender<()>);

impl Shop for Corner {
    async fn stuck(&self) -> Result<(), Status> {
        let _ = self.0.send(());
        std::future::pending().await
    }
}

fn corner() -> (ShopServer<Corner>, mpsc::UnboundedReceiver<()>) {
    let (running, runs) = mpsc::unbounded_channel();
    (ShopServer::new(Corner(running)), runs)
}

async fn serve_health(server: ServerBuilder, health: &Health) -> (Server, HealthClient) {
    let (server, client) = serve_with(corner().0, server.health(health), Client::builder()).await;
    (server, HealthClient::new(client))
}

#[tokio::test]
async fn a_server_and_its_services_are_serving_until_set_otherwise() {
    let health = Health::new();
    let (_server, asked) = serve_health(Server::builder(), &health).await;
    assert_eq!(asked.check("").await.unwrap(), HealthState::Serving);
    assert_eq!(asked.check("Shop").await.unwrap(), HealthState::Serving);
    health.set("Shop", HealthState::NotServing);
    assert_eq!(asked.check("").await.unwrap(), HealthState::Serving);
    assert_eq!(asked.check("Shop").await.unwrap(), HealthState::NotServing);
    let unknown = asked.check("Store").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("\"Store\""), "{unknown}");
}

#[tokio::test]
async fn what_was_set_before_the_server_started_holds() {
    let health = Health::new();
    health.set("Shop", HealthState::NotServing);
    let (_server, asked) = serve_health(Server::builder(), &health).await;
    assert_eq!(asked.check("Shop").await.unwrap(), HealthState::NotServing);
}

#[tokio::test]
async fn a_watcher_of_a_service_gets_every_change() {
    let health = Health::new();
    let (_server, asked) = serve_health(Server::builder(), &health).await;
    let mut shop = asked.watch("Shop").await.unwrap();
    let mut later = asked.watch("Later").await.unwrap();
    assert_eq!(shop.next().await, Some(Ok(HealthState::Serving)));
    assert_eq!(later.next().await, Some(Ok(HealthState::Unknown)));
    // Updates of other services, or without a change, are not sent.
    health.set("", HealthState::NotServing);
    health.set("Shop", HealthState::Serving);
    health.set("Shop", HealthState::NotServing);
    let change = within("the change", shop.next()).await;
    assert_eq!(change, Some(Ok(HealthState::NotServing)));
    health.set("Later", HealthState::Serving);
    let change = within("the change", later.next()).await;
    assert_eq!(change, Some(Ok(HealthState::Serving)));
}

#[tokio::test]
async fn a_server_that_shuts_down_is_not_serving_first_and_does_not_wait_for_watchers() {
    let health = Health::new();
    let (server, asked) = serve_health(Server::builder(), &health).await;
    let mut shop = asked.watch("Shop").await.unwrap();
    assert_eq!(shop.next().await, Some(Ok(HealthState::Serving)));
    let shutdown = spawn(async move { server.shutdown(Duration::from_secs(3600)).await });
    let change = within("the change", shop.next()).await;
    assert_eq!(change, Some(Ok(HealthState::NotServing)));
    assert_eq!(within("the end", shop.next()).await, None);
    within("the shutdown", shutdown).await.unwrap();
    health.set("Shop", HealthState::Serving);
    assert_eq!(health.state("Shop"), Some(HealthState::NotServing));
}

/// An interceptor that rejects every call.
struct Closed;

impl ServerInterceptor for Closed {
    async fn intercept(&self, _: ServerCall, _: Next<ServerCall>) -> Result<Completion, Status> {
        Err(Status::permission_denied("closed"))
    }
}

#[tokio::test]
async fn limits_and_interceptors_do_not_apply_to_health() {
    let health = Health::new();
    let (service, mut runs) = corner();
    let server = Server::builder()
        .health(&health)
        .max_concurrency(Concurrency::AtMost(1));
    let (_server, client) = serve_with(service, server, Client::builder()).await;
    let shop = ShopClient::new(client.clone());
    let stuck = spawn(async move { shop.stuck().await });
    within("the call", runs.recv()).await.unwrap();
    let asked = HealthClient::new(client);
    assert_eq!(asked.check("").await.unwrap(), HealthState::Serving);
    assert_eq!(asked.check("Shop").await.unwrap(), HealthState::Serving);
    stuck.abort();

    let closed = Server::builder().interceptor(Closed);
    let (_server, asked) = serve_health(closed, &Health::new()).await;
    assert_eq!(asked.check("").await.unwrap(), HealthState::Serving);
}

#[tokio::test]
async fn a_server_without_the_health_service_reports_unimplemented() {
    let (_server, client) = serve(corner().0).await;
    let status = HealthClient::new(client).check("").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn plain_json_gets_a_reply_in_plain_json() {
    let (_server, client) = serve_with(
        corner().0,
        Server::builder().health(&Health::new()),
        Client::builder(),
    )
    .await;
    let call = client
        .raw()
        .request("/sys/health/check", r#"{"service":"Shop"}"#);
    assert_eq!(call.await.unwrap(), r#""SERVING""#);
}

#[tokio::test]
async fn watches_do_not_count_as_calls_and_have_their_own_limits() {
    let (service, mut runs) = corner();
    let server = Server::builder()
        .health(&Health::new())
        .max_running_calls(2)
        .max_health_watches(5)
        .max_health_watches_per_connection(3);
    let (server, client) = serve_with(service, server, Client::builder()).await;
    let asked = HealthClient::new(client.clone());
    let other = HealthClient::new(Client::connect(server.target()).await.unwrap());
    let rejected = async |asked: &HealthClient, option: &str| {
        let watch = within("a rejection", asked.watch("")).await;
        let status = match watch {
            Ok(mut watch) => watch.next().await.unwrap().unwrap_err(),
            Err(status) => status,
        };
        expect(&status, Code::ResourceExhausted, Execution::NotExecuted);
        assert!(status.message().contains(option), "{status}");
    };
    let begun = async |asked: &HealthClient| {
        let mut watch = within("a watch", asked.watch("")).await.unwrap();
        assert_eq!(watch.next().await, Some(Ok(HealthState::Serving)));
        watch
    };
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(begun(&asked).await);
    }
    rejected(&asked, "(option max_health_watches_per_connection)").await;
    for _ in 0..2 {
        watches.push(begun(&other).await);
    }
    rejected(&other, "(option max_health_watches)").await;
    // The call limit is reached, and the health service still replies.
    let shop = ShopClient::new(client);
    for _ in 0..2 {
        let shop = shop.clone();
        spawn(async move { shop.stuck().await });
        within("the call runs", runs.recv()).await;
    }
    assert_eq!(
        shop.stuck().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    assert_eq!(asked.check("").await.unwrap(), HealthState::Serving);
    // Capacity that becomes free is used again.
    watches.swap_remove(0);
    let again = async {
        loop {
            let mut watch = asked.watch("").await;
            if let Ok(watch) = &mut watch
                && let Some(Ok(_)) = watch.next().await
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within("a watch again", again).await;
}
