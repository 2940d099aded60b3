//! Clients behind a proxy that sends headers of the PROXY protocol, written by hand.

use std::net::SocketAddr;
use std::time::Duration;

use iip_core::transport::{ConnectFuture, Connected, Connector, ProxyProtocol};
use iip_core::{
    Client, HandlerError, Limits, Request, Response, Server, ServerBuilder, handler_fn,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::alone::alone;
use crate::common::authority::Authority;
use crate::common::logs::Logs;
use crate::common::peer::{Peer, stream_to};
use crate::common::{all_run, bound, eventually, passes, within};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header of a client of IPv4 whose address ends with `last`, with an additional field.
fn header(last: u8) -> Vec<u8> {
    let addresses = [192, 0, 2, last, 127, 0, 0, 1, 0x1f, 0x90, 0, 80];
    let field = [4, 0, 3, 1, 2, 3];
    [SIGNATURE, &[0x21, 0x11, 0, 18], &addresses, &field].concat()
}

/// The header of a connection of the proxy itself.
fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

fn config(networks: &[&str]) -> ServerBuilder {
    let addr = |request: Request| async move {
        let addr = request.peer().addr().expect("an address of TCP");
        Ok::<_, HandlerError>(Response::from(addr.to_string()))
    };
    let proxies = ProxyProtocol::from_networks(networks).expect("networks");
    Server::builder()
        .route("/addr", handler_fn(addr))
        .proxy_protocol(proxies)
}

async fn start(networks: &[&str]) -> (Server, SocketAddr) {
    bound(config(networks)).await
}

/// The address of the peer as the server sees it.
async fn seen_after(addr: SocketAddr, header: &[u8]) -> String {
    let mut peer = Peer::connect(addr).await;
    peer.send(header).await;
    let channel = peer.open_channel().await;
    peer.call("/addr", channel, "x").await.body_text()
}

/// Connects through a proxy that this test plays.
#[derive(Debug)]
struct Proxy(SocketAddr);

impl Connector for Proxy {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async {
            let mut stream = TcpStream::connect(self.0).await?;
            stream.write_all(&header(1)).await?;
            Ok(Connected::new(stream))
        })
    }

    fn describe(&self) -> String {
        "proxy".to_owned()
    }

    fn host(&self) -> Option<&str> {
        Some("localhost")
    }
}

#[tokio::test]
async fn the_peer_of_a_connection_through_a_proxy_is_the_client() {
    let (_server, addr) = start(&["10.0.0.0/8", "127.0.0.0/8"]).await;
    assert_eq!(seen_after(addr, &header(1)).await, "192.0.2.1:8080");
    let seen = seen_after(addr, &local()).await;
    assert!(seen.starts_with("127.0.0.1:"), "{seen}");
}

#[tokio::test]
async fn the_header_may_arrive_byte_by_byte() {
    let (_server, addr) = start(&["127.0.0.1"]).await;
    let mut peer = Peer::connect(addr).await;
    for byte in header(7) {
        peer.send(&[byte]).await;
        all_run().await;
    }
    let channel = peer.open_channel().await;
    let seen = peer.call("/addr", channel, "x").await.body_text();
    assert_eq!(seen, "192.0.2.7:8080");
}

#[tokio::test]
async fn the_header_precedes_tls() {
    let authority = Authority::new("root");
    let (_server, addr) = bound(config(&["127.0.0.1"]).tls(authority.server())).await;
    let client = Client::builder().tls(authority.client());
    let client = within("connecting", client.connect_with(Proxy(addr))).await;
    let client = client.expect("a client");
    let seen = within("a reply", client.request("/addr", "x")).await;
    assert_eq!(&seen.expect("a reply")[..], b"192.0.2.1:8080");
}

#[tokio::test]
async fn a_peer_that_is_not_listed_is_served_without_a_header_and_not_with_one() {
    let (_server, addr) = start(&["10.0.0.0/8"]).await;
    let seen = seen_after(addr, &[]).await;
    assert!(seen.starts_with("127.0.0.1:"), "{seen}");
    let mut peer = Peer::connect(addr).await;
    peer.send(&header(1)).await;
    peer.closed_in_silence().await;
}

