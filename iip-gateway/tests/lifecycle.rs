//! Configurations that are replaced, and the end of a gateway.

use std::time::Duration;

use iip_gateway::{BuildError, Gateway, Group, Limits, LogFormat, Route};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::common::{
    Backend, GUARD, Http, LogLines, ask, before, bound, get, passes, post, until, within,
};

#[tokio::test]
async fn a_replaced_configuration_applies_to_the_next_request() {
    let (old, new) = (Backend::new().await, Backend::new().await);
    let (gateway, address) = bound(before(&old)).await;
    let mut http = Http::connect(address).await;
    let mut running = Http::connect(address).await;
    http.send(get("/echo")).await;
    assert_eq!(http.reply().await.status, 200);
    running.send(post("/wait", "on the old one")).await;
    until("the running request", || old.seen().len() == 2).await;

    gateway.replace(before(&new)).unwrap();
    http.send(get("/echo")).await;
    assert_eq!(http.reply().await.status, 200);
    assert_eq!((old.seen().len(), new.seen().len()), (2, 1));
    old.permits.add_permits(1);
    assert_eq!(running.reply().await.body, "on the old one");
    // The connection to the old backend is no longer needed.
    until("its end", || old.server.connections() == 0).await;
}

#[tokio::test]
async fn groups_without_a_change_keep_their_connections() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut running = Http::connect(address).await;
    running.send(post("/wait", "unharmed")).await;
    until("the running request", || backend.seen().len() == 1).await;
    gateway
        .replace(before(&backend).route(Route::all("go").host("b")))
        .unwrap();
    assert_eq!(ask(address, get("/echo")).await.status, 200);
    assert_eq!(backend.server.connections(), 1);
    backend.permits.add_permits(1);
    assert_eq!(running.reply().await.body, "unharmed");
}

#[tokio::test]
async fn a_configuration_that_cannot_work_changes_nothing() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    for (builder, expected) in [
        (
            Gateway::builder().route(Route::all("none")),
            "names the group `none`",
        ),
        (
            before(&backend).group("bad", Group::new("::::")),
            "group `bad`",
        ),
        (
            before(&backend).limits(Limits::new().max_head_bytes(1)),
            "option max_head_bytes",
        ),
        (
            before(&backend).limits(Limits::new().idle_timeout(Duration::ZERO)),
            "idle_timeout",
        ),
    ] {
        let error: BuildError = gateway.replace(builder).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(ask(address, get("/echo")).await.status, 200);
    }
}

#[tokio::test]
async fn a_gateway_that_shuts_down_replies_first() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let (mut silent, mut idle) = (Http::connect(address).await, Http::connect(address).await);
    idle.send(get("/echo")).await;
    assert_eq!(idle.reply().await.status, 200);
    let mut running = Http::connect(address).await;
    running.send(post("/wait", "last words")).await;
    until("the running request", || backend.seen().len() == 2).await;
    until("all connections", || gateway.connections() == 3).await;

    let ending = gateway.clone();
    let ended = tokio::spawn(async move { ending.shutdown(GUARD).await });
    assert!(silent.closed().await.is_empty());
    assert!(idle.closed().await.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!ended.is_finished());
    backend.permits.add_permits(1);
    let reply = running.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "last words"));
    assert!(running.closed().await.is_empty());
    assert!(within("the end", ended).await.unwrap());
}

#[tokio::test]
async fn requests_that_take_too_long_are_interrupted_at_the_end() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut running = Http::connect(address).await;
    running.send(get("/wait")).await;
    until("the running request", || backend.seen().len() == 1).await;
    let ending = gateway.clone();
    let ended = tokio::spawn(async move { ending.shutdown(Duration::from_secs(5)).await });
    tokio::task::yield_now().await;
    passes(Duration::from_secs(6)).await;
    assert!(!within("the end", ended).await.unwrap());
    assert!(running.closed().await.is_empty());
    assert_eq!(gateway.connections(), 0);
}

#[tokio::test]
async fn each_request_has_a_line_in_the_access_log() {
    let backend = Backend::new().await;
    let lines = LogLines::default();
    let builder = before(&backend).access_log(lines.log(LogFormat::Json));
    let (_gateway, address) = bound(builder).await;
    ask(address, post("/echo?a=\x7fb", "12345")).await;
    ask(address, post("/echo?a=b", "12345")).await;
    let mut gone = Http::connect(address).await;
    gone.send(get("/wait")).await;
    until("the request", || backend.seen().len() == 2).await;
    drop(gone);
    let lines = lines.json(2).await;
    let line = |line: &Value| {
        let texts = ["method", "target", "group"].map(|key| line[key].as_str().unwrap().to_owned());
        let numbers = ["status", "received", "sent"].map(|key| line[key].as_u64().unwrap());
        (texts.join(" "), numbers)
    };
    assert_eq!(
        line(&lines[0]),
        ("POST /echo?a=b go".to_owned(), [200, 5, 5])
    );
    assert_eq!(line(&lines[1]), ("GET /wait go".to_owned(), [499, 0, 0]));
}

#[tokio::test]
async fn lines_of_text_have_no_control_characters() {
    let backend = Backend::new().await;
    let lines = LogLines::default();
    let builder = before(&backend).access_log(lines.log(LogFormat::Text));
    let (_gateway, address) = bound(builder).await;
    ask(address, "GET /echo HTTP/1.1\r\nHost: \u{202e}a\r\n\r\n").await;
    let line = lines.take(1).await.remove(0);
    assert!(
        line.contains(" GET \\u{202e}a /echo HTTP/1.1 - 400 0 "),
        "{line}"
    );
}
