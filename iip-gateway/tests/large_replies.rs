//! Replies that are passed on while they arrive.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use iip_core::{HandlerError, RequestMode, Response, Server, handler_fn};
use iip_gateway::{Gateway, GatewayBuilder, Group, LogFormat, Route};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::common::{Http, LogLines, ask, bound, get, passes, until, within};

/// The size of the parts that the backend sends.
const PART: usize = 100_000;

/// A backend that sends a part, and waits for a permit. Then `/ends` sends the last part, `/cut` ends
/// without a last part, and `/endless` sends parts without end. `/stalls` only sends the first part.
struct Parts {
    server: Server,
    permits: Arc<Semaphore>,
    /// Held while a handler runs.
    running: Arc<()>,
}

impl Parts {
    async fn new() -> Self {
        let (permits, running) = (Arc::new(Semaphore::new(0)), Arc::new(()));
        let (next, runs) = (Arc::clone(&permits), Arc::clone(&running));
        let handler = move |mut request: iip_core::Request| {
            let (next, runs) = (Arc::clone(&next), Arc::clone(&runs));
            async move {
                let _runs = runs;
                let mut reply = request.reply().unwrap();
                reply.send(vec![b'1'; PART]).await?;
                if request.path() == "/stalls" {
                    pending::<()>().await;
                }
                next.acquire().await.unwrap().forget();
                if request.path() == "/endless" {
                    loop {
                        reply.send(vec![b'2'; PART]).await?;
                    }
                }
                if request.path() == "/ends" {
                    reply.finish(vec![b'2'; PART])?;
                }
                Ok::<_, HandlerError>(Response::streamed())
            }
        };
        let handler = Arc::new(handler_fn(handler).request_mode(RequestMode::Parts));
        let routes = ["/ends", "/cut", "/stalls", "/endless"];
        let server = routes.iter().fold(Server::builder(), |server, path| {
            server.route_shared(path, Arc::clone(&handler) as _)
        });
        Self {
            server: server.bind("127.0.0.1:0").await.unwrap(),
            permits,
            running,
        }
    }

    fn gateway(&self) -> GatewayBuilder {
        let group = Group::new(self.server.target()).timeout(Duration::from_secs(20));
        Gateway::builder()
            .group("parts", group)
            .route(Route::all("parts"))
    }

    async fn handlers_end(&self) {
        until("the end of the handlers", || {
            // The handler function has one.
            Arc::strong_count(&self.running) == 2
        })
        .await;
    }
}

/// Reads chunks until there are as many bytes.
async fn bytes_of_body(http: &mut Http, count: usize) -> String {
    let mut body = String::new();
    while body.len() < count {
        body += &http.chunk().await.expect("the body goes on");
    }
    body
}

#[tokio::test]
async fn a_large_reply_is_passed_on_before_it_ends() {
    let backend = Parts::new().await;
    let (_gateway, address) = bound(backend.gateway()).await;
    let mut http = Http::connect(address).await;
    http.send(get("/ends")).await;
    let head = http.try_head().await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(
        head.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(bytes_of_body(&mut http, PART).await, "1".repeat(PART));
    backend.permits.add_permits(1);
    assert_eq!(bytes_of_body(&mut http, PART).await, "2".repeat(PART));
    assert_eq!(http.chunk().await, None);
    // The connection continues.
    backend.permits.add_permits(1);
    http.send(get("/ends")).await;
    assert_eq!(http.reply().await.body.len(), 2 * PART);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_a_large_reply_with_its_length() {
    let backend = Parts::new().await;
    let (_gateway, address) = bound(backend.gateway()).await;
    backend.permits.add_permits(1);
    let reply = ask(address, "GET /ends HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!((reply.status, reply.body.len()), (200, 2 * PART));
    backend.permits.add_permits(1);
    let reply = ask(address, "GET /cut HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn a_reply_that_is_cut_off_looks_so_over_http_1() {
    let backend = Parts::new().await;
    let lines = LogLines::default();
    let builder = backend.gateway().access_log(lines.log(LogFormat::Json));
    let (_gateway, address) = bound(builder).await;
    let mut http = Http::connect(address).await;
    http.send(get("/cut")).await;
    assert_eq!(http.try_head().await.unwrap().status, 200);
    bytes_of_body(&mut http, PART).await;
    backend.permits.add_permits(1);
    let rest = http.closed().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the last chunk was sent");
    let line = &lines.json(1).await[0];
    assert_eq!(
        (&line["status"], &line["sent"]),
        (&200.into(), &PART.into())
    );
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains("cut off"), "{cause}");
}

#[tokio::test]
async fn a_reply_that_is_cut_off_looks_so_over_http_2() {
    let backend = Parts::new().await;
    let (_gateway, address) = bound(backend.gateway()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| {
        let target = format!("http://a{path}");
        Request::get(target).body(Empty::<Bytes>::new()).unwrap()
    };
    let reply = sender.send_request(request("/cut"));
    let reply = within("a head", reply).await.unwrap();
    assert_eq!(reply.status(), 200);
    backend.permits.add_permits(1);
    let body = within("the end of the body", reply.into_body().collect()).await;
    body.expect_err("the body is not complete");
    // The other streams of the connection continue.
    backend.permits.add_permits(1);
    let reply = within("a head", sender.send_request(request("/ends"))).await;
    let body = within("a body", reply.unwrap().into_body().collect()).await;
    assert_eq!(body.unwrap().to_bytes().len(), 2 * PART);
}

#[tokio::test]
async fn a_reply_has_the_time_of_its_group_for_each_part() {
    let backend = Parts::new().await;
    let (_gateway, address) = bound(backend.gateway()).await;
    let (mut ends, mut stalls) = (Http::connect(address).await, Http::connect(address).await);
    for (http, path) in [(&mut ends, "/ends"), (&mut stalls, "/stalls")] {
        http.send(get(path)).await;
        assert_eq!(http.try_head().await.unwrap().status, 200);
        bytes_of_body(http, PART).await;
    }
    passes(Duration::from_secs(15)).await;
    backend.permits.add_permits(1);
    assert_eq!(bytes_of_body(&mut ends, PART).await, "2".repeat(PART));
    assert_eq!(ends.chunk().await, None);
    passes(Duration::from_secs(6)).await;
    assert!(stalls.closed().await.is_empty());
    backend.handlers_end().await;
}

#[tokio::test]
async fn a_client_that_leaves_during_a_reply_cancels_the_call() {
    let backend = Parts::new().await;
    let (_gateway, address) = bound(backend.gateway()).await;
    let mut http = Http::connect(address).await;
    http.send(get("/stalls")).await;
    assert_eq!(http.try_head().await.unwrap().status, 200);
    drop(http);
    backend.handlers_end().await;
}

#[tokio::test]
async fn a_reply_that_its_client_does_not_read_takes_bounded_memory() {
    let backend = Parts::new().await;
    let (_gateway, address) = bound(backend.gateway()).await;
    let mut http = Http::connect(address).await;
    backend.permits.add_permits(1);
    http.send(get("/endless")).await;
    assert_eq!(http.try_head().await.unwrap().status, 200);
    // The call fails once its parts take 64 MiB.
    backend.handlers_end().await;
    let rest = http.closed().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the last chunk was sent");
}
