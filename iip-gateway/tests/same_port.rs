//! HTTP on the port of an IIP server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use iip_core::{Client, HandlerError, Response, Server, ServerBuilder, handler_fn};
use iip_gateway::Limits;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::common::{GUARD, Http, Reply, all_run, ask, get, passes, post, until, within};
use crate::smuggling::{self, Fate};

fn config() -> ServerBuilder {
    let echo = handler_fn(|request: iip_core::Request| async move {
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    });
    Server::builder().route("/echo", echo)
}

async fn start(config: ServerBuilder) -> (Server, SocketAddr) {
    let config = config.fallback_protocol(iip_gateway::Http::new());
    let server = config.bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

/// Sends GET requests on one connection.
async fn asks(http: &mut Http, target: &str) -> Reply {
    http.send(get(target)).await;
    http.reply().await
}

#[tokio::test]
async fn iip_and_both_versions_of_http_share_a_port() {
    let (_server, address) = start(config()).await;
    let client = Client::connect(address).await.unwrap();
    assert_eq!(client.request("/echo", "iip").await.unwrap(), "iip");

    let mut http = Http::connect(address).await;
    let reply = asks(&mut http, "/healthz").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok\n"));
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let reply = asks(&mut http, "/readyz?verbose").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ready\n"));

    let stream = TcpStream::connect(address).await.unwrap();
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://localhost/healthz").body(Empty::<Bytes>::new());
    let response = within("a reply", sender.send_request(request.unwrap())).await;
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "ok\n");
}

#[tokio::test]
async fn probes_are_asked_by_get_and_head_and_other_paths_do_not_exist() {
    let (_server, address) = start(config()).await;
    let mut http = Http::connect(address).await;
    http.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // The reply to HEAD has a length and no body, so the next reply follows.
    http.send(post("/readyz", "{}")).await;
    let mut head = Vec::new();
    within("a head", async {
        use tokio::io::AsyncReadExt;
        while !head.ends_with(b"\r\n\r\n") {
            head.push(http.stream.read_u8().await.unwrap());
        }
    })
    .await;
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-length: 3\r\n"), "{head}");
    let reply = http.reply().await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD"))
    );
    for path in ["/", "/echo", "/healthz/", "/healthz%2f"] {
        let reply = ask(address, get(path)).await;
        assert_eq!(reply.status, 404, "{path}");
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body["code"], "NOT_FOUND", "{path}");
    }
}

