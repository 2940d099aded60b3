//! Servers that misbehave.

use std::time::Duration;

use iip_core::discover::Register;

use crate::common::fake::{Fake, Reply, stream, whole};
use crate::common::{Watching, builder, eventually, guard, ids_of, info};

const RANGE: &str = "/v3/kv/range";
const WATCH: &str = "/v3/watch";

/// A key `/services/orders/a` with `10.0.0.1:1#1`.
const PAIR: &str =
    r#"{"key":"L3NlcnZpY2VzL29yZGVycy9h","value":"MTAuMC4wLjE6MSMx","mod_revision":"5"}"#;
/// A key `/services/orders/b`.
const OTHER: &str =
    r#"{"key":"L3NlcnZpY2VzL29yZGVycy9i","value":"MTAuMC4wLjE6MSMx","mod_revision":"6"}"#;
const CREATED: &str = "{\"result\":{\"header\":{\"revision\":\"5\"},\"created\":true}}\n";

fn range() -> Reply {
    let body = format!(r#"{{"header":{{"revision":"5"}},"kvs":[{PAIR}],"count":"1"}}"#);
    Reply::Close(whole("200 OK", &body))
}

/// Watches a server that answers each range with `reply`, and returns the error.
async fn error_of_range(reply: impl Fn() -> Reply + Send + Sync + 'static) -> String {
    let fake = Fake::start(move |_, _| reply()).await;
    let etcd = builder(&[fake.port])
        .request_timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    let error = watching.next().await.unwrap_err().to_string();
    // It is one error, however often it occurs.
    let requests = fake.requests();
    eventually("three more attempts", || async {
        fake.requests() >= requests + 3
    })
    .await;
    assert!(watching.buffered().await.is_none());
    error
}

#[tokio::test]
async fn an_endless_body_is_an_error() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999\r\n\r\n".to_vec();
    let fake = Fake::start(move |_, _| Reply::Endless(head.clone(), vec![b' '; 1 << 20])).await;
    let etcd = builder(&[fake.port])
        .request_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let error = Watching::new(&etcd).error().await;
    assert!(error.contains("more than 100663296 bytes"), "{error}");
    let error = etcd.register(info("a")).await.err().unwrap().to_string();
    assert!(error.contains("more than 65536 bytes"), "{error}");
}

#[tokio::test]
async fn an_endless_head_is_an_error() {
    let head = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    let fake = Fake::start(move |_, _| Reply::Endless(head.clone(), vec![b'x'; 1 << 16])).await;
    let etcd = builder(&[fake.port])
        .request_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let error = Watching::new(&etcd).error().await;
    assert!(error.contains("the connection was lost"), "{error}");
}

#[tokio::test]
async fn garbage_is_an_error() {
    for (bytes, expected) in [
        (
            b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            "the connection was lost",
        ),
        (Vec::new(), "the connection was lost"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(),
            "the connection was lost",
        ),
        (whole("200 OK", "<html>\x1b[2J"), "not one of etcd"),
        (whole("200 OK", "{}"), "empty answer"),
        (
            whole("200 OK", "{\"header\":{\"revision\":\"x\"}}"),
            "a 64-bit number",
        ),
        (whole("200 OK", "{\"error\":{}}"), "without a text"),
        (
            whole("404 Not Found", "Not Found"),
            "etcd 3.4 or later is required",
        ),
        (whole("301 Moved", "<a>"), "HTTP status 301"),
        (
            whole("503 Unavailable", "{\"error\":\"\u{1b}[1m\",\"code\":14}"),
            "\\u{1b}[1m",
        ),
        (
            stream("{\"header\":{},\"kvs\":[{\"key\":\"eA==\"}]}"),
            "the key `x`",
        ),
    ] {
        let error = error_of_range(move || Reply::Close(bytes.clone())).await;
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains('\u{1b}') && error.len() < 2000, "{error}");
    }
}

#[tokio::test]
async fn pages_that_do_not_advance_are_an_error() {
    let body = format!(r#"{{"header":{{"revision":"5"}},"kvs":[{PAIR}],"more":true}}"#);
    let error = error_of_range(move || Reply::Close(whole("200 OK", &body))).await;
    assert!(error.contains("not in order"), "{error}");
    // An empty page is the last one, whatever it says.
    let body = r#"{"header":{"revision":"5"},"more":true}"#;
    let fake = Fake::start(move |_, _| Reply::Close(whole("200 OK", body))).await;
    let mut watching = Watching::new(&builder(&[fake.port]).build().unwrap());
    assert!(ids_of(&watching.snapshot().await).is_empty());
}

#[tokio::test]
async fn a_server_that_never_answers_is_an_error() {
    let fake = Fake::start(|_, _| Reply::Hold(Vec::new())).await;
    let etcd = builder(&[fake.port])
        .request_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = Watching::new(&etcd).error().await;
    assert!(error.contains("no answer within 200ms"), "{error}");
    let error = guard("registration", etcd.register(info("a")))
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("no answer within 200ms"),
        "{error}"
    );
}

