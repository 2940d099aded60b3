//! Servers of etcd that fail and come back.

use std::time::{Duration, Instant};

use iip_core::discover::Register;

use crate::common::etcd::EtcdServer;
use crate::common::{Watching, builder, ids_of, info};

/// Adds a server, and prints how long it takes until it is seen. How long that may be is tested
/// where it does not depend on the load of the machine: pauses have a maximum.
async fn add_and_see(server: &EtcdServer, watching: &mut Watching, id: &str, ids: &[&str]) {
    server.add(id).await;
    let start = Instant::now();
    watching.until(ids).await;
    println!(
        "the server that was added after recovery is seen after {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_killed_server_with_its_data_is_found_again() {
    let mut server = EtcdServer::start().await;
    server.add("a").await;
    let etcd = builder(&[server.port]).build().unwrap();
    let mut watching = Watching::new(&etcd);
    watching.until(&["a"]).await;
    let registration = etcd.register(info("r")).await.unwrap();
    watching.until(&["a", "r"]).await;
    for round in ["b", "c"] {
        server.kill();
        let error = watching.error().await;
        assert!(
            error.contains(&format!("127.0.0.1:{}: ", server.port)),
            "{error}"
        );
        server.restart().await;
        let ids: &[&str] = match round {
            "b" => &["a", "b", "r"],
            _ => &["a", "b", "c", "r"],
        };
        add_and_see(&server, &mut watching, round, ids).await;
    }
    registration.deregister().await.unwrap();
    watching.until(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn an_outage_is_one_error_and_its_end_is_a_snapshot() {
    let mut server = EtcdServer::start().await;
    server.add("a").await;
    let mut watching = Watching::new(&builder(&[server.port]).build().unwrap());
    watching.until(&["a"]).await;
    server.kill();
    watching.error().await;
    // Some more attempts fail in this time. Their reason is the same.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(watching.buffered().await.is_none());
    server.restart().await;
    // Nothing has changed, and still the end of the outage is told.
    assert_eq!(ids_of(&watching.next().await.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_server_that_has_compacted_its_revisions_is_found_again() {
    let mut server = EtcdServer::start().await;
    server.add("a").await;
    server.add("b").await;
    let mut watching = Watching::new(&builder(&[server.port]).build().unwrap());
    watching.until(&["a", "b"]).await;
    server.kill();
    // The client sees nothing of the changes until they are compacted.
    server.use_another_port();
    server.restart().await;
    server.add("c").await;
    server.delete("a").await;
    for _ in 0..20 {
        server.add("b").await;
    }
    server.compact().await;
    server.kill();
    server.use_another_port();
    server.restart().await;
    watching.until(&["b", "c"]).await;
    add_and_see(&server, &mut watching, "d", &["b", "c", "d"]).await;
}

#[tokio::test]
async fn a_stopped_server_is_noticed_and_found_again() {
    let server = EtcdServer::start().await;
    server.add("a").await;
    let etcd = builder(&[server.port])
        .status_interval(Duration::from_millis(300))
        .request_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    watching.until(&["a"]).await;
    server.signal("STOP");
    let error = watching.error().await;
    assert!(error.contains("no answer within 1s"), "{error}");
    server.signal("CONT");
    server.ready().await;
    add_and_see(&server, &mut watching, "b", &["a", "b"]).await;
}

#[tokio::test]
async fn a_short_stop_changes_nothing() {
    let server = EtcdServer::start().await;
    server.add("a").await;
    let mut watching = Watching::new(&builder(&[server.port]).build().unwrap());
    watching.until(&["a"]).await;
    server.signal("STOP");
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal("CONT");
    add_and_see(&server, &mut watching, "b", &["a", "b"]).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn any_member_of_a_cluster_may_stop_or_die() {
    let mut servers = EtcdServer::start_cluster(3).await;
    servers[0].add("a").await;
    let ports: Vec<u16> = servers.iter().map(|server| server.port).collect();
    let etcd = builder(&ports)
        .status_interval(Duration::from_millis(200))
        .stale_after(Duration::from_millis(200))
        .request_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    watching.until(&["a"]).await;
    let registration = etcd.register(info("r")).await.unwrap();
    let mut expected = vec!["a".to_owned(), "r".to_owned()];
    // The watch is at one of them.
    for stopped in 0..3 {
        servers[stopped].signal("STOP");
        let id = format!("b{stopped}");
        servers[(stopped + 1) % 3].add_if_possible(&id).await;
        expected.insert(stopped + 1, id);
        let ids: Vec<&str> = expected.iter().map(String::as_str).collect();
        watching.until(&ids).await;
        servers[stopped].signal("CONT");
        servers[stopped].ready().await;
    }
    for killed in 0..3 {
        servers[killed].kill();
        let id = format!("c{killed}");
        servers[(killed + 1) % 3].add_if_possible(&id).await;
        expected.insert(killed + 4, id);
        let ids: Vec<&str> = expected.iter().map(String::as_str).collect();
        watching.until(&ids).await;
        servers[killed].restart().await;
    }
    registration.deregister().await.unwrap();
    expected.pop();
    let ids: Vec<&str> = expected.iter().map(String::as_str).collect();
    watching.until(&ids).await;
}
