//! Limits on numbers and sizes.

use iip_gateway::Limits;
use tokio::io::AsyncWriteExt;

use crate::common::{Backend, Http, all_run, ask, before, bound, get, post, until};

#[tokio::test]
async fn connections_of_one_address_are_limited_unless_it_is_trusted() {
    let backend = Backend::new().await;
    let limits = Limits::new().max_connections_per_address(2);
    let builder = before(&backend).limits(limits);
    for (builder, trusted) in [
        (builder.clone(), false),
        (builder.trust("127.0.0.0/8".parse().unwrap()), true),
    ] {
        let (gateway, address) = bound(builder).await;
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut http = Http::connect(address).await;
            http.send(get("/echo")).await;
            assert_eq!(http.reply().await.status, 200);
            kept.push(http);
        }
        let mut third = Http::connect(address).await;
        third.send(get("/echo")).await;
        assert_eq!(third.try_reply().await.is_some(), trusted);
        kept.clear();
        drop(third);
        until("their ends", || gateway.connections() == 0).await;
        assert_eq!(ask(address, get("/echo")).await.status, 200);
    }
}

#[tokio::test]
async fn connections_are_limited_together() {
    let backend = Backend::new().await;
    let limits = Limits::new().max_connections(1);
    let (gateway, address) = bound(before(&backend).limits(limits)).await;
    let first = Http::connect(address).await;
    until("the first", || gateway.connections() == 1).await;
    let mut second = Http::connect(address).await;
    assert!(second.closed().await.is_empty());
    drop(first);
    until("its end", || gateway.connections() == 0).await;
    assert_eq!(ask(address, get("/echo")).await.status, 200);
}

#[tokio::test]
async fn bodies_are_limited_before_and_while_they_arrive() {
    let backend = Backend::new().await;
    let limits = Limits::new()
        .max_body_bytes(100_000)
        .max_buffered_bytes(100_000);
    let (_gateway, address) = bound(before(&backend).limits(limits)).await;
    let fits = "x".repeat(100_000);
    assert_eq!(ask(address, post("/echo", &fits)).await.body, fits);
    assert_eq!(backend.seen().len(), 1);

    let announced = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n";
    assert_eq!(ask(address, announced).await.status, 413);
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, "x".repeat(50_000));
    let chunked = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}"
    );
    assert_eq!(ask(address, chunked).await.status, 413);
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test]
async fn a_client_that_still_sends_gets_the_reply_of_a_refused_request() {
    let backend = Backend::new().await;
    let limits = Limits::new().max_body_bytes(1000);
    let (gateway, address) = bound(before(&backend).limits(limits)).await;
    for _ in 0..3 {
        let mut http = Http::connect(address).await;
        http.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
            .await;
        for _ in 0..20 {
            // It fails once the gateway has answered with a reset.
            let part = "x".repeat(10_000);
            http.stream.write_all(part.as_bytes()).await.unwrap();
            all_run().await;
        }
        assert_eq!(http.reply().await.status, 413);
        assert!(http.closed().await.is_empty());
    }
    until("all ends", || gateway.connections() == 0).await;
}

#[tokio::test]
async fn bodies_are_limited_together() {
    let backend = Backend::new().await;
    let limits = Limits::new().max_buffered_bytes(100_000);
    let (_gateway, address) = bound(before(&backend).limits(limits)).await;
    let reply = ask(address, post("/echo", &"x".repeat(300_000))).await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("max_buffered_bytes"), "{}", reply.body);
    // The memory of the bodies has been released.
    let small = "x".repeat(64 << 10);
    assert_eq!(ask(address, post("/echo", &small)).await.body, small);
}
