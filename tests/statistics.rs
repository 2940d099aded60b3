//! The counters of servers and clients: calls by code, their durations, and the bytes on the wire.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use iip_core::{HandlerError, OnCancel, Request, RequestMode, Response, handler_fn};
use iip_rpc::stats::{MethodStats, OTHER, Snapshot, Traffic};
use iip_rpc::{Client, Code, Limits, Server, Status, Streaming, service};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::common::frame::RawFrame;
use crate::common::{MIB, all_run, bound, eventually, passes, spawn, started, stream_fn, within};

#[derive(
    Debug,
    serde::Serialize,
    serde::Deserialize,
    thiserror::Error,
    iip_rpc::MethodError,
    iip_rpc::Schema,
)]
enum Refusal {
    #[error("no")]
    No,
    #[error(transparent)]
    #[status]
    Status(Status),
}

#[service]
trait Shop {
    async fn price(&self, item: String) -> Result<u64, Status>;
    async fn order(&self, item: String) -> Result<u64, Refusal>;
    async fn upload(&self, parts: Streaming<Bytes>) -> Result<u64, Status>;
    #[rpc(oneway)]
    async fn note(&self, text: String) -> Result<(), Status>;
}

struct Corner;

impl Shop for Corner {
    async fn price(&self, item: String) -> Result<u64, Status> {
        match item.as_str() {
            "nothing" => Err(Status::not_found("there is none")),
            "crash" => panic!("as the test wants"),
            _ => Ok(item.len() as u64),
        }
    }

    async fn order(&self, item: String) -> Result<u64, Refusal> {
        match item.as_str() {
            "nothing" => Err(Refusal::No),
            _ => Ok(1),
        }
    }

    async fn upload(&self, mut parts: Streaming<Bytes>) -> Result<u64, Status> {
        let mut size = 0;
        while let Some(part) = parts.next().await {
            size += part?.len() as u64;
        }
        Ok(size)
    }

    async fn note(&self, _: String) -> Result<(), Status> {
        Ok(())
    }
}

/// The codes of a method, as names and numbers of calls.
fn codes(stats: &Snapshot, path: &str) -> Vec<(&'static str, u64)> {
    let method = stats.method(path);
    let codes = method.map(|method| method.codes.iter().collect::<Vec<_>>());
    let codes = codes.unwrap_or_default().into_iter();
    codes.map(|(_, name, count)| (name, count)).collect()
}

#[tokio::test]
async fn typed_calls_are_counted_by_their_codes_on_both_sides() {
    let server = Server::builder().service(ShopServer::new(Corner));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    let shop = ShopClient::new(client.clone());
    for item in ["a", "nothing", "b", "crash", "nothing"] {
        let _ = shop.price(item.into()).await;
        let _ = shop.order(item.into()).await;
    }
    for stats in [server.stats(), client.stats()] {
        let price = codes(&stats, "/shop/price");
        let expected = [("OK", 2), ("NOT_FOUND", 2), ("INTERNAL", 1)];
        assert_eq!(price, expected, "{:?}", stats.side);
        let order = codes(&stats, "/shop/order");
        assert_eq!(order, [("OK", 3), ("UNKNOWN", 2)], "{:?}", stats.side);
        let method = stats.method("/shop/price").unwrap();
        assert_eq!((method.name(), method.in_flight), ("shop/price", 0));
        assert_eq!(method.latency.count(), 5);
        assert!(method.latency.quantile(0.5).unwrap() <= method.latency.sum());
        assert_eq!(stats.total().codes.total(), 10);
        assert_eq!(stats.connections.open, 1);
        assert_eq!(stats.connections.list.len(), 1);
    }
}

#[tokio::test]
async fn unknown_paths_share_one_entry_at_a_server() {
    let (server, _) = bound(iip_core::Server::builder()).await;
    let client = iip_core::Client::connect(server.target()).await.unwrap();
    for number in 0..100 {
        let _ = client.request(&format!("/invented/{number}"), "x").await;
    }
    let stats = server.stats();
    assert_eq!(stats.methods.len(), 1);
    assert_eq!(codes(&stats, OTHER), [("UNIMPLEMENTED", 100)]);
}

#[tokio::test]
async fn a_client_has_entries_for_a_thousand_paths() {
    let echo = handler_fn(|request: Request| async move {
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    });
    let (server, _) = bound(iip_core::Server::builder().fallback(echo)).await;
    let client = iip_core::Client::connect(server.target()).await.unwrap();
    for number in 0..1100 {
        let path = format!("/path/{number}?query={number}");
        client.request(&path, "x").await.unwrap();
    }
    let stats = client.stats();
    assert_eq!(stats.methods.len(), 1001);
    assert_eq!(codes(&stats, "/path/7"), [("OK", 1)]);
    assert_eq!(codes(&stats, OTHER), [("OK", 100)]);
    let total = server.stats().total();
    assert_eq!((total.codes.ok(), total.received.messages), (1100, 1100));
}