#[tokio::test]
async fn the_paths_of_probes_can_be_changed() {
    let http = iip_gateway::Http::new();
    let http = http.liveness_path("/livez").readiness_path("/up");
    let config = config().fallback_protocol(http);
    let server = config.bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    for (path, status) in [
        ("/livez", 200),
        ("/up", 200),
        ("/healthz", 404),
        ("/readyz", 404),
    ] {
        assert_eq!(ask(address, get(path)).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    for (http, expected) in [
        (
            iip_gateway::Http::new().liveness_path("healthz"),
            "option liveness_path",
        ),
        (
            iip_gateway::Http::new().readiness_path("/healthz"),
            "option readiness_path",
        ),
        (
            iip_gateway::Http::new().limits(Limits::new().max_head_bytes(1)),
            "option max_head_bytes",
        ),
    ] {
        let bound = config().fallback_protocol(http).bind("127.0.0.1:0").await;
        let error = bound.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused_as_by_the_gateway() {
    let (server, address) = start(config()).await;
    for (name, bytes, fate) in smuggling::cases() {
        let mut http = Http::connect(address).await;
        http.send(&bytes).await;
        match fate {
            Fate::Refused(status) => {
                let reply = http.try_reply().await;
                let found = reply.as_ref().map(|reply| reply.status);
                // A malformed body is not read if there is nothing at the path.
                let expected = [Some(status), Some(404)];
                assert!(expected.contains(&found), "{name}: {reply:?}");
                let rest = http.closed().await;
                assert!(rest.is_empty(), "{name}: {}", rest.escape_ascii());
            }
            Fate::Closed => assert!(http.closed().await.is_empty(), "{name}"),
            // There is nothing at its path, and the next reply is that of the next request.
            Fate::Body(_) => {
                assert_eq!(http.reply().await.status, 404, "{name}");
                assert_eq!(asks(&mut http, "/healthz").await.body, "ok\n", "{name}");
            }
        }
    }
    until("the end of all connections", || server.connections() == 0).await;
    assert_eq!(ask(address, get("/healthz")).await.status, 200);
}

#[tokio::test]
async fn slow_clients_of_http_are_closed_and_kept_connections_serve_on() {
    let (server, address) = start(config()).await;
    let mut silent = Http::connect(address).await;
    let mut slow = Http::connect(address).await;
    slow.send("G").await;
    let mut kept = Http::connect(address).await;
    assert_eq!(asks(&mut kept, "/healthz").await.status, 200);
    until("the connections", || server.connections() == 3).await;
    for _ in 0..11 {
        all_run().await;
        passes(Duration::from_secs(1)).await;
        slow.send("E").await;
    }
    assert!(silent.closed().await.is_empty());
    assert!(slow.closed().await.is_empty());
    // By now, the connection has released its buffers.
    assert_eq!(asks(&mut kept, "/readyz").await.status, 200);
    until("one connection", || server.connections() == 1).await;
}

#[tokio::test]
async fn connections_of_http_count_towards_the_limit_of_the_server() {
    let (server, address) = start(config().max_connections(1)).await;
    let mut kept = Http::connect(address).await;
    assert_eq!(asks(&mut kept, "/healthz").await.status, 200);
    assert!(Http::connect(address).await.closed().await.is_empty());
    assert!(Client::connect(address).await.is_err());
    assert_eq!(asks(&mut kept, "/healthz").await.status, 200);
    drop(kept);
    until("a place", || server.connections() == 0).await;
    assert!(Client::connect(address).await.is_ok());
}

#[tokio::test]
async fn a_server_that_shuts_down_is_alive_and_not_ready_until_it_drains() {
    let (server, address) = start(config().lame_duck(Duration::from_secs(100))).await;
    let mut kept = Http::connect(address).await;
    assert_eq!(asks(&mut kept, "/readyz").await.status, 200);
    let shutdown = tokio::spawn(async move { server.shutdown(Duration::from_secs(1000)).await });
    // The server still accepts connections.
    within("the first step", async {
        while ask(address, get("/readyz")).await.status == 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let reply = asks(&mut kept, "/readyz").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, "not ready\n"));
    assert_eq!(asks(&mut kept, "/healthz").await.status, 200);
    let client = Client::connect(address).await.unwrap();
    assert_eq!(client.request("/echo", "still").await.unwrap(), "still");
    passes(Duration::from_secs(100)).await;
    // A connection between two requests does not delay the shutdown.
    assert!(kept.closed().await.is_empty());
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn readiness_is_that_of_the_conditions() {
    let is_connected = Arc::new(AtomicBool::new(false));
    let check = Arc::clone(&is_connected);
    let config = config().readiness(move || check.load(Ordering::Relaxed));
    let (_server, address) = start(config).await;
    assert_eq!(ask(address, get("/readyz")).await.status, 503);
    assert_eq!(ask(address, get("/healthz")).await.status, 200);
    is_connected.store(true, Ordering::Relaxed);
    assert_eq!(ask(address, get("/readyz")).await.status, 200);
}

#[tokio::test]
async fn idle_connections_of_http_end_with_the_server() {
    let (server, address) = start(config()).await;
    let mut fresh = Http::connect(address).await;
    let mut parked = Http::connect(address).await;
    assert_eq!(asks(&mut parked, "/healthz").await.status, 200);
    all_run().await;
    passes(Duration::from_secs(6)).await;
    all_run().await;
    assert_eq!(asks(&mut fresh, "/healthz").await.status, 200);
    within("the shutdown", server.shutdown(10 * GUARD)).await;
    assert!(fresh.closed().await.is_empty());
    assert!(parked.closed().await.is_empty());
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn metrics_have_the_calls_of_all_protocols_and_are_for_those_who_may_read_them() {
    let (_server, address) = start(config()).await;
    let client = Client::connect(address).await.unwrap();
    assert_eq!(client.request("/echo", "iip").await.unwrap(), "iip");
    let reply = ask(address, get("/metrics")).await;
    assert_eq!(reply.status, 200);
    let plain = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(plain));
    let mut lines = reply.body.lines();
    let calls = lines.find(|line| {
        line.starts_with("rpc_server_calls_total") && line.contains(r#"rpc_method="echo""#)
    });
    assert!(
        calls.is_some_and(|line| line.ends_with(" 1")),
        "{}",
        reply.body
    );
    assert!(!reply.body.contains("127.0.0.1"), "{}", reply.body);
    let open = "GET /metrics HTTP/1.1\r\nHost: a\r\n\
                Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let reply = ask(address, open).await;
    assert!(reply.body.ends_with("# EOF\n"), "{}", reply.body);

    let http = iip_gateway::Http::new();
    let http = http.metrics_path("/stats").metrics_if(|peer| {
        peer.addr().is_some_and(|addr| addr.ip().is_loopback())
            && peer.header("authorization") == Some("Bearer secret")
            && !peer.is_encrypted()
            && peer.certificates().is_empty()
    });
    let server = config()
        .fallback_protocol(http)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = server.local_addr().unwrap();
    assert_eq!(ask(address, get("/metrics")).await.status, 404);
    assert_eq!(ask(address, get("/stats")).await.status, 403);
    let authorized = "GET /stats HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n\r\n";
    assert_eq!(ask(address, authorized).await.status, 200);
}

#[cfg(feature = "tls")]
mod inside_tls {
    use iip_core::tls::ClientTls;
    use iip_core::transport::IoStream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::tls::identity;

    async fn encrypted(client: &ClientTls, address: SocketAddr) -> IoStream {
        let stream = TcpStream::connect(address).await.unwrap();
        let connecting = client.connect(stream, Some("localhost"));
        within("a handshake", connecting).await.unwrap().0
    }

    #[tokio::test]
    async fn iip_and_both_versions_of_http_share_a_port() {
        let (server, client) = identity();
        let (_server, address) = start(config().tls(server)).await;
        let iip = Client::builder().tls(client.clone());
        let port = address.port();
        let iip = within("connecting", iip.connect(format!("localhost:{port}"))).await;
        assert_eq!(iip.unwrap().request("/echo", "iip").await.unwrap(), "iip");

        let mut stream = encrypted(&client, address).await;
        stream.write_all(get("/healthz").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut reply = Vec::new();
        within("a reply", async {
            while !reply.ends_with(b"\r\n\r\nok\n") {
                assert!(stream.read_buf(&mut reply).await.unwrap() > 0);
            }
        })
        .await;

        let stream = encrypted(&client, address).await;
        let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = made.unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://localhost/readyz").body(Empty::<Bytes>::new());
        let response = within("a reply", sender.send_request(request.unwrap())).await;
        assert_eq!(response.unwrap().status(), 200);

        let mut plain = Http::connect(address).await;
        plain.send(get("/healthz")).await;
        // An alert of TLS.
        assert!(!plain.closed().await.starts_with(b"HTTP"));
    }

    #[tokio::test]
    async fn probes_without_tls_are_answered_if_plain_connections_are_allowed() {
        let (server, _) = identity();
        let (_server, address) = start(config().tls(server).also_plain(true)).await;
        assert_eq!(ask(address, get("/healthz")).await.status, 200);
    }
}