/// Watches a server whose first watch fails as `reply` says. What it has sent before must have been
/// delivered, and a second watch must follow.
async fn first_watch(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Watching {
    let first = std::sync::atomic::AtomicBool::new(true);
    let fake = Fake::start(move |path, _| match path {
        RANGE => range(),
        WATCH if first.swap(false, std::sync::atomic::Ordering::Relaxed) => reply(),
        _ => {
            let event = format!("{{\"result\":{{\"events\":[{{\"kv\":{OTHER}}}]}}}}\n");
            Reply::Hold(stream(&format!("{CREATED}{event}")))
        }
    })
    .await;
    let etcd = builder(&[fake.port])
        .request_timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    let mut watching = Watching::new(&etcd);
    assert_eq!(ids_of(&watching.snapshot().await), ["a"]);
    watching.until(&["a", "b"]).await;
    watching
}

#[tokio::test]
async fn a_watch_that_fails_after_it_was_accepted_is_replaced_without_an_error() {
    for message in [
        r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#,
        r#"{"error":{"code":2,"message":"x"}}"#,
        r#"{"result":{"canceled":true,"compact_revision":"9"}}"#,
        r#"{"result":{"canceled":true,"cancel_reason":"x"}}"#,
        r#"{"result":{"events":[{"type":"OTHER"}]}}"#,
        r#"{"result":{"events":[{"kv":{"key":"eA=="}}]}}"#,
        "{}",
        "null",
        "<html>",
        "\u{0}",
    ] {
        let body = stream(&format!("{CREATED}{message}\n"));
        let watching = first_watch(move || Reply::Hold(body.clone())).await;
        assert!(
            watching.errors.is_empty(),
            "{message}: {:?}",
            watching.errors
        );
    }
    let watching = first_watch(|| Reply::Close(stream(CREATED))).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn an_endless_message_is_dropped() {
    let begin = stream(&format!("{CREATED}{{\"result\":{{\"x\":\""));
    let watching = first_watch(move || Reply::Endless(begin.clone(), vec![b'x'; 1 << 20])).await;
    assert!(watching.errors.is_empty(), "{:?}", watching.errors);
}

#[tokio::test]
async fn blank_lines_do_not_keep_a_watch_waiting_that_is_not_accepted() {
    let fake = Fake::start(|path, _| match path {
        RANGE => range(),
        _ => Reply::Endless(stream(""), vec![b'\n'; 1 << 16]),
    })
    .await;
    let etcd = builder(&[fake.port])
        .request_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = Watching::new(&etcd).error().await;
    assert!(error.contains("no answer within 500ms"), "{error}");
}

#[tokio::test]
async fn a_watch_that_is_not_accepted_is_an_error() {
    let denied = "{\"result\":{\"created\":true,\"canceled\":true,\"cancel_reason\":\"rpc error: \
                  code = PermissionDenied desc = etcdserver: permission denied\"}}\n";
    for (reply, expected) in [
        (
            stream(denied),
            "etcd has cancelled the watch: etcdserver: permission denied",
        ),
        (stream(""), "etcd has ended the watch"),
        (whole("404 Not Found", "Not Found"), "etcd 3.4 or later"),
    ] {
        let watching = first_watch(move || Reply::Close(reply.clone())).await;
        assert_eq!(watching.errors.len(), 1, "{:?}", watching.errors);
        assert!(
            watching.errors[0].contains(expected),
            "{:?}",
            watching.errors
        );
    }
}

#[tokio::test]
async fn a_watch_that_always_fails_is_not_tried_in_a_busy_loop() {
    let fake = Fake::start(|path, _| match path {
        RANGE => range(),
        _ => Reply::Close(stream(CREATED)),
    })
    .await;
    let mut watching = Watching::new(&builder(&[fake.port]).build().unwrap());
    watching.error().await;
    let before = fake.requests();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Each attempt is two requests. Even the shortest pauses are not that short on average.
    let requests = fake.requests() - before;
    assert!(requests < 60, "{requests}");
}

#[tokio::test]
async fn a_lease_without_an_id_or_a_ttl_is_an_error() {
    for body in [
        r#"{"header":{},"TTL":"10"}"#,
        r#"{"header":{},"ID":"7"}"#,
        r#"{"header":{},"ID":"7","TTL":"-1"}"#,
    ] {
        let fake = Fake::start(move |_, _| Reply::Hold(whole("200 OK", body))).await;
        let etcd = builder(&[fake.port]).build().unwrap();
        let error = etcd.register(info("a")).await.err().unwrap();
        assert!(
            error.to_string().contains("without an id or a TTL"),
            "{error}"
        );
    }
}
