//! Snapshots and changes.

use std::time::{Duration, Instant};

use iip_discovery_etcd::Etcd;
use serde_json::{Value, json};

use crate::common::etcd::{EtcdServer, blob, key};
use crate::common::fake::{Fake, Proxy, Reply};
use crate::common::{PREFIX, Watching, builder, eventually, ids_of};

#[tokio::test]
async fn the_servers_and_their_changes_are_delivered() {
    let server = EtcdServer::start().await;
    server.add("b").await;
    let other = json!({"key": blob("/services/orders2/x"), "value": blob("10.0.0.1:1#1")});
    server.request("/v3/kv/put", &other).await;
    let etcd = Etcd::new([format!("127.0.0.1:{}", server.port)], PREFIX).unwrap();
    let mut watching = Watching::new(&etcd);
    let first = watching.snapshot().await;
    assert_eq!(ids_of(&first), ["b"]);
    assert_eq!(first.revision, "3");

    let json = r#"{"address":"10.0.0.2:7000","weight":3,"zone":"z","metadata":{"rack":"7"}}"#;
    server.put("a", json).await;
    let snapshot = watching.until(&["a", "b"]).await;
    let info = &snapshot.backends[0];
    assert_eq!(
        (&*info.id, info.weight, info.zone.as_deref()),
        ("a", 3, Some("z"))
    );
    assert_eq!(info.metadata[0], ("rack".to_owned(), "7".to_owned()));
    assert_eq!(snapshot.revision, "4");

    server.put("b", "10.0.0.9:7000#5").await;
    let snapshot = watching.until(&["a", "b"]).await;
    assert_eq!(snapshot.backends[1].endpoint.to_string(), "10.0.0.9:7000");
    server.delete("a").await;
    watching.until(&["b"]).await;
    server.delete("b").await;
    watching.until(&[]).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_does_not_hide_the_others() {
    let server = EtcdServer::start().await;
    server.add("good").await;
    for (id, value) in [
        ("empty", "".as_bytes()),
        ("json", b"{\"adress\":\"10.0.0.1:7000\"}"),
        ("list", b"10.0.0.1:1#1,10.0.0.1:2#1"),
        ("bytes", b"\x00\xff\x1b[2J"),
        ("long", &[b'x'; 1_000_000]),
        ("deep", &[b'['; 50_000]),
        ("deeper", "{\"metadata\":".repeat(5_000).as_bytes()),
    ] {
        server.put(id, value).await;
    }
    let not_utf8 = [PREFIX.as_bytes(), b"/\xff"].concat();
    let body = json!({"key": blob(not_utf8), "value": blob("10.0.0.1:1#1")});
    server.request("/v3/kv/put", &body).await;
    server.put("", "10.0.0.1:1#1").await;
    let mut watching = Watching::new(&builder(&[server.port]).build().unwrap());
    assert_eq!(ids_of(&watching.snapshot().await), ["good"]);
    // The same as events.
    server.put("bytes", b"\x00\x01").await;
    server.put("json", "10.0.0.1:7000#1").await;
    watching.until(&["good", "json"]).await;
    server.put("json", "?").await;
    watching.until(&["good"]).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn more_keys_than_a_page_are_all_found() {
    let server = EtcdServer::start().await;
    let ids: Vec<String> = (0..2500)
        .map(|number| format!("server-{number:05}"))
        .collect();
    for chunk in ids.chunks(100) {
        let puts: Vec<Value> = chunk
            .iter()
            .map(|id| json!({"request_put": {"key": key(id), "value": blob("10.0.0.1:1#1")}}))
            .collect();
        server
            .request("/v3/kv/txn", &json!({"success": puts}))
            .await;
    }
    let mut watching = Watching::new(&builder(&[server.port]).build().unwrap());
    assert_eq!(ids_of(&watching.snapshot().await), ids);
}

#[tokio::test]
async fn dead_members_are_passed_over() {
    let server = EtcdServer::start().await;
    server.add("a").await;
    // One that refuses connections, and one that never answers.
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = refusing.local_addr().unwrap().port();
    drop(refusing);
    let silent = Fake::start(|_, _| Reply::Hold(Vec::new())).await;
    // The first member is random.
    for _ in 0..6 {
        let etcd = builder(&[refused, silent.port, server.port])
            .request_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let mut watching = Watching::new(&etcd);
        assert_eq!(ids_of(&watching.snapshot().await), ["a"]);
        assert!(watching.errors.is_empty(), "{:?}", watching.errors);
    }
}

#[tokio::test]
async fn a_watch_whose_connection_is_dead_without_a_notice_is_replaced() {
    let server = EtcdServer::start().await;
    server.add("a").await;
    let proxy = Proxy::start(server.port).await;
    let etcd = builder(&[proxy.port])
        .status_interval(Duration::from_millis(300))
        .stale_after(Duration::from_millis(300))
        .request_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    watching.until(&["a"]).await;
    for (change, ids) in [("b", ["a", "b"].as_slice()), ("c", &["a", "b", "c"])] {
        // An event proves that the watch is there.
        server.put("probe", change).await;
        proxy.freeze();
        server.add(change).await;
        let start = Instant::now();
        watching.until(ids).await;
        println!(
            "the change after a dead connection is seen after {:?}",
            start.elapsed()
        );
    }
    proxy.freeze();
    server.delete("b").await;
    watching.until(&["a", "c"]).await;
}

#[tokio::test]
async fn changes_of_other_keys_do_not_replace_the_watch() {
    let server = EtcdServer::start().await;
    server.add("a").await;
    let proxy = Proxy::start(server.port).await;
    let etcd = builder(&[proxy.port])
        .status_interval(Duration::from_millis(50))
        .stale_after(Duration::from_millis(50))
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    let first = watching.until(&["a"]).await;
    let start = Instant::now();
    eventually("half a second of changes", || async {
        let body = json!({"key": blob("/other"), "value": ""});
        server.request("/v3/kv/put", &body).await;
        start.elapsed() > Duration::from_millis(500)
    })
    .await;
    // A range would have delivered the revision of the other keys.
    server.add("b").await;
    let snapshot = watching.until(&["a", "b"]).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
    assert_ne!(first.revision, snapshot.revision);
    assert_eq!(proxy.watches(), 1);
}

#[tokio::test]
async fn the_task_of_a_watch_ends_with_its_stream() {
    let fake = Fake::start(|_, _| Reply::Hold(Vec::new())).await;
    let etcd = builder(&[fake.port]).build().unwrap();
    let watching = Watching::new(&etcd);
    eventually("a request", || async { fake.requests() == 1 }).await;
    drop(watching);
    drop(etcd);
    eventually("the connection is closed", || async { fake.closed() == 1 }).await;
}
