//! `iq health`.

use iip_rpc::HealthState;
use serde_json::json;

use crate::common::{Fixture, iq};

#[tokio::test]
async fn a_server_that_does_not_serve_fails_the_command() {
    let shop = Fixture::new().await;
    assert_eq!(iq(&["health", &shop.target]).await.data(), "SERVING\n");
    let json = iq(&["health", &shop.target, "shop.Orders", "--json"])
        .await
        .json();
    assert_eq!(
        json,
        [json!({"type": "health", "service": "shop.Orders", "state": "SERVING"})]
    );
    shop.health.set("shop.Orders", HealthState::NotServing);
    let ran = iq(&["health", &shop.target, "shop.Orders"]).await;
    assert_eq!((ran.code, &*ran.out), (Some(1), "NOT_SERVING\n"));
    assert_eq!(ran.err, "error: shop.Orders is not serving\n");
    let unknown = iq(&["health", &shop.target, "nothing"])
        .await
        .failed(64 + 5);
    assert!(unknown.contains("nothing"), "{unknown}");
}

#[tokio::test]
async fn changes_are_watched_until_the_server_shuts_down() {
    let shop = Fixture::new().await;
    shop.health.shut_down();
    let ran = iq(&["health", &shop.target, "--watch"]).await;
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(1), "NOT_SERVING\n"),
        "{}",
        ran.err
    );
}