#[tokio::test]
async fn calls_in_flight_and_cancelled_ones_are_counted() {
    let gate = Arc::new(Notify::new());
    let (open, entered) = (Arc::clone(&gate), Arc::new(Notify::new()));
    let enters = Arc::clone(&entered);
    let wait = handler_fn(move |_: Request| {
        let (open, enters) = (Arc::clone(&open), Arc::clone(&enters));
        async move {
            enters.notify_one();
            open.notified().await;
            Ok::<_, HandlerError>(Response::from("done"))
        }
    });
    let (server, _) = bound(iip_core::Server::builder().route("/wait", wait)).await;
    let config = iip_core::Client::builder().hello(serde_json::json!({}));
    let client = config.connect(server.target()).await.unwrap();
    let first = started(client.request("/wait", "x")).await;
    entered.notified().await;
    let second = started(client.request("/wait", "x")).await;
    entered.notified().await;
    for stats in [server.stats(), client.stats()] {
        assert_eq!(stats.method("/wait").unwrap().in_flight, 2);
        assert_eq!(stats.connections.list[0].in_flight, 2);
    }
    drop(second);
    assert_eq!(codes(&client.stats(), "/wait"), [("CANCELLED", 1)]);
    let cancelled = || codes(&server.stats(), "/wait") == [("CANCELLED", 1)];
    eventually("the cancellation", cancelled).await;
    gate.notify_one();
    within("the reply", first.finish()).await.unwrap();
    for stats in [server.stats(), client.stats()] {
        let method = stats.method("/wait").unwrap();
        assert_eq!(method.in_flight, 0);
        assert_eq!(codes(&stats, "/wait"), [("OK", 1), ("CANCELLED", 1)]);
    }
}

#[tokio::test]
async fn calls_of_a_lost_connection_are_counted() {
    let entered = Arc::new(Notify::new());
    let enters = Arc::clone(&entered);
    let wait = handler_fn(move |_: Request| {
        let enters = Arc::clone(&enters);
        async move {
            enters.notify_one();
            std::future::pending::<()>().await;
            Ok::<_, HandlerError>(Response::from("never"))
        }
    });
    let (server, _) = bound(iip_core::Server::builder().route("/wait", wait)).await;
    let client = iip_core::Client::connect(server.target()).await.unwrap();
    let call = started(client.request("/wait", "x")).await;
    entered.notified().await;
    server.shutdown(Duration::ZERO).await;
    within("the error", call.finish()).await.unwrap_err();
    assert_eq!(codes(&client.stats(), "/wait"), [("UNAVAILABLE", 1)]);
    assert_eq!(codes(&server.stats(), "/wait"), [("CANCELLED", 1)]);
    for stats in [server.stats(), client.stats()] {
        assert_eq!(stats.total().in_flight, 0);
    }
}

#[tokio::test]
async fn the_latency_is_that_of_the_call() {
    let entered = Arc::new(Notify::new());
    let enters = Arc::clone(&entered);
    let wait = handler_fn(move |_: Request| {
        let enters = Arc::clone(&enters);
        async move {
            enters.notify_one();
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, HandlerError>(Response::from("done"))
        }
    });
    let (server, _) = bound(iip_core::Server::builder().route("/wait", wait)).await;
    let client = iip_core::Client::connect(server.target()).await.unwrap();
    let call = started(client.request("/wait", "x")).await;
    entered.notified().await;
    all_run().await;
    passes(Duration::from_secs(2)).await;
    within("the reply", call.finish()).await.unwrap();
    for stats in [server.stats(), client.stats()] {
        let latency = &stats.method("/wait").unwrap().latency;
        assert!(latency.sum() >= Duration::from_secs(2));
        let median = latency.quantile(0.5).unwrap();
        assert!(median >= Duration::from_millis(1930), "{median:?}");
    }
}

/// Both directions of a connection, as they pass through a proxy.
#[derive(Default)]
struct Tapped {
    to_server: Mutex<Vec<u8>>,
    to_client: Mutex<Vec<u8>>,
}

