//! Users, passwords and TLS.

use std::time::Duration;

use iip_core::discover::Register;
use serde_json::{Value, json};

use crate::common::etcd::{EtcdServer, blob};
use crate::common::{PREFIX, Watching, builder, info};

const PASSWORD: &str = "pass \"word\" ä";

/// Starts a server with the user `reader`, who may use the keys below the prefix.
async fn start() -> EtcdServer {
    let server = EtcdServer::start().await;
    server.add("a").await;
    for (path, body) in [
        (
            "/v3/auth/user/add",
            json!({"name": "root", "password": "root"}),
        ),
        (
            "/v3/auth/user/add",
            json!({"name": "reader", "password": PASSWORD}),
        ),
        (
            "/v3/auth/user/add",
            json!({"name": "other", "password": PASSWORD}),
        ),
        ("/v3/auth/role/add", json!({"name": "root"})),
        ("/v3/auth/role/add", json!({"name": "orders"})),
        (
            "/v3/auth/role/grant",
            json!({"name": "orders", "perm": permission()}),
        ),
        (
            "/v3/auth/user/grant",
            json!({"user": "root", "role": "root"}),
        ),
        (
            "/v3/auth/user/grant",
            json!({"user": "reader", "role": "orders"}),
        ),
    ] {
        server.request(path, &body).await;
    }
    server
}

fn permission() -> Value {
    json!({
        "permType": "READWRITE",
        "key": blob(format!("{PREFIX}/")),
        "range_end": blob(format!("{PREFIX}0")),
    })
}

async fn enable(server: &EtcdServer) {
    server.request("/v3/auth/enable", &json!({})).await;
}

/// Sends a request as root.
async fn as_root(server: &EtcdServer, path: &str, body: &Value) -> Value {
    let root = json!({"name": "root", "password": "root"});
    let answer = server.request("/v3/auth/authenticate", &root).await;
    let token = answer["token"].as_str().unwrap();
    server.post_with(path, body, Some(token)).await.unwrap()
}

#[tokio::test]
async fn a_user_with_a_password_finds_and_registers_servers() {
    let server = start().await;
    enable(&server).await;
    let etcd = builder(&[server.port])
        .user("reader", PASSWORD)
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    watching.until(&["a"]).await;
    let registration = etcd.register(info("b")).await.unwrap();
    watching.until(&["a", "b"]).await;
    registration.deregister().await.unwrap();
    watching.until(&["a"]).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn a_token_that_has_expired_is_renewed() {
    let server = start().await;
    enable(&server).await;
    let etcd = builder(&[server.port])
        .user("reader", PASSWORD)
        .build()
        .unwrap();
    let registration = etcd.register(info("b")).await.unwrap();
    // A change of users makes all tokens invalid.
    let body = json!({"name": "other", "password": "new"});
    as_root(&server, "/v3/auth/user/changepw", &body).await;
    registration.deregister().await.unwrap();
    let mut watching = Watching::new(&etcd);
    watching.until(&["a"]).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn auth_that_is_enabled_later_needs_no_restart() {
    let server = start().await;
    let etcd = builder(&[server.port])
        .user("reader", PASSWORD)
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    watching.until(&["a"]).await;
    let first = etcd.register(info("b")).await.unwrap();
    watching.until(&["a", "b"]).await;
    enable(&server).await;
    let second = etcd.register(info("c")).await.unwrap();
    watching.until(&["a", "b", "c"]).await;
    first.deregister().await.unwrap();
    second.deregister().await.unwrap();
}

#[tokio::test]
async fn what_etcd_refuses_is_an_error_that_says_what_to_do() {
    let server = start().await;
    enable(&server).await;
    let etcd = |user: Option<(&str, &str)>| {
        let builder = builder(&[server.port]);
        match user {
            Some((name, password)) => builder.user(name, password),
            None => builder,
        }
        .build()
        .unwrap()
    };
    for (user, texts) in [
        (None, ["etcd requires a user", "set `EtcdBuilder::user`"]),
        (
            Some(("reader", "wrong-secret")),
            [
                "etcd refused the user `reader`",
                "check the name and the password",
            ],
        ),
        (
            Some(("nobody", "x")),
            ["etcd refused the user `nobody`", "`EtcdBuilder::user`"],
        ),
        (Some(("other", PASSWORD)), ["permission denied", ""]),
    ] {
        let etcd = etcd(user);
        let mut watching = Watching::new(&etcd);
        let from_watch = watching.next().await.unwrap_err().to_string();
        let from_register = etcd.register(info("b")).await.err().unwrap().to_string();
        for text in [from_watch, from_register] {
            assert!(
                texts.iter().all(|part| text.contains(part)),
                "{user:?}: {text}"
            );
            assert!(!text.contains("wrong-secret"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_user_that_gets_the_permission_later_is_served_then() {
    let server = start().await;
    enable(&server).await;
    let etcd = builder(&[server.port])
        .user("other", PASSWORD)
        .request_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    watching.error().await;
    let body = json!({"user": "other", "role": "orders"});
    as_root(&server, "/v3/auth/user/grant", &body).await;
    watching.until(&["a"]).await;
}

#[cfg(feature = "tls")]
mod tls {
    use iip_core::tls::ClientTls;

    use super::*;
    use crate::common::etcd::new_folder;

    #[tokio::test]
    async fn etcd_is_reached_by_tls() {
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let folder = new_folder();
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        std::fs::write(&chain, issued.cert.pem()).unwrap();
        std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        let arguments = [
            format!("--cert-file={}", chain.display()),
            format!("--key-file={}", key.display()),
        ];
        let server = EtcdServer::spawn("https", &arguments);
        let tls = ClientTls::new().roots_pem(issued.cert.pem()).unwrap();
        let etcd = builder(&[server.port]).tls(tls).build().unwrap();
        let mut watching = Watching::new(&etcd);
        watching.until(&[]).await;
        let registration = etcd.register(info("a")).await.unwrap();
        watching.until(&["a"]).await;
        registration.deregister().await.unwrap();
        watching.until(&[]).await;
        // Other roots, and no TLS.
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let tls = ClientTls::new().roots_pem(other.cert.pem()).unwrap();
        let etcd = builder(&[server.port]).tls(tls).build().unwrap();
        let error = Watching::new(&etcd).error().await;
        assert!(error.contains("certificate"), "{error}");
        let etcd = builder(&[server.port]).build().unwrap();
        let error = Watching::new(&etcd).error().await;
        assert!(error.contains("set `EtcdBuilder::tls`"), "{error}");
        let _ = std::fs::remove_dir_all(folder);
    }
}
