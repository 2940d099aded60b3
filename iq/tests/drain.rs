//! `iq drain`.

use std::sync::Arc;
use std::time::Duration;

use iip_gateway::Http;
use iip_gateway::live::LivePage;
use iip_rpc::{Client, ServerBuilder};
use serde_json::json;
use tokio::sync::Notify;

use crate::common::{Event, Fixture, GUARD, Orders, OrdersClient, iq};

/// A limit that is never reached.
const LONG: Duration = Duration::from_secs(600);

fn allowed(server: ServerBuilder) -> ServerBuilder {
    server.drain_on_request(LONG, |peer| peer.addr().is_some())
}

/// Starts a call that never ends by itself.
async fn call_forever(shop: &mut Fixture) -> tokio::task::JoinHandle<()> {
    let client = Client::builder().timeout(LONG).connect(&*shop.target).await;
    let orders = OrdersClient::new(client.unwrap());
    let call = tokio::spawn(async move { drop(orders.forever().await) });
    assert_eq!(shop.event().await, Event::Begun);
    call
}

#[tokio::test]
async fn a_server_is_drained_until_it_has_ended() {
    let mut shop = Fixture::with(allowed).await;
    let call = call_forever(&mut shop).await;
    let draining = {
        let target = shop.target.clone();
        tokio::spawn(async move { iq(&["drain", &target, "--json", "--wait", "1h"]).await })
    };
    // The command has started the drain.
    while shop.server.is_ready() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    call.abort();
    let ended = tokio::time::timeout(GUARD, shop.server.stopped()).await;
    ended.expect("an end in time");
    let ran = draining.await.unwrap();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines = crate::common::json_lines(&ran.out);
    assert_eq!(
        lines,
        [
            json!({"type": "drain", "state": "draining", "calls": 1, "limit_ms": 600_000}),
            json!({"type": "drain", "state": "ended"}),
        ]
    );
}

#[tokio::test]
async fn a_server_that_has_not_ended_in_time_fails_the_command_and_drains_on() {
    let mut shop = Fixture::with(allowed).await;
    let call = call_forever(&mut shop).await;
    let ran = iq(&["drain", &shop.target, "--wait", "100ms"]).await;
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(1), "draining: 1 running call, for at most 600s\n")
    );
    let expected = "error: not ended within 100ms (option --wait): 1 running call\n";
    assert!(ran.err.ends_with(expected), "{}", ran.err);
    assert!(!shop.server.is_ready());
    let error = iq(&["drain", &shop.target]).await.failed(3);
    assert!(error.contains("a server that drains already"), "{error}");
    call.abort();
    let ended = tokio::time::timeout(GUARD, shop.server.stopped()).await;
    ended.expect("an end in time");
}

#[tokio::test]
async fn a_server_that_cuts_calls_off_fails_the_command() {
    let limit = Duration::from_millis(200);
    let mut shop = Fixture::with(|server| server.drain_on_request(limit, |_| true)).await;
    let call = call_forever(&mut shop).await;
    let ran = iq(&["drain", &shop.target]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let expected = "error: 1 call was cut off when the connection ended\n";
    assert!(ran.err.ends_with(expected), "{}", ran.err);
    call.await.unwrap();
}

#[tokio::test]
async fn nobody_waits_if_nobody_wants_to() {
    let shop = Fixture::with(allowed).await;
    let begun = iq(&["drain", &shop.target, "--no-wait"]).await.data();
    assert_eq!(begun, "draining: no running calls, for at most 600s\n");
    let ended = tokio::time::timeout(GUARD, shop.server.stopped()).await;
    ended.expect("an end in time");
}

#[tokio::test]
async fn a_server_that_may_not_be_drained_says_so() {
    let shop = Fixture::new().await;
    let error = iq(&["drain", &shop.target]).await.failed(64 + 12);
    assert!(error.contains("(option drain_on_request)"), "{error}");
    let shop = Fixture::with(|server| server.drain_on_request(LONG, |_| false)).await;
    let error = iq(&["drain", &shop.target]).await.failed(64 + 7);
    assert!(error.contains("this peer may not drain"), "{error}");
    assert!(shop.server.is_ready());
    let several = format!("static:{0},{0}", shop.target);
    let error = iq(&["drain", &several]).await.failed(2);
    assert!(error.contains("name one"), "{error}");
    iq(&["drain", "127.0.0.1:1"]).await.failed(3);
}

#[tokio::test]
async fn the_button_of_a_live_page_is_pressed() {
    let asked = Arc::new(Notify::new());
    let drain = Arc::clone(&asked);
    let page = LivePage::new("shop").allow(|_| true);
    let page = page.on_drain(move || drain.notify_one()).start();
    let shop = Fixture::with(|server| server.fallback_protocol(Http::new().live(&page))).await;
    page.add_server("orders", shop.server.raw());
    let target = format!("http://{}", shop.target);
    let serving = tokio::spawn(async move {
        let server = shop.server;
        server.serve_until(asked.notified(), LONG).await;
    });
    let ran = iq(&["drain", &target, "--wait", "1h"]).await;
    assert_eq!(ran.data(), "draining: no running calls\nended\n");
    let ended = tokio::time::timeout(GUARD, serving).await;
    ended.expect("an end in time").unwrap();
    iq(&["drain", &target]).await.failed(3);
}

#[tokio::test]
async fn a_live_page_without_the_button_says_so() {
    let page = LivePage::new("shop").listen("127.0.0.1:0").await.unwrap();
    let target = format!("http://{page}/live");
    let error = iq(&["drain", &target]).await.failed(64 + 12);
    assert!(
        error.contains("no drain button (option on_drain"),
        "{error}"
    );
}
