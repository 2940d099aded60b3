//! Backends of this project, and routes to several groups.

use iip_gateway::{Gateway, Group, Route, Target};
use serde_json::Value;

use crate::common::{Backend, ask, bound, get};

#[tokio::test]
async fn backends_of_this_project_get_the_method_and_their_errors_are_statuses() {
    let backend = Backend::new().await;
    let builder = Gateway::builder()
        .group("ours", backend.group())
        .route(Route::all("ours"));
    let (_gateway, address) = bound(builder).await;
    let request = "DELETE /echo?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(ask(address, request).await.status, 200);
    let path = "/echo?x=1&__http_method__=DELETE&__http_hdr__=e30=";
    assert_eq!(backend.seen(), [path]);
    for (target, status, code, executed) in [
        ("/nope", 404, "NOT_FOUND", "no"),
        ("/fail", 500, "INTERNAL", "yes"),
        ("/code", 404, "NOT_FOUND", "maybe"),
    ] {
        let reply = ask(address, get(target)).await;
        assert_eq!(reply.status, status, "{target}");
        let problem: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(
            (&problem["code"], &problem["executed"]),
            (&code.into(), &executed.into())
        );
    }
}

#[tokio::test]
async fn routes_choose_among_groups() {
    let (first, second) = (Backend::new().await, Backend::new().await);
    let builder = Gateway::builder()
        .group("first", first.group())
        .group("second", second.group())
        .route(Route::pattern("^/echo", "first").unwrap())
        .route(Route::all("second").host("second.example"))
        .route(Route::choose(|request| {
            let named = request.header("x-group");
            named.map(Target::group)
        }));
    let (_gateway, address) = bound(builder).await;
    let with = |headers: &str| format!("GET /echo HTTP/1.1\r\n{headers}\r\n\r\n");
    for (headers, status, seen) in [
        ("Host: a", 200, (1, 0)),
        ("Host: Second.example:80", 200, (1, 1)),
        ("Host: a\r\nX-Group: second", 200, (1, 2)),
        ("Host: a\r\nX-Group: third", 404, (1, 2)),
    ] {
        assert_eq!(
            ask(address, with(headers)).await.status,
            status,
            "{headers}"
        );
        assert_eq!((first.seen().len(), second.seen().len()), seen, "{headers}");
    }
    // `/../echo` is the same path for routes, and another one for backends.
    assert_eq!(ask(address, get("/x/%2e%2e/echo")).await.status, 404);
    assert_eq!(ask(address, get("/%65cho")).await.status, 200);
    assert_eq!(first.seen().len(), 2);
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_named_in_the_log_only() {
    let builder = Gateway::builder()
        .group("gone", Group::new("127.0.0.1:1"))
        .route(Route::all("gone"));
    let (_gateway, address) = bound(builder).await;
    let reply = ask(address, get("/echo")).await;
    assert_eq!(reply.status, 503);
    assert!(!reply.body.contains("127.0.0.1"), "{}", reply.body);
    let problem: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(
        (&problem["retryable"], &problem["executed"]),
        (&true.into(), &"no".into())
    );
}

#[tokio::test]
async fn paths_of_the_protocol_are_passed_on_only_by_groups_that_allow_it() {
    let backend = Backend::new().await;
    let builder = Gateway::builder()
        .group("closed", backend.group())
        .group("open", backend.group().reserved_paths(true))
        .route(Route::all("open").host("open"))
        .route(Route::all("closed"));
    let (_gateway, address) = bound(builder).await;
    for target in [
        "/sys/hello",
        "/%73ys/hello",
        "/s%79s/drain",
        "/sys/",
        "/sys/x?a=b",
    ] {
        let reply = ask(address, get(target)).await;
        assert_eq!(reply.status, 404, "{target}");
        assert!(reply.body.contains("reserved_paths"), "{}", reply.body);
    }
    // A reference with a host, whose path a backend would take.
    assert_eq!(ask(address, get("//host/sys/hello")).await.status, 400);
    let open = "GET /sys/hello HTTP/1.1\r\nHost: open\r\n\r\n";
    assert_eq!(ask(address, open).await.status, 200);
    assert_eq!(ask(address, get("/system/echo")).await.status, 404);
    assert_eq!(backend.seen().len(), 0);
}
