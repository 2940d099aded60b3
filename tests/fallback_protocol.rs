//! Another protocol on the port of a server, by a handler of the test: whatever it is sent, it
//! replies with one line about its connection, then echoes.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use iip_core::sniff::Protocol;
use iip_core::transport::{ConnectFuture, Connected, Connector, ProxyProtocol};
use iip_core::{
    Client, HandlerError, Limits, ProtocolConnection, ProtocolHandler, Request, Response, Server,
    ServerBuilder, handler_fn,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::common::authority::Authority;
use crate::common::peer::{Peer, stream_to};
use crate::common::{GUARD, all_run, bound, eventually, passes, spawn, started, within};

/// Echoes what connections of HTTP send, after a line of what it knows of them.
#[derive(Debug, Default)]
struct Echo {
    /// It does not end when it should.
    is_stubborn: bool,
}

impl ProtocolHandler for Echo {
    fn accepts(&self, protocol: Protocol) -> bool {
        matches!(protocol, Protocol::Http1 | Protocol::Http2)
    }

    fn serve(
        &self,
        mut connection: ProtocolConnection,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let is_stubborn = self.is_stubborn;
        Box::pin(async move {
            let mut drain = connection.drain.clone();
            let echo = async {
                let line = describe(&connection).await;
                let first = &connection.first;
                connection.io.write_all(line.as_bytes()).await?;
                connection.io.write_all(first).await?;
                connection.io.flush().await?;
                let mut buffer = [0; 64];
                loop {
                    match connection.io.read(&mut buffer).await? {
                        0 => return Ok::<_, std::io::Error>(()),
                        count => connection.io.write_all(&buffer[..count]).await?,
                    }
                    connection.io.flush().await?;
                }
            };
            if is_stubborn {
                let _ = echo.await;
            } else {
                tokio::select! {
                    _ = echo => {}
                    () = drain.begun() => {}
                }
            }
        })
    }

    fn alpn(&self) -> &'static [&'static str] {
        &["http/1.1"]
    }
}

