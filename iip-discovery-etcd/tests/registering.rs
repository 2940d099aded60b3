//! Registration.

use std::time::{Duration, Instant};

use iip_core::discover::Register;
use iip_discovery_etcd::Etcd;
use serde_json::{Value, json};

use crate::common::etcd::EtcdServer;
use crate::common::{Watching, builder, eventually, guard, info};

const TTL: Duration = Duration::from_secs(3);

fn etcd(server: &EtcdServer) -> Etcd {
    builder(&[server.port]).lease_ttl(TTL).build().unwrap()
}

fn lease(pair: &Value) -> String {
    pair["lease"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_server_is_listed_beyond_its_ttl_until_it_deregisters() {
    let server = EtcdServer::start().await;
    let etcd = etcd(&server);
    let mut watching = Watching::new(&etcd);
    watching.until(&[]).await;
    let a = info("10.0.0.1:7000").weight(3).zone("z");
    let registration = etcd.register(a.clone()).await.unwrap();
    // The entry is there as soon as the future is ready.
    assert!(server.get("10.0.0.1:7000").await.is_some());
    let snapshot = watching.until(&["10.0.0.1:7000"]).await;
    assert_eq!(*snapshot.backends, [a]);

    let start = Instant::now();
    eventually("more than twice the TTL", || async {
        start.elapsed() > TTL * 2 + TTL / 2
    })
    .await;
    assert!(server.get("10.0.0.1:7000").await.is_some());

    guard("deregistration", registration.deregister())
        .await
        .unwrap();
    assert!(server.get("10.0.0.1:7000").await.is_none());
    watching.until(&[]).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn a_dropped_registration_is_removed_before_its_ttl() {
    let server = EtcdServer::start().await;
    let etcd = builder(&[server.port])
        .lease_ttl(Duration::from_secs(3600))
        .build()
        .unwrap();
    let registration = etcd.register(info("a")).await.unwrap();
    assert!(server.get("a").await.is_some());
    drop(registration);
    eventually("the key is gone", || async {
        server.get("a").await.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_is_dropped_while_it_begins_is_removed() {
    let server = EtcdServer::start().await;
    let etcd = builder(&[server.port])
        .lease_ttl(Duration::from_secs(3600))
        .build()
        .unwrap();
    for step in 0..20 {
        let limit = Duration::from_micros(step * 200);
        let _ = tokio::time::timeout(limit, etcd.register(info("a"))).await;
    }
    eventually("no lease is left that binds the key", || async {
        server.get("a").await.is_none()
    })
    .await;
    // Neither does a late request add it again.
    let registration = etcd.register(info("b")).await.unwrap();
    assert!(server.get("a").await.is_none());
    registration.deregister().await.unwrap();
}

#[tokio::test]
async fn a_server_whose_lease_is_lost_is_listed_again_under_the_same_key() {
    let server = EtcdServer::start().await;
    let etcd = etcd(&server);
    let mut watching = Watching::new(&etcd);
    let registration = etcd.register(info("a")).await.unwrap();
    watching.until(&["a"]).await;
    let first = lease(&server.get("a").await.unwrap());
    server
        .request("/v3/lease/revoke", &json!({"ID": first}))
        .await;
    watching.until(&[]).await;
    watching.until(&["a"]).await;
    assert_ne!(lease(&server.get("a").await.unwrap()), first);
    registration.deregister().await.unwrap();
    assert!(server.get("a").await.is_none());
}

#[tokio::test]
async fn the_latest_of_two_registrations_of_an_id_stays() {
    let server = EtcdServer::start().await;
    let etcd = etcd(&server);
    let old = etcd.register(info("a").weight(1)).await.unwrap();
    let new = etcd.register(info("a").weight(2)).await.unwrap();
    old.deregister().await.unwrap();
    let mut watching = Watching::new(&etcd);
    let snapshot = watching.until(&["a"]).await;
    assert_eq!(snapshot.backends[0].weight, 2);
    new.deregister().await.unwrap();
    watching.until(&[]).await;
}

#[tokio::test]
async fn an_etcd_that_has_lost_its_data_gets_the_server_again() {
    let mut server = EtcdServer::start().await;
    let etcd = etcd(&server);
    server.add("old").await;
    let mut watching = Watching::new(&etcd);
    let registration = etcd.register(info("a")).await.unwrap();
    watching.until(&["a", "old"]).await;
    server.kill();
    server.lose_data();
    server.restart().await;
    watching.until(&["a"]).await;
    registration.deregister().await.unwrap();
    watching.until(&[]).await;
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_an_error_with_its_members() {
    let mut server = EtcdServer::start().await;
    let etcd = etcd(&server);
    let registration = etcd.register(info("a")).await.unwrap();
    server.kill();
    let error = guard("deregistration", registration.deregister())
        .await
        .unwrap_err();
    let member = format!("127.0.0.1:{}: ", server.port);
    assert!(error.to_string().contains(&member), "{error}");
    let error = guard("registration", etcd.register(info("a")))
        .await
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        text.starts_with("etcd does not answer: ") && text.contains(&member),
        "{text}"
    );
    let error = etcd.register(info("")).await.err().unwrap();
    assert!(error.to_string().contains("`BackendInfo::id`"), "{error}");
    let mut heavy = info("a");
    heavy.weight = 70_000;
    let error = etcd.register(heavy).await.err().unwrap();
    assert!(
        error.to_string().contains("weight 70000 is more than"),
        "{error}"
    );
}