#[tokio::test]
async fn a_listed_peer_without_a_valid_header_is_disconnected() {
    let (server, addr) = start(&["127.0.0.1"]).await;
    let mut truncated = header(1);
    truncated[15] = 11;
    let bad = [
        b"PROXY TCP4 192.0.2.1 127.0.0.1 8080 80\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 64],
        truncated,
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        [SIGNATURE, &[0x31, 0x11, 0, 12], &[0; 12]].concat(),
    ];
    for bytes in bad {
        let mut peer = Peer::connect(addr).await;
        peer.send(&bytes).await;
        peer.closed_in_silence().await;
    }
    eventually("the end of all connections", || server.connections() == 0).await;
    assert_eq!(seen_after(addr, &header(1)).await, "192.0.2.1:8080");
}

#[tokio::test]
async fn a_header_that_does_not_arrive_in_time_ends_the_connection() {
    let limit = Duration::from_secs(77);
    let limits = Limits::default().frame_head_timeout(limit);
    let (server, addr) = bound(config(&["127.0.0.1"]).limits(limits)).await;
    let mut peer = Peer::connect(addr).await;
    peer.send(&header(1)[..20]).await;
    eventually("the connection", || server.connections() == 1).await;
    all_run().await;
    passes(limit / 2).await;
    all_run().await;
    assert_eq!(server.connections(), 1);
    passes(limit).await;
    peer.closed_in_silence().await;
}

#[tokio::test]
async fn the_limit_of_connections_per_peer_is_that_of_the_client_and_not_of_the_proxy() {
    let config = config(&["127.0.0.1"]).max_connections_per_peer(1);
    let (_server, addr) = bound(config).await;
    let mut peers = Vec::new();
    for client in 1..=4 {
        let mut peer = Peer::connect(addr).await;
        peer.send(&header(client)).await;
        peer.open_channel().await;
        peers.push(peer);
    }
    let mut second = Peer::connect(addr).await;
    second.send(&header(4)).await;
    second.closed_in_silence().await;
    // Its place is free once the first connection of this client has gone.
    drop(peers.pop().expect("a connection"));
    within("a place", async {
        loop {
            let mut peer = Peer::connect(addr).await;
            peer.send(&header(4)).await;
            peer.send_frame(&crate::common::frame::RawFrame::new_channel())
                .await;
            if let crate::common::peer::Seen::Frame(_) = peer.next().await {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn connections_that_wait_for_a_header_give_way_to_others() {
    let config = config(&["127.0.0.1"]).max_connections(2);
    let (_server, addr) = bound(config).await;
    let _silent = [stream_to(addr).await, stream_to(addr).await];
    all_run().await;
    passes(Duration::from_secs(2)).await;
    assert_eq!(seen_after(addr, &header(1)).await, "192.0.2.1:8080");
}

#[test]
fn a_missing_header_is_logged_and_a_check_of_the_port_is_not() {
    alone(
        "a_missing_header_is_logged_and_a_check_of_the_port_is_not",
        || async {
            let logs = Logs::captured();
            let (server, addr) = start(&["127.0.0.1"]).await;
            drop(stream_to(addr).await);
            let mut peer = Peer::connect(addr).await;
            peer.send(b"GET / HTTP/1.1\r\n\r\n").await;
            peer.closed_in_silence().await;
            eventually("the end of both connections", || server.connections() == 0).await;
            let lines = logs.take();
            let warnings = lines
                .iter()
                .filter(|line| line.level <= tracing::Level::WARN);
            let warnings: Vec<_> = warnings.collect();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            let error = warnings[0].get("error").expect("a reason");
            assert!(error.contains("option proxy_protocol"), "{error}");
        },
    );
}

#[test]
fn networks_that_are_not_valid_are_named() {
    for (networks, expected) in [
        (&["10.0.0.0/8", "10.0.0.1/8"][..], "\"10.0.0.1/8\""),
        (&["proxy"], "\"proxy\""),
        (&[], "the list of networks is empty"),
    ] {
        let error = ProxyProtocol::from_networks(networks).expect_err(expected);
        let error = error.to_string();
        assert!(error.contains("proxy_protocol"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