/// A line: the protocol, whether it is encrypted, and the peer as a handler of IIP sees it.
fn describe(connection: &ProtocolConnection) -> impl Future<Output = String> + Send + use<> {
    let connector = connection.server.connector(&connection.peer);
    let (protocol, encrypted) = (connection.protocol, connection.is_encrypted);
    async move {
        let peer = match Client::builder().connect_with(connector).await {
            Ok(client) => match client.request("/peer", "x").await {
                Ok(reply) => String::from_utf8_lossy(&reply).into_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        format!("{protocol:?} {encrypted} {peer}\n")
    }
}

fn config() -> ServerBuilder {
    // The address and the number of certificates of the caller.
    let peer = handler_fn(|request: Request| async move {
        let peer = request.peer();
        let text = format!("{:?} {}", peer.addr(), peer.certificates().len());
        Ok::<_, HandlerError>(Response::from(text))
    });
    let echo = handler_fn(|request: Request| async move {
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    });
    Server::builder().route("/peer", peer).route("/echo", echo)
}

async fn start() -> (Server, SocketAddr) {
    bound(config().fallback_protocol(Echo::default())).await
}

/// A connection of another protocol, which has been served.
struct Other(BufStream<TcpStream>);

impl Other {
    async fn connect(addr: SocketAddr) -> (Self, String) {
        let mut this = Self(BufStream::new(stream_to(addr).await));
        this.send("GET /").await;
        let line = this.line().await;
        this.expect("GET /").await;
        (this, line)
    }

    async fn send(&mut self, text: &str) {
        let sending = async {
            self.0.write_all(text.as_bytes()).await?;
            self.0.flush().await
        };
        within("sending", sending)
            .await
            .expect("an open connection");
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = within("a line", self.0.read_line(&mut line)).await;
        read.expect("text");
        line.trim_end().to_owned()
    }

    async fn expect(&mut self, text: &str) {
        let mut read = vec![0; text.len()];
        let reading = within("an echo", self.0.read_exact(&mut read)).await;
        reading.expect("an echo");
        assert_eq!(read, text.as_bytes());
    }

    /// Asserts that it echoes.
    async fn echoes(&mut self) {
        self.send("more").await;
        self.expect("more").await;
    }

    /// Waits until the server closes.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = within("the end", self.0.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

#[tokio::test]
async fn the_first_byte_decides_between_iip_and_the_handler() {
    let (server, addr) = start().await;
    let client = Client::connect(addr).await.expect("a client");
    assert_eq!(
        client.request("/echo", "hello").await.expect("a reply"),
        "hello"
    );
    let mut peer = Peer::connect(addr).await;
    let frame = crate::common::frame::RawFrame::new_channel().encode();
    for byte in &frame[..] {
        peer.send(&[*byte]).await;
        all_run().await;
    }
    peer.frame().await;
    peer.echoes(1, "one byte at a time").await;

    let (mut other, line) = Other::connect(addr).await;
    let local = other.0.get_ref().local_addr().expect("an address");
    assert_eq!(line, format!("Http1 false Some({local}) 0"));
    other.echoes().await;
    // Its connection to the server itself is not counted.
    assert_eq!(server.connections(), 3);
    let mut http2 = stream_to(addr).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for part in preface.chunks(5) {
        http2.write_all(part).await.expect("an open connection");
        all_run().await;
    }
    let mut reply = [0; 5];
    within("a reply", http2.read_exact(&mut reply))
        .await
        .expect("a reply");
    assert_eq!(&reply, b"Http2");
}

#[tokio::test]
async fn other_protocols_than_that_of_the_handler_are_closed() {
    let (server, addr) = start().await;
    for bytes in [
        &b"\x63nothing"[..],
        b"get / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ] {
        let mut peer = Peer::connect(addr).await;
        peer.send(bytes).await;
        peer.closed_in_silence().await;
    }
    eventually("their end", || server.connections() == 0).await;
}

#[tokio::test]
async fn a_connection_without_a_first_byte_ends_in_time() {
    let limit = Duration::from_secs(77);
    let limits = Limits::default().frame_head_timeout(limit);
    let (server, addr) = bound(config().fallback_protocol(Echo::default()).limits(limits)).await;
    let mut silent = Peer::connect(addr).await;
    let mut half = Peer::connect(addr).await;
    // It may still become HTTP/2.
    half.send(b"PRI * HTTP/").await;
    let (mut other, _) = Other::connect(addr).await;
    eventually("the connections", || server.connections() == 3).await;
    all_run().await;
    passes(limit / 2).await;
    all_run().await;
    assert_eq!(server.connections(), 3);
    passes(limit).await;
    silent.closed_in_silence().await;
    half.closed_in_silence().await;
    other.echoes().await;
}

#[tokio::test]
async fn connections_of_all_protocols_share_the_limit() {
    let config = config()
        .fallback_protocol(Echo::default())
        .max_connections(2);
    let (server, addr) = bound(config).await;
    let (mut other, _) = Other::connect(addr).await;
    let mut peer = Peer::connect(addr).await;
    peer.open_channel().await;
    let mut third = Peer::connect(addr).await;
    third.closed_in_silence().await;
    other.echoes().await;
    drop(other);
    eventually("a place", || server.connections() == 1).await;
    // A silent connection gives way.
    let mut silent = Peer::connect(addr).await;
    eventually("the connection", || server.connections() == 2).await;
    all_run().await;
    passes(Duration::from_secs(2)).await;
    let (mut other, _) = Other::connect(addr).await;
    silent.closed_in_silence().await;
    other.echoes().await;
}

#[tokio::test]
async fn a_shutdown_tells_the_handler_and_waits_for_it() {
    let (server, addr) = start().await;
    let (mut other, _) = Other::connect(addr).await;
    within("the shutdown", server.shutdown(10 * GUARD)).await;
    other.closed().await;
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_shutdown_drops_what_has_not_ended_in_time() {
    let echo = Echo { is_stubborn: true };
    let (server, addr) = bound(config().fallback_protocol(echo)).await;
    let (mut other, _) = Other::connect(addr).await;
    let limit = Duration::from_secs(100);
    let shutdown = spawn(async move {
        server.shutdown(limit).await;
        server
    });
    // The listener has gone, and the connection is still served.
    within("the end of the listener", async {
        while TcpStream::connect(addr).await.is_ok() {
            all_run().await;
        }
    })
    .await;
    other.echoes().await;
    passes(limit).await;
    other.closed().await;
    let server = within("the shutdown", shutdown).await.expect("no panic");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_connection_that_has_reached_its_age_is_told_and_then_dropped() {
    let (age, grace) = (Duration::from_secs(100), Duration::from_secs(50));
    for is_stubborn in [false, true] {
        let config = config().fallback_protocol(Echo { is_stubborn });
        let config = config.max_connection_age(age).max_connection_grace(grace);
        let (server, addr) = bound(config).await;
        let (mut other, _) = Other::connect(addr).await;
        passes(age * 8 / 10).await;
        other.echoes().await;
        passes(age * 3 / 10).await;
        if is_stubborn {
            other.echoes().await;
            passes(grace).await;
        }
        other.closed().await;
        eventually("its end", || server.connections() == 0).await;
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_gets_no_calls_from_itself() {
    /// Connects to the server when the server has begun to drain.
    #[derive(Debug)]
    struct Late(Arc<Semaphore>);

    impl ProtocolHandler for Late {
        fn accepts(&self, _: Protocol) -> bool {
            true
        }

        fn serve(
            &self,
            mut connection: ProtocolConnection,
        ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let begun = Arc::clone(&self.0);
            Box::pin(async move {
                begun.add_permits(1);
                connection.drain.begun().await;
                let is_ready = connection.server.is_ready();
                let line = describe(&connection).await;
                let text = format!("{is_ready} {line}");
                let _ = connection.io.write_all(text.as_bytes()).await;
            })
        }
    }

    let begun = Arc::new(Semaphore::new(0));
    let (server, addr) = bound(config().fallback_protocol(Late(Arc::clone(&begun)))).await;
    let mut stream = stream_to(addr).await;
    stream.write_all(b"GET").await.expect("an open connection");
    begun.acquire().await.expect("open").forget();
    assert!(server.is_ready());
    within("the shutdown", server.shutdown(10 * GUARD)).await;
    assert!(!server.is_ready());
    let mut text = String::new();
    within("the end", stream.read_to_string(&mut text))
        .await
        .expect("text");
    assert!(text.starts_with("false Http1 false "), "{text}");
    assert!(text.contains("cannot connect to this server"), "{text}");
}

#[tokio::test]
async fn a_call_to_the_server_itself_may_end_during_a_shutdown() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let peer = handler_fn(move |_: Request| {
        let wait = Arc::clone(&wait);
        async move {
            wait.acquire().await.expect("open").forget();
            Ok::<_, HandlerError>(Response::from("late"))
        }
    });
    let echo = Echo { is_stubborn: true };
    let config = Server::builder()
        .route("/peer", peer)
        .fallback_protocol(echo);
    let (server, addr) = bound(config).await;
    let mut other = Other(BufStream::new(stream_to(addr).await));
    other.send("GET").await;
    eventually("the call", || {
        gate.available_permits() == 0 && server.connections() == 1
    })
    .await;
    all_run().await;
    let shutdown = started(server.shutdown(10 * GUARD)).await;
    gate.add_permits(1);
    assert_eq!(other.line().await, "Http1 false late");
    drop(other);
    within("the shutdown", shutdown.finish()).await;
}

#[tokio::test]
async fn a_server_is_ready_while_all_conditions_hold() {
    let flags = [(); 2].map(|()| Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let config = flags.iter().fold(config(), |config, flag| {
        let flag = Arc::clone(flag);
        config.readiness(move || flag.load(std::sync::atomic::Ordering::Relaxed))
    });
    let (server, _) = bound(config).await;
    assert!(server.is_ready());
    for flag in flags {
        flag.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(!server.is_ready());
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(server.is_ready());
    }
}

#[tokio::test]
async fn the_peer_behind_a_proxy_is_that_of_calls_to_the_server_itself() {
    let proxies = ProxyProtocol::from_networks(["127.0.0.1"]).expect("a network");
    let config = config()
        .fallback_protocol(Echo::default())
        .proxy_protocol(proxies);
    let (_server, addr) = bound(config).await;
    let mut other = Other(BufStream::new(stream_to(addr).await));
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x7f\0\0\x01\x1f\x90\0\x50";
    other.0.write_all(header).await.expect("an open connection");
    other.send("GET /").await;
    assert_eq!(other.line().await, "Http1 false Some(192.0.2.1:8080) 0");
}

/// Connects over TCP and TLS.
#[derive(Debug)]
struct Plain(SocketAddr);

impl Connector for Plain {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async { Ok(Connected::new(TcpStream::connect(self.0).await?)) })
    }

    fn describe(&self) -> String {
        "plain".to_owned()
    }

    fn host(&self) -> Option<&str> {
        Some("localhost")
    }
}

#[tokio::test]
async fn inside_tls_the_first_byte_decides_too_and_outside_only_if_allowed() {
    let authority = Authority::new("root");
    for also_plain in [false, true] {
        let config = config().fallback_protocol(Echo::default());
        let config = config.tls(authority.closed_server()).also_plain(also_plain);
        let (_server, addr) = bound(config).await;
        let tls = authority.client_known_to(&authority);
        let client = Client::builder().tls(tls.clone());
        let client = within("connecting", client.connect_with(Plain(addr))).await;
        let reply = client.expect("a client").request("/peer", "x").await;
        let reply = String::from_utf8(reply.expect("a reply").to_vec()).expect("text");
        assert!(reply.ends_with(" 1"), "{reply}");

        let connecting = tls.connect(stream_to(addr).await, Some("localhost"));
        let (stream, _) = within("a handshake", connecting).await.expect("a stream");
        let mut stream = BufStream::new(stream);
        stream
            .write_all(b"GET /")
            .await
            .expect("an open connection");
        stream.flush().await.expect("an open connection");
        let mut line = String::new();
        within("a line", stream.read_line(&mut line))
            .await
            .expect("text");
        assert!(line.starts_with("Http1 true Some(127.0.0.1:"), "{line}");
        assert!(line.ends_with(") 1\n"), "{line}");

        let mut other = Other(BufStream::new(stream_to(addr).await));
        let mut peer = Peer::connect(addr).await;
        other.send("GET /").await;
        peer.send_frame(&crate::common::frame::RawFrame::new_channel())
            .await;
        if also_plain {
            let line = other.line().await;
            assert!(line.starts_with("Http1 false Some("), "{line}");
            peer.frame().await;
            peer.echoes(1, "plain").await;
        } else {
            // An alert of TLS, and the end.
            let _ = within("the end", other.0.read_to_end(&mut Vec::new())).await;
            assert!(
                peer.frame_within(GUARD).await.is_some_and(|seen| {
                    matches!(seen, crate::common::peer::Seen::Closed { .. })
                })
            );
        }
    }
}

#[tokio::test]
async fn plain_connections_beside_tls_need_no_handler() {
    let authority = Authority::new("root");
    let config = config().tls(authority.server()).also_plain(true);
    let (_server, addr) = bound(config).await;
    let mut peer = Peer::connect(addr).await;
    peer.open_channel().await;
    peer.echoes(1, "plain").await;
    let client = Client::builder().tls(authority.client());
    let client = within("connecting", client.connect_with(Plain(addr))).await;
    let reply = client
        .expect("a client")
        .request("/echo", "encrypted")
        .await;
    assert_eq!(reply.expect("a reply"), "encrypted");
    let mut http = Peer::connect(addr).await;
    http.send(b"GET / HTTP/1.1\r\n\r\n").await;
    http.closed_in_silence().await;
}

#[tokio::test]
async fn a_handler_that_cannot_work_keeps_the_server_from_starting() {
    #[derive(Debug)]
    struct Broken;

    impl ProtocolHandler for Broken {
        fn accepts(&self, _: Protocol) -> bool {
            true
        }

        fn serve(&self, _: ProtocolConnection) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async {})
        }

        fn check(&self) -> std::io::Result<()> {
            Err(std::io::Error::other("broken"))
        }
    }

    let started = config().fallback_protocol(Broken).bind("127.0.0.1:0").await;
    assert_eq!(started.expect_err("it is broken").to_string(), "broken");
}
