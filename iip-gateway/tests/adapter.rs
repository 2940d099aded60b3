//! The gateway in place of Go's HTTP adapter, compared with recordings of the adapter, except for
//! its defects.

use std::fs;
use std::path::Path;
use std::time::Duration;

use iip_gateway::{Dialect, Gateway, Group, Route, Statuses};
use serde_json::Value;

use crate::common::{Backend, GUARD, Http, ask, before, bound, get, post, serves, until};

/// Returns a recording of Go's adapter.
fn recording(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts");
    let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns the requests that the adapter sent to its backend: paths and bodies.
fn sent(recording: &Value) -> Vec<(String, String)> {
    let frames = recording["frames"].as_array().unwrap().iter();
    let requests = frames.filter(|frame| frame["dir"] == "c2s" && frame["channel"] != 0);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    requests
        .map(|frame| (text(&frame["path"]), text(&frame["body"])))
        .collect()
}

/// Returns the request that curl sent with the arguments of a recording.
fn as_curl(arguments: &str) -> String {
    let (arguments, url) = arguments.rsplit_once(' ').unwrap();
    let target = url.strip_prefix("http://127.0.0.1:8080").unwrap();
    let (mut method, mut headers, mut data) = ("GET", String::new(), None);
    let mut host = "127.0.0.1:8080";
    let arguments = format!(" {arguments}");
    for argument in arguments.split(" -").skip(1) {
        if let Some(header) = argument.strip_prefix("H ") {
            match header.split_once(": ") {
                Some(("Host", name)) => host = name,
                Some(_) => headers.push_str(&format!("{header}\r\n")),
                // curl leaves out a header without a value.
                None => {}
            }
        } else if let Some(name) = argument.strip_prefix("X ") {
            method = name;
        } else {
            data = argument.strip_prefix("-data-binary ");
        }
    }
    if let Some(data) = data {
        method = "POST";
        headers.push_str(&format!("Content-Length: {}\r\n", data.len()));
        if !headers.contains("Content-Type") {
            headers.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
    }
    let body = data.unwrap_or_default();
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn backends_get_what_the_recorded_adapter_sent() {
    let recording = recording("http_adapter");
    let backend = Backend::new().await;
    let builder = Gateway::builder()
        .group("go", backend.group().dialect(Dialect::Go))
        .route(Route::all("go").host("127.0.0.1"));
    let (_gateway, address) = bound(builder).await;

    let outcomes = recording["outcome"].as_array().unwrap();
    let mut statuses = Vec::new();
    for outcome in outcomes {
        let request = as_curl(outcome["http_request"].as_str().unwrap());
        statuses.push(ask(address, request).await.status);
    }
    // The path of a target that ends in `?` has one question mark here, not two.
    let expected = sent(&recording).into_iter();
    let expected: Vec<String> = expected.map(|(path, _)| path.replace("??", "?")).collect();
    assert_eq!(expected.len(), 8);
    let known = expected.iter().filter(|path| !path.starts_with("/nope"));
    assert_eq!(backend.seen(), known.cloned().collect::<Vec<_>>());
    // The last one names a host without a route: 404 instead of 501.
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 200, 404]);
}

#[tokio::test]
async fn replies_of_go_servers_have_status_200() {
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    for (request, body) in [
        (get("/echo"), "{}"),
        (post("/echo", ""), "{}"),
        (post("/echo", "posted body"), "posted body"),
        (get("/nope"), r#"{"code":102,"message":"handle error"}"#),
        (get("/fail"), r#"{"code":-1,"message":"handler fail:boom"}"#),
        (get("/code"), r#"{"code":5,"message":"no user"}"#),
    ] {
        let reply = ask(address, &request).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (200, body),
            "{request}"
        );
        let kind = reply.header("content-type");
        assert_eq!(kind, Some("text/plain; charset=utf-8"), "{request}");
    }
}

#[tokio::test]
async fn headers_that_do_not_fit_are_refused_without_harm_to_others() {
    let recording = recording("http_adapter_big_header");
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    let mut innocent = Http::connect(address).await;
    innocent.send(post("/wait", "innocent")).await;
    until("the innocent request", || backend.seen().len() == 1).await;

    let outcomes = recording["outcome"].as_array().unwrap().iter();
    let mut requests = outcomes.map(|outcome| outcome["http_request"].as_str().unwrap());
    let big = requests
        .find(|request| request.contains("Cookie: ccc"))
        .unwrap();
    let reply = ask(address, as_curl(big)).await;
    assert_eq!(reply.status, 431);
    assert!(reply.body.contains("2048 bytes"), "{}", reply.body);

    backend.permits.add_permits(1);
    assert_eq!(innocent.reply().await.body, "innocent");
    serves(address).await;
}

#[tokio::test]
async fn forged_replies_are_refused() {
    let recording = recording("http_adapter_response_splitting");
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    let outcomes = recording["outcome"].as_array().unwrap().iter();
    let mut requests = outcomes.map(|outcome| outcome["http_request"].as_str().unwrap());
    let evil = requests.find(|request| request.contains("%00")).unwrap();
    assert_eq!(ask(address, as_curl(evil)).await.status, 400);
    assert_eq!(
        ask(address, post("/echo", "victim data")).await.body,
        "victim data"
    );
    assert!(!backend.seen().iter().any(|path| path.starts_with("/x")));
}

#[tokio::test]
async fn a_slow_reply_fails_one_request_only() {
    let backend = Backend::new().await;
    let group = |timeout| backend.group().dialect(Dialect::Go).timeout(timeout);
    let builder = Gateway::builder()
        .group("fast", group(Duration::from_millis(50)))
        .group("slow", group(GUARD))
        .route(Route::pattern("fast", "fast").unwrap())
        .route(Route::all("slow"));
    let (_gateway, address) = bound(builder).await;
    let mut other = Http::connect(address).await;
    other.send(post("/wait", "other")).await;
    until("the other request", || backend.seen().len() == 1).await;

    let reply = ask(address, get("/wait?fast")).await;
    assert_eq!(reply.status, 504);
    let problem: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(problem["code"], "DEADLINE_EXCEEDED");
    assert_eq!(
        (&problem["status"], &problem["executed"]),
        (&504.into(), &"maybe".into())
    );
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );

    backend.permits.add_permits(2);
    assert_eq!(other.reply().await.body, "other");
}

#[tokio::test]
async fn statuses_can_be_those_of_go() {
    let backend = Backend::new().await;
    let group = backend.group().dialect(Dialect::Go);
    let builder = Gateway::builder()
        .group("slow", group.timeout(Duration::from_millis(50)))
        .group("gone", Group::new("127.0.0.1:1").dialect(Dialect::Go))
        .route(Route::pattern("^/wait", "slow").unwrap())
        .route(Route::pattern("^/gone", "gone").unwrap());
    for (statuses, expected) in [
        (Statuses::Http, [404, 504, 503]),
        (Statuses::Go, [501, 500, 500]),
    ] {
        let (_gateway, address) = bound(builder.clone().statuses(statuses)).await;
        for (target, status) in ["/none", "/wait", "/gone"].iter().zip(expected) {
            let reply = ask(address, get(target)).await;
            assert_eq!(reply.status, status, "{target}");
            assert_eq!(reply.body.is_empty(), statuses == Statuses::Go, "{target}");
        }
    }
}