/// Starts a proxy in front of `server` that keeps what passes.
async fn tap(server: SocketAddr) -> (String, Arc<Tapped>) {
    let tapped = Arc::<Tapped>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let seen = Arc::clone(&tapped);
    spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let up = copy(from_client, to_server, &seen.to_server);
        let down = copy(from_server, to_client, &seen.to_client);
        tokio::join!(up, down);
    });
    (addr, tapped)
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: &Mutex<Vec<u8>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await
        && read > 0
    {
        seen.lock().unwrap().extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Frames, messages and bytes of each method, counted from the bytes. A frame without a path
/// belongs to the message that its channel has begun.
fn counted(bytes: &[u8]) -> BTreeMap<String, (u64, u64, u64)> {
    let mut methods = BTreeMap::<_, (u64, u64, u64)>::new();
    let mut begun = BTreeMap::new();
    let (frames, left) = RawFrame::decode_all(bytes);
    assert_eq!(left, 0, "the connection is at rest");
    for frame in frames {
        // First and only frames: 0 and 1 of a client, 4 and 5 of a server.
        let path = frame.path_text();
        let begins = matches!(frame.status, 0 | 1 | 4 | 5);
        let ends = matches!(frame.status, 1 | 3 | 5 | 7);
        if begins {
            let label = path.split('?').next().unwrap().to_owned();
            begun.insert(frame.channel, label);
        }
        let label = begun[&frame.channel].clone();
        if label.starts_with("/sys/") {
            continue;
        }
        let count = methods.entry(label).or_default();
        count.0 += 1;
        count.1 += u64::from(ends);
        count.2 += frame.encode().len() as u64;
    }
    methods
}

fn traffic(stats: &Snapshot, of: fn(&MethodStats) -> Traffic) -> BTreeMap<String, (u64, u64, u64)> {
    let methods = stats.methods.iter();
    let counts = methods.map(|method| {
        let traffic = of(method);
        let count = (traffic.frames, traffic.messages, traffic.bytes);
        (method.path.to_string(), count)
    });
    counts.collect()
}

#[tokio::test]
async fn frames_messages_and_bytes_are_those_on_the_wire() {
    let echo = |mode| {
        handler_fn(|mut request: Request| async move {
            if let Some(mut parts) = request.parts() {
                let mut reply = request.reply().unwrap();
                while let Some(part) = parts.next().await {
                    let part = part.map_err(|_| HandlerError::new("cut"))?;
                    reply.send(part).await?;
                }
                reply.finish("end")?;
                return Ok(Response::streamed());
            }
            if let Some((mut send, mut recv)) = request.stream() {
                while let Some(Ok(part)) = recv.next().await {
                    let _ = send.send(part).await;
                }
                return Ok("streamed".into());
            }
            Ok::<_, HandlerError>(Response::from(request.into_body()))
        })
        .request_mode(mode)
        .on_cancel(OnCancel::RunToEnd)
    };
    let server = Server::builder()
        .service(ShopServer::new(Corner))
        .limits(Limits::default().max_message_bytes(8 * MIB));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let raw = iip_core::Server::builder()
        .route("/whole", echo(RequestMode::Whole))
        .route("/parts", echo(RequestMode::Parts))
        .route("/stream", echo(RequestMode::Stream))
        .announce(serde_json::json!({}));
    let (raw, raw_addr) = bound(raw).await;

    let (target, tapped) = tap(raw_addr).await;
    let config = iip_core::Client::builder().hello(serde_json::json!({}));
    let client = config.connect(target.as_str()).await.unwrap();
    for size in [1, 100, 2000, 70_000, 3 * MIB] {
        let body = Bytes::from(vec![7; size]);
        let reply = client.request("/whole?size=1", body.clone()).await.unwrap();
        assert_eq!(reply.len(), size);
        client.request("/parts", body.clone()).await.unwrap();
        let unknown = client.request("/unknown", body.clone()).await.unwrap();
        assert!(unknown.starts_with(b"{\"code\":102"));
        let (mut send, mut recv) = client.open_stream("/stream", "first").await.unwrap();
        let sent = spawn(async move {
            send.send(body).await.unwrap();
            send.finish();
        });
        let mut received = 0;
        while let Some(part) = within("a part", recv.next()).await {
            received += part.unwrap().len();
        }
        assert_eq!(received, size + 5);
        assert_eq!(recv.reply().unwrap().unwrap(), "streamed");
        sent.await.unwrap();
    }
    // The end of the last stream follows its reply.
    let ended = |stats: Snapshot, path: &str, count: u64| {
        let method = stats.method(path);
        method.is_some_and(|method| method.received.messages == count)
    };
    eventually("its end", || ended(raw.stats(), "/stream", 5)).await;
    let (sent, received) = {
        let sent = tapped.to_server.lock().unwrap();
        let received = tapped.to_client.lock().unwrap();
        (counted(&sent), counted(&received))
    };
    assert_eq!(traffic(&client.stats(), |method| method.sent), sent);
    assert_eq!(traffic(&client.stats(), |method| method.received), received);
    let known = |mut paths: BTreeMap<String, (u64, u64, u64)>| {
        let unknown = paths.remove("/unknown").unwrap();
        paths.insert(OTHER.to_owned(), unknown);
        paths
    };
    assert_eq!(traffic(&raw.stats(), |method| method.received), known(sent));
    assert_eq!(traffic(&raw.stats(), |method| method.sent), known(received));
    let connection = &raw.stats().connections.list[0];
    assert_eq!(
        connection.received_bytes,
        tapped.to_server.lock().unwrap().len() as u64
    );
    assert_eq!(
        connection.sent_bytes,
        tapped.to_client.lock().unwrap().len() as u64
    );

    let (target, tapped) = tap(server.local_addr().unwrap()).await;
    let client = Client::connect(target.as_str()).await.unwrap();
    let shop = ShopClient::new(client.clone());
    for item in ["pear".to_owned(), "x".repeat(MIB), "nothing".to_owned()] {
        let _ = shop.price(item.clone()).await;
        shop.note(item.clone()).await.unwrap();
        let parts = [(); 3].map(|()| Bytes::from(item.clone()));
        shop.upload(Streaming::iter(parts)).await.unwrap();
    }
    let notes = || {
        server
            .stats()
            .method("/shop/note")
            .is_some_and(|note| note.codes.ok() == 3)
    };
    eventually("the notes", notes).await;
    eventually("the end of uploads", || {
        ended(server.stats(), "/shop/upload", 3)
    })
    .await;
    let (sent, received) = {
        let sent = tapped.to_server.lock().unwrap();
        let received = tapped.to_client.lock().unwrap();
        (counted(&sent), counted(&received))
    };
    let used = |mut paths: BTreeMap<String, (u64, u64, u64)>| {
        paths.retain(|_, count| count.0 > 0);
        paths
    };
    assert_eq!(used(traffic(&client.stats(), |method| method.sent)), sent);
    assert_eq!(
        used(traffic(&client.stats(), |method| method.received)),
        received
    );
    assert_eq!(
        used(traffic(&server.stats(), |method| method.received)),
        sent
    );
    assert_eq!(
        used(traffic(&server.stats(), |method| method.sent)),
        received
    );
    let calls = client.stats().total();
    assert_eq!(calls.codes.get(Code::NotFound.as_u8()), 1);
}

#[test]
fn types_are_described_as_they_are_observed() {
    iip_rpc::schema::check_derived::<Refusal>().unwrap();
}

#[tokio::test]
async fn a_stream_that_waits_for_credit_is_counted_once_for_each_wait() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let read = stream_fn(move |mut request: Request| {
        let gate = Arc::clone(&opened);
        async move {
            let (_send, mut recv) = request.stream().unwrap();
            gate.notified().await;
            while recv.next().await.is_some() {}
            Ok::<_, HandlerError>(Response::from("done"))
        }
    });
    let limits = Limits::default()
        .stream_window(1024)
        .max_stream_window(1024);
    let config = iip_core::Server::builder().limits(limits);
    let (server, _) = bound(config.route("/read", read)).await;
    let config = iip_core::Client::builder().hello(serde_json::json!({}));
    let client = config.connect(server.target()).await.unwrap();
    let (mut send, mut recv) = client.open_stream("/read", "x").await.unwrap();
    send.send(vec![0; 1024]).await.unwrap();
    assert_eq!(client.stats().total().credit_stalls, 0);
    let sending = started(async move {
        send.send("more").await.unwrap();
        send.finish();
    });
    let sending = sending.await;
    for _ in 0..2 {
        let stats = client.stats();
        assert_eq!(stats.method("/read").unwrap().credit_stalls, 1);
        assert_eq!(stats.connections.list[0].credit_stalls, 1);
        all_run().await;
    }
    gate.notify_one();
    within("the rest is sent", sending.finish()).await;
    assert!(within("the end", recv.next()).await.is_none());
    // The server only reads.
    assert_eq!(server.stats().total().credit_stalls, 0);
}

#[tokio::test]
async fn both_sides_know_the_round_trip_of_a_connection() {
    let server = Server::builder().service(ShopServer::new(Corner));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    ShopClient::new(client.clone())
        .price("a".into())
        .await
        .unwrap();
    let known = |stats: Snapshot| stats.connections.list[0].round_trip.is_some();
    eventually("both have measured", || {
        known(server.stats()) && known(client.stats())
    })
    .await;
}
