//! `iq call` with streams and subscriptions.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{Fixture, GUARD, Home, Ran, iq, json_lines};

#[tokio::test]
async fn messages_of_a_server_are_a_line_each() {
    let shop = Fixture::new().await;
    let list = iq(&["call", &shop.target, "shop.Orders.list", "count=3"]).await;
    let orders = json_lines(&list.data());
    let ids: Vec<_> = orders
        .iter()
        .map(|order| order["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, 2, 3]);
    let limited = [
        "call",
        &shop.target,
        "shop.Orders.list",
        "count=1000000",
        "-n",
        "2",
        "--json",
    ];
    let items = iq(&limited).await.json();
    let first =
        json!({"type": "item", "value": {"id": 1, "colour": "Green", "tags": [], "note": null}});
    assert_eq!((items.len(), &items[0]), (2, &first));
    let refused = iq(&["call", &shop.target, "shop.Orders.list", "count=0"]).await;
    assert!(refused.failed(66).contains("{\"SoldOut\":{\"day\":1}}"));
}

#[tokio::test]
async fn values_of_a_subscription_have_their_numbers() {
    let shop = Fixture::new().await;
    for price in [320, 321, 322] {
        shop.prices.publish(price).await;
    }
    let watch = iq(&["call", &shop.target, "shop.Orders.watch", "-n", "2", "-v"]).await;
    assert_eq!(
        (watch.code, &*watch.out),
        (Some(0), "320\n321\n"),
        "{}",
        watch.err
    );
    let (_, position) = watch.err.split_once("--resume ").unwrap();
    let position = position.lines().next().unwrap();
    let resumed = [
        "call",
        &shop.target,
        "shop.Orders.watch",
        "-n",
        "1",
        "--json",
        "--resume",
        position,
    ];
    let items = iq(&resumed).await.json();
    let last = json!({
        "type": "item",
        "sequence": 3,
        "position": items[0]["position"],
        "value": 322,
    });
    assert_eq!(items, [last]);

    let from_start = [
        "call",
        &shop.target,
        "shop.Orders.watch",
        "-n",
        "1",
        "--json",
    ];
    let first = iq(&from_start).await.json();
    let position = first[0]["position"].as_str().unwrap();
    let resumed = [
        "call",
        &shop.target,
        "shop.Orders.watch",
        "-n",
        "1",
        "--resume",
        position,
    ];
    assert_eq!(iq(&resumed).await.data(), "321\n");
}

#[tokio::test]
async fn a_subscription_that_fails_tells_where_to_go_on() {
    let (shop, home) = (Fixture::new().await, Home::new());
    shop.prices.publish(320).await;
    let mut command = home.command();
    command.args(["call", &shop.target, "shop.Orders.watch", "-v"]);
    command
        .stdout(std::fs::File::create("/dev/full").unwrap())
        .stderr(Stdio::piped());
    let ended = tokio::time::timeout(GUARD, command.spawn().unwrap().wait_with_output()).await;
    let ran = Ran::new(ended.unwrap().unwrap());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    // The value that could not be printed is the next.
    assert_eq!(next_value(&shop, &ran.err).await, "320\n");
}

/// Returns the next value after the position in the details of a subscription.
async fn next_value(shop: &Fixture, details: &str) -> String {
    let (_, position) = details.split_once("--resume ").expect(details);
    let position = position.lines().next().unwrap();
    let resume = ["--resume", position, "-n", "1"];
    iq(&[&["call", &shop.target, "shop.Orders.watch"], &resume[..]].concat())
        .await
        .data()
}

#[tokio::test]
async fn a_subscription_goes_on_until_it_is_interrupted() {
    let (shop, home) = (Fixture::new().await, Home::new());
    shop.prices.publish(7).await;
    let mut command = home.command();
    command.args(["call", &shop.target, "shop.Orders.watch", "-v"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        tokio::time::timeout(GUARD, lines.next_line())
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(next().await.as_deref(), Some("7"));
    shop.prices.publish(8).await;
    assert_eq!(next().await.as_deref(), Some("8"));
    interrupt(child.id().unwrap());
    let ended = tokio::time::timeout(GUARD, child.wait_with_output()).await;
    let ran = Ran::new(ended.unwrap().unwrap());
    assert_eq!(ran.code, Some(130));
    shop.prices.publish(9).await;
    assert_eq!(next_value(&shop, &ran.err).await, "9\n");
}

pub(crate) fn interrupt(process: u32) {
    let kill = std::process::Command::new("kill")
        .args(["-INT", &process.to_string()])
        .status();
    assert!(kill.unwrap().success());
}

#[tokio::test]
async fn messages_to_a_server_are_lines_of_stdin() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let sum = ["call", &shop.target, "shop.Orders.sum", "factor=10"];
    assert_eq!(home.iq_with(&sum, "1\n 2 \n\n3").await.data(), "60\n");
    let doubled = ["call", &shop.target, "shop.Orders.doubled"];
    assert_eq!(home.iq_with(&doubled, "1\n2\n").await.data(), "2\n4\n");
    assert_eq!(home.iq_with(&sum, "\"5\"").await.data(), "50\n");
    let most = format!("{{\"n\":{}}}", u64::MAX);
    for (line, reason) in [
        (
            "\"x\"",
            "expected an integer of the type u64, found the text \"x\"",
        ),
        ("x", "expected value (column 1)"),
        (
            "18446744073709551616",
            "expected an integer of the type u64, found a number of more than 64 bits",
        ),
        (&*most, "expected an integer, found an object"),
        ("{\"n\":1,\"n\":2}", "`n` is given twice (column 10)"),
    ] {
        let wrong = home.iq_with(&sum, &format!("1\n{line}\n")).await.failed(2);
        assert_eq!(wrong, format!("error: stdin, line 2: {reason}\n"));
        let mixed = home.iq_with(&doubled, &format!("1\n{line}\n")).await;
        assert_eq!((mixed.code, &*mixed.err), (Some(2), &*wrong));
    }
    let stdin = ["call", &shop.target, "shop.Orders.sum", "-"];
    assert!(
        home.iq_with(&stdin, "{\"factor\":1}")
            .await
            .failed(2)
            .contains("stdin")
    );
}
