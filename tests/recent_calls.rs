//! The calls that a server and a client remember because they failed or were slow.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use bytes::Bytes;
use iip_core::stats::RecentCall;
use iip_core::{HandlerError, Request, Response, handler_fn};
use iip_rpc::{CallOptions, Client, Code, Server, Status, service};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[service]
trait Shop {
    async fn sell(&self, secret: String) -> Result<String, Status>;
    async fn wait(&self, millis: u64) -> Result<String, Status>;
    #[rpc(path = "/shop/raw", raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
}

struct Counter;

impl Shop for Counter {
    async fn sell(&self, secret: String) -> Result<String, Status> {
        match secret.len() {
            0 => Ok("a secret reply".to_owned()),
            _ => Err(Status::not_found("there is none")),
        }
    }

    async fn wait(&self, millis: u64) -> Result<String, Status> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok("a secret reply".to_owned())
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(body)
    }
}

/// Fails, waits and fails, or panics, as the request says.
async fn fail(request: Request) -> Result<Response, HandlerError> {
    match &request.body()[..] {
        b"code" => return Ok(Response::from("a secret reply").with_status_code(5)),
        b"late" => tokio::time::sleep(Duration::from_millis(1)).await,
        b"panic" => panic!("as the request says"),
        _ => {}
    }
    Err(HandlerError::new("there is none"))
}

async fn wait(request: Request) -> Result<Response, HandlerError> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(request.into_body().into())
}

async fn start() -> (Server, Client, ShopClient) {
    let server = Server::builder()
        .service(ShopServer::new(Counter))
        .route("/raw/fail", handler_fn(fail))
        .route("/raw/wait", handler_fn(wait));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    let shop = ShopClient::new(client.clone());
    (server, client, shop)
}

fn names(call: &RecentCall) -> Vec<&'static str> {
    call.phases.iter().map(|(name, _)| *name).collect()
}

#[tokio::test]
async fn a_failed_call_is_remembered_on_both_sides_without_its_arguments() {
    let (server, client, _) = start().await;
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let options = CallOptions::new()
        .metadata("traceparent", traceparent)
        .unwrap();
    let traced = client.with_options(options);
    let shop = ShopClient::new(traced);
    shop.sell(String::new()).await.unwrap();
    let status = shop.sell("a secret".to_owned()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    let at_server = server.raw().observer().recent_calls();
    let at_client = client.raw().recent_calls();
    for calls in [&at_server, &at_client] {
        assert_eq!(calls.len(), 1, "{calls:?}");
        let call = &calls[0];
        assert_eq!(
            (&*call.path, call.code),
            ("/shop/sell", Code::NotFound.as_u8())
        );
        assert_eq!(call.message, "there is none");
        assert_eq!(call.trace.as_deref(), Some(TRACE));
        assert!(!format!("{call:?}").contains("secret"), "{call:?}");
    }
    let peer = at_server[0].peer.as_deref().unwrap();
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    assert_eq!(names(&at_server[0]), ["queue", "handler"]);
    assert!(names(&at_client[0]).contains(&"reply"), "{at_client:?}");
}

#[tokio::test]
async fn a_slow_call_is_remembered_from_the_time_that_is_set() {
    let (server, client, shop) = start().await;
    shop.wait(20).await.unwrap();
    let observer = server.raw().observer();
    assert_eq!(
        (observer.recent_calls(), client.raw().recent_calls()),
        (vec![], vec![])
    );
    observer.set_slow_call(Duration::from_millis(10));
    client.raw().set_slow_call(Duration::from_millis(10));
    shop.wait(20).await.unwrap();
    for calls in [observer.recent_calls(), client.raw().recent_calls()] {
        assert_eq!(calls.len(), 1, "{calls:?}");
        assert_eq!((&*calls[0].path, calls[0].code), ("/shop/wait", 0));
        assert!(calls[0].took >= Duration::from_millis(20), "{calls:?}");
        assert_eq!(names(&calls[0]), ["queue", "handler"]);
    }
}

#[tokio::test]
async fn a_call_past_its_deadline_is_remembered_by_the_client() {
    let (_server, client, _) = start().await;
    let hasty = client.with_options(CallOptions::new().timeout(Duration::from_millis(20)));
    ShopClient::new(hasty).wait(600_000).await.unwrap_err();
    let calls = client.raw().recent_calls();
    let code = Code::DeadlineExceeded.as_u8();
    assert_eq!((calls.len(), calls[0].code), (1, code));
    assert!(calls[0].took >= Duration::from_millis(20), "{calls:?}");
}

#[tokio::test]
async fn a_call_without_a_connection_is_remembered_by_the_client() {
    let client = Client::builder().connect_lazy("127.0.0.1:1").unwrap();
    ShopClient::new(client.clone())
        .sell(String::new())
        .await
        .unwrap_err();
    let calls = client.raw().recent_calls();
    assert_eq!((calls.len(), calls[0].code), (1, Code::Unavailable.as_u8()));
}

#[tokio::test]
async fn failed_calls_of_raw_handlers_are_remembered_like_typed_ones() {
    let (server, client, _) = start().await;
    let raw = client.raw();
    for body in ["at once", "late", "code", "panic"] {
        raw.request("/raw/fail?article=secret", body).await.unwrap();
    }
    let calls = server.raw().observer().recent_calls();
    let expected = [
        (Code::Internal, "the handler panicked"),
        (Code::NotFound, ""),
        (Code::Unknown, "there is none"),
        (Code::Unknown, "there is none"),
    ];
    assert_eq!(calls.len(), expected.len(), "{calls:?}");
    for (call, (code, message)) in calls.iter().zip(expected) {
        assert_eq!((call.code, &*call.message), (code.as_u8(), message));
        assert_eq!(
            (&*call.path, names(call)),
            ("/raw/fail", vec!["queue", "handler"])
        );
        let peer = call.peer.as_deref().unwrap();
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
        assert!(!format!("{call:?}").contains("secret"), "{call:?}");
    }
}

#[tokio::test]
async fn slow_calls_of_raw_handlers_and_raw_methods_are_remembered() {
    let (server, client, _) = start().await;
    let observer = server.raw().observer();
    let paths = ["/raw/wait", "/shop/raw"];
    for slow in [Duration::from_secs(600), Duration::from_millis(10)] {
        observer.set_slow_call(slow);
        for path in paths {
            client.raw().request(path, "hello").await.unwrap();
        }
    }
    let mut calls = observer.recent_calls();
    calls.reverse();
    assert_eq!(calls.len(), paths.len(), "{calls:?}");
    for (call, path) in calls.iter().zip(paths) {
        assert_eq!((&*call.path, call.code), (path, 0));
        assert!(call.took >= Duration::from_millis(20), "{call:?}");
        assert_eq!(names(call), ["queue", "handler"]);
    }
}

#[tokio::test]
async fn calls_of_unknown_paths_are_only_counted() {
    let (server, client, _) = start().await;
    client.raw().request("/other/path", "hello").await.unwrap();
    let (raw, code) = (server.raw(), Code::Unimplemented.as_u8());
    assert_eq!(raw.observer().recent_calls(), vec![]);
    assert_eq!(raw.stats().total().codes.get(code), 1);
}
