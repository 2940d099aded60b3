//! Clients that are slow, and connections without requests. The clock of the tests is advanced.

use std::time::Duration;

use iip_gateway::Limits;
use tokio::io::AsyncReadExt;

use crate::common::{
    Backend, Http, all_run, before, bound, get, passes, post, serves, until, within,
};

#[tokio::test]
async fn a_silent_connection_ends_after_the_time_for_the_first_byte() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut http = Http::connect(address).await;
    until("the connection", || gateway.connections() == 1).await;
    passes(Duration::from_secs(9)).await;
    assert_eq!(gateway.connections(), 1);
    passes(Duration::from_secs(2)).await;
    assert!(http.closed().await.is_empty());
    until("its end", || gateway.connections() == 0).await;
}

#[tokio::test]
async fn the_head_has_a_time_limit_of_its_own() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut first = Http::connect(address).await;
    first.send("GET /echo HTTP/1.1\r\nHost: a\r\n").await;
    // The second request of a connection.
    let mut second = Http::connect(address).await;
    second.send(get("/echo")).await;
    assert_eq!(second.reply().await.status, 200);
    second.send("GET /ec").await;
    let mut idle = Http::connect(address).await;
    idle.send(get("/echo")).await;
    assert_eq!(idle.reply().await.status, 200);
    until("all connections", || gateway.connections() == 3).await;
    // A byte now and then does not help.
    for _ in 0..11 {
        passes(Duration::from_secs(1)).await;
        first.send("X").await;
        second.send("h").await;
    }
    assert!(first.closed().await.is_empty());
    assert!(second.closed().await.is_empty());
    idle.send(get("/echo")).await;
    assert_eq!(idle.reply().await.status, 200);
    serves(address).await;
}

#[tokio::test]
async fn a_slow_body_is_refused_and_a_steady_one_is_not() {
    let backend = Backend::new().await;
    let limits = Limits::new().min_body_rate(10);
    let (_gateway, address) = bound(before(&backend).limits(limits)).await;
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    let (mut slow, mut steady) = (Http::connect(address).await, Http::connect(address).await);
    slow.send(head).await;
    steady.send(head).await;
    for _ in 0..9 {
        slow.send("x").await;
        steady.send("x".repeat(100)).await;
        passes(Duration::from_secs(5)).await;
        all_run().await;
    }
    assert_eq!(slow.reply().await.status, 408);
    assert!(slow.closed().await.is_empty());
    steady.send("x".repeat(100)).await;
    assert_eq!(steady.reply().await.body.len(), 1000);
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_parked_serves_on_and_ends_in_time() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut http = Http::connect(address).await;
    for time in [0, 4, 6, 20, 74] {
        passes(Duration::from_secs(time)).await;
        all_run().await;
        http.send(get("/echo")).await;
        assert_eq!(http.reply().await.status, 200, "after {time} s");
    }
    let mut steps = 0;
    while gateway.connections() > 0 {
        passes(Duration::from_secs(5)).await;
        all_run().await;
        steps += 1;
        assert!(steps < 1000, "the connection does not end");
    }
    assert!(steps >= 14, "{steps} steps of 5 s");
    assert!(http.closed().await.is_empty());
}

#[tokio::test]
async fn a_running_request_is_no_idle_connection() {
    let backend = Backend::new().await;
    let group = backend.group().timeout(Duration::from_secs(3600));
    let builder = before(&backend).group("go", group);
    let (_gateway, address) = bound(builder).await;
    let mut http = Http::connect(address).await;
    http.send(post("/wait", "late")).await;
    until("the request", || backend.seen().len() == 1).await;
    passes(Duration::from_secs(200)).await;
    backend.permits.add_permits(1);
    assert_eq!(http.reply().await.body, "late");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut http = Http::connect(address).await;
    http.send(get("/large")).await;
    until("the request", || backend.seen().len() == 1).await;
    // The head arrives first; then the reply fills the buffers of both sockets.
    let mut begin = [0; 15];
    within("the head", http.stream.read_exact(&mut begin))
        .await
        .unwrap();
    let closed = within("the end", async {
        while gateway.connections() > 0 {
            passes(Duration::from_secs(10)).await;
            tokio::task::yield_now().await;
        }
    });
    closed.await;
    assert!(http.closed().await.len() < 8 << 20);
    serves(address).await;
}
